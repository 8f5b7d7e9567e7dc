//! What to train, on what, and how: the settings of a run.

use std::path::PathBuf;

use lathe_model::reference::ModelReference;
use lathe_model::{LoraSpec, Recompute};
use lathe_tune::{AdamWSettings, DecayGroups, Overlong, Reading, Schedule};
use serde::{Deserialize, Serialize};

use crate::documents::Texts;
use crate::{Compute, Error};

/// What to train, and on what. In an experiment file everything with a default may be left out.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TuneSpec {
    /// The model that it begins with; none where `from_scratch` says what to begin with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelReference>,
    /// A configuration with random weights instead of a model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_scratch: Option<FromScratch>,
    /// What of it is trained.
    #[serde(default)]
    pub method: Method,
    /// Name of the fetched data that the files of `data` belong to; none for files by their own paths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// Files of records (JSON lines or Parquet), or plain texts.
    #[serde(default)]
    pub data: Vec<PathBuf>,
    /// Which tokens of `messages` and of `prompt` and `completion` are to be predicted.
    #[serde(default)]
    pub loss_on: LossOn,
    /// Tokens of an example at most; none is 1024, or the model's context where that is less.
    #[serde(default)]
    pub max_length: Option<usize>,
    /// What becomes of longer ones.
    #[serde(default)]
    pub overlong: Overlong,
    /// What a unit of a batch is.
    #[serde(default)]
    pub packing: Packing,
    /// What becomes of records that cannot be used.
    #[serde(default)]
    pub bad_records: BadRecords,
    /// Whether names of control tokens in `prompt`, `completion` and `text` stand for the tokens.
    #[serde(default)]
    pub parse_markup: bool,
    /// Units that are read at once.
    #[serde(default = "usual_batch")]
    pub batch: usize,
    /// Batches of one step.
    #[serde(default = "one")]
    pub accumulate: usize,
    /// In which order units are read.
    #[serde(default)]
    pub order: Reading,
    /// How often all data are read; in the place of `steps`.
    #[serde(default)]
    pub epochs: Option<usize>,
    /// Texts by shares, in the place of `data`; read in windows.
    #[serde(default)]
    pub sources: Vec<TuneSource>,
    /// Of `sources`: tokens of one window at most; longer texts are cut.
    #[serde(default)]
    pub window: Option<usize>,
    /// Of `sources`: tokens of one step at most, as many whole windows as fit.
    #[serde(default)]
    pub tokens: Option<usize>,
    /// Steps; none for those of `epochs`.
    #[serde(default)]
    pub steps: Option<usize>,
    /// Learning rate after the warm-up.
    pub learning_rate: f64,
    /// What it does then.
    #[serde(default)]
    pub schedule: Schedule,
    /// Steps over which the learning rate rises to its value, linearly.
    #[serde(default)]
    pub warm_up: usize,
    /// β₁ and β₂ of AdamW.
    #[serde(default = "usual_betas")]
    pub betas: [f64; 2],
    /// ε of AdamW.
    #[serde(default = "usual_epsilon")]
    pub epsilon: f64,
    /// Decoupled weight decay of matrices, in units of the learning rate.
    #[serde(default)]
    pub weight_decay: f64,
    /// Whether tables of embeddings decay too.
    #[serde(default)]
    pub decay_embeddings: bool,
    /// Whether norms and biases decay too.
    #[serde(default)]
    pub decay_vectors: bool,
    /// Length that longer gradients are cut to.
    #[serde(default)]
    pub clip: Clip,
    /// Arithmetic of the products of training and of held-out losses: `f32` or `bf16`.
    #[serde(default)]
    pub compute: Compute,
    /// What is computed twice to save memory.
    #[serde(default)]
    pub recompute: Recomputed,
    /// Seed of the order of data, and of random weights.
    #[serde(default)]
    pub seed: u64,
    /// Element type of the model that is written, `f32` (where none is named), `bf16` or `f16`.
    #[serde(default)]
    pub dtype: Option<String>,
    /// What is watched: files of held-out records or texts, and files of steps (`.toml`).
    #[serde(default)]
    pub eval: Vec<PathBuf>,
    /// Steps between two looks; none looks before the first step and after the last.
    #[serde(default)]
    pub eval_every: Option<usize>,
    /// Steps between two checkpoints; none makes one at the end.
    #[serde(default)]
    pub checkpoint_every: Option<usize>,
    /// Checkpoints that are kept, the last ones, beside the best; with 0 none is made.
    #[serde(default)]
    pub keep: usize,
    /// Steps after which the model is written, as the folder `step-N` of the result; 0 is what the run begins with.
    #[serde(default)]
    pub save_at: Vec<usize>,
    /// Whether an interrupted run goes on.
    #[serde(default)]
    pub resume: Resume,
    /// The folder to write; it must not exist, and the folder above it must. A step of an experiment has its own.
    #[serde(default)]
    pub out: PathBuf,
}

/// A model of which there is only a configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FromScratch {
    /// Its `config.json`.
    pub config: PathBuf,
    /// A folder with a tokenizer, or a model whose tokenizer is taken; none for data that are ids already.
    #[serde(default)]
    pub tokenizer: Option<String>,
}

