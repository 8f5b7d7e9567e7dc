//! Speed and memory.

use super::html::{Table, absences, interval, items, model_cell, panel as frame, text, value};
use crate::figure::bytes;
use crate::report::data::{Panel, Quantity, Report};

pub(super) fn panel(report: &Report, names: &[String]) -> String {
    let models = &report.models;
    // A single model needs no column that repeats its name.
    let several = models.len() > 1;
    let model_head: &[&str] = if several { &["model"] } else { &[] };
    let mut table = Table::new(
        &[
            &["measure"],
            model_head,
            &["value", "unit", "95 % interval", "n"],
        ]
        .concat(),
    );
    for (index, (model, name)) in models.iter().zip(names).enumerate() {
        let Some(speed) = &model.speed else { continue };
        let memory = memory_cell(&speed.peak_memory);
        for (measure, quantity, shown) in [
            ("load", &speed.load, value(&speed.load)),
            ("read (prefill)", &speed.prefill, value(&speed.prefill)),
            ("write (decode)", &speed.decode, value(&speed.decode)),
            ("peak memory", &speed.peak_memory, memory),
        ] {
            let unit = if quantity.unit == "bytes" {
                String::new()
            } else {
                text(&quantity.unit)
            };
            let mut row = vec![measure.to_owned()];
            row.extend(several.then(|| model_cell(index, name)));
            row.extend([shown, unit, interval(quantity), items(quantity)]);
            table.rows.push(row);
        }
    }
    let absent = absences(models, names, Panel::Speed, |model| model.speed.is_some());
    let content = if table.rows.is_empty() {
        String::new()
    } else {
        table.html()
    };
    let how = "Measured in this run on the machine named below, other programs included; repeat it before you rely on \
               a small difference.";
    frame("speed", "Speed and memory", how, &(content + &absent))
}

/// Bytes with their prefix and unit.
fn memory_cell(quantity: &Quantity) -> String {
    match quantity.finite() {
        Some(size) if size >= 0.0 && quantity.unit == "bytes" => bytes(size as u64),
        _ => value(quantity),
    }
}
