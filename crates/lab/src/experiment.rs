//! `lathe run`: the steps of an experiment file, each cached by what it depends on.
//!
//! The file (TOML) names steps. A step is one task with its spec; `for` repeats it over values, and `{name}` in its name and
//! spec stands for the value. `@name of a step` in a spec is what this step writes: a model, where it makes one, else a file of strings, or of one model's answers to
//! one task. A step's result is kept
//! under the hash of its spec, with those of the steps, models and files that it refers to: what has not changed is not done again, and
//! what was interrupted goes on. At the end figures and `RESULTS.md` are written from the results, beside the experiment file.

mod figure;
pub(crate) mod on_model;
mod page;
mod plan;

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use lathe_model::reference::ModelReference;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::data::{ConflictsSpec, CriticalSpec, InstructionsSpec, conflicts, context_critical, instructions};
use crate::embed_eval::{EmbedEvalSpec, built_in_embed_task, embed_eval};
use crate::ensemble::{EnsembleWriteSpec, write_together};
use crate::eval::{CompareSpec, EvalResult, EvalSpec, built_in_task, compare, eval};
use crate::generate::{GenerateSpec, SelectSpec, generate, select_from};
use crate::load::{fingerprint, sha256_of, sha256_of_bytes};
use crate::measure::{
    ContextSpec, FairnessSpec, SamplesSpec, TokensSpec, measure_context, measure_fairness, measure_samples,
    measure_tokens,
};
use crate::merge::{ExploreStep, explore};
use crate::tune::{self, Resume, TuneSpec};
use crate::{Context, Error, TuneTokenizerSpec, UpcycleSpec, tune_tokenizer, upcycle};
pub(crate) use on_model::on_model;
use plan::{ExperimentFile, Step};

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExperimentSpec {
    /// The experiment file.
    pub file: PathBuf,
}

/// What was run.
#[derive(Clone, Debug, Serialize)]
pub struct ExperimentResult {
    /// The steps, in order.
    pub steps: Vec<StepOutcome>,
    /// The page that was written.
    pub page: PathBuf,
    /// The figures that were written.
    pub figures: Vec<PathBuf>,
}

/// What came of a step.
#[derive(Clone, Debug, Serialize)]
pub struct StepOutcome {
    /// Its name.
    pub name: String,
    /// Whether an earlier run had done it.
    pub cached: bool,
    /// Seconds that it took when it was done.
    pub seconds: f64,
    /// Why there is no result, where there is none.
    pub failed: Option<String>,
}

/// A task with its spec, as the file writes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Work {
    Generate(Box<GenerateSpec>),
    Select(SelectSpec),
    MeasureSamples(SamplesSpec),
    MeasureTokens(TokensSpec),
    MeasureContext(Box<ContextSpec>),
    DataConflicts(ConflictsSpec),
    DataInstructions(InstructionsSpec),
    DataContextCritical(Box<CriticalSpec>),
    Ensemble(Box<EnsembleWriteSpec>),
    Eval(Box<EvalSpec>),
    EvalCompare(CompareSpec),
    EmbedEval(Box<EmbedEvalSpec>),
    Tune(Box<TuneSpec>),
    Upcycle(Box<UpcycleSpec>),
    MergeExplore(Box<ExploreStep>),
    TuneTokenizer(Box<TuneTokenizerSpec>),
    Fairness(Box<FairnessSpec>),
}

/// What is kept of a step.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Kept {
    name: String,
    /// The spec as it was hashed.
    spec: Value,
    seconds: f64,
    /// The task's result; none where the step could not be done.
    result: Option<Value>,
    failed: Option<String>,
}

