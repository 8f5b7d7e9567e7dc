//! Results about answers.

use std::fmt::Write;

use lathe_lab::eval::{CompareResult, EvalResult, EvalRun, ScoreRow, TaskRow};
use lathe_lab::figure::{count, number, percent, share, value};
use lathe_measure::Estimate;
use lathe_measure::shares::PairedScores;

use super::{computed, lines};
use crate::table::Align;

/// `lathe eval`
pub(crate) fn eval(result: &EvalResult) -> String {
    // One run has room for all of its scores; of several each has its headline.
    let shown = if result.runs.len() == 1 { usize::MAX } else { 1 };
    let rows = result.runs.iter().flat_map(|run| {
        run.scores.iter().take(shown).enumerate().map(move |(index, score)| run_row(run, score, index == 0))
    });
    let titles = [
        ("task", Align::Left),
        ("model", Align::Left),
        ("score", Align::Left),
        ("value [95 % interval]", Align::Left),
        ("chance", Align::Right),
        ("questions", Align::Right),
        ("tokens", Align::Right),
    ];
    let mut text = lines(&titles, rows.collect());
    if !result.comparisons.is_empty() {
        let rows = result.comparisons.iter().map(|of| {
            let models = vec![of.task.clone(), of.first.clone(), of.second.clone()];
            [models, pair_cells(&of.paired)].concat()
        });
        text.push('\n');
        text += &lines(
            &[&[("task", Align::Left), ("first", Align::Left), ("second", Align::Left)], &PAIR[..]].concat(),
            rows.collect(),
        );
    }
    text.push('\n');
    for run in &result.runs {
        for note in notes(run) {
            let _ = writeln!(text, "{note}");
        }
    }
    let seconds: f64 = result.runs.iter().map(|run| run.seconds).sum();
    let asked: usize = result.runs.iter().map(|run| run.questions - run.resumed).sum();
    let _ = writeln!(
        text,
        "tokens: mean length of an answer; {} questions in {} s, {}",
        count(asked as u64),
        number(seconds),
        computed(result.spec.compute)
    );
    if let Some(page) = result.files.iter().find(|file| file.extension().is_some_and(|e| e == "html")) {
        let _ = writeln!(text, "The page is {}", page.display());
    }
    text
}

/// `lathe eval --list`
pub(crate) fn tasks(tasks: &[TaskRow]) -> String {
    let rows = tasks.iter().map(|task| {
        vec![
            task.name.clone(),
            task.score.clone(),
            count(task.examples as u64),
            task.data.clone().unwrap_or_else(|| "--data FILE".into()),
            task.description.clone(),
        ]
    });
    let titles = [
        ("task", Align::Left),
        ("score", Align::Left),
        ("examples", Align::Right),
        ("data", Align::Left),
        ("what it asks", Align::Left),
    ];
    lines(&titles, rows.collect())
}

/// `lathe eval compare`
pub(crate) fn compare(result: &CompareResult) -> String {
    let files = result.answers.iter().zip(&result.scores).zip(&result.alone);
    let rows = files.map(|((file, score), alone)| {
        vec![file.display().to_string(), estimate(score), count(result.questions as u64), count(*alone as u64)]
    });
    let titles = [
        ("answers", Align::Left),
        ("value [95 % interval]", Align::Left),
        ("questions of both", Align::Right),
        ("others", Align::Right),
    ];
    format!("{}\n{}", lines(&titles, rows.collect()), lines(&PAIR, vec![pair_cells(&result.paired)]))
}

const PAIR: [(&str, Align); 4] = [
    ("first minus second", Align::Left),
    ("only first right", Align::Right),
    ("only second right", Align::Right),
    ("p (McNemar)", Align::Right),
];

fn pair_cells(paired: &PairedScores) -> Vec<String> {
    vec![
        estimate(&paired.difference),
        count(paired.first_only as u64),
        count(paired.second_only as u64),
        value(paired.p_value),
    ]
}

fn run_row(run: &EvalRun, score: &ScoreRow, is_headline: bool) -> Vec<String> {
    let once = |text: String| if is_headline { text } else { String::new() };
    vec![
        once(run.task.clone()),
        once(run.model.clone()),
        score.name.clone(),
        estimate(&score.estimate),
        once(share(run.chance)),
        once(count(run.questions as u64)),
        once(value(run.response_tokens)),
    ]
}

fn notes(run: &EvalRun) -> Vec<String> {
    let mut notes = Vec::new();
    if run.questions < run.available {
        notes.push(format!(
            "{}: {} of {} questions",
            run.name,
            count(run.questions as u64),
            count(run.available as u64)
        ));
    }
    if run.resumed > 0 {
        notes.push(format!("{}: {} answers were there", run.name, count(run.resumed as u64)));
    }
    if let Some(of) = run.ensembled_share {
        notes.push(format!("{}: {} of the symbols were chosen by all members together", run.name, percent(of)));
    }
    let left_out = run.left_out.iter();
    notes.extend(left_out.map(|rows| format!("{}: {} left out: {}", run.name, count(rows.rows as u64), rows.why)));
    notes
}

/// A share with its interval.
fn estimate(estimate: &Estimate) -> String {
    let value = share(estimate.value);
    match estimate.interval.value() {
        Some(interval) => format!("{value} [{}, {}]", percent(interval.low), percent(interval.high)),
        None => value,
    }
}
