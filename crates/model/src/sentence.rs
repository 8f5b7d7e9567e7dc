//! A sentence-transformers folder: what becomes of the hidden states of a text.
//!
//! `modules.json` lists what a text goes through: the model, a pooling of its tokens, possibly a scaling to length 1.
//! Anything else would change the vectors, so a folder with another module is refused.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use crate::Error;
use crate::config::Config;
use crate::spec::DecoderSpec;

/// What becomes of the hidden states of a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SentenceSpec {
    /// How the tokens of a text, those that the tokenizer puts around it included, become one vector.
    pub pooling: Pooling,
    /// The length of the vector.
    pub normalise: Normalise,
    /// Tokens that are read of a text, those around it included; the text is cut. None for as many as the model reads.
    pub max_tokens: Option<usize>,
}

/// How the tokens of a text become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The first token, `[CLS]`.
    First,
    /// The mean over tokens.
    Mean,
    /// The largest value of each feature.
    Max,
    /// The sum over tokens, divided by the square root of their number.
    MeanSqrtLength,
    /// The mean with weights 1, 2, 3, … in the order of tokens.
    WeightedMean,
    /// The last token.
    Last,
}

/// The length of a text's vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalise {
    /// As it comes.
    AsItIs,
    /// 1.
    UnitLength,
}

/// Modes of pooling: the flag of older files, the word of newer ones.
const POOLINGS: [(&str, &str, Pooling); 6] = [
    ("pooling_mode_cls_token", "cls", Pooling::First),
    ("pooling_mode_max_tokens", "max", Pooling::Max),
    ("pooling_mode_mean_tokens", "mean", Pooling::Mean),
    ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", Pooling::MeanSqrtLength),
    ("pooling_mode_weightedmean_tokens", "weightedmean", Pooling::WeightedMean),
    ("pooling_mode_lasttoken", "lasttoken", Pooling::Last),
];

/// Reads `modules.json` and what it names; none where the folder has no such file.
///
/// # Errors
/// A file is malformed, names a module that is not computed, or does not fit the model.
pub(crate) fn sentence(folder: &Path, spec: &DecoderSpec) -> Result<Option<SentenceSpec>, Error> {
    let file = folder.join("modules.json");
    if !file.exists() {
        return Ok(None);
    }
    let modules = Config::read_list(&file)?;
    let kinds: Vec<&str> = modules.iter().map(|module| module.str("type")).collect::<Result<_, _>>()?;
    for (index, (module, kind)) in modules.iter().zip(&kinds).enumerate() {
        // Versions keep the same classes in different places of the package.
        let name = kind.starts_with("sentence_transformers.").then(|| kind.rsplit('.').next()).flatten();
        let is_expected = match index {
            0 => name == Some("Transformer"),
            1 => name == Some("Pooling"),
            2 => name == Some("Normalize"),
            _ => false,
        };
        if !is_expected {
            return Err(Error::Module { file, index, found: (*kind).into() });
        }
        if index == 0 && !module.str("path")?.is_empty() {
            return Err(module.bad("path", &module.str("path")?.into(), "empty (the weights beside this file)"));
        }
    }
    let [_, pooling, rest @ ..] = &modules[..] else {
        let found = Value::from(modules.len());
        return Err(Config::new(&file, serde_json::Map::new()).bad("(length)", &found, "a model and a pooling"));
    };
    let pooled_in = inside(folder, pooling)?.join("config.json");
    let prompts = folder.join("config_sentence_transformers.json");
    if prompts.exists() {
        refuse_prompt(&Config::read(&prompts)?)?;
    }
    Ok(Some(SentenceSpec {
        pooling: pooling_of(&Config::read(&pooled_in)?, spec)?,
        normalise: if rest.is_empty() { Normalise::AsItIs } else { Normalise::UnitLength },
        max_tokens: max_tokens(folder, spec)?,
    }))
}

