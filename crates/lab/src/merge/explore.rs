//! `lathe merge explore`: many candidates, none of them written, on several measures.

mod axes;
mod page;
mod step;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use lathe_formats::write::safetensors_in_memory;
use lathe_formats::{Checkpoint, Format, NewFile};
use lathe_measure::run::Document;
use lathe_merge::config::MergeConfig;
use lathe_model::reference::{CheckpointKind, ModelReference, Resolved};
use lathe_model::{Opened, open_checkpoint};
use serde::{Deserialize, Serialize};

use super::job::{Inputs, Job};
use super::{MergeSpec, Resume, card, folder, merge};
use crate::documents::{read_texts, tokenise};
use crate::eval::{EvalSpec, eval_loaded};
use crate::load::fingerprint;
use crate::measure::tokens::losses;
use crate::store::Store;
use crate::{Context, Error, Loaded, Texts, load};
use axes::Candidate;
pub use axes::{Axis, Method, Values};
pub(crate) use page::chart as pair_chart;
pub use step::ExploreStep;

/// What to try, and what to measure.
#[derive(Clone, Debug)]
pub struct ExploreSpec {
    /// The configuration in which parameters are varied, and how candidates are stored.
    pub merge: MergeSpec,
    /// Methods to try beside the configuration's own.
    pub methods: Vec<Method>,
    /// What is varied.
    pub axes: Vec<Axis>,
    /// Candidates that are drawn; none for every combination.
    pub draws: Option<usize>,
    /// What is measured: two or more.
    pub measures: Vec<Measure>,
    /// Models that are measured too, with their names.
    pub beside: Vec<(String, ModelReference)>,
    /// How many of the best are written as models.
    pub write: usize,
    /// Seed of the draws.
    pub seed: u64,
    /// The folder.
    pub out: PathBuf,
}

/// A number by which candidates are compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Bits per byte on texts: lower is better.
    Text {
        /// What it is called.
        name: String,
        /// The texts.
        texts: Texts,
        /// Tokens that are read, from the first.
        tokens: usize,
    },
    /// Share of right answers: higher is better.
    Task {
        /// A built-in task or a file.
        task: String,
        /// Questions, from the first.
        limit: usize,
    },
}

/// What came out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExploreResult {
    /// The folder.
    pub out: PathBuf,
    /// What was measured, in the order of the values below.
    pub measures: Vec<MeasureName>,
    /// All candidates and then the models beside them.
    pub tried: Vec<Tried>,
    /// Places in `tried` of the candidates that none beats on all measures, best on the first measure first.
    pub front: Vec<usize>,
    /// Folders of models that were written.
    pub written: Vec<PathBuf>,
    /// Files that were written.
    pub files: Vec<PathBuf>,
    /// Candidates that an interrupted run had measured.
    pub resumed: usize,
}

/// A measure as tables name it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeasureName {
    /// Its name.
    pub name: String,
    /// What its values are.
    pub unit: String,
    /// Whether a lower value is better.
    pub lower_is_better: bool,
}

/// A candidate or a model beside them, with its values.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tried {
    /// What it is called: method and varied parameters, or the model's name.
    pub name: String,
    /// The configuration; none for a model beside the candidates.
    pub config: Option<String>,
    /// A value for each measure.
    pub values: Vec<f64>,
    /// Seconds for merging, loading and measuring.
    pub seconds: f64,
}

