//! Results as text for a terminal. Nothing is computed here; numbers are chosen and formatted.

mod bench;
mod context;
mod diff;
mod embed;
mod ensemble;
mod eval;
mod eval_embed;
mod fairness;
mod measures;
mod merge;
mod models;
mod texts;
mod tokenizer;
mod tune;
mod upcycle;
mod vocabulary;

use lathe_lab::figure::{bytes, count, number};
use lathe_lab::{Compute, ExportResult, TraceResult};
use lathe_measure::{Estimate, Measured};

pub(crate) use bench::bench;
pub(crate) use context::{conflicts, context, critical, instructions};
pub(crate) use diff::diff;
pub(crate) use embed::{analysed, cut, embedded, found};
pub(crate) use ensemble::{determined, together};
pub(crate) use eval::{compare, eval, tasks};
pub(crate) use eval_embed::{embed_eval, embed_tasks};
pub(crate) use fairness::fairness;
pub(crate) use measures::{attention, spectrum, tokens};
pub(crate) use merge::{explored, extracted, merge_plan, merged, residual};
pub(crate) use models::{fetchable, inspection, models, tensors};
pub(crate) use texts::{experiment, generate, samples};
pub(crate) use tokenizer::tokenizer;
pub(crate) use tune::{audit, tuned};
pub(crate) use upcycle::upcycled;
pub(crate) use vocabulary::vocabulary;

use crate::table::{Align, Table, render, terminal_width};

/// `lathe trace`
pub(crate) fn trace(result: &TraceResult) -> String {
    let rows = result.tensors.iter().map(|(name, shape)| vec![name.clone(), format!("{shape:?}")]);
    let table = lines(&[("tensor", Align::Left), ("shape", Align::Left)], rows.collect());
    format!("{table}\n{} tokens; saved in {}\n", result.tokens, result.out.display())
}

/// `lathe export`
pub(crate) fn export(result: &ExportResult) -> String {
    let files = result.files.iter().map(|file| vec![file.file.clone(), bytes(file.bytes)]).collect();
    let files = lines(&[("file", Align::Left), ("size", Align::Right)], files);
    let elements =
        result.elements.iter().map(|e| vec![e.element.clone(), count(e.tensors as u64), bytes(e.bytes)]).collect();
    let columns = [("stored as", Align::Left), ("tensors", Align::Right), ("size", Align::Right)];
    let notes: String = result.notes.iter().map(|note| format!("note: {note}\n")).collect();
    let gap = if notes.is_empty() { "" } else { "\n" };
    format!(
        "{files}\n{}{gap}{notes}\n{} was written to {}\n",
        lines(&columns, elements),
        result.model,
        result.out.display()
    )
}

/// The arithmetic behind numbers, in words.
fn computed(compute: Compute) -> &'static str {
    match compute {
        Compute::F32 => "computed in f32",
        Compute::Bf16 => "computed in bf16 (weights and their inputs rounded)",
        Compute::Native => "computed in the file's precision (inputs rounded to match)",
    }
}

fn lines(columns: &[(&str, Align)], rows: Vec<Vec<String>>) -> String {
    let columns = columns.iter().map(|(title, align)| ((*title).to_owned(), *align)).collect();
    render(&Table { columns, rows }, terminal_width())
}

fn interval(e: &Estimate) -> String {
    match &e.interval {
        Measured::Value(i) => format!("{} to {}", number(i.low), number(i.high)),
        Measured::Undefined(reason) => reason.to_string(),
    }
}
