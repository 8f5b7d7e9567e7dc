//! Two models that began as one: the changes δ_A = A − C and δ_B = B − C from their base C.
//!
//! Task arithmetic (arXiv 2212.04089) adds such changes, TIES (arXiv 2306.01708) looks at their signs and their largest
//! values. Changes that have nothing to do with each other have cosine 0, opposite signs at half of the places, and a
//! tenth of the largest tenth of one lies in the largest tenth of the other.

use serde::{Deserialize, Serialize};

use super::{LANES, cosine, padded, share};
use crate::measured::{Number, Reason};

/// The large changes of a tensor: its tenth with the largest magnitudes.
pub const LARGE_SHARE: f64 = 0.1;

/// Sums over the changes of a piece.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ChangeSums {
    /// Weights.
    pub elements: u64,
    /// Weights that A and that B changed.
    pub changed: [u64; 2],
    /// Weights that both changed.
    pub both: u64,
    /// Those of them that were changed in opposite directions.
    pub opposed: u64,
    /// Σ δ_A², Σ δ_B².
    pub squares: [f64; 2],
    /// Σ δ_A·δ_B.
    pub product: f64,
    /// Σ c².
    pub base: f64,
}

/// Where the large changes of a tensor are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LargeCounts {
    /// Large changes of A and of B. Equal magnitudes at the threshold are all large, so there can be more than a tenth.
    pub large: [u64; 2],
    /// Weights whose changes are large in both.
    pub both: u64,
    /// Those of them that were changed in opposite directions.
    pub opposed: u64,
}

/// The large changes of one tensor or of several.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LargeSums {
    /// Weights whose changes are large in both.
    pub both: u64,
    /// Those of them that were changed in opposite directions.
    pub opposed: u64,
    /// The most that `both` can be: large changes of whichever has fewer, tensor by tensor.
    pub most: u64,
    /// What `both` is on average where the places of one have nothing to do with those of the other.
    pub by_chance: f64,
}

/// What the changes of A and B have to do with each other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Changes {
    /// ‖A − C‖ and ‖B − C‖.
    pub norms: [Number; 2],
    /// The same as shares of ‖C‖.
    pub relative: [Number; 2],
    /// Shares of the weights that A and that B changed, 0 to 1.
    pub changed: [Number; 2],
    /// δ_A·δ_B / (‖δ_A‖ ‖δ_B‖), −1 to 1.
    pub cosine: Number,
    /// Share of the weights that both changed whose changes have opposite signs, 0 to 1.
    pub sign_conflict: Number,
    /// Share of the large changes of one that are large in the other too, 0 to 1; of the one that has fewer.
    pub large_overlap: Number,
    /// What that share is on average where one has nothing to do with the other.
    pub overlap_by_chance: Number,
    /// Share of the weights whose changes are large in both that were changed in opposite directions, 0 to 1.
    pub large_conflict: Number,
}

/// Sums over a piece: the weights of the base, of A and of B, of one length.
#[must_use]
pub fn change_sums(base: &[f32], a: &[f32], b: &[f32]) -> ChangeSums {
    let mut lanes = Lanes::default();
    let [base_chunks, a_chunks, b_chunks] = [base, a, b].map(|values| values.chunks_exact(LANES));
    let [base_rest, a_rest, b_rest] = [&base_chunks, &a_chunks, &b_chunks].map(|chunks| padded(chunks.remainder()));
    for ((base, a), b) in base_chunks.zip(a_chunks).zip(b_chunks) {
        lanes.add(base, a, b);
    }
    lanes.add(&base_rest, &a_rest, &b_rest);
    ChangeSums {
        elements: base.len() as u64,
        changed: lanes.changed.map(|lanes| lanes.iter().sum()),
        both: lanes.both.iter().sum(),
        opposed: lanes.opposed.iter().sum(),
        squares: lanes.squares.map(|lanes| lanes.iter().sum()),
        product: lanes.product.iter().sum(),
        base: lanes.base.iter().sum(),
    }
}

#[derive(Default)]
struct Lanes {
    changed: [[u64; LANES]; 2],
    both: [u64; LANES],
    opposed: [u64; LANES],
    squares: [[f64; LANES]; 2],
    product: [f64; LANES],
    base: [f64; LANES],
}

impl Lanes {
    #[inline]
    fn add(&mut self, base: &[f32], a: &[f32], b: &[f32]) {
        for lane in 0..LANES {
            let c = f64::from(base[lane]);
            let (of_a, of_b) = (f64::from(a[lane]) - c, f64::from(b[lane]) - c);
            let both = of_a != 0.0 && of_b != 0.0;
            self.changed[0][lane] += u64::from(of_a != 0.0);
            self.changed[1][lane] += u64::from(of_b != 0.0);
            self.both[lane] += u64::from(both);
            self.opposed[lane] += u64::from(both && (of_a > 0.0) != (of_b > 0.0));
            self.squares[0][lane] += of_a * of_a;
            self.squares[1][lane] += of_b * of_b;
            self.product[lane] += of_a * of_b;
            self.base[lane] += c * c;
        }
    }
}

/// |value − base| of a piece, in f32: zero only where both are equal.
pub fn magnitudes<'a>(values: &'a [f32], base: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
    values.iter().zip(base).map(|(value, base)| (value - base).abs())
}

