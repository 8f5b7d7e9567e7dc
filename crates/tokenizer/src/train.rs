//! Byte-level BPE learnt from texts: the two neighbouring tokens that are most often beside each other become one token,
//! again and again (Sennrich et al. 2016, arXiv 1508.07909, on the bytes of GPT-2's alphabet).
//!
//! Texts are cut into pieces by GPT-2's expression first, and nothing is joined across pieces. Pairs are counted with
//! whole numbers over all pieces. Of pairs with equal counts the one with the smaller ids is joined, so that the result
//! depends on the texts alone: there is no random draw, and neither their order nor the number of threads matters.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};

use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

use crate::byte_alphabet::character_of;
use crate::error::Error;
use crate::export::{FolderFiles, folder_files};
use crate::gguf::GgufVocabulary;
use crate::library::split_steps;
use crate::pre_tokenizer::{GPT2, UNNAMED};

/// The token that ends a text; its id is 0.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// The smallest vocabulary: a token for each byte, and [`END_OF_TEXT`].
pub const LEAST_VOCABULARY: usize = 257;

/// Fewer occurrences of a pair than this teach nothing.
const LEAST_COUNT: u64 = 2;

/// Bytes of a text that are cut into pieces at once; the cut is where the expression would cut too.
const CHUNK: usize = 1 << 16;

/// A vocabulary that was learnt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LearntVocabulary {
    /// Tokens by id: [`END_OF_TEXT`], the 256 bytes in the order of their characters, then joined tokens in the order in
    /// which they were learnt.
    pub tokens: Vec<String>,
    /// Pairs of ids, first join first.
    pub merges: Vec<(u32, u32)>,
    /// Bytes of the texts.
    pub bytes: u64,
    /// What the texts are made of under this vocabulary, and under the smaller ones that were asked for, by size.
    pub counts: Vec<SizeCounts>,
}

/// How often each token of a vocabulary occurs in the texts that it was learnt from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SizeCounts {
    /// Tokens of the vocabulary.
    pub size: usize,
    /// Occurrences by id, `[size]`.
    pub counts: Vec<u64>,
}

/// Learns a vocabulary of `vocab_size` tokens, at least [`LEAST_VOCABULARY`]. It has fewer where the texts have no more
/// pairs that occur twice. `sizes` are smaller vocabularies to count tokens under: each is the beginning of the larger one.
///
/// # Errors
/// A text cannot be cut into pieces.
pub fn learn_byte_level_bpe<'a>(
    texts: impl IntoIterator<Item = &'a str>,
    vocab_size: usize,
    sizes: &[usize],
) -> Result<LearntVocabulary, Error> {
    let mut pieces = BTreeMap::<String, u64>::new();
    let mut bytes = 0;
    let cut = split_steps(&[GPT2]).map_err(|reason| Error::Encode { reason })?;
    for text in texts {
        bytes += text.len() as u64;
        for chunk in chunks(text, CHUNK) {
            count_pieces(&cut, chunk, &mut pieces)?;
        }
    }
    let mut learner = Learner::new(&pieces);
    let mut wanted: BTreeSet<usize> =
        sizes.iter().copied().filter(|size| (LEAST_VOCABULARY..vocab_size).contains(size)).collect();
    let mut counts = Vec::new();
    loop {
        if wanted.remove(&learner.tokens.len()) {
            counts.push(learner.counts());
        }
        if learner.tokens.len() >= vocab_size || !learner.join() {
            break;
        }
    }
    counts.push(learner.counts());
    Ok(LearntVocabulary { tokens: learner.tokens, merges: learner.merges, bytes, counts })
}

