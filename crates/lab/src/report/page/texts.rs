//! Bits per byte of each text.

use super::html::{Table, absences, figure, full_width, interval, items, panel as frame, text, tip, value};
use super::what::series;
use crate::figure::{Axis, AxisScale, Row, RowChart, RowMark, RowStyle, Ticks, count, row_chart};
use crate::report::data::{ModelReport, Panel, Report, TextKind, TextLoss};

pub(super) fn panel(report: &Report, names: &[String]) -> String {
    let models = &report.models;
    let chart = chart(models, names);
    let drawn = if chart.rows.is_empty() {
        String::new()
    } else {
        figure(
            &full_width(|width| row_chart(&chart, width)),
            &format!(
                "Bits per UTF-8 byte; the bar through a marker is its 95 % interval over blocks of {} tokens of that \
                 text: how much the number depends on the passage. The bytes of each text are in the table. The axis \
                 need not begin at zero.",
                count(report.settings.interval_block)
            ),
        )
    };
    let absent = absences(models, names, Panel::Texts, |model| !model.texts.is_empty());
    let how = "Further left is better: the model needs fewer bits to predict the text. Bits per byte can be compared \
               between models with different tokenizers. Scripts that spend several bytes on a character have lower \
               values for the same difficulty.";
    let body = [
        drawn,
        table(models, names).folded("Loss of each text"),
        overall(models, names).folded("Loss over all texts"),
        absent,
    ];
    frame("texts", "Bits per byte by text", how, &body.concat())
}

fn chart(models: &[ModelReport], names: &[String]) -> RowChart {
    let mut texts: Vec<&TextLoss> = Vec::new();
    for text in models.iter().flat_map(|model| &model.texts) {
        if !texts.iter().any(|other| other.name == text.name) {
            texts.push(text);
        }
    }
    // Languages are many, the other kinds few: they come first and are found at once.
    let order = |kind: TextKind| (kind == TextKind::Language, kind);
    let rate = |text: &TextLoss| text.bits_per_byte.finite().unwrap_or(f64::INFINITY);
    texts.sort_by(|a, b| order(a.kind).cmp(&order(b.kind)).then(rate(a).total_cmp(&rate(b))));
    let rows = texts.iter().map(|wanted| {
        let measured = models.iter().zip(names).filter(|(model, _)| !model.texts.is_empty());
        let marks = measured.map(|(model, name)| {
            let text = model.texts.iter().find(|text| text.name == wanted.name);
            text.map_or_else(RowMark::default, |text| {
                let quantity = &text.bits_per_byte;
                let interval = quantity.finite_interval();
                RowMark { value: quantity.finite(), interval, tip: tip(name, quantity) }
            })
        });
        Row { label: wanted.name.clone(), group: kind_name(wanted.kind).to_owned(), marks: marks.collect() }
    });
    RowChart {
        title: "Bits per byte by text".to_owned(),
        desc: "One row for each text; the marker is the number of bits per byte, the bar its 95 % interval.".to_owned(),
        axis: Axis { label: "bits per byte".to_owned(), scale: AxisScale::Linear, ticks: Ticks::Any },
        series: series(names, |index| !models[index].texts.is_empty()),
        rows: rows.collect(),
        style: RowStyle::Dots,
    }
}

fn kind_name(kind: TextKind) -> &'static str {
    match kind {
        TextKind::Language => "Languages",
        TextKind::Legal => "Legal",
        TextKind::Prose => "Prose",
        TextKind::Code => "Code",
    }
}

fn table(models: &[ModelReport], names: &[String]) -> Table {
    let head = ["text", "kind", "model", "bytes", "tokens", "bits / byte", "95 % interval"];
    let mut table = Table::new(&[&head[..], &["nats / token", "95 % interval"]].concat());
    for (model, name) in models.iter().zip(names) {
        for loss in &model.texts {
            table.rows.push(vec![
                text(&loss.name),
                kind_name(loss.kind).to_owned(),
                text(name),
                count(loss.bytes),
                count(loss.tokens),
                value(&loss.bits_per_byte),
                interval(&loss.bits_per_byte),
                value(&loss.nll),
                interval(&loss.nll),
            ]);
        }
    }
    table
}

fn overall(models: &[ModelReport], names: &[String]) -> Table {
    let mut table = Table::new(&["measure", "model", "value", "unit", "95 % interval", "n"]);
    for (model, name) in models.iter().zip(names) {
        let Some(overall) = &model.overall else {
            continue;
        };
        for (measure, quantity) in [
            ("bits per byte", &overall.bits_per_byte),
            ("mean over tokens (micro)", &overall.nll_micro),
            ("mean over token types (macro)", &overall.nll_macro),
            ("perplexity", &overall.perplexity),
        ] {
            let unit = text(&quantity.unit);
            let cells = [value(quantity), unit, interval(quantity), items(quantity)];
            table.rows.push([vec![measure.to_owned(), text(name)], cells.to_vec()].concat());
        }
    }
    table
}
