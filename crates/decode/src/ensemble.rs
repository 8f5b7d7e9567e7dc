//! Several models write one text, each with its own tokenizer.
//!
//! What they share is bytes. Every member reads its own prompt and the text so far as its own tokens (`view.rs`), gives its
//! next-token logits, and a method turns those into what comes next: a byte string that a member has as a token
//! ([`unite`], `gac.rs`) or a single byte (`covers.rs`, `chared.rs`). What was chosen is appended as bytes; a member whose own
//! tokens change with it goes back to the last one that did not. `safe.rs` lets the first member write alone where the
//! others agree.
//!
//! A text is greedy by default. Sums over members don't depend on their order, and ties are broken by a member's largest
//! probability and then by bytes, so neither does a text with equal weights and without a gate.

mod chared;
mod covers;
mod gac;
mod safe;
mod session;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;
pub mod unite;
mod view;

use std::ops::ControlFlow;

use lathe_model::{Decoder, PrefixCache};
use lathe_tokenizer::ByteVocabulary;
use serde::{Deserialize, Serialize};

use crate::DecodeError;
pub use covers::{Mixture, Tokenisations};
pub use safe::{DRAFT, GATED_BEYOND, Safe, Sharpen};
use session::Session;
pub use unite::Unite;

/// A model of an ensemble.
#[derive(Clone, Copy)]
pub struct Member<'a> {
    /// The model.
    pub decoder: &'a Decoder,
    /// Its vocabulary as byte strings.
    pub vocabulary: &'a ByteVocabulary,
    /// The tokens of bytes that continue a text; none where the vocabulary cannot spell them.
    pub spell: &'a (dyn Fn(&[u8]) -> Option<Vec<u32>> + Sync),
}

/// What may come next in a text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Symbol {
    /// These bytes, at least one.
    Text(Vec<u8>),
    /// Its end.
    End,
}

/// How members' distributions become one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "by", deny_unknown_fields)]
pub enum Method {
    /// The union of every member's top k (UniTE, Yao et al. 2024, arXiv 2410.03777, section 4).
    Unite(Unite),
    /// The union of all vocabularies (GaC, Yu et al. 2024, arXiv 2406.12585).
    Gac,
    /// Next-byte distributions over all ways to spell the text (after Vieira et al. 2024, arXiv 2412.03719).
    Bytes(Covers),
    /// Next-byte distributions of one spelling, with a vote on where a token ends (CharED, Gu et al. 2024, arXiv
    /// 2407.11009).
    Chared,
}

/// How next-byte distributions are computed and combined.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Covers {
    /// How the members' distributions become one.
    pub mixture: Mixture,
    /// Which spellings count.
    pub tokenisations: Tokenisations,
    /// Spellings that are followed at most, for each member.
    pub beam: usize,
    /// Spellings with less than this share of the most probable one are not followed.
    pub prune: f64,
}

impl Default for Covers {
    /// Five spellings within a hundredth of the best.
    fn default() -> Self {
        Self { mixture: Mixture::default(), tokenisations: Tokenisations::default(), beam: 5, prune: 0.01 }
    }
}

/// How a text is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// How distributions become one.
    pub method: Method,
    /// λ, one for each member, not negative, with a positive sum; they are divided by it. A member with weight 0 is left
    /// out.
    pub weights: Vec<f64>,
    /// Whether the first member writes alone where the others agree.
    pub gate: Option<Safe>,
    /// 0 takes the most probable symbol, 1 draws from the combined distribution, others from its power 1/T.
    pub temperature: f64,
    /// Seed of the draws.
    pub seed: u64,
    /// Texts that end the text before them.
    pub stops: Vec<String>,
    /// Whether the members' end tokens are a symbol.
    pub ends: EndSymbol,
    /// Tokens of the first member after which the text ends.
    pub max_tokens: usize,
    /// Symbols whose votes are recorded at every step.
    pub votes: usize,
}

/// Whether a text can end by the members' choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndSymbol {
    /// Their end tokens together are one symbol.
    #[default]
    Counts,
    /// They are impossible.
    Excluded,
}

