//! A model trained further on texts, all of its parameters: the step `tune` of an experiment.
//!
//! Each step reads whole windows of texts, as the measurements cut them, packed into one batch without padding; the
//! loss is the mean negative log-likelihood of its predicted tokens. AdamW ([`adamw`]) changes every parameter, in f32.
//! The child is written as a complete safetensors folder. Which window is read when follows from the seed ([`order`]),
//! and no sum depends on threads, so that the same spec gives the same bits.

mod adamw;
mod order;
mod trained;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use candle_core::backprop::GradStore;
use lathe_formats::ElementType;
use lathe_measure::run::{Document, Window, windows};
use lathe_model::reference::ModelReference;
use lathe_model::{Batch, Decoder, NoTap, Weights};
use lathe_tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};

use crate::documents::{Texts, read_texts, tokenise};
use crate::export::{ExportFormat, Numbers, check_target, element_named, write_folder};
use crate::{Context, Error, WrittenFile, open_model};
use adamw::{AdamW, Rate};
use order::{Order, Source};
use trained::Trained;

/// What to train, and on what.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TuneSpec {
    /// The model that it begins with.
    pub model: ModelReference,
    /// The texts.
    pub sources: Vec<TuneSource>,
    /// Tokens of one window at most; longer texts are cut.
    pub window: usize,
    /// Tokens of one step at most: as many whole windows as fit. The memory that a step takes grows with them.
    pub tokens: usize,
    /// Steps.
    pub steps: usize,
    /// Learning rate after the warm-up.
    pub learning_rate: f64,
    /// Steps over which the learning rate rises to its value, linearly.
    #[serde(default)]
    pub warm_up: usize,
    /// Decoupled weight decay of matrices, in units of the learning rate.
    #[serde(default)]
    pub weight_decay: f64,
    /// Seed of the order of windows.
    pub seed: u64,
    /// Element type of the child, `f32` (where none is named), `bf16` or `f16`.
    #[serde(default)]
    pub dtype: Option<String>,
    /// The folder to write; it must not exist, and the folder above it must. A step of an experiment has its own.
    #[serde(default)]
    pub out: PathBuf,
}

/// Texts of one kind.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TuneSource {
    /// The texts.
    pub texts: Texts,
    /// How many tokens of them are read, relative to the other sources. Where they are used up they begin again, in
    /// another order.
    #[serde(default = "equal_share")]
    pub share: f64,
}

fn equal_share() -> f64 {
    1.0
}

/// A model that was trained.
#[derive(Clone, Debug, Serialize)]
pub struct TuneResult {
    /// The model that it began with.
    pub model: String,
    /// The folder that was written.
    pub out: PathBuf,
    /// Every file in it, by name.
    pub files: Vec<WrittenFile>,
    /// Mean negative log-likelihood of each step's tokens before the step, nats per token.
    pub losses: Vec<f64>,
    /// Length of the gradient of all parameters in each step, before it was clipped.
    pub gradient_norms: Vec<f64>,
    /// Tokens predicted in all steps.
    pub tokens: u64,
    /// What was read of each source.
    pub sources: Vec<SourceRead>,
    /// Seconds of all steps.
    pub seconds: f64,
    /// Predicted tokens per second.
    pub tokens_per_second: f64,
}

/// What was read of a source.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SourceRead {
    /// Its texts.
    pub texts: usize,
    /// Tokens that one reading of them predicts.
    pub tokens: u64,
    /// Tokens that were predicted, over that: how often each was read.
    pub passes: f64,
}

/// Trains a model.
///
/// # Errors
/// A setting makes no sense; the model or a text cannot be read; a loss or a gradient is not finite; the folder cannot
/// be written.
pub fn tune(spec: &TuneSpec, context: &Context<'_>) -> Result<TuneResult, Error> {
    check(spec)?;
    let element = match &spec.dtype {
        Some(word) => element_named(word, ExportFormat::Safetensors)?,
        None => ElementType::F32,
    };
    check_target(&spec.out)?;
    let (resolved, opened) = open_model(&spec.model, context)?;
    let limit = opened.spec.context_length;
    if spec.window > limit {
        let problem = format!("{} tokens do not fit the context of {} ({limit})", spec.window, spec.model);
        return Err(refuse("window", problem, None));
    }
    let mut order = Order::new(spec.seed, sources(spec, &opened.tokenizer()?, context)?);
    let what = format!("loading {}", spec.model);
    let decoder = context.stage(&what, 0, "", || opened.decoder(Weights::Trainable))?;
    let what = format!("training {}", spec.model);
    let (learnt, seconds) = context
        .timed(|| context.stage(&what, spec.steps as u64, "steps", || learn(&decoder, &mut order, spec, context)));
    let Learnt { losses, gradient_norms, tokens } = learnt?;
    let numbers = Trained(&decoder);
    let numbers = Numbers::Other(&numbers, &opened.path);
    let (_, files) = write_folder(&spec.out, Some(element), &resolved, &opened, numbers, context)?;
    Ok(TuneResult {
        model: spec.model.to_string(),
        out: spec.out.clone(),
        files,
        losses,
        gradient_norms,
        tokens,
        sources: order.read(),
        seconds,
        tokens_per_second: tokens as f64 / seconds.max(f64::MIN_POSITIVE),
    })
}

