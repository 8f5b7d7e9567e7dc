//! `lathe tune tokenizer`: byte-level BPE learnt from texts, and what the size of a vocabulary does to rare types.
//!
//! The result is a folder with `tokenizer.json` and `tokenizer_config.json`, as a model has beside its weights. A smaller
//! vocabulary is the beginning of a larger one, so a study of many sizes learns once.

use std::path::PathBuf;

use lathe_measure::tokens::{Concentration, SPLIT_PERCENTILE, concentration, split_count};
use lathe_measure::{Number, Reason};
use lathe_tokenizer::{LEAST_VOCABULARY, SizeCounts, learn_byte_level_bpe};
use serde::{Deserialize, Serialize};

use crate::documents::read_texts;
use crate::export::{TemporaryFolder, check_target, put};
use crate::{Context, Error, Texts, WrittenFile};

/// Types that are rarer than this are called rare in a study: 0.01 % of the tokens, the paper's threshold as its reviews
/// quote it.
const RARE: f64 = 1e-4;

/// A larger vocabulary than any model has; a number above is a slip.
const MOST_VOCABULARY: usize = 1 << 20;

/// What to learn from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TuneTokenizerSpec {
    /// The texts.
    pub texts: Texts,
    /// Tokens of the vocabulary: 256 bytes, the end-of-text token, and joined tokens.
    pub vocab_size: usize,
    /// Sizes of vocabularies to count rare types under.
    #[serde(default)]
    pub study: Vec<usize>,
    /// The folder to write; it must not exist, and the folder above it must. A step of an experiment has its own.
    #[serde(default)]
    pub out: PathBuf,
}

/// A tokenizer that was learnt.
#[derive(Clone, Debug, Serialize)]
pub struct TuneTokenizerResult {
    /// The folder.
    pub out: PathBuf,
    /// Every file in it, by name.
    pub files: Vec<WrittenFile>,
    /// Texts that it was learnt from.
    pub texts: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Tokens of the vocabulary.
    pub vocab_size: usize,
    /// Pairs that are joined.
    pub merges: usize,
    /// The texts under this vocabulary.
    pub counts: VocabularyStudy,
    /// The texts under vocabularies of other sizes, rising.
    pub study: Vec<VocabularyStudy>,
}

/// Texts under a vocabulary.
#[derive(Clone, Debug, Serialize)]
pub struct VocabularyStudy {
    /// Tokens of the vocabulary.
    pub vocab_size: usize,
    /// Tokens of the texts.
    pub tokens: u64,
    /// Bytes of a token, mean over tokens.
    pub bytes_per_token: Number,
    /// Types that occur.
    pub types: usize,
    /// Types that never occur: bytes, and tokens that became parts of others.
    pub unseen: usize,
    /// Share of the types that occur once (0 to 1).
    pub singleton_share: Number,
    /// Share of the types with a count below the 95th percentile of the counts (0 to 1).
    pub below_percentile: Number,
    /// The count at the percentile.
    pub percentile_count: u64,
    /// Share of the types that make up less than 0.01 % of the tokens each (0 to 1).
    pub rare_share: Number,
    /// How the counts are spread over types.
    pub concentration: Concentration,
}

/// Learns a tokenizer.
///
/// # Errors
/// A size makes no sense; a text cannot be read; the texts have too few pairs for the vocabulary; the folder exists or
/// cannot be written.
pub fn tune_tokenizer(spec: &TuneTokenizerSpec, context: &Context<'_>) -> Result<TuneTokenizerResult, Error> {
    check(spec)?;
    check_target(&spec.out)?;
    let texts = read_texts(&spec.texts, context)?;
    let largest = spec.study.iter().copied().fold(spec.vocab_size, usize::max);
    let sizes: Vec<usize> = spec.study.iter().copied().chain([spec.vocab_size]).collect();
    let learnt = context.stage("learning a vocabulary", 0, "", || {
        learn_byte_level_bpe(texts.iter().map(|text| text.text.as_str()), largest, &sizes)
    })?;
    let found = learnt.tokens.len();
    if let Some(short) = sizes.iter().copied().filter(|size| *size > found).min() {
        let field = if short == spec.vocab_size { "--vocab-size" } else { "--study" };
        let problem = format!("{short} tokens cannot be learnt: these texts have pairs for {found}");
        return Err(refuse(field, problem, "give more texts, or ask for fewer tokens"));
    }
    let bytes = learnt.bytes;
    let at = |size: usize| learnt.counts.iter().find(|counts| counts.size == size).map(|counts| study(counts, bytes));
    let counts = at(spec.vocab_size).ok_or_else(|| {
        refuse("--vocab-size", format!("{} tokens were not reached", spec.vocab_size), "ask for fewer")
    })?;
    let mut studied = spec.study.clone();
    studied.sort_unstable();
    studied.dedup();
    let study = studied.into_iter().filter_map(at).collect();
    let vocabulary = learnt.truncated(spec.vocab_size);
    let files = vocabulary.folder_files()?.files;
    let folder = TemporaryFolder::beside(&spec.out)?;
    for (name, content) in &files {
        put(&folder.path.join(name), content)?;
    }
    folder.rename(&spec.out)?;
    let written = |(file, content): (String, Vec<u8>)| WrittenFile { file, bytes: content.len() as u64 };
    Ok(TuneTokenizerResult {
        out: spec.out.clone(),
        files: files.into_iter().map(written).collect(),
        texts: texts.len(),
        bytes,
        vocab_size: vocabulary.tokens.len(),
        merges: vocabulary.merges.len(),
        counts,
        study,
    })
}

fn refuse(field: &'static str, problem: String, hint: &str) -> Error {
    Error::Spec { field, problem, hint: Some(hint.to_owned()) }
}

fn check(spec: &TuneTokenizerSpec) -> Result<(), Error> {
    let sizes = spec.study.iter().map(|size| ("--study", *size));
    for (field, size) in sizes.chain([("--vocab-size", spec.vocab_size)]) {
        if size < LEAST_VOCABULARY {
            let problem = format!("{size} tokens have no room for the 256 bytes and the end-of-text token");
            return Err(refuse(field, problem, "at least 257; 2,000 to 50,000 are usual"));
        }
        if size > MOST_VOCABULARY {
            let problem = format!("{size} tokens are more than {MOST_VOCABULARY}");
            return Err(refuse(field, problem, "2,000 to 50,000 are usual"));
        }
    }
    Ok(())
}

fn study(of: &SizeCounts, bytes: u64) -> VocabularyStudy {
    let spread = concentration(&of.counts);
    let types = spread.types;
    let at_percentile = split_count(of.counts.iter().copied(), SPLIT_PERCENTILE);
    let seen = || of.counts.iter().filter(|&&count| count > 0);
    let share = |many: usize| Number::ratio(many as f64, types as f64, Reason::NoTokens);
    let rare = spread.types_under.iter().find(|point| point.relative_frequency == RARE);
    VocabularyStudy {
        vocab_size: of.size,
        tokens: spread.tokens,
        bytes_per_token: Number::ratio(bytes as f64, spread.tokens as f64, Reason::NoTokens),
        types,
        unseen: of.size - types,
        singleton_share: share(seen().filter(|&&count| count == 1).count()),
        below_percentile: share(seen().filter(|&&count| count < at_percentile).count()),
        percentile_count: at_percentile,
        rare_share: rare.map_or(Number::Undefined(Reason::NoTokens), |point| point.share_of_types),
        concentration: spread,
    }
}
