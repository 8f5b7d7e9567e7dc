//! A vocabulary as byte strings: the common ground of models with different tokenizers.
//!
//! Two tokens of two models are the same string if they add the same bytes to a text, however their files spell them:
//! `ĠcafÃ©` of a byte-level vocabulary and `▁café` of a SentencePiece one are both `20 63 61 66 C3 A9`. Control tokens and
//! padding rows add nothing and have no string; the tokens that end a text are one symbol beside the strings. Ids with
//! equal bytes (piece `a` and byte `<0x61>`) are one string, whose probability is the sum of theirs.
//!
//! Strings are numbered in byte order, so that all strings with a prefix are a range, and their mass is the difference of
//! two cumulative sums.

use std::ops::Range;

use crate::error::Error;
use crate::tokenizer::{BosEos, LeadingSpace, Markup, Tokenizer};
use crate::vocabulary::TokenBytes;

/// The strings of a vocabulary, in byte order.
#[derive(Debug, Clone)]
pub struct ByteVocabulary {
    /// All strings, one after another.
    bytes: Vec<u8>,
    /// Where each string begins; one more for the end.
    starts: Vec<u32>,
    /// Ids by string, the one that the tokenizer itself writes first.
    ids: Vec<u32>,
    /// Where the ids of each string begin; one more for the end.
    first_ids: Vec<u32>,
    /// The string of each id; [`NO_STRING`] where it has none.
    strings: Vec<u32>,
    /// Strings with more than one id.
    shared: Vec<u32>,
    ends: Vec<u32>,
}

/// In place of a string's number, for ids without bytes.
const NO_STRING: u32 = u32::MAX;

/// What a vocabulary is probed with: all kinds of text that tokenizers are known to change.
pub const PROBE: &str = "Plain text, 3.14 x 1,000!  Two  spaces\tand a tab\r\nnew line\n\n  indented\nCafé naïve ÅÉ \
                         Größe Ελληνικά русский 漢字かな 한국어 العربية हिन्दी 👩‍👩‍👧 🇫🇷 ™ ﬁ ½ ２";

impl ByteVocabulary {
    /// The strings of a tokenizer.
    ///
    /// # Errors
    /// The tokenizer changes texts (lower-casing, compatibility forms, squashed spaces, unknown tokens): the tokens of
    /// [`PROBE`] don't spell it, up to one space before it. Byte strings then don't say what the model reads.
    pub fn new(tokenizer: &Tokenizer) -> Result<Self, Error> {
        let probed = tokenizer.encode(PROBE, BosEos::Omit, Markup::Text)?;
        let spelt: Vec<u8> = probed.iter().flat_map(|id| tokenizer.token_bytes(*id).as_slice().to_vec()).collect();
        let unspaced = match tokenizer.leading_space {
            LeadingSpace::Drop => spelt.strip_prefix(b" ").unwrap_or(&spelt),
            LeadingSpace::Keep => &spelt,
        };
        if unspaced != PROBE.as_bytes() {
            let at = unspaced.iter().zip(PROBE.as_bytes()).take_while(|(a, b)| a == b).count();
            let window =
                |text: &[u8]| String::from_utf8_lossy(&text[at.min(text.len())..text.len().min(at + 12)]).into();
            return Err(Error::ChangesText { written: window(PROBE.as_bytes()), read: window(unspaced) });
        }
        let of = |id| match tokenizer.token_bytes(id) {
            TokenBytes::Bytes(bytes) => Some(bytes),
            TokenBytes::Byte(byte) => Some(vec![byte]),
            TokenBytes::Control(_) | TokenBytes::Unused => None,
        };
        let count = u32::try_from(tokenizer.vocab_size()).unwrap_or(u32::MAX);
        let mut vocabulary = Self::from_bytes((0..count).map(of), &tokenizer.special().eos);
        vocabulary.prefer(tokenizer);
        Ok(vocabulary)
    }

