//! Routers made of clusters of states.
//!
//! The dense model reads texts, and of every layer what its feed-forward part reads is kept: that is what the router will
//! read. These states are put into as many clusters of one size as there are experts, and each expert gets the tokens of
//! one cluster, as far as a linear router without a bias can say which these are. With the mean of states `m`, the centre
//! `m + d` of a cluster, and a state `m + x`, the nearest centre is the one with the largest `d·x − |d|²/2`.
//!
//! A row `d` would give `d·x + d·m`: the mean is long, so that `d·m` decides for nearly all tokens alike. As all
//! states have about the same share of the mean, a multiple of `m` is as good as a bias, and the row is
//!
//! `s · (d − (d·m + |d|²/2) m / |m|²)`,
//!
//! which gives `s · (d·x − |d|²/2)` less what the share of the mean varies. The factor `s` of a layer makes the root
//! mean square of its logits what was asked for. It matters for training, not for which expert is first: with small logits
//! all chosen experts count alike, with large ones the first one counts alone and the others learn nothing.

use candle_core::Tensor;
use lathe_kernels::matmul::{Matrix, product};
use lathe_measure::clusters::{KMeans, balanced_k_means};
use lathe_measure::embedding::Vectors;
use lathe_measure::run::{Document, Window, windows};
use lathe_model::{Batch, Error as ModelError, Site, Tap};
use serde::{Deserialize, Serialize};

use super::UpcycleSpec;
use crate::documents::{read_documents, tokenise};
use crate::{Context, Error, Loaded};

/// Tokens of one window of a text: enough context, and many texts among few tokens.
const WINDOW: usize = 128;
/// Tokens of one forward pass.
const BATCH: usize = 1024;
/// Rounds of the clustering at most.
const ROUNDS: usize = 50;

/// States of the texts' tokens.
pub(super) struct Inputs {
    /// Of each layer what its feed-forward part reads, `[tokens, hidden_size]`.
    layers: Vec<Vectors>,
    pub(super) tokens: usize,
}

/// What the router of a layer does with the tokens that it is made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerRouting {
    /// Index of the layer.
    pub layer: usize,
    /// Tokens of each cluster.
    pub clusters: Vec<usize>,
    /// Tokens whose most probable expert is this one.
    pub first: Vec<usize>,
    /// Tokens that use this expert, as one of the chosen.
    pub used: Vec<usize>,
    /// Tokens whose most probable expert is that of their cluster, as a share.
    pub as_clustered: f64,
}

/// Runs the dense model over texts, in turn a window of each, until there are enough tokens.
///
/// # Errors
/// A text cannot be read; there are fewer tokens than experts.
pub(super) fn inputs(loaded: &Loaded, spec: &UpcycleSpec, context: &Context<'_>) -> Result<Inputs, Error> {
    let tokenizer = loaded.tokenizer()?;
    let texts = read_documents(&spec.data, &spec.field)?;
    let documents: Vec<Document> =
        texts.iter().map(|text| tokenise(tokenizer, &text.text)).collect::<Result<_, _>>()?;
    let decoder = &loaded.decoder;
    let windows = in_turn(windows(&documents, WINDOW.min(decoder.spec().context_length)));
    let width = decoder.spec().hidden_size;
    let mut tap = Keeper { kept: Vec::new(), layers: vec![Vec::new(); decoder.spec().layers.len()] };
    let mut tokens = 0;
    let what = format!("reading {} tokens", spec.tokens);
    context.stage(&what, spec.tokens as u64, "tokens", || {
        let mut left = &windows[..];
        while tokens < spec.tokens && !left.is_empty() {
            let (mut taken, mut length) = (0, 0);
            while taken < left.len() && (taken == 0 || length + left[taken].ids.len() <= BATCH) {
                length += left[taken].ids.len();
                taken += 1;
            }
            let (group, rest) = left.split_at(taken);
            let batch = Batch::of(group.iter().map(|window| &window.ids[..]));
            tap.kept = kept_rows(group, spec.tokens - tokens);
            tokens += tap.kept.len();
            decoder.forward(&batch, None, &mut tap)?;
            context.progress.advance(tap.kept.len() as u64);
            left = rest;
        }
        Ok::<_, Error>(())
    })?;
    if tokens < spec.experts {
        let problem = format!("{tokens} tokens make no {} clusters", spec.experts);
        return Err(Error::Spec {
            field: "--data",
            problem,
            hint: Some("give more text, or allow more --tokens".into()),
        });
    }
    let layers = tap.layers.into_iter().map(|values| Ok(Vectors::new(width, values)?));
    Ok(Inputs { layers: layers.collect::<Result<_, Error>>()?, tokens })
}

/// The first window of every text, then the second ones, and so on.
fn in_turn(windows: Vec<Window>) -> Vec<Window> {
    let mut turns: Vec<(usize, Window)> = Vec::with_capacity(windows.len());
    for window in windows {
        let turn = match turns.last() {
            Some((turn, before)) if before.document == window.document => turn + 1,
            _ => 0,
        };
        turns.push((turn, window));
    }
    turns.sort_by_key(|(turn, window)| (*turn, window.document));
    turns.into_iter().map(|(_, window)| window).collect()
}