/// One symbol of a text, with what was known when it was chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct EnsembleStep {
    /// What was appended.
    pub symbol: Symbol,
    /// Who chose it.
    pub origin: Origin,
    /// Its probability: under the combined distribution, or the first member's own where it wrote alone.
    pub p: f64,
    /// The most probable symbols, the most probable first.
    pub votes: Vec<Vote>,
}

/// Who chose a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// All members together.
    Ensemble,
    /// The first member, and the others agree.
    Agreed,
    /// The first member: another has no token boundary there, so that its opinion is about something else.
    NoBoundary,
}

/// What the members think of one symbol.
#[derive(Clone, Debug, PartialEq)]
pub struct Vote {
    /// The symbol.
    pub symbol: Symbol,
    /// Its combined probability.
    pub p: f64,
    /// Its probability under each member, in the members' order; those with weight 0 have 0.
    pub members: Vec<f64>,
}

/// A text with its record.
#[derive(Clone, Debug, PartialEq)]
pub struct EnsembleText {
    /// Its bytes, without a stop string.
    pub text: Vec<u8>,
    /// Tokens of the first member.
    pub tokens: usize,
    /// Every symbol; none where no votes were asked for.
    pub steps: Vec<EnsembleStep>,
    /// Why it ended.
    pub ended: EnsembleEnd,
    /// What happened.
    pub counts: Counts,
    /// Where the time went.
    pub costs: Costs,
}

/// Why a text ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum EnsembleEnd {
    /// The members ended it.
    EndSymbol,
    /// A stop string.
    StopString {
        /// The string.
        string: String,
    },
    /// It has as many tokens as it may have.
    Length,
    /// A member's context is full: it could not read on.
    ContextFull {
        /// Which one, from 0.
        member: usize,
    },
}

/// What happened while a text was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Symbols that were chosen by all members together.
    pub ensembled: usize,
    /// Symbols that the first member wrote alone.
    pub alone: usize,
    /// How often a member read tokens again because the text is spelt differently than before.
    pub respelt: usize,
    /// How often a member had nothing to say, and was left out of one symbol.
    pub silent: usize,
}

/// Time by what it was spent on: seconds, or in an average milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Costs {
    /// Forward passes of all members, heads included.
    pub forward: f64,
    /// Ranking, union and combination.
    pub combine: f64,
    /// Encoding what others proposed.
    pub spell: f64,
}

/// Models that write together.
pub struct Ensemble<'a> {
    members: Vec<Member<'a>>,
    seconds: &'a (dyn Fn() -> f64 + Sync),
}

/// What members have read: prompts that begin like the last one are read from there on.
#[derive(Default)]
pub struct Memory {
    caches: Vec<Option<PrefixCache>>,
    universe: Option<gac::Universe>,
}

/// Hears every step of a text with the bytes that have become certain, and may stop it.
pub type StepListener<'a> = dyn FnMut(&EnsembleStep, &[u8]) -> ControlFlow<()> + 'a;

impl Memory {
    /// Takes what the members have read, by member, for another ensemble of some of them.
    pub fn take(&mut self) -> Vec<Option<PrefixCache>> {
        std::mem::take(&mut self.caches)
    }

    /// Gives members what they have read elsewhere.
    pub fn put(&mut self, caches: Vec<Option<PrefixCache>>) {
        self.caches = caches;
    }
}

impl<'a> Ensemble<'a> {
    /// Members in the order of their weights; the first one drafts and counts tokens. `seconds` is a clock, for [`Costs`].
    #[must_use]
    pub fn new(members: Vec<Member<'a>>, seconds: &'a (dyn Fn() -> f64 + Sync)) -> Self {
        Self { members, seconds }
    }

