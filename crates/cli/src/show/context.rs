//! Context reliance, and the records that it needs.

use std::fmt::Write;
use std::ops::Range;

use lathe_lab::data::{ConflictsResult, CriticalBy, CriticalResult, InstructionsResult};
use lathe_lab::figure::{count, measured, number, percent, value};
use lathe_lab::measure::{ConflictAudit, ContextResult, ModelContext};
use lathe_measure::context::Reliance;
use lathe_measure::{Estimate, Number};

use super::lines;
use crate::table::Align;

/// `lathe measure context`
pub(crate) fn context(result: &ContextResult) -> String {
    let mut text = audit(&result.data);
    let rows = result.models.iter().flat_map(|model| {
        let known = model.known.iter().map(|known| row("", "known", known));
        [row(&model.model, "all", &model.all)].into_iter().chain(known)
    });
    let titles = [
        ("model", Align::Left),
        ("items", Align::Left),
        ("n", Align::Right),
        ("context [95 % interval]", Align::Left),
        ("memory", Align::Left),
        ("context only", Align::Left),
        ("both", Align::Right),
        ("neither", Align::Right),
        ("M_C", Align::Left),
        ("margin, nats/token", Align::Left),
    ];
    text += &lines(&titles, rows.collect());
    if !result.comparisons.is_empty() {
        let rows = result.comparisons.iter().map(|of| {
            vec![
                of.name.clone(),
                share(&of.context_rate),
                share(&of.parametric_rate),
                share(&of.context_only_rate),
                plain(&of.preference),
            ]
        });
        let titles = [
            ("difference", Align::Left),
            ("context [95 % interval]", Align::Left),
            ("memory", Align::Left),
            ("context only", Align::Left),
            ("M_C", Align::Left),
        ];
        text.push('\n');
        text += &lines(&titles, rows.collect());
    }
    let attended: Vec<&ModelContext> = result.models.iter().filter(|model| !model.layers.is_empty()).collect();
    if !attended.is_empty() {
        text.push('\n');
        text += &attention(&attended);
    }
    text.push('\n');
    for note in result.models.iter().flat_map(notes) {
        let _ = writeln!(text, "{note}");
    }
    let _ = writeln!(
        text,
        "context, memory: share of answers that hold that answer, matched by `{}`; an answer can hold both. Known: the\n\
         question without its context is answered from memory. Intervals draw questions. M_C: 0.5 is no preference.",
        result.matching.name()
    );
    if let Some(out) = &result.out {
        let _ = writeln!(text, "The answers are in {}", out.display());
    }
    text
}

fn row(model: &str, items: &str, of: &Reliance) -> Vec<String> {
    vec![
        model.to_owned(),
        items.to_owned(),
        count(of.items as u64),
        share(&of.context_rate),
        share(&of.parametric_rate),
        share(&of.context_only_rate),
        count(of.classes.both as u64),
        count(of.classes.neither as u64),
        plain(&of.preference),
        plain(&of.margin),
    ]
}

/// Attention of the last prompt position on the context: mean over all layers, and over some neighbouring ones.
fn attention(models: &[&ModelContext]) -> String {
    /// Rows of neighbouring layers.
    const ROWS: usize = 8;
    let layers = models.iter().map(|model| model.layers.len()).max().unwrap_or(0);
    let names = models.iter().map(|model| (model.model.as_str(), Align::Right));
    let titles: Vec<(&str, Align)> = [("attention on the context", Align::Left)].into_iter().chain(names).collect();
    let mean = |model: &ModelContext, layers: Range<usize>| {
        let shares: Option<Vec<f64>> =
            layers.map(|layer| model.layers.get(layer).and_then(|of| of.share.value.value())).collect();
        shares.map_or("–".into(), |shares| percent(shares.iter().sum::<f64>() / shares.len() as f64))
    };
    let row = |name: String, layers: &Range<usize>| -> Vec<String> {
        [name].into_iter().chain(models.iter().map(|model| mean(model, layers.clone()))).collect()
    };
    let together = layers.div_ceil(ROWS).max(1);
    let groups = (0..layers).step_by(together).map(|first| first..(first + together).min(layers));
    let rows = groups.map(|group| match group.len() {
        1 => row(format!("layer {}", group.start), &group),
        _ => row(format!("layers {}–{}", group.start, group.end - 1), &group),
    });
    let all = models.iter().map(|model| share(&model.attention));
    let all = ["all layers".to_owned()].into_iter().chain(all).collect();
    lines(&titles, [all].into_iter().chain(rows).collect())
}

fn audit(data: &ConflictAudit) -> String {
    let mut text = format!(
        "{}: {} of {} records, {} questions; the answer begins in the {} fifth of the context\n",
        data.file.display(),
        count(data.items as u64),
        count(data.records as u64),
        count(data.questions as u64),
        fifths(&data.positions)
    );
    if data.duplicates > 0 {
        let _ = writeln!(text, "  {} left out: repeated", count(data.duplicates as u64));
    }
    for of in &data.traps {
        let first: Vec<String> = of.first.iter().map(ToString::to_string).collect();
        let more = if of.records > of.first.len() { ", …" } else { "" };
        let what = if of.is_left_out { "left out" } else { "doubtful" };
        let _ = writeln!(
            text,
            "  {} {what}: {} (records {}{more})",
            count(of.records as u64),
            of.trap.words(),
            first.join(", ")
        );
    }
    text.push('\n');
    text
}

