//! How the tokenizers cut each language.

use super::html::{Table, absences, figure, full_width, panel as frame, text, tip, value};
use super::what::series;
use crate::figure::{Axis, AxisScale, Row, RowChart, RowMark, RowStyle, Ticks, count, row_chart};
use crate::report::data::{FertilityRow, ModelReport, Panel, Quantity, Report};

pub(super) fn panel(report: &Report, names: &[String]) -> String {
    let models = &report.models;
    let chart = chart(models, names);
    let drawn = if chart.rows.is_empty() {
        String::new()
    } else {
        figure(
            &full_width(|width| row_chart(&chart, width)),
            "Tokens per character (Unicode scalar value), counted over each whole text, so there is no interval. The \
             number of characters of each text is in the table. Languages are ordered by the first model.",
        )
    };
    let absent = absences(models, names, Panel::Fertility, |model| !model.fertility.is_empty());
    let how = "Shorter is better: a text in a language with a long bar takes more tokens, and so more time, money and \
               context. Characters of different scripts carry different amounts of meaning: compare models within a \
               row, and languages by the tokens in the table, which are for translations of one text.";
    let body = [drawn, table(models, names).folded("Tokens, characters, bytes and words"), absent];
    frame("fertility", "Tokenizer fertility by language", how, &body.concat())
}

fn chart(models: &[ModelReport], names: &[String]) -> RowChart {
    let mut languages: Vec<&FertilityRow> = Vec::new();
    for row in models.iter().flat_map(|model| &model.fertility) {
        if !languages.iter().any(|other| same(other, row)) {
            languages.push(row);
        }
    }
    let rate = |row: &FertilityRow| row.tokens_per_character.finite().unwrap_or(f64::INFINITY);
    languages.sort_by(|a, b| rate(a).total_cmp(&rate(b)));
    let rows = languages.iter().map(|language| {
        let measured = models.iter().zip(names).filter(|(model, _)| !model.fertility.is_empty());
        let marks = measured.map(|(model, name)| {
            let row = model.fertility.iter().find(|row| same(row, language));
            row.map_or_else(RowMark::default, |row| {
                let quantity = &row.tokens_per_character;
                RowMark { value: quantity.finite(), interval: None, tip: tip(name, quantity) }
            })
        });
        Row { label: language.language.clone(), group: String::new(), marks: marks.collect() }
    });
    RowChart {
        title: "Tokens per character by language".to_owned(),
        desc: "One row for each language; the length of a bar is the number of tokens per character.".to_owned(),
        axis: Axis { label: "tokens per character".to_owned(), scale: AxisScale::FromZero, ticks: Ticks::Any },
        series: series(names, |index| !models[index].fertility.is_empty()),
        rows: rows.collect(),
        style: RowStyle::Bars,
    }
}

fn same(a: &FertilityRow, b: &FertilityRow) -> bool {
    a.language == b.language && a.script == b.script
}

fn table(models: &[ModelReport], names: &[String]) -> Table {
    let head = ["language", "script", "model", "tokens", "characters", "bytes", "words", "tokens / fewest"];
    let rates = ["tokens / character", "bytes / token", "tokens / word"];
    let mut table = Table::new(&[&head[..], &rates[..]].concat());
    for (model, name) in models.iter().zip(names) {
        let fewest = model.fertility.iter().map(|row| row.tokens).min().unwrap_or(0);
        for row in &model.fertility {
            let times = Quantity::new(row.tokens as f64 / fewest as f64, "1");
            table.rows.push(vec![
                text(&row.language),
                text(&row.script),
                text(name),
                count(row.tokens),
                count(row.characters),
                count(row.bytes),
                row.words.map_or("–".to_owned(), count),
                value(&times),
                value(&row.tokens_per_character),
                value(&row.bytes_per_token),
                value(&row.tokens_per_word),
            ]);
        }
    }
    table
}
