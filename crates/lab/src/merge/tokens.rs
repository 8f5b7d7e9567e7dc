//! Whose tokens a merge has, and what that means for rows of embeddings and heads.

use std::sync::Arc;

use lathe_merge::config::{self, MergeConfig, ModelRef, TokenSource, TokenizerSource};
use lathe_merge::plan::Role;
use lathe_merge::vocabulary::{
    Missing, ModelTokenizer, Source as Tokens, TokenName, TokenRow, TokenRule, Vocabulary, VocabularySpec, build,
};
use serde_json::Value;

use super::Recipe;
use super::folder::tokenizer_files_of;
use super::job::Inputs;
use super::source::Source;
use crate::Error;

/// The vocabulary of the result, where the configuration or a recipe chooses one.
///
/// # Errors
/// A model has no tokenizer; vocabularies cannot be joined; a token is unknown.
pub(super) fn vocabulary(config: &MergeConfig, recipe: Recipe, inputs: &Inputs) -> Result<Option<Vocabulary>, Error> {
    let place = |model: &ModelRef| {
        let found = inputs.models.iter().position(|input| input == model);
        found.ok_or_else(|| Error::UnmergedModel { model: model.to_string() })
    };
    let base = config.base_model.as_ref().map(place).transpose()?;
    let spec = match &config.tokenizer {
        Some(choice) => VocabularySpec {
            source: match &choice.source {
                TokenizerSource::Base => Tokens::Model(base.unwrap_or(0)),
                TokenizerSource::Union => Tokens::Union,
                TokenizerSource::Model(model) => Tokens::Model(place(model)?),
            },
            tokens: choice
                .tokens
                .iter()
                .map(|(token, rule)| {
                    let row = match &rule.source {
                        TokenSource::Model(model) => TokenRow::Model(place(model)?),
                        TokenSource::ModelToken { model, token } => TokenRow::Token {
                            model: place(model)?,
                            token: match token {
                                config::TokenName::Text(text) => TokenName::Text(text.clone()),
                                config::TokenName::Id(id) => TokenName::Id(*id as usize),
                            },
                        },
                        TokenSource::Zero => TokenRow::Zero,
                    };
                    Ok((token.clone(), TokenRule { row, force: rule.force }))
                })
                .collect::<Result<_, Error>>()?,
            pad_to_multiple_of: choice.pad_to_multiple_of,
            missing: recipe.missing,
        },
        // Instruct models may have tokens that their bases lack: rows of the same token are subtracted.
        None if recipe.missing == Missing::Zero && have_different_rows(inputs) => VocabularySpec {
            source: Tokens::Union,
            tokens: Vec::new(),
            pad_to_multiple_of: None,
            missing: Missing::Zero,
        },
        None => return Ok(None),
    };
    let models = inputs.sources.iter().map(|source| tokenizer_of(source)).collect::<Result<Vec<_>, _>>()?;
    Ok(Some(build(&spec, &models, base)?))
}

/// Whether embeddings have different numbers of rows.
fn have_different_rows(inputs: &Inputs) -> bool {
    let mut rows = inputs.sources.iter().filter_map(|source| embedding_rows(source));
    let first = rows.next();
    rows.any(|rows| Some(rows) != first)
}

fn embedding_rows(source: &Source) -> Option<usize> {
    let embedding = source.tensors().iter().find(|tensor| Role::of(&tensor.name) == Role::Embedding)?;
    embedding.shape.first().copied()
}

/// A model's tokenizer as the files of a folder say it.
fn tokenizer_of(source: &Source) -> Result<ModelTokenizer, Error> {
    let none = || Error::NoMergeTokenizer { model: source.name.clone() };
    let (mut tokenizer, mut beside) = (None, Vec::new());
    for (name, bytes) in tokenizer_files_of(source)? {
        if !name.ends_with(".json") || name == "generation_config.json" || name == "vocab.json" {
            continue;
        }
        let json: Value = serde_json::from_slice(&bytes)
            .map_err(|error| Error::BadJson { file: source.folder().join(&name), problem: error.to_string() })?;
        if name == "tokenizer.json" {
            tokenizer = Some(json);
        } else {
            beside.push((name, json));
        }
    }
    let tokenizer = tokenizer.ok_or_else(none)?;
    Ok(ModelTokenizer { name: source.name.clone(), tokenizer, beside, rows: embedding_rows(source).ok_or_else(none)? })
}

/// A warning where models have vocabularies of one size but not the same.
///
/// # Errors
/// A tokenizer cannot be read.
pub(super) fn different_tokenizers(sources: &[Arc<Source>], donor: usize) -> Result<Option<String>, Error> {
    let vocabulary = |source: &Arc<Source>| -> Option<Value> {
        let bytes = std::fs::read(source.folder().join("tokenizer.json")).ok()?;
        let json: Value = serde_json::from_slice(&bytes).ok()?;
        Some(json.get("model")?.get("vocab")?.clone())
    };
    let Some(first) = vocabulary(&sources[donor]) else { return Ok(None) };
    let differs = |source: &Arc<Source>| vocabulary(source).is_some_and(|other| other != first);
    let others = sources.iter().enumerate().filter(|(input, source)| *input != donor && differs(source));
    let different: Vec<&str> = others.map(|(_, source)| source.name.as_str()).collect();
    Ok((!different.is_empty()).then(|| {
        format!(
            "{} has another vocabulary than {}, whose tokenizer the result gets: rows of different tokens are merged; choose \
             with `tokenizer`",
            different.join(", "),
            sources[donor].name
        )
    }))
}
