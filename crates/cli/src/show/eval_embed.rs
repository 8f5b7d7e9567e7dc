//! Results about vectors of texts.

use std::fmt::Write;

use lathe_lab::embed_eval::{EmbedEvalResult, EmbedRun, EmbedTaskRow, VectorsRow};
use lathe_lab::eval::ScoreRow;
use lathe_lab::figure::{count, measured, number};
use lathe_measure::Number;

use super::{computed, lines};
use crate::table::Align;

/// `lathe eval-embed`
pub(crate) fn embed_eval(result: &EmbedEvalResult) -> String {
    let mut text = String::new();
    for run in &result.runs {
        text += &block(run);
        text.push('\n');
    }
    text += "HS: hidden state, RW: what the routers say. Standardised by the task's own texts; α without labels. [95 % interval]\n";
    let seconds: f64 = result.runs.iter().filter(|run| !run.resumed).map(|run| run.seconds).sum();
    let _ = writeln!(text, "{} s, {}", number(seconds), computed(result.spec.features.compute));
    if let Some(page) = result.files.iter().find(|file| file.extension().is_some_and(|e| e == "html")) {
        let _ = writeln!(text, "The page is {}", page.display());
    }
    text
}

/// `lathe eval-embed --list`
pub(crate) fn embed_tasks(tasks: &[EmbedTaskRow]) -> String {
    let rows = tasks.iter().map(|task| {
        let data = task.data.clone().unwrap_or_else(|| "--data FILE".into());
        vec![task.name.clone(), task.kind.clone(), task.score.clone(), data, task.description.clone()]
    });
    let titles = ["task", "type", "score", "data", "what it asks"].map(|title| (title, Align::Left));
    lines(&titles, rows.collect())
}

/// One model with one prompt and one task: a row for each kind of vector.
fn block(run: &EmbedRun) -> String {
    let mut names: Vec<&str> = Vec::new();
    for score in run.rows.iter().flat_map(|row| &row.scores) {
        if !names.contains(&score.name.as_str()) {
            names.push(&score.name);
        }
    }
    let has_alpha = run.rows.iter().any(|row| row.alpha.is_some());
    let deviation = run.rows.iter().any(|row| row.deviation.is_some());
    let mut titles = vec![("vectors", Align::Left), ("width", Align::Right)];
    titles.extend(has_alpha.then_some(("α", Align::Right)));
    titles.extend(names.iter().take(1).map(|name| (*name, Align::Left)));
    // What the headline's mean is over: draws or clusterings.
    titles.extend(deviation.then_some(("sd", Align::Right)));
    titles.extend(names.iter().skip(1).map(|name| (*name, Align::Left)));
    let rows = run.rows.iter().map(|row| {
        let mut cells = vec![row.label.clone(), width(row)];
        cells.extend(has_alpha.then(|| value(row.alpha)));
        for (index, name) in names.iter().enumerate() {
            cells.push(row.scores.iter().find(|score| score.name == *name).map_or("–".into(), estimate));
            cells.extend((index == 0 && deviation).then(|| value(row.deviation)));
        }
        cells
    });
    let part = if run.units < run.available { format!(" of {}", count(run.available as u64)) } else { String::new() };
    let mut text = format!(
        "{} · {} · {}: {} {}{part}, {} texts\n\n{}",
        run.task,
        run.model,
        run.prompt,
        count(run.units as u64),
        run.unit,
        count(run.texts as u64),
        lines(&titles, rows.collect())
    );
    for note in run.notes() {
        let _ = writeln!(text, "{note}");
    }
    text
}

fn width(row: &VectorsRow) -> String {
    if row.width == 0 { "–".into() } else { count(row.width as u64) }
}

fn value(of: Option<Number>) -> String {
    of.and_then(Number::value).map_or("–".into(), number)
}

fn estimate(score: &ScoreRow) -> String {
    let value = measured(score.estimate.value, number);
    match score.estimate.interval.value() {
        Some(interval) => format!("{value} [{}, {}]", number(interval.low), number(interval.high)),
        None => value,
    }
}
