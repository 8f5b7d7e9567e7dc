//! Rotary position embedding of query and key heads (Su et al. 2021), forward and backward.
//!
//! The first `2 · pairs` values of a head are rotated. Pair `i` is the values `i` and `i + pairs` (the layout of
//! checkpoints in the Hugging Face convention).

use rayon::prelude::*;

/// Cosines and sines of a batch: one row of `pairs` angles per token.
#[derive(Clone, Debug)]
pub struct Angles {
    /// Rotated pairs of a head.
    pub pairs: usize,
    /// `[tokens, pairs]`
    pub cos: Vec<f32>,
    /// `[tokens, pairs]`
    pub sin: Vec<f32>,
}

/// Which way to rotate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// By the angle: the forward pass.
    Forward,
    /// By minus the angle: the gradient of the forward pass.
    Backward,
}

impl Angles {
    /// Angles `position · inverse_frequency` of each token, as the reference implementation rounds them (product in
    /// f32); `magnitude` scales both cosine and sine (yarn, longrope; else 1).
    #[must_use]
    pub fn new(positions: &[u32], inverse_frequencies: &[f32], magnitude: f32) -> Self {
        let pairs = inverse_frequencies.len();
        let mut angles = Self {
            pairs,
            cos: Vec::with_capacity(positions.len() * pairs),
            sin: Vec::with_capacity(positions.len() * pairs),
        };
        for &position in positions {
            for &frequency in inverse_frequencies {
                let (sin, cos) = f64::from(position as f32 * frequency).sin_cos();
                angles.cos.push(cos as f32 * magnitude);
                angles.sin.push(sin as f32 * magnitude);
            }
        }
        angles
    }

    /// Rotates every head of every row of `x`, `[tokens, heads · head_dim]`, in place.
    pub fn rotate(&self, x: &mut [f32], heads: usize, head_dim: usize, direction: Direction) {
        let (width, pairs) = (heads * head_dim, self.pairs);
        assert!(2 * pairs <= head_dim && x.len() * pairs == self.cos.len() * width, "rotary of {heads} x {head_dim}");
        if pairs == 0 {
            return;
        }
        let rows =
            x.par_chunks_exact_mut(width).zip(self.cos.par_chunks_exact(pairs)).zip(self.sin.par_chunks_exact(pairs));
        rows.with_min_len(16).for_each(|((row, cos), sin)| {
            for head in row.chunks_exact_mut(head_dim) {
                let (first, second) = head.split_at_mut(pairs);
                for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                    let sin = if direction == Direction::Forward { *sin } else { -*sin };
                    (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_turn_and_back() {
        let angles = Angles { pairs: 1, cos: vec![0.0], sin: vec![1.0] };
        let mut x = [1.0, 2.0, 9.0, 3.0, 4.0, 8.0];
        angles.rotate(&mut x, 2, 3, Direction::Forward);
        assert_eq!(x, [-2.0, 1.0, 9.0, -4.0, 3.0, 8.0]);
        angles.rotate(&mut x, 2, 3, Direction::Backward);
        assert_eq!(x, [1.0, 2.0, 9.0, 3.0, 4.0, 8.0]);
    }

    #[test]
    fn positions_multiply_frequencies() {
        let angles = Angles::new(&[0, 2], &[1.0, 0.5], 1.0);
        assert_eq!(angles.cos[..2], [1.0, 1.0]);
        assert!((angles.cos[2] - 2f32.cos()).abs() < 1e-7);
        assert!((angles.sin[3] - 1f32.sin()).abs() < 1e-7);
    }
}
