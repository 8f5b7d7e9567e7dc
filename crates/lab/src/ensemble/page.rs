//! Who voted for what: a page of texts, symbol by symbol.
//!
//! Every symbol is a link to its own table, which the style sheet shows while the symbol is pointed at, has the focus or
//! was followed: no script, and a keyboard reaches everything.

use std::fmt::Write as _;

use lathe_decode::ensemble::{EnsembleEnd, Origin};

use super::record::SymbolRecord;
use super::{EnsembleString, StepRecord, VoteRecord};
use crate::figure::{count, escape, percent, visible};
use crate::report::page::STYLE;
use crate::report::page::html::{model_cell, running_text, text};

/// Symbols of all texts together that the page shows: each has a table, and browsers are slow with many more.
const MOST_SYMBOLS: usize = 2_000;

/// Lower bounds of the steps of probability; a symbol below the last one is in one more.
const STEPS: [f64; 5] = [0.9, 0.7, 0.5, 0.3, 0.1];

/// The page.
#[must_use]
pub fn explain_page(ensemble: &str, members: &[String], texts: &[EnsembleString]) -> String {
    let names: Vec<String> = members.iter().map(|name| format!("<span class=\"name\">{}</span>", text(name))).collect();
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}: lathe ensemble</title>\n\
         <style>\n{STYLE}{own}</style>\n</head>\n<body>\n<header>\n<p class=\"kind\">lathe ensemble</p>\n\
         <h1>{names}</h1>\n<p class=\"verdict\">{ensemble}</p>\n{summary}</header>\n<main id=\"texts\">\n",
        title = text(&members.join(", ")),
        own = include_str!("page.css"),
        names = names.join("<span class=\"and\"> + </span>"),
        ensemble = text(ensemble),
        summary = summary(members, texts),
    );
    html += &legend(members);
    let mut left = MOST_SYMBOLS;
    let mut number = 0;
    for written in texts {
        if left == 0 && !written.steps.is_empty() {
            continue;
        }
        let shown = written.steps.len().min(left);
        html += &one_text(written, shown, members, &mut number);
        left -= shown;
    }
    html += &left_out(texts);
    html + "</main>\n</body>\n</html>\n"
}

/// What the texts say of the ensemble as a whole.
fn summary(members: &[String], texts: &[EnsembleString]) -> String {
    let steps = || texts.iter().flat_map(|text| &text.steps);
    let symbols = steps().count();
    if symbols == 0 {
        return String::new();
    }
    let together = steps().filter(|step| step.origin == Origin::Ensemble).count();
    let firsts: Vec<Vec<Option<usize>>> = steps().map(|step| first_choices(step, members.len())).collect();
    let compared = firsts.iter().filter(|firsts| firsts.iter().flatten().count() > 1).count();
    let split = firsts.iter().filter(|firsts| differ(firsts)).count();
    let share = |part: usize, of: usize| if of == 0 { "–".to_owned() } else { percent(part as f64 / of as f64) };
    let facts = [
        ("members", count(members.len() as u64)),
        ("symbols", count(symbols as u64)),
        ("chosen by all together", share(together, symbols)),
        ("first choices differ", share(split, compared)),
    ];
    let facts: String =
        facts.map(|(name, value)| format!("<div><dt>{name}</dt><dd>{}</dd></div>", text(&value))).concat();
    let sentence = match compared {
        0 => "No symbol has the votes of two members.".to_owned(),
        _ => format!(
            "Of the {} symbols for which two members or more were asked, they have different first choices at {}.",
            count(compared as u64),
            count(split as u64)
        ),
    };
    format!("<dl class=\"glance\">{facts}</dl>\n<p class=\"note\">{}</p>\n", escape(&sentence))
}

