//! What the models are, and the numbers at a glance.

use super::html::{Table, absences, figure, full_width, interval, model_cell, panel as frame, text, value};
use crate::figure::{
    Axis, AxisScale, Row, RowChart, RowMark, RowSeries, RowStyle, SeriesStyle, Ticks, bytes, compact, count, escape,
    number, percent, row_chart,
};
use crate::report::data::{ModelReport, Panel, Quantity, Report};

pub(super) fn panel(report: &Report, names: &[String]) -> String {
    let models = &report.models;
    let parts = full_width(|width| row_chart(&parts_chart(models, names), width));
    let body = [
        facts(models, names),
        figure(&parts, "Parameters by part, in millions. Parameters that two parts share are counted once."),
        parts_table(models, names).folded("Parameters by part"),
        types_table(models, names).folded("Element types of the tensors"),
        files_table(models, names).folded("Files and their SHA-256"),
        absences(models, names, Panel::What, |model| model.what.parameters > 0),
    ];
    let how = "Read from the files alone; nothing is run. The bars show where the parameters are.";
    frame("what", "What the model is", how, &body.concat())
}

/// A list for one model, a table for several.
fn facts(models: &[ModelReport], names: &[String]) -> String {
    if let [model] = models {
        let facts = FACTS.map(|(label, fact)| format!("<div><dt>{}</dt><dd>{}</dd></div>", escape(label), fact(model)));
        return format!("<dl class=\"facts\">{}</dl>", facts.concat());
    }
    let mut table = Table::new(&[""]);
    table.head.extend(names.iter().enumerate().map(|(index, name)| model_cell(index, name)));
    for (label, fact) in FACTS {
        let mut row = vec![escape(label)];
        row.extend(models.iter().map(fact));
        table.rows.push(row);
    }
    table.wrapping()
}

/// Four numbers for one model, a table for several.
pub(super) fn glance(report: &Report, names: &[String]) -> String {
    let cells: [(&str, Fact); 4] = [
        ("parameters", |model| compact(model.what.parameters)),
        ("bits per byte", |model| {
            model.overall.as_ref().map_or("–".to_owned(), |overall| plain(&overall.bits_per_byte))
        }),
        ("tokens/s written", |model| model.speed.as_ref().map_or("–".to_owned(), |speed| plain(&speed.decode))),
        ("peak memory", |model| {
            let size = model.speed.as_ref().and_then(|speed| speed.peak_memory.finite());
            size.filter(|size| *size >= 0.0).map_or("–".to_owned(), |size| bytes(size as u64))
        }),
    ];
    match &report.models[..] {
        [] => String::new(),
        [model] => {
            let tiles =
                cells.map(|(label, cell)| format!("<div><dd>{}</dd><dt>{}</dt></div>", cell(model), escape(label)));
            format!("<dl class=\"glance\">{}</dl>\n", tiles.concat())
        }
        models => {
            let mut table = Table::new(&["", "parameters", "bits per byte", "95 % interval", "tokens/s written"]);
            table.head.push("peak memory".to_owned());
            for (index, (model, name)) in models.iter().zip(names).enumerate() {
                let [parameters, bits, speed, memory] = cells.map(|(_, cell)| cell(model));
                let range = model.overall.as_ref().map_or("–".to_owned(), |overall| interval(&overall.bits_per_byte));
                table.rows.push(vec![model_cell(index, name), parameters, bits, range, speed, memory]);
            }
            table.html()
        }
    }
}

fn plain(quantity: &Quantity) -> String {
    quantity.finite().map_or("–".to_owned(), number)
}

type Fact = fn(&ModelReport) -> String;

