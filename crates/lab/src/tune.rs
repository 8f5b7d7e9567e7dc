//! `lathe tune`: a model trained further, or from random weights; all of its parameters, some of them, or an adapter.
//!
//! Records or windows of texts become examples, which are audited before the first step; `lathe-tune` has the mathematics
//! of a step. Everything that a run leaves is in one folder: `audit.json`, `metrics.jsonl` with a line for each step,
//! `report.html`, `checkpoints/`, and at the end the files of the model or adapter. What is read when follows from the
//! seed, and no sum depends on threads, so that the same spec gives the same bits; so does a run that goes on from a
//! checkpoint.

mod chat;
mod checkpoint;
mod data;
mod metrics;
mod page;
mod records;
mod spec;
mod start;
mod trained;
mod watch;

#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};

use lathe_formats::{ElementType, NewFile};
use lathe_model::Decoder;
use lathe_tune::{Example, NextToken, Order, Rate, SourceRead, TrainError, Trainer, TrainerSettings};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::context::Silent;
use crate::export::{ExportFormat, check_target, element_named};
use crate::figure::number;
use crate::{Compute, Context, Error, WrittenFile};
pub use checkpoint::Best;
use checkpoint::{Checkpoints, State};
pub use data::TuneAudit;
use data::{Data, Reader};
use metrics::Metrics;
pub use metrics::{StepLine, Watched};
pub use page::audit_rows;
use page::{PageOf, Stage, page};
pub use records::BadRecord;
use spec::refuse;
pub use spec::{BadRecords, Clip, FromScratch, LossOn, Method, Packing, Recomputed, Resume, TuneSource, TuneSpec};
use start::Start;
use watch::{Subject, look, subjects};

/// A model that was trained.
#[derive(Clone, Debug, Serialize)]
pub struct TuneResult {
    /// What it began with.
    pub model: String,
    /// The folder that was written.
    pub out: PathBuf,
    /// Every file of the model in it, by name.
    pub files: Vec<WrittenFile>,
    /// The data before the first step.
    pub audit: TuneAudit,
    /// Numbers that are trained.
    pub trained_parameters: u64,
    /// Arithmetic of the products.
    pub compute: Compute,
    /// The step that an earlier run had come to.
    pub resumed_at: Option<usize>,
    /// Mean loss of each step's targets before the step, nats per token.
    pub losses: Vec<f64>,
    /// Length of the gradient of all parameters in each step, before it was clipped.
    pub gradient_norms: Vec<f64>,
    /// Tokens predicted in all steps.
    pub tokens: u64,
    /// What was read of each source.
    pub sources: Vec<SourceRead>,
    /// What was seen of what is watched.
    pub looks: Vec<Look>,
    /// The best step by the first held-out file that is watched.
    pub best: Option<Best>,
    /// Checkpoints that are there.
    pub checkpoints: Vec<PathBuf>,
    /// Models that were written after some steps.
    pub saved: Vec<PathBuf>,
    /// Seconds of all steps.
    pub seconds: f64,
    /// Predicted tokens per second.
    pub tokens_per_second: f64,
}

/// What was seen after a step.
#[derive(Clone, Debug, Serialize)]
pub struct Look {
    /// The step; 0 is before the first one.
    pub step: usize,
    /// Numbers by what they are of, and by name.
    pub watched: Watched,
}

const MANIFEST: &str = "tune.json";
const AUDIT: &str = "audit.json";
const METRICS: &str = "metrics.jsonl";
const REPORT: &str = "report.html";

/// What `tune.json` says: what a run is made of.
#[derive(Serialize, Deserialize)]
struct Manifest {
    lathe: String,
    spec: TuneSpec,
    settings: Map<String, Value>,
}

