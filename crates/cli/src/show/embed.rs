//! Vectors of texts.

use std::fmt::Write;

use lathe_lab::Compute;
use lathe_lab::embed::{Analysis, EmbedResult, Failing, Kind, Manifest, Pooling, SearchResult, Spread};
use lathe_lab::figure::{count, number, share, value};
use lathe_measure::embedding::cosine;

use super::{computed, lines};
use crate::table::Align;

/// Numbers of a vector that are shown.
const SHOWN: usize = 6;
/// Texts whose cosines fit into a table.
const MOST_COSINES: usize = 20;

/// `lathe embed`
pub(crate) fn embedded(result: &EmbedResult) -> String {
    let manifest = &result.manifest;
    let mut text = String::new();
    if !result.vectors.is_empty() {
        text += &vectors(result);
    }
    if (2..=MOST_COSINES).contains(&result.vectors.len()) {
        text.push('\n');
        text += &cosines(result);
    }
    if !text.is_empty() {
        text.push('\n');
    }
    let _ = writeln!(text, "{}", what(manifest));
    let _ = write!(
        text,
        "{} texts, {} tokens in {} s",
        count(manifest.texts as u64),
        count(manifest.tokens),
        number(result.seconds)
    );
    if result.resumed > 0 {
        let _ = write!(text, "; {} texts were there", count(result.resumed as u64));
    }
    text.push('\n');
    if let Some(chosen) = manifest.alpha.filter(|chosen| chosen.pairs > 0) {
        let _ =
            writeln!(text, "alpha {}, chosen on {} pairs of texts", number(chosen.alpha), count(chosen.pairs as u64));
    }
    for file in &result.files {
        let _ = writeln!(text, "wrote {}", file.display());
    }
    text
}

/// Texts that did not fit.
pub(crate) fn cut(texts: usize, most: usize) -> String {
    let were = if texts == 1 { "text was" } else { "texts were" };
    format!("{} {were} cut to prompts of {} tokens", count(texts as u64), count(most as u64))
}

/// `lathe embed search`
pub(crate) fn found(result: &SearchResult) -> String {
    let mut text = String::new();
    for (index, query) in result.queries.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        let _ = writeln!(text, "{}", query.query);
        let rows = query.found.iter().map(|found| {
            let numbers = [four_digits(found.cosine), found.index.to_string()];
            numbers.into_iter().chain(found.text.clone()).collect()
        });
        // NumPy's arrays have no texts.
        let titles = [("cosine", Align::Right), ("row", Align::Right), ("text", Align::Left)];
        let shown = if query.found.iter().any(|found| found.text.is_some()) { 3 } else { 2 };
        text += &lines(&titles[..shown], rows.collect());
    }
    text
}

/// `lathe embed analyse`
pub(crate) fn analysed(result: &Analysis) -> String {
    let spread = |of: &Spread| match (of.least.value(), of.most.value()) {
        (Some(least), Some(most)) => format!("{} ({} to {})", value(of.mean), number(least), number(most)),
        _ => "–".into(),
    };
    let rows = result.clusters.rows.iter().map(|row| {
        let name = if row.is_control { format!("control: {}", row.name) } else { row.name.clone() };
        let numbers = [&row.ami, &row.nmi, &row.jaccard, &row.matched].map(spread);
        [vec![name], numbers.to_vec()].concat()
    });
    let titles = ["AMI", "NMI", "Jaccard", "matched"].map(|title| (title, Align::Left));
    let title = format!("{} clusters, {} seeds", result.clusters.clusters, result.clusters.seeds);
    let mut text = lines(&[&[(title.as_str(), Align::Left)], &titles[..]].concat(), rows.collect());
    let prompts = &result.prompts;
    let _ = writeln!(
        text,
        "\nSpearman of {} similarities under two of nine prompts: HS {}, RW {}, HS with RW {}",
        count(prompts.pairs as u64),
        value(prompts.within_hidden),
        value(prompts.within_router),
        value(prompts.between)
    );
    if let Some(of) = &result.failures {
        let failing = |name: &str, of: &Failing| {
            vec![name.to_owned(), count(of.failures as u64), share(of.other_right), share(of.other_right_by_chance)]
        };
        let rows = vec![failing("HS", &of.of_hidden), failing("RW", &of.of_router)];
        let title = format!("failing on {} items", count(of.items as u64));
        let titles = [
            (title.as_str(), Align::Left),
            ("failures", Align::Right),
            ("the other is right", Align::Right),
            ("by chance", Align::Right),
        ];
        let _ = write!(text, "\n{}Failing: {}.\n", lines(&titles, rows), of.definition);
    }
    if let Some(out) = &result.spec.out {
        let _ = writeln!(text, "\nThe page is {}", out.display());
    }
    text
}

/// What the vectors are, in a sentence.
fn what(manifest: &Manifest) -> String {
    let hidden = || {
        let pooling = match manifest.features.hidden.pooling {
            Pooling::Usual | Pooling::Last => "last token",
            Pooling::First => "first token",
            Pooling::Mean => "mean over tokens",
            Pooling::MeanSqrtLength => "sum over tokens / √n",
            Pooling::WeightedMean => "weighted mean over tokens",
            Pooling::Max => "maximum over tokens",
        };
        format!("{} of hidden states ({pooling})", count(manifest.hidden_width as u64))
    };
    let router = || {
        let width = manifest.router_width.unwrap_or(0);
        format!("{} of routers in {} layers", count(width as u64), manifest.experts.len())
    };
    let parts = match manifest.vectors.kind {
        Kind::Hs => hidden(),
        Kind::Rw => router(),
        Kind::Concat | Kind::Sum => format!("{} and {}", hidden(), router()),
    };
    let prompt = &manifest.features.prompt;
    let rounded = match manifest.features.compute {
        Compute::F32 => String::new(),
        other => format!(", {}", computed(other)),
    };
    let (width, model) = (count(manifest.width as u64), &manifest.model);
    format!("{width} numbers a text: {parts}; model {model}, prompt {prompt}{rounded}")
}

fn vectors(result: &EmbedResult) -> String {
    let rows = result.vectors.iter().enumerate().map(|(index, of)| {
        let norm = of.vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let first: Vec<String> = of.vector.iter().take(SHOWN).map(|x| number(f64::from(*x))).collect();
        let more = if of.vector.len() > SHOWN { " …" } else { "" };
        vec![
            index.to_string(),
            of.text.clone(),
            count(of.vector.len() as u64),
            number(norm),
            format!("{}{more}", first.join(" ")),
        ]
    });
    let titles = [
        ("", Align::Right),
        ("text", Align::Left),
        ("numbers", Align::Right),
        ("length", Align::Right),
        ("first ones", Align::Left),
    ];
    lines(&titles, rows.collect())
}

fn cosines(result: &EmbedResult) -> String {
    let vectors = &result.vectors;
    let numbers: Vec<String> = (0..vectors.len()).map(|index| index.to_string()).collect();
    let mut titles = vec![("cosine", Align::Right)];
    titles.extend(numbers.iter().map(|number| (number.as_str(), Align::Right)));
    let rows = vectors.iter().enumerate().map(|(index, a)| {
        let cosines = vectors.iter().map(|b| four_digits(cosine(&a.vector, &b.vector)));
        std::iter::once(index.to_string()).chain(cosines).collect()
    });
    lines(&titles, rows.collect())
}

/// A cosine for a table: with the digits that matter to an order.
fn four_digits(cosine: f64) -> String {
    format!("{cosine:.4}").replace('-', "−")
}
