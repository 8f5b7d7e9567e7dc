//! `lathe eval-embed`: how good the vectors of a model are, task by task, each kind of vector beside its controls.
//!
//! A task is data ([`task`]); its files become texts and a question before a model is loaded. For every model and prompt the
//! hidden states (HS) and, where there are routers, the router weights (RW) of all texts are taken once, and every kind of vector
//! that is made of them (`kinds.rs`) is scored (`score.rs`). What the paper (arXiv 2410.10814) compares with each other is
//! confounded by a z-score that only one side has; here each stands raw and standardised.
//!
//! `MODEL.PROMPT.TASK.json` is what came of one run; a run with the same settings uses it again.

mod asked;
mod built_in;
mod keep;
mod kinds;
mod page;
mod read;
mod score;
pub mod task;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use lathe_measure::Number;
use lathe_model::reference::ModelReference;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::embed::{Alpha, Embedder, FeatureSpec, Features, Prompt};
use crate::eval::ScoreRow;
use crate::eval::questions::LeftOut;
use crate::eval::task::Notation;
use crate::load::fingerprint;
use crate::{Context, Error, report};
use asked::{Asked, Extent, What, asked};
use keep::Place;
use kinds::Kind;
use score::{Answered, How, Scored, answered, combined, of_answers, scored};
use task::EmbedTask;

/// What to evaluate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbedEvalSpec {
    /// The models.
    pub models: Vec<ModelReference>,
    /// The tasks: names of built-in ones, or task files.
    pub tasks: Vec<String>,
    /// What stands around a text, one run for each.
    #[serde(default = "usual")]
    pub prompts: Vec<Prompt>,
    /// What is read from a model; its prompt is that of the run.
    #[serde(default)]
    pub features: FeatureSpec,
    /// How the α of a sum comes about: over the pairs that the task is about, without their labels.
    #[serde(default = "auto")]
    pub alpha: Alpha,
    /// Data of the one task, for its sources that name no file.
    #[serde(default)]
    pub data: Option<PathBuf>,
    /// Units of each task at most, drawn by the seed: pairs, queries, texts that are asked, texts of a set.
    #[serde(default)]
    pub limit: Option<usize>,
    /// Clusterings of each set.
    #[serde(default = "five")]
    pub clusterings: usize,
    /// How long classifiers are trained.
    #[serde(default)]
    pub training: Training,
    /// Of intervals, clusterings, the random projection and what a limit leaves.
    #[serde(default)]
    pub seed: u64,
    /// Folder for results; none keeps nothing.
    #[serde(default)]
    pub out: Option<PathBuf>,
}

fn usual() -> Vec<Prompt> {
    vec![Prompt::Usual]
}

fn auto() -> Alpha {
    Alpha::Auto
}

fn five() -> usize {
    5
}

/// How long classifiers are trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Training {
    /// At most 100 steps, as in MTEB.
    #[default]
    Limited,
    /// Besides, until they converge: a second number.
    AlsoToConvergence,
}

/// What came out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EmbedEvalResult {
    /// Version of lathe.
    pub lathe: String,
    /// Every model with every prompt and task, tasks within prompts within models.
    pub runs: Vec<EmbedRun>,
    /// The settings.
    pub spec: EmbedEvalSpec,
    /// The files that were written.
    pub files: Vec<PathBuf>,
}

/// What came out of one model with one prompt and one task.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EmbedRun {
    /// `MODEL PROMPT TASK`: by this name an experiment finds it.
    pub name: String,
    /// The model, short.
    pub model: String,
    /// The prompt.
    pub prompt: String,
    /// The task.
    pub task: String,
    /// What it asks.
    pub description: String,
    /// Its protocol.
    pub kind: String,
    /// The score that tables show first.
    pub headline: String,
    /// What intervals resample.
    pub unit: String,
    /// How many of them were asked.
    pub units: usize,
    /// How many the data have.
    pub available: usize,
    /// Rows that were not used.
    pub left_out: Vec<LeftOut>,
    /// Different texts that the model read.
    pub texts: usize,
    /// Those that were cut.
    pub truncated: usize,
    /// Tokens that it read.
    pub tokens: u64,
    /// Seconds for reading them and for scoring.
    pub seconds: f64,
    /// Whether an earlier run had done it.
    pub resumed: bool,
    /// What was read from the model, with all that it decided itself.
    pub features: FeatureSpec,
    /// Why there is no RW, concat and sum, where there is none.
    pub missing: Option<String>,
    /// Every kind of vector.
    pub rows: Vec<VectorsRow>,
    /// What came of each unit.
    pub items: Option<PathBuf>,
}

