//! The tokens of a `tokenizer.json`.

use std::collections::HashMap;
use std::fmt;

use serde_json::{Map, Value};

use super::{ModelTokenizer, VocabularyError};

/// The tokens of a model that have a row.
pub(super) struct Tokens<'a> {
    /// Text by id, up to the last used id; None where an id has no token.
    pub(super) texts: Vec<Option<&'a str>>,
    pub(super) ids: HashMap<&'a str, u32>,
    /// Entries of `added_tokens`.
    pub(super) added: HashMap<&'a str, &'a Map<String, Value>>,
    pub(super) family: Family,
    /// How many tokens were dropped because they have no row.
    pub(super) unused: usize,
}

/// What two tokenizers must have in common for their tokens to mean the same pieces of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Family {
    pub(super) kind: Kind,
    spelling: Spelling,
    /// Whether unknown characters become tokens of bytes.
    byte_fallback: bool,
    /// What marks a token that continues a word, and one that ends it.
    pub(super) prefix: String,
    suffix: String,
}

/// `model.type`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bpe,
    Unigram,
    WordPiece,
    WordLevel,
}

/// How tokens write the bytes of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spelling {
    /// Each byte as a printable character; Ġ is a space.
    Bytes,
    /// Characters, with ▁ for a space.
    Metaspace,
    /// Characters.
    Plain,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spelling = match self.spelling {
            Spelling::Bytes => "byte-level",
            Spelling::Metaspace => "with ▁ for spaces",
            Spelling::Plain => "of plain characters",
        };
        let fallback = if self.byte_fallback { "with byte fallback" } else { "without byte fallback" };
        write!(f, "{} {spelling}, {fallback}", self.kind.name())?;
        if !self.prefix.is_empty() {
            write!(f, ", prefix {:?}", self.prefix)?;
        }
        if !self.suffix.is_empty() {
            write!(f, ", suffix {:?}", self.suffix)?;
        }
        Ok(())
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Bpe => "BPE",
            Self::Unigram => "Unigram",
            Self::WordPiece => "WordPiece",
            Self::WordLevel => "WordLevel",
        }
    }
}

impl<'a> Tokens<'a> {
    /// The tokens of a model, those without a row in its embedding apart.
    ///
    /// What is allocated is bounded by the file and by the rows.
    pub(super) fn read(model: &'a ModelTokenizer) -> Result<Self, VocabularyError> {
        let bad = |field: &str, reason: &str| bad_field(model, field, reason);
        let Value::Object(fields) = &model.tokenizer else {
            return Err(bad("the file", "is no object"));
        };
        let Some(Value::Object(inner)) = fields.get("model") else {
            return Err(bad("model", "is missing or no object"));
        };
        let family = Family::read(model, fields, inner)?;
        let mut entries = ordinary(model, inner)?;
        let added = added(model, fields, &mut entries)?;
        let mut tokens =
            Self { texts: Vec::new(), ids: HashMap::with_capacity(entries.len()), added, family, unused: 0 };
        entries.sort_unstable();
        for (id, text) in entries {
            if id as usize >= model.rows {
                tokens.unused += 1;
                tokens.added.remove(text);
                continue;
            }
            if let Some(Some(first)) = tokens.texts.get(id as usize) {
                let (first, second) = ((*first).to_owned(), text.to_owned());
                return Err(VocabularyError::DuplicateId { model: model.name.clone(), id, first, second });
            }
            tokens.texts.resize(id as usize, None);
            tokens.texts.push(Some(text));
            tokens.ids.insert(text, id);
        }
        Ok(tokens)
    }

    /// The model's own row for an id of the result that has no token.
    ///
    /// Such an id is reserved, not missing: the model whose ids are taken keeps its row, and so does any other that
    /// reserves it too.
    pub(super) fn reserved(&self, id: usize, is_first: bool) -> Option<u32> {
        let reserves = self.texts.get(id).is_some_and(Option::is_none);
        (is_first || reserves).then_some(id as u32)
    }
}

pub(super) fn bad_field(model: &ModelTokenizer, field: &str, reason: &str) -> VocabularyError {
    VocabularyError::BadField {
        model: model.name.clone(),
        file: "tokenizer.json".to_owned(),
        field: field.to_owned(),
        reason: reason.to_owned(),
    }
}

/// Entries of `model.vocab`: an object, or a list where positions are ids (Unigram).
fn ordinary<'a>(model: &ModelTokenizer, inner: &'a Map<String, Value>) -> Result<Vec<(u32, &'a str)>, VocabularyError> {
    match inner.get("vocab") {
        Some(Value::Object(vocab)) => vocab
            .iter()
            .map(|(text, id)| match id.as_u64().and_then(|id| u32::try_from(id).ok()) {
                Some(id) => Ok((id, text.as_str())),
                None => Err(bad_field(model, &format!("model.vocab: the token {text:?}"), "has no id of 32 bits")),
            })
            .collect(),
        Some(Value::Array(pieces)) => {
            let mut seen = HashMap::with_capacity(pieces.len());
            for (id, piece) in pieces.iter().enumerate() {
                let field = || format!("model.vocab: piece {id}");
                let Some((text, _)) = unigram_piece(piece) else {
                    return Err(bad_field(model, &field(), "is no pair of a text and a score"));
                };
                // No file has 2^32 pieces.
                if seen.insert(text, id as u32).is_some() {
                    return Err(bad_field(model, &field(), "has the text of another one"));
                }
            }
            Ok(seen.into_iter().map(|(text, id)| (id, text)).collect())
        }
        _ => Err(bad_field(model, "model.vocab", "is missing or neither object nor list")),
    }
}

