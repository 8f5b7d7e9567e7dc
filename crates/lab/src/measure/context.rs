//! `lathe measure context`: whether models answer from the text that they are given, or from memory.

mod ask;
mod data;
mod prompt;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;

use lathe_measure::context::{Answered, Item, Matching, Mentions, Reliance, mean_by_question, reliance};
use lathe_measure::{Estimate, Number, Reason};
use lathe_model::reference::ModelReference;
use serde::{Deserialize, Deserializer, Serialize};

pub use data::{ConflictAudit, TrapCount};
pub use prompt::PromptForm;
pub(crate) use prompt::{continued, fit, with_background};

use super::COMPUTE_TYPE;
use crate::generate::PROMPT_STRIDE;
use crate::load::{fingerprint, sha256_of};
use crate::report::numbered_names;
use crate::store::Store;
use crate::{Context, Error, Loaded, load};
use ask::{Asking, Recalled};
use data::Conflicts;

/// What to measure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContextSpec {
    /// The models, side by side; `model` with one name will do.
    #[serde(default, alias = "model", deserialize_with = "one_or_several")]
    pub models: Vec<ModelReference>,
    /// Records with a context, a question, the answer of the context and the memorised answer.
    pub data: PathBuf,
    /// How answers are looked for in what a model writes.
    #[serde(default)]
    pub matching: Matching,
    /// How models are asked.
    #[serde(default)]
    pub template: PromptForm,
    /// A sentence before every prompt, such as one that asks for the context's answer.
    #[serde(default)]
    pub instruction: Option<String>,
    /// Tokens of an answer at most.
    #[serde(default = "most_tokens")]
    pub max_tokens: usize,
    /// Who says which memorised answers are known.
    #[serde(default)]
    pub known_by: KnownBy,
    /// Whether attention on the context is measured, which takes one more reading of each prompt.
    #[serde(default)]
    pub attention: AttentionDetail,
    /// Take the first so many records.
    #[serde(default)]
    pub limit: Option<usize>,
    /// Questions at once; none chooses by memory. No answer depends on it.
    #[serde(default)]
    pub batch: Option<usize>,
    /// Seed of the intervals.
    #[serde(default)]
    pub seed: u64,
    /// The file of answers to write.
    #[serde(default)]
    pub out: Option<PathBuf>,
}

fn most_tokens() -> usize {
    32
}

fn one_or_several<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<ModelReference>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Named {
        One(ModelReference),
        Several(Vec<ModelReference>),
    }
    Ok(match Named::deserialize(from)? {
        Named::One(model) => vec![model],
        Named::Several(models) => models,
    })
}

/// Who says which memorised answers are known: a closed-book question, the same without its context, is answered with the
/// memorised answer and not with that of the context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KnownBy {
    /// Each model for itself.
    #[default]
    Each,
    /// The first model for all: a base for its children.
    First,
    /// The field `known` of the records, as an earlier run wrote it.
    Data,
    /// Nobody.
    Skip,
}

/// Whether attention is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttentionDetail {
    /// The mean of every layer.
    #[default]
    Layers,
    /// Not at all.
    Skip,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct ContextResult {
    /// The records.
    pub data: ConflictAudit,
    /// How answers are looked for.
    pub matching: Matching,
    /// Tokens of an answer at most.
    pub max_tokens: usize,
    /// Who says which memorised answers are known.
    pub known_by: KnownBy,
    /// Type of every forward pass.
    pub compute_type: &'static str,
    /// Seed of the intervals.
    pub seed: u64,
    /// The models, in order.
    pub models: Vec<ModelContext>,
    /// Every later model against the first, item by item.
    pub comparisons: Vec<ContextComparison>,
    /// The file of answers.
    pub out: Option<PathBuf>,
}