/// What one kind of vector reaches.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VectorsRow {
    /// Its name in files: `hs`, `rw_standardised`, `sum` ….
    pub name: String,
    /// Its name in tables.
    pub label: String,
    /// Values of a vector; 0 where there is none.
    pub width: usize,
    /// α of a sum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpha: Option<Number>,
    /// The scores, the headline first.
    pub scores: Vec<ScoreRow>,
    /// Standard deviation of the headline over draws or clusterings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deviation: Option<Number>,
    /// Draws whose classifier had not converged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_converged: Option<usize>,
    /// Units without a value, which no mean counts.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub undefined: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// A built-in task.
#[derive(Clone, Debug, Serialize)]
pub struct EmbedTaskRow {
    /// Its name.
    pub name: String,
    /// Its protocol.
    pub kind: String,
    /// Its headline.
    pub score: String,
    /// The fetched data that it needs; none needs `--data`.
    pub data: Option<String>,
    /// What it asks.
    pub description: String,
}

/// The built-in tasks.
///
/// # Errors
/// One of them cannot be read, which a test excludes.
pub fn built_in_embed_tasks() -> Result<Vec<EmbedTaskRow>, Error> {
    let row = |(name, text): &(&str, &str)| {
        let task = EmbedTask::parse(text, Notation::Toml, name)?;
        Ok(EmbedTaskRow {
            kind: task.task.name().to_owned(),
            score: task.task.headline().to_owned(),
            data: task.task.sources().first().and_then(|source| source.package.clone()),
            name: task.name,
            description: task.description,
        })
    };
    built_in::TASKS.iter().map(row).collect()
}

/// The file of a built-in task.
pub(crate) fn built_in_embed_task(name: &str) -> Option<&'static str> {
    built_in::TASKS.iter().find(|(built_in, _)| *built_in == name).map(|(_, text)| *text)
}

/// Scores the vectors of every model with every prompt in every task.
///
/// # Errors
/// A task or its data, a model or an option cannot be used; results of other settings are in the way.
pub fn embed_eval(spec: &EmbedEvalSpec, context: &Context<'_>) -> Result<EmbedEvalResult, Error> {
    check(spec)?;
    let tasks = spec.tasks.iter().map(|name| prepared(name, spec, context)).collect::<Result<Vec<_>, _>>()?;
    if let Some(again) =
        (1..tasks.len()).find(|at| tasks[..*at].iter().any(|task| task.task.name == tasks[*at].task.name))
    {
        let problem = format!("two tasks are called {}", tasks[again].task.name);
        return Err(Error::Spec { field: "--task", problem, hint: None });
    }
    let references: Vec<String> = spec.models.iter().map(ToString::to_string).collect();
    let names = report::numbered_names(references.iter().map(String::as_str));
    if let Some(out) = &spec.out {
        fs::create_dir_all(out).map_err(|source| Error::Write { file: out.clone(), source })?;
    }
    let mut runs = Vec::new();
    for (model, name) in spec.models.iter().zip(&names) {
        runs.extend(of_model(model, name, spec, &tasks, context)?);
    }
    let mut result =
        EmbedEvalResult { lathe: env!("CARGO_PKG_VERSION").into(), runs, spec: spec.clone(), files: Vec::new() };
    if let Some(out) = &spec.out {
        result.files = ["results.json", "results.html"].map(|name| out.join(name)).to_vec();
        let texts = [serde_json::to_string_pretty(&result)? + "\n", page::html(&result)];
        for (file, text) in result.files.iter().zip(texts) {
            lathe_formats::NewFile::write(file, text.as_bytes())?;
        }
    }
    Ok(result)
}

