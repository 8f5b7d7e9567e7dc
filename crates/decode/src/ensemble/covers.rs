//! Next-byte distributions of a token model (after Vieira et al. 2024, arXiv 2412.03719; Phan et al. 2024, arXiv
//! 2410.09303).
//!
//! A text of bytes can be spelt in many ways. A cover is a sequence of whole tokens inside the text and a prefix that the
//! rest of the text leaves of one more: a range of strings in byte order. Its mass is `p(tokens) · Σ p(string | tokens)`
//! over the range. The probability that byte b comes next is the mass of what begins with b, summed over all covers, by the
//! mass of all. Where the text comes to the end of a token, a cover with that token complete begins beside the one in
//! which it goes on, so that where tokens end is never chosen.
//!
//! With an unlimited beam this is exact. A beam follows the most probable covers only.

use std::ops::Range;
use std::rc::Rc;

use lathe_model::{Batch, KvCache, NoTap};
use lathe_tokenizer::ByteVocabulary;
use serde::{Deserialize, Serialize};

use super::unite::log_sum_exp;
use super::view::View;
use super::{Covers, EndSymbol, Member, Symbol, Vote, by_rank, gac, sum_in_order};
use crate::DecodeError;

/// How next-byte distributions of members become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mixture {
    /// `Σ λ_i P_i(b | x)`.
    #[default]
    Arithmetic,
    /// `Π P_i(b | x)^λ_i`, normalised; where that is 0 for every byte, because no cover that is followed has one in common
    /// with the other members, the arithmetic mean.
    Geometric,
    /// `Σ λ_i(x) P_i(b | x)` with `λ_i(x) ∝ λ_i P_i(x)`: the mixture of the members' distributions over whole strings,
    /// exactly.
    Posterior,
}

/// Which spellings of a text count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tokenisations {
    /// All, as the model itself would sample them.
    #[default]
    All,
    /// Those in which the tokenizer writes each pair of neighbours in the same way; it is asked about next tokens of
    /// probability 10⁻⁶ or more, which takes time.
    Canonical,
}

/// Below this probability a next token is not asked about.
const ASKED_ABOUT: f64 = 1e-6;

/// Probabilities of the next token as sums over strings in byte order.
#[derive(Debug)]
pub(super) struct Masses {
    /// Sum of the probabilities of the strings before each; one more for the sum of all.
    cumulative: Vec<f64>,
    /// Of the end of the text.
    end: f64,
}

impl Masses {
    /// From probabilities by string, that of the end last.
    pub(super) fn new(probabilities: &[f64]) -> Self {
        let (end, strings) = probabilities.split_last().map_or((0.0, &[][..]), |(end, rest)| (*end, rest));
        let mut cumulative = Vec::with_capacity(strings.len() + 1);
        let mut sum = 0.0;
        cumulative.push(sum);
        for p in strings {
            sum += p;
            cumulative.push(sum);
        }
        Self { cumulative, end }
    }

    fn of(&self, range: &Range<u32>) -> f64 {
        self.cumulative[range.end as usize] - self.cumulative[range.start as usize]
    }
}

/// A node of a vocabulary's tree: the strings that begin with the same `depth` bytes.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) masses: Rc<Masses>,
    pub(super) range: Range<u32>,
    pub(super) depth: usize,
}

impl Node {
    pub(super) fn root(vocabulary: &ByteVocabulary, masses: Masses) -> Self {
        Self { masses: Rc::new(masses), range: 0..vocabulary.len() as u32, depth: 0 }
    }

    pub(super) fn mass(&self) -> f64 {
        self.masses.of(&self.range)
    }

    /// Mass of the end of the text, which comes between tokens only.
    pub(super) fn end(&self) -> f64 {
        if self.depth == 0 { self.masses.end } else { 0.0 }
    }

    /// The string that ends here, if one does.
    pub(super) fn complete(&self, vocabulary: &ByteVocabulary) -> Option<u32> {
        let first = (!self.range.is_empty()).then_some(self.range.start)?;
        (vocabulary.string(first).len() == self.depth).then_some(first)
    }

    /// Mass of one string.
    pub(super) fn mass_of(&self, string: u32) -> f64 {
        self.masses.of(&(string..string + 1))
    }

    /// Adds `factor` times the mass of each next byte.
    pub(super) fn add_bytes(&self, vocabulary: &ByteVocabulary, factor: f64, bytes: &mut [f64; 256]) {
        let mut at = self.range.start + u32::from(self.complete(vocabulary).is_some());
        while at < self.range.end {
            let byte = vocabulary.string(at)[self.depth];
            let with = vocabulary.with_byte(at..self.range.end, self.depth, byte);
            bytes[usize::from(byte)] += factor * self.masses.of(&with);
            at = with.end;
        }
    }

