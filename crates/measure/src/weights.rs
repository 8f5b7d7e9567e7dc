//! How far the weights of two models are apart: a tensor A beside the same tensor of another model, B.
//!
//! * [`pair_sums`] reads A and B a piece at a time; the pieces' sums are joined in order, and [`PairSums::distance`] says
//!   what follows: norms, cosine, signs, equality.
//! * [`effective_rank`]: in how many directions a matrix points, here B − A.
//! * [`change_sums`], [`Histogram`] and [`large_counts`]: what the changes A − C and B − C of a common base C have to do
//!   with each other, and so what a merge of A and B would mix.
//!
//! Sums are in f64 over f32 weights: eight interleaved partial sums for each piece, so that equal pieces give equal bits.
//! Weights are finite; of others every number that depends on them is undefined.

mod changes;
mod rank;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::measured::{Number, Reason};

pub use changes::{
    ChangeSums, Changes, Histogram, LARGE_SHARE, LargeCounts, LargeSums, change_sums, large_counts, magnitudes,
    threshold,
};
pub use rank::{effective_rank, noise_rank};

/// Sums over pairs of weights.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PairSums {
    /// Pairs.
    pub elements: u64,
    /// Pairs whose f32 bits differ.
    pub differing: u64,
    /// Pairs of which neither is zero.
    pub signed: u64,
    /// Those of them whose signs are the same.
    pub same_sign: u64,
    /// Σ a².
    pub aa: f64,
    /// Σ b².
    pub bb: f64,
    /// Σ a·b.
    pub ab: f64,
    /// Σ (b − a)².
    pub dd: f64,
    /// max |b − a|.
    pub largest: f64,
}

/// How far B is from A.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Distance {
    /// Weights compared.
    pub elements: u64,
    /// Weights whose f32 bits differ; 0 says that both are equal.
    pub differing: u64,
    /// ‖A‖, the root of the sum of squares.
    pub norm_a: Number,
    /// ‖B‖.
    pub norm_b: Number,
    /// ‖B − A‖.
    pub norm: Number,
    /// ‖B − A‖ / ‖A‖, no unit.
    pub relative: Number,
    /// The largest |b − a|.
    pub largest: Number,
    /// A·B / (‖A‖ ‖B‖), −1 to 1.
    pub cosine: Number,
    /// Share of the weights that are zero in neither whose signs are the same, 0 to 1.
    pub sign_agreement: Number,
}

/// Partial sums that are kept side by side: a vector of f64, and a fixed order of the sum whatever its width.
const LANES: usize = 8;

/// Sums over a piece: `a` and `b` have one length.
#[must_use]
pub fn pair_sums(a: &[f32], b: &[f32]) -> PairSums {
    let mut lanes = Lanes::default();
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    // Zeros add nothing to any sum.
    let [a_rest, b_rest] = [a_chunks.remainder(), b_chunks.remainder()].map(padded);
    for (a, b) in a_chunks.zip(b_chunks) {
        lanes.add(a, b);
    }
    lanes.add(&a_rest, &b_rest);
    PairSums {
        elements: a.len().min(b.len()) as u64,
        differing: lanes.differing.iter().sum(),
        signed: lanes.signed.iter().sum(),
        same_sign: lanes.same_sign.iter().sum(),
        aa: lanes.aa.iter().sum(),
        bb: lanes.bb.iter().sum(),
        ab: lanes.ab.iter().sum(),
        dd: lanes.dd.iter().sum(),
        largest: lanes.largest.into_iter().fold(0.0, f64::max),
    }
}

#[derive(Default)]
struct Lanes {
    differing: [u64; LANES],
    signed: [u64; LANES],
    same_sign: [u64; LANES],
    aa: [f64; LANES],
    bb: [f64; LANES],
    ab: [f64; LANES],
    dd: [f64; LANES],
    largest: [f64; LANES],
}

impl Lanes {
    #[inline]
    fn add(&mut self, a: &[f32], b: &[f32]) {
        for lane in 0..LANES {
            let (x, y) = (a[lane], b[lane]);
            let signed = x != 0.0 && y != 0.0;
            self.differing[lane] += u64::from(x.to_bits() != y.to_bits());
            self.signed[lane] += u64::from(signed);
            self.same_sign[lane] += u64::from(signed && (x > 0.0) == (y > 0.0));
            let (x, y) = (f64::from(x), f64::from(y));
            let difference = y - x;
            self.aa[lane] += x * x;
            self.bb[lane] += y * y;
            self.ab[lane] += x * y;
            self.dd[lane] += difference * difference;
            self.largest[lane] = self.largest[lane].max(difference.abs());
        }
    }
}

fn padded(rest: &[f32]) -> [f32; LANES] {
    let mut padded = [0.0; LANES];
    padded[..rest.len()].copy_from_slice(rest);
    padded
}

impl PairSums {
    /// The sums of this piece and the next one.
    #[must_use]
    pub fn join(self, next: Self) -> Self {
        Self {
            elements: self.elements + next.elements,
            differing: self.differing + next.differing,
            signed: self.signed + next.signed,
            same_sign: self.same_sign + next.same_sign,
            aa: self.aa + next.aa,
            bb: self.bb + next.bb,
            ab: self.ab + next.ab,
            dd: self.dd + next.dd,
            largest: self.largest.max(next.largest),
        }
    }

    /// What follows from the sums.
    #[must_use]
    pub fn distance(&self) -> Distance {
        Distance {
            elements: self.elements,
            differing: self.differing,
            norm_a: Number::from(self.aa.sqrt()),
            norm_b: Number::from(self.bb.sqrt()),
            norm: Number::from(self.dd.sqrt()),
            relative: Number::ratio(self.dd.sqrt(), self.aa.sqrt(), Reason::AllZero),
            largest: Number::from(self.largest),
            cosine: cosine(self.ab, self.aa, self.bb),
            sign_agreement: share(self.same_sign, self.signed),
        }
    }
}

impl Distance {
    /// Whether all weights are equal, bit for bit as f32.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.differing == 0
    }
}

/// x·y / (‖x‖ ‖y‖) of a product and two sums of squares; undefined where one of them is all zeros.
fn cosine(product: f64, first: f64, second: f64) -> Number {
    // The root of a square is exact, so equal tensors have 1; rounding can leave 1 + 2e-16 where one is a multiple.
    Number::ratio(product, (first * second).sqrt(), Reason::AllZero).map(|cosine| cosine.clamp(-1.0, 1.0))
}

fn share(part: u64, of: u64) -> Number {
    Number::ratio(part as f64, of as f64, Reason::AllZero)
}
