//! `lathe eval`: how many questions of a task a model answers rightly.
//!
//! A task is data ([`task`]). Its rows become text before a model is loaded ([`questions`]); a [`subject`] answers the text.
//! Every answer is on disk before the next ones are asked: `MODEL.TASK.jsonl.partial` begins with what answers depend on,
//! and a run that was killed goes on from there. A finished `MODEL.TASK.jsonl` is used again by a run with the same
//! settings, and is in the way of one with others.

mod answers;
mod built_in;
mod compare;
mod items;
mod page;
pub mod questions;
mod row;
pub mod subject;
pub mod task;
mod together;

use std::fs;
use std::path::{Path, PathBuf};

use lathe_measure::Number;
use lathe_measure::answers::Judge;
use lathe_measure::shares::PairedScores;
use lathe_model::reference::ModelReference;
use serde::{Deserialize, Serialize};

use crate::ensemble::EnsembleSpec;
use crate::generate::Turn;
use crate::{Compute, Context, Error, Loaded, report};
use answers::Collected;
pub use compare::{CompareResult, CompareSpec, compare};
pub use items::{Given, ItemRecord, OptionRecord, ScoreRow};
use questions::{Delimiter, Extent, LeftOut, Questions};
use subject::Overlong;
use task::{Notation, Score, Task};

/// What to evaluate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalSpec {
    /// The models.
    #[serde(default)]
    pub models: Vec<ModelReference>,
    /// Ensembles of models, which may be among those or not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ensembles: Vec<EnsembleSpec>,
    /// The tasks: names of built-in ones, or task files.
    pub tasks: Vec<String>,
    /// Data of the one task, in the place of its own.
    #[serde(default)]
    pub data: Option<PathBuf>,
    /// Questions of each task at most: the first ones, in the order of the file.
    #[serde(default)]
    pub limit: Option<usize>,
    /// Draws the questions with this seed instead.
    #[serde(default)]
    pub shuffle: Option<u64>,
    /// Whether a question is the beginning of a text or something to be answered.
    #[serde(default)]
    pub turn: Turn,
    /// What becomes of texts that are longer than a model's context.
    #[serde(default)]
    pub overlong: Overlong,
    /// The arithmetic of the models.
    #[serde(default)]
    pub compute: Compute,
    /// Questions at once; none chooses by memory. No answer depends on it.
    #[serde(default)]
    pub batch: Option<usize>,
    /// Folder for answers and results; none keeps nothing.
    #[serde(default)]
    pub out: Option<PathBuf>,
}

/// What came out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EvalResult {
    /// Version of lathe.
    pub lathe: String,
    /// Every model with every task, tasks within models.
    pub runs: Vec<EvalRun>,
    /// Every two models that answered the same task.
    pub comparisons: Vec<Comparison>,
    /// The settings.
    pub spec: EvalSpec,
    /// The files that were written.
    pub files: Vec<PathBuf>,
}

/// What came out of one model with one task.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EvalRun {
    /// `MODEL TASK`: by this name an experiment finds it.
    pub name: String,
    /// The model, short.
    pub model: String,
    /// The task.
    pub task: String,
    /// What it asks.
    pub description: String,
    /// Questions asked.
    pub questions: usize,
    /// Questions that the data have, those beyond a limit among them.
    pub available: usize,
    /// Rows that are no questions.
    pub left_out: Vec<LeftOut>,
    /// Questions that an earlier run had asked.
    pub resumed: usize,
    /// Scores, the headline first.
    pub scores: Vec<ScoreRow>,
    /// Control value: the share of right answers of a guess. Undefined where there are no options.
    pub chance: Number,
    /// Mean length of answers, bytes: of the texts that were written or the options that were chosen.
    pub response_bytes: Number,
    /// Mean length of answers, tokens.
    pub response_tokens: Number,
    /// Of an ensemble that wrote texts: share of the symbols that its members chose together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ensembled_share: Option<f64>,
    /// Seconds that this run took for the questions that it asked.
    pub seconds: f64,
    /// The answers.
    pub items: Option<PathBuf>,
}

/// Two models with the same questions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Comparison {
    /// `FIRST against SECOND`: by this name an experiment finds it.
    #[serde(default)]
    pub name: String,
    /// The task.
    pub task: String,
    /// Which score is compared: the headline.
    pub score: String,
    /// A model.
    pub first: String,
    /// The other.
    pub second: String,
    /// How they differ.
    #[serde(flatten)]
    pub paired: PairedScores,
}

/// A built-in task.
#[derive(Clone, Debug, Serialize)]
pub struct TaskRow {
    /// Its name.
    pub name: String,
    /// What it asks.
    pub description: String,
    /// How it is scored, and the headline.
    pub score: String,
    /// Examples before each question.
    pub examples: usize,
    /// The fetched data that it needs; none needs `--data`.
    pub data: Option<String>,
}