impl LearntVocabulary {
    /// The first `size` tokens, at least [`LEAST_VOCABULARY`]: what would have been learnt if no more had been asked for.
    #[must_use]
    pub fn truncated(mut self, size: usize) -> Self {
        let size = size.max(LEAST_VOCABULARY);
        if size >= self.tokens.len() {
            return self;
        }
        let last = &self.tokens[size - 1];
        let makes_it =
            |(left, right): &Pair| [&*self.tokens[*left as usize], &self.tokens[*right as usize]].concat() == *last;
        let joins = if size == LEAST_VOCABULARY {
            0
        } else {
            self.merges.iter().take_while(|pair| !makes_it(pair)).count() + 1
        };
        self.merges.truncate(joins);
        self.tokens.truncate(size);
        self.counts.retain(|counts| counts.size <= size);
        self
    }

    /// As the keys of a GGUF file.
    pub fn gguf_vocabulary(&self) -> GgufVocabulary {
        const TEXT: i64 = 1;
        const CONTROL: i64 = 3;
        let spelled = |id: u32| self.tokens[id as usize].as_str();
        GgufVocabulary {
            origin: "the learnt vocabulary".into(),
            model: "gpt2".into(),
            pre: Some(UNNAMED.into()),
            tokens: self.tokens.clone(),
            scores: None,
            token_types: Some((0..self.tokens.len()).map(|id| if id == 0 { CONTROL } else { TEXT }).collect()),
            merges: Some(
                self.merges.iter().map(|&(left, right)| format!("{} {}", spelled(left), spelled(right))).collect(),
            ),
            bos: Some(0),
            eos: Some(0),
            eot: None,
            eom: None,
            unknown: None,
            padding: None,
            add_bos: Some(false),
            add_eos: Some(false),
            add_space_prefix: None,
        }
    }

    /// As `tokenizer.json` and `tokenizer_config.json`.
    ///
    /// # Errors
    /// None for a vocabulary of [`learn_byte_level_bpe`].
    pub fn folder_files(&self) -> Result<FolderFiles, Error> {
        folder_files(&self.gguf_vocabulary(), &[], None)
    }
}

/// Parts of at least `least` bytes that the expression cuts as it cuts the whole: each ends in a line break between two
/// characters that are no white space.
fn chunks(text: &str, least: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let is_lone = |&at: &usize| {
            let before = rest[..at].chars().next_back();
            let after = rest[at + 1..].chars().next();
            let is_letter = |neighbour: Option<char>| neighbour.is_some_and(|character| !character.is_whitespace());
            is_letter(before) && is_letter(after)
        };
        let ends = rest.bytes().enumerate().skip(least).filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at);
        let end = ends.into_iter().find(is_lone).map_or(rest.len(), |at| at + 1);
        let (chunk, after) = rest.split_at(end);
        rest = after;
        Some(chunk)
    })
}

fn count_pieces(cut: &Sequence, text: &str, pieces: &mut BTreeMap<String, u64>) -> Result<(), Error> {
    let failed = |error: tokenizers::Error| Error::Encode { reason: error.to_string() };
    let mut parts = PreTokenizedString::from(text);
    cut.pre_tokenize(&mut parts).map_err(failed)?;
    for (piece, _, _) in parts.get_splits(OffsetReferential::Original, OffsetType::None) {
        match pieces.get_mut(piece) {
            Some(count) => *count += 1,
            None => {
                pieces.insert(piece.to_owned(), 1);
            }
        }
    }
    Ok(())
}

type Pair = (u32, u32);

/// The vocabulary so far, and all pieces as its tokens.
struct Learner {
    tokens: Vec<String>,
    ids: HashMap<String, u32>,
    merges: Vec<Pair>,
    words: Vec<Word>,
    pairs: HashMap<Pair, Occurrences>,
    /// Pairs by count, then by smaller ids; a count may be older than that of `pairs`.
    queue: BinaryHeap<(u64, Reverse<Pair>)>,
}

/// A piece of text that occurs `count` times.
struct Word {
    ids: Vec<u32>,
    count: u64,
}

#[derive(Default)]
struct Occurrences {
    count: u64,
    /// Words that have or had the pair, some of them more than once.
    words: Vec<usize>,
}

