//! The page of an experiment's results.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use super::plan::{ExperimentFile, Step, StepsAre};
use super::{Kept, lookup, number_at};
use crate::figure::{count, number};

/// RESULTS.md
pub(super) fn page(file: &ExperimentFile, stem: &str, steps: &[Step], results: &BTreeMap<String, Kept>) -> String {
    let mut text = format!("# {}\n\n{}\n\n", file.title, file.about.trim());
    let seconds: f64 = results.values().map(|kept| kept.seconds).sum();
    let _ = writeln!(
        text,
        "Written by `lathe run {stem}.toml`, lathe {}: {} steps, {} minutes of work. Intervals are at 95 %.\n",
        env!("CARGO_PKG_VERSION"),
        steps.len(),
        number(seconds / 60.0)
    );
    if let Some(findings) = &file.findings {
        let _ = writeln!(text, "## What came out\n\n{}\n", findings.trim());
    }
    for figure in &file.figure {
        let _ = writeln!(text, "![{}]({stem}-figures/{}.svg)\n\n{}\n", figure.title, figure.name, figure.title);
    }
    for table in &file.table {
        let _ = writeln!(text, "## {}\n", table.title);
        let of_steps: Vec<&Step> = steps.iter().filter(|step| step.name.starts_with(&table.steps)).collect();
        let value = |step: &Step, path: &str| {
            let result = results.get(&step.name).and_then(|kept| kept.result.as_ref());
            cell(result.and_then(|result| lookup(result, path)), result.and_then(|result| number_at(result, path)))
        };
        let items = table.items.as_deref().map(|path| items(&of_steps, path, results));
        let (titles, rows): (Vec<&str>, Vec<(&str, Vec<String>)>) = match (table.steps_are, &items) {
            (_, Some(items)) => {
                let value = |item: &Value, path: &str| cell(lookup(item, path), number_at(item, path));
                let row = |item: &Value| table.columns.iter().map(|(_, path)| value(item, path)).collect();
                let rows = items.iter().map(|item| (item["name"].as_str().unwrap_or_default(), row(item)));
                (table.columns.iter().map(|(title, _)| title.as_str()).collect(), rows.collect())
            }
            (StepsAre::Rows, None) => {
                let row = |step: &&'_ Step| table.columns.iter().map(|(_, path)| value(step, path)).collect();
                let rows = of_steps.iter().map(|step| (step.name.as_str(), row(step)));
                (table.columns.iter().map(|(title, _)| title.as_str()).collect(), rows.collect())
            }
            (StepsAre::Columns, None) => {
                let row = |path: &str| of_steps.iter().map(|step| value(step, path)).collect();
                let rows = table.columns.iter().map(|(title, path)| (title.as_str(), row(path)));
                // The part of a step's name that tells it from the others.
                let own = |name: &'_ str| name.strip_prefix(&table.steps).unwrap_or(name).trim().len();
                let titles = of_steps.iter().map(|step| &step.name[step.name.len() - own(&step.name)..]);
                (titles.collect(), rows.collect())
            }
        };
        let corner = if table.steps_are == StepsAre::Rows && items.is_none() { "step" } else { "" };
        let _ = writeln!(text, "| {corner} | {} |\n|---|{}", titles.join(" | "), "---|".repeat(titles.len()));
        for (name, cells) in rows {
            let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
        }
        text.push('\n');
    }
    let failed: Vec<(&str, &str)> = steps
        .iter()
        .filter_map(|step| Some((step.name.as_str(), results.get(&step.name)?.failed.as_deref()?)))
        .collect();
    if !failed.is_empty() {
        let _ = writeln!(text, "## Steps without a result\n\n| step | why |\n|---|---|");
        for (name, why) in failed {
            let _ = writeln!(text, "| {name} | {why} |");
        }
    }
    text.trim_end().to_owned() + "\n"
}

/// The items of a list in the results of steps.
fn items(steps: &[&Step], path: &str, results: &BTreeMap<String, Kept>) -> Vec<Value> {
    let of_step = |step: &&Step| lookup(results.get(&step.name)?.result.as_ref()?, path)?.as_array().cloned();
    steps.iter().filter_map(of_step).flatten().collect()
}

fn cell(found: Option<&Value>, as_number: Option<(f64, Option<[f64; 2]>)>) -> String {
    if let Some(whole) = found.and_then(Value::as_u64) {
        return count(whole);
    }
    match as_number {
        None => "–".into(),
        Some((value, None)) => number(value),
        Some((value, Some([low, high]))) => format!("{} [{}, {}]", number(value), number(low), number(high)),
    }
}