/// What does not need the data to be known as wrong.
fn check(spec: &EmbedEvalSpec) -> Result<(), Error> {
    let bad = |field, problem: String, hint: &str| Err(Error::Spec { field, problem, hint: Some(hint.to_owned()) });
    if spec.models.is_empty() {
        return bad("MODEL", "no model is named".into(), "lathe eval-embed smollm2 --task lee");
    }
    if spec.tasks.is_empty() {
        return bad("--task", "no task is named".into(), "`lathe eval-embed --list` shows the built-in ones");
    }
    if spec.prompts.is_empty() {
        return bad(
            "--prompt",
            "no prompt is named".into(),
            "leave it out for PromptEOL, and the bare text for an encoder",
        );
    }
    if let Some(again) = (1..spec.prompts.len()).find(|at| spec.prompts[..*at].contains(&spec.prompts[*at])) {
        return bad("--prompt", format!("`{}` is named twice", spec.prompts[again]), "name each once");
    }
    if spec.data.is_some() && spec.tasks.len() > 1 {
        return bad("--data", "one file cannot be the data of several tasks".into(), "name one task");
    }
    if spec.limit.is_some_and(|limit| limit < 2) {
        return bad("--limit", "fewer than 2 units have no interval".into(), "at least 2");
    }
    if spec.clusterings == 0 {
        return bad("--clusterings", "0 clusterings have no mean".into(), "5 or more show how far they differ");
    }
    if let Alpha::Fixed(alpha) = spec.alpha
        && !(alpha.is_finite() && alpha >= 0.0)
    {
        return bad("--alpha", format!("{alpha} is no weight"), "a number from 0 on, `auto` or `search`");
    }
    Ok(())
}

/// A built-in task or a file, with its texts.
fn prepared(name: &str, spec: &EmbedEvalSpec, context: &Context<'_>) -> Result<Asked, Error> {
    let file = Path::new(name);
    let (task, folder) = match built_in_embed_task(name) {
        Some(text) => (EmbedTask::parse(text, Notation::Toml, name)?, PathBuf::new()),
        None if file.is_file() => (EmbedTask::read(file)?, file.parent().unwrap_or(Path::new("")).to_owned()),
        None => {
            let hint = "`lathe eval-embed --list` shows the built-in tasks; docs/methods/embedding-tasks.md says how to \
                        write a task file";
            let problem = format!("`{name}` is neither a built-in task nor a file");
            return Err(Error::Spec { field: "--task", problem, hint: Some(hint.into()) });
        }
    };
    if spec.data.is_some() && task.task.sources().iter().all(|source| source.file.is_some()) {
        let problem = format!("the task {} has data of its own", task.name);
        return Err(Error::Spec { field: "--data", problem, hint: Some("leave it out".into()) });
    }
    let extent = Extent { folder: &folder, data: spec.data.as_deref(), limit: spec.limit, seed: spec.seed };
    asked(task, &extent, context)
}

/// One model with every prompt and task. It is loaded when something is left to do.
fn of_model(
    model: &ModelReference,
    name: &str,
    spec: &EmbedEvalSpec,
    tasks: &[Asked],
    context: &Context<'_>,
) -> Result<Vec<EmbedRun>, Error> {
    // What is in the way is said before the model is loaded.
    let sha256 = if spec.out.is_some() { fingerprint(model, context)? } else { String::new() };
    let mut places = Vec::new();
    for prompt in &spec.prompts {
        for task in tasks {
            places.push(Place::of(spec, (name, &sha256), prompt, task)?);
        }
    }
    let mut embedder: Option<Embedder> = None;
    let mut runs = Vec::new();
    let pairs = spec.prompts.iter().flat_map(|prompt| tasks.iter().map(move |task| (prompt, task)));
    for ((prompt, task), place) in pairs.zip(places) {
        if let Some(run) = place.finished {
            runs.push(run);
            continue;
        }
        let embedder = match &mut embedder {
            Some(embedder) => &*embedder,
            none => none.insert(Embedder::open(model, spec.features.compute, context)?),
        };
        let features = FeatureSpec { prompt: prompt.clone(), ..spec.features.clone() };
        let (done, seconds) = context.timed(|| {
            let read = embedder.features(&task.texts, &features, context)?;
            let label = format!("{name}: {}", task.task.name);
            let rows = context.stage(&label, 0, "", || rows(&read, task, spec))?;
            Ok::<_, Error>((read, rows))
        });
        let (read, rows) = done?;
        let missing = (!embedder.has_router()).then(|| {
            format!("{} models have no routers: RW, concat and sum need a mixture of experts", embedder.family())
        });
        let features = embedder.resolved(&features);
        let mut run = summary(name, &features.prompt.to_string(), task, &read, seconds);
        run.features = features;
        run.missing = missing;
        run.rows = rows.iter().map(|(row, _)| row.clone()).collect();
        if let Some(file) = &place.file {
            run.items = Some(file.with_extension("jsonl"));
            keep::write(file, &place.run, &run, task, &rows)?;
        }
        runs.push(run);
    }
    Ok(runs)
}

