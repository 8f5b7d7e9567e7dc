//! Differences of several models become one.

use super::BLOCK;
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
    /// and a difference of zero never counts. At most [`BLOCK`] positions.
    ///
    /// Products are rounded before they are added: two opposite differences with one weight must cancel exactly.
    pub fn elect(base: &[f32], differences: &[&[f64]], election: Election<'_>, out: &mut [f32]) {
        let (mut tally, mut sums, mut weights) = ([0.0f64; BLOCK], [0.0f64; BLOCK], [0.0f64; BLOCK]);
        for (differences, vote) in differences.iter().zip(election.votes) {
            for (tally, d) in tally.iter_mut().zip(*differences) {
                *tally += vote * d;
            }
        }
        for ((differences, vote), weight) in differences.iter().zip(election.votes).zip(election.weights) {
            for (((tally, sum), weights), d) in tally.iter().zip(&mut sums).zip(&mut weights).zip(*differences) {
                let voted = vote * d;
                let counts = ((*tally >= 0.0) & (voted > 0.0)) | ((*tally < 0.0) & (voted < 0.0));
                *sum += if counts { weight * d } else { 0.0 };
                *weights += if counts { *weight } else { 0.0 };
            }
        }
        if let (Protection::UpTo(slack), [first, others @ ..], [weight, other_weights @ ..]) =
            (election.protection, differences, election.weights)
        {
            let mut largest = [0.0f64; BLOCK];
            for (differences, weight) in others.iter().zip(other_weights) {
                for (largest, d) in largest.iter_mut().zip(*differences) {
                    let size = (weight * d).abs();
                    *largest = if size > *largest { size } else { *largest };
                }
            }
            let all = tally.iter().zip(&largest).zip(&mut sums).zip(&mut weights).zip(*first);
            for ((((tally, largest), sum), weights), d) in all {
                let own = weight * d;
                let lost = ((*tally >= 0.0) & (own < 0.0)) | ((*tally < 0.0) & (own > 0.0));
                let stays = lost & (*largest <= slack * own.abs());
                *sum = if stays { own } else { *sum };
                *weights = if stays { *weight } else { *weights };
            }
        }
        for (((out, b), sum), weight) in out.iter_mut().zip(base).zip(&sums).zip(&weights) {
            let divisor = if weight.abs() <= election.undivided { 1.0 } else { *weight };
            *out = (f64::from(*b) + election.lambda * (sum / divisor)) as f32;
        }
    }
}

dispatch! {
    /// `b + Σ w_i d_i`. At most [`BLOCK`] positions.
    pub fn plain_sum(base: &[f32], differences: &[&[f64]], weights: &[f64], out: &mut [f32]) {
        let mut sums = [0.0; BLOCK];
        for (differences, weight) in differences.iter().zip(weights) {
            for (sum, d) in sums.iter_mut().zip(*differences) {
                *sum = weight.mul_add(*d, *sum);
            }
        }
        for ((out, b), sum) in out.iter_mut().zip(base).zip(&sums) {
            *out = (f64::from(*b) + sum) as f32;
        }
    }
}
