//! Looking into a forward pass for vectors: of every site only what the pooling takes is kept.

use std::ops::Range;

use candle_core::{Storage, Tensor};
use lathe_model::{Error as ModelError, Site, Tap};

use super::features::{Pooling, RouterPooling, RouterSource};

/// What is taken from a forward pass.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    /// Indices of hidden states; the mean over them is taken.
    pub(super) layers: Vec<usize>,
    /// Number of decoder layers.
    pub(super) last: usize,
    /// Width of the hidden states.
    pub(super) width: usize,
    pub(super) pooling: Pooling,
    pub(super) source: RouterSource,
    pub(super) router_pooling: RouterPooling,
    /// Chosen layers with experts, in order.
    pub(super) routers: Vec<RouterPlace>,
}

/// Where a router's numbers lie in a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RouterPlace {
    pub(super) layer: usize,
    pub(super) first: usize,
    pub(super) experts: usize,
}

impl Taken {
    /// Width of a vector of router outputs.
    pub(super) fn router_width(&self) -> usize {
        self.routers.last().map_or(0, |place| place.first + place.experts)
    }
}

/// Pools the rows of some texts of one packed batch.
pub(super) struct Capture<'a> {
    taken: &'a Taken,
    /// Rows of each text in the batch.
    spans: &'a [Range<usize>],
    /// `[texts, width]`.
    pub(super) hidden: Vec<f64>,
    /// `[texts, router width]`.
    pub(super) router: Vec<f64>,
}

impl<'a> Capture<'a> {
    pub(super) fn new(taken: &'a Taken, spans: &'a [Range<usize>]) -> Self {
        let hidden = vec![0.0; spans.len() * taken.width];
        let router = vec![0.0; spans.len() * taken.router_width()];
        Self { taken, spans, hidden, router }
    }

    fn take_hidden(&mut self, value: &Tensor) -> Result<(), ModelError> {
        let share = self.taken.layers.len() as f64;
        let (taken, spans, hidden) = (self.taken, self.spans, &mut self.hidden);
        with_rows(value, |rows, width| {
            let mut one = vec![0.0; width];
            for (span, sum) in spans.iter().zip(hidden.chunks_exact_mut(taken.width)) {
                pool(taken.pooling, &rows[span.start * width..span.end * width], &mut one);
                sum.iter_mut().zip(&one).for_each(|(sum, x)| *sum += x / share);
            }
        })
    }

    fn take_router(&mut self, place: RouterPlace, value: &Tensor) -> Result<(), ModelError> {
        let pooling = match self.taken.router_pooling {
            RouterPooling::Last => Pooling::Last,
            RouterPooling::Mean => Pooling::Mean,
        };
        let (all, spans, router) = (self.taken.router_width(), self.spans, &mut self.router);
        with_rows(value, |rows, experts| {
            for (span, vector) in spans.iter().zip(router.chunks_exact_mut(all)) {
                let out = &mut vector[place.first..place.first + place.experts];
                pool(pooling, &rows[span.start * experts..span.end * experts], out);
            }
        })
    }

    /// The chosen router that a site shows.
    fn router_of(&self, site: Site) -> Option<RouterPlace> {
        let layer = match (site, self.taken.source) {
            (Site::RouterProbabilities(layer), RouterSource::Probabilities)
            | (Site::RouterLogits(layer), RouterSource::Logits)
            | (Site::RouterWeights(layer), RouterSource::Weights) => layer,
            _ => return None,
        };
        self.taken.routers.iter().find(|place| place.layer == layer).copied()
    }
}

impl Tap for Capture<'_> {
    fn wants(&self, site: Site) -> bool {
        match site {
            Site::ResidualPre(layer) => self.taken.layers.contains(&layer),
            Site::FinalNorm => self.taken.layers.contains(&self.taken.last),
            _ => self.router_of(site).is_some(),
        }
    }

    fn tensor(&mut self, site: Site, value: &Tensor) -> Result<(), ModelError> {
        match self.router_of(site) {
            Some(place) => self.take_router(place, value),
            None => self.take_hidden(value),
        }
    }
}

/// Lends the rows of a tensor and their width.
pub(super) fn with_rows(value: &Tensor, f: impl FnOnce(&[f32], usize)) -> Result<(), ModelError> {
    let value = value.contiguous()?;
    let (_, width) = value.dims2()?;
    let (storage, layout) = value.storage_and_layout();
    let wrong = || candle_core::Error::Msg("expected f32 on the CPU".into());
    let Storage::Cpu(storage) = &*storage else { return Err(wrong().into()) };
    let (from, to) = layout.contiguous_offsets().ok_or_else(wrong)?;
    f(&storage.as_slice::<f32>()?[from..to], width);
    Ok(())
}

/// Pools rows of `out.len()` features into one, in f64 and in the order of the tokens.
fn pool(pooling: Pooling, rows: &[f32], out: &mut [f64]) {
    let width = out.len();
    let tokens = rows.len() / width.max(1);
    let copy = |row: &[f32], out: &mut [f64]| out.iter_mut().zip(row).for_each(|(out, x)| *out = f64::from(*x));
    let sum = |weight: &dyn Fn(usize) -> f64, out: &mut [f64]| {
        out.fill(0.0);
        for (index, row) in rows.chunks_exact(width).enumerate() {
            let weight = weight(index);
            out.iter_mut().zip(row).for_each(|(sum, x)| *sum += weight * f64::from(*x));
        }
    };
    let divide = |by: f64, out: &mut [f64]| out.iter_mut().for_each(|sum| *sum /= by);
    match pooling {
        Pooling::Usual | Pooling::Last => copy(&rows[(tokens - 1) * width..], out),
        Pooling::First => copy(&rows[..width], out),
        Pooling::Mean => {
            sum(&|_| 1.0, out);
            divide(tokens as f64, out);
        }
        Pooling::MeanSqrtLength => {
            sum(&|_| 1.0, out);
            divide((tokens as f64).sqrt(), out);
        }
        Pooling::WeightedMean => {
            sum(&|index| (index + 1) as f64, out);
            divide((tokens * (tokens + 1) / 2) as f64, out);
        }
        Pooling::Max => {
            copy(&rows[..width], out);
            for row in rows.chunks_exact(width).skip(1) {
                // NaN stays and is refused later.
                out.iter_mut().zip(row).for_each(|(most, x)| {
                    let x = f64::from(*x);
                    if x > *most || x.is_nan() {
                        *most = x;
                    }
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poolings() {
        let rows = [1.0, -2.0, 3.0, 0.0, 8.0, -1.0];
        let of = |pooling| {
            let mut out = [0.0; 2];
            pool(pooling, &rows, &mut out);
            out
        };
        assert_eq!(of(Pooling::Last), [8.0, -1.0]);
        assert_eq!(of(Pooling::First), [1.0, -2.0]);
        assert_eq!(of(Pooling::Mean), [4.0, -1.0]);
        assert_eq!(of(Pooling::Max), [8.0, 0.0]);
        // (1·1 + 2·3 + 3·8) / 6, (−2 + 0 − 3) / 6
        assert_eq!(of(Pooling::WeightedMean), [31.0 / 6.0, -5.0 / 6.0]);
        let root = 3f64.sqrt();
        assert_eq!(of(Pooling::MeanSqrtLength), [12.0 / root, -3.0 / root]);
    }
}