    /// The node below, for one byte.
    pub(super) fn below(&self, vocabulary: &ByteVocabulary, byte: u8) -> Self {
        let start = self.range.start + u32::from(self.complete(vocabulary).is_some());
        let range = vocabulary.with_byte(start..self.range.end, self.depth, byte);
        Self { masses: Rc::clone(&self.masses), range, depth: self.depth + 1 }
    }
}

/// What the next byte is, or that there is none; sums to 1 unless it is all 0.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct NextByte {
    pub(super) bytes: [f64; 256],
    pub(super) end: f64,
}

impl NextByte {
    pub(super) fn is_silent(&self) -> bool {
        self.end <= 0.0 && self.bytes.iter().all(|p| *p <= 0.0)
    }

    /// The same with sum 1.
    pub(super) fn normalised(mut self) -> Self {
        let total = self.bytes.iter().sum::<f64>() + self.end;
        if total > 0.0 {
            self.bytes.iter_mut().for_each(|p| *p /= total);
            self.end /= total;
        }
        self
    }
}

/// Next-token probabilities after sequences of tokens.
pub(super) trait Language {
    /// Of each path, the model's whole history included. `live` are the paths that may be continued later; others may be
    /// forgotten.
    fn masses(&mut self, paths: &[Vec<u32>], live: &[&[u32]]) -> Result<Vec<Masses>, DecodeError>;
}

/// The covers of a text by one member's tokens.
#[derive(Debug)]
pub(super) struct Beam {
    covers: Vec<Cover>,
}

#[derive(Clone, Debug)]
struct Cover {
    path: Vec<u32>,
    node: Node,
    /// ln p(path), nats.
    log_p: f64,
}

impl Cover {
    fn log_mass(&self) -> f64 {
        self.log_p + (self.node.mass() + self.node.end()).ln()
    }
}

impl Beam {
    /// The only cover of a text that ends with a token.
    pub(super) fn new(vocabulary: &ByteVocabulary, path: Vec<u32>, masses: Masses, log_p: f64) -> Self {
        Self { covers: vec![Cover { path, node: Node::root(vocabulary, masses), log_p }] }
    }

    /// ln P(text) under the member, as far as the beam has followed it, nats.
    pub(super) fn log_p(&self) -> f64 {
        log_sum_exp(self.covers.iter().map(Cover::log_mass))
    }

    /// The longest path, tokens.
    pub(super) fn longest(&self) -> usize {
        self.covers.iter().map(|cover| cover.path.len()).max().unwrap_or(0)
    }

    /// The distribution of the next byte.
    pub(super) fn next(&self, vocabulary: &ByteVocabulary) -> NextByte {
        let mut next = NextByte { bytes: [0.0; 256], end: 0.0 };
        let largest = self.covers.iter().map(|cover| cover.log_p).fold(f64::NEG_INFINITY, f64::max);
        for cover in &self.covers {
            let factor = (cover.log_p - largest).exp();
            cover.node.add_bytes(vocabulary, factor, &mut next.bytes);
            next.end += factor * cover.node.end();
        }
        next.normalised()
    }

    /// Goes on by one byte.
    pub(super) fn push(
        &mut self,
        byte: u8,
        vocabulary: &ByteVocabulary,
        options: &Covers,
        language: &mut dyn Language,
    ) -> Result<(), DecodeError> {
        let mut candidates: Vec<Candidate> = Vec::new();
        for cover in &self.covers {
            let node = cover.node.below(vocabulary, byte);
            let complete = node.complete(vocabulary);
            if let Some(string) = complete {
                let path = [&cover.path[..], &vocabulary.ids(string)[..1]].concat();
                let log_p = cover.log_p + node.mass_of(string).ln();
                candidates.push(Candidate { log_mass: log_p, cover: Next::Begins { path, log_p } });
            }
            let range = node.range.start + u32::from(complete.is_some())..node.range.end;
            let inside = Cover { path: cover.path.clone(), node: Node { range, ..node }, log_p: cover.log_p };
            candidates.push(Candidate { log_mass: inside.log_mass(), cover: Next::GoesOn(inside) });
        }
        // Stable: of equal ones the earlier cover.
        candidates.sort_by(|a, b| b.log_mass.total_cmp(&a.log_mass));
        let best = candidates.first().map_or(0.0, |candidate| candidate.log_mass);
        let least = best + options.prune.ln();
        candidates.retain(|candidate| candidate.log_mass > f64::NEG_INFINITY && candidate.log_mass >= least);
        candidates.truncate(options.beam);
        self.covers.clear();
        let mut begun = Vec::new();
        for candidate in candidates {
            match candidate.cover {
                Next::GoesOn(cover) => self.covers.push(cover),
                Next::Begins { path, log_p } => begun.push((path, log_p)),
            }
        }
        let (paths, log_p): (Vec<_>, Vec<_>) = begun.into_iter().unzip();
        let live: Vec<&[u32]> = self.covers.iter().map(|cover| &cover.path[..]).collect();
        let masses = if paths.is_empty() { Vec::new() } else { language.masses(&paths, &live)? };
        let begun = paths.into_iter().zip(log_p).zip(masses);
        let begun = begun.map(|((path, log_p), masses)| Cover { path, node: Node::root(vocabulary, masses), log_p });
        self.covers.extend(begun);
        Ok(())
    }
}

