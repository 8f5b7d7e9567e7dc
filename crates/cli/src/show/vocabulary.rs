//! Results about vocabularies.

use std::fmt::Write;

use lathe_lab::figure::{bytes, count, percent};
use lathe_lab::report::TextKind;
use lathe_lab::{Boundaries, SameBytes, VocabularyFacts, VocabularyPair, VocabularyResult};

use super::lines;
use crate::table::Align;

/// `lathe inspect --vocab`
pub(crate) fn vocabulary(result: &VocabularyResult) -> String {
    let mut out = format!("{}\n{}", facts(&result.models), texts(&result.models));
    if result.pairs.is_empty() {
        return out;
    }
    let name = |place: usize| result.models[place].name.as_str();
    let label = |pair: &VocabularyPair| format!("{} + {}", name(pair.left), name(pair.right));
    let _ = write!(out, "\nThe same tokens:\n\n{}", shared(&result.pairs, label));
    if result.pairs.iter().any(|pair| !pair.same_bytes.is_empty()) {
        let _ = write!(out, "\nSome that are the same only as bytes:\n\n{}", same_bytes(&result.pairs, label));
    }
    let _ = write!(
        out,
        "\nPlaces where both split the same texts ({}, {}):\n\n{}",
        result.sample,
        bytes(result.sample_bytes as u64),
        split(&result.pairs, label),
    );
    out + "\nspelling: as the files write tokens. bytes: what tokens add to a text. share: of all places where either splits.\n"
}

fn facts(models: &[VocabularyFacts]) -> String {
    let number = |n: Option<usize>| n.map_or("–".to_owned(), |n| count(n as u64));
    let row = |model: &VocabularyFacts| {
        vec![
            model.name.clone(),
            count(model.ids as u64),
            count(model.text_tokens as u64),
            number(model.strings),
            number(model.strings_with_several_ids),
            count(model.control_tokens as u64),
            count(model.unused_ids as u64),
            count(model.padding_rows as u64),
        ]
    };
    lines(
        &[
            ("vocabulary", Align::Left),
            ("ids", Align::Right),
            ("of text", Align::Right),
            ("byte strings", Align::Right),
            ("with several ids", Align::Right),
            ("control", Align::Right),
            ("unused", Align::Right),
            ("padding rows", Align::Right),
        ],
        models.iter().map(row).collect(),
    )
}

/// What the models do to texts: names of tokens are the files' own, and only a table makes them safe to print.
fn texts(models: &[VocabularyFacts]) -> String {
    let row = |model: &VocabularyFacts| {
        let ends = model.end_tokens.iter().map(|end| format!("{} {}", end.id, end.token.as_deref().unwrap_or("?")));
        let comparable = match &model.refused {
            None => "yes: a probe of scripts, spaces and signs comes back as it was".to_owned(),
            Some(reason) => format!("no: {reason}"),
        };
        vec![model.name.clone(), ends.collect::<Vec<_>>().join(", "), comparable]
    };
    lines(
        &[("vocabulary", Align::Left), ("end of a text", Align::Left), ("comparable as bytes", Align::Left)],
        models.iter().map(row).collect(),
    )
}

fn shared(pairs: &[VocabularyPair], label: impl Fn(&VocabularyPair) -> String) -> String {
    let row = |pair: &VocabularyPair| {
        vec![
            label(pair),
            count(pair.overlap.left),
            count(pair.overlap.right),
            count(pair.overlap.shared_strings),
            count(pair.overlap.shared_bytes),
            percent(pair.share_of_left),
            percent(pair.share_of_right),
        ]
    };
    lines(
        &[
            ("models", Align::Left),
            ("first has", Align::Right),
            ("second has", Align::Right),
            ("same spelling", Align::Right),
            ("same bytes", Align::Right),
            ("of the first", Align::Right),
            ("of the second", Align::Right),
        ],
        pairs.iter().map(row).collect(),
    )
}

fn same_bytes(pairs: &[VocabularyPair], label: impl Fn(&VocabularyPair) -> String) -> String {
    let rows = pairs.iter().flat_map(|pair| {
        let names = std::iter::once(label(pair)).chain(std::iter::repeat(String::new()));
        let row =
            |(name, same): (String, &SameBytes)| vec![name, same.left.clone(), same.right.clone(), same.bytes.clone()];
        names.zip(&pair.same_bytes).map(row).collect::<Vec<_>>()
    });
    lines(
        &[
            ("models", Align::Left),
            ("first writes", Align::Left),
            ("second writes", Align::Left),
            ("bytes", Align::Left),
        ],
        rows.collect(),
    )
}

fn split(pairs: &[VocabularyPair], label: impl Fn(&VocabularyPair) -> String) -> String {
    let share = |share: Option<f64>| share.map_or("–".to_owned(), percent);
    let rows = pairs.iter().flat_map(|pair| {
        let names = std::iter::once(label(pair)).chain(std::iter::repeat(String::new()));
        let row = |(name, of): (String, &Boundaries)| {
            vec![
                name,
                kind(of.kind).to_owned(),
                count(of.left as u64),
                count(of.right as u64),
                count(of.common as u64),
                share(of.share),
                share(of.share_of_left),
                share(of.share_of_right),
            ]
        };
        names.zip(&pair.boundaries).map(row).collect::<Vec<_>>()
    });
    lines(
        &[
            ("models", Align::Left),
            ("texts", Align::Left),
            ("first", Align::Right),
            ("second", Align::Right),
            ("both", Align::Right),
            ("share", Align::Right),
            ("of the first's", Align::Right),
            ("of the second's", Align::Right),
        ],
        rows.collect(),
    )
}

fn kind(kind: Option<TextKind>) -> &'static str {
    match kind {
        None => "all",
        Some(TextKind::Language) => "languages",
        Some(TextKind::Legal) => "legal",
        Some(TextKind::Prose) => "prose",
        Some(TextKind::Code) => "code",
    }
}