/// One model.
#[derive(Clone, Debug, Serialize)]
pub struct ModelContext {
    /// The model.
    pub model: String,
    /// How it was asked.
    pub template: PromptForm,
    /// Items that an earlier run had measured.
    pub resumed: usize,
    /// Seconds of those that this run measured.
    pub seconds: f64,
    /// Answers without a letter or digit.
    pub empty: usize,
    /// Contexts whose end did not fit the model's window.
    pub cut: usize,
    /// Of these, how many lost the answer.
    pub lost: usize,
    /// Over all items.
    #[serde(flatten)]
    pub all: Reliance,
    /// Over the items whose memorised answer is known; none where nobody was asked.
    pub known: Option<Reliance>,
    /// Attention of the last prompt position on the context, mean over heads and layers (0 to 1).
    pub attention: Estimate,
    /// The same for each layer.
    pub layers: Vec<LayerAttention>,
}

/// Attention on the context in one layer.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LayerAttention {
    /// Layer, from 0.
    pub layer: usize,
    /// Share of the last prompt position's attention, mean over heads (0 to 1).
    pub share: Estimate,
}

/// A model against the first one. Intervals resample questions.
#[derive(Clone, Debug, Serialize)]
pub struct ContextComparison {
    /// `A against B`.
    pub name: String,
    /// The later model.
    pub first: String,
    /// The first model of the list.
    pub second: String,
    /// Difference of the context rates.
    pub context_rate: Estimate,
    /// Difference of the parametric rates.
    pub parametric_rate: Estimate,
    /// Difference of the strict rates.
    pub context_only_rate: Estimate,
    /// Difference of M_C over items that have both.
    pub preference: Estimate,
}

/// What was found of one item with one model: a line of the file of answers. It can be the data of another run, to which `known` says
/// what this run has found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContextItem {
    /// The model.
    pub model: String,
    /// Record of the data, from 1.
    pub record: usize,
    /// The text, whole.
    pub context: String,
    /// The question.
    pub question: String,
    /// The answer of the context.
    pub answer: String,
    /// The memorised answer.
    pub memorised: String,
    /// What the model wrote.
    pub output: String,
    /// Its tokens, the end token included.
    pub tokens: usize,
    /// What it holds.
    pub mentions: Mentions,
    /// Its class.
    pub class: Answered,
    /// M_C (0 to 1).
    pub preference: Number,
    /// Length-normalised log-probability margin, nats per token.
    pub margin: Number,
    /// Σ log p of the context's answer, nats, and its tokens.
    pub log_p_context: (f64, usize),
    /// The same of the memorised answer.
    pub log_p_memorised: (f64, usize),
    /// What was written without the context by whoever says what is known, where a model does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_book: Option<String>,
    /// Whether the memorised answer is known, where somebody says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<bool>,
    /// Whether the end of the context was cut off.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_cut: bool,
    /// Whether the answer went with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_lost: bool,
    /// Attention on the context, `[layers]` (0 to 1); none where it was not measured or the template changed the context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention: Option<Vec<f64>>,
}

/// What items depend on: the first line of their partial file.
#[derive(Serialize)]
struct Head<'a> {
    lathe: &'static str,
    models_sha256: Vec<String>,
    data_sha256: String,
    spec: &'a ContextSpec,
}

/// Measures models on conflicting contexts.
///
/// # Errors
/// The records, a model or an option cannot be used; a question does not fit a model; the file cannot be written, or belongs
/// to another run.
pub fn measure_context(spec: &ContextSpec, context: &Context<'_>) -> Result<ContextResult, Error> {
    check(spec)?;
    if spec.models.is_empty() {
        return Err(refuse("MODEL", "no model is named", "lathe measure context smollm2 --data conflicts.jsonl"));
    }
    let conflicts = Conflicts::read(spec)?;
    let mut store = Store::open(spec.out.as_deref(), || {
        let models_sha256 = spec.models.iter().map(|model| fingerprint(model, context)).collect::<Result<_, _>>()?;
        let data_sha256 = sha256_of(&spec.data, &|_| {})?;
        let bare = ContextSpec { batch: None, out: None, ..spec.clone() };
        Ok(serde_json::to_value(Head { lathe: env!("CARGO_PKG_VERSION"), models_sha256, data_sha256, spec: &bare })?)
    })?;
    let references: Vec<String> = spec.models.iter().map(ToString::to_string).collect();
    let names = numbered_names(references.iter().map(String::as_str));
    let mut recalled = Recalled::default();
    let mut runs = Vec::with_capacity(names.len());
    for (at, (reference, name)) in spec.models.iter().zip(&names).enumerate() {
        if spec.known_by == KnownBy::Each {
            recalled = Recalled::default();
        }
        let loaded = load(reference, context)?;
        runs.push(of_model(&loaded, name, at, spec, &conflicts, &mut recalled, &mut store, context)?);
    }
    let items: Vec<ContextItem> = runs.iter().flat_map(|run| run.items.iter().cloned()).collect();
    let result = summary(spec, &conflicts, runs);
    store.finish(&items)?;
    Ok(result)
}

