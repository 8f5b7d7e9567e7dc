//! `lathe inspect A B --vocab`: what vocabularies have in common, as their files spell them and as bytes.
//!
//! Two tokens are the same string to an ensemble if they add the same bytes to a text ([`ByteVocabulary`]). How many are,
//! and how often two tokenizers split a text at the same places, says what an ensemble of two models has to spell anew, and
//! at how many places a gate may let both speak. Headers are read, weights are not.

use std::collections::HashSet;

use lathe_model::Opened;
use lathe_model::reference::ModelReference;
use lathe_tokenizer::{BosEos, ByteVocabulary, Markup, TokenBytes, Tokenizer};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::report::{Extent, TextKind, VocabularyOverlap, numbered_names};
use crate::sample::{self, SampleText};
use crate::{Context, Error, open_model};

/// Whose vocabularies to look at.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VocabularySpec {
    /// The models, at least one.
    pub models: Vec<ModelReference>,
}

/// Vocabularies, and what each two of them share.
#[derive(Clone, Debug, Serialize)]
pub struct VocabularyResult {
    /// The texts that were split.
    pub sample: &'static str,
    /// Their length in bytes.
    pub sample_bytes: usize,
    /// Every model, in the order of the spec.
    pub models: Vec<VocabularyFacts>,
    /// Every two models whose tokens can be compared as bytes.
    pub pairs: Vec<VocabularyPair>,
}

/// One vocabulary as byte strings.
#[derive(Clone, Debug, Serialize)]
pub struct VocabularyFacts {
    /// The reference as given.
    pub reference: String,
    /// Short, for tables.
    pub name: String,
    /// Rows of the embedding.
    pub rows: usize,
    /// Ids of the tokenizer, unused ones among them.
    pub ids: usize,
    /// Rows of the embedding without an id of the tokenizer.
    pub padding_rows: usize,
    /// Ids of the tokenizer without a token.
    pub unused_ids: usize,
    /// Tokens that mean something to the model and add nothing to a text.
    pub control_tokens: usize,
    /// Tokens that add bytes to a text and don't end it.
    pub text_tokens: usize,
    /// The different byte strings that they add; null where the tokenizer is refused.
    pub strings: Option<usize>,
    /// Byte strings that several ids add, such as a piece and the byte that it is.
    pub strings_with_several_ids: Option<usize>,
    /// Tokens that end a text: one symbol beside the strings.
    pub end_tokens: Vec<EndToken>,
    /// Why the vocabulary is not comparable as bytes; null where the tokens of a probe text spell it.
    pub refused: Option<String>,
}

/// A token that ends a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EndToken {
    /// Its id.
    pub id: u32,
    /// Its name in the vocabulary.
    pub token: Option<String>,
}

/// What two vocabularies share.
#[derive(Clone, Debug, Serialize)]
pub struct VocabularyPair {
    /// The first model, by its place among the models.
    pub left: usize,
    /// The second one.
    pub right: usize,
    /// Strings of each, and how many both have, by bytes and by spelling.
    pub overlap: VocabularyOverlap,
    /// Strings of both by bytes, as a share of the first vocabulary.
    pub share_of_left: f64,
    /// The same of the second one.
    pub share_of_right: f64,
    /// Where the two split the sample: all texts, then each kind.
    pub boundaries: Vec<Boundaries>,
    /// A few tokens that are the same bytes and spelt differently.
    pub same_bytes: Vec<SameBytes>,
}

/// Where two tokenizers split texts. The beginning and the end of a text don't count.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Boundaries {
    /// Which texts of the sample; null for all of them.
    pub kind: Option<TextKind>,
    /// Places where the first splits.
    pub left: usize,
    /// Places where the second one does.
    pub right: usize,
    /// Places where both do.
    pub common: usize,
    /// `common` as a share of the places where either splits; null where none does.
    pub share: Option<f64>,
    /// `common` as a share of the first one's places.
    pub share_of_left: Option<f64>,
    /// `common` as a share of the second one's places.
    pub share_of_right: Option<f64>,
}

/// A token of either vocabulary: the same bytes, spelt differently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SameBytes {
    /// The bytes in hexadecimal.
    pub bytes: String,
    /// As the first model's file spells them.
    pub left: String,
    /// As the second one's does.
    pub right: String,
}

