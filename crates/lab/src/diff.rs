//! `lathe diff`: how far the weights of two models are apart, tensor by tensor, and whether their changes of a common base
//! stand in each other's way. It says whether a merge makes sense before one is made.
//!
//! Weights are compared by lathe's names of parameters, so a GGUF file can stand beside a safetensors folder. They are
//! read in pieces of a few rows; only the effective rank holds a matrix.

mod page;
mod pairs;
mod rows;
mod summary;
mod weights;

use std::collections::BTreeMap;
use std::path::PathBuf;

use lathe_measure::Number;
use lathe_measure::weights::{Changes, Distance};
use lathe_model::reference::ModelReference;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{Context, Error};
use pairs::{BASE, Side, pair};
use weights::{noise_ranks, rank, sums};

pub use page::diff_page;
pub use summary::{DiffSummary, summary};

/// What to compare.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiffSpec {
    /// A, which distances are relative to.
    pub a: ModelReference,
    /// B.
    pub b: ModelReference,
    /// What both were made from, to compare what they changed.
    pub base: Option<ModelReference>,
    /// Which effective ranks to compute.
    pub ranks: Ranks,
    /// The page to write.
    pub out: Option<PathBuf>,
}

/// Which effective ranks are computed. They cost more than everything else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ranks {
    /// Of the matrices of layers whose smaller side is at most [`RANK_SIDE`].
    #[default]
    Small,
    /// Of every matrix, embedding and head included.
    All,
    /// Of none.
    None,
}

/// Smaller side up to which effective ranks are computed without being asked for: a matrix of 576 x 1,536 takes less than
/// 0.1 s on one core.
pub const RANK_SIDE: usize = 1536;

/// How far two models are apart.
#[derive(Clone, Debug, Serialize)]
pub struct DiffResult {
    /// Version of lathe.
    pub lathe: &'static str,
    /// What was compared.
    pub spec: DiffSpec,
    /// A.
    pub a: DiffModel,
    /// B.
    pub b: DiffModel,
    /// The base.
    pub base: Option<DiffModel>,
    /// All weights together.
    pub whole: GroupDiff,
    /// By kind of weight, over all layers.
    pub kinds: Vec<KindDiff>,
    /// By layer; embedding, last norm and head belong to none.
    pub layers: Vec<LayerDiff>,
    /// By layer and kind of weight.
    pub cells: Vec<CellDiff>,
    /// Every tensor, in the order of the forward pass.
    pub tensors: Vec<TensorDiff>,
    /// What the reader should know of the comparison, one sentence each.
    pub notes: Vec<String>,
}

/// A model that was compared.
#[derive(Clone, Debug, Serialize)]
pub struct DiffModel {
    /// The reference as given.
    pub reference: String,
    /// File or folder.
    pub path: PathBuf,
    /// Architecture.
    pub family: String,
    /// Element types of its tensors, the most bytes first.
    pub elements: Vec<String>,
}

/// Weights of one kind. Biases belong to their matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightKind {
    /// Token and position embeddings.
    Embedding,
    /// Query projections.
    Query,
    /// Key projections.
    Key,
    /// Value projections.
    Value,
    /// Output projections of the attention.
    Output,
    /// Norms of query and key.
    QueryKeyNorm,
    /// Gate projections of feed-forward parts and experts.
    Gate,
    /// Up projections.
    Up,
    /// Down projections.
    Down,
    /// Routers of experts, and gates of shared ones.
    Router,
    /// Norms on the residual stream.
    Norm,
    /// A head of its own.
    Head,
}

/// Several tensors together: as if they were one.
#[derive(Clone, Debug, Serialize)]
pub struct GroupDiff {
    /// Tensors.
    pub tensors: usize,
    /// Those of them that are equal, bit for bit as f32.
    pub equal: usize,
    /// How far B is from A.
    pub distance: Distance,
    /// What A and B changed of the base, where there is one.
    pub changes: Option<Changes>,
    /// Mean of effective rank / rank of noise over the matrices for which both are known.
    pub rank_of_noise: Number,
}

/// The weights of a kind.
#[derive(Clone, Debug, Serialize)]
pub struct KindDiff {
    /// The kind.
    pub kind: WeightKind,
    /// Its tensors.
    #[serde(flatten)]
    pub group: GroupDiff,
}

/// The weights of a layer.
#[derive(Clone, Debug, Serialize)]
pub struct LayerDiff {
    /// Index of the layer.
    pub layer: usize,
    /// Its tensors.
    #[serde(flatten)]
    pub group: GroupDiff,
}

/// The weights of a kind in a layer.
#[derive(Clone, Debug, Serialize)]
pub struct CellDiff {
    /// Index of the layer.
    pub layer: usize,
    /// The kind.
    pub kind: WeightKind,
    /// Its tensors.
    #[serde(flatten)]
    pub group: GroupDiff,
}