/// How many records have their answer in which part of the context.
fn fifths(positions: &[usize; 5]) -> String {
    const NAMES: [&str; 5] = ["first", "second", "third", "fourth", "last"];
    let parts: Vec<String> = NAMES.iter().zip(positions).map(|(name, of)| format!("{name} ({of})")).collect();
    parts.join(", ")
}

fn notes(model: &ModelContext) -> Vec<String> {
    let mut notes = vec![format!(
        "{}: asked in the form `{}`, {} items in {} s",
        model.model,
        model.template.name(),
        count((model.all.items - model.resumed) as u64),
        number(model.seconds)
    )];
    if model.resumed > 0 {
        notes.push(format!("{}: {} items were there", model.model, count(model.resumed as u64)));
    }
    if model.empty > 0 {
        notes.push(format!("{}: {} answers are empty", model.model, count(model.empty as u64)));
    }
    if model.cut > 0 {
        let (cut, lost) = (count(model.cut as u64), count(model.lost as u64));
        notes.push(format!("{}: {cut} contexts did not fit and were cut; {lost} lost their answer", model.model));
    }
    notes
}

/// `lathe data conflicts`
pub(crate) fn conflicts(result: &ConflictsResult) -> String {
    let rows = result
        .relations
        .iter()
        .map(|relation| vec![relation.name.clone(), count(relation.facts as u64), count(relation.records as u64)]);
    let titles = [("relation", Align::Left), ("facts", Align::Right), ("records", Align::Right)];
    let mut text = lines(&titles, rows.collect());
    let _ = write!(
        text,
        "\n{} records, {} questions, seed {}; the answer begins in the {} fifth of the context\n",
        count(result.records as u64),
        count(result.questions as u64),
        result.seed,
        fifths(&result.positions)
    );
    if result.short > 0 {
        let _ = writeln!(text, "{} facts gave fewer: every other answer is a trap there", count(result.short as u64));
    }
    let _ = writeln!(text, "saved in {}", result.out.display());
    text
}

/// `lathe data instructions`
pub(crate) fn instructions(result: &InstructionsResult) -> String {
    let rows = result.kinds.iter().map(|kind| vec![kind.name.to_owned(), count(kind.records as u64)]);
    let mut text = lines(&[("kind", Align::Left), ("records", Align::Right)], rows.collect());
    let _ = write!(
        text,
        "\n{} records, {} with a context, seed {}\nsaved in {}\n",
        count(result.records as u64),
        count(result.with_context as u64),
        result.seed,
        result.out.display()
    );
    text
}

/// `lathe data context-critical`
pub(crate) fn critical(result: &CriticalResult) -> String {
    let row = |name: &str, records: usize, means: &[Number; 3]| {
        let cells = means.iter().map(|mean| value(*mean));
        [name.to_owned(), count(records as u64)].into_iter().chain(cells).collect::<Vec<_>>()
    };
    let titles = [
        ("", Align::Left),
        ("records", Align::Right),
        ("without context", Align::Right),
        ("with", Align::Right),
        ("gap", Align::Right),
    ];
    let none = [Number::Undefined(lathe_measure::Reason::NotRequested); 3];
    let rows = vec![
        row("kept", result.kept, &result.kept_means),
        row("left out", result.dropped, &result.dropped_means),
        row("no context", result.without_context, &none),
    ];
    let mut text = lines(&titles, rows);
    let (by, other) = match result.by {
        CriticalBy::NoContext => ("loss without context", "gap"),
        CriticalBy::Gap => ("gap", "loss without context"),
    };
    let _ = write!(
        text,
        "\nMean loss of the response under {}, nats per token, asked in the form `{}`. Left out: the lowest by {by}, up to {};\n\
         the lowest by {other} are {} of the same records.\n",
        result.model,
        result.template.name(),
        value(result.threshold),
        count(result.dropped_by_both as u64),
    );
    if result.cut > 0 {
        let _ = writeln!(text, "{} contexts did not fit and were cut", count(result.cut as u64));
    }
    if result.resumed > 0 {
        let _ = writeln!(text, "{} records were scored already", count(result.resumed as u64));
    }
    if let Some(scores) = &result.scores {
        let _ = writeln!(text, "The scores are in {}", scores.display());
    }
    let _ = writeln!(text, "saved in {}", result.out.display());
    text
}

/// A share with its interval.
fn share(estimate: &Estimate) -> String {
    with_interval(estimate, percent)
}

/// A number with its interval.
fn plain(estimate: &Estimate) -> String {
    with_interval(estimate, number)
}

fn with_interval(estimate: &Estimate, write: fn(f64) -> String) -> String {
    let value = measured(estimate.value, write);
    match estimate.interval.value() {
        Some(interval) => format!("{value} [{}, {}]", write(interval.low), write(interval.high)),
        None => value,
    }
}