/// The folder of a module: a plain name, because it comes from a file.
fn inside(folder: &Path, module: &Config) -> Result<PathBuf, Error> {
    let path = module.str("path")?;
    let is_plain = !path.is_empty() && !path.contains(['/', '\\', ':']) && path != "." && path != "..";
    if is_plain { Ok(folder.join(path)) } else { Err(module.bad("path", &path.into(), "the name of a folder")) }
}

/// The one pooling that is set.
fn pooling_of(config: &Config, spec: &DecoderSpec) -> Result<Pooling, Error> {
    let other = ["word_embedding_dimension", "embedding_dimension", "pooling_mode", "include_prompt"];
    let is_known = |field: &str| other.contains(&field) || POOLINGS.iter().any(|(flag, ..)| *flag == field);
    if let Some((field, value)) = config.fields().iter().find(|(field, _)| !is_known(field)) {
        return Err(config.bad(field, value, "nothing (a field that is not known)"));
    }
    for field in ["word_embedding_dimension", "embedding_dimension"] {
        if let Some(width) = config.opt_usize(field)?.filter(|width| *width != spec.hidden_size) {
            return Err(config.bad(field, &width.into(), &format!("{}, the model's hidden size", spec.hidden_size)));
        }
    }
    if let Some(found) = config.get("pooling_mode") {
        let word = config.opt_str("pooling_mode").ok().flatten();
        let known = POOLINGS.iter().find(|(_, name, _)| Some(*name) == word);
        let names: Vec<&str> = POOLINGS.iter().map(|(_, name, _)| *name).collect();
        return known
            .map(|(.., pooling)| *pooling)
            .ok_or_else(|| config.bad("pooling_mode", found, &format!("one of {}", names.join(", "))));
    }
    let mut chosen = Vec::new();
    for (flag, _, pooling) in POOLINGS {
        if config.bool_or(flag, false)? {
            chosen.push((flag, pooling));
        }
    }
    match chosen[..] {
        [(_, pooling)] => Ok(pooling),
        [] => Err(config.missing("pooling_mode_mean_tokens")),
        // Several are put one after another there, which no model that is in use does.
        [_, (flag, _), ..] => Err(config.bad(flag, &true.into(), "false (one pooling, and another is set)")),
    }
}

/// Tokens of a text at most. A tokenizer's own limit counts where the model's file has none.
fn max_tokens(folder: &Path, spec: &DecoderSpec) -> Result<Option<usize>, Error> {
    let most = |limit: f64| {
        // Tokenizers without a limit say 10³⁰.
        (limit < spec.context_length as f64).then_some(limit as usize)
    };
    let file = folder.join("sentence_bert_config.json");
    if file.exists() {
        let config = Config::read(&file)?;
        if config.bool_or("do_lower_case", false)? {
            return Err(config.bad(
                "do_lower_case",
                &true.into(),
                "false (the tokenizer lowers what is to be lowered)",
            ));
        }
        if let Some(task) = config.opt_str("transformer_task")?.filter(|task| *task != "feature-extraction") {
            return Err(config.bad("transformer_task", &task.into(), "feature-extraction"));
        }
        if config.get("max_seq_length").is_some() {
            return Ok(most(config.size("max_seq_length")? as f64));
        }
    }
    let file = folder.join("tokenizer_config.json");
    if !file.exists() {
        return Ok(None);
    }
    let config = Config::read(&file)?;
    match config.opt_f64("model_max_length")? {
        Some(limit) if limit < 1.0 => Err(config.bad("model_max_length", &limit.into(), "at least 1")),
        limit => Ok(limit.and_then(most)),
    }
}

/// A text that is put before every other by itself would be a part of each vector.
fn refuse_prompt(config: &Config) -> Result<(), Error> {
    match config.opt_str("default_prompt_name")? {
        Some(name) => Err(config.bad("default_prompt_name", &name.into(), "null (no text before every text)")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
