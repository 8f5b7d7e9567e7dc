//! Results of an evaluation of vectors as one HTML page.

use std::fmt::Write as _;

use lathe_measure::Number;

use super::{EmbedEvalResult, EmbedRun, VectorsRow};
use crate::eval::ScoreRow;
use crate::figure::{
    self, Axis, AxisScale, Row, RowChart, RowMark, RowSeries, RowStyle, SeriesStyle, Ticks, count, escape, measured,
    number, row_chart,
};
use crate::report::page::STYLE;
use crate::report::page::html::{Table, full_width, panel, text};

/// results.html
pub(super) fn html(result: &EmbedEvalResult) -> String {
    let models = distinct(result.runs.iter().map(|run| run.model.as_str()));
    let heading = models.iter().map(|name| format!("<span class=\"name\">{}</span>", text(name))).collect::<Vec<_>>();
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}: lathe eval-embed</title>\n\
         <style>\n{STYLE}{figures}</style>\n</head>\n<body>\n<header>\n<p class=\"kind\">lathe eval-embed</p>\n\
         <h1>{heading}</h1>\n</header>\n<main>\n",
        title = text(&models.join(", ")),
        figures = figure::STYLE,
        heading = heading.join("<span class=\"and\"> · </span>"),
    );
    for task in distinct(result.runs.iter().map(|run| run.task.as_str())) {
        let runs: Vec<&EmbedRun> = result.runs.iter().filter(|run| run.task == task).collect();
        let first = runs[0];
        let how = format!(
            "{} {}: {} {} {}. Dots are {} with its 95 % interval.",
            escape(&first.description),
            escape(&capital(&first.kind)),
            if first.units < first.available { "drawn," } else { "all" },
            count(first.units as u64),
            first.unit,
            first.headline.replace('_', " "),
        );
        let chart = full_width(|width| row_chart(&chart(&runs), width));
        html += &panel(task, task, &how, &(chart + &table(&runs)));
    }
    html += "</main>\n<footer>\n<h2>How this was made</h2>\n";
    for note in notes(result) {
        let _ = writeln!(html, "<p>{}</p>", escape(&note));
    }
    html + "</footer>\n</body>\n</html>\n"
}

/// A row for each kind of vector, a mark for each model and prompt.
fn chart(runs: &[&EmbedRun]) -> RowChart {
    let series = runs.iter().enumerate().map(|(index, run)| RowSeries {
        name: format!("{}, {}", run.model, run.prompt),
        style: SeriesStyle::Model(index),
    });
    let labels = distinct(runs.iter().flat_map(|run| run.rows.iter().map(|row| row.label.as_str())));
    let row = |label: &&str| {
        let mark = |run: &&EmbedRun| {
            let found = run.rows.iter().find(|row| row.label == **label).and_then(|row| row.scores.first());
            found.map(|score| mark(run, label, score)).unwrap_or_default()
        };
        Row { label: (*label).to_owned(), group: String::new(), marks: runs.iter().map(mark).collect() }
    };
    RowChart {
        title: format!("{}: {}", runs[0].task, runs[0].headline),
        desc: "One row for each kind of vector, one mark for each model and prompt with its 95 % interval".into(),
        axis: Axis { label: runs[0].headline.clone(), scale: AxisScale::Linear, ticks: Ticks::Any },
        series: series.collect(),
        rows: labels.iter().map(row).collect(),
        style: RowStyle::Dots,
    }
}

fn mark(run: &EmbedRun, label: &str, score: &ScoreRow) -> RowMark {
    let value = score.estimate.value.value();
    RowMark {
        value,
        interval: score.estimate.interval.value().map(|interval| [interval.low, interval.high]),
        tip: value.map_or(String::new(), |value| format!("{}, {}, {label}: {}", run.model, run.prompt, number(value))),
    }
}

