//! GaC: a distribution over the union of all vocabularies (Yu et al. 2024, arXiv 2406.12585, section 3).
//!
//! `P(s) = Σ λ_i p_i(s)` over every string that some member has as a token; a member without it gives it 0. Here strings
//! are bytes, so that no spelling is lost, and `p_i` is the member's softmax over its strings and its end, in which a
//! string of several ids has the sum of theirs.

use lathe_kernels::logits::{largest, softmax_scaled};
use lathe_tokenizer::ByteVocabulary;

use super::{EndSymbol, Symbol, Vote, by_rank, sum_in_order};

/// All strings of several vocabularies, in byte order.
pub(super) struct Universe {
    /// For each string a member that has it, and its number there.
    found: Vec<(usize, u32)>,
    /// By member: the number here of each of its strings.
    numbers: Vec<Vec<u32>>,
}

impl Universe {
    pub(super) fn of(vocabularies: &[&ByteVocabulary]) -> Self {
        let mut next: Vec<u32> = vec![0; vocabularies.len()];
        let mut numbers: Vec<Vec<u32>> = vocabularies.iter().map(|v| Vec::with_capacity(v.len())).collect();
        let mut found = Vec::new();
        loop {
            let waiting = vocabularies.iter().zip(&next).enumerate().filter(|(_, (v, at))| (**at as usize) < v.len());
            let smallest = waiting.map(|(member, (v, at))| (v.string(*at), member, *at)).min();
            let Some((string, member, at)) = smallest else { break };
            let number = found.len() as u32;
            for ((vocabulary, at), numbers) in vocabularies.iter().zip(&mut next).zip(&mut numbers) {
                if (*at as usize) < vocabulary.len() && vocabulary.string(*at) == string {
                    numbers.push(number);
                    *at += 1;
                }
            }
            found.push((member, at));
        }
        Self { found, numbers }
    }

    /// The `count` most probable symbols under `P`, the most probable first, from the logits of members with a weight.
    pub(super) fn votes(
        &self,
        vocabularies: &[&ByteVocabulary],
        logits: &[Option<&[f32]>],
        weights: &[f64],
        ends: EndSymbol,
        count: usize,
    ) -> Vec<Vote> {
        let end = self.found.len();
        let count = count.min(end + 1);
        let members: Vec<Option<Vec<f64>>> = vocabularies
            .iter()
            .zip(logits)
            .zip(&self.numbers)
            .map(|((vocabulary, logits), numbers)| {
                let logits = (*logits)?;
                let by_string = probabilities(vocabulary, logits, ends);
                let mut spread = vec![0.0; end + 1];
                numbers.iter().zip(&by_string).for_each(|(number, p)| spread[*number as usize] = *p);
                spread[end] = by_string[vocabulary.len()];
                Some(spread)
            })
            .collect();
        let mut parts = vec![0.0; weights.len()];
        let mut vote = |at: usize| {
            for (part, (member, weight)) in parts.iter_mut().zip(members.iter().zip(weights)) {
                *part = member.as_ref().map_or(0.0, |p| p[at] * weight);
            }
            sum_in_order(&mut parts)
        };
        let mut best: Vec<(f64, usize)> = Vec::with_capacity(count + 1);
        let mut least = 0.0;
        for at in 0..=end {
            let p = vote(at);
            // Ties at the edge are all kept until they are ranked.
            if p > 0.0 && p >= least {
                best.push((p, at));
                if best.len() >= 4 * count.max(16) {
                    best.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
                    least = best[count - 1].0;
                    best.retain(|(p, _)| *p >= least);
                }
            }
        }
        let symbol = |at: usize| match self.found.get(at) {
            Some((member, string)) => Symbol::Text(vocabularies[*member].string(*string).to_vec()),
            None => Symbol::End,
        };
        let of = |at: usize| members.iter().map(|member| member.as_ref().map_or(0.0, |p| p[at])).collect();
        let mut votes: Vec<Vote> =
            best.into_iter().map(|(p, at)| Vote { symbol: symbol(at), p, members: of(at) }).collect();
        votes.sort_by(by_rank);
        votes.truncate(count);
        votes
    }
}

/// A member's probabilities by string, and of its end as the last one; they sum to 1.
pub(super) fn probabilities(vocabulary: &ByteVocabulary, logits: &[f32], ends: EndSymbol) -> Vec<f64> {
    let max = largest(logits);
    let mut weights = logits.to_vec();
    softmax_scaled(&mut weights, max, 1.0);
    let over = |ids: &[u32]| ids.iter().filter_map(|id| weights.get(*id as usize)).map(|w| f64::from(*w)).sum::<f64>();
    let mut of: Vec<f64> = (0..vocabulary.len() as u32).map(|string| over(vocabulary.ids(string))).collect();
    of.push(if ends == EndSymbol::Counts { over(vocabulary.ends()) } else { 0.0 });
    let total: f64 = of.iter().sum();
    if total > 0.0 {
        of.iter_mut().for_each(|p| *p /= total);
    }
    of
}
