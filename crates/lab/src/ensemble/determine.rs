//! Which of several models are worth combining for a task (UniTE, Yao et al. 2024, arXiv 2410.03777, section 3).
//!
//! The best model on some questions is the first member. The others follow from the best to the worst. One is refused if
//! it trails the best by more than 10 points, or if its answers are more than twice as long or short: both are what
//! the paper found to spoil ensembles. Else it is tried: with it, the ensemble answers the same questions, and it stays if
//! that adds to the score. How much two vocabularies have in common, and who is right where the other is wrong, is shown
//! beside each decision and decides nothing.

use std::path::PathBuf;

use lathe_model::reference::ModelReference;
use lathe_tokenizer::ByteVocabulary;
use serde::{Deserialize, Serialize};

use super::EnsembleSpec;
use crate::eval::subject::Overlong;
use crate::eval::{EvalRun, EvalSpec, ItemRecord, ScoreRow, eval_with_answers};
use crate::generate::Turn;
use crate::{Compute, Context, Error, open_model};

/// What to determine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetermineSpec {
    /// The candidates as members, and how they would write together. Weights have to be left out.
    pub candidates: EnsembleSpec,
    /// The task.
    pub task: String,
    /// Its data, in the place of its own.
    #[serde(default)]
    pub data: Option<PathBuf>,
    /// Questions to decide on.
    pub limit: Option<usize>,
    /// Draws them with this seed instead of taking the first.
    #[serde(default)]
    pub shuffle: Option<u64>,
    /// Whether a question is the beginning of a text or something to be answered.
    #[serde(default)]
    pub turn: Turn,
    /// The arithmetic of the models.
    #[serde(default)]
    pub compute: Compute,
    /// When a candidate is refused or kept.
    #[serde(default)]
    pub criteria: Criteria,
    /// Folder for every answer; none keeps nothing.
    #[serde(default)]
    pub out: Option<PathBuf>,
}

/// When a candidate is refused or kept.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Criteria {
    /// Percentage points by which it may trail the best model.
    pub max_gap_points: f64,
    /// How many times as long as the best model's its answers may be, or as short.
    pub max_length_ratio: f64,
    /// Percentage points that it has to add.
    pub min_gain_points: f64,
}

impl Default for Criteria {
    fn default() -> Self {
        Self { max_gap_points: MAX_GAP_POINTS, max_length_ratio: MAX_LENGTH_RATIO, min_gain_points: 0.0 }
    }
}

/// Ten points (UniTE, section 3.1; its figures' "%" are points of accuracy).
pub const MAX_GAP_POINTS: f64 = 10.0;
/// Twice as long (reported of UniTE, section 3.3; not stated in what its authors released).
pub const MAX_LENGTH_RATIO: f64 = 2.0;

/// What came out.
#[derive(Clone, Debug, Serialize)]
pub struct DetermineResult {
    /// The task, and its headline score.
    pub task: String,
    /// The name of the score.
    pub score: String,
    /// Questions that were decided on.
    pub questions: usize,
    /// The candidates, the best one first.
    pub decisions: Vec<Decision>,
    /// The members that are worth combining; one alone where nothing adds to it.
    pub members: Vec<String>,
    /// What they reach together on these questions.
    pub reached: ScoreRow,
    /// The spec.
    pub spec: DetermineSpec,
}

/// What was decided about a candidate.
#[derive(Clone, Debug, Serialize)]
pub struct Decision {
    /// The model.
    pub model: String,
    /// Its score alone.
    pub alone: ScoreRow,
    /// Percentage points by which it trails the best one.
    pub gap_points: f64,
    /// Mean length of its answers, bytes.
    pub response_bytes: f64,
    /// The longer of its answers and the best model's over the shorter, mean lengths in bytes.
    pub length_ratio: f64,
    /// Share of its vocabulary, as byte strings, that the best model has too.
    pub shared_vocabulary: f64,
    /// Questions that it has right and the members chosen before it have not.
    pub adds: usize,
    /// Questions that these have right and it has not.
    pub lacks: usize,
    /// The score together with the members chosen before it; none where it was not tried.
    pub together: Option<ScoreRow>,
    /// Percentage points that it adds.
    pub gain_points: Option<f64>,
    /// Whether it stays.
    pub verdict: Verdict,
    /// Why, in a sentence.
    pub reason: String,
}

/// Whether a candidate stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The best one.
    First,
    /// It adds to the score.
    Kept,
    /// It does not.
    Dropped,
    /// It was not tried.
    Refused,
}

