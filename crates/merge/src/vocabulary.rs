//! Rows of embeddings and heads where models have different tokens.
//!
//! Matrices with a row for each token can only be merged where row `i` means the same token in every model. [`build`]
//! chooses the tokens of the result and says for each model which of its rows, or what in their place, is row `i`
//! ([`ModelRows`]); with it goes the tokenizer that has these ids. Only then a merge method runs.
//!
//! * A model's tokenizer, usually the base's: its ids, unchanged.
//! * The union: the base's ids first, then ordinary tokens that it lacks in the order of the models, then added ones. Of
//!   a token that several models define, the first definition counts, the base's before all others.
//!
//! Tokens beyond the rows of their model's matrix have never been used and are dropped. The result has a row for every
//! id up to the last one, and no more unless it is padded. A model that lacks a token gets the base's row of it, else
//! the only one that there is, else the mean of all, else zeros.

mod error;
mod read;
mod rows;
mod write;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use read::Tokens;
use rows::Stored;

pub use error::VocabularyError;
pub use rows::{ModelRows, RowSource};

/// Which tokens the result has, and which rows where the usual choice is not wanted. Models are indices.
#[derive(Clone, Debug, PartialEq)]
pub struct VocabularySpec {
    /// Where the tokens come from.
    pub source: Source,
    /// Rules for single tokens.
    pub tokens: Vec<(String, TokenRule)>,
    /// Makes the number of rows a multiple of it.
    pub pad_to_multiple_of: Option<usize>,
    /// What a model gets in place of a token that it lacks.
    pub missing: Missing,
}

/// Where the tokens of the result come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// One model: the base or another one.
    Model(usize),
    /// All models, beginning with the base (without one, with the first).
    Union,
}

/// What becomes of one token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRule {
    /// The row.
    pub row: TokenRow,
    /// Whether models that have the token get this row too.
    pub force: bool,
}

/// A row that is named in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenRow {
    /// The same token's, of this model.
    Model(usize),
    /// Another token's.
    Token {
        /// The model that has it.
        model: usize,
        /// Which one it is.
        token: TokenName,
    },
    /// Zeros.
    Zero,
}

/// A token of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenName {
    /// As `tokenizer.json` spells it.
    Text(String),
    /// Its id.
    Id(usize),
}

/// What a model gets in place of the row of a token that it lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// Rows of models that have it.
    #[default]
    AsMerge,
    /// Zeros. Differences of models are then those of the public `residuals` package (2410.10739): a token that only
    /// the instruct model has is carried over whole.
    Zero,
}

/// The tokenizer of a model, and how many rows its matrices have.
#[derive(Clone, Debug)]
pub struct ModelTokenizer {
    /// What the model is called in messages.
    pub name: String,
    /// `tokenizer.json`.
    pub tokenizer: Value,
    /// The JSON files beside it, by name: `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json`.
    pub beside: Vec<(String, Value)>,
    /// Rows of the embedding.
    pub rows: usize,
}

/// The tokens of a merge.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    /// Rows of embedding and head, padding included.
    pub rows: usize,
    /// Rows before the padding: the last id and one.
    pub tokens: usize,
    /// The tokenizer.
    pub files: Files,
    /// Where each model's rows come from; None where every matrix already has these rows in this order.
    pub from: Option<Vec<ModelRows>>,
    /// What the union has beyond the base.
    pub added: Added,
    /// What a reader of the report should know, in sentences.
    pub notes: Vec<String>,
}

/// The files of a tokenizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Files {
    /// Those of this model, to be copied as they are.
    Of(usize),
    /// New ones, `tokenizer.json` first. Other files of the model that spell out its vocabulary (`vocab.json`,
    /// `merges.txt`, `vocab.txt`, `tokenizer.model`) say something else and must not be copied.
    New(Vec<(String, Vec<u8>)>),
}

/// How much a union adds to the tokenizer of the base.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// Ordinary tokens.
    pub ordinary: usize,
    /// Added tokens, special ones among them.
    pub added: usize,
    /// Merges that make the ordinary ones (BPE).
    pub merges: usize,
}

/// Padding to multiples beyond this is a mistake: it would be most of the matrix.
const LARGEST_MULTIPLE: usize = 1 << 16;