/// Compares vocabularies.
///
/// # Errors
/// A reference leads nowhere, files cannot be used, or there are several models and no two of them can be compared.
pub fn vocabulary(spec: &VocabularySpec, context: &Context<'_>) -> Result<VocabularyResult, Error> {
    let names: Vec<String> = spec.models.iter().map(ToString::to_string).collect();
    let names = numbered_names(names.iter().map(String::as_str));
    let mut facts = Vec::with_capacity(names.len());
    let mut read = Vec::with_capacity(names.len());
    for (reference, name) in spec.models.iter().zip(names) {
        let (_, opened) = open_model(reference, context)?;
        let (of_model, vocabulary) = context.stage(&format!("reading {name}"), 0, "", || look_at(&opened))?;
        facts.push(VocabularyFacts { reference: reference.to_string(), name, ..of_model });
        read.push(vocabulary);
    }
    let places: Vec<usize> = (0..read.len()).collect();
    let pairs = places.iter().flat_map(|left| places[left + 1..].iter().map(move |right| (*left, *right)));
    let mut compared = Vec::new();
    for (left, right) in pairs {
        if let (Some(a), Some(b)) = (&read[left], &read[right]) {
            compared.push(VocabularyPair { left, right, ..context.stage("comparing", 0, "", || pair(a, b))? });
        }
    }
    if compared.is_empty() && facts.len() > 1 {
        return Err(nothing_to_compare(&facts));
    }
    let sample_bytes = sample::texts().iter().map(|text| text.part(Extent::Default).len()).sum();
    Ok(VocabularyResult { sample: sample::NAME, sample_bytes, models: facts, pairs: compared })
}

fn nothing_to_compare(facts: &[VocabularyFacts]) -> Error {
    let refused = facts.iter().filter_map(|model| Some(format!("{}: {}", model.name, model.refused.as_deref()?)));
    Error::Spec {
        field: "--vocab",
        problem: format!("no two vocabularies can be compared as bytes; {}", refused.collect::<Vec<_>>().join("; ")),
        hint: Some("give two models at least whose tokenizers keep a text as it is".into()),
    }
}

/// A vocabulary that can be compared.
struct ReadVocabulary {
    tokenizer: Tokenizer,
    strings: ByteVocabulary,
}

fn look_at(opened: &Opened) -> Result<(VocabularyFacts, Option<ReadVocabulary>), Error> {
    let rows = opened.spec.vocab_size;
    let mut facts = VocabularyFacts {
        reference: String::new(),
        name: String::new(),
        rows,
        ids: 0,
        padding_rows: rows,
        unused_ids: 0,
        control_tokens: 0,
        text_tokens: 0,
        strings: None,
        strings_with_several_ids: None,
        end_tokens: Vec::new(),
        refused: None,
    };
    if !opened.has_tokenizer() {
        facts.refused = Some("the model has no tokenizer".into());
        return Ok((facts, None));
    }
    let tokenizer = opened.tokenizer()?;
    facts.ids = tokenizer.vocab_size();
    facts.padding_rows = rows.saturating_sub(facts.ids);
    let ends = &tokenizer.special().eos;
    for id in ids(&tokenizer) {
        match tokenizer.token_bytes(id) {
            TokenBytes::Unused => facts.unused_ids += 1,
            TokenBytes::Control(_) => facts.control_tokens += 1,
            other if other.as_slice().is_empty() || ends.contains(&id) => {}
            TokenBytes::Bytes(_) | TokenBytes::Byte(_) => facts.text_tokens += 1,
        }
    }
    let end = |id: &u32| EndToken { id: *id, token: tokenizer.token_str(*id).map(str::to_owned) };
    facts.end_tokens = ends.iter().map(end).collect();
    match ByteVocabulary::new(&tokenizer) {
        Ok(strings) => {
            facts.strings = Some(strings.len());
            facts.strings_with_several_ids = Some(strings.shared().len());
            Ok((facts, Some(ReadVocabulary { tokenizer, strings })))
        }
        Err(error) => {
            facts.refused = Some(error.to_string());
            Ok((facts, None))
        }
    }
}

fn ids(tokenizer: &Tokenizer) -> std::ops::Range<u32> {
    0..u32::try_from(tokenizer.vocab_size()).unwrap_or(u32::MAX)
}

