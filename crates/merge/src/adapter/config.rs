//! `adapter_config.json` of PEFT.

use std::path::Path;

use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};

use super::{AdapterError, Settings};

/// What of the configuration says how tensors are used.
#[derive(Debug)]
pub(super) struct Config {
    rank: usize,
    alpha: f64,
    scaling: Scaling,
    /// Modules with another rank or alpha; the first one that matches counts.
    ranks: Vec<(Regex, usize)>,
    alphas: Vec<(Regex, f64)>,
    pub(super) layout: WeightLayout,
    /// Whether modules were trained whole.
    pub(super) saves_modules: bool,
    pub(super) base_model: Option<String>,
    dropout: f64,
}

/// How the weights of linear layers lie in a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightLayout {
    /// `[out, in]`, as almost everywhere.
    OutputsFirst,
    /// `[in, out]` (`fan_in_fan_out`): the `Conv1D` layers of GPT-2.
    InputsFirst,
}

/// What `lora_alpha` is divided by.
#[derive(Clone, Copy, Debug)]
enum Scaling {
    Rank,
    /// rsLoRA (2312.03732).
    RootOfRank,
}

/// Fields that say how the adapter was trained or where: they do not change what its tensors mean. Which modules and
/// layers it has is seen from its tensors.
const NEUTRAL: [&str; 16] = [
    "task_type",
    "auto_mapping",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "peft_version",
    "target_modules",
    "exclude_modules",
    "layers_pattern",
    "lora_dropout",
    "megatron_core",
    "qalora_group_size",
    "runtime_config",
    "loftq_config",
    "corda_config",
    "eva_config",
];

/// Fields that are read below.
const READ: [&str; 11] = [
    "peft_type",
    "r",
    "lora_alpha",
    "use_rslora",
    "rank_pattern",
    "alpha_pattern",
    "fan_in_fan_out",
    "bias",
    "modules_to_save",
    "init_lora_weights",
    "layers_to_transform",
];

/// A pattern of a module's name is short; compiled ones take no more memory than this.
const PATTERN_BYTES: usize = 1 << 20;

impl Config {
    /// Reads the file.
    ///
    /// # Errors
    /// It is no LoRA configuration, or says something about its tensors that lathe does not know.
    pub(super) fn read(file: &Path) -> Result<Self, AdapterError> {
        let json = std::fs::read(file).map_err(|source| AdapterError::Io { file: file.into(), source })?;
        let fields: Map<String, Value> =
            serde_json::from_slice(&json).map_err(|source| AdapterError::BadJson { file: file.into(), source })?;
        Fields { file, fields: &fields }.config()
    }

    /// How it was trained, where that is the same for all modules.
    pub(super) fn settings(&self) -> Option<Settings> {
        let is_one = self.ranks.is_empty() && self.alphas.is_empty() && !self.saves_modules;
        is_one.then(|| Settings {
            rank: self.rank,
            alpha: self.alpha,
            rank_stabilised: matches!(self.scaling, Scaling::RootOfRank),
            dropout: self.dropout,
            targets: Vec::new(),
        })
    }

    /// The rank of a module.
    pub(super) fn rank_of(&self, module: &str) -> usize {
        first_match(&self.ranks, module).unwrap_or(self.rank)
    }

    /// What the product of a module is multiplied by.
    pub(super) fn scale_of(&self, module: &str) -> f64 {
        let (rank, alpha) = (self.rank_of(module) as f64, first_match(&self.alphas, module).unwrap_or(self.alpha));
        match self.scaling {
            Scaling::Rank => alpha / rank,
            Scaling::RootOfRank => alpha / rank.sqrt(),
        }
    }
}

fn first_match<T: Copy>(patterns: &[(Regex, T)], module: &str) -> Option<T> {
    patterns.iter().find(|(pattern, _)| pattern.is_match(module)).map(|(_, value)| *value)
}

/// The fields of a configuration, with the name of their file for messages.
struct Fields<'a> {
    file: &'a Path,
    fields: &'a Map<String, Value>,
}

