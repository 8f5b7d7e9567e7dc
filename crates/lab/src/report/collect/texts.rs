//! What a model makes of the texts of the sample: tokens, losses, losses by frequency.

use lathe_measure::run::{Document, ScoredToken, score_documents};
use lathe_measure::statistics::bootstrap;
use lathe_measure::tokens::{Frequencies, PredictedToken, TargetKind, token_losses};
use lathe_measure::{Number, Reason};
use lathe_tokenizer::{BosEos, Markup, Tokenizer};

use super::{Absent, Bench, NO_TOKENIZER, average, quantity};
use crate::documents::tokenise;
use crate::report::data::{Extent, FertilityRow, FrequencyBin, Overall, Quantity, TextKind, TextLoss};
use crate::sample::{self, SampleText};
use crate::{Error, Loaded};

/// Consecutive tokens that the bootstrap of a single text draws together: about a long sentence, so that the tokens of
/// a sentence, which are easy or hard together, do not count as independent.
pub(super) const BLOCK_TOKENS: usize = 64;

/// The sample as one model reads it.
pub(super) struct Sample<'m> {
    tokenizer: &'m Tokenizer,
    texts: &'static [SampleText],
    /// The part of each text that is measured.
    pub(super) documents: Vec<Document>,
}

pub(super) fn read_sample(loaded: &Loaded, extent: Extent) -> Result<Sample<'_>, Absent> {
    let Some(tokenizer) = &loaded.tokenizer else {
        return Err(Absent::Data(NO_TOKENIZER.to_owned()));
    };
    let texts = sample::texts();
    let documents = texts.iter().map(|text| tokenise(tokenizer, text.part(extent))).collect::<Result<_, _>>()?;
    Ok(Sample { tokenizer, texts, documents })
}

/// How the tokenizer cuts the whole text of each language. Start and end tokens are not counted.
pub(super) fn fertility(sample: &Sample<'_>, bench: &Bench<'_>) -> Result<Vec<FertilityRow>, Error> {
    let languages: Vec<&SampleText> = sample.texts.iter().filter(|text| text.kind == TextKind::Language).collect();
    bench.stage("tokens by language", languages.len() as u64, "texts", |watch| {
        let rows = languages.iter().map(|text| {
            let tokens = sample.tokenizer.encode(text.text, BosEos::Omit, Markup::Text)?.len() as u64;
            (watch.advance)(1);
            Ok(fertility_row(text, tokens))
        });
        rows.collect()
    })
}

fn fertility_row(text: &SampleText, tokens: u64) -> FertilityRow {
    let bytes = text.text.len() as u64;
    let characters = text.text.chars().count() as u64;
    let words = separates_words(&text.script).then(|| text.text.split_whitespace().count() as u64);
    let rate = |numerator: u64, denominator: u64, unit: &str| {
        let rate = Number::ratio(numerator as f64, denominator as f64, Reason::Empty);
        quantity(rate, unit, denominator)
    };
    let per_word = "tokens per word";
    FertilityRow {
        language: text.language.clone(),
        script: text.script.clone(),
        bytes,
        characters,
        words,
        tokens,
        tokens_per_character: rate(tokens, characters, "tokens per character"),
        bytes_per_token: rate(bytes, tokens, "bytes per token"),
        tokens_per_word: words.map_or_else(
            || Quantity::missing(per_word, "the script does not separate words"),
            |words| rate(tokens, words, per_word),
        ),
    }
}

fn separates_words(script: &str) -> bool {
    !matches!(script, "Han" | "Japanese" | "Thai")
}

/// Losses of every text, of all, and by frequency of the token type.
#[derive(Default)]
pub(super) struct Losses {
    pub(super) texts: Vec<TextLoss>,
    pub(super) overall: Option<Overall>,
    pub(super) bins: Vec<FrequencyBin>,
}