/// Chooses the tokens of a merge of `models`; `base` is one of them.
///
/// # Errors
/// A `tokenizer.json` is malformed; tokenizers of a union that spell texts differently; a rule names a token or model
/// that does not exist; an impossible padding.
pub fn build(
    spec: &VocabularySpec,
    models: &[ModelTokenizer],
    base: Option<usize>,
) -> Result<Vocabulary, VocabularyError> {
    let vocabularies = models.iter().map(Tokens::read).collect::<Result<Vec<_>, _>>()?;
    let exists = |model: usize| {
        if model < models.len() { Ok(model) } else { Err(VocabularyError::NoSuchModel { model, models: models.len() }) }
    };
    let base = base.map(exists).transpose()?;
    let first = match spec.source {
        Source::Model(model) => exists(model)?,
        Source::Union => exists(base.unwrap_or(0))?,
    };
    let mut notes = notes_of(models, &vocabularies);
    let extras = match spec.source {
        Source::Model(_) => Vec::new(),
        Source::Union => {
            check_compatible(models, &vocabularies, first)?;
            notes.extend(notes_of_union(models, &vocabularies, first));
            extras(&vocabularies, first)
        }
    };
    let output = Output::new(&vocabularies[first], &extras)?;
    let (rows, tokens) = (padded(output.len(), spec.pad_to_multiple_of)?, output.len());
    if tokens == 0 {
        return Err(VocabularyError::NoTokens { model: models[first].name.clone() });
    }
    let (files, merges) = if extras.is_empty() && vocabularies[first].unused == 0 {
        (Files::Of(first), 0)
    } else {
        write::files(models, &vocabularies, first, &output, &extras)?
    };
    let from = all_rows(spec, models, &vocabularies, base, first, &output)?;
    let unchanged = from.iter().zip(models).all(|(from, model)| model.rows == rows && from.is_identity());
    let ordinary = extras.iter().filter(|extra| extra.flags.is_none()).count();
    let added = Added { ordinary, added: extras.len() - ordinary, merges };
    Ok(Vocabulary { rows, tokens, files, from: (!unchanged).then_some(from), added, notes })
}

/// A token of a union that the base lacks.
#[derive(Clone, Copy)]
struct Extra<'a> {
    text: &'a str,
    /// The model whose definition counts.
    model: usize,
    /// The entry of `added_tokens`; None for an ordinary token.
    flags: Option<&'a Map<String, Value>>,
}

/// The tokens of the result by id; None where an id has no token.
struct Output<'a> {
    texts: Vec<Option<&'a str>>,
    ids: HashMap<&'a str, u32>,
}

impl<'a> Output<'a> {
    fn new(first: &Tokens<'a>, extras: &[Extra<'a>]) -> Result<Self, VocabularyError> {
        let mut texts = first.texts.clone();
        texts.extend(extras.iter().map(|extra| Some(extra.text)));
        let mut ids = HashMap::with_capacity(texts.len());
        for (id, text) in texts.iter().enumerate() {
            let id = u32::try_from(id).map_err(|_| VocabularyError::TooManyTokens { tokens: texts.len() })?;
            if let Some(text) = text {
                ids.insert(*text, id);
            }
        }
        Ok(Self { texts, ids })
    }

    fn len(&self) -> usize {
        self.texts.len()
    }
}

/// Ordinary tokens that the first vocabulary lacks, then added ones; in the order of the models and of their ids.
fn extras<'a>(vocabularies: &[Tokens<'a>], first: usize) -> Vec<Extra<'a>> {
    let mut seen = vocabularies[first].ids.keys().copied().collect::<HashSet<_>>();
    let (mut ordinary, mut added) = (Vec::new(), Vec::new());
    for (model, tokens) in vocabularies.iter().enumerate().filter(|(model, _)| *model != first) {
        for &text in tokens.texts.iter().flatten() {
            if !seen.insert(text) {
                continue;
            }
            let flags = tokens.added.get(text).copied();
            let list = if flags.is_some() { &mut added } else { &mut ordinary };
            list.push(Extra { text, model, flags });
        }
    }
    ordinary.append(&mut added);
    ordinary
}