/// One tensor.
#[derive(Clone, Debug, Serialize)]
pub struct TensorDiff {
    /// lathe's name of it.
    pub name: String,
    /// Index of its layer.
    pub layer: Option<usize>,
    /// Its kind.
    pub kind: WeightKind,
    /// The shape that was compared: rows that only one model has are left out.
    pub shape: Vec<usize>,
    /// How far B is from A.
    pub distance: Distance,
    /// What A and B changed of the base, where there is one that has the tensor.
    pub changes: Option<Changes>,
    /// Effective rank of B − A; none for a vector.
    pub rank: Option<RankDiff>,
}

/// In how many directions the difference of two matrices points.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RankDiff {
    /// Effective rank, 1 to `most`.
    pub effective: Number,
    /// The smaller side of the matrix.
    pub most: usize,
    /// Effective rank of noise of the same shape.
    pub noise: Number,
    /// `effective / noise`.
    pub of_noise: Number,
}

impl DiffResult {
    /// The tensors that differ, the largest difference relative to A first. Those that are all zeros in A have no place.
    #[must_use]
    pub fn changed_most(&self) -> Vec<&TensorDiff> {
        let relative = |tensor: &TensorDiff| tensor.distance.relative.value().unwrap_or(0.0);
        let mut tensors: Vec<&TensorDiff> = self.tensors.iter().filter(|tensor| relative(tensor) > 0.0).collect();
        // Of equal ones the first in the model comes first.
        tensors.sort_by(|x, y| relative(y).total_cmp(&relative(x)));
        tensors
    }
}

impl WeightKind {
    /// What it is called in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::Query => "query",
            Self::Key => "key",
            Self::Value => "value",
            Self::Output => "output",
            Self::QueryKeyNorm => "query/key norm",
            Self::Gate => "gate",
            Self::Up => "up",
            Self::Down => "down",
            Self::Router => "router",
            Self::Norm => "norm",
            Self::Head => "head",
        }
    }
}

/// Compares two models, and writes the page where one is asked for.
///
/// # Errors
/// A reference leads nowhere or its files cannot be used; the models have different shapes; a weight is NaN or infinite; the
/// page cannot be written.
pub fn diff(spec: &DiffSpec, context: &Context<'_>) -> Result<DiffResult, Error> {
    // Before the work, because a folder that is not there is known at once.
    let page = spec.out.as_deref().map(lathe_formats::NewFile::create).transpose()?;
    let a = Side::open("A", &spec.a, context)?;
    let b = Side::open("B", &spec.b, context)?;
    let base = spec.base.as_ref().map(|base| Side::open(BASE, base, context)).transpose()?;
    let (pairs, notes) = pair(&a, &b, base.as_ref())?;

    let summed = context.stage("comparing tensors", pairs.len() as u64, "", || {
        let one = |pair| {
            let summed = sums(pair, &a, &b, base.as_ref());
            context.progress.advance(1);
            summed
        };
        // One after the other: the pieces of a tensor are shared among the threads.
        pairs.iter().map(one).collect::<Result<Vec<_>, _>>()
    })?;
    // What is equal has a difference without directions.
    let is_ranked = |index: usize| pairs[index].is_ranked(spec.ranks) && summed[index].pair.differing > 0;
    let matrices: Vec<usize> = (0..pairs.len()).filter(|index| is_ranked(*index)).collect();
    let noise = noise_ranks(matrices.iter().map(|index| [pairs[*index].rows, pairs[*index].columns]))?;
    let ranked = context.stage("ranking matrices", matrices.len() as u64, "", || {
        let one = |index: &usize| {
            let ranked = rank(&pairs[*index], &a, &b, &noise);
            context.progress.advance(1);
            Ok((*index, ranked?))
        };
        // Collected before it is looked at: the first error counts, whichever thread is faster.
        matrices
            .par_iter()
            .map(one)
            .collect::<Vec<Result<_, Error>>>()
            .into_iter()
            .collect::<Result<BTreeMap<_, _>, _>>()
    })?;
    let rank_of =
        |index: usize| ranked.get(&index).copied().or_else(|| RankDiff::without(&pairs[index], &summed[index]));
    let ranks: Vec<Option<RankDiff>> = (0..pairs.len()).map(rank_of).collect();

    let result = rows::result(spec, [a, b].map(Side::into_model), base.map(Side::into_model), &pairs, &summed, &ranks);
    let result = DiffResult { notes: [notes, result.notes].concat(), ..result };
    if let Some(mut page) = page {
        page.append(diff_page(&result).as_bytes())?;
        page.finish()?;
    }
    Ok(result)
}
