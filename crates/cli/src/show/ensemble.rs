//! Results about ensembles.

use std::fmt::Write;

use lathe_lab::ensemble::EnsembleResult;
use lathe_lab::figure::{count, number, percent};

use super::computed;

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
        let of = |seconds: f64| number(1000.0 * seconds / result.tokens as f64);
        let costs = result.costs;
        let _ = writeln!(
            text,
            "{} tokens of the first member in {} s, {} tokens/s; ms per token: {} models, {} combining, {} spelling",
            count(result.tokens as u64),
            number(result.seconds),
            number(result.tokens as f64 / result.seconds.max(1e-9)),
            of(costs.forward),
            of(costs.combine),
            of(costs.spell)
        );
    }
    for file in &result.files {
        let _ = writeln!(text, "saved in {}", file.display());
    }
    text
}