/// Measures every candidate.
///
/// # Errors
/// A model, a parameter or a measure cannot be used; results of another run are in the way.
pub fn explore(spec: &ExploreSpec, context: &Context<'_>) -> Result<ExploreResult, Error> {
    let candidates = axes::candidates(spec)?;
    if spec.measures.len() < 2 {
        return Err(Error::Spec {
            field: "--text",
            problem: "one measure does not show what a merge costs".into(),
            hint: Some(
                "give two or more texts or tasks: one that should get better, one that should not get worse".into(),
            ),
        });
    }
    let inputs = Inputs::open(&spec.merge, context)?;
    // What cannot be merged is said before hours of work.
    candidates.iter().try_for_each(|candidate| can_be_run(&inputs.job(&candidate.config, &spec.merge)?))?;
    let measures = Prepared::all(&spec.measures, context)?;
    fs::create_dir_all(&spec.out).map_err(|source| Error::Write { file: spec.out.clone(), source })?;
    let target = spec.out.join("candidates.jsonl");
    let mut store: Store<Tried> = Store::open(Some(&target), || head(spec, &candidates, &inputs, context))?;
    let resumed = store.len();
    for (i, candidate) in candidates.iter().enumerate() {
        if store.get(i as u64).is_some() {
            continue;
        }
        let (values, seconds) = context.timed(|| {
            let job = inputs.job(&candidate.config, &spec.merge)?;
            let in_memory = InMemory::of(&job, &candidate.name, context)?;
            values(&in_memory.loaded, &measures, context)
        });
        let (name, config) = (candidate.name.clone(), Some(candidate.config.to_yaml()));
        store.put(i as u64, Tried { name, config, values: values?, seconds })?;
    }
    for (i, (name, model)) in spec.beside.iter().enumerate() {
        let item = candidates.len() + i;
        if store.get(item as u64).is_none() {
            let (measured, seconds) = context.timed(|| values(&load(model, context)?, &measures, context));
            store.put(item as u64, Tried { name: name.clone(), config: None, values: measured?, seconds })?;
        }
    }
    let count = (candidates.len() + spec.beside.len()) as u64;
    let tried: Vec<Tried> = (0..count).filter_map(|item| store.get(item).cloned()).collect();
    let measures: Vec<MeasureName> = spec.measures.iter().map(Measure::named).collect();
    let front = front(&tried[..candidates.len()], &measures);
    let written = write_best(spec, &candidates, &best(&tried, &front, &measures, spec.write), context)?;
    store.finish(&tried)?;
    let mut result =
        ExploreResult { out: spec.out.clone(), measures, tried, front, written, files: vec![target], resumed };
    let files = [("explore.json", serde_json::to_string_pretty(&result)? + "\n"), ("index.html", page::html(&result))];
    for (name, text) in files {
        let file = spec.out.join(name);
        NewFile::write(&file, text.as_bytes())?;
        result.files.push(file);
    }
    Ok(result)
}

/// Models of an architecture that lathe runs, and a tokenizer: a merge does without, its measures do not.
///
/// # Errors
/// The model's own, with its path.
fn can_be_run(job: &Job<'_>) -> Result<(), Error> {
    for source in job.sources.iter().filter(|source| source.opened.is_none()) {
        lathe_model::open(&source.resolved.path)?;
    }
    match &job.sources[job.tokenizer].opened {
        Some(opened) if job.vocabulary.is_none() && !opened.has_tokenizer() => Ok(opened.tokenizer().map(drop)?),
        _ => Ok(()),
    }
}

impl Measure {
    fn named(&self) -> MeasureName {
        match self {
            Self::Text { name, .. } => {
                MeasureName { name: name.clone(), unit: "bits per byte".into(), lower_is_better: true }
            }
            Self::Task { task, .. } => {
                let name = Path::new(task).file_stem().map_or(task.clone(), |stem| stem.to_string_lossy().into_owned());
                MeasureName { name, unit: "share of right answers".into(), lower_is_better: false }
            }
        }
    }
}

/// What the values of candidates depend on.
#[derive(Serialize)]
struct Head<'a> {
    lathe: &'static str,
    candidates: Vec<String>,
    inputs: Vec<card::Input>,
    beside: Vec<String>,
    measures: &'a [Measure],
}