    /// From the bytes of every id, none or nothing for an id that adds nothing to a text, and the ids that end one.
    pub fn from_bytes(bytes: impl IntoIterator<Item = Option<Vec<u8>>>, ends: &[u32]) -> Self {
        let of_ids: Vec<Vec<u8>> = bytes.into_iter().map(Option::unwrap_or_default).collect();
        let mut order: Vec<u32> =
            (0..of_ids.len() as u32).filter(|id| !of_ids[*id as usize].is_empty() && !ends.contains(id)).collect();
        order.sort_unstable_by(|a, b| of_ids[*a as usize].cmp(&of_ids[*b as usize]).then(a.cmp(b)));
        let mut vocabulary = Self {
            bytes: Vec::new(),
            starts: vec![0],
            ids: Vec::with_capacity(order.len()),
            first_ids: vec![0],
            strings: vec![NO_STRING; of_ids.len()],
            shared: Vec::new(),
            ends: ends.to_vec(),
        };
        for same in order.chunk_by(|a, b| of_ids[*a as usize] == of_ids[*b as usize]) {
            let string = vocabulary.len() as u32;
            vocabulary.bytes.extend_from_slice(&of_ids[same[0] as usize]);
            vocabulary.starts.push(vocabulary.bytes.len() as u32);
            vocabulary.ids.extend_from_slice(same);
            vocabulary.first_ids.push(vocabulary.ids.len() as u32);
            same.iter().for_each(|id| vocabulary.strings[*id as usize] = string);
            if same.len() > 1 {
                vocabulary.shared.push(string);
            }
        }
        vocabulary
    }

    /// Number of strings.
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Whether no token has bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of a string.
    #[must_use]
    pub fn string(&self, string: u32) -> &[u8] {
        let at = string as usize;
        &self.bytes[self.starts[at] as usize..self.starts[at + 1] as usize]
    }

    /// The ids with the bytes of a string, at least one; the one that the tokenizer itself writes comes first.
    #[must_use]
    pub fn ids(&self, string: u32) -> &[u32] {
        let at = string as usize;
        &self.ids[self.first_ids[at] as usize..self.first_ids[at + 1] as usize]
    }

    /// The string of an id; none for control tokens, end tokens, and rows of the head beyond the tokenizer.
    #[must_use]
    pub fn string_of(&self, id: u32) -> Option<u32> {
        self.strings.get(id as usize).copied().filter(|string| *string != NO_STRING)
    }

    /// The string with these bytes.
    #[must_use]
    pub fn find(&self, bytes: &[u8]) -> Option<u32> {
        let at = self.partition(0..self.len() as u32, |string| string < bytes);
        ((at as usize) < self.len() && self.string(at) == bytes).then_some(at)
    }

    /// The strings that begin with these bytes.
    #[must_use]
    pub fn with_prefix(&self, prefix: &[u8]) -> Range<u32> {
        prefix.iter().enumerate().fold(0..self.len() as u32, |range, (depth, byte)| self.with_byte(range, depth, *byte))
    }

    /// Of strings that agree in their first `depth` bytes, those whose next one is `byte`.
    #[must_use]
    pub fn with_byte(&self, range: Range<u32>, depth: usize, byte: u8) -> Range<u32> {
        let next = |string: &[u8]| string.get(depth).copied();
        let first = self.partition(range.clone(), |string| next(string) < Some(byte));
        let last = self.partition(first..range.end, |string| next(string) <= Some(byte));
        first..last
    }

    /// Number of strings that another vocabulary has too.
    #[must_use]
    pub fn common_with(&self, other: &Self) -> usize {
        let (mut here, mut there, mut common) = (0, 0, 0);
        while (here as usize) < self.len() && (there as usize) < other.len() {
            let order = self.string(here).cmp(other.string(there));
            common += usize::from(order.is_eq());
            here += u32::from(order.is_le());
            there += u32::from(order.is_ge());
        }
        common
    }

    /// Strings with several ids.
    #[must_use]
    pub fn shared(&self) -> &[u32] {
        &self.shared
    }

