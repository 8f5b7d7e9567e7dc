//! A tokenizer that was learnt.

use lathe_lab::figure::{count, number, share, value};
use lathe_lab::{TuneTokenizerResult, VocabularyStudy};

use super::lines;
use crate::table::Align;

/// `lathe tune tokenizer`
pub(crate) fn tokenizer(result: &TuneTokenizerResult) -> String {
    let TuneTokenizerResult { texts, bytes, vocab_size, merges, .. } = result;
    let mut text = format!(
        "{} tokens, {} of them joined, from {} texts of {} bytes: {}\n\n",
        count(*vocab_size as u64),
        count(*merges as u64),
        count(*texts as u64),
        count(*bytes),
        result.out.display(),
    );
    let rows = if result.study.is_empty() { std::slice::from_ref(&result.counts) } else { &result.study[..] };
    let row = |of: &VocabularyStudy| {
        vec![
            count(of.vocab_size as u64),
            count(of.tokens),
            value(of.bytes_per_token),
            count(of.types as u64),
            count(of.unseen as u64),
            share(of.singleton_share),
            share(of.rare_share),
            share(of.below_percentile),
            format!("under {}", count(of.percentile_count)),
        ]
    };
    text += &lines(
        &[
            ("vocabulary", Align::Right),
            ("tokens", Align::Right),
            ("bytes each", Align::Right),
            ("types seen", Align::Right),
            ("unseen", Align::Right),
            ("once", Align::Right),
            ("rare", Align::Right),
            ("low", Align::Right),
            ("low is", Align::Left),
        ],
        rows.iter().map(row).collect(),
    );
    text += "\nShares of the types that are seen. rare: less than 0.01 % of the tokens. low: a count below the 95th percentile of the\n\
             counts.\n";
    if let Some(half) = result.counts.concentration.types_for_mass.first() {
        text += &format!(
            "With {} tokens, {} types are half of the text ({} % of the types).\n",
            count(*vocab_size as u64),
            count(half.types as u64),
            half.share_of_types.value().map_or("–".into(), |share| number(100.0 * share)),
        );
    }
    text
}