    /// Writes one text after `prompts`, each member's own tokens. `item` numbers the text for its draws. `memory` belongs to
    /// these members; a new one is empty. None where the listener stopped it.
    ///
    /// # Errors
    /// An option or a prompt cannot be used; a model fails.
    pub fn write(
        &self,
        plan: &Plan,
        item: u64,
        prompts: &[Vec<u32>],
        memory: &mut Memory,
        on: &mut StepListener<'_>,
    ) -> Result<Option<EnsembleText>, DecodeError> {
        plan.check(self.members.len())?;
        memory.caches.resize_with(self.members.len(), || None);
        if plan.method == Method::Gac && memory.universe.is_none() {
            let vocabularies: Vec<_> = self.members.iter().map(|member| member.vocabulary).collect();
            memory.universe = Some(gac::Universe::of(&vocabularies));
        }
        let mut session = Session::begin(self, memory, plan, item, prompts)?;
        let flow = match plan.method {
            Method::Unite(_) | Method::Gac => session.write_strings(on)?,
            Method::Bytes(covers) => session.write_bytes(&covers, on)?,
            Method::Chared => session.write_characters(on)?,
        };
        Ok(flow.is_continue().then(|| session.finish()))
    }
}

impl Plan {
    /// Checks the options for so many members.
    ///
    /// # Errors
    /// One is out of its range, or does not go with another.
    pub fn check(&self, members: usize) -> Result<(), DecodeError> {
        let bad = |field, problem: String, hint| Err(DecodeError::Option { field, problem, hint: Some(hint) });
        if self.weights.len() != members {
            let problem = format!("{} weights for {members} members", self.weights.len());
            return bad("--weights", problem, "one for each member");
        }
        if let Some(weight) = self.weights.iter().find(|weight| !(weight.is_finite() && **weight >= 0.0)) {
            return bad(
                "--weights",
                format!("{weight} is no weight"),
                "numbers from 0 on; they are divided by their sum",
            );
        }
        let sum: f64 = self.weights.iter().sum();
        if !(sum > 0.0 && sum.is_finite()) {
            return bad("--weights", format!("their sum is {sum}"), "at least one member needs a weight above 0");
        }
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return bad("--temperature", format!("{} is out of range", self.temperature), "0 is greedy decoding");
        }
        if self.max_tokens == 0 {
            return bad("--max-tokens", "0 tokens are no text".into(), "at least 1");
        }
        if self.stops.iter().any(String::is_empty) {
            return bad("--stop", "an empty string ends every text".into(), "at least one character");
        }
        match self.method {
            Method::Unite(unite) if unite.k == 0 => {
                return bad("--k", "the union of no tokens is empty".into(), "10 is usual");
            }
            Method::Bytes(Covers { beam: 0, .. }) => {
                return bad("--beam", "no spelling would be followed".into(), "5 is usual");
            }
            Method::Bytes(Covers { prune, .. }) if !(0.0..1.0).contains(&prune) => {
                return bad("--beam-share", format!("{prune} is no share"), "from 0 to below 1");
            }
            _ => {}
        }
        let Some(safe) = &self.gate else { return Ok(()) };
        if safe.draft == 0 {
            return bad("--draft", "a draft of no tokens never ends".into(), "5 is usual");
        }
        if self.weights[0] == 0.0 {
            return bad("--weights", "the first member drafts, but has no weight".into(), "name another one first");
        }
        if self.temperature != 0.0 {
            return bad("--temperature", "behind the gate a text is greedy".into(), "use --gate off to draw");
        }
        match self.method {
            Method::Unite(Unite { append: unite::Append::PrimaryFirstToken, .. }) => {
                bad("--gate", "the gate checks whole strings, not first tokens".into(), "use --append string with it")
            }
            _ => Ok(()),
        }
    }

    /// λ, with sum 1.
    fn normalised_weights(&self) -> Vec<f64> {
        let sum: f64 = self.weights.iter().sum();
        self.weights.iter().map(|weight| weight / sum).collect()
    }
}

/// Σ over members, in an order that is not theirs.
fn sum_in_order(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.iter().sum()
}

/// The order of votes: the most probable first; of equal ones that with the largest probability under any member, then
/// the smaller bytes.
fn by_rank(a: &Vote, b: &Vote) -> std::cmp::Ordering {
    let largest = |vote: &Vote| vote.members.iter().copied().fold(0.0, f64::max);
    b.p.total_cmp(&a.p).then_with(|| largest(b).total_cmp(&largest(a))).then_with(|| a.symbol.cmp(&b.symbol))
}