fn pair(left: &ReadVocabulary, right: &ReadVocabulary) -> Result<VocabularyPair, Error> {
    let overlap = overlap(&left.spelt(), &right.spelt());
    let share = |of: u64| if of == 0 { 0.0 } else { overlap.shared_bytes as f64 / of as f64 };
    Ok(VocabularyPair {
        left: 0,
        right: 0,
        share_of_left: share(overlap.left),
        share_of_right: share(overlap.right),
        overlap,
        boundaries: boundaries(&left.tokenizer, &right.tokenizer)?,
        same_bytes: same_bytes(left, right),
    })
}

impl ReadVocabulary {
    /// Ids with a string, in order: its number and how the file spells the id.
    fn spellings(&self) -> impl Iterator<Item = (u32, Option<&str>)> {
        ids(&self.tokenizer).filter_map(|id| Some((self.strings.string_of(id)?, self.tokenizer.token_str(id))))
    }

    fn spelt(&self) -> Spelt<'_> {
        Spelt::of(self.spellings().map(|(string, spelling)| (self.strings.string(string), spelling)))
    }
}

/// What the tokens of a vocabulary add to a text, and how its file spells them.
pub(crate) struct Spelt<'a> {
    bytes: HashSet<&'a [u8]>,
    spellings: HashSet<&'a str>,
}

impl<'a> Spelt<'a> {
    /// Of bytes and spelling of every token; tokens without bytes don't count.
    pub(crate) fn of(tokens: impl Iterator<Item = (&'a [u8], Option<&'a str>)>) -> Self {
        let mut spelt = Self { bytes: HashSet::new(), spellings: HashSet::new() };
        for (bytes, spelling) in tokens.filter(|(bytes, _)| !bytes.is_empty()) {
            spelt.bytes.insert(bytes);
            spelt.spellings.extend(spelling);
        }
        spelt
    }
}

/// How many tokens of two vocabularies are the same.
pub(crate) fn overlap(left: &Spelt<'_>, right: &Spelt<'_>) -> VocabularyOverlap {
    VocabularyOverlap {
        left: left.bytes.len() as u64,
        right: right.bytes.len() as u64,
        shared_bytes: left.bytes.intersection(&right.bytes).count() as u64,
        shared_strings: left.spellings.intersection(&right.spellings).count() as u64,
    }
}

/// Splits every text of the sample with both tokenizers.
fn boundaries(left: &Tokenizer, right: &Tokenizer) -> Result<Vec<Boundaries>, Error> {
    let split = |text: &SampleText| {
        let text_part = text.part(Extent::Default);
        let (a, b) = (ends_of_tokens(left, text_part)?, ends_of_tokens(right, text_part)?);
        let common = a.intersection(&b).count();
        Ok((text.kind, [a.len(), b.len(), common]))
    };
    let counts: Vec<(TextKind, [usize; 3])> = sample::texts().par_iter().map(split).collect::<Result<_, Error>>()?;
    let kinds = [TextKind::Language, TextKind::Legal, TextKind::Prose, TextKind::Code].map(Some);
    let of = |kind: Option<TextKind>| {
        let counted = counts.iter().filter(|(of, _)| kind.is_none_or(|kind| kind == *of)).fold(
            [0; 3],
            |mut sums, (_, counts)| {
                sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
                sums
            },
        );
        Boundaries::of(kind, counted)
    };
    Ok([None].into_iter().chain(kinds).map(of).collect())
}

impl Boundaries {
    fn of(kind: Option<TextKind>, [left, right, common]: [usize; 3]) -> Self {
        let share = |of: usize| (of > 0).then(|| common as f64 / of as f64);
        Self {
            kind,
            left,
            right,
            common,
            share: share(left + right - common),
            share_of_left: share(left),
            share_of_right: share(right),
        }
    }
}

/// Where tokens end within a text.
fn ends_of_tokens(tokenizer: &Tokenizer, text: &str) -> Result<HashSet<usize>, Error> {
    let tokens = tokenizer.encode_with_offsets(text, BosEos::Omit, Markup::Text)?;
    let ends = tokens.into_iter().filter_map(|token| token.bytes.map(|bytes| bytes.end));
    Ok(ends.filter(|end| (1..text.len()).contains(end)).collect())
}