fn legend(members: &[String]) -> String {
    let first = text(members.first().map_or("the first member", String::as_str));
    let mut html = "<p class=\"key-line\">line below, who chose it: ".to_owned();
    for origin in [Origin::Ensemble, Origin::Agreed, Origin::NoBoundary] {
        let words = match origin {
            Origin::Ensemble => "all members together".to_owned(),
            Origin::Agreed => format!("{first}, the others agree"),
            Origin::NoBoundary => format!("{first}, as another member has no token that begins here"),
        };
        let _ = write!(html, "<span class=\"symbol {}\">{words}</span> ", origin_class(origin));
    }
    html += "</p>\n<p class=\"key-line\">line above: <span class=\"symbol split\">members have different first \
             choices</span></p>\n<p class=\"key-line\">ground, its probability: ";
    let bound = |step: usize| format!("{:.0}\u{a0}%", 100.0 * STEPS[step]);
    for step in 0..=STEPS.len() {
        let label = match step {
            step if step == STEPS.len() => format!("under {}", bound(step - 1)),
            step => format!("{} or more", bound(step)),
        };
        let _ = write!(html, "<span class=\"symbol p{step}\">{label}</span> ");
    }
    html + "</p>\n<div class=\"hint\"><p>Point at a symbol, or go to it with the Tab key, to see its votes. Follow \
            it, with a click or Enter, and they stay.</p><p>A bar and its number are the probability that a member \
            gives to a candidate, among the candidates that the method compares.</p></div>\n<span id=\"nothing\"></span>\n"
}

fn origin_class(origin: Origin) -> &'static str {
    match origin {
        Origin::Ensemble => "ensemble",
        Origin::Agreed => "agreed",
        Origin::NoBoundary => "no-boundary",
    }
}

/// A text and the tables of its first `shown` symbols; `number` counts symbols of the page.
fn one_text(written: &EnsembleString, shown: usize, members: &[String], number: &mut usize) -> String {
    let first = members.first().map_or("the first member", String::as_str);
    let mut html = format!(
        "<section class=\"text\">\n<h2>Prompt {}, text {}</h2>\n<p class=\"decoding\">{} of {}; {}</p>\n",
        count(written.prompt as u64 + 1),
        count(written.sample as u64 + 1),
        counted(written.tokens, "token"),
        text(first),
        ended(&written.ended, members),
    );
    if written.steps.is_empty() {
        let body = match written.text.is_empty() {
            true => "<p class=\"absent\">Nothing was written.</p>".to_owned(),
            false => format!(
                "<div class=\"written\" dir=\"auto\">{}</div><p class=\"absent\">No votes were recorded.</p>",
                running_text(&written.text)
            ),
        };
        return html + &body + "\n</section>\n";
    }
    html += "<div class=\"written\" dir=\"auto\">";
    for step in &written.steps[..shown] {
        html += &one_symbol(step, members, *number);
        *number += 1;
    }
    html += "</div>\n";
    if written.steps.iter().any(|step| step.symbol.hex.is_some()) {
        // Parts of characters can't be read one by one.
        let whole = running_text(&written.text);
        let _ = writeln!(
            html,
            "<details><summary>The text as a whole</summary><div class=\"written\" dir=\"auto\">{whole}</div></details>"
        );
    }
    html + "</section>\n"
}

fn counted(n: usize, what: &str) -> String {
    format!("{} {what}{}", count(n as u64), if n == 1 { "" } else { "s" })
}

fn ended(end: &EnsembleEnd, members: &[String]) -> String {
    match end {
        EnsembleEnd::EndSymbol => "the members ended it".to_owned(),
        EnsembleEnd::StopString { string } => format!("ended before the stop string {}", code(string)),
        EnsembleEnd::Length => "it has as many tokens as it may have".to_owned(),
        EnsembleEnd::ContextFull { member } => {
            format!("{} has no room to read on", text(members.get(*member).map_or("a member", String::as_str)))
        }
    }
}