pub(super) fn losses(loaded: &Loaded, sample: &Sample<'_>, bench: &Bench<'_>) -> Result<Losses, Error> {
    let documents = &sample.documents;
    let tokens: usize = documents.iter().map(|document| document.ids.len().saturating_sub(document.added.max(1))).sum();
    let scored = bench.stage("loss by text", tokens as u64, "tokens", |watch| {
        score_documents(&loaded.decoder, documents, bench.spec.text_window, watch)
    })?;
    let seed = bench.spec.seed;
    let predicted: Vec<PredictedToken> = scored.iter().map(|token| token.predicted(documents)).collect();
    let mut bytes = vec![0; documents.len()];
    for token in text_of(documents, &scored) {
        bytes[token.document] += documents[token.document].bytes[token.position];
    }
    let all = token_losses(&predicted, &bytes, Frequencies::Targets, seed)?;
    let (text, types) = (&all.text, &all.types);
    let n = text.tokens as u64;
    let overall = Overall {
        documents: all.documents as u64,
        bytes: text.bytes,
        tokens: n,
        bits_per_byte: average(text.bits_per_byte, "bits per byte", text.bytes),
        nll_micro: average(text.nll, "nats per token", n),
        nll_macro: average(types.macro_nll, "nats per token type", types.types as u64),
        perplexity: average(text.perplexity, "1", n),
    };
    let bins = types.bins.iter().map(|bin| FrequencyBin {
        low: bin.count_least,
        high: bin.count_most + 1,
        types: bin.types as u64,
        tokens: bin.tokens as u64,
        nll: average(bin.nll, "nats per token type", bin.types as u64),
    });
    let texts = sample.texts.iter().enumerate().map(|(index, text)| {
        let of_text = text_of(documents, &scored).filter(|token| token.document == index);
        text_loss(text, &documents[index], &of_text.copied().collect::<Vec<_>>(), bench)
    });
    Ok(Losses { texts: texts.collect(), overall: Some(overall), bins: bins.collect() })
}

/// The scored tokens that stand for text, not for a marker.
fn text_of<'a>(documents: &'a [Document], scored: &'a [ScoredToken]) -> impl Iterator<Item = &'a ScoredToken> {
    scored.iter().filter(|token| documents[token.document].kinds[token.position] != TargetKind::Special)
}

/// Loss of one text; its interval resamples blocks of [`BLOCK_TOKENS`] tokens of this text, so it says how much the
/// number depends on the passage, not on the choice of the text.
fn text_loss(text: &SampleText, document: &Document, tokens: &[ScoredToken], bench: &Bench<'_>) -> TextLoss {
    struct Block {
        tokens: f64,
        bytes: f64,
        nats: f64,
    }
    let blocks: Vec<Block> = tokens
        .chunks(BLOCK_TOKENS)
        .map(|block| Block {
            tokens: block.len() as f64,
            bytes: block.iter().map(|token| document.bytes[token.position] as f64).sum(),
            nats: block.iter().map(|token| token.score.nll).sum(),
        })
        .collect();
    let [bits_per_byte, nll] = bootstrap(blocks.len(), bench.spec.seed, |times| {
        let sum = |of: fn(&Block) -> f64| -> f64 {
            blocks.iter().zip(times).map(|(block, times)| of(block) * f64::from(*times)).sum()
        };
        let nats = sum(|block| block.nats);
        [
            Number::ratio(nats / std::f64::consts::LN_2, sum(|block| block.bytes), Reason::NoBytes),
            Number::ratio(nats, sum(|block| block.tokens), Reason::NoTokens),
        ]
    });
    let bytes = tokens.iter().map(|token| document.bytes[token.position]).sum();
    let n = tokens.len() as u64;
    TextLoss {
        name: title(text),
        kind: text.kind,
        bytes,
        tokens: n,
        bits_per_byte: average(bits_per_byte, "bits per byte", bytes),
        nll: average(nll, "nats per token", n),
    }
}

/// A name for readers.
fn title(text: &SampleText) -> String {
    match text.kind {
        TextKind::Language => text.language.clone(),
        TextKind::Code => text.file.rsplit('/').next().unwrap_or(&text.file).to_owned(),
        TextKind::Legal | TextKind::Prose => {
            let words = text.name.split('_').map(|word| match word {
                "and" | "of" => word.to_owned(),
                "us" => "US".to_owned(),
                _ => word.chars().take(1).flat_map(char::to_uppercase).chain(word.chars().skip(1)).collect(),
            });
            words.collect::<Vec<String>>().join(" ")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_are_for_readers() {
        let titles: Vec<String> = sample::texts().iter().map(title).collect();
        for expected in ["English", "Declaration of Independence", "US Constitution", "access_log.py"] {
            assert!(titles.iter().any(|title| title == expected), "{expected} of {titles:?}");
        }
        let mut distinct = titles.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), titles.len(), "the page finds a text by its title");
    }

    #[test]
    fn words_are_counted_where_a_script_separates_them() {
        let row =
            |name: &str| sample::texts().iter().find(|text| text.name == name).map(|text| fertility_row(text, 100));
        let english = row("english").expect("it is there");
        assert_eq!(english.tokens_per_word.value, english.words.map(|words| 100.0 / words as f64));
        assert_eq!(english.tokens_per_character.value, Some(100.0 / english.characters as f64));
        assert_eq!(english.bytes_per_token.value, Some(english.bytes as f64 / 100.0));
        let thai = row("thai").expect("it is there");
        assert_eq!((thai.words, thai.tokens_per_word.value), (None, None));
        assert!(thai.tokens_per_word.reason.is_some());
    }
}
