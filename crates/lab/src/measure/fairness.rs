//! `lathe measure tokens` over the checkpoints of training runs: what weight decay does to rare token types, on training
//! and held-out texts (arXiv 2410.11985).
//!
//! A checkpoint has a variant (what else tells runs apart: an architecture, which weights decay), a weight decay, a seed
//! and a step. Counts of the training targets are made once and sort types for all of them, so all must have one
//! tokenizer. The last checkpoint of a run gets intervals; all of them together give the learning speed. Every checkpoint
//! that was scored is kept in a file, so that an interrupted comparison goes on.

mod decays;
mod page;
mod score;
mod tuned;

use std::collections::BTreeMap;
use std::path::PathBuf;

use lathe_measure::tokens::{
    Concentration, FrequencyLevels, SPLIT_PERCENTILE, SpeedByFrequency, TheoryPoint, TokenReport, concentration,
    split_count, theory_by_frequency,
};
use lathe_model::reference::ModelReference;
use serde::{Deserialize, Serialize};

use super::COMPUTE_TYPE;
use super::tokens::check_window;
use crate::{Context, Error, Texts};
pub use decays::{DecayBin, DecayFairness, DecaySplit, SpeedGap};
pub use page::{FairnessPanel, fairness_page};
pub(crate) use page::{Side, chart_of};
pub use tuned::tuned_checkpoints;

/// Points of the theory's curves.
const THEORY_POINTS: usize = 41;

/// Which checkpoints to compare, on what.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FairnessSpec {
    /// The checkpoints, in any order.
    pub checkpoints: Vec<RunCheckpoint>,
    /// Texts that the models were trained on.
    pub training: Texts,
    /// Texts whose targets sort types by frequency; none for the training texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Texts>,
    /// Texts that they were not trained on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out: Option<Texts>,
    /// Tokens of one forward pass, at most the models' context; longer documents are cut.
    #[serde(default = "usual_window")]
    pub window: usize,
    /// About how many tokens of each of the two sets are scored; whole texts are taken, in the order of their SHA-256. None for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<usize>,
    /// Seed of the bootstrap.
    #[serde(default)]
    pub seed: u64,
    /// File for a JSON line about each checkpoint, kept through an interruption. It must not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out: Option<PathBuf>,
    /// The page to write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<PathBuf>,
}

fn usual_window() -> usize {
    1024
}

/// A checkpoint of a training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunCheckpoint {
    /// The model.
    pub model: ModelReference,
    /// What tells its run from others beside weight decay and seed.
    #[serde(default)]
    pub variant: String,
    /// Weight decay λ of its run.
    pub weight_decay: f64,
    /// Seed of its run.
    #[serde(default)]
    pub seed: u64,
    /// Steps that it was trained for; none for a run of one checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u64>,
}

/// Runs beside each other.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FairnessResult {
    /// Tokens of one forward pass.
    pub window: usize,
    /// Type of the computation.
    pub compute_type: String,
    /// Seed of the bootstrap.
    pub seed: u64,
    /// How the counts of training targets are spread over types.
    pub counts: Concentration,
    /// Percentile of the counts that separates low from high frequency.
    pub split_percentile: usize,
    /// The count at the percentile: low types have a smaller one.
    pub split_count: u64,
    /// The training texts that were scored.
    pub training: Scored,
    /// The held-out texts that were scored.
    pub held_out: Option<Scored>,
    /// Every run, in the order of variant, weight decay and seed; variants in the order in which the spec names them.
    pub runs: Vec<RunFairness>,
    /// Averages over seeds.
    pub decays: Vec<DecayFairness>,
    /// Difference of learning speeds between a low and a high weight decay, by variant.
    pub gaps: Vec<SpeedGap>,
    /// What the unconstrained-features model says of these counts.
    pub theory: Vec<TheoryPoint>,
    /// What a reader should know.
    pub notes: Vec<String>,
    /// Seconds that the models ran.
    pub forward_seconds: f64,
}

/// Texts that were scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scored {
    /// Texts.
    pub texts: usize,
    /// Their tokens.
    pub tokens: usize,
}

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunFairness {
    /// Variant, weight decay and seed.
    pub name: String,
    /// What tells it from others beside weight decay and seed.
    pub variant: String,
    /// λ.
    pub weight_decay: f64,
    /// Seed.
    pub seed: u64,
    /// Steps of its last checkpoint.
    pub step: Option<u64>,
    /// The model of its last checkpoint.
    pub model: String,
    /// On training texts.
    pub training: RunSplit,
    /// On held-out texts.
    pub held_out: Option<RunSplit>,
}