/// For each model, where each row of the result comes from.
fn all_rows(
    spec: &VocabularySpec,
    models: &[ModelTokenizer],
    vocabularies: &[Tokens<'_>],
    base: Option<usize>,
    first: usize,
    output: &Output<'_>,
) -> Result<Vec<ModelRows>, VocabularyError> {
    let rules = resolved_rules(spec, models, vocabularies, output)?;
    let mut means = Vec::new();
    let mut from = vec![Vec::with_capacity(output.len()); models.len()];
    // Rows of one token in the models, used again for the next one.
    let mut own = Vec::with_capacity(models.len());
    for (id, text) in output.texts.iter().enumerate() {
        own.clear();
        own.extend(vocabularies.iter().enumerate().map(|(model, tokens)| match text {
            Some(text) => tokens.ids.get(text).copied(),
            None => tokens.reserved(id, model == first),
        }));
        let rule = rules.get(&id).copied();
        let fallback = match (rule, spec.missing) {
            (Some((row, _)), _) => row,
            (None, Missing::Zero) => Stored::Zero,
            (None, Missing::AsMerge) => Stored::of_others(&own, base, &mut means),
        };
        let forced = rule.is_some_and(|(_, force)| force);
        for ((model, from), own) in from.iter_mut().enumerate().zip(&own) {
            from.push(match own {
                Some(row) if !forced => Stored::Own(*row),
                _ => fallback.seen_by(model),
            });
        }
    }
    Ok(ModelRows::of_models(from, means))
}

/// The rows that rules name, by the ids of their tokens.
fn resolved_rules(
    spec: &VocabularySpec,
    models: &[ModelTokenizer],
    vocabularies: &[Tokens<'_>],
    output: &Output<'_>,
) -> Result<HashMap<usize, (Stored, bool)>, VocabularyError> {
    let mut rules = HashMap::new();
    for (token, rule) in &spec.tokens {
        let Some(&id) = output.ids.get(token.as_str()) else {
            return Err(VocabularyError::UnknownToken { token: token.clone() });
        };
        let row = match &rule.row {
            TokenRow::Zero => Stored::Zero,
            TokenRow::Model(model) => row_of(token, *model, &TokenName::Text(token.clone()), models, vocabularies)?,
            TokenRow::Token { model, token: named } => row_of(token, *model, named, models, vocabularies)?,
        };
        rules.insert(id as usize, (row, rule.force));
    }
    Ok(rules)
}

/// The row of a model that the rule for `token` names.
fn row_of(
    token: &str,
    model: usize,
    named: &TokenName,
    models: &[ModelTokenizer],
    vocabularies: &[Tokens<'_>],
) -> Result<Stored, VocabularyError> {
    let Some(vocabulary) = vocabularies.get(model) else {
        return Err(VocabularyError::NoSuchModel { model, models: models.len() });
    };
    let (row, shown) = match named {
        TokenName::Text(text) => (vocabulary.ids.get(text.as_str()).copied(), format!("token {text:?}")),
        TokenName::Id(id) => {
            (u32::try_from(*id).ok().filter(|_| *id < models[model].rows), format!("row {id} in its embedding"))
        }
    };
    match row {
        Some(row) => Ok(Stored::Other { model, row }),
        None => Err(VocabularyError::RuleWithoutRow {
            token: token.to_owned(),
            model: models[model].name.clone(),
            named: shown,
        }),
    }
}

fn padded(tokens: usize, multiple: Option<usize>) -> Result<usize, VocabularyError> {
    let multiple = multiple.unwrap_or(1);
    if multiple == 0 || multiple > LARGEST_MULTIPLE {
        return Err(VocabularyError::BadMultiple { multiple, largest: LARGEST_MULTIPLE });
    }
    Ok(tokens.next_multiple_of(multiple))
}

/// A union spells every token as the base does, so a model with other spellings has no place in it.
fn check_compatible(
    models: &[ModelTokenizer],
    vocabularies: &[Tokens<'_>],
    first: usize,
) -> Result<(), VocabularyError> {
    for (model, tokens) in models.iter().zip(vocabularies) {
        if tokens.family != vocabularies[first].family {
            return Err(VocabularyError::Incompatible {
                first: models[first].name.clone(),
                first_family: vocabularies[first].family.to_string(),
                second: model.name.clone(),
                second_family: tokens.family.to_string(),
            });
        }
    }
    Ok(())
}

fn notes_of(models: &[ModelTokenizer], vocabularies: &[Tokens<'_>]) -> Vec<String> {
    let mut notes = Vec::new();
    for (model, tokens) in models.iter().zip(vocabularies) {
        if tokens.unused > 0 {
            notes.push(format!(
                "{}: {} tokens have ids beyond the {} rows of the embedding and are dropped",
                model.name, tokens.unused, model.rows
            ));
        }
        if tokens.texts.len() < model.rows {
            notes.push(format!(
                "{}: {} rows of the embedding lie beyond the last token and are left out",
                model.name,
                model.rows - tokens.texts.len()
            ));
        }
    }
    notes
}

/// What of the other tokenizers a union does not take over: the base's word counts.
fn notes_of_union(models: &[ModelTokenizer], vocabularies: &[Tokens<'_>], first: usize) -> Vec<String> {
    let mut notes = Vec::new();
    for (index, model) in models.iter().enumerate().filter(|(index, _)| *index != first) {
        for part in ["normalizer", "pre_tokenizer", "post_processor"] {
            let of = |index: usize| models[index].tokenizer.get(part).unwrap_or(&Value::Null);
            if of(index) != of(first) {
                notes.push(format!("the {part} of {} differs; that of {} is used", model.name, models[first].name));
            }
        }
        let base = &vocabularies[first];
        let is_ordinary = |text: &&&str| base.ids.contains_key(**text) && !base.added.contains_key(**text);
        let ordinary = vocabularies[index].added.keys().filter(is_ordinary).count();
        if ordinary > 0 {
            notes.push(format!(
                "{ordinary} added tokens of {} stay the ordinary tokens that they are in {}",
                model.name, models[first].name
            ));
        }
    }
    notes
}