fn table(runs: &[&EmbedRun]) -> String {
    let mut names = Vec::new();
    for score in runs.iter().flat_map(|run| &run.rows).flat_map(|row| &row.scores) {
        if !names.contains(&score.name.as_str()) {
            names.push(&score.name);
        }
    }
    // The heading has them where there is one of each.
    let several = distinct(runs.iter().map(|run| run.model.as_str())).len() > 1
        || distinct(runs.iter().map(|run| run.prompt.as_str())).len() > 1;
    let of_run: &[&str] = if several { &["model", "prompt"] } else { &[] };
    let has_alpha = runs.iter().flat_map(|run| &run.rows).any(|row| row.alpha.is_some());
    let weight: &[&str] = if has_alpha { &["α"] } else { &[] };
    let mut table = Table::new(&[&["vectors"], of_run, &["width"], weight, names.as_slice()].concat());
    for run in runs {
        for row in &run.rows {
            let mut cells = vec![text(&row.label)];
            cells.extend(of_run.iter().zip([&run.model, &run.prompt]).map(|(_, name)| text(name)));
            cells.push(width(row));
            cells.extend(weight.iter().map(|_| alpha(row)));
            cells.extend(
                names.iter().map(|name| row.scores.iter().find(|score| score.name == *name).map_or("–".into(), cell)),
            );
            table.rows.push(cells);
        }
    }
    table.html()
}

fn width(row: &VectorsRow) -> String {
    if row.width == 0 { "–".into() } else { count(row.width as u64) }
}

fn alpha(row: &VectorsRow) -> String {
    row.alpha.and_then(Number::value).map_or("–".into(), number)
}

fn cell(score: &ScoreRow) -> String {
    let value = measured(score.estimate.value, number);
    match score.estimate.interval.value() {
        Some(interval) => format!("{value} ({} to {})", number(interval.low), number(interval.high)),
        None => value,
    }
}

/// What the numbers are, in sentences.
fn notes(result: &EmbedEvalResult) -> Vec<String> {
    let mut notes = vec![
        "HS is a hidden state of the model, RW what its routers say. Standardised: every feature less its mean over the \
         texts of the task, divided by its deviation there. Concat is one after the other; sum is the vector whose \
         cosine is cos(HS) + α cos(RW), up to a factor. HS projected at random has the width of RW and nothing of it: what a \
         kind of vector gains over HS, raw and standardised, is what counts."
            .to_owned(),
    ];
    for run in &result.runs {
        notes.extend(run.notes().into_iter().map(|note| format!("{}: {note}.", run.name)));
    }
    notes.push(format!("Intervals are of a bootstrap over the units of a task. Written by lathe {}.", result.lathe));
    notes
}

impl EmbedRun {
    /// What a reader of the scores should know, in clauses.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> = self.missing.clone().into_iter().collect();
        if self.truncated > 0 {
            notes.push(format!("{} of {} texts were cut", count(self.truncated as u64), count(self.texts as u64)));
        }
        let left_out = self.left_out.iter();
        notes.extend(left_out.map(|rows| format!("{} left out: {}", count(rows.rows as u64), rows.why)));
        let missed =
            self.rows.iter().filter_map(|row| row.not_converged.filter(|missed| *missed > 0).map(|n| (row, n)));
        let missed: Vec<String> = missed.map(|(row, missed)| format!("{}: {missed}", row.label)).collect();
        if !missed.is_empty() {
            notes.push(format!("draws whose classifier had not converged after 100 steps: {}", missed.join("; ")));
        }
        for row in &self.rows {
            if row.undefined > 0 {
                notes.push(format!("{}: {} {} without a value", row.label, count(row.undefined as u64), self.unit));
            }
            if let Some(reason) = row.scores.first().and_then(|score| score.estimate.value.reason()) {
                notes.push(format!("{}: undefined, {reason}", row.label));
            }
        }
        if self.resumed {
            notes.push("was there from an earlier run".into());
        }
        notes
    }
}

fn capital(word: &str) -> String {
    if word == "sts" {
        return "STS".into();
    }
    let mut letters = word.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut all = Vec::new();
    for name in names {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}
