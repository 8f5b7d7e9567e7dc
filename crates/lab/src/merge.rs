//! `lathe merge`: a model made of the weights of others.
//!
//! Headers first: what every tensor is made of is known before a number is read. The target's files have their final
//! size from the beginning; tensors are made in pieces of some hundred kilobytes and written at their places, so memory
//! does not grow with the model. Everything happens in a folder beside the target that gets the target's name at the end.
//! One that was interrupted is gone on with at the tensor where it stopped.

mod card;
mod explore;
mod extract;
mod folder;
mod job;
mod source;
mod templates;
mod tensors;
mod tokens;
mod write;

use std::path::{Path, PathBuf};

use lathe_measure::Number;
use lathe_merge::config::{MergeConfig, ModelRef};
use lathe_merge::vocabulary::Missing;
use serde::{Deserialize, Serialize};

pub(crate) use self::explore::pair_chart;
pub use self::explore::{
    Axis, ExploreResult, ExploreSpec, ExploreStep, Measure, MeasureName, Method, Tried, Values, explore,
};
pub use self::extract::{ExtractResult, ExtractSpec, extract};
use self::job::Inputs;
pub use self::job::{InputSummary, MergeSummary};
pub use self::source::Nonfinite;
use crate::diff::{DiffSpec, GroupDiff, Ranks, diff};
use crate::export::{ExportFormat, WrittenFile};
use crate::{Context, Error};

/// What to merge, and what to write.
#[derive(Clone, Debug)]
pub struct MergeSpec {
    /// The models, the method and its parameters.
    pub config: MergeConfig,
    /// What no configuration file can say.
    pub recipe: Recipe,
    /// The folder from which paths in the configuration count; none for the folder where the program runs.
    pub folder: Option<PathBuf>,
    /// Kind of the target.
    pub to: ExportFormat,
    /// Element type of what is written, by its name in configurations or in the formats; none for the configuration's.
    pub dtype: Option<String>,
    /// Largest file of weights, bytes.
    pub shard_bytes: u64,
    /// Whether numbers that are not finite are refused.
    pub nonfinite: Nonfinite,
}

/// Whose files a recipe takes; inputs are counted as in [`MergeConfig::inputs`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// The input whose `config.json` and tokenizer are taken, in the place of the base's.
    pub config: Option<usize>,
    /// The input whose chat template is taken.
    pub template: Option<usize>,
    /// What stands for rows of tokens that a model does not have.
    pub missing: Missing,
}

/// Whether an interrupted run is gone on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// One that is there is an error.
    Refuse,
    /// One that is there is gone on with; where there is none, everything is done.
    Continue,
}

/// What was done.
#[derive(Clone, Debug, Serialize)]
pub struct MergeResult {
    /// The folder.
    pub out: PathBuf,
    /// What it is made of.
    #[serde(flatten)]
    pub summary: MergeSummary,
    /// Every file, by name.
    pub files: Vec<WrittenFile>,
    /// What happened to tensors, and to how many: the most frequent first.
    pub remarks: Vec<RemarkCount>,
    /// Tensors that an interrupted run had written.
    pub resumed: usize,
    /// Hashing, merging and writing, seconds.
    pub seconds: f64,
    /// Largest resident memory of the process so far, bytes.
    pub peak_memory: Option<u64>,
}

/// How an instruction residual lies to what an update of its base changed: the sums over a layer's tensors.
#[derive(Clone, Debug, Serialize)]
pub struct ResidualLayer {
    /// Index of the layer; none for all weights.
    pub layer: Option<usize>,
    /// ‖instruct − base‖ / ‖base‖.
    pub residual: Number,
    /// ‖updated − base‖ / ‖base‖.
    pub update: Number,
    /// Cosine of the two differences: near 0 they do not interfere; near 1 the update has what the residual adds.
    pub cosine: Number,
}

/// What happened to some tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RemarkCount {
    /// What, as a sentence.
    pub remark: String,
    /// Tensors.
    pub tensors: usize,
    /// The first of them.
    pub first: String,
}

/// Merges models into a folder.
///
/// # Errors
/// The configuration, an input or their combination cannot be used; the target exists or cannot be written.
pub fn merge(spec: &MergeSpec, out: &Path, resume: Resume, context: &Context<'_>) -> Result<MergeResult, Error> {
    let inputs = Inputs::open(spec, context)?;
    write::write(&inputs.job(&spec.config, spec)?, spec, out, resume, context)
}

/// Compares a residual with an update, by layer and, last, over all weights.
///
/// # Errors
/// The models cannot be compared.
pub fn residual_layers(
    [base, instruct, updated]: [&ModelRef; 3],
    folder: Option<&Path>,
    context: &Context<'_>,
) -> Result<Vec<ResidualLayer>, Error> {
    let reference = |model: &ModelRef| source::reference_of(&model.path, model.revision.as_deref(), folder);
    let (a, b, base) = (reference(instruct)?, reference(updated)?, Some(reference(base)?));
    let result = diff(&DiffSpec { a, b, base, ranks: Ranks::None, out: None }, context)?;
    let row = |layer: Option<usize>, group: &GroupDiff| {
        let changes = group.changes.as_ref()?;
        let [residual, update] = changes.relative;
        Some(ResidualLayer { layer, residual, update, cosine: changes.cosine })
    };
    let layers = result.layers.iter().filter_map(|layer| row(Some(layer.layer), &layer.group));
    Ok(layers.chain(row(None, &result.whole)).collect())
}

/// Says what [`merge`] would do; reads headers only.
///
/// # Errors
/// As [`merge`], as far as headers tell.
pub fn plan_merge(spec: &MergeSpec, context: &Context<'_>) -> Result<MergeSummary, Error> {
    Ok(Inputs::open(spec, context)?.job(&spec.config, spec)?.summary())
}
