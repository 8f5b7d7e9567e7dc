//! Speed and memory.

use super::html::{Table, absences, items, model_cell, panel as frame, text, value};
use crate::figure::{bytes, count, number};
use crate::report::data::{ModelReport, Panel, Quantity, Report};

pub(super) fn panel(report: &Report, names: &[String]) -> String {
    let models = &report.models;
    // A single model needs no column that repeats its name.
    let several = models.len() > 1;
    let model_head: &[&str] = if several { &["model"] } else { &[] };
    let mut table = Table::new(&[&["measure"], model_head, &["value", "unit", "slowest to fastest run", "n"]].concat());
    let mut rows = Vec::new();
    for (index, (model, name)) in models.iter().zip(names).enumerate() {
        let Some(speed) = &model.speed else { continue };
        let memory = memory_cell(&speed.peak_memory);
        let measures = [
            ("load", &speed.load, value(&speed.load), None),
            ("read (prefill)", &speed.prefill, value(&speed.prefill), speed.prefill_range),
            ("write (decode)", &speed.decode, value(&speed.decode), speed.decode_range),
            ("peak memory", &speed.peak_memory, memory, None),
        ];
        for (order, (measure, quantity, shown, range)) in measures.into_iter().enumerate() {
            let unit = if quantity.unit == "bytes" { String::new() } else { text(&quantity.unit) };
            let mut row = vec![measure.to_owned()];
            row.extend(several.then(|| model_cell(index, name)));
            row.extend([shown, unit, ends(range), items(quantity)]);
            rows.push((order, row));
        }
    }
    // A measure's models stand below each other.
    rows.sort_by_key(|(order, _)| *order);
    table.rows = rows.into_iter().map(|(_, row)| row).collect();
    let absent = absences(models, names, Panel::Speed, |model| model.speed.is_some());
    let content = if table.rows.is_empty() { String::new() } else { table.html() + &caption(models, names) };
    let how = "One sequence at a time, in the type named below. Measured in this run on the machine named below, other \
               programs included; repeat it before you rely on a small difference. Peak memory is the whole process's, \
               this report included.";
    frame("speed", "Speed and memory", how, &(content + &absent))
}

/// Bytes with their prefix and unit.
fn memory_cell(quantity: &Quantity) -> String {
    match quantity.finite() {
        Some(size) if size >= 0.0 && quantity.unit == "bytes" => bytes(size as u64),
        _ => value(quantity),
    }
}

/// What was timed.
fn caption(models: &[ModelReport], names: &[String]) -> String {
    let timed = models.iter().zip(names).filter_map(|(model, name)| Some((name, model.speed.as_ref()?)));
    let timed = timed.map(|(name, speed)| {
        format!(
            "{}: a prompt of {} tokens was read and {} tokens were written, one after the other; {}.",
            text(name),
            count(speed.prefill_tokens),
            count(speed.decode_tokens),
            if speed.runs == 1 { "one run".to_owned() } else { format!("medians of {} runs", count(speed.runs)) },
        )
    });
    format!("<p class=\"note\">{}</p>", timed.collect::<Vec<_>>().join(" "))
}

fn ends(range: Option<[f64; 2]>) -> String {
    let range = range.filter(|ends| ends.iter().all(|end| end.is_finite()));
    range.map_or("–".to_owned(), |[low, high]| format!("{} to {}", number(low), number(high)))
}