/// A link that is the symbol, and the table that it leads to.
fn one_symbol(step: &StepRecord, members: &[String], number: usize) -> String {
    let firsts = first_choices(step, members.len());
    let split = if differ(&firsts) { " split" } else { "" };
    format!(
        "<a class=\"symbol {} p{}{split}\" href=\"#s{number}\">{}</a>{}",
        origin_class(step.origin),
        probability_step(step.p),
        in_text(&step.symbol),
        votes(step, &firsts, members, number),
    )
}

fn probability_step(p: f64) -> usize {
    STEPS.iter().take_while(|bound| p < **bound).count()
}

/// The candidate that each member finds most probable, by its place among the votes; none for a member that was not asked
/// or had nothing to say.
fn first_choices(step: &StepRecord, members: usize) -> Vec<Option<usize>> {
    let first = |member: usize| {
        let mut best: Option<(usize, f64)> = None;
        for (place, vote) in step.votes.iter().enumerate() {
            let p = vote.members.get(member).copied().unwrap_or(0.0);
            if p > best.map_or(0.0, |(_, most)| most) {
                best = Some((place, p));
            }
        }
        best.map(|(place, _)| place)
    };
    (0..members).map(first).collect()
}

fn differ(firsts: &[Option<usize>]) -> bool {
    let mut asked = firsts.iter().flatten();
    asked.next().is_some_and(|first| asked.any(|other| other != first))
}

fn votes(step: &StepRecord, firsts: &[Option<usize>], members: &[String], number: usize) -> String {
    let first = members.first().map_or("the first member", String::as_str);
    let who = match step.origin {
        Origin::Ensemble => "all members together".to_owned(),
        Origin::Agreed => format!("{}; the others agree", text(first)),
        Origin::NoBoundary => format!("{}; another member has no token that begins here", text(first)),
    };
    let mut html = format!(
        "<div class=\"votes\" id=\"s{number}\" dir=\"ltr\"><a class=\"close\" href=\"#nothing\">close</a><p><b>{}</b> {}, chosen by \
         {who}</p>",
        candidate(&step.symbol),
        share(step.p),
    );
    html += &opinions(step, firsts, members);
    if step.votes.is_empty() {
        return html + "</div>";
    }
    html += "<table><thead><tr><th scope=\"col\">candidate</th><th scope=\"col\">combined</th>";
    for (member, name) in members.iter().enumerate() {
        let _ = write!(html, "<th scope=\"col\">{}</th>", model_cell(member, name));
    }
    html += "</tr></thead><tbody>";
    for (place, vote) in step.votes.iter().enumerate() {
        html += &row(vote, place, vote.symbol == step.symbol, firsts);
    }
    html + "</tbody></table></div>"
}

/// Who would have written something else.
fn opinions(step: &StepRecord, firsts: &[Option<usize>], members: &[String]) -> String {
    let mut sentences = Vec::new();
    for (name, first) in members.iter().zip(firsts) {
        match first.map(|place| &step.votes[place].symbol) {
            Some(symbol) if *symbol != step.symbol => {
                sentences.push(format!("{} would have written {}.", text(name), candidate(symbol)));
            }
            Some(_) => {}
            None => sentences.push(format!("{} has no vote here.", text(name))),
        }
    }
    if sentences.is_empty() {
        sentences.push("It is every member's first choice.".to_owned());
    }
    if !step.votes.is_empty() && !step.votes.iter().any(|vote| vote.symbol == step.symbol) {
        sentences.push("It was drawn from below the candidates shown.".to_owned());
    }
    format!("<p>{}</p>", sentences.join(" "))
}