/// Runs what has not been run.
///
/// # Errors
/// The file is malformed, a spec cannot be used, a task fails.
pub fn run(spec: &ExperimentSpec, context: &Context<'_>) -> Result<ExperimentResult, Error> {
    let file = ExperimentFile::read(&spec.file)?;
    let steps = plan::steps(&file, &spec.file, &mut contents(context))?;
    // Whatever a step lacks is said before the first one begins.
    let works = steps.iter().map(|step| work_of(step, &spec.file)).collect::<Result<Vec<_>, _>>()?;
    let folder = spec.file.parent().unwrap_or(Path::new("")).to_owned();
    let stem = spec.file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let cache = folder.join("out");
    let make =
        |folder: &Path| fs::create_dir_all(folder).map_err(|source| Error::Write { file: folder.into(), source });
    make(&cache)?;
    let mut outcomes = Vec::with_capacity(steps.len());
    let mut results: BTreeMap<String, Kept> = BTreeMap::new();
    for (step, work) in steps.iter().zip(works) {
        let path = cache.join(format!("{}.json", step.hash));
        // A model may have been removed to save space.
        let is_whole = |kept: &Kept| kept.result.is_none() || !step.makes_a_model() || step.output(&cache).is_dir();
        let earlier = read_kept(&path)?.filter(is_whole);
        let cached = earlier.is_some();
        let kept = match earlier {
            Some(kept) => kept,
            None => {
                let kept = perform(step, work, &cache, &results, context)?;
                write(&path, &serde_json::to_vec_pretty(&kept)?)?;
                kept
            }
        };
        outcomes.push(StepOutcome {
            name: step.name.clone(),
            cached,
            seconds: kept.seconds,
            failed: kept.failed.clone(),
        });
        results.insert(step.name.clone(), kept);
    }
    let drawings = folder.join(format!("{stem}-figures"));
    let mut figures = Vec::new();
    for of in &file.figure {
        make(&drawings)?;
        let path = drawings.join(format!("{}.svg", of.name));
        write(&path, figure::draw(of, &results)?.as_bytes())?;
        figures.push(path);
    }
    let page = folder.join(if stem == "small" { "RESULTS.md".into() } else { format!("RESULTS-{stem}.md") });
    let text = page::page(&file, &stem, &steps, &results);
    write(&page, text.as_bytes())?;
    Ok(ExperimentResult { steps: outcomes, page, figures })
}

/// Hashes of the models and files that specs name, each made once.
fn contents<'a>(context: &'a Context<'_>) -> impl FnMut(&str, &str) -> Result<Option<String>, Error> + 'a {
    let mut known: BTreeMap<(bool, String), Option<String>> = BTreeMap::new();
    move |key, text| {
        let is_model = ["model", "models", "members", "base", "beside"].contains(&key);
        if let Some(hash) = known.get(&(is_model, text.to_owned())) {
            return Ok(hash.clone());
        }
        let hash = if is_model {
            Some(fingerprint(&text.parse::<ModelReference>()?, context)?)
        } else if let Some(task) = built_in_task(text).or_else(|| built_in_embed_task(text)).filter(|_| key == "tasks")
        {
            Some(sha256_of_bytes(task.as_bytes()))
        } else if key == "tokenizer" && Path::new(text).join("tokenizer.json").is_file() {
            Some(sha256_of(&Path::new(text).join("tokenizer.json"), &|_| {})?)
        } else if Path::new(text).is_file() {
            Some(sha256_of(Path::new(text), &|_| {})?)
        } else {
            None
        };
        known.insert((is_model, text.to_owned()), hash.clone());
        Ok(hash)
    }
}

fn work_of(step: &Step, file: &Path) -> Result<Work, Error> {
    serde_json::from_value(step.work.clone()).map_err(|error| Error::Spec {
        field: "step",
        problem: format!("`{}` of {}: {error}", step.name, file.display()),
        hint: Some("a step has one of generate, select, measure_samples, measure_tokens, measure_context, data_conflicts, data_instructions, data_context_critical, ensemble, eval, eval_compare, embed_eval, tune, upcycle, merge_explore, tune_tokenizer, fairness, with the fields of that task's spec".into()),
    })
}