/// How many magnitudes have the same upper or lower half of their bits: two passes find a magnitude of any rank exactly, in
/// half a megabyte. The bits of numbers that are not negative have the order of the numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    counts: Vec<u64>,
}

impl Histogram {
    /// Counts of the upper halves.
    #[must_use]
    pub fn upper(magnitudes: impl Iterator<Item = f32>) -> Self {
        let mut counts = vec![0; 1 << 16];
        magnitudes.for_each(|magnitude| counts[(magnitude.to_bits() >> 16) as usize] += 1);
        Self { counts }
    }

    /// Counts of the lower halves of those whose upper half is `upper`.
    #[must_use]
    pub fn lower(magnitudes: impl Iterator<Item = f32>, upper: u32) -> Self {
        let mut counts = vec![0; 1 << 16];
        let those = magnitudes.map(f32::to_bits).filter(|bits| bits >> 16 == upper);
        those.for_each(|bits| counts[(bits & 0xffff) as usize] += 1);
        Self { counts }
    }

    /// Adds another piece.
    pub fn join(&mut self, next: &Self) {
        self.counts.iter_mut().zip(&next.counts).for_each(|(count, next)| *count += next);
    }

    /// The half that holds the magnitude of rank `rank` (1 is the largest), and its rank among those with the same half; none
    /// where there are fewer.
    #[must_use]
    pub fn find(&self, rank: u64) -> Option<(u32, u64)> {
        let mut left = rank;
        for (half, count) in self.counts.iter().enumerate().rev() {
            if left <= *count {
                return Some((half as u32, left));
            }
            left -= count;
        }
        None
    }

    /// The rank of the smallest large magnitude: a tenth of all, at least one.
    #[must_use]
    pub fn large_rank(&self) -> u64 {
        let all: u64 = self.counts.iter().sum();
        ((all as f64 * LARGE_SHARE).ceil() as u64).max(1)
    }
}

/// The smallest magnitude that counts as large, from the halves of its bits. A weight that was not changed is not large.
#[must_use]
pub fn threshold(upper: u32, lower: u32) -> f32 {
    f32::from_bits(((upper << 16) | lower).max(1))
}

/// Counts the large changes of a piece.
#[must_use]
pub fn large_counts(base: &[f32], a: &[f32], b: &[f32], thresholds: [f32; 2]) -> LargeCounts {
    let mut counts = LargeCounts::default();
    for ((base, a), b) in base.iter().zip(a).zip(b) {
        let (of_a, of_b) = (a - base, b - base);
        let large = [of_a.abs() >= thresholds[0], of_b.abs() >= thresholds[1]];
        let both = large[0] && large[1];
        counts.large[0] += u64::from(large[0]);
        counts.large[1] += u64::from(large[1]);
        counts.both += u64::from(both);
        counts.opposed += u64::from(both && (of_a > 0.0) != (of_b > 0.0));
    }
    counts
}

impl LargeCounts {
    /// The counts of this piece and the next one.
    #[must_use]
    pub fn join(self, next: Self) -> Self {
        Self {
            large: [0, 1].map(|model| self.large[model] + next.large[model]),
            both: self.both + next.both,
            opposed: self.opposed + next.opposed,
        }
    }

    /// What they say of a tensor of so many weights.
    #[must_use]
    pub fn within(&self, elements: u64) -> LargeSums {
        let [a, b] = self.large;
        LargeSums {
            both: self.both,
            opposed: self.opposed,
            most: a.min(b),
            by_chance: if elements == 0 { 0.0 } else { a as f64 * b as f64 / elements as f64 },
        }
    }
}

impl LargeSums {
    /// The sums of this tensor and the next one.
    #[must_use]
    pub fn join(self, next: Self) -> Self {
        Self {
            both: self.both + next.both,
            opposed: self.opposed + next.opposed,
            most: self.most + next.most,
            by_chance: self.by_chance + next.by_chance,
        }
    }
}

impl ChangeSums {
    /// The sums of this piece and the next one.
    #[must_use]
    pub fn join(self, next: Self) -> Self {
        Self {
            elements: self.elements + next.elements,
            changed: [0, 1].map(|model| self.changed[model] + next.changed[model]),
            both: self.both + next.both,
            opposed: self.opposed + next.opposed,
            squares: [0, 1].map(|model| self.squares[model] + next.squares[model]),
            product: self.product + next.product,
            base: self.base + next.base,
        }
    }

    /// What follows from the sums and from where the large changes are.
    #[must_use]
    pub fn changes(&self, large: &LargeSums) -> Changes {
        let base = self.base.sqrt();
        Changes {
            norms: self.squares.map(|squares| Number::from(squares.sqrt())),
            relative: self.squares.map(|squares| Number::ratio(squares.sqrt(), base, Reason::AllZero)),
            changed: self.changed.map(|changed| share(changed, self.elements)),
            cosine: cosine(self.product, self.squares[0], self.squares[1]),
            sign_conflict: share(self.opposed, self.both),
            large_overlap: share(large.both, large.most),
            overlap_by_chance: Number::ratio(large.by_chance, large.most as f64, Reason::AllZero),
            large_conflict: share(large.opposed, large.both),
        }
    }
}