/// Trains a model; `hear` gets the audit of the data before the first step.
///
/// # Errors
/// A setting makes no sense; the model or a record cannot be read; a loss or a gradient is not finite; a parameter gets no
/// gradient; the folder cannot be written; a run that goes on was begun with other settings.
pub fn tune(spec: &TuneSpec, context: &Context<'_>, hear: &mut dyn FnMut(&TuneAudit)) -> Result<TuneResult, Error> {
    spec.check()?;
    let weights = spec.compute.for_training(context)?;
    let element = match &spec.dtype {
        Some(word) => element_named(word, ExportFormat::Safetensors)?,
        None => ElementType::F32,
    };
    let earlier = check_out(spec)?;
    let start = Start::open(spec, context)?;
    let reader = Reader::new(spec, &start)?;
    let data = reader.data(context)?;
    let subjects = subjects(spec, &reader)?;
    drop(reader);
    let steps = steps(spec, &data.order)?;
    if let Some(step) = spec.save_at.iter().find(|step| **step > steps) {
        return Err(refuse("--save-at", format!("there is no step {step} of {steps}"), None));
    }
    let settings = settings(spec, steps, &start, &data, context)?;
    if let Some(earlier) = &earlier {
        checkpoint::compare(&earlier.settings, &settings)?;
    }
    let checkpoints = Checkpoints::of(&spec.out);
    let last = if earlier.is_some() { checkpoints.last()? } else { None };
    if let Some((_, state)) = &last {
        checkpoint::compare(&state.settings, &settings)?;
        if state.step > steps {
            return Err(refuse("--steps", format!("{} steps were done already", state.step), None));
        }
    }
    let what = format!("loading {}", spec.model_name());
    let folder = last.as_ref().map(|(folder, _)| folder.as_path());
    let done = last.as_ref().map(|(_, state)| state.step);
    let decoder = context.stage(&what, 0, "", || start.decoder(spec, weights, folder))?;
    hear(&data.audit);
    begin(spec, &settings, &data.audit)?;
    checkpoints.tidy(&spec.out);
    let mut run = Run::new(spec, (steps, done), settings, &decoder, (&start, &subjects), data, checkpoints, context)?;
    if let Some((folder, state)) = last {
        run.go_on(&folder, state)?;
    }
    let outcome = run.all_steps();
    run.show(match &outcome {
        Ok(()) => Stage::Finished,
        Err(error) => Stage::Stopped(error.to_string()),
    });
    outcome?;
    let files = run.write_result(element)?;
    Ok(run.result(files))
}

/// The audit of a run's data, and nothing else.
///
/// # Errors
/// As [`tune`], before its first step.
pub fn tune_audit(spec: &TuneSpec, context: &Context<'_>) -> Result<TuneAudit, Error> {
    spec.check()?;
    let writes = !spec.out.as_os_str().is_empty();
    if writes {
        check_out(spec)?;
    }
    let start = Start::open(spec, context)?;
    let reader = Reader::new(spec, &start)?;
    let audit = reader.data(context)?.audit;
    if writes {
        make(&spec.out)?;
        NewFile::write(&spec.out.join(AUDIT), &serde_json::to_vec_pretty(&audit)?)?;
    }
    Ok(audit)
}

/// Whether a folder is that of a run that has a checkpoint.
pub(crate) fn can_go_on(out: &Path) -> bool {
    out.join(MANIFEST).is_file() && Checkpoints::of(out).last().is_ok_and(|last| last.is_some())
}

fn make(folder: &Path) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(|source| Error::Write { file: folder.into(), source })
}

/// Whether the folder can come into being; of a run that goes on, what it is made of.
fn check_out(spec: &TuneSpec) -> Result<Option<Manifest>, Error> {
    let out = &spec.out;
    if spec.resume == Resume::Yes {
        let file = out.join(MANIFEST);
        let Ok(bytes) = fs::read(&file) else {
            let problem = format!("{} holds no run that could go on", out.display());
            return Err(refuse("--resume", problem, Some("leave out --resume to begin one")));
        };
        let bad = |error: serde_json::Error| Error::BadJson { file, problem: error.to_string() };
        return serde_json::from_slice(&bytes).map(Some).map_err(bad);
    }
    // An audit may have been written there before.
    let only_audit = fs::read_dir(out).is_ok_and(|entries| {
        let names: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.file_name()).collect();
        names == [AUDIT]
    });
    if only_audit {
        return Ok(None);
    }
    check_target(out).map(|()| None)
}

fn begin(spec: &TuneSpec, settings: &Map<String, Value>, audit: &TuneAudit) -> Result<(), Error> {
    make(&spec.out)?;
    NewFile::write(&spec.out.join(AUDIT), &serde_json::to_vec_pretty(audit)?)?;
    let manifest = Manifest { lathe: env!("CARGO_PKG_VERSION").into(), spec: spec.clone(), settings: settings.clone() };
    Ok(NewFile::write(&spec.out.join(MANIFEST), &serde_json::to_vec_pretty(&manifest)?)?)
}