/// Decides.
///
/// # Errors
/// A model, the task or an option cannot be used.
pub fn determine(spec: &DetermineSpec, context: &Context<'_>) -> Result<DetermineResult, Error> {
    check(spec)?;
    let models = &spec.candidates.members;
    let (result, answers) = eval_with_answers(&asked(spec, models, &[]), context)?;
    let alone: Vec<(&EvalRun, &[ItemRecord])> = result.runs.iter().zip(answers.iter().map(Vec::as_slice)).collect();
    let vocabularies = models.iter().map(|model| vocabulary(model, context)).collect::<Result<Vec<_>, _>>()?;
    let points = |score: &ScoreRow| 100.0 * score.estimate.value.value().unwrap_or(0.0);
    let score = |at: usize| points(&alone[at].0.scores[0]);
    let mut order: Vec<usize> = (0..models.len()).collect();
    order.sort_by(|a, b| score(*b).total_cmp(&score(*a)));
    let best = order[0];
    let mut members = vec![best];
    let mut reached = alone[best].0.scores[0].clone();
    let mut right: Vec<f64> = alone[best].1.iter().map(|item| item.score).collect();
    let mut decisions = Vec::with_capacity(models.len());
    for &at in &order {
        let (run, items) = alone[at];
        let length = |at: usize| alone[at].0.response_bytes.value().unwrap_or(0.0).max(f64::MIN_POSITIVE);
        let count = |wins: fn(f64, f64) -> bool| {
            items.iter().zip(&right).filter(|(item, right)| wins(item.score, **right)).count()
        };
        let common = vocabularies[at].common_with(&vocabularies[best]);
        let mut decision = Decision {
            model: run.model.clone(),
            alone: run.scores[0].clone(),
            gap_points: score(best) - score(at),
            response_bytes: length(at),
            length_ratio: (length(at) / length(best)).max(length(best) / length(at)),
            shared_vocabulary: common as f64 / vocabularies[at].len().max(1) as f64,
            adds: count(|own, others| own > others),
            lacks: count(|own, others| own < others),
            together: None,
            gain_points: None,
            verdict: Verdict::First,
            reason: "the best alone".into(),
        };
        if at != best {
            if let Some(reason) = refused(&decision, &spec.criteria) {
                (decision.verdict, decision.reason) = (Verdict::Refused, reason);
            } else {
                let with: Vec<ModelReference> =
                    members.iter().chain([&at]).map(|member| models[*member].clone()).collect();
                let ensemble = EnsembleSpec { members: with, ..spec.candidates.clone() };
                let (result, mut answers) = eval_with_answers(&asked(spec, &[], &[ensemble]), context)?;
                let together = result.runs[0].scores[0].clone();
                let gain = points(&together) - points(&reached);
                decision.together = Some(together.clone());
                decision.gain_points = Some(gain);
                if gain > spec.criteria.min_gain_points {
                    decision.verdict = Verdict::Kept;
                    decision.reason = format!("adds {gain:.1} points to the members before it");
                    members.push(at);
                    reached = together;
                    right = answers.remove(0).iter().map(|item| item.score).collect();
                } else {
                    decision.verdict = Verdict::Dropped;
                    let least = spec.criteria.min_gain_points;
                    decision.reason = format!("changes the score by {gain:.1} points, more than {least:.1} are asked");
                }
            }
        }
        decisions.push(decision);
    }
    Ok(DetermineResult {
        task: alone[best].0.task.clone(),
        score: reached.name.clone(),
        questions: alone[best].0.questions,
        members: members.iter().map(|member| alone[*member].0.model.clone()).collect(),
        decisions,
        reached,
        spec: spec.clone(),
    })
}

fn check(spec: &DetermineSpec) -> Result<(), Error> {
    let bad = |field, problem: &str, hint: &str| {
        Err(Error::Spec { field, problem: problem.to_owned(), hint: Some(hint.to_owned()) })
    };
    if spec.candidates.members.len() < 2 {
        return bad("MODEL", "there is nothing to combine", "name two models or more");
    }
    if spec.candidates.weights.is_some() {
        return bad("--weights", "the members are what is to be found", "leave them out");
    }
    let of = &spec.criteria;
    if !(of.max_gap_points >= 0.0 && of.max_length_ratio >= 1.0 && of.min_gain_points.is_finite()) {
        return bad("--max-gap, --max-length-ratio, --min-gain", "out of range", "0 or more, 1 or more, any number");
    }
    Ok(())
}

/// Why a candidate is not tried.
fn refused(candidate: &Decision, criteria: &Criteria) -> Option<String> {
    if candidate.gap_points > criteria.max_gap_points {
        return Some(format!(
            "trails the best by {:.1} points, more than {}",
            candidate.gap_points, criteria.max_gap_points
        ));
    }
    (candidate.length_ratio > criteria.max_length_ratio).then(|| {
        format!(
            "its answers and the best model's differ in length by a factor of {:.1}, more than {}: examples in the \
             prompt make styles alike",
            candidate.length_ratio, criteria.max_length_ratio
        )
    })
}

fn asked(spec: &DetermineSpec, models: &[ModelReference], ensembles: &[EnsembleSpec]) -> EvalSpec {
    EvalSpec {
        models: models.to_vec(),
        ensembles: ensembles.to_vec(),
        tasks: vec![spec.task.clone()],
        data: spec.data.clone(),
        limit: spec.limit,
        shuffle: spec.shuffle,
        turn: spec.turn.clone(),
        overlong: Overlong::default(),
        compute: spec.compute,
        batch: None,
        out: spec.out.clone(),
    }
}

/// A vocabulary, without weights.
fn vocabulary(model: &ModelReference, context: &Context<'_>) -> Result<ByteVocabulary, Error> {
    let (_, opened) = open_model(model, context)?;
    super::byte_vocabulary(model, &opened.tokenizer()?)
}
