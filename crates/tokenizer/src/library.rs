use std::sync::OnceLock;

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior};

use crate::error::Error;
use crate::literal::Literals;
use crate::pre_tokenizer::{Normalization, PreTokenizer, WholeWords};
use crate::sentencepiece::Located;
use crate::tokenizer::Markup;
use crate::vocabulary::{Role, Vocabulary};

/// The `tokenizers` library with one of its models.
#[derive(Debug)]
pub(crate) struct Library {
    /// Finds control tokens by name.
    markup: tokenizers::Tokenizer,
    /// Takes their names for text. Made when a text first holds such a name: until then both give the same ids.
    literal: OnceLock<tokenizers::Tokenizer>,
    control: ControlNames,
}

/// Whether a text can hold the name of a control token.
#[derive(Debug)]
enum ControlNames {
    Found(Literals),
    /// Some are matched after normalisation, so a search of the text as it is could miss them.
    Normalized,
}

impl Library {
    /// Wraps a tokenizer, which neither truncates nor pads.
    pub(crate) fn new(mut tokenizer: tokenizers::Tokenizer) -> Result<Self, String> {
        tokenizer.set_encode_special_tokens(false);
        let added = tokenizer.get_added_tokens_decoder();
        let special = || added.iter().filter(|(_, token)| token.special);
        let control = if special().any(|(_, token)| token.normalized) {
            ControlNames::Normalized
        } else {
            ControlNames::Found(Literals::new(special().map(|(id, token)| (*id, token.content.as_str()))))
        };
        Ok(Self { markup: tokenizer, literal: OnceLock::new(), control })
    }

    /// Byte-level BPE from the vocabulary of a GGUF file. The merges must have been checked against the vocabulary.
    pub(crate) fn byte_level(
        vocabulary: &Vocabulary,
        merges: Vec<(String, String)>,
        pre_tokenizer: &PreTokenizer,
    ) -> Result<Self, String> {
        let named = vocabulary.tokens.iter().enumerate().filter(|(_, token)| !token.is_empty());
        let vocab: Vocab = named.map(|(id, token)| (token.clone(), id as u32)).collect();
        let model = BPE::builder()
            .vocab_and_merges(vocab, merges)
            .ignore_merges(pre_tokenizer.whole_words == WholeWords::Taken)
            .build()
            .map_err(|error| error.to_string())?;
        let mut tokenizer = tokenizers::Tokenizer::new(model);
        // Before the added tokens, which are normalised as they are added.
        if pre_tokenizer.normalization == Normalization::Nfc {
            tokenizer.with_normalizer(Some(NFC)).map_err(|error| error.to_string())?;
        }
        tokenizer.with_pre_tokenizer(Some(split_steps(pre_tokenizer.patterns)?));
        let added = |(_, token): (u32, &str), special| AddedToken::from(token, special).normalized(false);
        let control = vocabulary.with_role(Role::Control).map(|row| added(row, true));
        tokenizer.add_special_tokens(control).map_err(|error| error.to_string())?;
        let user_defined = vocabulary.with_role(Role::UserDefined).map(|row| added(row, false));
        tokenizer.add_tokens(user_defined).map_err(|error| error.to_string())?;
        Self::new(tokenizer)
    }

    pub(crate) fn encode(&self, text: &str, markup: Markup) -> Result<Vec<u32>, Error> {
        let encoding = self.reader(text, markup).encode_fast(text, false).map_err(failed)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Ids with the library's ranges: bytes of the text that took part in a token. A character that is split over tokens
    /// is in the range of each.
    pub(crate) fn encode_aligned(&self, text: &str, markup: Markup) -> Result<Vec<Located>, Error> {
        let encoding = self.reader(text, markup).encode(text, false).map_err(failed)?;
        let ranges = encoding.get_offsets().iter().map(|&(start, end)| start..end);
        Ok(encoding.get_ids().iter().copied().zip(ranges).collect())
    }

    fn reader(&self, text: &str, markup: Markup) -> &tokenizers::Tokenizer {
        let is_same = match (&self.control, markup) {
            (_, Markup::Parse) => true,
            (ControlNames::Found(names), Markup::Text) => names.find(text).is_none(),
            (ControlNames::Normalized, Markup::Text) => false,
        };
        if is_same {
            return &self.markup;
        }
        self.literal.get_or_init(|| {
            let mut literal = self.markup.clone();
            literal.set_encode_special_tokens(true);
            literal
        })
    }
}

/// Reads tokenizer.json. Truncation and padding, which such files may ask for, would silently change texts; they are
/// switched off.
pub(crate) fn parsed(bytes: &[u8]) -> Result<tokenizers::Tokenizer, tokenizers::Error> {
    let mut tokenizer = tokenizers::Tokenizer::from_bytes(bytes)?;
    tokenizer.with_truncation(None)?;
    tokenizer.with_padding(None);
    Ok(tokenizer)
}

/// The cuts of a pre-tokeniser, and bytes written as characters.
pub(crate) fn split_steps(patterns: &[&str]) -> Result<Sequence, String> {
    let mut steps = Vec::with_capacity(patterns.len() + 1);
    for &pattern in patterns {
        let split = Split::new(SplitPattern::Regex(pattern.to_owned()), SplitDelimiterBehavior::Isolated, false);
        steps.push(PreTokenizerWrapper::Split(split.map_err(|error| format!("{pattern}: {error}"))?));
    }
    steps.push(PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, false, false)));
    Ok(Sequence::new(steps))
}

fn failed(error: tokenizers::Error) -> Error {
    Error::Encode { reason: error.to_string() }
}