/// Of each sort of token, the first one of the left vocabulary that the right one has with another spelling. Vocabularies
/// of merges have the frequent ones first.
fn same_bytes(left: &ReadVocabulary, right: &ReadVocabulary) -> Vec<SameBytes> {
    let mut found: [Option<SameBytes>; SORTS.len()] = Default::default();
    for (string, spelling) in left.spellings() {
        let bytes = left.strings.string(string);
        let (Some(sort), Some(spelling)) = (SORTS.iter().position(|sort| sort(bytes)), spelling) else { continue };
        if found[sort].is_some() {
            continue;
        }
        let Some(same) = right.strings.find(bytes) else { continue };
        let spellings = right.strings.ids(same).iter().filter_map(|id| right.tokenizer.token_str(*id));
        let spellings: Vec<&str> = spellings.collect();
        if let Some(first) = spellings.first().filter(|_| !spellings.contains(&spelling)) {
            let bytes = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            found[sort] = Some(SameBytes { bytes, left: spelling.to_owned(), right: (*first).to_owned() });
        }
    }
    found.into_iter().flatten().collect()
}

/// What spellings differ in: the mark of a space, letters beyond ASCII, both, and line breaks.
const SORTS: [fn(&[u8]) -> bool; 4] = [
    |bytes| word_after_a_space(bytes).is_some_and(str::is_ascii),
    |bytes| std::str::from_utf8(bytes).is_ok_and(|text| !text.is_ascii() && is_word(text)),
    |bytes| word_after_a_space(bytes).is_some_and(|word| !word.is_ascii()),
    |bytes| bytes.iter().all(|byte| *byte == b'\n'),
];

fn word_after_a_space(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()?.strip_prefix(' ').filter(|word| is_word(word))
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(char::is_alphabetic)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use lathe_tokenizer::{GgufVocabulary, byte_alphabet};

    use super::*;

    /// The bytes and the results of these joins.
    fn byte_level(joins: &[&str]) -> Tokenizer {
        let mut tokens: Vec<String> = (0..=255).map(|byte| byte_alphabet::character_of(byte).to_string()).collect();
        tokens.extend(joins.iter().map(|join| join.replace(' ', "")));
        let vocabulary = GgufVocabulary {
            origin: "tiny.gguf".into(),
            model: "gpt2".into(),
            pre: Some("gpt-2".into()),
            token_types: Some(vec![1; tokens.len()]),
            tokens,
            merges: Some(joins.iter().map(|join| (*join).to_owned()).collect()),
            ..GgufVocabulary::default()
        };
        Tokenizer::from_gguf_vocabulary(vocabulary).unwrap()
    }

    #[test]
    fn places_within_a_text_are_where_tokens_end() {
        let ends = |joins: &[&str], text: &str| {
            let mut ends: Vec<usize> = ends_of_tokens(&byte_level(joins), text).unwrap().into_iter().collect();
            ends.sort_unstable();
            ends
        };
        // th|é, and t|h|Ã|© without joins.
        assert_eq!(ends(&["t h", "Ã ©"], "thé"), [2]);
        assert_eq!(ends(&[], "thé"), [1, 2, 3]);
        assert_eq!(ends(&["t h"], "th"), [0usize; 0]);
        assert_eq!(ends(&[], ""), [0usize; 0]);
    }

    #[test]
    fn shares_of_places() {
        let of = Boundaries::of(None, [4, 6, 3]);
        assert_eq!((of.share, of.share_of_left, of.share_of_right), (Some(3.0 / 7.0), Some(0.75), Some(0.5)));
        let nowhere = Boundaries::of(None, [0, 0, 0]);
        assert_eq!((nowhere.share, nowhere.share_of_left, nowhere.share_of_right), (None, None, None));
    }

    #[test]
    fn kinds_of_texts_add_up_to_all() {
        let (left, right) = (byte_level(&["t h", "Ġ a", "e r"]), byte_level(&["t h", "i n"]));
        let [all, kinds @ ..] = &boundaries(&left, &right).unwrap()[..] else { panic!("nothing was counted") };
        assert_eq!((all.kind, kinds.len()), (None, 4));
        for sum in [|of: &Boundaries| of.left, |of: &Boundaries| of.right, |of: &Boundaries| of.common] {
            assert_eq!(kinds.iter().map(sum).sum::<usize>(), sum(all));
        }
        assert!(all.common < all.left && all.left < all.right);
    }

    #[test]
    fn sorts_of_tokens() {
        let sort = |text: &str| SORTS.iter().position(|sort| sort(text.as_bytes()));
        assert_eq!([" the", "é", " café", "\n\n"].map(sort), [Some(0), Some(1), Some(2), Some(3)]);
        assert_eq!(["the", " ", "  x", "\t", " 1", "«"].map(sort), [None; 6]);
    }
}