fn head<'a>(
    spec: &'a ExploreSpec,
    candidates: &[Candidate],
    inputs: &Inputs,
    context: &Context<'_>,
) -> Result<Head<'a>, Error> {
    let sum = |model| fingerprint(model, context);
    Ok(Head {
        lathe: env!("CARGO_PKG_VERSION"),
        candidates: candidates.iter().map(|candidate| candidate.config.to_yaml()).collect(),
        inputs: card::inputs(&inputs.sources, context)?,
        beside: spec.beside.iter().map(|(_, model)| sum(model)).collect::<Result<_, _>>()?,
        measures: &spec.measures,
    })
}

/// A measure whose texts have been read.
enum Prepared {
    Text { documents: Vec<String>, tokens: usize },
    Task(Box<EvalSpec>),
}

impl Prepared {
    fn all(measures: &[Measure], context: &Context<'_>) -> Result<Vec<Self>, Error> {
        let prepare = |measure: &Measure| {
            Ok(match measure {
                Measure::Text { texts, tokens, .. } => {
                    let documents = read_texts(texts, context)?.into_iter().map(|document| document.text).collect();
                    Self::Text { documents, tokens: *tokens }
                }
                Measure::Task { task, limit } => Self::Task(Box::new(EvalSpec {
                    models: Vec::new(),
                    ensembles: Vec::new(),
                    tasks: vec![task.clone()],
                    data: None,
                    limit: Some(*limit),
                    shuffle: None,
                    turn: Default::default(),
                    overlong: Default::default(),
                    compute: Default::default(),
                    batch: None,
                    out: None,
                })),
            })
        };
        measures.iter().map(prepare).collect()
    }
}

/// Tokens of one forward pass over texts.
const WINDOW: usize = 512;

/// All measures of a model.
fn values(loaded: &Loaded, measures: &[Prepared], context: &Context<'_>) -> Result<Vec<f64>, Error> {
    let value = |measure: &Prepared| match measure {
        Prepared::Text { documents, tokens } => {
            let documents = first_tokens(loaded, documents, *tokens)?;
            let window = WINDOW.min(loaded.decoder.spec().context_length);
            let (report, _) = losses(loaded, &documents, window, 0, context)?;
            Ok(report.text.bits_per_byte.value.value().unwrap_or(f64::NAN))
        }
        Prepared::Task(spec) => {
            let runs = eval_loaded(loaded, spec, context)?;
            Ok(runs
                .first()
                .and_then(|run| run.scores.first())
                .and_then(|score| score.estimate.value.value())
                .unwrap_or(f64::NAN))
        }
    };
    measures.iter().map(value).collect()
}

/// Texts in tokens, until there are enough.
fn first_tokens(loaded: &Loaded, texts: &[String], tokens: usize) -> Result<Vec<Document>, Error> {
    let tokenizer = loaded.tokenizer()?;
    let (mut documents, mut held) = (Vec::new(), 0);
    for text in texts {
        if held >= tokens {
            break;
        }
        let document = tokenise(tokenizer, text)?;
        held += document.ids.len();
        documents.push(document);
    }
    Ok(documents)
}

/// A candidate whose weights are in memory only.
struct InMemory {
    loaded: Loaded,
    /// Its configuration and tokenizer.
    _folder: tempfile::TempDir,
}

impl InMemory {
    fn of(job: &Job<'_>, name: &str, context: &Context<'_>) -> Result<Self, Error> {
        let holder = tempfile::tempdir().map_err(|source| Error::Write { file: std::env::temp_dir(), source })?;
        folder::put(holder.path(), &job.files()?)?;
        let opened = open_checkpoint(holder.path(), checkpoint(job, name, context)?)?;
        let loaded = loaded(opened, holder.path(), context)?;
        Ok(Self { loaded, _folder: holder })
    }
}