const FACTS: [(&str, Fact); 13] = [
    ("Reference", |model| format!("<code>{}</code>", text(&model.reference))),
    ("Family", |model| text(&model.what.family)),
    ("Parameters", |model| count(model.what.parameters)),
    ("Layers", |model| count(model.what.layers)),
    ("Hidden size", |model| count(model.what.hidden_size)),
    ("Heads, query / key-value", |model| format!("{} / {}", count(model.what.heads), count(model.what.kv_heads))),
    ("Context, tokens", |model| count(model.what.context)),
    ("Vocabulary, tokens", |model| count(model.what.vocabulary)),
    ("Weight files", |model| bytes(model.what.file_bytes)),
    ("Element types", |model| {
        let types = model.what.element_types.iter();
        let types: Vec<String> =
            types.map(|kind| format!("{}\u{a0}×\u{a0}{}", text(&kind.name), count(kind.tensors))).collect();
        if types.is_empty() { "–".to_owned() } else { types.join(", ") }
    }),
    ("Tokenizer", |model| text(&model.what.tokenizer)),
    ("Chat template", |model| if model.what.chat_template { "yes" } else { "no" }.to_owned()),
    ("Licence", |model| model.what.licence.as_deref().map_or("not stated".to_owned(), text)),
];

fn parts_chart(models: &[ModelReport], names: &[String]) -> RowChart {
    let mut parts: Vec<&str> = Vec::new();
    for part in models.iter().flat_map(|model| &model.what.parts) {
        if !parts.contains(&part.part.as_str()) {
            parts.push(&part.part);
        }
    }
    let rows = parts.iter().map(|part| {
        let marks = models.iter().zip(names).map(|(model, name)| {
            let of_part = model.what.parts.iter().filter(|other| other.part == *part).map(|other| other.parameters);
            let millions = of_part.sum::<u64>() as f64 / 1e6;
            RowMark { value: Some(millions), interval: None, tip: format!("{name}: {} million", number(millions)) }
        });
        Row { label: (*part).to_owned(), group: String::new(), marks: marks.collect() }
    });
    RowChart {
        title: "Parameters by part".to_owned(),
        desc: "One bar for each part of the model; its length is the number of parameters in millions.".to_owned(),
        axis: Axis { label: "parameters (millions)".to_owned(), scale: AxisScale::FromZero, ticks: Ticks::Any },
        series: series(names, |_| true),
        rows: rows.collect(),
        style: RowStyle::Bars,
    }
}

/// The models as series: the same colour and marker in every figure.
/// Only the models whose index is wanted: one without values takes no room.
pub(super) fn series(names: &[String], wanted: impl Fn(usize) -> bool) -> Vec<RowSeries> {
    let styled = names.iter().enumerate().filter(|(index, _)| wanted(*index));
    styled.map(|(index, name)| RowSeries { name: name.clone(), style: SeriesStyle::Model(index) }).collect()
}

fn parts_table(models: &[ModelReport], names: &[String]) -> Table {
    let mut table = Table::new(&["model", "part", "parameters", "share"]);
    for (model, name) in models.iter().zip(names) {
        for part in &model.what.parts {
            let share = Quantity::new(part.parameters as f64 / model.what.parameters as f64, "1");
            let share = share.finite().map_or_else(|| value(&share), percent);
            table.rows.push(vec![text(name), text(&part.part), count(part.parameters), share]);
        }
    }
    table
}

fn types_table(models: &[ModelReport], names: &[String]) -> Table {
    let mut table = Table::new(&["model", "type", "tensors", "values", "bytes"]);
    for (model, name) in models.iter().zip(names) {
        for kind in &model.what.element_types {
            let cells = [count(kind.tensors), count(kind.values), bytes(kind.bytes)];
            table.rows.push([vec![text(name), text(&kind.name)], cells.to_vec()].concat());
        }
    }
    table
}

fn files_table(models: &[ModelReport], names: &[String]) -> Table {
    let mut table = Table::new(&["model", "file", "bytes", "SHA-256"]);
    for (model, name) in models.iter().zip(names) {
        for file in &model.what.files {
            let hash = file.sha256.as_deref().map_or("not computed".to_owned(), text);
            let hash = format!("<code>{hash}</code>");
            table.rows.push(vec![text(name), text(&file.name), count(file.bytes), hash]);
        }
    }
    table
}
