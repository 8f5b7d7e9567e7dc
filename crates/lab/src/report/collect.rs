//! Running models for a report.
//!
//! Each model is loaded, measured panel by panel, and dropped before the next one is loaded. What remains of it is its
//! part of the report and, for the comparison, its parameter shapes and its vocabulary.

mod comparison;
mod generations;
mod speed;
mod states;
#[cfg(test)]
mod tests;
mod texts;
mod what;

use std::path::{Path, PathBuf};

use lathe_formats::NewFile;
use lathe_measure::run::Watch;
use lathe_measure::{Estimate, Number};
use lathe_model::catalog::{self, DEFAULT_ALIAS};
use lathe_model::reference::ModelReference;
use serde::{Deserialize, Serialize};

use super::data::*;
use super::{page, short_name, to_json};
use crate::{Context, Error, load, open_model, sample};
use comparison::Remains;

/// What to examine and how much of it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct ReportSpec {
    /// The models, in the order of the report; the built-in default model where none is named.
    pub models: Vec<ModelReference>,
    /// How much of the built-in sample is read for the losses.
    pub extent: Extent,
    /// Seed of control values, bootstrap and random input.
    pub seed: u64,
    /// Tokens of context at most when texts are scored.
    pub text_window: usize,
    /// N: tokens per window of the spectrum and of the attention map, the same for every model.
    pub window: usize,
    /// Windows of the spectrum.
    pub spectrum_windows: usize,
    /// Windows of the attention map.
    pub attention_windows: usize,
    /// Tokens that each sample generation may have.
    pub new_tokens: usize,
}

/// What the surroundings of a run say about themselves: a task reads no clock and asks no system.
pub struct Environment {
    /// When the report is made, in words.
    pub created: String,
    /// Version of lathe.
    pub lathe_version: String,
    /// The machine.
    pub machine: Machine,
    /// Threads that compute.
    pub threads: u64,
}

impl Default for ReportSpec {
    fn default() -> Self {
        Self {
            models: catalog::find(DEFAULT_ALIAS).map(ModelReference::Alias).into_iter().collect(),
            extent: Extent::Default,
            seed: 0,
            text_window: 1024,
            window: 256,
            spectrum_windows: 16,
            attention_windows: 6,
            new_tokens: 48,
        }
    }
}

/// Examines the models of `spec` one after the other. Apart from seconds, speeds and memory, the report depends on
/// `spec` and the models' files alone.
///
/// # Errors
/// A field of the spec cannot be used; a reference leads nowhere; a model cannot be loaded or run. What cannot be
/// measured for a reason of the data is no error but a [`NotMeasured`].
pub fn collect(spec: &ReportSpec, environment: &Environment, context: &Context<'_>) -> Result<Report, Error> {
    check(spec)?;
    // A wrong reference shows before the models in front of it have taken their minutes.
    for reference in &spec.models {
        open_model(reference, context)?;
    }
    let started = (context.seconds)();
    let mut models = Vec::with_capacity(spec.models.len());
    let mut remains = Vec::with_capacity(spec.models.len());
    for reference in &spec.models {
        let bench = Bench { name: short_name(&reference.to_string()), spec, context };
        let (model, remaining) = examine(reference, &bench)?;
        models.push(model);
        remains.push(remaining);
    }
    Ok(Report {
        schema: SCHEMA.to_owned(),
        lathe_version: environment.lathe_version.clone(),
        created: environment.created.clone(),
        settings: Settings {
            sample: sample::NAME.to_owned(),
            extent: spec.extent,
            token_limit: None,
            text_window: spec.text_window as u64,
            interval_block: texts::BLOCK_TOKENS as u64,
            window: spec.window as u64,
            seed: spec.seed,
            threads: environment.threads,
            compute_type: crate::measure::COMPUTE_TYPE.to_owned(),
        },
        machine: environment.machine.clone(),
        models,
        comparison: comparison::compare(&remains),
        seconds: (context.seconds)() - started,
    })
}

/// Writes `index.html` and `report.json` into `folder`, which is made where it does not exist. Each is written in full
/// beside its final name and then renamed.
///
/// # Errors
/// The folder or a file cannot be written; the report cannot be written as JSON.
pub fn write_report(report: &Report, folder: &Path) -> Result<[PathBuf; 2], Error> {
    let contents = [("index.html", page(report)), ("report.json", to_json(report)?)];
    std::fs::create_dir_all(folder).map_err(|source| Error::Write { file: folder.to_owned(), source })?;
    let mut waiting = Vec::with_capacity(contents.len());
    for (name, content) in &contents {
        let mut file = NewFile::create(&folder.join(name))?;
        file.append(content.as_bytes())?;
        waiting.push(file);
    }
    for file in waiting {
        file.finish()?;
    }
    Ok(contents.map(|(name, _)| folder.join(name)))
}

