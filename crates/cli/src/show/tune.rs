//! A model that was trained, and the data that it was trained on.

use lathe_lab::figure::{bytes, count, number};
use lathe_lab::{Compute, TuneAudit, TuneResult, audit_rows};

use super::{computed, lines};
use crate::table::Align;

/// The audit of labels.
pub(crate) fn audit(audit: &TuneAudit) -> String {
    let rows = audit_rows(audit).into_iter().map(|(name, value)| vec![name, value]).collect();
    let mut text = lines(&[("data", Align::Left), ("", Align::Right)], rows);
    for warning in &audit.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    for bad in audit.bad.iter().take(10) {
        text.push_str(&format!("left out: {}, line {}: {}\n", bad.file.display(), bad.line, bad.problem));
    }
    text
}

/// `lathe tune full`, `lathe tune lora`
pub(crate) fn tuned(result: &TuneResult) -> String {
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
    row("model", result.model.clone());
    row("trained parameters", count(result.trained_parameters));
    if result.compute != Compute::F32 {
        row("arithmetic", computed(result.compute).into());
    }
    row("steps", count(result.losses.len() as u64));
    if let Some(step) = result.resumed_at {
        row("  went on after", count(step as u64));
    }
    if let (Some(first), Some(last)) = (result.losses.first(), result.losses.last()) {
        row("loss of the first step", format!("{} nats per token", number(*first)));
        row("loss of the last step", format!("{} nats per token", number(*last)));
    }
    row("tokens predicted", count(result.tokens));
    if let Some(look) = result.looks.last() {
        for (what, numbers) in &look.watched {
            for (name, value) in numbers {
                row(&format!("{what}: {name}"), number(*value));
            }
        }
    }
    if let Some(best) = result.best {
        row("best step", format!("{}, loss {}", count(best.step as u64), number(best.loss)));
    }
    if let Some(last) = result.checkpoints.last() {
        row("last checkpoint", last.display().to_string());
    }
    let files = result.files.iter().map(|file| vec![file.file.clone(), bytes(file.bytes)]).collect();
    format!(
        "{}\n{}\nThe report is {}\n",
        lines(&[("run", Align::Left), ("", Align::Left)], rows),
        lines(&[("file", Align::Left), ("size", Align::Right)], files),
        result.out.join("report.html").display()
    )
}