fn summary(model: &str, prompt: &str, asked: &Asked, read: &Features, seconds: f64) -> EmbedRun {
    EmbedRun {
        name: format!("{model} {prompt} {}", asked.task.name),
        model: model.to_owned(),
        prompt: prompt.to_owned(),
        task: asked.task.name.clone(),
        description: asked.task.description.clone(),
        kind: asked.task.task.name().to_owned(),
        headline: asked.task.task.headline().to_owned(),
        unit: asked.what.unit().to_owned(),
        units: asked.what.units(),
        available: asked.available,
        left_out: asked.left_out.clone(),
        texts: asked.texts.len(),
        truncated: read.truncated,
        tokens: read.tokens,
        seconds,
        resumed: false,
        features: FeatureSpec::default(),
        missing: None,
        rows: Vec::new(),
        items: None,
    }
}

/// Every kind of vector with its scores, and what came of each unit.
fn rows(read: &Features, asked: &Asked, spec: &EmbedEvalSpec) -> Result<Vec<(VectorsRow, Vec<Value>)>, Error> {
    let how = How { seed: spec.seed, clusterings: spec.clusterings, training: spec.training };
    let mut rows = Vec::new();
    let mut answers: BTreeMap<Kind, Answered> = BTreeMap::new();
    let mut alphas: BTreeMap<Kind, Number> = BTreeMap::new();
    for kind in Kind::of(read) {
        let (name, label) = (kind.name(), kind.label());
        let made = match kind.made(read, asked, spec.alpha, spec.seed)? {
            Ok(made) => made,
            Err(undefined) => {
                rows.push(row(name, label, 0, Some(undefined), without_value(asked, undefined)));
                continue;
            }
        };
        let scored = match &asked.what {
            What::Classes(of) => {
                let found = answered(of, &made.vectors, &how)?;
                let scored = of_answers(of, &found, spec.seed);
                answers.insert(*kind, found);
                scored
            }
            what => scored(what, &made.vectors, &how)?,
        };
        alphas.extend(made.alpha.map(|alpha| (*kind, alpha)));
        rows.push(row(name, label, made.vectors.width(), made.alpha, scored));
    }
    if let What::Classes(of) = &asked.what {
        for (name, label, parts, sum) in PROBABILITY_SUMS {
            let both = answers.get(&parts[0]).zip(answers.get(&parts[1]));
            let alpha = alphas.get(&sum).copied();
            if let (Some((hidden, router)), Some(alpha @ Number::Value(weight))) = (both, alpha) {
                let scored = of_answers(of, &combined(hidden, router, weight), spec.seed);
                rows.push(row(name, label, 0, Some(alpha), scored));
            }
        }
    }
    Ok(rows)
}

/// Of classification: two classifiers whose probabilities are added, beside the one on the vector of the sum.
const PROBABILITY_SUMS: [(&str, &str, [Kind; 2], Kind); 2] = [
    ("sum_of_probabilities", "sum of probabilities", [Kind::Hidden, Kind::Router], Kind::Sum),
    (
        "sum_of_probabilities_standardised",
        "sum of probabilities, standardised",
        [Kind::HiddenStandardised, Kind::RouterStandardised],
        Kind::SumStandardised,
    ),
];

fn row(name: &str, label: &str, width: usize, alpha: Option<Number>, scored: Scored) -> (VectorsRow, Vec<Value>) {
    let Scored { scores, deviation, not_converged, undefined, units } = scored;
    let (name, label) = (name.to_owned(), label.to_owned());
    (VectorsRow { name, label, width, alpha, scores, deviation, not_converged, undefined }, units)
}

/// The scores of vectors that do not exist.
fn without_value(asked: &Asked, number: Number) -> Scored {
    use lathe_measure::{Estimate, Measured, Reason};
    let reason = number.reason().unwrap_or(Reason::Empty);
    let estimate = Estimate { value: number, n: asked.what.units(), interval: Measured::Undefined(reason) };
    let name = asked.task.task.headline().to_owned();
    Scored { scores: vec![ScoreRow { name, estimate }], ..Scored::default() }
}

#[cfg(test)]
mod tests;