/// What of a model is trained.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Every parameter.
    #[default]
    Full,
    /// Parameters by name, as [`lathe_model::Trainable::Matching`] reads them; the others stay as they are.
    Only(Vec<String>),
    /// Factors of low rank beside frozen weights.
    Lora(LoraSpec),
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

/// Which tokens are to be predicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossOn {
    /// What the assistant says, the completion; all of a text; what labels say.
    #[default]
    Completion,
    /// Everything; of records with labels what these say.
    All,
}

/// What a unit of a batch is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Packing {
    /// An example.
    #[default]
    None,
    /// A bin of examples of at most `max_length` tokens together ([`lathe_tune::packing`]).
    BestFit,
}

/// What becomes of records that cannot be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BadRecords {
    /// The first one is an error.
    #[default]
    Refuse,
    /// They are left out, and the audit names them.
    Skip,
}

/// Whether an interrupted run goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resume {
    /// The folder must not be there.
    #[default]
    No,
    /// From the last checkpoint in the folder; from the beginning where it has none yet.
    Yes,
}

/// What is computed twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recomputed {
    /// Nothing.
    #[default]
    Nothing,
    /// Every layer, on the way back: gradient checkpointing.
    Layers,
}

impl From<Recomputed> for Recompute {
    fn from(of: Recomputed) -> Self {
        match of {
            Recomputed::Nothing => Self::Nothing,
            Recomputed::Layers => Self::Layers,
        }
    }
}

/// Length that longer gradients are cut to: a number, or the word `none`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "ClipWord", into = "ClipWord")]
pub enum Clip {
    /// No gradient is cut.
    None,
    /// To this length.
    To(f64),
}

impl Default for Clip {
    fn default() -> Self {
        Self::To(1.0)
    }
}