fn row(vote: &VoteRecord, place: usize, is_chosen: bool, firsts: &[Option<usize>]) -> String {
    let (class, mark) = if is_chosen { (" class=\"chosen\"", " <span class=\"why\">chosen</span>") } else { ("", "") };
    let mut html = format!("<tr{class}><th scope=\"row\">{}{mark}</th>{}", candidate(&vote.symbol), cell(vote.p, ""));
    for (member, first) in firsts.iter().enumerate() {
        html += &match first {
            None => "<td>–</td>".to_owned(),
            Some(best) => {
                let mark = if *best == place { " <span class=\"why\">first</span>" } else { "" };
                cell(vote.members.get(member).copied().unwrap_or(0.0), mark)
            }
        };
    }
    html + "</tr>"
}

/// A probability with its bar.
fn cell(p: f64, mark: &str) -> String {
    let bar = if p.is_finite() { p.clamp(0.0, 1.0) } else { 0.0 };
    format!("<td style=\"--p:{bar:.3}\">{}{mark}</td>", share(p))
}

/// A probability as a percentage (HTML); one that would be rounded to nothing says so.
fn share(p: f64) -> String {
    if p > 0.0 && p < 0.0005 { "&lt;0.1\u{a0}%".to_owned() } else { percent(p).replace(' ', "\u{a0}") }
}

/// A symbol in running text.
fn in_text(symbol: &SymbolRecord) -> String {
    match (&symbol.text, &symbol.hex) {
        (None, _) => "<span class=\"sign\">end of text</span>".to_owned(),
        (Some(_), Some(hex)) => bytes(hex),
        (Some(text), None) => running_text(text),
    }
}

/// A symbol by itself: spaces are visible, so that ` cat` and `cat` are two.
fn candidate(symbol: &SymbolRecord) -> String {
    match (&symbol.text, &symbol.hex) {
        (None, _) => "<span class=\"sign\">end of text</span>".to_owned(),
        (Some(_), Some(hex)) => format!("<code>{}</code>", bytes(hex)),
        (Some(text), None) => code(text),
    }
}

fn code(raw: &str) -> String {
    let shown = escape(&visible(raw)).replace(' ', "␣").replace('␣', "<span class=\"space\">␣</span>");
    format!("<code>{shown}</code>")
}

/// Bytes that are no UTF-8, as `⟨C3⟩⟨A9⟩`; what of them is text stays text.
fn bytes(hex: &str) -> String {
    let digits = |at: usize| hex.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let all: Vec<u8> = (0..hex.len() / 2).filter_map(|index| digits(2 * index)).collect();
    let mut shown = String::new();
    for chunk in all.utf8_chunks() {
        shown += &running_text(chunk.valid());
        for byte in chunk.invalid() {
            let _ = write!(shown, "<span class=\"sign\">⟨{byte:02X}⟩</span>");
        }
    }
    shown
}