/// Steps of the run.
fn steps(spec: &TuneSpec, order: &Order) -> Result<usize, Error> {
    let of_epochs = match order {
        Order::Epochs(epochs) => epochs.steps(),
        Order::Shares(_) => None,
    };
    spec.steps.or(of_epochs).ok_or_else(|| refuse("steps", "is missing", None))
}

/// Everything that the bits of a run depend on, by name.
fn settings(
    spec: &TuneSpec,
    steps: usize,
    start: &Start,
    data: &Data,
    context: &Context<'_>,
) -> Result<Map<String, Value>, Error> {
    /// What only says where and how often something is written, or is part of a hash.
    const OTHERS: [&str; 18] = [
        "model",
        "from_scratch",
        "package",
        "data",
        "sources",
        "loss_on",
        "max_length",
        "overlong",
        "bad_records",
        "parse_markup",
        "epochs",
        "recompute",
        "dtype",
        "eval",
        "eval_every",
        "checkpoint_every",
        "keep",
        "save_at",
    ];
    let Value::Object(mut all) = serde_json::to_value(spec)? else { return Ok(Map::new()) };
    for key in OTHERS.iter().chain(&["resume", "out"]) {
        all.remove(*key);
    }
    all.insert("steps".into(), steps.into());
    all.insert("model".into(), start.fingerprint(context)?.into());
    all.insert("data".into(), data.sha256.clone().into());
    Ok(all)
}

/// A run: everything that changes from step to step.
struct Run<'a> {
    spec: &'a TuneSpec,
    steps: usize,
    settings: Map<String, Value>,
    decoder: &'a Decoder,
    start: &'a Start,
    subjects: &'a [Subject],
    examples: Vec<Example>,
    audit: TuneAudit,
    order: Order,
    trainer: Trainer<NextToken>,
    metrics: Metrics,
    checkpoints: Checkpoints,
    last_checkpoint: Option<PathBuf>,
    best: Option<Best>,
    resumed_at: Option<usize>,
    /// When the page was written.
    shown: f64,
    context: &'a Context<'a>,
}

impl<'a> Run<'a> {
    #[expect(clippy::too_many_arguments, reason = "the parts of a run, each made before it")]
    fn new(
        spec: &'a TuneSpec,
        (steps, done): (usize, Option<usize>),
        settings: Map<String, Value>,
        decoder: &'a Decoder,
        (start, subjects): (&'a Start, &'a [Subject]),
        data: Data,
        checkpoints: Checkpoints,
        context: &'a Context<'a>,
    ) -> Result<Self, Error> {
        let rate = Rate { value: spec.learning_rate, warm_up: spec.warm_up, schedule: spec.schedule, steps };
        let of_trainer =
            TrainerSettings { adamw: spec.adamw(), rate, clip: spec.clip.limit(), recompute: spec.recompute.into() };
        let trainer = Trainer::new(decoder.trainable(), NextToken, of_trainer);
        let metrics = Metrics::open(&spec.out.join(METRICS), done)?;
        Ok(Self {
            spec,
            steps,
            settings,
            decoder,
            start,
            subjects,
            examples: data.examples,
            audit: data.audit,
            order: data.order,
            trainer,
            metrics,
            checkpoints,
            last_checkpoint: None,
            best: None,
            resumed_at: None,
            shown: f64::NEG_INFINITY,
            context,
        })
    }

    /// Takes up what a checkpoint has kept.
    fn go_on(&mut self, folder: &Path, state: State) -> Result<(), Error> {
        let mut restored = Ok(());
        let decoder = self.decoder;
        self.trainer.go_on(state.step, |adamw| restored = checkpoint::restore(folder, &state, adamw, decoder));
        restored?;
        (0..state.step).for_each(|_| _ = self.order.step());
        if self.order.cursor() != state.cursor {
            return Err(refuse("--resume", "the data are read in another order than before", None));
        }
        self.last_checkpoint = Some(folder.to_owned());
        self.best = state.best;
        self.resumed_at = Some(state.step);
        Ok(())
    }

    fn all_steps(&mut self) -> Result<(), Error> {
        let what = format!("training {}", self.spec.model_name());
        let progress = self.context.progress;
        progress.start(&what, self.steps as u64, "steps");
        progress.advance(self.trainer.steps() as u64);
        let done = self.remaining_steps();
        progress.finish();
        done
    }