/// A cover that may be followed.
struct Candidate {
    log_mass: f64,
    cover: Next,
}

enum Next {
    /// Inside a token.
    GoesOn(Cover),
    /// Behind a token that is complete.
    Begins { path: Vec<u32>, log_p: f64 },
}

/// The members' next bytes as one distribution, sorted by rank; `log_p` are their ln P(text). Silent members are left out;
/// how many says the second value.
pub(super) fn mix(next: &[NextByte], log_p: &[f64], weights: &[f64], mixture: Mixture) -> (Vec<Vote>, usize) {
    let silent = next.iter().zip(weights).filter(|(next, weight)| **weight > 0.0 && next.is_silent()).count();
    let speaks = |member: usize| weights[member] > 0.0 && !next[member].is_silent();
    let lambda: Vec<f64> = match mixture {
        Mixture::Posterior => {
            let of: Vec<f64> = (0..next.len())
                .map(|i| if speaks(i) { weights[i].ln() + log_p[i] } else { f64::NEG_INFINITY })
                .collect();
            let total = log_sum_exp(of.iter().copied());
            of.into_iter().map(|log| if total.is_finite() { (log - total).exp() } else { 0.0 }).collect()
        }
        _ => {
            let of: Vec<f64> = (0..next.len()).map(|i| if speaks(i) { weights[i] } else { 0.0 }).collect();
            let total = sum_in_order(&mut of.clone());
            of.into_iter().map(|weight| if total > 0.0 { weight / total } else { 0.0 }).collect()
        }
    };
    let vote = |symbol: Symbol, members: Vec<f64>| {
        let speaking = members.iter().zip(&lambda).filter(|(_, lambda)| **lambda > 0.0);
        let p = match mixture {
            Mixture::Geometric => {
                sum_in_order(&mut speaking.map(|(p, lambda)| p.ln() * lambda).collect::<Vec<_>>()).exp()
            }
            _ => sum_in_order(&mut speaking.map(|(p, lambda)| p * lambda).collect::<Vec<_>>()),
        };
        Vote { symbol, p, members }
    };
    let bytes = (0..=255u8)
        .map(|byte| vote(Symbol::Text(vec![byte]), next.iter().map(|next| next.bytes[usize::from(byte)]).collect()));
    let end = vote(Symbol::End, next.iter().map(|next| next.end).collect());
    let mut votes: Vec<Vote> =
        bytes.chain([end]).filter(|vote| vote.p > 0.0 && lambda.iter().any(|lambda| *lambda > 0.0)).collect();
    if mixture == Mixture::Geometric {
        if votes.is_empty() && lambda.iter().any(|lambda| *lambda > 0.0) {
            return mix(next, log_p, weights, Mixture::Arithmetic);
        }
        let total: f64 = votes.iter().map(|vote| vote.p).sum();
        votes.iter_mut().for_each(|vote| vote.p /= total);
    }
    votes.sort_by(by_rank);
    (votes, silent)
}

/// A member's model as the language of its beam: one slot of a cache for each path.
pub(super) struct Paths<'e, 'a> {
    member: &'e Member<'a>,
    cache: KvCache,
    /// Path by slot.
    paths: Vec<Option<Vec<u32>>>,
    /// Tokens of the prompt, which are spelt as they are.
    prompt: usize,
    tokenisations: Tokenisations,
    ends: EndSymbol,
    item: u64,
}

impl<'e, 'a> Paths<'e, 'a> {
    /// A beam that begins where the view stands.
    pub(super) fn begin(
        view: &mut View<'e, 'a>,
        options: &Covers,
        ends: EndSymbol,
        item: u64,
    ) -> Result<(Self, Beam), DecodeError> {
        let logits = view.logits(1, item)?.remove(0);
        // One for each cover that is followed, and one more while another is copied.
        let slots = options.beam + 1;
        let mut cache = KvCache::new(view.member.decoder.spec(), slots);
        view.lend(&mut cache, 0)?;
        let mut paths = vec![None; slots];
        let path = view.ids().to_vec();
        paths[0] = Some(path.clone());
        let prompt = path.len() - view.tokens();
        let tokenisations = options.tokenisations;
        let this = Self { member: view.member, cache, paths, prompt, tokenisations, ends, item };
        let masses = this.of_logits(&path, &logits);
        let beam = Beam::new(this.vocabulary(), path, masses, 0.0);
        Ok((this, beam))
    }