/// Measures a model that is loaded, which the spec need not name; nothing is kept.
///
/// # Errors
/// As [`measure_context`].
pub fn measure_context_loaded(
    loaded: &Loaded,
    spec: &ContextSpec,
    context: &Context<'_>,
) -> Result<ContextResult, Error> {
    check(spec)?;
    let conflicts = Conflicts::read(spec)?;
    let mut store = Store::open(None, || Ok(()))?;
    let name = loaded.reference.to_string();
    let run = of_model(loaded, &name, 0, spec, &conflicts, &mut Recalled::default(), &mut store, context)?;
    Ok(summary(spec, &conflicts, vec![run]))
}

fn refuse(field: &'static str, problem: &str, hint: &str) -> Error {
    Error::Spec { field, problem: problem.to_owned(), hint: Some(hint.to_owned()) }
}

/// What does not need the records to be known as wrong.
fn check(spec: &ContextSpec) -> Result<(), Error> {
    if spec.max_tokens == 0 {
        return Err(refuse("--max-tokens", "0 tokens are no answer", "32 is usual"));
    }
    if spec.limit == Some(0) {
        return Err(refuse("--limit", "0 records say nothing", "at least 1"));
    }
    if spec.batch == Some(0) {
        return Err(refuse("--batch", "0 questions at once never end", "at least 1"));
    }
    Ok(())
}

/// What came of one model.
struct Run {
    name: String,
    template: PromptForm,
    items: Vec<ContextItem>,
    resumed: usize,
    seconds: f64,
}

/// Items whose parts are measured together, and are on disk before the next ones begin.
const CHUNK: usize = 32;

#[expect(clippy::too_many_arguments, reason = "one model of a run: what it is, and what the run shares")]
fn of_model(
    loaded: &Loaded,
    name: &str,
    at: usize,
    spec: &ContextSpec,
    conflicts: &Conflicts,
    recalled: &mut Recalled,
    store: &mut Store<ContextItem>,
    context: &Context<'_>,
) -> Result<Run, Error> {
    let template = spec.template.for_model(loaded)?;
    let item = |record: usize| at as u64 * PROMPT_STRIDE + record as u64;
    let all: Vec<usize> = (0..conflicts.records.len()).collect();
    let missing: Vec<usize> = all.iter().copied().filter(|record| store.get(item(*record)).is_none()).collect();
    let resumed = all.len() - missing.len();
    // What an earlier run has asked without a context need not be asked again.
    all.iter().filter_map(|record| store.get(item(*record))).for_each(|of| recalled.remember(of));
    let mut asking = Asking { loaded, name, template, spec, conflicts, recalled };
    let (measured, seconds) = context.timed(|| {
        context.stage(&format!("{name}: context"), missing.len() as u64, "items", || {
            for chunk in missing.chunks(CHUNK) {
                for (record, of) in asking.items(chunk, at == 0)? {
                    store.put(item(record), of)?;
                }
                context.progress.advance(chunk.len() as u64);
            }
            Ok::<_, Error>(())
        })
    });
    measured?;
    let items = all.iter().map(|record| store.get(item(*record)).cloned().ok_or(Error::Interrupted));
    Ok(Run { name: name.to_owned(), template, items: items.collect::<Result<_, _>>()?, resumed, seconds })
}