    fn remaining_steps(&mut self) -> Result<(), Error> {
        // A step that cannot be completed says where the run can go on.
        let stopped = |run: &Self, step, source| Error::Stopped {
            step,
            checkpoint: run.last_checkpoint.clone(),
            source: Box::new(source),
        };
        if self.resumed_at.is_none() {
            self.check_gradients()?;
        }
        if self.resumed_at.is_none() && !self.subjects.is_empty() {
            let watched = self.look(0)?;
            self.metrics.append(StepLine { watched, ..StepLine::default() })?;
        }
        if self.resumed_at.is_none() && self.spec.save_at.contains(&0) {
            self.save(0)?;
        }
        while self.trainer.steps() < self.steps {
            let step = self.trainer.steps() + 1;
            let line = self.one_step(step)?;
            self.after_step(step, line).map_err(|source| stopped(self, step, source))?;
            self.context.progress.advance(1);
        }
        Ok(())
    }

    /// Whether a gradient reaches everything that is trained, before anything that takes long: by the shortest example.
    fn check_gradients(&mut self) -> Result<(), Error> {
        let with_targets = self.examples.iter().filter(|example| example.target_count() > 0);
        let Some(shortest) = with_targets.min_by_key(|example| example.ids.len()) else { return Ok(()) };
        self.trainer.check(self.decoder, shortest).map_err(|error| match error {
            TrainError::Model(error) => error.into(),
            _ => Error::Untrained { problem: error.to_string() },
        })
    }

    fn one_step(&mut self, step: usize) -> Result<StepLine, Error> {
        let epoch = self.order.cursor().epoch;
        let indices = self.order.step();
        let micro_batches: Vec<Vec<&Example>> =
            indices.iter().map(|batch| batch.iter().map(|index| &self.examples[*index]).collect()).collect();
        let (trainer, decoder) = (&mut self.trainer, self.decoder);
        let (report, seconds) = self.context.timed(|| trainer.step(decoder, &micro_batches));
        let checkpoint = self.last_checkpoint.clone();
        let report = report.map_err(|error| match error {
            TrainError::NotFinite { what } => Error::Diverged { step, what, checkpoint },
            TrainError::NoGradient { .. } => Error::Untrained { problem: error.to_string() },
            TrainError::Model(error) => Error::Stopped { step, checkpoint, source: Box::new(error.into()) },
        })?;
        let speed = report.tokens as f64 / seconds.max(f64::MIN_POSITIVE);
        self.context.progress.note(&format!("loss {}, {} tokens/s", number(report.loss), number(speed)));
        Ok(StepLine::of(&report, epoch, seconds))
    }

    /// Looks, keeps the line, and writes what is due.
    fn after_step(&mut self, step: usize, mut line: StepLine) -> Result<(), Error> {
        /// Seconds between two versions of the page.
        const PAGE_EVERY: f64 = 3.0;
        let is_last = step == self.steps;
        let is_due = |every: Option<usize>| is_last || every.is_some_and(|every| step.is_multiple_of(every));
        let mut is_best = false;
        if !self.subjects.is_empty() && is_due(self.spec.eval_every) {
            line.watched = self.look(step)?;
            is_best = self.is_best(step, &line.watched);
        }
        self.metrics.append(line)?;
        if self.spec.keep > 0 && (is_best || is_due(self.spec.checkpoint_every)) {
            self.keep(step)?;
        }
        if self.spec.save_at.contains(&step) {
            self.save(step)?;
        }
        if (self.context.seconds)() - self.shown > PAGE_EVERY {
            self.show(Stage::Running);
        }
        Ok(())
    }