    /// A beam for `text` after the member had nothing to say: the text as the tokenizer spells it, where its last token may
    /// also go on. None where it cannot be spelt.
    pub(super) fn begin_again(
        &mut self,
        view: &mut View<'e, 'a>,
        text: &[u8],
        log_p: f64,
        options: &Covers,
    ) -> Result<Option<Beam>, DecodeError> {
        let vocabulary = self.vocabulary();
        if view.read(text).is_none() {
            return Ok(None);
        }
        let Some(string) = view.ids().last().and_then(|id| vocabulary.string_of(*id)) else { return Ok(None) };
        let last = vocabulary.string(string);
        // A tokenizer that composes accents may have made the text longer.
        view.truncate(text.len().saturating_sub(last.len()));
        let (this, mut beam) = Self::begin(view, options, self.ends, self.item)?;
        *self = this;
        beam.covers[0].log_p = log_p;
        for byte in last {
            beam.push(*byte, vocabulary, options, self)?;
        }
        Ok(Some(beam))
    }

    pub(super) fn vocabulary(&self) -> &'a ByteVocabulary {
        self.member.vocabulary
    }

    /// Positions of the model.
    pub(super) fn context(&self) -> usize {
        self.member.decoder.spec().context_length
    }

    fn of_logits(&self, path: &[u32], logits: &[f32]) -> Masses {
        let vocabulary = self.vocabulary();
        let mut probabilities = gac::probabilities(vocabulary, logits, self.ends);
        let last = path[self.prompt..].last().and_then(|id| vocabulary.string_of(*id));
        if let (Tokenisations::Canonical, Some(last)) = (self.tokenisations, last) {
            for (string, p) in (0..vocabulary.len() as u32).zip(&mut probabilities) {
                if *p >= ASKED_ABOUT {
                    let written = (self.member.spell)(&[vocabulary.string(last), vocabulary.string(string)].concat());
                    let pair = [vocabulary.ids(last)[0], vocabulary.ids(string)[0]];
                    *p = if written.as_deref() == Some(&pair[..]) { *p } else { 0.0 };
                }
            }
        }
        Masses::new(&probabilities)
    }

    /// A slot with the history of a path, for its last token: that of its history itself if nothing else needs it.
    fn slot_for(&mut self, path: &[u32], needed: &mut [usize]) -> Option<usize> {
        let history = &path[..path.len() - 1];
        let of_history = self.paths.iter().position(|of| of.as_deref() == Some(history))?;
        needed[of_history] -= 1;
        let slot = match needed[of_history] {
            0 => of_history,
            _ => {
                let free = needed.iter().position(|needed| *needed == 0)?;
                self.cache.copy(of_history, free);
                free
            }
        };
        needed[slot] = 1;
        Some(slot)
    }
}

impl Language for Paths<'_, '_> {
    fn masses(&mut self, paths: &[Vec<u32>], live: &[&[u32]]) -> Result<Vec<Masses>, DecodeError> {
        // How many covers go on from the path of each slot, and from its text with one more token.
        let mut needed: Vec<usize> = self
            .paths
            .iter()
            .map(|of| {
                let Some(of) = of else { return 0 };
                let begins = paths.iter().filter(|path| path[..path.len() - 1] == of[..]).count();
                begins + usize::from(live.contains(&&of[..]))
            })
            .collect();
        let mut batch = Batch::default();
        let mut taken = Vec::with_capacity(paths.len());
        for path in paths {
            let slot = self.slot_for(path, &mut needed);
            let slot = slot.ok_or(DecodeError::NothingPossible { item: self.item, step: path.len() - self.prompt })?;
            batch.push(&path[path.len() - 1..], slot, path.len() - 1);
            taken.push((slot, path));
        }
        // Only now: a path may have been the history of several.
        taken.into_iter().for_each(|(slot, path)| self.paths[slot] = Some(path.clone()));
        let decoder = self.member.decoder;
        let hidden = decoder.forward(&batch, Some(&mut self.cache), &mut NoTap)?;
        let mut logits = Vec::with_capacity(paths.len());
        decoder.for_logits(&hidden, |_, row| row.to_vec(), &mut logits)?;
        Ok(paths.iter().zip(&logits).map(|(path, logits)| self.of_logits(path, logits)).collect())
    }
}