/// Does a step. One that random draws did not favour is kept as failed; what refers to it fails too.
fn perform(
    step: &Step,
    work: Work,
    cache: &Path,
    results: &BTreeMap<String, Kept>,
    context: &Context<'_>,
) -> Result<Kept, Error> {
    let kept = |result: Option<Value>, failed: Option<String>, seconds: f64| Kept {
        name: step.name.clone(),
        spec: step.hashed.clone(),
        seconds,
        result,
        failed,
    };
    if let Some(missing) = step.needs.iter().find(|name| results.get(*name).is_none_or(|kept| kept.result.is_none())) {
        return Ok(kept(None, Some(format!("`{missing}` has no result")), 0.0));
    }
    let output = step.output(cache);
    // An output without its result is of a run that was killed between the two; an exploration goes on by itself, and so
    // does a training that has a checkpoint.
    let goes_on = matches!(work, Work::Tune(_)) && tune::can_go_on(&output);
    let removed = match (goes_on, output.is_dir()) {
        (true, _) => Ok(()),
        (false, true) => fs::remove_dir_all(&output),
        (false, false) => fs::remove_file(&output),
    };
    match removed {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::Write { file: output, source });
        }
        _ => {}
    }
    let (result, seconds) = context.timed(|| done(work, &output, &cache.join(&step.hash), context));
    match result {
        Ok(result) => Ok(kept(Some(result), None, seconds)),
        Err(Error::Decode(error @ lathe_decode::DecodeError::TooFewAccepted { .. })) => {
            Ok(kept(None, Some(error.to_string()), seconds))
        }
        Err(error) => Err(error),
    }
}

/// Does a task. What it writes is `output`; `folder` is for what tasks keep beside it.
fn done(work: Work, output: &Path, folder: &Path, context: &Context<'_>) -> Result<Value, Error> {
    let output = output.to_owned();
    match work {
        Work::Generate(spec) => {
            let spec = GenerateSpec { out: Some(output), ..*spec };
            to_json(generate(&spec, context, &mut |_| ControlFlow::Continue(()))?)
        }
        Work::Select(spec) => to_json(select_from(&SelectSpec { out: Some(output), ..spec })?),
        Work::MeasureSamples(spec) => to_json(measure_samples(&spec, context)?),
        Work::MeasureTokens(spec) => to_json(measure_tokens(&spec, context)?),
        Work::MeasureContext(spec) => to_json(measure_context(&ContextSpec { out: Some(output), ..*spec }, context)?),
        Work::DataConflicts(spec) => to_json(conflicts(&ConflictsSpec { out: output, ..spec })?),
        Work::DataInstructions(spec) => to_json(instructions(&InstructionsSpec { out: output, ..spec })?),
        Work::DataContextCritical(spec) => to_json(context_critical(&CriticalSpec { out: output, ..*spec }, context)?),
        Work::Tune(spec) => {
            let resume = if tune::can_go_on(&output) { Resume::Yes } else { Resume::No };
            to_json(tune::tune(&TuneSpec { out: output, resume, ..*spec }, context, &mut |_| {})?)
        }
        Work::Upcycle(spec) => to_json(upcycle(&UpcycleSpec { out: output, ..*spec }, context)?),
        Work::TuneTokenizer(spec) => to_json(tune_tokenizer(&TuneTokenizerSpec { out: output, ..*spec }, context)?),
        Work::Fairness(spec) => {
            let page = Some(output.with_extension("html"));
            to_json(measure_fairness(&FairnessSpec { out: Some(output), page, ..*spec }, context)?)
        }
        Work::MergeExplore(step) => to_json(explore(&step.spec(output.with_extension("merges"))?, context)?),
        Work::Ensemble(spec) => {
            let spec = EnsembleWriteSpec { out: Some(output), page: None, ..*spec };
            to_json(write_together(&spec, context, &mut |_| ControlFlow::Continue(()))?)
        }
        Work::Eval(spec) => {
            let spec = EvalSpec { out: Some(folder.to_owned()), ..*spec };
            let result = eval(&spec, context)?;
            keep_answers(&result, &output)?;
            to_json(result)
        }
        Work::EmbedEval(spec) => {
            to_json(embed_eval(&EmbedEvalSpec { out: Some(folder.to_owned()), ..*spec }, context)?)
        }
        Work::EvalCompare(spec) => to_json(compare(&spec)?),
    }
}