/// The weights that a merge would write, bit for bit.
fn checkpoint(job: &Job<'_>, name: &str, context: &Context<'_>) -> Result<Checkpoint, Error> {
    let (mut bytes, places) = safetensors_in_memory(Path::new(name), &job.stored)?;
    let merger = job.merger();
    context.stage(&format!("merging {name}"), job.bytes(), "B", || {
        for ((tensor, stored), place) in job.plan.tensors.iter().zip(&job.stored).zip(places) {
            let target = Mutex::new(&mut bytes[place]);
            let put = |offset: usize, piece: &[u8]| {
                let mut target = target.lock().unwrap_or_else(PoisonError::into_inner);
                target[offset..offset + piece.len()].copy_from_slice(piece);
                Ok(())
            };
            merger.tensor(tensor, stored, &put, context)?;
        }
        Ok::<_, Error>(())
    })?;
    Ok(Checkpoint::from_bytes(name, Format::Safetensors, bytes)?)
}

fn loaded(opened: Opened, folder: &Path, context: &Context<'_>) -> Result<Loaded, Error> {
    let decoder = opened.decoder(context.weights)?;
    let tokenizer = if opened.has_tokenizer() { Some(opened.tokenizer()?) } else { None };
    let reference = ModelReference::Path(folder.into());
    let resolved = Resolved {
        reference: reference.clone(),
        alias: None,
        kind: CheckpointKind::Folder,
        path: folder.into(),
        files: Vec::new(),
        licence: None,
        adapter: None,
    };
    Ok(Loaded { reference, resolved, opened, decoder, tokenizer, seconds: 0.0 })
}

/// The candidates that no other one is at least as good as on every measure and better on one.
fn front(tried: &[Tried], measures: &[MeasureName]) -> Vec<usize> {
    let cost = |tried: &Tried, m: usize| if measures[m].lower_is_better { tried.values[m] } else { -tried.values[m] };
    let beats = |a: &Tried, b: &Tried| {
        let all = 0..measures.len();
        all.clone().all(|m| cost(a, m) <= cost(b, m)) && all.into_iter().any(|m| cost(a, m) < cost(b, m))
    };
    let is_sound = |tried: &Tried| tried.values.iter().all(|value| value.is_finite());
    let mut front: Vec<usize> = (0..tried.len())
        .filter(|&i| is_sound(&tried[i]) && !tried.iter().any(|other| is_sound(other) && beats(other, &tried[i])))
        .collect();
    front.sort_by(|&a, &b| cost(&tried[a], 0).total_cmp(&cost(&tried[b], 0)));
    front
}

/// The candidates of the front that are nearest to the best value on every measure, each counted in units of its range
/// over all candidates.
fn best(tried: &[Tried], front: &[usize], measures: &[MeasureName], count: usize) -> Vec<usize> {
    let range = |m: usize| {
        let values = || front.iter().map(|&i| tried[i].values[m]);
        let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
        (if measures[m].lower_is_better { low } else { high }, (high - low).max(f64::MIN_POSITIVE))
    };
    let ranges: Vec<(f64, f64)> = (0..measures.len()).map(range).collect();
    let distance = |i: usize| -> f64 {
        ranges.iter().zip(&tried[i].values).map(|((ideal, range), value)| ((value - ideal) / range).powi(2)).sum()
    };
    let mut best = front.to_vec();
    best.sort_by(|&a, &b| distance(a).total_cmp(&distance(b)).then(a.cmp(&b)));
    best.truncate(count);
    best
}

/// Writes candidates as models.
fn write_best(
    spec: &ExploreSpec,
    candidates: &[Candidate],
    best: &[usize],
    context: &Context<'_>,
) -> Result<Vec<PathBuf>, Error> {
    let mut written = Vec::new();
    for (rank, &i) in best.iter().enumerate() {
        let out = spec.out.join(format!("best-{}", rank + 1));
        if !out.exists() {
            let config: MergeConfig = candidates[i].config.clone();
            merge(&MergeSpec { config, ..spec.merge.clone() }, &out, Resume::Continue, context)?;
        }
        written.push(out);
    }
    Ok(written)
}
