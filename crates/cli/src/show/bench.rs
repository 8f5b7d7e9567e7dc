//! Times.

use std::fmt::Write;

use lathe_lab::figure::{bytes, number, percent};
use lathe_lab::{BenchResult, Comparison, MethodRow, PassProfile, PhaseTime};
use lathe_model::Phase;

use super::{computed, lines};
use crate::table::Align;

/// `lathe bench`
pub(crate) fn bench(result: &BenchResult) -> String {
    let columns = [
        ("timed", Align::Left),
        ("tokens/s", Align::Right),
        ("slowest to fastest", Align::Left),
        ("of ceiling", Align::Right),
    ];
    let mut out = format!(
        "{} threads, {}; this machine multiplies and adds at {} GFLOP/s (bf16 {}, bytes {}) and reads memory at {} GB/s\n",
        result.threads,
        result.instructions,
        number(result.ceiling.gflops),
        number(result.ceiling.bf16_gflops),
        number(result.ceiling.int8_gops),
        number(result.ceiling.read_gbytes)
    );
    for model in &result.models {
        let memory = model.peak_memory.map_or("not known".into(), bytes);
        let (load, weights) = (number(model.load_seconds), bytes(model.weight_bytes));
        let compute = computed(model.compute);
        let name = &model.model;
        let _ = write!(out, "\n{name}, {compute}: loaded in {load} s, {weights} of weights, peak memory {memory}\n");
        let row = |row: &lathe_lab::BenchRow| {
            let [low, high] = row.range.map(number);
            vec![row.what.clone(), number(row.rate), format!("{low} to {high}"), percent(row.of_ceiling)]
        };
        if !model.rows.is_empty() {
            let _ = write!(out, "\n{}", lines(&columns, model.rows.iter().map(row).collect()));
        }
        model.profiles.iter().for_each(|pass| out += &profile(pass));
        out += &methods(&model.methods);
    }
    if !result.methods.is_empty() {
        let _ = write!(out, "\nwithout a model:\n{}", methods(&result.methods));
    }
    out
}

fn profile(pass: &PassProfile) -> String {
    let row = |phase: &PhaseTime| {
        let gflops = phase.gflops.map_or(String::new(), number);
        vec![phase_name(phase.phase).to_owned(), number(1e3 * phase.seconds), percent(phase.share), gflops]
    };
    let all = vec!["all".to_owned(), number(1e3 * pass.seconds), percent(1.0), String::new()];
    let columns =
        [("phase", Align::Left), ("ms", Align::Right), ("share", Align::Right), ("GFLOP/s of products", Align::Right)];
    let table = lines(&columns, pass.phases.iter().map(row).chain([all]).collect());
    format!("\n{}, the average of {}:\n\n{table}", pass.what, pass.passes)
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Embedding => "embedding",
        Phase::Norm => "norms",
        Phase::QueryKeyValue => "query, key, value",
        Phase::Rotary => "rotary",
        Phase::Attention => "attention",
        Phase::Output => "output projection",
        Phase::FeedForward => "feed-forward",
        Phase::Experts => "experts",
        Phase::Residual => "residual sums",
        Phase::Head => "head",
        Phase::Other => "other",
    }
}

fn methods(rows: &[MethodRow]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let columns = [
        ("method", Align::Left),
        ("ms", Align::Right),
        ("fastest to slowest", Align::Left),
        ("tokens/s", Align::Right),
        ("compared", Align::Left),
    ];
    let ms = |seconds: f64| number(1e3 * seconds);
    let row = |row: &MethodRow| {
        let compared = row.beside.as_ref().map(|beside| match beside.comparison {
            Comparison::Speed => format!("{} of the speed of {}", percent(beside.share), beside.what),
            Comparison::Added => format!("adds {} to {}", percent(beside.share), beside.what),
            Comparison::Time => format!("{} of {}", percent(beside.share), beside.what),
        });
        let [median, range, rate] = row.timing.as_ref().map_or_else(Default::default, |timing| {
            let [fastest, slowest] = timing.range.map(ms);
            [ms(timing.median), format!("{fastest} to {slowest}"), number(timing.rate)]
        });
        vec![row.what.clone(), median, range, rate, compared.or(row.note.clone()).unwrap_or_default()]
    };
    format!("\n{}", lines(&columns, rows.iter().map(row).collect()))
}