impl Clip {
    pub(super) fn limit(self) -> Option<f64> {
        match self {
            Self::None => None,
            Self::To(limit) => Some(limit),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum ClipWord {
    Number(f64),
    Word(String),
}

impl TryFrom<ClipWord> for Clip {
    type Error = String;

    fn try_from(word: ClipWord) -> Result<Self, String> {
        match word {
            ClipWord::Number(limit) => Ok(Self::To(limit)),
            ClipWord::Word(word) if word == "none" => Ok(Self::None),
            ClipWord::Word(word) => Err(format!("clip is a number or `none`, not `{word}`")),
        }
    }
}

impl From<Clip> for ClipWord {
    fn from(clip: Clip) -> Self {
        match clip {
            Clip::None => Self::Word("none".into()),
            Clip::To(limit) => Self::Number(limit),
        }
    }
}

fn equal_share() -> f64 {
    1.0
}

fn usual_batch() -> usize {
    8
}

fn one() -> usize {
    1
}

fn usual_betas() -> [f64; 2] {
    let usual = AdamWSettings::default();
    [usual.beta_1, usual.beta_2]
}

fn usual_epsilon() -> f64 {
    AdamWSettings::default().epsilon
}

pub(super) fn refuse(field: &'static str, problem: impl Into<String>, hint: Option<&str>) -> Error {
    Error::Spec { field, problem: problem.into(), hint: hint.map(str::to_owned) }
}

impl TuneSpec {
    /// Settings with their defaults: what to train, on what, and where to write it are to be filled in.
    #[must_use]
    pub fn new(learning_rate: f64) -> Self {
        Self {
            model: None,
            from_scratch: None,
            method: Method::default(),
            package: None,
            data: Vec::new(),
            loss_on: LossOn::default(),
            max_length: None,
            overlong: Overlong::default(),
            packing: Packing::default(),
            bad_records: BadRecords::default(),
            parse_markup: false,
            batch: usual_batch(),
            accumulate: one(),
            order: Reading::default(),
            epochs: None,
            sources: Vec::new(),
            window: None,
            tokens: None,
            steps: None,
            learning_rate,
            schedule: Schedule::default(),
            warm_up: 0,
            betas: usual_betas(),
            epsilon: usual_epsilon(),
            weight_decay: 0.0,
            decay_embeddings: false,
            decay_vectors: false,
            clip: Clip::default(),
            compute: Compute::default(),
            recompute: Recomputed::default(),
            seed: 0,
            dtype: None,
            eval: Vec::new(),
            eval_every: None,
            checkpoint_every: None,
            keep: 0,
            save_at: Vec::new(),
            resume: Resume::default(),
            out: PathBuf::new(),
        }
    }

    pub(super) fn adamw(&self) -> AdamWSettings {
        AdamWSettings {
            beta_1: self.betas[0],
            beta_2: self.betas[1],
            epsilon: self.epsilon,
            weight_decay: self.weight_decay,
            decay: DecayGroups { embeddings: self.decay_embeddings, vectors: self.decay_vectors },
        }
    }

    /// What it is called in tables.
    pub(super) fn model_name(&self) -> String {
        match (&self.model, &self.from_scratch) {
            (Some(model), _) => model.to_string(),
            (None, Some(scratch)) => scratch.config.display().to_string(),
            (None, None) => String::new(),
        }
    }

    /// What can be said before anything is read.
    pub(super) fn check(&self) -> Result<(), Error> {
        let is_amount = |x: f64| x.is_finite() && x > 0.0;
        match (&self.model, &self.from_scratch) {
            (None, None) => return Err(refuse("MODEL", "nothing to train", Some("name a model, or --from-scratch"))),
            (Some(_), Some(_)) => {
                return Err(refuse(
                    "MODEL",
                    "training from scratch begins with no model",
                    Some("leave one of the two out"),
                ));
            }
            _ => {}
        }
        if self.from_scratch.is_some() && matches!(self.method, Method::Lora(_) | Method::Only(_)) {
            let hint = Some("`lathe tune full` trains all of it");
            return Err(refuse("--from-scratch", "random weights that stay as they are teach nothing", hint));
        }
        self.check_data()?;
        if self.steps == Some(0) {
            return Err(refuse("steps", "no step is nothing to do", Some("at least 1")));
        }
        if self.epochs == Some(0) {
            return Err(refuse("epochs", "no epoch is nothing to do", Some("at least 1")));
        }
        if self.steps.is_some() && self.epochs.is_some() {
            return Err(refuse(
                "epochs",
                "steps and epochs say the same thing twice",
                Some("leave one of the two out"),
            ));
        }
        for (field, amount) in [("batch", self.batch), ("accumulate", self.accumulate)] {
            if amount == 0 {
                return Err(refuse(field, "0 reads nothing", Some("at least 1")));
            }
        }
        let never = |every: Option<usize>| every == Some(0);
        if never(self.eval_every) {
            return Err(refuse("--eval-every", "0 is no number of steps", Some("at least 1")));
        }
        if never(self.checkpoint_every) {
            return Err(refuse("--checkpoint-every", "0 is no number of steps", Some("--keep 0 makes none")));
        }
        if self.eval_every.is_some() && self.eval.is_empty() {
            return Err(refuse("--eval-every", "there is nothing to look at", Some("--eval names what is watched")));
        }
        if !is_amount(self.learning_rate) {
            let problem = format!("{} is no learning rate", self.learning_rate);
            return Err(refuse("learning_rate", problem, Some("1e-5 to 1e-3 are usual")));
        }
        if !(0.0..f64::INFINITY).contains(&self.weight_decay) {
            let problem = format!("{} is no weight decay", self.weight_decay);
            return Err(refuse("weight_decay", problem, Some("0 for none; 0.01 to 0.1 are usual")));
        }
        if let Some(beta) = self.betas.iter().find(|beta| !(0.0..1.0).contains(*beta)) {
            return Err(refuse("betas", format!("{beta} is no share below 1"), Some("0.9,0.999 are usual")));
        }
        if !is_amount(self.epsilon) {
            return Err(refuse("epsilon", format!("{} is no small number", self.epsilon), Some("1e-8 is usual")));
        }
        match self.clip {
            Clip::To(limit) if !is_amount(limit) => {
                Err(refuse("clip", format!("{limit} is no length"), Some("a number above 0, or none")))
            }
            _ => Ok(()),
        }
    }

    fn check_data(&self) -> Result<(), Error> {
        match (self.data.is_empty(), self.sources.is_empty()) {
            (true, true) => {
                let field = if self.window.is_some() || self.tokens.is_some() { "sources" } else { "data" };
                return Err(refuse(field, "no texts to train on", Some("name at least one source")));
            }
            (false, false) => {
                let hint = Some("texts by shares are sources; records are data");
                return Err(refuse("data", "data and sources cannot be mixed", hint));
            }
            (false, true) => {
                if let Some(field) = [("window", self.window), ("tokens", self.tokens)].iter().find(|of| of.1.is_some())
                {
                    return Err(refuse(field.0, "belongs to sources", Some("records have max_length and batch")));
                }
                return match self.max_length {
                    Some(len) if len < 2 => {
                        let problem = format!("{len} tokens leave nothing to predict");
                        Err(refuse("--max-length", problem, Some("at least 2")))
                    }
                    _ => Ok(()),
                };
            }
            (true, false) => {}
        }
        if let Some(source) = self.sources.iter().find(|source| !(source.share.is_finite() && source.share > 0.0)) {
            return Err(refuse("share", format!("{} is no share", source.share), Some("a number above 0")));
        }
        let (Some(window), Some(tokens)) = (self.window, self.tokens) else {
            let field = if self.window.is_none() { "window" } else { "tokens" };
            return Err(refuse(field, "is missing", Some("sources are read in windows, so many tokens a step")));
        };
        if self.steps.is_none() {
            return Err(refuse("steps", "is missing", Some("sources have no end")));
        }
        if window < 2 {
            return Err(refuse("window", format!("{window} tokens leave nothing to predict"), Some("at least 2")));
        }
        if tokens < window {
            let problem = format!("a window of {window} does not fit a step of {tokens} tokens");
            return Err(refuse("tokens", problem, Some("at least as many as in a window")));
        }
        Ok(())
    }
}