impl Learner {
    fn new(pieces: &BTreeMap<String, u64>) -> Self {
        let mut alphabet: Vec<char> = (0..=u8::MAX).map(character_of).collect();
        alphabet.sort_unstable();
        let characters = alphabet.iter().map(|character| character.to_string());
        let tokens: Vec<String> = std::iter::once(END_OF_TEXT.to_owned()).chain(characters).collect();
        let ids: HashMap<String, u32> = tokens.iter().zip(0..).map(|(token, id)| (token.clone(), id)).collect();
        let id_of: HashMap<char, u32> = alphabet.into_iter().zip(1..).collect();
        let word = |(piece, &count): (&String, &u64)| Word {
            ids: piece.chars().filter_map(|character| id_of.get(&character).copied()).collect(),
            count,
        };
        let words: Vec<Word> = pieces.iter().map(word).collect();
        let mut pairs = HashMap::<Pair, Occurrences>::new();
        for (index, word) in words.iter().enumerate() {
            for pair in pairs_of(&word.ids) {
                let of = pairs.entry(pair).or_default();
                of.count += word.count;
                of.words.push(index);
            }
        }
        let queue = pairs.iter().map(|(pair, of)| (of.count, Reverse(*pair))).collect();
        Self { tokens, ids, merges: Vec::new(), words, pairs, queue }
    }

    /// Joins the most frequent pair; false where none is left.
    fn join(&mut self) -> bool {
        let pair = loop {
            let Some((count, Reverse(pair))) = self.queue.pop() else { return false };
            let now = self.pairs.get(&pair).map_or(0, |of| of.count);
            if now < LEAST_COUNT {
                continue;
            }
            if now == count {
                break pair;
            }
            self.queue.push((now, Reverse(pair)));
        };
        let joined = [self.tokens[pair.0 as usize].as_str(), &self.tokens[pair.1 as usize]].concat();
        // Two different pairs can spell the same token.
        let next = self.tokens.len() as u32;
        let id = *self.ids.entry(joined.clone()).or_insert(next);
        if id == next {
            self.tokens.push(joined);
        }
        self.merges.push(pair);
        let Some(of) = self.pairs.get_mut(&pair) else { return false };
        let mut words = std::mem::take(&mut of.words);
        words.sort_unstable();
        words.dedup();
        let mut grown = BTreeSet::new();
        for index in words {
            let Word { ids, count } = &mut self.words[index];
            if !pairs_of(ids).any(|other| other == pair) {
                continue;
            }
            for other in pairs_of(ids) {
                if let Some(of) = self.pairs.get_mut(&other) {
                    of.count -= *count;
                }
            }
            *ids = replaced(ids, pair, id);
            for other in pairs_of(ids) {
                let of = self.pairs.entry(other).or_default();
                of.count += *count;
                if other.0 == id || other.1 == id {
                    of.words.push(index);
                    grown.insert(other);
                }
            }
        }
        for other in grown {
            self.queue.push((self.pairs[&other].count, Reverse(other)));
        }
        true
    }

    fn counts(&self) -> SizeCounts {
        let mut counts = vec![0; self.tokens.len()];
        for word in &self.words {
            word.ids.iter().for_each(|&id| counts[id as usize] += word.count);
        }
        SizeCounts { size: counts.len(), counts }
    }
}

fn pairs_of(ids: &[u32]) -> impl Iterator<Item = Pair> {
    ids.windows(2).map(|pair| (pair[0], pair[1]))
}

