//! UniTE: a distribution over the union of every member's top-k strings (Yao et al. 2024, arXiv 2410.03777, section 4).
//!
//! `T_i` are the k most probable byte strings of member i, the end of the text among them, and `U` their union. A string
//! of U that member i has as a token gets that token's logit; another one the logit of the first token that member i
//! would spell it with. `P_i` is the softmax of these over U, and `P = Σ λ_i P_i`.
//!
//! A first token says more than its string (" do" is the beginning of both " dog" and " done"), so `P` is no distribution
//! over continuations. [`Missing::WholeString`] takes the whole string's probability instead; only next-byte methods are
//! free of overlaps altogether.

use lathe_tokenizer::ByteVocabulary;
use serde::{Deserialize, Serialize};

use super::{EndSymbol, Symbol, Vote, by_rank, sum_in_order};

/// The options of UniTE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Unite {
    /// Strings of each member.
    pub k: usize,
    /// What becomes of a string whose first token counts already.
    pub duplicates: Duplicates,
    /// How a string is scored that is no token.
    pub missing: Missing,
    /// What is appended.
    pub append: Append,
}

impl Default for Unite {
    fn default() -> Self {
        Self { k: TOP_K, duplicates: Duplicates::default(), missing: Missing::default(), append: Append::default() }
    }
}

/// The paper's k.
pub const TOP_K: usize = 10;

/// What becomes of a string that is no token of a member, where its first token already stands for another string.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Duplicates {
    /// It gets no probability from that member: the token's probability counts once.
    #[default]
    Exclude,
    /// It gets the same logit (released code, one branch).
    Keep,
    /// Its logit is the number 0 (released code, the other branch), which depends on where a model's logits happen to lie.
    RepoZero,
}

/// How a string is scored that is no token of a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// By its first token, which is an upper bound.
    #[default]
    FirstToken,
    /// By the product over its tokens, with one more forward pass.
    WholeString,
}

/// What is appended to the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Append {
    /// The string that won.
    #[default]
    String,
    /// The first token that the first member spells it with (released code).
    PrimaryFirstToken,
}

/// What one member says at one step.
pub struct Row<'a> {
    /// Its vocabulary.
    pub vocabulary: &'a ByteVocabulary,
    /// Logits by id.
    pub logits: &'a [f32],
    /// The tokens that the member spells a string with, after the text so far; none where it cannot.
    pub spell: &'a dyn Fn(&[u8]) -> Option<Vec<u32>>,
}

/// The logit of a symbol: log-sum-exp over its ids. None where no id has its bytes.
#[must_use]
pub fn logit(vocabulary: &ByteVocabulary, logits: &[f32], symbol: &Symbol) -> Option<f64> {
    let over = |ids: &[u32]| log_sum_exp(ids.iter().filter_map(|id| logits.get(*id as usize)).map(|l| f64::from(*l)));
    match symbol {
        Symbol::End => (!vocabulary.ends().is_empty()).then(|| over(vocabulary.ends())),
        Symbol::Text(bytes) => vocabulary.find(bytes).map(|string| over(vocabulary.ids(string))),
    }
}

/// T_i: the k symbols with the largest logits, the largest first; of equal ones the smaller bytes.
#[must_use]
pub fn top(vocabulary: &ByteVocabulary, logits: &[f32], k: usize, ends: EndSymbol) -> Vec<(Symbol, f64)> {
    // The best so far as (logit, string), the last one the worst.
    let mut best: Vec<(f64, u32)> = Vec::with_capacity(k + 1);
    let offer = |best: &mut Vec<(f64, u32)>, logit: f64, string: u32| {
        let at = best.partition_point(|(other, of)| *other > logit || (*other == logit && *of < string));
        if at < k && logit > f64::NEG_INFINITY {
            best.insert(at, (logit, string));
            best.truncate(k);
        }
    };
    for (chunk, values) in logits.chunks(CHUNK).enumerate() {
        let least = if best.len() < k { f32::NEG_INFINITY } else { best[k - 1].0 as f32 };
        // Most chunks hold nothing of interest, and their largest value is found at once.
        if values.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b)) < least {
            continue;
        }
        for (offset, logit) in values.iter().enumerate() {
            if *logit >= least
                && let Some(string) = vocabulary.string_of((chunk * CHUNK + offset) as u32)
                && vocabulary.ids(string).len() == 1
            {
                offer(&mut best, f64::from(*logit), string);
            }
        }
    }
    for &string in vocabulary.shared() {
        let ids = vocabulary.ids(string).iter().filter_map(|id| logits.get(*id as usize));
        offer(&mut best, log_sum_exp(ids.map(|logit| f64::from(*logit))), string);
    }
    let mut symbols: Vec<_> =
        best.into_iter().map(|(logit, string)| (Symbol::Text(vocabulary.string(string).to_vec()), logit)).collect();
    if ends == EndSymbol::Counts
        && let Some(logit) = logit(vocabulary, logits, &Symbol::End)
        && logit > f64::NEG_INFINITY
    {
        let at = symbols.partition_point(|(_, other)| *other >= logit);
        symbols.insert(at, (Symbol::End, logit));
        symbols.truncate(k);
    }
    symbols
}

