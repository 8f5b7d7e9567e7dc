//! Spectra of hidden states, layer by layer, over fixed token windows.

use candle_core::Tensor;
use lathe_model::{Batch, Decoder, Error as ModelError, Site, Tap};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{RunError, Watch};
use crate::spectrum::{HiddenStates, NullCache, Spectrum, SpectrumOptions, spectrum};

/// Which hidden states to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layers {
    /// The states after the final norm (Matrix Nuclear-Norm, section 6.1 of its paper).
    Last,
    /// Every layer's input and the states after the final norm: index 0 is the embedding.
    All,
}

/// Spectra of one layer over all windows.
#[derive(Clone, Debug)]
pub struct LayerSpectra {
    /// 0 is the embedding, the number of layers is the state after the final norm.
    pub layer: usize,
    /// One for each window, in order.
    pub windows: Vec<Spectrum>,
}

/// Time of a run of spectra.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seconds {
    /// Of the forward passes.
    pub forward: f64,
    /// Of the metrics and their null values.
    pub metric: f64,
}

/// Layers whose states wait for their metrics together, so that threads can share the work.
const WAITING: usize = 16;

/// Measures the hidden states of every window.
///
/// # Errors
/// A window does not fit the model; hidden states are not finite (naming layer and token).
pub fn spectra(
    decoder: &Decoder,
    windows: &[Vec<u32>],
    layers: Layers,
    options: &SpectrumOptions,
    nulls: &NullCache,
    watch: Watch<'_>,
) -> Result<(Vec<LayerSpectra>, Seconds), RunError> {
    let last = decoder.spec().layers.len();
    let indices: Vec<usize> = match layers {
        Layers::Last => vec![last],
        Layers::All => (0..=last).collect(),
    };
    let mut all: Vec<LayerSpectra> =
        indices.iter().map(|&layer| LayerSpectra { layer, windows: Vec::with_capacity(windows.len()) }).collect();
    let mut seconds = Seconds::default();
    for window in windows {
        let started = (watch.seconds)();
        let mut tap = Collect {
            last,
            layers,
            options,
            nulls,
            waiting: Vec::new(),
            done: Vec::new(),
            error: None,
            watch,
            metric: 0.0,
        };
        let run = decoder.forward(&Batch::single(window), None, &mut tap);
        tap.flush();
        if let Some(error) = tap.error {
            return Err(error);
        }
        run?;
        for (layer, measured) in all.iter_mut().zip(tap.done) {
            layer.windows.push(measured);
        }
        seconds.metric += tap.metric;
        seconds.forward += (watch.seconds)() - started - tap.metric;
        (watch.advance)(window.len() as u64);
    }
    Ok((all, seconds))
}

/// Measures states as they pass, a few layers at a time.
struct Collect<'a> {
    last: usize,
    layers: Layers,
    options: &'a SpectrumOptions,
    nulls: &'a NullCache,
    waiting: Vec<(usize, Tensor)>,
    done: Vec<Spectrum>,
    error: Option<RunError>,
    watch: Watch<'a>,
    metric: f64,
}

impl Tap for Collect<'_> {
    fn wants(&self, site: Site) -> bool {
        match site {
            Site::ResidualPre(_) => self.layers == Layers::All,
            Site::FinalNorm => true,
            _ => false,
        }
    }

    fn tensor(&mut self, site: Site, value: &Tensor) -> Result<(), ModelError> {
        let layer = match site {
            Site::ResidualPre(l) => l,
            _ => self.last,
        };
        self.waiting.push((layer, value.clone()));
        if self.waiting.len() >= WAITING {
            self.flush();
        }
        Ok(())
    }
}

impl Collect<'_> {
    fn flush(&mut self) {
        let started = (self.watch.seconds)();
        let (options, nulls) = (self.options, self.nulls);
        let measured: Result<Vec<Spectrum>, RunError> = std::mem::take(&mut self.waiting)
            .into_par_iter()
            .map(|(layer, states)| {
                let (tokens, width) = states.dims2().map_err(ModelError::from)?;
                let values = states.flatten_all().and_then(|t| t.to_vec1::<f32>()).map_err(ModelError::from)?;
                HiddenStates::new(&values, tokens, width)
                    .and_then(|states| spectrum(states, options, nulls))
                    .map_err(|source| RunError::Layer { layer, source })
            })
            .collect();
        match measured {
            Ok(measured) => self.done.extend(measured),
            Err(error) => self.error = self.error.take().or(Some(error)),
        }
        self.metric += (self.watch.seconds)() - started;
    }
}
