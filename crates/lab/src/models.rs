//! `lathe models`: the built-in models, and the architectures that open; the built-in data sets. Nothing is opened.

mod page;

use lathe_model::catalog::{CATALOG, CatalogEntry, DATA_SETS};
use lathe_model::family::{FAMILIES, Family};
use lathe_model::reference::{ModelReference, ReferenceError, data_folder, resolve};
use serde::Serialize;

use crate::Context;

pub use page::page;

/// What lathe knows of models.
#[derive(Clone, Debug, Serialize)]
pub struct ModelList {
    /// Models that have a name, the default one first.
    pub built_in: Vec<BuiltIn>,
    /// Architectures that open, by `model_type` of `config.json`.
    pub architectures: Vec<Architecture>,
}

/// A model or a data set that has a name.
#[derive(Clone, Debug, Serialize)]
pub struct BuiltIn {
    /// The name.
    pub name: &'static str,
    /// What it is, in one line.
    pub description: &'static str,
    /// Terms of its use.
    pub licence: &'static str,
    /// Bytes of its files.
    pub bytes: u64,
    /// Whether it is on this machine.
    pub state: State,
}

/// Whether a model or a data set is on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It is, with the sizes that its record names.
    Fetched,
    /// It is not.
    Absent,
    /// Something is there that differs from its record.
    Damaged,
}

/// An architecture.
#[derive(Clone, Debug, Serialize)]
pub struct Architecture {
    /// `model_type` of `config.json`.
    pub model_type: &'static str,
    /// Its class in transformers.
    pub class: &'static str,
    /// Its GGUF files, which are read and written; none where the format has no words for it.
    pub gguf: Option<GgufFiles>,
    /// Well-known models of it.
    pub models: &'static str,
    /// What is different from Llama.
    pub differs: &'static str,
    /// Checkpoints on which it is compared with the reference implementation.
    pub compared: &'static [&'static str],
}

/// How an architecture is called in GGUF files.
#[derive(Clone, Debug, Serialize)]
pub struct GgufFiles {
    /// `general.architecture`.
    pub architecture: &'static str,
    /// A key by which it is told from others of that name.
    pub mark: Option<&'static str>,
}

/// Lists models and architectures.
#[must_use]
pub fn models(context: &Context<'_>) -> ModelList {
    ModelList {
        built_in: CATALOG
            .iter()
            .map(|entry| built_in(entry, resolve(&ModelReference::Alias(entry), context.home).map(drop)))
            .collect(),
        architectures: FAMILIES.iter().map(architecture).collect(),
    }
}

/// Lists the data sets that have a name.
#[must_use]
pub fn data_sets(context: &Context<'_>) -> Vec<BuiltIn> {
    DATA_SETS.iter().map(|entry| built_in(entry, data_folder(entry, context.home).map(drop))).collect()
}

fn built_in(entry: &'static CatalogEntry, found: Result<(), ReferenceError>) -> BuiltIn {
    let state = match found {
        Ok(()) => State::Fetched,
        Err(ReferenceError::NotFetched { .. }) => State::Absent,
        Err(_) => State::Damaged,
    };
    BuiltIn {
        name: entry.alias,
        description: entry.description,
        licence: entry.licence.name,
        bytes: entry.files.iter().map(|file| file.bytes).sum(),
        state,
    }
}

fn architecture(family: &Family) -> Architecture {
    Architecture {
        model_type: family.model_type,
        class: family.class,
        gguf: family.gguf.as_ref().map(|gguf| GgufFiles { architecture: gguf.architecture, mark: gguf.mark }),
        models: family.models,
        differs: family.differs,
        compared: family.compared,
    }
}
