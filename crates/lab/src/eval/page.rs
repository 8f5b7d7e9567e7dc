//! Results of an evaluation as Markdown and as one HTML page.

use std::fmt::Write as _;

use lathe_measure::Estimate;

use super::{Comparison, EvalResult, EvalRun};
use crate::figure::{
    self, Axis, AxisScale, Row, RowChart, RowMark, RowSeries, RowStyle, SeriesStyle, Ticks, count, escape, percent,
    row_chart, share, value,
};
use crate::generate::Turn;
use crate::report::page::STYLE;
use crate::report::page::html::{Table, full_width, panel, text};

const RUN_TITLES: [&str; 9] =
    ["task", "model", "score", "value", "95 % interval", "chance", "questions", "bytes", "tokens"];
const PAIR_TITLES: [&str; 8] =
    ["task", "first", "second", "first minus second", "95 % interval", "only first", "only second", "p"];

/// results.md
pub(super) fn markdown(result: &EvalResult) -> String {
    let table = |titles: &[&str], rows: Vec<Vec<String>>| {
        let mut text = format!("| {} |\n|{}\n", titles.join(" | "), "---|".repeat(titles.len()));
        for row in rows {
            let _ = writeln!(
                text,
                "| {} |",
                row.iter().map(|cell| cell.replace('|', "\\|")).collect::<Vec<_>>().join(" | ")
            );
        }
        text
    };
    let mut text = format!("# Evaluation\n\n{}\n\n", table(&RUN_TITLES, run_rows(result)).trim_end());
    if !result.comparisons.is_empty() {
        let _ = write!(text, "## Comparisons\n\n{}\n", table(&PAIR_TITLES, pair_rows(result)));
    }
    for note in notes(result) {
        let _ = writeln!(text, "* {note}");
    }
    text
}

/// results.html
pub(super) fn html(result: &EvalResult) -> String {
    let table = |titles: &[&str], rows: Vec<Vec<String>>| {
        let mut table = Table::new(titles);
        table.rows = rows.into_iter().map(|row| row.iter().map(|cell| text(cell)).collect()).collect();
        table.html()
    };
    let models = models(result);
    let heading = models.iter().map(|name| format!("<span class=\"name\">{}</span>", text(name))).collect::<Vec<_>>();
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}: lathe eval</title>\n\
         <style>\n{STYLE}{figures}</style>\n</head>\n<body>\n<header>\n<p class=\"kind\">lathe eval</p>\n\
         <h1>{heading}</h1>\n</header>\n<main>\n",
        title = text(&models.join(", ")),
        figures = figure::STYLE,
        heading = heading.join("<span class=\"and\"> · </span>"),
    );
    let chart = full_width(|width| row_chart(&chart(result, &models), width));
    let how = "The headline score of every task, with its 95 % interval; the grey mark is what guessing reaches.";
    html += &panel("scores", "Scores", how, &(chart + &table(&RUN_TITLES, run_rows(result))));
    if !result.comparisons.is_empty() {
        let how = "The same questions put to two models: how many only one of them has right, and McNemar's exact p.";
        html += &panel("comparisons", "Comparisons", how, &table(&PAIR_TITLES, pair_rows(result)));
    }
    html += "</main>\n<footer>\n<h2>How this was made</h2>\n";
    for note in notes(result) {
        let _ = writeln!(html, "<p>{}</p>", escape(&note));
    }
    html + "</footer>\n</body>\n</html>\n"
}

/// The models, each once.
fn models(result: &EvalResult) -> Vec<String> {
    let mut models: Vec<String> = Vec::new();
    for run in &result.runs {
        if !models.contains(&run.model) {
            models.push(run.model.clone());
        }
    }
    models
}

