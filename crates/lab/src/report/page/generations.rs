//! What the models wrote, each token marked by its surprisal.

use std::fmt::Write as _;

use super::html::{Table, absences, panel as frame, running_text, text};
use crate::figure::number;
use crate::report::data::{GeneratedToken, Generation, ModelReport, Panel, Report};

/// Upper bounds of the surprisal steps in bits; the last step has none. 1 bit is a coin toss, 13 bits one in 8,192.
const STEPS: [f64; 6] = [1.0, 2.0, 4.0, 6.0, 9.0, 13.0];

pub(super) fn panel(report: &Report, names: &[String]) -> String {
    let models = &report.models;
    let most = models.iter().map(|model| model.generations.len()).max().unwrap_or(0);
    let mut written = String::new();
    for index in 0..most {
        written += "<div class=\"sample\">";
        let mut previous: Option<&str> = None;
        for (model, name) in models.iter().zip(names) {
            let Some(generation) = model.generations.get(index) else {
                continue;
            };
            if previous != Some(generation.prompt.as_str()) {
                let _ = write!(written, "<p class=\"prompt\" dir=\"auto\">{}</p>", running_text(&generation.prompt));
            }
            previous = Some(&generation.prompt);
            let shown = if models.len() > 1 { Some(name.as_str()) } else { None };
            written += &generated(generation, shown);
        }
        written += "</div>";
    }
    let legend = if most > 0 { legend() } else { String::new() };
    let absent = absences(models, names, Panel::Generations, |model| !model.generations.is_empty());
    let how = "Each token carries the surprisal that the model itself gave it: a warmer ground and a thicker underline \
               mean more bits. Point at a token for its number. A fluent text that is cold throughout was nearly \
               certain; a hot token is where another continuation was likelier.";
    let table = table(models, names).folded("Tokens and their surprisal in bits");
    frame("generations", "Sample generations", how, &(legend + &written + &table + &absent))
}

fn legend() -> String {
    let mut html = "<p class=\"legend\">surprisal in bits: ".to_owned();
    for step in 0..=STEPS.len() {
        let label = match step {
            0 => format!("under {}", STEPS[0]),
            step if step == STEPS.len() => format!("{} or more", STEPS[step - 1]),
            step => format!("{}–{}", STEPS[step - 1], STEPS[step]),
        };
        let _ = write!(html, "<span class=\"t s{step}\">{label}</span> ");
    }
    html + "<span class=\"t unknown\">unknown</span></p>"
}

fn generated(generation: &Generation, name: Option<&str>) -> String {
    let mut html = String::new();
    let name = name.map_or(String::new(), |name| format!("{} · ", text(name)));
    let surprisals = generation.tokens.iter().filter_map(surprisal);
    let (sum, n) = surprisals.fold((0.0, 0_u64), |(sum, n), bits| (sum + bits, n + 1));
    let mean = if n > 0 { format!(" · mean {} bits over {n} tokens", number(sum / n as f64)) } else { String::new() };
    let _ = write!(html, "<p class=\"decoding\">{name}{}{mean}</p>", text(&generation.decoding));
    if generation.tokens.is_empty() {
        return html + "<p class=\"absent\">The model wrote nothing: its first token ended the text.</p>";
    }
    html += "<p class=\"generated\" dir=\"auto\">";
    for token in &generation.tokens {
        let (class, title) = match surprisal(token) {
            Some(bits) => (format!("s{}", step(bits)), format!("{} bits", number(bits))),
            None => ("unknown".to_owned(), "surprisal unknown".to_owned()),
        };
        let _ = write!(html, "<span class=\"t {class}\" title=\"{title}\">{}</span>", running_text(&token.text));
    }
    html + "</p>"
}

fn surprisal(token: &GeneratedToken) -> Option<f64> {
    token.surprisal.filter(|bits| bits.is_finite())
}

fn step(bits: f64) -> usize {
    STEPS.iter().take_while(|bound| bits >= **bound).count()
}

fn table(models: &[ModelReport], names: &[String]) -> Table {
    let mut table = Table::new(&["generation", "model", "tokens in order, each with its surprisal in bits"]);
    for (model, name) in models.iter().zip(names) {
        for (index, generation) in model.generations.iter().enumerate() {
            let tokens = generation.tokens.iter().map(|token| {
                let bits = surprisal(token).map_or("–".to_owned(), number);
                format!("<span class=\"pair\"><code>{}</code>&nbsp;{bits}</span>", text(&token.text))
            });
            let tokens = format!("<span class=\"pairs\">{}</span>", tokens.collect::<Vec<_>>().join(" "));
            table.rows.push(vec![(index + 1).to_string(), text(name), tokens]);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_half_open() {
        assert_eq!(step(0.0), 0);
        assert_eq!(step(0.999), 0);
        assert_eq!(step(1.0), 1);
        assert_eq!(step(12.9), 5);
        assert_eq!(step(13.0), 6);
        assert_eq!(step(1e9), 6);
    }
}