fn summary(spec: &ContextSpec, conflicts: &Conflicts, runs: Vec<Run>) -> ContextResult {
    let questions = conflicts.questions();
    let comparisons = runs.iter().skip(1).map(|run| comparison(run, &runs[0], &questions, spec.seed)).collect();
    ContextResult {
        data: conflicts.audit.clone(),
        matching: spec.matching,
        max_tokens: spec.max_tokens,
        known_by: spec.known_by,
        compute_type: COMPUTE_TYPE,
        seed: spec.seed,
        models: runs.into_iter().map(|run| of_run(run, &questions, spec.seed)).collect(),
        comparisons,
        out: spec.out.clone(),
    }
}

fn of_run(run: Run, questions: &[usize], seed: u64) -> ModelContext {
    let measured = |(item, question): (&ContextItem, &usize)| Item {
        question: *question,
        mentions: item.mentions,
        preference: item.preference,
        margin: item.margin,
    };
    let all: Vec<Item> = run.items.iter().zip(questions).map(measured).collect();
    let is_asked = run.items.iter().any(|item| item.known.is_some());
    let known: Vec<Item> =
        run.items.iter().zip(questions).filter(|(item, _)| item.known == Some(true)).map(measured).collect();
    let layers = run.items.iter().filter_map(|item| item.attention.as_ref()).map(Vec::len).max().unwrap_or(0);
    let share = |of: &dyn Fn(&[f64]) -> f64| {
        let none = Number::Undefined(Reason::NotRequested);
        let values: Vec<[Number; 1]> = run
            .items
            .iter()
            .map(|item| [item.attention.as_ref().map_or(none, |shares| Number::from(of(shares)))])
            .collect();
        let [mean] = mean_by_question(questions, &values, seed);
        mean
    };
    let count = |is: fn(&ContextItem) -> bool| run.items.iter().filter(|item| is(item)).count();
    ModelContext {
        template: run.template,
        resumed: run.resumed,
        seconds: run.seconds,
        empty: count(|item| !item.output.chars().any(char::is_alphanumeric)),
        cut: count(|item| item.is_cut),
        lost: count(|item| item.is_lost),
        all: reliance(&all, seed),
        known: is_asked.then(|| reliance(&known, seed)),
        attention: share(&|shares| shares.iter().sum::<f64>() / shares.len().max(1) as f64),
        layers: (0..layers).map(|layer| LayerAttention { layer, share: share(&|shares| shares[layer]) }).collect(),
        model: run.name,
    }
}

fn comparison(run: &Run, base: &Run, questions: &[usize], seed: u64) -> ContextComparison {
    let share = |is: bool| Number::from(f64::from(u8::from(is)));
    let numbers = |item: &ContextItem| {
        [
            share(item.mentions.context),
            share(item.mentions.parametric),
            share(item.class == Answered::ContextOnly),
            item.preference,
        ]
    };
    let differences = run.items.iter().zip(&base.items).map(|(item, base)| {
        let (a, b) = (numbers(item), numbers(base));
        std::array::from_fn(|k| a[k].zip(b[k], |a, b| a - b))
    });
    let differences: Vec<[Number; 4]> = differences.collect();
    let [context_rate, parametric_rate, context_only_rate, preference] =
        mean_by_question(questions, &differences, seed);
    ContextComparison {
        name: format!("{} against {}", run.name, base.name),
        first: run.name.clone(),
        second: base.name.clone(),
        context_rate,
        parametric_rate,
        context_only_rate,
        preference,
    }
}

/// Numbers of texts that are equal: the same for equal ones, from 0.
fn numbered<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<usize> {
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    texts
        .map(|text| {
            let next = known.len();
            *known.entry(lathe_measure::context::normalised(text)).or_insert(next)
        })
        .collect()
}