/// The ids with every occurrence of the pair, from the left, replaced.
fn replaced(ids: &[u32], pair: Pair, by: u32) -> Vec<u32> {
    let mut result = Vec::with_capacity(ids.len());
    let mut at = 0;
    while at < ids.len() {
        let is_pair = ids.get(at + 1).is_some_and(|&next| (ids[at], next) == pair);
        result.push(if is_pair { by } else { ids[at] });
        at += if is_pair { 2 } else { 1 };
    }
    result
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;
    use tokenizers::models::bpe::{BPE, BpeTrainer};
    use tokenizers::{AddedToken, Trainer as _};

    use super::*;
    use crate::{BosEos, ControlTokens, Markup, Tokenizer};

    const TEXT: &str = "the hen and the ten men then went there; the men were in the tent, and the hen was with them\n\
                        low lower lowest, new newer newest, wide wider widest: it's the hens' tent, isn't it?\n\
                        low lower lowest, new newer newest, wide wider widest: it's the hens' tent, isn't it?\n";

    fn learnt(text: &str, size: usize) -> LearntVocabulary {
        learn_byte_level_bpe([text], size, &[]).unwrap()
    }

    fn reader(vocabulary: &LearntVocabulary) -> Tokenizer {
        Tokenizer::from_gguf_vocabulary(vocabulary.gguf_vocabulary()).unwrap()
    }

    /// The vocabulary of Sennrich et al. 2016, figure 1: low x5, lower x2, newest x6, widest x3.
    #[test]
    fn joins_of_a_known_example() {
        let words = [("low", 5), ("lower", 2), ("newest", 6), ("widest", 3)];
        let pieces = words.into_iter().map(|(word, count)| (word.to_owned(), count)).collect();
        let mut learner = Learner::new(&pieces);
        let mut joined = || learner.join().then(|| learner.tokens.last().cloned().unwrap());
        // "es" and "st" occur 9 times; e is before s.
        assert_eq!(joined().as_deref(), Some("es"));
        assert_eq!(joined().as_deref(), Some("est"));
        // "lo" and "ow" occur 7 times: l is before o.
        assert_eq!(joined().as_deref(), Some("lo"));
        assert_eq!(joined().as_deref(), Some("low"));
        // "ne", "ew" and "w" + "est" occur 6 times ("we" of lower and newest twice, as est has taken the other e):
        // e is before n and w.
        assert_eq!(joined().as_deref(), Some("ew"));
        // Now "n" + "ew" and "ew" + "est".
        assert_eq!(joined().as_deref(), Some("new"));
        assert_eq!(joined().as_deref(), Some("newest"));
        let counts = learner.counts();
        let of = |token: &str| counts.counts[learner.ids[token] as usize];
        assert_eq!((of("low"), of("newest"), of("est"), of("w")), (7, 6, 3, 3));
    }

    #[test]
    fn joins_are_those_of_another_implementation() {
        let steps = split_steps(&[GPT2]).unwrap();
        let mut trainer = BpeTrainer::builder()
            .vocab_size(290)
            .min_frequency(LEAST_COUNT)
            .show_progress(false)
            .special_tokens(vec![AddedToken::from(END_OF_TEXT, true)])
            .initial_alphabet((0..=u8::MAX).map(character_of).collect())
            .build();
        let split = |text: &str| {
            let mut parts = PreTokenizedString::from(text);
            steps.pre_tokenize(&mut parts)?;
            let splits = parts.get_splits(OffsetReferential::Original, OffsetType::None);
            Ok(splits.into_iter().map(|(piece, _, _)| piece.to_owned()).collect())
        };
        trainer.feed([TEXT].iter(), split).unwrap();
        let mut model = BPE::default();
        trainer.train(&mut model).unwrap();
        let theirs = tokenizers::Model::get_vocab(&model);
        let ours = learnt(TEXT, 290);
        assert_eq!(ours.tokens.len(), 290);
        for (id, token) in ours.tokens.iter().enumerate() {
            assert_eq!(theirs.get(token).copied(), Some(id as u32), "{token}");
        }
    }

    #[test]
    fn a_smaller_vocabulary_is_the_beginning_of_a_larger_one() {
        let large = learn_byte_level_bpe([TEXT], 290, &[280, 257, 500]).unwrap();
        let sizes: Vec<usize> = large.counts.iter().map(|counts| counts.size).collect();
        assert_eq!(sizes, [257, 280, 290]);
        for counts in &large.counts {
            let small = learnt(TEXT, counts.size);
            assert_eq!(small.tokens, large.tokens[..counts.size]);
            assert_eq!(small.counts.last(), Some(counts));
            let cut = large.clone().truncated(counts.size);
            assert_eq!((cut.tokens, cut.merges), (small.tokens.clone(), small.merges.clone()));
            // What was counted is what the tokenizer reads.
            let mut read = vec![0; counts.size];
            for id in reader(&small).encode(TEXT, BosEos::Omit, Markup::Text).unwrap() {
                read[id as usize] += 1;
            }
            assert_eq!(read, counts.counts);
        }
    }

    #[test]
    fn it_ends_where_nothing_occurs_twice() {
        let small = learnt("ab", 400);
        assert_eq!((small.tokens.len(), small.merges.len()), (LEAST_VOCABULARY, 0));
        assert_eq!(learnt("abab abab", 400).tokens.last().map(String::as_str), Some("abab"));
        assert_eq!(learnt("", 400).counts[0].counts, [0; LEAST_VOCABULARY]);
        // Overlaps are joined from the left.
        assert_eq!(replaced(&[1, 1, 1], (1, 1), 9), [9, 1]);
    }

    #[test]
    fn the_name_of_the_control_token_in_a_text_is_text() {
        let vocabulary = learnt(&"<|endoftext|>".repeat(30), 400);
        assert_eq!(vocabulary.tokens.iter().filter(|token| *token == END_OF_TEXT).count(), 1);
        let ids = reader(&vocabulary).encode(END_OF_TEXT, BosEos::Add, Markup::Text).unwrap();
        assert!(!ids.contains(&0), "{ids:?}");
    }

    #[test]
    fn the_folder_reads_as_the_vocabulary_does() {
        let vocabulary = learnt(TEXT, 290);
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in vocabulary.folder_files().unwrap().files {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        let (from_folder, direct) = (Tokenizer::from_folder(folder.path()).unwrap(), reader(&vocabulary));
        assert_eq!(from_folder.special().eos, [0]);
        assert_eq!(from_folder.vocab_size(), 290);
        for text in [TEXT, "  two  spaces\n\nand a tab\t…", "Grüße, 世界 🙂", ""] {
            let read = |tokenizer: &Tokenizer| tokenizer.encode(text, BosEos::Add, Markup::Text).unwrap();
            assert_eq!(read(&from_folder), read(&direct));
            assert_eq!(from_folder.decode(&read(&from_folder), ControlTokens::Show), text);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_text_comes_back(text in r"(?s)[ab \n\t'é世]{0,60}", learnt_from in r"[ab \n]{0,80}") {
            let tokenizer = reader(&learnt(&learnt_from, 300));
            let ids = tokenizer.encode(&text, BosEos::Omit, Markup::Text).unwrap();
            prop_assert_eq!(tokenizer.decode(&ids, ControlTokens::Show), text);
        }

        #[test]
        fn chunks_are_cut_where_the_text_is(text in r"[ab1.' \n\r\t\u{a0}]{0,80}") {
            let steps = split_steps(&[GPT2]).unwrap();
            let pieces = |parts: Vec<&str>| {
                let mut pieces = BTreeMap::new();
                for part in parts {
                    count_pieces(&steps, part, &mut pieces).unwrap();
                }
                pieces
            };
            let cut: Vec<&str> = chunks(&text, 3).collect();
            prop_assert_eq!(cut.concat(), text.clone());
            prop_assert_eq!(pieces(cut), pieces(vec![&text]));
        }

        #[test]
        fn the_order_of_texts_does_not_matter(texts in prop::collection::vec(r"[abc ]{0,20}", 0..6)) {
            let forward = learn_byte_level_bpe(texts.iter().map(String::as_str), 280, &[]).unwrap();
            let backward = learn_byte_level_bpe(texts.iter().rev().map(String::as_str), 280, &[]).unwrap();
            prop_assert_eq!(forward, backward);
        }
    }
}