impl Fields<'_> {
    fn config(&self) -> Result<Config, AdapterError> {
        self.check_kind()?;
        let Some(rank) = self.fields.get("r").and_then(positive) else {
            return Err(self.bad("r", "is missing or no whole number of 1 or more"));
        };
        let Some(alpha) = self.fields.get("lora_alpha").and_then(finite) else {
            return Err(self.bad("lora_alpha", "is missing or no number"));
        };
        let scaling = if self.flag("use_rslora")? { Scaling::RootOfRank } else { Scaling::Rank };
        let layout = if self.flag("fan_in_fan_out")? { WeightLayout::InputsFirst } else { WeightLayout::OutputsFirst };
        Ok(Config {
            rank,
            alpha,
            scaling,
            ranks: self.patterns("rank_pattern", positive)?,
            alphas: self.patterns("alpha_pattern", finite)?,
            layout,
            saves_modules: self.saves_modules()?,
            base_model: self.fields.get("base_model_name_or_path").and_then(Value::as_str).map(str::to_owned),
            dropout: self.fields.get("lora_dropout").and_then(finite).unwrap_or(0.0),
        })
    }

    fn bad(&self, field: &str, reason: &str) -> AdapterError {
        AdapterError::BadField { file: self.file.into(), field: field.to_owned(), reason: reason.to_owned() }
    }

    fn unsupported(&self, field: &str, value: &Value) -> AdapterError {
        let mut shown = value.to_string();
        if let Some((end, _)) = shown.char_indices().nth(80) {
            shown.replace_range(end.., " …");
        }
        AdapterError::Unsupported { file: self.file.into(), field: field.to_owned(), value: shown }
    }

    /// Refuses what is no plain LoRA.
    fn check_kind(&self) -> Result<(), AdapterError> {
        match self.fields.get("peft_type") {
            Some(Value::String(kind)) if kind == "LORA" => {}
            Some(other) => return Err(self.unsupported("peft_type", other)),
            None => return Err(self.bad("peft_type", "is missing")),
        }
        for (field, value) in self.fields {
            let is_known = NEUTRAL.contains(&field.as_str()) || READ.contains(&field.as_str());
            if !is_known && !is_off(value) {
                return Err(self.unsupported(field, value));
            }
        }
        if let Some(bias) = self.fields.get("bias")
            && !["none", "all", "lora_only"].iter().any(|known| bias == known)
        {
            return Err(self.bad("bias", "is none of none, all, lora_only"));
        }
        // Other starts (PiSSA, OLoRA, LoftQ, CorDA) take something out of the base's weights when training begins, so that
        // the adapter belongs to weights that are in no file.
        match self.fields.get("init_lora_weights") {
            None | Some(Value::Null | Value::Bool(_)) => {}
            Some(Value::String(start)) if ["gaussian", "eva", "orthogonal"].contains(&start.as_str()) => {}
            Some(other) => return Err(self.unsupported("init_lora_weights", other)),
        }
        let is_layers = match self.fields.get("layers_to_transform") {
            None | Some(Value::Null) => true,
            Some(Value::Array(layers)) => layers.iter().all(Value::is_u64),
            Some(layer) => layer.is_u64(),
        };
        if is_layers { Ok(()) } else { Err(self.bad("layers_to_transform", "is no layer and no list of layers")) }
    }

    fn flag(&self, field: &str) -> Result<bool, AdapterError> {
        match self.fields.get(field) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(self.bad(field, "is neither true nor false")),
        }
    }

    fn saves_modules(&self) -> Result<bool, AdapterError> {
        match self.fields.get("modules_to_save") {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Array(names)) if names.iter().all(Value::is_string) => Ok(!names.is_empty()),
            Some(_) => Err(self.bad("modules_to_save", "is no list of names")),
        }
    }

    /// Names of modules, or ends of them, as regular expressions.
    fn patterns<T>(&self, field: &str, read: fn(&Value) -> Option<T>) -> Result<Vec<(Regex, T)>, AdapterError> {
        let patterns = match self.fields.get(field) {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Object(patterns)) => patterns,
            Some(_) => return Err(self.bad(field, "is no object")),
        };
        let compiled = patterns.iter().map(|(pattern, value)| {
            let anchored = format!(r"^(?:.*\.)?(?:{pattern})$");
            let regex = RegexBuilder::new(&anchored).size_limit(PATTERN_BYTES).build().map_err(|_| {
                self.bad(
                    field,
                    &format!("has the pattern {pattern:?}, which lathe cannot read as a regular expression"),
                )
            })?;
            match read(value) {
                Some(value) => Ok((regex, value)),
                None => Err(self.bad(field, &format!("has the value {value} for {pattern:?}"))),
            }
        });
        compiled.collect()
    }
}

/// Whether a field that lathe does not know is not used.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

fn positive(value: &Value) -> Option<usize> {
    value.as_u64().filter(|rank| *rank > 0).and_then(|rank| usize::try_from(rank).ok())
}

fn finite(value: &Value) -> Option<f64> {
    value.as_f64().filter(|value| value.is_finite())
}