fn chart(result: &EvalResult, models: &[String]) -> RowChart {
    let series = models.iter().enumerate().map(|(index, name)| (name.clone(), SeriesStyle::Model(index)));
    let series = series.chain([("chance".to_owned(), SeriesStyle::Null)]);
    let mut tasks: Vec<&str> = Vec::new();
    for run in &result.runs {
        if !tasks.contains(&run.task.as_str()) {
            tasks.push(&run.task);
        }
    }
    let row = |task: &&str| {
        let of = |model: &String| result.runs.iter().find(|run| run.task == **task && run.model == *model);
        let mut marks: Vec<RowMark> = models.iter().map(|model| of(model).map(mark).unwrap_or_default()).collect();
        let chance = result.runs.iter().find(|run| run.task == **task).and_then(|run| run.chance.value());
        marks.push(RowMark {
            value: chance,
            interval: None,
            tip: chance.map_or(String::new(), |value| format!("chance: {}", percent(value))),
        });
        Row { label: (*task).to_owned(), group: String::new(), marks }
    };
    RowChart {
        title: "Headline scores".into(),
        desc: "One row for each task, one mark for each model with its 95 % interval".into(),
        axis: Axis { label: "score, 0 to 1".into(), scale: AxisScale::FromZero, ticks: Ticks::Any },
        series: series.map(|(name, style)| RowSeries { name, style }).collect(),
        rows: tasks.iter().map(row).collect(),
        style: RowStyle::Dots,
    }
}

fn mark(run: &EvalRun) -> RowMark {
    let Some(estimate) = run.scores.first().map(|score| &score.estimate) else { return RowMark::default() };
    RowMark {
        value: estimate.value.value(),
        interval: estimate.interval.value().map(|interval| [interval.low, interval.high]),
        tip: format!("{}: {}", run.model, share(estimate.value)),
    }
}

fn run_rows(result: &EvalResult) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for run in &result.runs {
        for (index, score) in run.scores.iter().enumerate() {
            let only_first = |text: String| if index == 0 { text } else { String::new() };
            rows.push(vec![
                run.task.clone(),
                run.model.clone(),
                score.name.clone(),
                share(score.estimate.value),
                interval(&score.estimate, percent),
                only_first(share(run.chance)),
                only_first(count(run.questions as u64)),
                only_first(value(run.response_bytes)),
                only_first(value(run.response_tokens)),
            ]);
        }
    }
    rows
}

fn pair_rows(result: &EvalResult) -> Vec<Vec<String>> {
    let row = |of: &Comparison| {
        vec![
            format!("{}, {}", of.task, of.score),
            of.first.clone(),
            of.second.clone(),
            share(of.paired.difference.value),
            interval(&of.paired.difference, percent),
            count(of.paired.first_only as u64),
            count(of.paired.second_only as u64),
            value(of.paired.p_value),
        ]
    };
    result.comparisons.iter().map(row).collect()
}

/// What the numbers are, in sentences.
fn notes(result: &EvalResult) -> Vec<String> {
    let spec = &result.spec;
    let mut notes = vec![
        "The first score of each task is its headline. Intervals of shares are Wilson's, those of f1 and of differences \
         are of a bootstrap over questions; chance is the mean share of right answers of a guess. Bytes and tokens are \
         the mean length of answers: of the texts that were written, or the options that were chosen."
            .to_owned(),
    ];
    for (run, of) in result.runs.iter().filter_map(|run| Some((run, run.ensembled_share?))) {
        notes.push(format!("{}: {} of the symbols were chosen by all members together.", run.name, percent(of)));
    }
    for run in &result.runs {
        let first_of_task = result.runs.iter().find(|other| other.task == run.task);
        if !first_of_task.is_some_and(|first| std::ptr::eq(first, run)) {
            continue;
        }
        let limited = if run.questions < run.available {
            let which = if spec.shuffle.is_some() { "drawn from" } else { "the first of" };
            format!(" ({} questions, {which} {})", count(run.questions as u64), count(run.available as u64))
        } else {
            String::new()
        };
        let left_out: Vec<String> =
            run.left_out.iter().map(|rows| format!("{} left out: {}", count(rows.rows as u64), rows.why)).collect();
        let left_out = if left_out.is_empty() { String::new() } else { format!(" {}.", left_out.join("; ")) };
        notes.push(format!("{}: {}{limited}{left_out}", run.task, run.description));
    }
    let turn = match &spec.turn {
        Turn::Beginning => "Questions were the beginning of a text.",
        Turn::User { .. } => "Questions were a user's turn in the model's chat template.",
    };
    notes.push(format!("{turn} Written by lathe {}.", result.lathe));
    notes
}

fn interval(estimate: &Estimate, write: impl Fn(f64) -> String) -> String {
    estimate.interval.value().map_or("–".into(), |of| format!("{} to {}", write(of.low), write(of.high)))
}
