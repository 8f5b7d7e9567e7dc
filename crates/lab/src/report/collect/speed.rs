//! How fast a model reads and writes here and now: one sequence, f32, timed while nothing else of the report runs.

use lathe_measure::run::Document;
use lathe_model::KvCache;

use super::generations::read;
use super::states::random_windows;
use super::{Absent, Bench};
use crate::bench::median;
use crate::report::data::{Quantity, Speed};
use crate::{Error, Loaded};

/// Tokens of the prompt that is read.
const PREFILL_TOKENS: usize = 512;
/// Tokens that are written.
const DECODE_TOKENS: usize = 64;
/// Tokens before the first one that is written.
const DECODE_PROMPT: usize = 16;
/// Timed runs of each, after one that is not timed.
const RUNS: usize = 3;

/// Reading is timed from the ids of a prompt to its next token, through an empty cache; writing from one token to the
/// next, each the model's own most likely one. Of several runs the median counts.
pub(super) fn speed(
    loaded: &Loaded,
    documents: Option<&[Document]>,
    peak_before: Option<u64>,
    bench: &Bench<'_>,
) -> Result<Speed, Absent> {
    let spec = loaded.decoder.spec();
    let prefill = PREFILL_TOKENS.min(spec.context_length);
    let decode = DECODE_TOKENS.min(spec.context_length.saturating_sub(DECODE_PROMPT));
    if decode == 0 {
        return Err(Absent::Data(format!("a context of {} tokens is too short to time", spec.context_length)));
    }
    let ids = prompt(loaded, documents, prefill, bench.spec.seed);
    let steps = ((RUNS + 1) * (prefill + decode)) as u64;
    let (read_rates, write_rates) = bench.stage("speed", steps, "tokens", |watch| {
        let mut rates = (Vec::with_capacity(RUNS), Vec::with_capacity(RUNS));
        for run in 0..=RUNS {
            let reading = time_prefill(loaded, &ids, watch.seconds)?;
            let writing = time_decode(loaded, &ids[..DECODE_PROMPT.min(ids.len())], decode, watch.seconds)?;
            (watch.advance)((prefill + decode) as u64);
            // The first run pays for pages that were never touched.
            if run > 0 {
                rates.0.push(prefill as f64 / reading);
                rates.1.push(decode as f64 / writing);
            }
        }
        Ok::<_, Error>(rates)
    })?;
    let rate =
        |rates: &[f64], tokens: usize| Quantity::new(median(rates), "tokens/s").over((rates.len() * tokens) as u64);
    Ok(Speed {
        load: Quantity::new(loaded.seconds, "s").over(1),
        prefill: rate(&read_rates, prefill),
        decode: rate(&write_rates, decode),
        prefill_range: range(&read_rates),
        decode_range: range(&write_rates),
        prefill_tokens: prefill as u64,
        decode_tokens: decode as u64,
        runs: RUNS as u64,
        peak_memory: peak(peak_before, (bench.context.peak_memory)()),
    })
}

/// The longest text that the model has read, else random ids.
fn prompt(loaded: &Loaded, documents: Option<&[Document]>, tokens: usize, seed: u64) -> Vec<u32> {
    let long_enough = documents.into_iter().flatten().find(|document| document.ids.len() >= tokens);
    long_enough.map_or_else(
        || random_windows(loaded.decoder.spec().vocab_size, tokens, 1, seed).concat(),
        |document| document.ids[..tokens].to_vec(),
    )
}

fn time_prefill(loaded: &Loaded, ids: &[u32], seconds: &dyn Fn() -> f64) -> Result<f64, Error> {
    let mut cache = KvCache::new(loaded.decoder.spec(), 1);
    let started = seconds();
    read(&loaded.decoder, &mut cache, ids)?;
    Ok(seconds() - started)
}

fn time_decode(loaded: &Loaded, prompt: &[u32], tokens: usize, seconds: &dyn Fn() -> f64) -> Result<f64, Error> {
    let mut cache = KvCache::new(loaded.decoder.spec(), 1);
    let mut next = read(&loaded.decoder, &mut cache, prompt)?;
    let started = seconds();
    for _ in 0..tokens {
        next = read(&loaded.decoder, &mut cache, &[next.id])?;
    }
    Ok(seconds() - started)
}

/// Slowest and fastest; none where a clock did not move.
fn range(rates: &[f64]) -> Option<[f64; 2]> {
    let low = rates.iter().copied().fold(f64::INFINITY, f64::min);
    let high = rates.iter().copied().fold(0.0, f64::max);
    (low.is_finite() && high.is_finite()).then_some([low, high])
}

/// The peak of the process, as far as it can be this model's: the system keeps one number for the whole process.
fn peak(before: Option<u64>, after: Option<u64>) -> Quantity {
    let unit = "bytes";
    match (before, after) {
        (_, None) => Quantity::missing(unit, "the system does not say it"),
        (Some(before), Some(after)) if after <= before => {
            Quantity::missing(unit, "no more than the models before it needed")
        }
        (_, Some(after)) => Quantity::new(after as f64, unit).over(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_ranges() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0]), 2.5);
        assert!(median(&[]).is_nan());
        assert_eq!(range(&[3.0, 1.0, 2.0]), Some([1.0, 3.0]));
        assert_eq!(range(&[1.0, f64::INFINITY]), None);
    }

    #[test]
    fn a_peak_that_an_earlier_model_set_is_not_claimed() {
        assert_eq!(peak(Some(10), Some(12)).value, Some(12.0));
        assert_eq!(peak(None, Some(12)).value, Some(12.0));
        assert_eq!(peak(Some(12), Some(12)).value, None);
        assert!(peak(Some(12), None).reason.is_some());
    }
}