fn refuse(field: &'static str, problem: String, hint: Option<&str>) -> Error {
    Error::Spec { field, problem, hint: hint.map(str::to_owned) }
}

/// What can be said before anything is read.
fn check(spec: &TuneSpec) -> Result<(), Error> {
    let is_amount = |x: f64| x.is_finite() && x > 0.0;
    if spec.sources.is_empty() {
        return Err(refuse("sources", "no texts to train on".into(), Some("name at least one source")));
    }
    if let Some(source) = spec.sources.iter().find(|source| !is_amount(source.share)) {
        return Err(refuse("share", format!("{} is no share", source.share), Some("a number above 0")));
    }
    if spec.window < 2 {
        let problem = format!("{} tokens leave nothing to predict", spec.window);
        return Err(refuse("window", problem, Some("at least 2")));
    }
    if spec.tokens < spec.window {
        let problem = format!("a window of {} does not fit a step of {} tokens", spec.window, spec.tokens);
        return Err(refuse("tokens", problem, Some("at least as many as in a window")));
    }
    if spec.steps == 0 {
        return Err(refuse("steps", "no step is nothing to do".into(), Some("at least 1")));
    }
    if !is_amount(spec.learning_rate) {
        let problem = format!("{} is no learning rate", spec.learning_rate);
        return Err(refuse("learning_rate", problem, Some("1e-5 to 1e-3 are usual")));
    }
    if !(0.0..f64::INFINITY).contains(&spec.weight_decay) {
        let problem = format!("{} is no weight decay", spec.weight_decay);
        return Err(refuse("weight_decay", problem, Some("0 for none; 0.01 to 0.1 are usual")));
    }
    Ok(())
}

/// The windows of every source.
fn sources(spec: &TuneSpec, tokenizer: &Tokenizer, context: &Context<'_>) -> Result<Vec<Source>, Error> {
    let of_source = |source: &TuneSource| {
        let texts = read_texts(&source.texts, context)?;
        let documents: Vec<Document> =
            texts.iter().map(|text| tokenise(tokenizer, &text.text)).collect::<Result<_, _>>()?;
        let windows = windows(&documents, spec.window);
        if windows.is_empty() {
            let problem = format!("none of {} texts has two tokens", texts.len());
            return Err(refuse("sources", problem, None));
        }
        Ok(Source { texts: texts.len(), windows, share: source.share })
    };
    spec.sources.iter().map(of_source).collect()
}

struct Learnt {
    losses: Vec<f64>,
    gradient_norms: Vec<f64>,
    tokens: u64,
}

fn learn(decoder: &Decoder, order: &mut Order, spec: &TuneSpec, context: &Context<'_>) -> Result<Learnt, Error> {
    let mut adamw = AdamW::new(decoder.trainable(), spec.weight_decay);
    let rate = Rate { value: spec.learning_rate, warm_up: spec.warm_up };
    let mut learnt = Learnt { losses: Vec::new(), gradient_norms: Vec::new(), tokens: 0 };
    for step in 1..=spec.steps {
        let windows = order.step(spec.tokens);
        let diverged = |what| Error::Diverged { step, what };
        let Loss { mean, tokens, gradients } = loss(decoder, &windows)?;
        if !mean.is_finite() {
            return Err(diverged("loss"));
        }
        let norm = adamw.step(&gradients, rate.at(step))?.ok_or_else(|| diverged("gradient"))?;
        learnt.losses.push(mean);
        learnt.gradient_norms.push(norm);
        learnt.tokens += tokens as u64;
        context.progress.advance(1);
    }
    Ok(learnt)
}

/// A mean loss and what it says of the parameters.
struct Loss {
    /// Nats per predicted token.
    mean: f64,
    /// Predicted tokens.
    tokens: usize,
    gradients: GradStore,
}

/// Mean loss of every token that the windows predict, and its gradient.
fn loss(decoder: &Decoder, windows: &[&Window]) -> Result<Loss, Error> {
    let batch = Batch::of(windows.iter().map(|window| &window.ids[..window.ids.len() - 1]));
    let mut hidden = decoder.forward(&batch, None, &mut NoTap)?;
    let targets: Vec<u32> = windows.iter().flat_map(|window| &window.ids[window.context..]).copied().collect();
    if targets.len() < batch.ids().len() {
        let mut rows = Vec::with_capacity(targets.len());
        let mut first = 0;
        for window in windows {
            let last = first + window.ids.len() - 1;
            #[expect(clippy::cast_possible_truncation, reason = "rows of a batch")]
            rows.extend((first + window.context - 1..last).map(|row| row as u32));
            first = last;
        }
        hidden = hidden.index_select(&candle_core::Tensor::new(&rows[..], hidden.device())?, 0)?;
    }
    let losses = decoder.negative_log_likelihood(&hidden, targets)?;
    let gradients = losses.mean_all()?.backward()?;
    let values: Vec<f32> = losses.to_vec1()?;
    let mean = values.iter().map(|loss| f64::from(*loss)).sum::<f64>() / values.len() as f64;
    Ok(Loss { mean, tokens: values.len(), gradients })
}
