//! The page of an experiment's results.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use super::plan::{ExperimentFile, Step};
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
        let titles: Vec<&str> = table.columns.iter().map(|(title, _)| title.as_str()).collect();
        let _ = writeln!(text, "| step | {} |\n|---|{}", titles.join(" | "), "---|".repeat(titles.len()));
        for step in steps.iter().filter(|step| step.name.starts_with(&table.steps)) {
            let result = results.get(&step.name).and_then(|kept| kept.result.as_ref());
            let cells: Vec<String> = table
                .columns
                .iter()
                .map(|(_, path)| {
                    cell(
                        result.and_then(|result| lookup(result, path)),
                        result.and_then(|result| number_at(result, path)),
                    )
                })
                .collect();
            let _ = writeln!(text, "| {} | {} |", step.name, cells.join(" | "));
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
