//! Results about generated texts.

use std::fmt::Write;

use lathe_lab::ExperimentResult;
use lathe_lab::figure::{count, number, percent, share, value};
use lathe_lab::generate::GenerateResult;
use lathe_lab::measure::SamplesResult;
use lathe_measure::samples::Mauve;
use lathe_measure::{Estimate, Measured};

use super::{computed, lines};
use crate::table::Align;

/// `lathe generate --out`, and the diagnostics of global normalisation.
pub(crate) fn generate(result: &GenerateResult) -> String {
    let mut text = String::new();
    for prompt in &result.diagnostics {
        let of = &prompt.diagnostics;
        let rows = [
            ("texts", format!("{}, {} different, of {} proposals", of.samples, of.distinct, of.proposals)),
            ("sd of log w", format!("{} nats", value(of.sd_log_w))),
            ("acceptance", format!("{}; {} if log w is normal", share(of.acceptance), share(of.normal_acceptance))),
            ("effective sample size", value(of.ess)),
            ("ln Z", format!("{} ± {} nats", value(of.log_z), value(of.log_z_error))),
            (
                "censored",
                format!("{} of proposals, {} of texts", share(of.censored_proposals), share(of.censored_samples)),
            ),
            ("resampled", format!("{} times", prompt.resampled)),
        ];
        if result.diagnostics.len() > 1 {
            let _ = writeln!(text, "prompt {}", prompt.prompt);
        }
        for (name, value) in rows {
            let _ = writeln!(text, "{name:<22} {value}");
        }
        text.push('\n');
    }
    let resumed = if result.resumed > 0 { format!("; {} were there", result.resumed) } else { String::new() };
    let _ = writeln!(
        text,
        "{} texts ({} cut by their length){resumed}; {} tokens in {} s, {} tokens/s, {} at once, {}",
        count(result.strings as u64),
        percent(result.censored),
        count(result.tokens as u64),
        number(result.seconds),
        number(result.tokens as f64 / result.seconds.max(1e-9)),
        result.batch,
        computed(result.compute)
    );
    if let Some(out) = &result.out {
        let _ = writeln!(text, "saved in {}", out.display());
    }
    text
}

/// `lathe run`
pub(crate) fn experiment(result: &ExperimentResult) -> String {
    let rows = result.steps.iter().map(|step| {
        let state = match (&step.failed, step.cached) {
            (Some(why), _) => why.as_str(),
            (None, true) => "was there",
            (None, false) => "done",
        };
        vec![step.name.clone(), number(step.seconds), state.to_owned()]
    });
    let table = lines(&[("step", Align::Left), ("seconds", Align::Right), ("", Align::Left)], rows.collect());
    format!("{table}\nThe page is {}, with {} figures\n", result.page.display(), result.figures.len())
}

/// `lathe measure samples`
pub(crate) fn samples(result: &SamplesResult) -> String {
    let mut text = String::new();
    let mauve = |mauve: &Mauve, of: &str| {
        let model = result.model.as_deref().unwrap_or_default();
        let area = [vec![format!("MAUVE {of}"), estimate(&mauve.area), "1".to_owned()]];
        let how = format!(
            "  {} and {} texts, {} clusters, features of {model}, at most {} tokens\n",
            mauve.texts[0], mauve.texts[1], mauve.clusters, result.max_tokens
        );
        (area.concat(), how)
    };
    for set in &result.sets {
        let _ = writeln!(text, "{}: {} texts", set.file.display(), count(set.texts as u64));
        let mut rows: Vec<Vec<String>> = set
            .means
            .iter()
            .chain(&set.of_set)
            .map(|number| vec![number.name.clone(), estimate(&number.estimate), number.unit.to_owned()])
            .collect();
        let against = set.mauve.as_ref().map(|of| mauve(of, "against the reference"));
        rows.extend(against.iter().map(|(row, _)| row.clone()));
        text += &lines(&[("number", Align::Left), ("mean [95 % interval]", Align::Left), ("unit", Align::Left)], rows);
        text += against.as_ref().map_or("", |(_, how)| how);
        text.push('\n');
    }
    if !result.paired.is_empty() {
        let rows = result.paired.iter().map(|of| {
            let p = value(of.paired.p_value);
            vec![of.name.clone(), estimate(&of.paired.difference), p, of.unit.to_owned()]
        });
        let titles =
            [("second minus first", Align::Left), ("mean", Align::Left), ("p", Align::Right), ("unit", Align::Left)];
        text += &lines(&titles, rows.collect());
    }
    if let Some(between) = &result.between {
        let (row, how) = mauve(between, "of the two sets");
        let _ = write!(text, "{}\n{how}", row[..2].join("  "));
    }
    text
}

/// A value with its interval, where there is one.
fn estimate(e: &Estimate) -> String {
    let value = match e.value {
        Measured::Value(value) => number(value),
        Measured::Undefined(reason) => return format!("– ({reason})"),
    };
    match &e.interval {
        Measured::Value(i) => format!("{value} [{}, {}]", number(i.low), number(i.high)),
        Measured::Undefined(_) => value,
    }
}