    /// What is inside of a step has no progress of its own.
    fn quietly(&self) -> Context<'a> {
        Context { progress: &Silent, ..*self.context }
    }

    fn look(&self, step: usize) -> Result<Watched, Error> {
        look(self.subjects, step, self.decoder, (self.start, self.spec), &self.quietly())
    }

    /// Whether the first watched loss is lower than ever.
    fn is_best(&mut self, step: usize, watched: &Watched) -> bool {
        let loss = self.subjects.iter().find(|subject| subject.has_loss());
        let loss = loss.and_then(|subject| watched.get(&subject.name)?.get("loss").copied());
        let Some(loss) = loss.filter(|loss| self.best.is_none_or(|best| *loss < best.loss)) else { return false };
        self.best = Some(Best { step, loss });
        true
    }

    fn keep(&mut self, step: usize) -> Result<(), Error> {
        let state = State {
            lathe: env!("CARGO_PKG_VERSION").into(),
            step,
            cursor: self.order.cursor(),
            updates: self.trainer.adamw().moments().iter().map(|(name, of)| (name.clone(), of.updates)).collect(),
            best: self.best,
            settings: self.settings.clone(),
        };
        let adamw = self.trainer.adamw();
        let written = self.checkpoints.write(&state, adamw, self.decoder, (self.start, self.spec), &self.quietly())?;
        self.last_checkpoint = Some(written);
        self.checkpoints.prune(self.spec.keep, self.best)
    }

    /// Writes the model as it is after a step.
    fn save(&mut self, step: usize) -> Result<(), Error> {
        let path = self.spec.out.join(format!("step-{step}"));
        if path.is_dir() {
            fs::remove_dir_all(&path).map_err(|source| Error::Write { file: path.clone(), source })?;
        }
        self.start.write(&path, ElementType::F32, self.decoder, &self.spec.method, &self.quietly())?;
        Ok(())
    }

    /// Writes the page. A run does not stop for it.
    fn show(&mut self, stage: Stage) {
        self.shown = (self.context.seconds)();
        let model = self.spec.model_name();
        let method = match self.spec.method {
            Method::Full | Method::Only(_) => "full",
            Method::Lora(_) => "lora",
        };
        let method = &match self.spec.compute {
            Compute::F32 => method.to_owned(),
            other => format!("{method} --compute {}", other.name()),
        };
        let lines = &self.metrics.lines;
        let html = page(&PageOf { model: &model, method, steps: self.steps, audit: &self.audit, lines, stage });
        _ = NewFile::write(&self.spec.out.join(REPORT), html.as_bytes());
    }

    /// The files of the model, each whole, the weights last: without them the folder is no model.
    fn write_result(&self, element: ElementType) -> Result<Vec<WrittenFile>, Error> {
        let out = &self.spec.out;
        let failed = |source| Error::Write { file: out.clone(), source };
        let holder = tempfile::Builder::new().prefix(".lathe-").suffix(".partial").tempdir_in(out).map_err(failed)?;
        let folder = holder.path().join("model");
        let files = self.start.write(&folder, element, self.decoder, &self.spec.method, self.context)?;
        let mut names: Vec<_> =
            fs::read_dir(&folder).map_err(failed)?.filter_map(Result::ok).map(|entry| entry.file_name()).collect();
        names.sort_by_key(|name| name.to_string_lossy().ends_with(".safetensors"));
        for name in names {
            let target = out.join(&name);
            if target.is_dir() {
                fs::remove_dir_all(&target).map_err(failed)?;
            }
            fs::rename(folder.join(&name), target).map_err(failed)?;
        }
        Ok(files)
    }

    fn result(self, files: Vec<WrittenFile>) -> TuneResult {
        let lines = &self.metrics.lines;
        let of_steps = || lines.iter().filter(|line| line.loss.is_some());
        let seconds: f64 = of_steps().map(|line| line.seconds).sum();
        let tokens = of_steps().map(|line| line.targets).sum();
        let looks = lines.iter().filter(|line| !line.watched.is_empty());
        let saved = self.spec.save_at.iter().map(|step| self.spec.out.join(format!("step-{step}")));
        TuneResult {
            model: self.spec.model_name(),
            out: self.spec.out.clone(),
            files,
            trained_parameters: self.decoder.trainable().values().map(|var| var.elem_count() as u64).sum(),
            compute: self.spec.compute,
            resumed_at: self.resumed_at,
            losses: of_steps().filter_map(|line| line.loss).collect(),
            gradient_norms: of_steps().filter_map(|line| line.gradient_norm).collect(),
            tokens,
            sources: match &self.order {
                Order::Shares(shares) => shares.read(),
                Order::Epochs(_) => Vec::new(),
            },
            looks: looks.map(|line| Look { step: line.step, watched: line.watched.clone() }).collect(),
            best: self.best,
            checkpoints: self.checkpoints.all(),
            saved: saved.filter(|path| path.is_dir()).collect(),
            seconds,
            tokens_per_second: tokens as f64 / seconds.max(f64::MIN_POSITIVE),
            audit: self.audit,
        }
    }
}
