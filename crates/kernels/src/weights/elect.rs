//! Differences of several models become one.

use super::{by_count, cut, known};
use crate::isa::dispatch;

/// How the differences of the models at a position become one.
#[derive(Clone, Copy, Debug)]
pub struct Election<'a> {
    /// By what each model's difference is multiplied when the sign is elected.
    pub votes: &'a [f64],
    /// By what it is multiplied in the sum.
    pub weights: &'a [f64],
    /// Sums of weights up to this size count as zero and divide nothing; infinite where sums are not divided at all.
    pub undivided: f64,
    /// The factor of the result.
    pub lambda: f64,
    /// Whether the first model can outlive an election that it lost.
    pub protection: Protection,
}

/// What an election does to the first model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Protection {
    /// Nothing.
    None,
    /// Where it has a difference and lost, it alone counts if no other's weighted size exceeds this many of its own.
    UpTo(f64),
}

dispatch! {
    /// `b + λ Σ w_i d_i / Σ w_i` over the models whose `v_i d_i` has the sign of `Σ v_i d_i`; a sum of zero elects plus,
    /// and a difference of zero never counts.
    ///
    /// Products are rounded before they are added: two opposite differences with one weight must cancel exactly.
    pub fn elect(base: &[f32], differences: &[&[f64]], election: Election<'_>, out: &mut [f32]) {
        let base = &base[..out.len()];
        let Election { votes, weights, .. } = election;
        by_count!(
            differences.len(),
            N => {
                let election = Election { votes: &known::<N>(votes), weights: &known::<N>(weights), ..election };
                elect_of(base, &cut::<_, N>(differences, out.len()), election, out);
            },
            elect_of(base, differences, election, out),
        );
    }
}

#[inline(always)]
fn elect_of(base: &[f32], differences: &[&[f64]], election: Election<'_>, out: &mut [f32]) {
    match election.protection {
        Protection::None => {
            for (i, (out, b)) in out.iter_mut().zip(base).enumerate() {
                let (sum, weight, _) = count_votes(differences, election, i);
                *out = result(*b, sum, weight, election);
            }
        }
        Protection::UpTo(slack) => {
            for (i, (out, b)) in out.iter_mut().zip(base).enumerate() {
                let (sum, weight, elected) = count_votes(differences, election, i);
                let own = election.weights[0] * differences[0][i];
                let mut largest = 0.0;
                for (d, weight) in differences.iter().zip(election.weights).skip(1) {
                    let size = (weight * d[i]).abs();
                    largest = if size > largest { size } else { largest };
                }
                let stays = (own * elected < 0.0) & (largest <= slack * own.abs());
                let (sum, weight) = if stays { (own, election.weights[0]) } else { (sum, weight) };
                *out = result(*b, sum, weight, election);
            }
        }
    }
}

/// The weighted sum of those who agree, the sum of their weights, and the sign that was elected.
#[inline(always)]
fn count_votes(differences: &[&[f64]], election: Election<'_>, i: usize) -> (f64, f64, f64) {
    let mut tally = 0.0;
    for (d, vote) in differences.iter().zip(election.votes) {
        tally += vote * d[i];
    }
    let elected = if tally >= 0.0 { 1.0 } else { -1.0 };
    let (mut sum, mut weight) = (0.0, 0.0);
    for ((d, vote), w) in differences.iter().zip(election.votes).zip(election.weights) {
        let counts = vote * d[i] * elected > 0.0;
        sum += if counts { w * d[i] } else { 0.0 };
        weight += if counts { *w } else { 0.0 };
    }
    (sum, weight, elected)
}

#[inline(always)]
fn result(base: f32, sum: f64, weight: f64, election: Election<'_>) -> f32 {
    let divisor = if weight.abs() <= election.undivided { 1.0 } else { weight };
    (f64::from(base) + election.lambda * (sum / divisor)) as f32
}

dispatch! {
    /// `b + Σ w_i d_i`.
    pub fn plain_sum(base: &[f32], differences: &[&[f64]], weights: &[f64], out: &mut [f32]) {
        let base = &base[..out.len()];
        by_count!(
            differences.len(),
            N => plain_sum_of(base, &cut::<_, N>(differences, out.len()), &known::<N>(weights), out),
            plain_sum_of(base, differences, weights, out),
        );
    }
}

#[inline(always)]
fn plain_sum_of(base: &[f32], differences: &[&[f64]], weights: &[f64], out: &mut [f32]) {
    for (i, (out, b)) in out.iter_mut().zip(base).enumerate() {
        let mut sum = 0.0;
        for (d, weight) in differences.iter().zip(weights) {
            sum = weight.mul_add(d[i], sum);
        }
        *out = (f64::from(*b) + sum) as f32;
    }
}