/// The answers of a step with one model and one task are the file that other steps refer to.
fn keep_answers(result: &EvalResult, strings: &Path) -> Result<(), Error> {
    let [only] = &result.runs[..] else { return Ok(()) };
    let Some(items) = &only.items else { return Ok(()) };
    let read = fs::read(items).map_err(|source| Error::Read { file: items.clone(), source })?;
    write(strings, &read)
}

fn to_json(result: impl Serialize) -> Result<Value, Error> {
    Ok(serde_json::to_value(result)?)
}

/// A result that is there and readable; one that is not readable is done again.
fn read_kept(path: &Path) -> Result<Option<Kept>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read { file: path.into(), source }),
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    Ok(lathe_formats::NewFile::write(path, bytes)?)
}

/// The number at a path of a result: a plain one, or the value of a measured one with its interval.
pub(crate) fn number_at(result: &Value, path: &str) -> Option<(f64, Option<[f64; 2]>)> {
    let found = lookup(result, path)?;
    if let Some(number) = found.as_f64() {
        return Some((number, None));
    }
    // A number over seeds: its mean, from the smallest to the largest.
    if let Some(mean) = found.get("mean") {
        let end = |key: &str| found.get(key)?.get("value")?.as_f64();
        return Some((mean.get("value")?.as_f64()?, end("least").zip(end("most")).map(|(least, most)| [least, most])));
    }
    let inner = found.get("value")?;
    let value = inner.as_f64().or_else(|| inner.get("value")?.as_f64())?;
    let interval = found
        .get("interval")
        .and_then(|interval| interval.get("value"))
        .and_then(|interval| Some([interval.get("low")?.as_f64()?, interval.get("high")?.as_f64()?]));
    Some((value, interval))
}

/// A value by a path such as `sets/0/means/length`: keys, indices, or the `name` of a list's entry, or its `model` where
/// none has the name.
fn lookup<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('/').try_fold(value, |value, part| match value {
        Value::Array(list) => match part.parse::<usize>() {
            Ok(index) => list.get(index),
            Err(_) => {
                let by = |key: &str| list.iter().find(|entry| entry.get(key).and_then(Value::as_str) == Some(part));
                by("name").or_else(|| by("model"))
            }
        },
        other => other.get(part),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_path() {
        let result = serde_json::json!({
            "sets": [{"means": [{"name": "length", "value": {"value": 3.5}, "interval": {"value": {"low": 3, "high": 4}}}]}],
            "spread": {"n": 2, "mean": {"value": 2.5}, "sd": {"value": 0.7}, "least": {"value": 2}, "most": {"value": 3}},
            "ln": {"value": null, "reason": "empty"}, "plain": 2,
            "runs": [{"name": "a piqa", "model": "a", "questions": 7}]
        });
        assert_eq!(number_at(&result, "runs/a/questions"), Some((7.0, None)));
        assert_eq!(number_at(&result, "runs/b/questions"), None);
        assert_eq!(number_at(&result, "sets/0/means/length"), Some((3.5, Some([3.0, 4.0]))));
        assert_eq!(number_at(&result, "plain"), Some((2.0, None)));
        assert_eq!(number_at(&result, "spread"), Some((2.5, Some([2.0, 3.0]))));
        assert_eq!(number_at(&result, "ln"), None);
        assert_eq!(number_at(&result, "sets/1/means/length"), None);
    }
}
