//! Runs of different weight decay beside each other.

use std::fmt::Write;

use lathe_lab::figure::{count, mean_and_sd, number, share, value};
use lathe_lab::measure::{DecayBin, DecayFairness, DecaySplit, FairnessResult, RunFairness, RunSplit};
use lathe_measure::statistics::Spread;

use super::{interval, lines};
use crate::table::Align;

/// `lathe measure tokens --runs`
pub(crate) fn fairness(result: &FairnessResult) -> String {
    let mut out = format!(
        "{} types of {} training targets; low frequency is a count below {} (the {}th percentile)\n",
        count(result.counts.types as u64),
        count(result.counts.tokens),
        count(result.split_count),
        result.split_percentile,
    );
    out += &side("Training texts", result, |run| Some(&run.training), |decay| Some(&decay.training));
    if result.held_out.is_some() {
        out += &side("Held-out texts", result, |run| run.held_out.as_ref(), |decay| decay.held_out.as_ref());
    }
    for gap in &result.gaps {
        let [low, high] = gap.weight_decays;
        let of = if gap.variant.is_empty() { String::new() } else { format!("{}: ", gap.variant) };
        let _ = writeln!(
            out,
            "{of}learning speed at λ = {low} less that at λ = {high}: {} for low-frequency types, {} for high-frequency ones",
            value(gap.low),
            value(gap.high),
        );
    }
    for note in &result.notes {
        let _ = writeln!(out, "note: {note}");
    }
    let _ = writeln!(out, "Forward passes took {} s.", number(result.forward_seconds));
    out
}

fn side<'a>(
    title: &str,
    result: &'a FairnessResult,
    of_run: impl Fn(&'a RunFairness) -> Option<&'a RunSplit>,
    of_decay: impl Fn(&'a DecayFairness) -> Option<&'a DecaySplit>,
) -> String {
    const LOSSES: [(&str, Align); 4] =
        [("average", Align::Right), ("balanced", Align::Right), ("low", Align::Right), ("high", Align::Right)];
    let runs = result.runs.iter().filter_map(|run| Some((run, of_run(run)?)));
    let runs = runs.map(|(run, split)| {
        let types = &split.report.types;
        vec![
            run.name.clone(),
            run.step.map_or("–".into(), count),
            value(types.micro_nll.value),
            interval(&types.micro_nll),
            value(types.macro_nll.value),
            interval(&types.macro_nll),
            value(types.split.low_nll.value),
            value(types.split.high_nll.value),
            value(types.micro_nll.value.map(f64::exp)),
            value(types.macro_perplexity.value),
            share(types.micro_accuracy.value),
            share(types.macro_accuracy.value),
        ]
    });
    let runs = lines(
        &[
            ("run", Align::Left),
            ("step", Align::Right),
            ("average", Align::Right),
            ("95 % interval", Align::Left),
            ("balanced", Align::Right),
            ("95 % interval", Align::Left),
            ("low", Align::Right),
            ("high", Align::Right),
            ("perplexity", Align::Right),
            ("by type", Align::Right),
            ("accuracy", Align::Right),
            ("by type", Align::Right),
        ],
        runs.collect(),
    );
    let mut out = format!("\n{title}, nats, last checkpoints\n\n{runs}\n");
    let decays: Vec<(&DecayFairness, &DecaySplit)> =
        result.decays.iter().filter_map(|decay| Some((decay, of_decay(decay)?))).collect();
    if decays.iter().any(|(decay, _)| decay.seeds.len() > 1) {
        let rows = decays.iter().map(|(decay, split)| {
            let losses = [split.micro_nll, split.macro_nll, split.low_nll, split.high_nll, split.macro_over_micro];
            let speeds = [split.low_speed, split.high_speed];
            [
                vec![decay_name(decay), count(decay.seeds.len() as u64)],
                losses.map(mean_and_sd).to_vec(),
                speeds.map(mean_and_sd).to_vec(),
            ]
            .concat()
        });
        let titles = [
            &[("over seeds, ± sd", Align::Left), ("seeds", Align::Right)],
            &LOSSES[..],
            &[("ratio", Align::Right), ("speed, low", Align::Right), ("speed, high", Align::Right)],
        ];
        let _ = writeln!(out, "{}", lines(&titles.concat(), rows.collect()));
    }
    let Some((_, first)) = decays.first() else { return out };
    let titles = [
        vec![
            ("count".to_owned(), Align::Right),
            ("types".to_owned(), Align::Right),
            ("tokens".to_owned(), Align::Right),
        ],
        decays.iter().map(|(decay, _)| (decay_name(decay), Align::Right)).collect(),
    ];
    let titles = titles.concat();
    let titles: Vec<(&str, Align)> = titles.iter().map(|(title, align)| (title.as_str(), *align)).collect();
    let table = |pick: fn(&DecayBin) -> Spread| {
        let rows = first.bins.iter().map(|bin| {
            let head = vec![range(bin), count(bin.types as u64), count(bin.tokens as u64)];
            let cells = decays.iter().map(|(_, split)| {
                let own = split.bins.iter().find(|own| own.power == bin.power);
                own.map_or("–".into(), |own| value(pick(own).mean))
            });
            [head, cells.collect()].concat()
        });
        lines(&titles, rows.collect())
    };
    let _ = writeln!(
        out,
        "Mean over types of the loss, by how often a type is a training target\n\n{}",
        table(|bin| bin.nll)
    );
    if decays.iter().any(|(_, split)| split.speed.n > 0) {
        let speeds = table(|bin| bin.speed);
        let _ =
            writeln!(out, "Learning speed, 1 − area under (L − min L) / (max L − min L); higher is sooner\n\n{speeds}");
    }
    out
}

fn decay_name(decay: &DecayFairness) -> String {
    format!("{} λ = {}", decay.variant, decay.weight_decay).trim_start().to_owned()
}

fn range(bin: &DecayBin) -> String {
    format!("{}–{}", count(bin.count_least), count(bin.count_most))
}