/// A piece of a Unigram vocabulary: its text and score.
pub(super) fn unigram_piece(piece: &Value) -> Option<(&str, f64)> {
    match piece.as_array()?.as_slice() {
        [text, score] => Some((text.as_str()?, score.as_f64().filter(|score| score.is_finite())?)),
        _ => None,
    }
}

/// `added_tokens`; those that `model.vocab` lacks join the entries. Where both give an id, that of `model.vocab` counts,
/// as it does for the library that reads the file.
fn added<'a>(
    model: &ModelTokenizer,
    fields: &'a Map<String, Value>,
    entries: &mut Vec<(u32, &'a str)>,
) -> Result<HashMap<&'a str, &'a Map<String, Value>>, VocabularyError> {
    let list = match fields.get("added_tokens") {
        None | Some(Value::Null) => return Ok(HashMap::new()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(bad_field(model, "added_tokens", "is no list")),
    };
    let known = entries.iter().map(|(_, text)| *text).collect::<std::collections::HashSet<_>>();
    let mut added = HashMap::with_capacity(list.len());
    for (index, entry) in list.iter().enumerate() {
        let field = format!("added_tokens: entry {index}");
        let id = entry.get("id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
        let (Some(id), Some(text), Some(flags)) = (id, entry.get("content").and_then(Value::as_str), entry.as_object())
        else {
            return Err(bad_field(model, &field, "has no id of 32 bits or no content"));
        };
        if added.insert(text, flags).is_some() {
            return Err(bad_field(model, &field, &format!("repeats the token {text:?}")));
        }
        if !known.contains(text) {
            entries.push((id, text));
        }
    }
    Ok(added)
}

impl Family {
    fn read(
        model: &ModelTokenizer,
        fields: &Map<String, Value>,
        inner: &Map<String, Value>,
    ) -> Result<Self, VocabularyError> {
        let text = |key: &str| inner.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
        let kind = match inner.get("type") {
            Some(Value::String(kind)) => match kind.as_str() {
                "BPE" => Kind::Bpe,
                "Unigram" => Kind::Unigram,
                "WordPiece" => Kind::WordPiece,
                "WordLevel" => Kind::WordLevel,
                other => {
                    return Err(bad_field(model, "model.type", &format!("is {other:?}, which lathe does not know")));
                }
            },
            None | Some(Value::Null) if inner.contains_key("merges") => Kind::Bpe,
            None | Some(Value::Null) if inner.get("vocab").is_some_and(Value::is_array) => Kind::Unigram,
            None | Some(Value::Null) if inner.contains_key("continuing_subword_prefix") => Kind::WordPiece,
            None | Some(Value::Null) => Kind::WordLevel,
            Some(_) => return Err(bad_field(model, "model.type", "is no string")),
        };
        if inner.get("vocab").is_some_and(Value::is_array) != (kind == Kind::Unigram) {
            return Err(bad_field(model, "model.vocab", "has not the form that model.type asks for"));
        }
        Ok(Self {
            kind,
            spelling: Spelling::of(fields),
            byte_fallback: inner.get("byte_fallback").and_then(Value::as_bool).unwrap_or(false),
            prefix: text("continuing_subword_prefix"),
            suffix: text("end_of_word_suffix"),
        })
    }
}

impl Spelling {
    fn of(fields: &Map<String, Value>) -> Self {
        let any = |parts: &[&str], is: fn(&Map<String, Value>) -> bool| {
            parts.iter().any(|part| fields.get(*part).is_some_and(|part| any_step(part, is)))
        };
        if any(&["pre_tokenizer", "decoder", "normalizer"], |step| step_type(step) == "ByteLevel") {
            return Self::Bytes;
        }
        let metaspace = |step: &Map<String, Value>| match step_type(step) {
            "Metaspace" => true,
            "Replace" => [step.get("content"), step.get("pattern").and_then(|pattern| pattern.get("String"))]
                .into_iter()
                .flatten()
                .any(|text| text == "▁"),
            _ => false,
        };
        if any(&["pre_tokenizer", "decoder", "normalizer"], metaspace) { Self::Metaspace } else { Self::Plain }
    }
}

fn step_type(step: &Map<String, Value>) -> &str {
    step.get("type").and_then(Value::as_str).unwrap_or("")
}

/// Whether a step of a pipeline is such a one; sequences nest.
fn any_step(part: &Value, is: fn(&Map<String, Value>) -> bool) -> bool {
    match part {
        Value::Object(step) => {
            is(step)
                || ["normalizers", "pretokenizers", "decoders"]
                    .iter()
                    .any(|list| step.get(*list).is_some_and(|list| any_step(list, is)))
        }
        Value::Array(steps) => steps.iter().any(|step| any_step(step, is)),
        _ => false,
    }
}