/// Rows of a batch whose states are kept, at most `limit`. What only begins a window is left out: the first token of
/// a text draws attention to itself and has the same state everywhere.
fn kept_rows(group: &[Window], limit: usize) -> Vec<u32> {
    let mut rows = Vec::new();
    let mut start = 0;
    for window in group {
        #[expect(clippy::cast_possible_truncation, reason = "rows of a batch")]
        rows.extend((start + window.context..start + window.ids.len()).map(|row| row as u32));
        start += window.ids.len();
    }
    rows.truncate(limit);
    rows
}

/// Copies some rows of what every feed-forward part reads.
struct Keeper {
    kept: Vec<u32>,
    layers: Vec<Vec<f32>>,
}

impl Tap for Keeper {
    fn wants(&self, site: Site) -> bool {
        matches!(site, Site::MlpIn(_)) && !self.kept.is_empty()
    }

    fn tensor(&mut self, site: Site, value: &Tensor) -> Result<(), ModelError> {
        if let Site::MlpIn(layer) = site {
            let rows = value.index_select(&Tensor::new(&self.kept[..], value.device())?, 0)?;
            self.layers[layer].extend(rows.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(())
    }
}

/// The router of every layer, `[experts, hidden_size]`, and what it does with the tokens.
///
/// # Errors
/// The states are not finite.
pub(super) fn routers(
    inputs: &Inputs,
    spec: &UpcycleSpec,
    context: &Context<'_>,
) -> Result<(Vec<Vec<f32>>, Vec<LayerRouting>), Error> {
    context
        .stage("clustering", inputs.layers.len() as u64, "layers", || {
            let of_layer = |(layer, states): (usize, &Vectors)| {
                let found = router(layer, states, spec);
                context.progress.advance(1);
                found
            };
            inputs.layers.iter().enumerate().map(of_layer).collect::<Result<Vec<_>, _>>()
        })
        .map(|layers| layers.into_iter().unzip())
}

fn router(layer: usize, states: &Vectors, spec: &UpcycleSpec) -> Result<(Vec<f32>, LayerRouting), Error> {
    let seed = spec.seed.wrapping_add(layer as u64);
    let found = balanced_k_means(states, &KMeans { clusters: spec.experts, seed, restarts: 1, rounds: ROUNDS })?;
    let mut rows = rows(&found.centres);
    let logits = logits(states, &rows);
    let square = logits.iter().map(|logit| f64::from(*logit).powi(2)).sum::<f64>() / logits.len() as f64;
    // States that are all alike have no clusters, and a router of zeros chooses the first experts.
    let scale = if square > 0.0 { spec.router_scale / square.sqrt() } else { 0.0 };
    rows.iter_mut().for_each(|weight| *weight = (f64::from(*weight) * scale) as f32);

    let mut routing = LayerRouting {
        layer,
        clusters: vec![0; spec.experts],
        first: vec![0; spec.experts],
        used: vec![0; spec.experts],
        as_clustered: 0.0,
    };
    let mut agreeing = 0usize;
    for (logits, cluster) in logits.chunks_exact(spec.experts).zip(&found.labels) {
        let mut order: Vec<usize> = (0..spec.experts).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
        routing.clusters[*cluster] += 1;
        routing.first[order[0]] += 1;
        order[..spec.top_k].iter().for_each(|expert| routing.used[*expert] += 1);
        agreeing += usize::from(order[0] == *cluster);
    }
    routing.as_clustered = agreeing as f64 / states.len() as f64;
    Ok((rows, routing))
}

/// Rows of a router before they are scaled, `[clusters, width]`: see the head of this file.
fn rows(centres: &Vectors) -> Vec<f32> {
    let count = centres.len() as f64;
    let mut mean = vec![0.0f64; centres.width()];
    for centre in centres.rows() {
        mean.iter_mut().zip(centre).for_each(|(sum, value)| *sum += f64::from(*value) / count);
    }
    let length: f64 = mean.iter().map(|value| value * value).sum();
    let mut rows = Vec::with_capacity(centres.values().len());
    for centre in centres.rows() {
        let apart: Vec<f64> = centre.iter().zip(&mean).map(|(value, mean)| f64::from(*value) - mean).collect();
        let along: f64 = apart.iter().zip(&mean).map(|(apart, mean)| apart * mean).sum();
        let square: f64 = apart.iter().map(|apart| apart * apart).sum();
        let share = if length > 0.0 { (along + square / 2.0) / length } else { 0.0 };
        rows.extend(apart.iter().zip(&mean).map(|(apart, mean)| (apart - share * mean) as f32));
    }
    rows
}

/// `[tokens, experts]`
fn logits(states: &Vectors, rows: &[f32]) -> Vec<f32> {
    let experts = rows.len() / states.width();
    let left = Matrix::new(states.values(), states.len(), states.width());
    product(&[(left, Matrix::new(rows, experts, states.width()).transposed())])
}
