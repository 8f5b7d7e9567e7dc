//! Tokenizers from the `tokenizer.*` keys of a GGUF file.

use std::collections::HashMap;

use lathe_formats::GgufMetadata;

use crate::error::Error;
use crate::library::Library;
use crate::pre_tokenizer::{self, Bos, Normalization, PreTokenizer};
use crate::sentencepiece::{SentencePiece, SpacePrefix};
use crate::tokenizer::{Engine, LeadingSpace, SpecialTokens, Tokenizer, TokenizerKind, all_end_tokens, model_name};
use crate::vocabulary::{Role, Spelling, Vocabulary, parse_byte_token};

/// The values of the `tokenizer.*` keys of a GGUF file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GgufVocabulary {
    /// The file, for error messages.
    pub origin: String,
    /// `tokenizer.ggml.model`: `gpt2` or `llama`.
    pub model: String,
    /// `tokenizer.ggml.pre`: name of the pre-tokeniser of a `gpt2` model.
    pub pre: Option<String>,
    /// `tokenizer.ggml.tokens`, by id.
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.scores`, by id: the higher, the earlier two neighbours are joined to this token.
    pub scores: Option<Vec<f32>>,
    /// `tokenizer.ggml.token_type`, by id: 1 text, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
    pub token_types: Option<Vec<i64>>,
    /// `tokenizer.ggml.merges`: two tokens with a space between, first merge first.
    pub merges: Option<Vec<String>>,
    /// `tokenizer.ggml.bos_token_id`
    pub bos: Option<u64>,
    /// `tokenizer.ggml.eos_token_id`
    pub eos: Option<u64>,
    /// `tokenizer.ggml.eot_token_id`: end of a turn.
    pub eot: Option<u64>,
    /// `tokenizer.ggml.eom_token_id`: end of a message that a tool answers.
    pub eom: Option<u64>,
    /// `tokenizer.ggml.unknown_token_id`
    pub unknown: Option<u64>,
    /// `tokenizer.ggml.padding_token_id`
    pub padding: Option<u64>,
    /// `tokenizer.ggml.add_bos_token`
    pub add_bos: Option<bool>,
    /// `tokenizer.ggml.add_eos_token`
    pub add_eos: Option<bool>,
    /// `tokenizer.ggml.add_space_prefix`
    pub add_space_prefix: Option<bool>,
}

impl GgufVocabulary {
    /// Collects the keys.
    ///
    /// # Errors
    /// `tokenizer.ggml.model` or `tokenizer.ggml.tokens` is missing, or a key has the wrong type.
    pub fn from_metadata(metadata: &GgufMetadata) -> Result<Self, Error> {
        let origin = metadata.file().display().to_string();
        let missing = |key| Error::MissingKey { origin: origin.clone(), key };
        let text = |key| read(metadata.str(key)).map(|text| text.map(str::to_owned));
        let texts = |key| read(metadata.strs(key)).map(|texts| texts.map(<[String]>::to_vec));
        let number = |key| read(metadata.u64(key));
        let flag = |key| read(metadata.bool(key));
        Ok(Self {
            model: text(key::MODEL)?.ok_or_else(|| missing(key::MODEL))?,
            pre: text(key::PRE)?,
            tokens: texts(key::TOKENS)?.ok_or_else(|| missing(key::TOKENS))?,
            scores: read(metadata.f32s(key::SCORES))?,
            token_types: read(metadata.i64s(key::TOKEN_TYPES))?,
            merges: texts(key::MERGES)?,
            bos: number(key::BOS)?,
            eos: number(key::EOS)?,
            eot: number(key::EOT)?,
            eom: number(key::EOM)?,
            unknown: number(key::UNKNOWN)?,
            padding: number(key::PADDING)?,
            add_bos: flag(key::ADD_BOS)?,
            add_eos: flag(key::ADD_EOS)?,
            add_space_prefix: flag(key::ADD_SPACE_PREFIX)?,
            origin,
        })
    }

    /// Of a `llama` model: files that do not say it add the prefix.
    pub(crate) fn space_prefix(&self) -> SpacePrefix {
        match self.add_space_prefix {
            Some(false) => SpacePrefix::Omit,
            Some(true) | None => SpacePrefix::Add,
        }
    }
}

/// The metadata keys.
pub(crate) mod key {
    pub(crate) const MODEL: &str = "tokenizer.ggml.model";
    pub(crate) const PRE: &str = "tokenizer.ggml.pre";
    pub(crate) const TOKENS: &str = "tokenizer.ggml.tokens";
    pub(crate) const SCORES: &str = "tokenizer.ggml.scores";
    pub(crate) const TOKEN_TYPES: &str = "tokenizer.ggml.token_type";
    pub(crate) const MERGES: &str = "tokenizer.ggml.merges";
    pub(crate) const BOS: &str = "tokenizer.ggml.bos_token_id";
    pub(crate) const EOS: &str = "tokenizer.ggml.eos_token_id";
    pub(crate) const EOT: &str = "tokenizer.ggml.eot_token_id";
    pub(crate) const EOM: &str = "tokenizer.ggml.eom_token_id";
    pub(crate) const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";
    pub(crate) const PADDING: &str = "tokenizer.ggml.padding_token_id";
    pub(crate) const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
    pub(crate) const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";
    pub(crate) const ADD_SPACE_PREFIX: &str = "tokenizer.ggml.add_space_prefix";
}

/// The tokenizer that the keys describe.
pub(crate) fn tokenizer(file: GgufVocabulary) -> Result<Tokenizer, Error> {
    check_lengths(&file)?;
    match file.model.as_str() {
        "gpt2" => byte_level(file),
        "llama" => sentencepiece(file),
        _ => Err(Error::UnknownModel { origin: file.origin, model: file.model }),
    }
}

fn byte_level(mut file: GgufVocabulary) -> Result<Tokenizer, Error> {
    let pre_tokenizer = find_pre_tokenizer(&file)?;
    let special = Special::of(&file, pre_tokenizer.bos)?;
    let merges = file.merges.take().ok_or_else(|| missing(&file, key::MERGES))?;
    let vocabulary = vocabulary(&mut file, Spelling::ByteLevel)?;
    let merges = checked_merges(&file.origin, &vocabulary, merges)?;
    let kind = TokenizerKind {
        model: model_name("BPE", Spelling::ByteLevel),
        pre_tokenizer: Some(match &file.pre {
            Some(name) => name.clone(),
            None => format!("{} (assumed: the file names none)", pre_tokenizer::UNNAMED),
        }),
        normalizer: (pre_tokenizer.normalization == Normalization::Nfc).then(|| "NFC".to_owned()),
        merges: Some(merges.len()),
        byte_fallback: false,
        ..special.kind(&vocabulary)
    };
    let library = Library::byte_level(&vocabulary, merges, pre_tokenizer).map_err(|reason| Error::Key {
        origin: file.origin.clone(),
        key: key::TOKENS,
        reason,
    })?;
    Ok(special.into_tokenizer(vocabulary, Engine::Library(Box::new(library)), kind, LeadingSpace::Keep))
}

fn sentencepiece(mut file: GgufVocabulary) -> Result<Tokenizer, Error> {
    let special = Special::of(&file, Bos::ByDefault)?;
    let scores = file.scores.take().ok_or_else(|| missing(&file, key::SCORES))?;
    if let Some(id) = scores.iter().position(|score| score.is_nan()) {
        return Err(bad_value(&file.origin, key::SCORES, format!("the score of token {id} is not a number")));
    }
    let vocabulary = vocabulary(&mut file, Spelling::SentencePiece)?;
    let prefix = file.space_prefix();
    let leading_space = match prefix {
        SpacePrefix::Omit => LeadingSpace::Keep,
        SpacePrefix::Add => LeadingSpace::Drop,
    };
    let kind = TokenizerKind {
        model: model_name("BPE", Spelling::SentencePiece),
        byte_fallback: vocabulary.roles.iter().any(|role| matches!(role, Role::Byte(_))),
        ..special.kind(&vocabulary)
    };
    let model = SentencePiece::new(&vocabulary, &scores, special.tokens.unk, prefix);
    Ok(special.into_tokenizer(vocabulary, Engine::SentencePiece(Box::new(model)), kind, leading_space))
}

fn check_lengths(file: &GgufVocabulary) -> Result<(), Error> {
    let expected = file.tokens.len();
    if expected == 0 {
        return Err(bad_value(&file.origin, key::TOKENS, "the list is empty".to_owned()));
    }
    if u32::try_from(expected).is_err() {
        return Err(bad_value(&file.origin, key::TOKENS, format!("{expected} tokens are too many")));
    }
    let lengths = [
        (key::SCORES, file.scores.as_ref().map(Vec::len)),
        (key::TOKEN_TYPES, file.token_types.as_ref().map(Vec::len)),
    ];
    for (key, found) in lengths {
        if let Some(found) = found.filter(|&found| found != expected) {
            return Err(Error::LengthMismatch { origin: file.origin.clone(), key, found, expected });
        }
    }
    Ok(())
}

/// The row of the table that the file names.
pub(crate) fn find_pre_tokenizer(file: &GgufVocabulary) -> Result<&'static PreTokenizer, Error> {
    let name = file.pre.as_deref().unwrap_or(pre_tokenizer::UNNAMED);
    pre_tokenizer::find(name)
        .ok_or_else(|| Error::UnknownPreTokenizer { origin: file.origin.clone(), name: name.to_owned() })
}

/// Moves the tokens out of the file's record.
fn vocabulary(file: &mut GgufVocabulary, spelling: Spelling) -> Result<Vocabulary, Error> {
    let tokens = std::mem::take(&mut file.tokens);
    let mut roles = Vec::with_capacity(tokens.len());
    for (id, token) in tokens.iter().enumerate() {
        let kind = file.token_types.as_ref().map(|types| types[id]);
        roles.push(role(&file.origin, id, token, kind, spelling)?);
    }
    let mut first_ids: HashMap<&str, u32> = HashMap::with_capacity(tokens.len());
    for (id, token) in tokens.iter().enumerate().filter(|(_, token)| !token.is_empty()) {
        let id = id as u32;
        if let Some(first) = first_ids.insert(token, id) {
            return Err(Error::DuplicateToken { origin: file.origin.clone(), token: token.clone(), first, second: id });
        }
    }
    Ok(Vocabulary { spelling, tokens, roles })
}

/// Role of a token of type `kind`; none where the file has no types.
fn role(origin: &str, id: usize, token: &str, kind: Option<i64>, spelling: Spelling) -> Result<Role, Error> {
    if token.is_empty() {
        return Ok(Role::Unused);
    }
    match kind {
        Some(1) => Ok(Role::Text),
        Some(2 | 3) => Ok(Role::Control),
        Some(4) => Ok(Role::UserDefined),
        Some(5) => Ok(Role::Unused),
        Some(6) => parse_byte_token(token).map(Role::Byte).ok_or_else(|| {
            bad_value(
                origin,
                key::TOKENS,
                format!("token {id} ('{token}') is of type byte, but not of the form <0x0A>"),
            )
        }),
        Some(other) => {
            Err(bad_value(origin, key::TOKEN_TYPES, format!("token {id} has type {other}; types go from 1 to 6")))
        }
        None if spelling == Spelling::SentencePiece => Ok(parse_byte_token(token).map_or(Role::Text, Role::Byte)),
        None => Ok(Role::Text),
    }
}

/// The merges as pairs. Each must join two tokens to a third.
fn checked_merges(origin: &str, vocabulary: &Vocabulary, merges: Vec<String>) -> Result<Vec<(String, String)>, Error> {
    let tokens: std::collections::HashSet<&str> = vocabulary.tokens.iter().map(String::as_str).collect();
    let mut joined = String::new();
    let mut pairs = Vec::with_capacity(merges.len());
    for (index, merge) in merges.into_iter().enumerate() {
        let refuse =
            |merge: &str, reason| Error::Merge { origin: origin.to_owned(), index, merge: merge.to_owned(), reason };
        let Some((left, right)) = merge.split_once(' ') else {
            return Err(refuse(&merge, "two tokens with a space between are expected".to_owned()));
        };
        joined.clear();
        joined.push_str(left);
        joined.push_str(right);
        if let Some(unknown) =
            [left, right, &joined].into_iter().find(|&part| part.is_empty() || !tokens.contains(part))
        {
            return Err(refuse(&merge, format!("'{unknown}' is not in the vocabulary")));
        }
        pairs.push((left.to_owned(), right.to_owned()));
    }
    Ok(pairs)
}

/// What a file says about special tokens.
struct Special {
    tokens: SpecialTokens,
    before: Vec<u32>,
    after: Vec<u32>,
}

impl Special {
    /// To be read before the tokens are moved out of the file's record.
    fn of(file: &GgufVocabulary, bos: Bos) -> Result<Self, Error> {
        let id = |key: &'static str, id: Option<u64>| checked_id(&file.origin, key, id, file.tokens.len());
        let tokens = SpecialTokens {
            bos: id(key::BOS, file.bos)?,
            eos: [(key::EOS, file.eos), (key::EOT, file.eot), (key::EOM, file.eom)]
                .into_iter()
                .filter_map(|(key, value)| id(key, value).transpose())
                .collect::<Result<_, _>>()?,
            pad: id(key::PADDING, file.padding)?,
            unk: id(key::UNKNOWN, file.unknown)?,
        };
        let adds_bos = file.add_bos.unwrap_or(bos == Bos::ByDefault);
        let before = match (adds_bos, tokens.bos) {
            (true, Some(bos)) => vec![bos],
            // Asked for by the file, not only by default.
            (true, None) if file.add_bos.is_some() => return Err(missing(file, key::BOS)),
            _ => Vec::new(),
        };
        let after = match (file.add_eos, id(key::EOS, file.eos)?) {
            (Some(true), Some(eos)) => vec![eos],
            (Some(true), None) => return Err(missing(file, key::EOS)),
            _ => Vec::new(),
        };
        Ok(Self { tokens, before, after })
    }

    fn kind(&self, vocabulary: &Vocabulary) -> TokenizerKind {
        TokenizerKind {
            model: String::new(),
            pre_tokenizer: None,
            normalizer: None,
            merges: None,
            control_tokens: vocabulary.with_role(Role::Control).count(),
            adds_bos: !self.before.is_empty(),
            adds_eos: !self.after.is_empty(),
            byte_fallback: false,
        }
    }

    fn into_tokenizer(
        mut self,
        vocabulary: Vocabulary,
        engine: Engine,
        kind: TokenizerKind,
        leading_space: LeadingSpace,
    ) -> Tokenizer {
        self.tokens.eos = all_end_tokens(&vocabulary, self.tokens.eos);
        Tokenizer {
            vocabulary,
            engine,
            special: self.tokens,
            kind,
            before: self.before,
            after: self.after,
            leading_space,
        }
    }
}

fn checked_id(origin: &str, key: &str, id: Option<u64>, tokens: usize) -> Result<Option<u32>, Error> {
    let Some(id) = id else { return Ok(None) };
    let in_range = u32::try_from(id).ok().filter(|&id| (id as usize) < tokens);
    let id =
        in_range.ok_or_else(|| Error::IdOutOfRange { origin: origin.to_owned(), field: key.to_owned(), id, tokens })?;
    Ok(Some(id))
}

/// A key that is missing is None; one of the wrong type is an error.
fn read<T>(value: Result<T, lathe_formats::Error>) -> Result<Option<T>, Error> {
    Ok(lathe_formats::optional(value)?)
}

fn missing(file: &GgufVocabulary, key: &'static str) -> Error {
    Error::MissingKey { origin: file.origin.clone(), key }
}

fn bad_value(origin: &str, key: &'static str, reason: String) -> Error {
    Error::Key { origin: origin.to_owned(), key, reason }
}
