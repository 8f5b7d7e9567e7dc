//! What happens inside a model: spectrum of the hidden states, attention sinks. Both over windows of one length.

use lathe_measure::Number;
use lathe_measure::run::{Document, Layers, SinkShares, sink_shares, spectra};
use lathe_measure::spectrum::{KeptColumns, Metric, NullCache, SpectrumOptions, WindowMean, summarise};
use lathe_measure::statistics::{bootstrap_mean, item_generator};
use rand::Rng as _;

use super::{Absent, Bench, average, quantity};
use crate::Loaded;
use crate::documents::fixed_windows;
use crate::report::data::{Attention, HeadMatrix, LayerSpectrum, Quantity, Spectrum};

const SAMPLE_WINDOWS: &str = "windows of the sample texts in turn";
const RANDOM_WINDOWS: &str = "seeded random tokens, as the model has no tokenizer";

/// Spectrum of every layer, means over windows.
pub(super) fn spectrum(loaded: &Loaded, documents: Option<&[Document]>, bench: &Bench<'_>) -> Result<Spectrum, Absent> {
    let windows = Windows::of(loaded, documents, bench.spec.spectrum_windows, bench)?;
    let options = SpectrumOptions {
        metrics: vec![Metric::MatrixNuclearNorm, Metric::MatrixEntropy],
        kept_columns: KeptColumns::SmallerSide,
        seed: bench.spec.seed,
    };
    let (layers, seconds) = bench.stage("spectrum by layer", windows.tokens(), "tokens", |watch| {
        spectra(&loaded.decoder, &windows.ids, Layers::All, &options, &NullCache::new(), watch)
    })?;
    let layers = layers.iter().map(|layer| {
        let summary = summarise(&layer.windows, bench.spec.seed)?;
        let mean = |mean: WindowMean| average(mean.mean, "1", mean.mean.n as u64);
        let against = |quantity: Quantity, null: Number| match null {
            Number::Value(null) => quantity.against(null),
            Number::Undefined(_) => quantity,
        };
        // The rank that the mean entropy of noise stands for.
        let noise_rank = summary.matrix_entropy_null.mean.value.map(|null| (null * (summary.width as f64).ln()).exp());
        Ok(LayerSpectrum {
            layer: layer.layer as u64,
            mnn: against(mean(summary.mnn), summary.mnn_null.mean.value),
            mnn_corrected: mean(summary.mnn_corrected).against(1.0),
            matrix_entropy: against(mean(summary.matrix_entropy), summary.matrix_entropy_null.mean.value),
            effective_rank: against(average(summary.erank.mean, "dimensions", summary.erank.mean.n as u64), noise_rank),
        })
    });
    let (tokens, width) = (bench.spec.window, loaded.decoder.spec().hidden_size);
    let n = windows.ids.len() as u64;
    Ok(Spectrum {
        input: windows.input.to_owned(),
        tokens: tokens as u64,
        hidden_size: width as u64,
        windows: n,
        cap: (tokens.min(width) as f64 / tokens as f64).sqrt(),
        layers: layers.collect::<Result<_, lathe_measure::MeasureError>>()?,
        forward: Quantity::new(seconds.forward, "s").over(n),
        metric: Quantity::new(seconds.metric, "s").over(n),
    })
}

/// Share of attention on the first token, by layer and head.
pub(super) fn attention(
    loaded: &Loaded,
    documents: Option<&[Document]>,
    bench: &Bench<'_>,
) -> Result<Attention, Absent> {
    let windows = Windows::of(loaded, documents, bench.spec.attention_windows, bench)?;
    let SinkShares { windows: maps, uniform } =
        bench.stage("attention sinks", windows.tokens(), "tokens", |watch| {
            sink_shares(&loaded.decoder, &windows.ids, bench.spec.window, watch)
        })?;
    let Some(first) = maps.first() else {
        return Err(Absent::Data("no window was measured".to_owned()));
    };
    let n = maps.len() as u64;
    let mean_over_maps = |layer: usize, head: usize| {
        let sum: f64 = maps.iter().map(|map| map[layer][head]).sum();
        Some(sum / maps.len() as f64).filter(|share| share.is_finite())
    };
    let layers = first.iter().enumerate();
    let values =
        layers.clone().map(|(layer, heads)| (0..heads.len()).map(|head| mean_over_maps(layer, head)).collect());
    let by_layer = layers.zip(&uniform).map(|((layer, _), uniform)| {
        let of_windows: Vec<Number> = maps.iter().map(|map| lathe_measure::statistics::mean(&map[layer])).collect();
        average(bootstrap_mean(&of_windows, bench.spec.seed), "1", n).against(*uniform)
    });
    let uniform = lathe_measure::statistics::mean(&uniform);
    Ok(Attention {
        input: windows.input.to_owned(),
        tokens: bench.spec.window as u64,
        windows: n,
        sink_by_layer: by_layer.collect(),
        sink_share: HeadMatrix {
            unit: "1".to_owned(),
            n: windows.tokens(),
            null: quantity(uniform, "1", n).value,
            values: values.collect(),
        },
        entropy: None,
    })
}

/// Token windows of one length and what they are of.
struct Windows {
    ids: Vec<Vec<u32>>,
    input: &'static str,
}

impl Windows {
    /// Up to `limit` windows; every model is measured at the same length, or not at all.
    fn of(loaded: &Loaded, documents: Option<&[Document]>, limit: usize, bench: &Bench<'_>) -> Result<Self, Absent> {
        let (window, spec) = (bench.spec.window, loaded.decoder.spec());
        if window > spec.context_length {
            return Err(Absent::Data(format!(
                "windows of {window} tokens do not fit the model's context of {}",
                spec.context_length
            )));
        }
        let windows = match documents {
            Some(documents) => Self { ids: fixed_windows(documents, window, Some(limit)), input: SAMPLE_WINDOWS },
            None => {
                Self { ids: random_windows(spec.vocab_size, window, limit, bench.spec.seed), input: RANDOM_WINDOWS }
            }
        };
        if windows.ids.is_empty() {
            return Err(Absent::Data(format!("no text of the sample has {window} tokens")));
        }
        Ok(windows)
    }

    fn tokens(&self) -> u64 {
        self.ids.iter().map(|window| window.len() as u64).sum()
    }
}

/// Windows of ids that are drawn evenly from the vocabulary; window `i` depends on the seed and `i` alone.
pub(super) fn random_windows(vocab_size: usize, window: usize, windows: usize, seed: u64) -> Vec<Vec<u32>> {
    #[expect(clippy::cast_possible_truncation, reason = "token ids are u32")]
    let ids = 0..vocab_size.max(1) as u32;
    (0..windows as u64)
        .map(|item| {
            let mut generator = item_generator(seed, item);
            (0..window).map(|_| generator.random_range(ids.clone())).collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_window_depends_on_seed_and_index_alone() {
        let few = random_windows(128, 16, 2, 7);
        let many = random_windows(128, 16, 5, 7);
        assert_eq!(few[..], many[..2]);
        assert_ne!(many[0], many[1]);
        assert_ne!(random_windows(128, 16, 1, 8), few[..1]);
        assert!(many.iter().flatten().all(|id| *id < 128));
    }
}
