//! Which experts work on which texts: for every layer, group of texts and expert the share of the group's tokens that use the
//! expert. Texts are read as they are, without a prompt.

use std::ops::Range;

use candle_core::Tensor;
use lathe_model::{Batch, Error as ModelError, Site, Tap};
use lathe_tokenizer::{BosEos, Markup};
use serde::Serialize;

use super::super::Embedder;
use super::super::capture::with_rows;
use super::Material;
use crate::{Context, Error};

/// Which experts work on which texts.
#[derive(Clone, Debug, Serialize)]
pub struct ExpertUsage {
    /// What the groups are: labels, or clusters of hidden states.
    pub groups_are: &'static str,
    /// Names of the groups.
    pub groups: Vec<String>,
    /// Tokens of each group.
    pub tokens: Vec<u64>,
    /// Layers with experts.
    pub layers: Vec<LayerUsage>,
}

/// Experts of a layer.
#[derive(Clone, Debug, Serialize)]
pub struct LayerUsage {
    /// The layer, from 0.
    pub layer: usize,
    /// Experts that a token uses.
    pub top_k: usize,
    /// `[groups][experts]`: share of the group's tokens that use the expert; top_k / experts where all are used alike.
    pub shares: Vec<Vec<f64>>,
}

pub(super) fn report(
    embedder: &Embedder,
    material: &Material,
    clusters: &[usize],
    context: &Context<'_>,
) -> Result<ExpertUsage, Error> {
    let (groups_are, groups, of_text) = match &material.labels {
        Some((names, labels)) => ("labels", names.clone(), labels.clone()),
        None => {
            let count = clusters.iter().max().map_or(0, |most| most + 1);
            ("clusters of hidden states", (0..count).map(|n| format!("cluster {n}")).collect(), clusters.to_vec())
        }
    };
    let decoder = &embedder.loaded.decoder;
    let experts = decoder.spec().layers.iter().enumerate();
    let experts = experts.filter_map(|(layer, of)| Some((layer, of.feed_forward.experts()?)));
    let mut counts = Counts {
        layers: experts.map(|(layer, of)| (layer, of.top_k, vec![vec![0; of.count]; groups.len()])).collect(),
        spans: Vec::new(),
    };
    let tokenizer = embedder.loaded.tokenizer()?;
    let limit = decoder.spec().context_length;
    let mut tokens = vec![0; groups.len()];
    context.stage("experts in use", material.texts.len() as u64, "texts", || {
        for (text, group) in material.texts.iter().zip(&of_text) {
            let mut ids = tokenizer.encode(text, BosEos::Add, Markup::Text)?;
            ids.truncate(limit);
            if !ids.is_empty() {
                tokens[*group] += ids.len() as u64;
                counts.spans = vec![(0..ids.len(), *group)];
                decoder.forward(&Batch::single(&ids), None, &mut counts)?;
            }
            context.progress.advance(1);
        }
        Ok::<(), Error>(())
    })?;
    let share = |(count, tokens): (&u64, u64)| if tokens == 0 { 0.0 } else { *count as f64 / tokens as f64 };
    let layers = counts.layers.into_iter().map(|(layer, top_k, of_groups)| {
        let shares = of_groups.iter().zip(&tokens);
        let shares =
            shares.map(|(counts, tokens)| counts.iter().map(|count| share((count, *tokens))).collect()).collect();
        LayerUsage { layer, top_k, shares }
    });
    Ok(ExpertUsage { groups_are, groups, layers: layers.collect(), tokens })
}

/// Counts the experts that are in use.
struct Counts {
    /// Layer, top k, and `[groups][experts]` tokens.
    layers: Vec<(usize, usize, Vec<Vec<u64>>)>,
    /// Rows of the texts of a batch, and their groups.
    spans: Vec<(Range<usize>, usize)>,
}

impl Tap for Counts {
    fn wants(&self, site: Site) -> bool {
        matches!(site, Site::RouterWeights(_))
    }

    fn tensor(&mut self, site: Site, value: &Tensor) -> Result<(), ModelError> {
        let Site::RouterWeights(layer) = site else { return Ok(()) };
        let Some((_, _, counts)) = self.layers.iter_mut().find(|(known, ..)| *known == layer) else { return Ok(()) };
        let spans = &self.spans;
        with_rows(value, |rows, experts| {
            for (span, group) in spans {
                for weights in rows[span.start * experts..span.end * experts].chunks_exact(experts) {
                    let used = counts[*group].iter_mut().zip(weights).filter(|(_, weight)| **weight > 0.0);
                    used.for_each(|(count, _)| *count += 1);
                }
            }
        })
    }
}