    /// The ids that end a text: together the symbol after the 256 bytes.
    #[must_use]
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// The first string of a range for which `before` does not hold; it holds for a beginning of the range.
    fn partition(&self, range: Range<u32>, before: impl Fn(&[u8]) -> bool) -> u32 {
        let (mut low, mut high) = (range.start, range.end);
        while low < high {
            let middle = low + (high - low) / 2;
            if before(self.string(middle)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Puts the id first that the tokenizer writes for a string.
    fn prefer(&mut self, tokenizer: &Tokenizer) {
        for &string in &self.shared {
            let at = string as usize;
            let range = self.first_ids[at] as usize..self.first_ids[at + 1] as usize;
            let bytes = &self.bytes[self.starts[at] as usize..self.starts[at + 1] as usize];
            // A continuation is looked up through the tokenizer only, so this needs no table that is being sorted.
            let written = std::str::from_utf8(bytes).ok().and_then(|text| encode_after_anchor(tokenizer, text));
            if let Some([id]) = written.as_deref()
                && let Some(place) = self.ids[range.clone()].iter().position(|other| other == id)
            {
                self.ids[range][..=place].rotate_right(1);
            }
        }
    }
}

/// The ids of `bytes` as the continuation of a text, without the space that some tokenizers put before one. Bytes that
/// are no UTF-8 become the tokens of single bytes. None where the vocabulary cannot spell them.
///
/// A tokenizer does not split a text as it splits its parts: encode from a place that it surely splits at (section 7.2 of
/// the method page), not a string in isolation.
#[must_use]
pub fn encode_continuation(tokenizer: &Tokenizer, vocabulary: &ByteVocabulary, bytes: &[u8]) -> Option<Vec<u32>> {
    let mut ids = Vec::new();
    for chunk in bytes.utf8_chunks() {
        if !chunk.valid().is_empty() {
            ids.extend(encode_after_anchor(tokenizer, chunk.valid())?);
        }
        for byte in chunk.invalid() {
            let string = vocabulary.find(std::slice::from_ref(byte))?;
            ids.push(vocabulary.ids(string)[0]);
        }
    }
    Some(ids)
}

/// Whether tokenizers split a text before its byte `at`, whatever follows: at the space between a word or its punctuation
/// and a letter. What comes before is then spelt in the same way as alone.
#[must_use]
pub fn splits_before(text: &[u8], at: usize) -> bool {
    let byte = |at: usize| text.get(at).copied().unwrap_or(b' ');
    at > 0 && text.get(at) == Some(&b' ') && !byte(at - 1).is_ascii_whitespace() && byte(at + 1).is_ascii_alphabetic()
}

/// Texts to put before a continuation, so that a tokenizer's added space goes elsewhere: the first that keeps its ids.
const ANCHORS: [&str; 4] = ["\n", "a", "0", "."];

fn encode_after_anchor(tokenizer: &Tokenizer, text: &str) -> Option<Vec<u32>> {
    let encode = |text: &str| tokenizer.encode(text, BosEos::Omit, Markup::Text).ok();
    if tokenizer.leading_space == LeadingSpace::Keep {
        return encode(text);
    }
    ANCHORS.iter().find_map(|anchor| {
        let before = encode(anchor)?;
        let rest = encode(&format!("{anchor}{text}"))?.strip_prefix(&before[..])?.to_vec();
        let spelt: Vec<u8> = rest.iter().flat_map(|id| tokenizer.token_bytes(*id).as_slice().to_vec()).collect();
        (spelt == text.as_bytes()).then_some(rest)
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use proptest::prelude::*;

    fn of(strings: &[&str]) -> ByteVocabulary {
        ByteVocabulary::from_bytes(strings.iter().map(|s| Some(s.as_bytes().to_vec())), &[])
    }

    #[test]
    fn ids_with_equal_bytes_are_one_string() {
        let vocabulary = of(&["b", "a", "ab", "a", ""]);
        assert_eq!(vocabulary.len(), 3);
        let a = vocabulary.find(b"a").unwrap();
        assert_eq!((vocabulary.ids(a), vocabulary.shared()), (&[1, 3][..], &[a][..]));
        assert_eq!((vocabulary.string_of(3), vocabulary.string_of(4), vocabulary.string_of(9)), (Some(a), None, None));
        assert_eq!(vocabulary.find(b"abc"), None);
        assert_eq!(vocabulary.find(b""), None);
    }

    #[test]
    fn end_tokens_and_tokens_without_bytes_are_no_strings() {
        let bytes = [Some(b"</s>".to_vec()), None, Some(b"x".to_vec())];
        let vocabulary = ByteVocabulary::from_bytes(bytes, &[0]);
        assert_eq!((vocabulary.len(), vocabulary.ends()), (1, &[0][..]));
        assert_eq!(vocabulary.find(b"</s>"), None);
    }

    proptest! {
        #[test]
        fn a_prefix_is_a_range(
            strings in proptest::collection::vec("[ab]{1,4}", 1..40),
            prefix in "[ab]{0,4}",
        ) {
            let vocabulary = of(&strings.iter().map(String::as_str).collect::<Vec<_>>());
            let range = vocabulary.with_prefix(prefix.as_bytes());
            for string in 0..vocabulary.len() as u32 {
                let begins = vocabulary.string(string).starts_with(prefix.as_bytes());
                prop_assert_eq!(range.contains(&string), begins);
            }
            let other = of(&["a", "ab", "bb", "c"]);
            let common = (0..other.len() as u32).filter(|s| vocabulary.find(other.string(*s)).is_some()).count();
            prop_assert_eq!((vocabulary.common_with(&other), other.common_with(&vocabulary)), (common, common));
            for (id, string) in strings.iter().enumerate() {
                let found = vocabulary.find(string.as_bytes()).unwrap();
                prop_assert!(vocabulary.ids(found).contains(&(id as u32)));
                prop_assert_eq!(vocabulary.string_of(id as u32), Some(found));
            }
        }
    }
}
