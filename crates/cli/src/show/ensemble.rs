//! Results about ensembles.

use std::fmt::Write;

use lathe_lab::ensemble::{DetermineResult, EnsembleResult, Verdict};
use lathe_lab::eval::ScoreRow;
use lathe_lab::figure::{count, measured, number, percent};

use super::{computed, lines};
use crate::table::Align;

/// `lathe ensemble`
pub(crate) fn together(result: &EnsembleResult) -> String {
    let mut text = String::new();
    let counts = &result.totals.counts;
    let symbols = counts.ensembled + counts.alone;
    let _ = writeln!(text, "{}, {}", result.ensemble, computed(result.compute));
    let resumed = if result.resumed > 0 { format!("; {} were there", result.resumed) } else { String::new() };
    let _ = writeln!(
        text,
        "{} texts{resumed}; {} symbols, {} of them chosen by all members together",
        count(result.strings as u64),
        count(symbols as u64),
        percent(result.totals.ensembled_share)
    );
    if counts.respelt + counts.silent > 0 {
        let _ = writeln!(
            text,
            "a member read tokens again {} times because the text is spelt differently now, and had nothing to say {} times",
            count(counts.respelt as u64),
            count(counts.silent as u64)
        );
    }
    if result.tokens > 0 {
        let of = result.ms_per_token;
        let _ = writeln!(
            text,
            "{} tokens of the first member in {} s, {} tokens/s; ms per token: {} models, {} combining, {} spelling",
            count(result.tokens as u64),
            number(result.seconds),
            number(result.tokens as f64 / result.seconds.max(1e-9)),
            number(of.forward),
            number(of.combine),
            number(of.spell)
        );
    }
    for file in &result.files {
        let _ = writeln!(text, "saved in {}", file.display());
    }
    text
}

/// `lathe ensemble determine`
pub(crate) fn determined(result: &DetermineResult) -> String {
    let value = |score: &ScoreRow| measured(score.estimate.value, percent);
    let rows = result.decisions.iter().map(|of| {
        vec![
            of.model.clone(),
            value(&of.alone),
            format!("{:.1}", of.gap_points),
            format!("{:.2}", of.length_ratio),
            percent(of.shared_vocabulary),
            count(of.adds as u64),
            count(of.lacks as u64),
            of.together.as_ref().map_or("–".into(), value),
            of.gain_points.map_or("–".into(), |gain| format!("{gain:+.1}")),
            match of.verdict {
                Verdict::First => "first",
                Verdict::Kept => "kept",
                Verdict::Dropped => "dropped",
                Verdict::Refused => "not tried",
            }
            .to_owned(),
        ]
    });
    let titles = [
        ("model", Align::Left),
        ("alone", Align::Right),
        ("gap", Align::Right),
        ("length", Align::Right),
        ("vocabulary", Align::Right),
        ("only it", Align::Right),
        ("only others", Align::Right),
        ("together", Align::Right),
        ("gain", Align::Right),
        ("", Align::Left),
    ];
    let mut text = lines(&titles, rows.collect());
    text.push('\n');
    for of in &result.decisions {
        let _ = writeln!(text, "{}: {}", of.model, of.reason);
    }
    let _ = writeln!(
        text,
        "\n{} on {} questions of {}: {}{}",
        result.members.join("+"),
        count(result.questions as u64),
        result.task,
        value(&result.reached),
        match result.reached.estimate.interval.value() {
            Some(interval) => format!(" [{}, {}] {}", percent(interval.low), percent(interval.high), result.score),
            None => format!(" {}", result.score),
        }
    );
    text += "gap: points behind the best; length: ratio of mean answer lengths; vocabulary: share of its strings that the best\n\
             model has; only it, only others: questions that only one side has right. The score together was reached on the\n\
             questions that chose the members: measure it on others with `lathe eval`.\n";
    text
}