/// What the page has no room for.
fn left_out(texts: &[EnsembleString]) -> String {
    let symbols: usize = texts.iter().map(|text| text.steps.len()).sum();
    if symbols <= MOST_SYMBOLS {
        return String::new();
    }
    format!(
        "<p class=\"absent\">The page shows the first {} of {} symbols. The numbers above are of all of them, and the JSON \
         lines of the texts hold the votes of each.</p>\n",
        count(MOST_SYMBOLS as u64),
        count(symbols as u64),
    )
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use lathe_decode::ensemble::Counts;

    use super::*;
    use crate::report::tests::{assert_balanced, assert_self_contained};

    fn symbol(text: &str) -> SymbolRecord {
        SymbolRecord { text: Some(text.to_owned()), hex: None }
    }

    const END: SymbolRecord = SymbolRecord { text: None, hex: None };

    fn vote(symbol: SymbolRecord, members: &[f64]) -> VoteRecord {
        VoteRecord { symbol, p: members.iter().sum::<f64>() / members.len() as f64, members: members.to_vec() }
    }

    fn step(origin: Origin, votes: Vec<VoteRecord>) -> StepRecord {
        StepRecord { symbol: votes[0].symbol.clone(), origin, p: votes[0].p, votes }
    }

    /// A text of two members with every kind of symbol.
    fn written() -> EnsembleString {
        let half = SymbolRecord { text: Some("\u{fffd}".to_owned()), hex: Some("61c3".to_owned()) };
        let steps = vec![
            step(Origin::Ensemble, vec![vote(symbol("The"), &[0.8, 0.3]), vote(symbol("A"), &[0.1, 0.6])]),
            step(Origin::Agreed, vec![vote(symbol(" cat"), &[0.95, 0.99]), vote(symbol("cat"), &[0.01, 0.0001])]),
            step(Origin::NoBoundary, vec![vote(symbol(" <script>alert(1)</script>\u{202e}"), &[0.4, 0.0])]),
            step(Origin::Ensemble, vec![vote(symbol("\n\t"), &[0.5, 0.5]), vote(END, &[0.2, 0.1])]),
            step(Origin::Ensemble, vec![vote(half, &[0.05, 0.05])]),
            step(Origin::Ensemble, vec![vote(END, &[0.9, 0.9])]),
        ];
        EnsembleString {
            prompt: 0,
            sample: 0,
            text: "The cat <script>alert(1)</script>\u{202e}\n\ta\u{fffd}".to_owned(),
            tokens: 7,
            ended: EnsembleEnd::StopString { string: "\n\"<b>".to_owned() },
            counts: Counts::default(),
            steps,
        }
    }

    fn members() -> Vec<String> {
        vec!["smollm2".to_owned(), "<i>\"odd\" & name</i>".to_owned()]
    }

    fn pages() -> Vec<String> {
        let bare = EnsembleString { steps: Vec::new(), ended: EnsembleEnd::Length, ..written() };
        let empty = EnsembleString { text: String::new(), ended: EnsembleEnd::EndSymbol, ..bare.clone() };
        let full = EnsembleString { ended: EnsembleEnd::ContextFull { member: 9 }, ..written() };
        vec![
            explain_page("smollm2+<i> unite k=10", &members(), &[written(), full]),
            explain_page("", &members(), &[bare, empty]),
            explain_page("none", &[], &[written()]),
            explain_page("nothing", &members(), &[]),
        ]
    }

    #[test]
    fn pages_are_well_formed_and_need_nothing_else() {
        for html in pages() {
            assert_balanced(&html);
            assert_self_contained(&html);
        }
    }

    #[test]
    fn every_symbol_leads_to_its_table() {
        let html = explain_page("unite", &members(), &[written(), written()]);
        for number in 0..12 {
            assert_eq!(html.matches(&format!("href=\"#s{number}\"")).count(), 1);
            assert_eq!(html.matches(&format!("id=\"s{number}\"")).count(), 1);
        }
        assert_eq!(html.matches("<a class=\"symbol").count(), 12);
    }

    #[test]
    fn a_table_says_who_wanted_what() {
        let html = explain_page("unite", &members(), &[written()]);
        let table = |number: usize| {
            let (_, rest) = html.split_once(&format!("id=\"s{number}\"")).unwrap();
            rest.split_once("</div>").unwrap().0.to_owned()
        };
        let first = table(0);
        assert!(first.contains("chosen by all members together"), "{first}");
        assert!(first.contains("name&lt;/i&gt; would have written <code>A</code>."), "{first}");
        assert!(first.contains("<td style=\"--p:0.800\">80.0\u{a0}% <span class=\"why\">first</span></td>"), "{first}");
        let second = table(1);
        assert!(second.contains("smollm2; the others agree") && second.contains("every member's first choice"));
        assert!(second.contains("<code><span class=\"space\">␣</span>cat</code> <span class=\"why\">chosen</span>"));
        assert!(second.contains("<th scope=\"row\"><code>cat</code></th>") && second.contains("&lt;0.1\u{a0}%"));
        let third = table(2);
        assert!(third.contains("no token that begins here") && third.contains("name&lt;/i&gt; has no vote here."));
        assert!(third.contains("<td>–</td>") && third.contains("⟨U+202E⟩"));
        assert!(table(4).contains("<code>a<span class=\"sign\">⟨C3⟩</span></code>"), "{}", table(4));
        assert!(table(5).contains("<span class=\"sign\">end of text</span>"));
    }

    #[test]
    fn what_was_drawn_need_not_be_among_the_candidates() {
        let mut text = written();
        text.steps[0].symbol = symbol("Zebra");
        let html = explain_page("unite", &members(), &[text]);
        assert!(html.contains("It was drawn from below the candidates shown."));
    }

    #[test]
    fn the_numbers_on_top_are_of_all_symbols() {
        let html = explain_page("unite", &members(), &[written()]);
        // Four of six were chosen together; one of five symbols with two votes is disputed.
        for fact in ["<dd>6</dd>", "<dd>66.7 %</dd>", "<dd>20.0 %</dd>", "Of the 5 symbols for which"] {
            assert!(html.contains(fact), "{fact}");
        }
        assert_eq!(html.matches(" split\" href").count(), 1);
        assert!(html.contains("ended before the stop string <code>↵&quot;&lt;b&gt;</code>"));
    }

    #[test]
    fn long_texts_are_cut_with_a_sentence() {
        let mut long = written();
        long.steps = vec![long.steps[1].clone(); MOST_SYMBOLS - 1];
        let html = explain_page("unite", &members(), &[long.clone(), long.clone(), long]);
        assert_eq!(html.matches("<a class=\"symbol").count(), MOST_SYMBOLS);
        assert!(html.contains("The page shows the first 2,000 of 5,997 symbols."));
        assert!(html.contains("<dd>5,997</dd>"));
        assert!(!explain_page("unite", &members(), &[written()]).contains("The page shows the first"));
    }

    #[test]
    fn steps_of_probability_are_half_open() {
        assert_eq!([1.0, 0.9, 0.89, 0.5, 0.1, 0.09, 0.0].map(probability_step), [0, 0, 1, 2, 4, 5, 5]);
    }

    /// Writes a page of made-up votes into the folder named by LATHE_REPORT_PREVIEW, for looking at it.
    #[test]
    #[ignore = "writes a file to look at; run with LATHE_REPORT_PREVIEW=folder"]
    fn preview() {
        let Some(folder) = std::env::var_os("LATHE_REPORT_PREVIEW") else {
            return;
        };
        let names: Vec<String> = ["smollm2", "gemma3-270m", "qwen2.5-coder-0.5b"].map(str::to_owned).to_vec();
        let prose = crate::sample::texts().iter().find(|text| text.name == "english").unwrap().text;
        let words: Vec<&str> = prose.split_inclusive(' ').take(160).collect();
        let steps = words.iter().enumerate().map(|(at, word)| {
            let p = |salt: usize| ((at * 37 + salt * 11) % 97) as f64 / 97.0;
            let others = ["the", " of", "\n", "日本", "\u{200b}", "<b>"];
            let mut votes = vec![vote(symbol(word), &[p(1), p(2), p(3)])];
            votes.extend((0..6).map(|k| vote(symbol(others[(at + k) % 6]), &[0.3 * p(k + 4), 0.2 * p(k), 0.1 * p(7)])));
            votes.sort_by(|a, b| b.p.total_cmp(&a.p));
            let origin = [Origin::Agreed, Origin::Ensemble, Origin::Agreed, Origin::NoBoundary][at % 4];
            if origin == Origin::NoBoundary {
                votes = vec![vote(symbol(word), &[p(1), 0.0, 0.0])];
            }
            step(origin, votes)
        });
        let text = EnsembleString { steps: steps.collect(), text: words.concat(), ..written() };
        let html = explain_page("smollm2+gemma3-270m+qwen2.5-coder-0.5b unite k=10", &names, &[text, written()]);
        std::fs::write(std::path::Path::new(&folder).join("votes.html"), html).unwrap();
    }
}
