//! Differences from a base of which some are dropped.

use super::KEY_LIMIT;
use crate::isa::dispatch;

dispatch! {
    /// `scale · (x − b)` where `least <= |x − b| < limit` (as keys, see [`super::difference_keys`]), else 0.
    pub fn keep_between(base: &[f32], x: &[f32], least: u32, limit: u32, scale: f64, out: &mut [f64]) {
        for ((out, x), b) in out.iter_mut().zip(x).zip(base) {
            let key = (x - b).to_bits() & (KEY_LIMIT - 1);
            let difference = (f64::from(*x) - f64::from(*b)) * scale;
            *out = if (key >= least) & (key < limit) { difference } else { 0.0 };
        }
    }
}

dispatch! {
    /// Puts 0 where a key is below `least`.
    pub fn clear_below(keys: &[u32], least: u32, values: &mut [f64]) {
        for (value, key) in values.iter_mut().zip(keys) {
            *value = if *key >= least { *value } else { 0.0 };
        }
    }
}

/// A place in a stream of draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draws {
    /// What tells one stream from another.
    pub keys: [u32; 3],
    /// Where in the stream the first position of a slice is.
    pub first: u32,
}

/// The 32 random bits of a position: three rounds of multiplication and shift (the constants are those of the
/// `triple32` function of C. Wellons' hash prospector), with a key before each.
#[inline(always)]
#[must_use]
pub fn draw(keys: [u32; 3], position: u32) -> u32 {
    let [a, b, c] = keys;
    let mut bits = position ^ a;
    bits = (bits ^ (bits >> 17)).wrapping_mul(0xed5a_d4bb) ^ b;
    bits = (bits ^ (bits >> 11)).wrapping_mul(0xac4c_1b51) ^ c;
    bits = (bits ^ (bits >> 15)).wrapping_mul(0x3184_8bab);
    bits ^ (bits >> 14)
}

dispatch! {
    /// `scale · (x − b)` where the position's draw is below `limit`, else 0.
    pub fn keep_drawn(base: &[f32], x: &[f32], draws: Draws, limit: u32, scale: f64, out: &mut [f64]) {
        let mut position = draws.first;
        for ((out, x), b) in out.iter_mut().zip(x).zip(base) {
            let difference = (f64::from(*x) - f64::from(*b)) * scale;
            *out = if draw(draws.keys, position) < limit { difference } else { 0.0 };
            position = position.wrapping_add(1);
        }
    }
}

/// Probabilities that rise with the rank: rank r (from 0) has `least + step · r`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ranked {
    /// Probability of rank 0.
    pub least: f64,
    /// What each further rank adds.
    pub step: f64,
    /// Share of a kept number's own probability by which it is divided: 1 for the inverse of the density, 0 to leave
    /// it as it is.
    pub inverse: f64,
}

dispatch! {
    /// `scale · (x − b)`, kept with the probability of its rank, else 0.
    pub fn keep_ranked(
        base: &[f32], x: &[f32], ranks: &[u32], ranked: Ranked, draws: Draws, scale: f64, out: &mut [f64],
    ) {
        let mut position = draws.first;
        for (((out, x), b), rank) in out.iter_mut().zip(x).zip(base).zip(ranks) {
            let probability = ranked.step.mul_add(f64::from(*rank), ranked.least);
            let kept = f64::from(draw(draws.keys, position)) < probability * 4_294_967_296.0;
            let divisor = ranked.inverse.mul_add(probability - 1.0, 1.0);
            let difference = (f64::from(*x) - f64::from(*b)) * scale / divisor;
            *out = if kept { difference } else { 0.0 };
            position = position.wrapping_add(1);
        }
    }
}