/// One run on one set of texts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunSplit {
    /// The last checkpoint, with intervals.
    pub report: TokenReport,
    /// Every checkpoint, rising.
    pub curve: Vec<CurvePoint>,
    /// How soon types are learnt; none without a checkpoint of step 0 and a later one.
    pub speed: Option<SpeedByFrequency>,
}

/// A checkpoint on one set of texts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Its step.
    pub step: Option<u64>,
    /// Averages, without intervals.
    #[serde(flatten)]
    pub levels: FrequencyLevels,
}

/// Scores checkpoints.
///
/// # Errors
/// Two checkpoints are the same point of the same run; a model or a text cannot be read; the models have different tokenizers; no
/// text has a token to predict; a file cannot be written.
pub fn measure_fairness(spec: &FairnessSpec, context: &Context<'_>) -> Result<FairnessResult, Error> {
    let runs = runs(spec)?;
    check_window(spec.window)?;
    let score::ScoredRuns { table, training, held_out, runs, notes, seconds } = score::score(spec, &runs, context)?;
    let counts: Vec<u64> = table.values().copied().collect();
    let mut result = FairnessResult {
        window: spec.window,
        compute_type: COMPUTE_TYPE.to_owned(),
        seed: spec.seed,
        counts: concentration(&counts),
        split_percentile: SPLIT_PERCENTILE,
        split_count: split_count(counts.iter().copied(), SPLIT_PERCENTILE),
        training,
        held_out,
        decays: decays::decays(&runs),
        runs,
        gaps: Vec::new(),
        theory: theory_by_frequency(&counts, THEORY_POINTS),
        notes,
        forward_seconds: seconds,
    };
    result.gaps = decays::gaps(&result.decays);
    if let Some(page) = &spec.page {
        lathe_formats::NewFile::write(page, fairness_page(&result).as_bytes())?;
    }
    Ok(result)
}

/// The checkpoints of one run, rising.
struct Run {
    variant: String,
    weight_decay: f64,
    seed: u64,
    /// Index into the spec's list.
    checkpoints: Vec<usize>,
}

impl Run {
    fn name(&self) -> String {
        let Self { variant, weight_decay, seed, .. } = self;
        let separator = if variant.is_empty() { "" } else { ", " };
        format!("{variant}{separator}weight decay {weight_decay}, seed {seed}")
    }
}

/// Sorts checkpoints into runs.
fn runs(spec: &FairnessSpec) -> Result<Vec<Run>, Error> {
    let refuse = |problem: String, hint: &str| Error::Spec { field: "checkpoints", problem, hint: Some(hint.into()) };
    if spec.checkpoints.is_empty() {
        return Err(refuse("there is none".into(), "name at least one"));
    }
    let mut variants: Vec<&str> = Vec::new();
    // Weight decays are keys by their bits: those of numbers from 0 are in the order of the numbers.
    let mut sorted = BTreeMap::<(usize, u64, u64), Vec<(Option<u64>, usize)>>::new();
    for (index, checkpoint) in spec.checkpoints.iter().enumerate() {
        let RunCheckpoint { model, variant, weight_decay, seed, step } = checkpoint;
        if !(0.0..f64::INFINITY).contains(weight_decay) {
            let problem = format!("{weight_decay} is no weight decay (of {model})");
            return Err(refuse(problem, "0 for none; 0.1 is usual"));
        }
        let place = variants.iter().position(|known| known == variant).unwrap_or_else(|| {
            variants.push(variant);
            variants.len() - 1
        });
        // −0 is 0.
        let run = sorted.entry((place, (weight_decay + 0.0).to_bits(), *seed)).or_default();
        if run.iter().any(|(other, _)| other == step) {
            let at = step.map_or("no step".into(), |step| format!("step {step}"));
            let problem = format!("{model}: a second checkpoint of weight decay {weight_decay}, seed {seed}, {at}");
            return Err(refuse(
                problem,
                "checkpoints of one run differ in `step`, runs in `variant`, `weight_decay` or `seed`",
            ));
        }
        if run.iter().any(|(other, _)| other.is_none() || step.is_none()) {
            let problem =
                format!("{model}: not all checkpoints of weight decay {weight_decay}, seed {seed} have a step");
            return Err(refuse(problem, "say `step` of each"));
        }
        run.push((*step, index));
    }
    let mut all = Vec::with_capacity(sorted.len());
    for ((place, bits, seed), mut points) in sorted {
        points.sort_unstable();
        all.push(Run {
            variant: variants[place].to_owned(),
            weight_decay: f64::from_bits(bits),
            seed,
            checkpoints: points.into_iter().map(|(_, index)| index).collect(),
        });
    }
    Ok(all)
}
