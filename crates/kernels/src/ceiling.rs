//! What the machine can do at most: fused multiply-adds on operands in the first-level cache, and reading memory in order.
//!
//! The work is done here; the caller has the clock.

use rayon::prelude::*;

use crate::Buffer;
use crate::isa::dispatch;
use crate::matmul::{Left, PANEL, Packed, Start, Threads, matmul};
use crate::vector::{LANES, sum_of};

/// Fused multiply-adds of one tile.
const TILE: usize = TILE_ROWS * PANEL * DEPTH;

/// Multiplies `rounds` tiles of 12 x 32 sums on every thread of the pool, with operands that stay in the first-level cache,
/// and returns how many fused multiply-adds there were in all, and a number that depends on them.
#[must_use]
pub fn multiply_adds(rounds: usize) -> (u64, f32) {
    let threads = rayon::current_num_threads();
    let total = (0..threads).into_par_iter().map(|_| {
        let (a, b) = (vec![1e-3; TILE_ROWS * DEPTH], Packed::from_rows(&vec![1e-3; DEPTH * PANEL], DEPTH, PANEL));
        let mut c = vec![0.0; TILE_ROWS * PANEL];
        for _ in 0..rounds {
            let left = Left { data: &a, m: TILE_ROWS, row_stride: DEPTH };
            matmul(left, b.view(), Start::Kept, &mut c, PANEL, Threads::One);
        }
        c.iter().sum::<f32>()
    });
    let total = total.sum();
    ((threads * rounds * TILE) as u64, total)
}

/// Depth of a tile: as much as stays in the first-level cache.
const DEPTH: usize = 256;
const TILE_ROWS: usize = 12;

/// Memory that is larger than the caches.
pub struct Memory(Buffer);

impl Memory {
    /// `bytes` of it, every page touched.
    #[must_use]
    pub fn touched(bytes: usize) -> Self {
        let mut values = Buffer::zeros(bytes / size_of::<f32>());
        values.par_chunks_mut(1 << 16).for_each(|chunk| chunk.fill(1.0));
        Self(values)
    }

    /// Reads all of it once, each thread a stretch of its own, and returns the bytes and their sum.
    #[must_use]
    pub fn read(&self) -> (u64, f32) {
        let stretch = self.0.len().div_ceil(4 * rayon::current_num_threads()).max(1);
        let total = self.0.par_chunks(stretch).map(sum).sum();
        (size_of_val(&self.0[..]) as u64, total)
    }
}

dispatch! {
    fn sum(values: &[f32]) -> f32 {
        // Four rows of lanes at a time: one alone waits for its own last addition.
        let mut sums = [[0.0f32; LANES]; 4];
        let (blocks, rest) = values.as_chunks::<{ 4 * LANES }>();
        for block in blocks {
            for (sum, part) in sums.iter_mut().zip(block.as_chunks::<LANES>().0) {
                for (sum, x) in sum.iter_mut().zip(part) {
                    *sum += x;
                }
            }
        }
        sums.iter().flatten().sum::<f32>() + sum_of(rest.len(), |i| rest[i])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_is_done() {
        let (count, total) = multiply_adds(10);
        assert_eq!(count, (rayon::current_num_threads() * 10 * TILE) as u64);
        assert!(total.is_finite() && total > 0.0);
        let memory = Memory::touched(1 << 20);
        assert_eq!(memory.read(), (1 << 20, (1 << 18) as f32));
    }
}
