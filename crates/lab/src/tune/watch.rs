//! What is watched while a model is trained: losses of held-out data, and any measurement or task.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use lathe_formats::ElementType;
use lathe_measure::run::batches;
use lathe_model::{Decoder, NoTap};
use lathe_tune::loss::predicted;
use lathe_tune::{Example, Loss, NextToken};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::data::Reader;
use super::metrics::Watched;
use super::spec::{TuneSpec, refuse};
use super::start::Start;
use crate::experiment::{number_at, on_model};
use crate::{Context, Error};

/// Something that is looked at again and again.
pub(super) struct Subject {
    pub(super) name: String,
    what: What,
}

enum What {
    /// The mean loss of examples that are not trained on, and how often the most likely token is right.
    HeldOut(Vec<Example>),
    /// Steps as an experiment file has them, on a copy of the model.
    Steps(Vec<WatchedStep>),
}

/// A file of steps.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StepsFile {
    step: Vec<WatchedStep>,
}

/// A step: a task without its model.
#[derive(Clone, Deserialize)]
struct WatchedStep {
    name: String,
    /// Numbers of its result, by paths as the tables of an experiment have them; none are the usual ones.
    #[serde(default)]
    watch: BTreeMap<String, String>,
    #[serde(flatten)]
    work: Map<String, Value>,
}

/// Reads what is to be watched.
pub(super) fn subjects(spec: &TuneSpec, reader: &Reader<'_>) -> Result<Vec<Subject>, Error> {
    let mut subjects: Vec<Subject> = Vec::new();
    for file in &spec.eval {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let is_taken = subjects.iter().any(|subject| subject.name == stem);
        let name = if is_taken { file.display().to_string() } else { stem };
        let what = if file.extension().is_some_and(|extension| extension == "toml") {
            What::Steps(steps(file)?)
        } else {
            let (examples, _) = reader.records(std::slice::from_ref(file))?;
            if examples.is_empty() {
                return Err(refuse("--eval", format!("{}: nothing in it is to be predicted", file.display()), None));
            }
            What::HeldOut(examples)
        };
        subjects.push(Subject { name, what });
    }
    Ok(subjects)
}

fn steps(file: &Path) -> Result<Vec<WatchedStep>, Error> {
    let text = fs::read_to_string(file).map_err(|source| Error::Read { file: file.into(), source })?;
    let bad = |problem: String| refuse("--eval", format!("{}: {problem}", file.display()), None);
    let read: StepsFile = toml::from_str(&text).map_err(|error| bad(error.to_string().trim_end().to_owned()))?;
    for step in &read.step {
        // A spec that cannot be used is said before the first step of the training.
        on_model::check(&step.work, Path::new("model"))
            .map_err(|problem| bad(format!("`{}`: {problem}", step.name)))?;
    }
    Ok(read.step)
}

impl Subject {
    /// Whether its loss says which step is the best.
    pub(super) fn has_loss(&self) -> bool {
        matches!(self.what, What::HeldOut(_))
    }
}

/// Looks at everything. Results of tasks are appended to `evaluations.jsonl`.
pub(super) fn look(
    subjects: &[Subject],
    step: usize,
    decoder: &Decoder,
    (start, spec): (&Start, &TuneSpec),
    context: &Context<'_>,
) -> Result<Watched, Error> {
    let mut watched = Watched::new();
    let mut model: Option<Copy> = None;
    for subject in subjects {
        let numbers = match &subject.what {
            What::HeldOut(examples) => held_out(decoder, examples)?,
            What::Steps(steps) => {
                let model = match &mut model {
                    Some(model) => model,
                    none => none.insert(Copy::write(decoder, (start, spec), context)?),
                };
                let mut numbers = BTreeMap::new();
                for of in steps {
                    let result = on_model(&of.work, &model.model, &model.folder, context)?;
                    numbers.extend(chosen(of, &result));
                    keep(&spec.out.join("evaluations.jsonl"), step, &of.name, result)?;
                }
                numbers
            }
        };
        watched.insert(subject.name.clone(), numbers);
    }
    Ok(watched)
}

/// A copy of the model for tasks, which read models from folders; it is removed when it was looked at.
struct Copy {
    folder: PathBuf,
    model: PathBuf,
}

impl Copy {
    fn write(decoder: &Decoder, (start, spec): (&Start, &TuneSpec), context: &Context<'_>) -> Result<Self, Error> {
        let folder = spec.out.join(".lathe-watched.partial");
        let failed = |source| Error::Write { file: folder.clone(), source };
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(failed)?;
        }
        fs::create_dir(&folder).map_err(failed)?;
        let copy = Self { model: folder.join("model"), folder };
        start.write(&copy.model, ElementType::F32, decoder, &spec.method, context)?;
        Ok(copy)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // What stays is removed when the run goes on or another look is taken.
        _ = fs::remove_dir_all(&self.folder);
    }
}

fn held_out(decoder: &Decoder, examples: &[Example]) -> Result<BTreeMap<String, f64>, Error> {
    let (mut sum, mut hits, mut count) = (0.0, 0u64, 0u64);
    let examples: Vec<&Example> = examples.iter().collect();
    for items in batches(&examples, |example| example.ids.len()) {
        let hidden = decoder.forward(&NextToken.batch(items), None, &mut NoTap)?.detach();
        let (rows, targets) = predicted(items);
        let hidden = hidden.index_select(&Tensor::new(&rows[..], hidden.device())?, 0)?;
        for (score, target) in decoder.score(&hidden, &targets)?.iter().zip(&targets) {
            sum += score.nll;
            hits += u64::from(score.argmax == *target);
            count += 1;
        }
    }
    let share = |sum: f64| sum / count as f64;
    Ok(BTreeMap::from([("loss".into(), share(sum)), ("accuracy".into(), share(hits as f64))]))
}

/// Numbers of a result: those that the file asks for, or the usual ones of the task.
fn chosen(step: &WatchedStep, result: &Value) -> BTreeMap<String, f64> {
    let name = |of: &str| if of.is_empty() { step.name.clone() } else { format!("{} {of}", step.name) };
    let at = |path: &str| number_at(result, path).map(|(value, _)| value);
    if !step.watch.is_empty() {
        return step.watch.iter().filter_map(|(of, path)| Some((name(of), at(path)?))).collect();
    }
    let mut numbers = BTreeMap::new();
    if let Some(loss) = at("report/text/nll") {
        numbers.insert(name("loss"), loss);
    }
    for (index, run) in result.get("runs").and_then(Value::as_array).into_iter().flatten().enumerate() {
        let task = run.get("task").and_then(Value::as_str).unwrap_or_default();
        if let Some(score) = at(&format!("runs/{index}/scores/0")) {
            numbers.insert(name(task), score);
        }
    }
    numbers
}

fn keep(file: &Path, step: usize, name: &str, result: Value) -> Result<(), Error> {
    let mut line = serde_json::to_vec(&serde_json::json!({"step": step, "name": name, "result": result}))?;
    line.push(b'\n');
    let written = fs::File::options().create(true).append(true).open(file).and_then(|mut file| file.write_all(&line));
    written.map_err(|source| Error::Write { file: file.into(), source })
}
