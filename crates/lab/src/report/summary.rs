//! The report on one terminal screen.

use super::data::{ModelReport, Quantity, Report};
use super::{short_names, verdict};
use crate::figure::{bytes, compact, count, number, percent, visible};

/// Columns of the narrowest terminal that the summary is made for.
const WIDTH: usize = 80;
/// Models that fit beside each other.
const MODELS: usize = 3;

/// Lines of at most 80 columns, fewer than 36 of them, without colour and without control characters.
#[must_use]
pub fn summary(report: &Report) -> Vec<String> {
    let mut lines = wrapped(&verdict(report).join(" ").replace(" %", "\u{a0}%"));
    if report.models.is_empty() {
        return lines;
    }
    lines.truncate(14);
    lines.push(String::new());
    let shown = &report.models[..report.models.len().min(MODELS)];
    let names = short_names(&report.models);
    let names: Vec<String> = names.iter().take(shown.len()).map(|name| visible(name)).collect();
    lines.push(row("", &names));
    for (label, cell) in ROWS {
        let cells: Vec<String> = shown.iter().map(cell).collect();
        if cells.iter().any(|cell| cell != MISSING) {
            lines.push(row(label, &cells));
        }
        if let ([model], SINK_ROW) = (shown, label) {
            lines.extend(model.attention.as_ref().map(|attention| {
                let bars = spark(attention.sink_by_layer.iter().map(Quantity::finite), 46);
                format!("{:<26}{bars}", "  from the first layer on")
            }));
        }
    }
    let left_out = report.models.len() - shown.len();
    if left_out > 0 {
        lines.push(format!("and {left_out} more on the page"));
    }
    lines
}

const MISSING: &str = "–";
const SINK_ROW: &str = "attention on first token";

type Cell = fn(&ModelReport) -> String;

/// The rows of the table: a label with its unit, and the cell of a model.
const ROWS: [(&str, Cell); 12] = [
    ("parameters", |model| compact(model.what.parameters).replace('\u{a0}', " ")),
    ("weights", |model| bytes(model.what.file_bytes).replace('\u{a0}', " ")),
    ("bits per byte", |model| overall(model, |overall| with_interval(&overall.bits_per_byte))),
    ("nats per token", |model| overall(model, |overall| with_interval(&overall.nll_micro))),
    ("nats per token type", |model| overall(model, |overall| with_interval(&overall.nll_macro))),
    ("tokens read", |model| overall(model, |overall| count(overall.tokens))),
    (SINK_ROW, |model| {
        let shares = model.attention.iter().flat_map(|attention| attention.sink_by_layer.iter());
        let shares: Vec<f64> = shares.filter_map(Quantity::finite).collect();
        if shares.is_empty() { MISSING.to_owned() } else { percent(shares.iter().sum::<f64>() / shares.len() as f64) }
    }),
    ("last layer MNN / null", |model| {
        let last = model.spectrum.as_ref().and_then(|spectrum| spectrum.layers.last());
        last.and_then(|layer| layer.mnn_corrected.finite()).map_or(MISSING.to_owned(), number)
    }),
    ("load s", |model| speed(model, |speed| &speed.load)),
    ("prefill tokens/s", |model| speed(model, |speed| &speed.prefill)),
    ("decode tokens/s", |model| speed(model, |speed| &speed.decode)),
    ("peak memory", |model| {
        let size = model.speed.as_ref().and_then(|speed| speed.peak_memory.finite());
        let size = size.filter(|size| *size >= 0.0);
        size.map_or(MISSING.to_owned(), |size| bytes(size as u64).replace('\u{a0}', " "))
    }),
];

fn overall(model: &ModelReport, cell: fn(&super::Overall) -> String) -> String {
    model.overall.as_ref().map_or(MISSING.to_owned(), cell)
}

fn speed(model: &ModelReport, field: fn(&super::Speed) -> &Quantity) -> String {
    model.speed.as_ref().and_then(|speed| field(speed).finite()).map_or(MISSING.to_owned(), number)
}

fn with_interval(quantity: &Quantity) -> String {
    let Some(value) = quantity.finite() else {
        return MISSING.to_owned();
    };
    match quantity.finite_interval() {
        // Two decimals, so that three models fit beside each other.
        Some([low, high]) if high < 10.0 => format!("{value:.2} [{low:.2}, {high:.2}]"),
        Some([low, high]) => format!("{} [{}, {}]", number(value), number(low), number(high)),
        None => number(value),
    }
}

fn row(label: &str, cells: &[String]) -> String {
    let width = (WIDTH - 26) / cells.len().clamp(2, MODELS);
    let mut line = format!("{label:<26}");
    for cell in cells {
        let cell = cut(cell, width - 1);
        line += &format!("{cell:<width$}");
    }
    line.trim_end().to_owned()
}

fn cut(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    let kept: String = text.chars().take(columns - 1).collect();
    format!("{kept}…")
}

fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ').map(|word| cut(word, WIDTH)) {
        let line = lines.last().map_or(0, |line| line.chars().count());
        match lines.last_mut() {
            Some(last) if line == 0 => last.push_str(&word),
            Some(last) if line + 1 + word.chars().count() <= WIDTH => {
                last.push(' ');
                last.push_str(&word);
            }
            _ => lines.push(word),
        }
    }
    lines.iter().map(|line| line.replace('\u{a0}', " ")).collect()
}

/// Eight heights of blocks from 0 to the largest value; a gap where a value is missing.
fn spark(values: impl Iterator<Item = Option<f64>>, columns: usize) -> String {
    let values: Vec<Option<f64>> = values.collect();
    let most = values.iter().flatten().copied().fold(0.0, f64::max);
    let every = values.len().div_ceil(columns).max(1);
    let blocks = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let block = |value: &Option<f64>| match value {
        Some(value) if most > 0.0 => blocks[((value / most * 7.0).round().max(0.0) as usize).min(7)],
        Some(_) => blocks[0],
        None => ' ',
    };
    values.iter().step_by(every).map(block).collect()
}