fn check(spec: &ReportSpec) -> Result<(), Error> {
    let wrong = |field, problem: &str| {
        Err(Error::Spec { field, problem: problem.to_owned(), hint: Some("leave it out for the default".to_owned()) })
    };
    if spec.models.is_empty() {
        return wrong("models", "no model is named");
    }
    if spec.text_window < 2 {
        return wrong("text_window", "a window needs at least 2 tokens");
    }
    if spec.window < 2 {
        return wrong("window", "a window needs at least 2 tokens");
    }
    Ok(())
}

/// Fills the panels of one model.
fn examine(reference: &ModelReference, bench: &Bench<'_>) -> Result<(ModelReport, Remains), Error> {
    let peak_before = (bench.context.peak_memory)();
    let loaded = load(reference, bench.context)?;
    let mut panels = Panels::default();

    let what = what::what(&loaded, bench)?;
    let sample = panels.keep_for_each(
        &[Panel::Fertility, Panel::Texts, Panel::Frequency],
        texts::read_sample(&loaded, bench.spec.extent),
    )?;
    let fertility = sample.as_ref().map(|sample| texts::fertility(sample, bench)).transpose()?;
    let losses = sample.as_ref().map(|sample| texts::losses(&loaded, sample, bench)).transpose()?;
    let documents = sample.as_ref().map(|sample| &sample.documents[..]);
    let spectrum = panels.keep(Panel::Spectrum, states::spectrum(&loaded, documents, bench))?;
    let attention = panels.keep(Panel::Attention, states::attention(&loaded, documents, bench))?;
    let generations = panels.keep(Panel::Generations, generations::generations(&loaded, bench))?;
    let speed = panels.keep(Panel::Speed, speed::speed(&loaded, documents, peak_before, bench))?;

    let remains = Remains::of(&loaded);
    let losses = losses.unwrap_or_default();
    let model = ModelReport {
        reference: reference.to_string(),
        what,
        fertility: fertility.unwrap_or_default(),
        texts: losses.texts,
        overall: losses.overall,
        bins: losses.bins,
        spectrum,
        attention,
        speed,
        generations: generations.unwrap_or_default(),
        not_measured: panels.not_measured,
    };
    Ok((model, remains))
}

/// The model at work and what it is measured with.
struct Bench<'a> {
    /// Its name in the progress.
    name: String,
    spec: &'a ReportSpec,
    context: &'a Context<'a>,
}

impl Bench<'_> {
    /// Runs a panel as a stage of the progress that names model and panel.
    fn stage<T>(&self, panel: &str, total: u64, unit: &str, work: impl FnOnce(Watch<'_>) -> T) -> T {
        let advance = |by| self.context.progress.advance(by);
        let watch = Watch { seconds: self.context.seconds, advance: &advance };
        self.context.stage(&format!("{}: {panel}", self.name), total, unit, || work(watch))
    }
}

/// Why a panel has no content.
enum Absent {
    /// The data do not allow it: one sentence without a full stop.
    Data(String),
    /// The model failed.
    Failed(Box<Error>),
}

impl<E: Into<Error>> From<E> for Absent {
    fn from(error: E) -> Self {
        Self::Failed(Box::new(error.into()))
    }
}

/// Panels that stay empty, gathered while the others are filled.
#[derive(Default)]
struct Panels {
    not_measured: Vec<NotMeasured>,
}

impl Panels {
    fn keep<T>(&mut self, panel: Panel, result: Result<T, Absent>) -> Result<Option<T>, Error> {
        self.keep_for_each(&[panel], result)
    }

    fn keep_for_each<T>(&mut self, panels: &[Panel], result: Result<T, Absent>) -> Result<Option<T>, Error> {
        match result {
            Ok(content) => Ok(Some(content)),
            Err(Absent::Failed(error)) => Err(*error),
            Err(Absent::Data(reason)) => {
                self.not_measured
                    .extend(panels.iter().map(|panel| NotMeasured { panel: *panel, reason: reason.clone() }));
                Ok(None)
            }
        }
    }
}

const NO_TOKENIZER: &str = "the model has no tokenizer, so it can read no text";

/// A number of a measurement as the report says it.
fn quantity(number: Number, unit: &str, n: u64) -> Quantity {
    match number {
        Number::Value(value) => Quantity::new(value, unit),
        Number::Undefined(reason) => Quantity::missing(unit, &reason.to_string()),
    }
    .over(n)
}

/// An average of a measurement with its interval.
fn average(estimate: Estimate, unit: &str, n: u64) -> Quantity {
    let quantity = quantity(estimate.value, unit, n);
    match estimate.interval.value() {
        Some(interval) => quantity.within([interval.low, interval.high]),
        None => quantity,
    }
}