/// The built-in tasks.
///
/// # Errors
/// One of them cannot be read, which a test excludes.
pub fn built_in_tasks() -> Result<Vec<TaskRow>, Error> {
    let row = |(name, text): &(&str, &str)| {
        let task = Task::parse(text, Notation::Toml, name)?;
        let score = match &task.score {
            Score::Likelihood { headline } => format!("likelihood, {}", headline.name()),
            Score::Generation { scorers, .. } => format!("text, {}", scorers[0].name()),
        };
        Ok(TaskRow {
            name: task.name,
            description: task.description,
            score,
            examples: task.examples.map_or(0, |examples| examples.count),
            data: task.data.map(|data| data.package.unwrap_or_else(|| data.file.display().to_string())),
        })
    };
    built_in::tasks().iter().map(row).collect()
}

/// The file of a built-in task.
pub(crate) fn built_in_task(name: &str) -> Option<&'static str> {
    built_in::tasks().iter().find(|(built_in, _)| *built_in == name).map(|(_, text)| *text)
}

/// Puts every task to every model.
///
/// # Errors
/// A task or its data, a model or an option cannot be used; answers of other settings are in the way; a question does not
/// fit a model.
pub fn eval(spec: &EvalSpec, context: &Context<'_>) -> Result<EvalResult, Error> {
    Ok(eval_with_answers(spec, context)?.0)
}

/// The same, with the answers of every run.
pub(crate) fn eval_with_answers(
    spec: &EvalSpec,
    context: &Context<'_>,
) -> Result<(EvalResult, Vec<Vec<ItemRecord>>), Error> {
    check(spec)?;
    let tasks = spec.tasks.iter().map(|name| Asked::prepare(name, spec, context)).collect::<Result<Vec<_>, _>>()?;
    if let Some(again) =
        (1..tasks.len()).find(|at| tasks[..*at].iter().any(|task| task.task.name == tasks[*at].task.name))
    {
        let problem = format!("two tasks are called {}", tasks[again].task.name);
        return Err(Error::Spec { field: "--task", problem, hint: None });
    }
    let names = names(spec)?;
    if let Some(out) = &spec.out {
        fs::create_dir_all(out).map_err(|source| Error::Write { file: out.clone(), source })?;
    }
    let collected = answers::answers(spec, &names, &tasks, context)?;
    let (mut runs, mut answers) = (Vec::new(), Vec::new());
    for (name, of_tasks) in names.iter().zip(collected) {
        for (task, collected) in tasks.iter().zip(of_tasks) {
            runs.push(task.summary(name, &collected));
            answers.push((name.as_str(), task.task.name.as_str(), collected.items));
        }
    }
    let comparisons = comparisons(&tasks, &answers, spec.models.len());
    let mut result = EvalResult {
        lathe: env!("CARGO_PKG_VERSION").into(),
        runs,
        comparisons,
        spec: spec.clone(),
        files: Vec::new(),
    };
    if let Some(out) = &spec.out {
        result.files = ["results.json", "results.md", "results.html"].map(|name| out.join(name)).to_vec();
        let texts = [serde_json::to_string_pretty(&result)? + "\n", page::markdown(&result), page::html(&result)];
        for (file, text) in result.files.iter().zip(texts) {
            lathe_formats::NewFile::write(file, text.as_bytes())?;
        }
    }
    Ok((result, answers.into_iter().map(|(.., items)| items).collect()))
}

/// Puts every task to a model that is loaded, which the spec need not name; nothing is kept.
///
/// # Errors
/// As [`eval`].
pub(crate) fn eval_loaded(loaded: &Loaded, spec: &EvalSpec, context: &Context<'_>) -> Result<Vec<EvalRun>, Error> {
    let tasks = spec.tasks.iter().map(|name| Asked::prepare(name, spec, context)).collect::<Result<Vec<_>, _>>()?;
    let name = loaded.reference.to_string();
    let collected = answers::answers_of(loaded, &name, spec, &tasks, context)?;
    Ok(tasks.iter().zip(collected).map(|(task, collected)| task.summary(&name, &collected)).collect())
}

/// What does not need the data to be known as wrong.
fn check(spec: &EvalSpec) -> Result<(), Error> {
    let bad = |field, problem: &str, hint: &str| {
        Err(Error::Spec { field, problem: problem.to_owned(), hint: Some(hint.to_owned()) })
    };
    if spec.models.is_empty() && spec.ensembles.is_empty() {
        return bad("MODEL", "no model is named", "lathe eval smollm2 --task piqa");
    }
    if spec.tasks.is_empty() {
        return bad("--task", "no task is named", "`lathe eval --list` shows the built-in ones");
    }
    if spec.data.is_some() && spec.tasks.len() > 1 {
        return bad("--data", "one file cannot be the data of several tasks", "name one task");
    }
    if spec.limit == Some(0) {
        return bad("--limit", "0 questions say nothing", "at least 1");
    }
    if spec.shuffle.is_some() && spec.limit.is_none() {
        return bad("--shuffle", "without a limit all questions are asked", "add --limit");
    }
    if spec.batch == Some(0) {
        return bad("--batch", "0 questions at once never end", "at least 1");
    }
    Ok(())
}