/// Logits that are looked at together.
const CHUNK: usize = 256;

/// U, the most probable symbol of any member first; with it what each member gives its own top k.
#[must_use]
pub fn union(rows: &[Row<'_>], k: usize, ends: EndSymbol) -> Vec<Symbol> {
    let mut ranked: Vec<(f64, Symbol)> = Vec::new();
    for row in rows {
        let symbols = top(row.vocabulary, row.logits, k, ends);
        let total = log_sum_exp(symbols.iter().map(|(_, logit)| *logit));
        ranked.extend(symbols.into_iter().map(|(symbol, logit)| (logit - total, symbol)));
    }
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let mut union: Vec<Symbol> = Vec::with_capacity(ranked.len());
    for (_, symbol) in ranked {
        if !union.contains(&symbol) {
            union.push(symbol);
        }
    }
    union
}

/// z_i over U: one member's logits of the union's symbols, −∞ for what it cannot write.
#[must_use]
pub fn scores(row: &Row<'_>, union: &[Symbol], duplicates: Duplicates) -> Vec<f64> {
    let mut scores: Vec<Option<f64>> = union.iter().map(|symbol| logit(row.vocabulary, row.logits, symbol)).collect();
    let has = |symbol: &Symbol| union.contains(symbol);
    // Strings whose probability is counted as the first token of another one.
    let mut taken: Vec<u32> = Vec::new();
    for (symbol, score) in union.iter().zip(&mut scores) {
        let (Symbol::Text(bytes), None) = (symbol, &score) else { continue };
        let first = (row.spell)(bytes).and_then(|ids| row.vocabulary.string_of(*ids.first()?));
        let Some(first) = first else { continue };
        let first_symbol = Symbol::Text(row.vocabulary.string(first).to_vec());
        let is_duplicate = has(&first_symbol) || taken.contains(&first);
        *score = match duplicates {
            Duplicates::Exclude if is_duplicate => None,
            Duplicates::RepoZero if is_duplicate => Some(0.0),
            _ => logit(row.vocabulary, row.logits, &first_symbol),
        };
        taken.push(first);
    }
    scores.into_iter().map(|score| score.unwrap_or(f64::NEG_INFINITY)).collect()
}

/// The strings of the union that are no tokens of a member: their places in it, and the tokens that spell them.
#[must_use]
pub fn missing(row: &Row<'_>, union: &[Symbol]) -> Vec<(usize, Vec<u32>)> {
    let spelt = |symbol: &Symbol| match symbol {
        Symbol::Text(bytes) if row.vocabulary.find(bytes).is_none() => (row.spell)(bytes).filter(|ids| !ids.is_empty()),
        _ => None,
    };
    union.iter().enumerate().filter_map(|(place, symbol)| Some((place, spelt(symbol)?))).collect()
}

/// P over U from every member's scores, sorted by rank. Members whose scores are all −∞ are left out; how many says the
/// second value.
#[must_use]
pub fn combine(union: Vec<Symbol>, scores: &[Vec<f64>], weights: &[f64]) -> (Vec<Vote>, usize) {
    let mut silent = 0;
    let members: Vec<Vec<f64>> = scores
        .iter()
        .map(|scores| {
            let total = log_sum_exp(scores.iter().copied());
            if total == f64::NEG_INFINITY {
                silent += 1;
                return vec![0.0; scores.len()];
            }
            scores.iter().map(|score| (score - total).exp()).collect()
        })
        .collect();
    let speaking = members.iter().zip(weights).filter(|(p, _)| p.iter().any(|p| *p > 0.0));
    let total = sum_in_order(&mut speaking.map(|(_, weight)| *weight).collect::<Vec<_>>());
    let votes = union.into_iter().enumerate().map(|(at, symbol)| {
        let of: Vec<f64> = members.iter().map(|member| member[at]).collect();
        let mut parts: Vec<f64> = of.iter().zip(weights).map(|(p, weight)| p * weight).collect();
        let p = if total > 0.0 { sum_in_order(&mut parts) / total } else { 0.0 };
        Vote { symbol, p, members: of }
    });
    let mut votes: Vec<Vote> = votes.collect();
    votes.sort_by(by_rank);
    (votes, silent)
}

/// ln Σ exp, −∞ for nothing.
#[must_use]
pub fn log_sum_exp(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let largest = values.clone().fold(f64::NEG_INFINITY, f64::max);
    if largest == f64::NEG_INFINITY {
        return largest;
    }
    largest + values.map(|value| (value - largest).exp()).sum::<f64>().ln()
}