/// A task with its questions.
struct Asked {
    task: Task,
    questions: Questions,
    sha256: String,
    judges: Vec<Judge>,
}

impl Asked {
    fn prepare(name: &str, spec: &EvalSpec, context: &Context<'_>) -> Result<Self, Error> {
        let (task, folder) = find(name)?;
        let delimiter = if spec.turn == Turn::Beginning { Delimiter::OfTask } else { Delimiter::Nothing };
        let extent =
            Extent { data: spec.data.as_deref(), folder: &folder, limit: spec.limit, seed: spec.shuffle, delimiter };
        let questions = questions::questions(&task, &extent, context)?;
        let scorers = match &task.score {
            Score::Generation { scorers, .. } => scorers.as_slice(),
            Score::Likelihood { .. } => &[],
        };
        let bad = |problem| Error::Spec { field: "--task", problem, hint: None };
        let judges = scorers.iter().map(|scorer| scorer.judge().map_err(bad)).collect::<Result<_, _>>()?;
        let sha256 = questions.sha256()?;
        Ok(Self { task, questions, sha256, judges })
    }

    fn summary(&self, model: &str, collected: &Collected) -> EvalRun {
        let Collected { items, resumed, seconds, target } = collected;
        let mean =
            |of: fn(&ItemRecord) -> f64| Number::from(items.iter().map(of).sum::<f64>() / items.len().max(1) as f64);
        EvalRun {
            name: format!("{model} {}", self.task.name),
            model: model.to_owned(),
            task: self.task.name.clone(),
            description: self.task.description.clone(),
            questions: items.len(),
            available: self.questions.available,
            left_out: self.questions.left_out.clone(),
            resumed: *resumed,
            scores: items::scores(&self.task, &self.judges, items),
            chance: self.questions.chance().map_or(Number::Undefined(lathe_measure::Reason::NotGiven), Number::from),
            response_bytes: mean(ItemRecord::response_bytes),
            response_tokens: mean(ItemRecord::response_tokens),
            ensembled_share: items::ensembled(items),
            seconds: *seconds,
            items: target.clone(),
        }
    }
}

/// What models and ensembles are called: models first.
fn names(spec: &EvalSpec) -> Result<Vec<String>, Error> {
    let references: Vec<String> = spec.models.iter().map(ToString::to_string).collect();
    let mut names = report::numbered_names(references.iter().map(String::as_str));
    for ensemble in &spec.ensembles {
        let name = ensemble.to_string();
        if names.contains(&name) {
            let problem = format!("`{name}` is named twice");
            return Err(Error::Spec { field: "ensembles", problem, hint: Some("change its weights or method".into()) });
        }
        names.push(name);
    }
    Ok(names)
}

/// A built-in task or a file, and the folder that its files are named from.
fn find(name: &str) -> Result<(Task, PathBuf), Error> {
    if let Some(text) = built_in_task(name) {
        return Ok((Task::parse(text, Notation::Toml, name)?, PathBuf::new()));
    }
    let file = Path::new(name);
    if file.is_file() {
        return Ok((Task::read(file)?, file.parent().unwrap_or(Path::new("")).to_owned()));
    }
    let hint = "`lathe eval --list` shows the built-in tasks; docs/tasks.md says how to write a task file";
    let problem = format!("`{name}` is neither a built-in task nor a file");
    Err(Error::Spec { field: "--task", problem, hint: Some(hint.into()) })
}

/// Every two models with the same task, and every ensemble with every model: of the first so many answers of a task.
fn comparisons(tasks: &[Asked], answers: &[(&str, &str, Vec<ItemRecord>)], models: usize) -> Vec<Comparison> {
    let mut all = Vec::new();
    for task in tasks {
        let of_task: Vec<_> = answers.iter().filter(|(_, name, _)| *name == task.task.name).collect();
        // A run of ensembles only has them side by side.
        let models = if models == 0 { of_task.len() } else { models };
        for (at, (first, _, a)) in of_task.iter().enumerate().take(models) {
            for (second, _, b) in &of_task[at + 1..] {
                let score = |items: &[ItemRecord]| items.iter().map(|item| item.score).collect::<Vec<f64>>();
                all.push(Comparison {
                    name: format!("{first} against {second}"),
                    task: task.task.name.clone(),
                    score: items::headline(&task.task).to_owned(),
                    first: (*first).to_owned(),
                    second: (*second).to_owned(),
                    paired: lathe_measure::shares::paired(&score(a), &score(b), 0),
                });
            }
        }
    }
    all
}
