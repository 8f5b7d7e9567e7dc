//! What the machine can do at most: fused multiply-adds on operands in the first-level cache, and reading memory in order.
//!
//! The work is done here; the caller has the clock.

use rayon::prelude::*;

use crate::Buffer;
use crate::isa::dispatch;
use crate::matmul::{
    Arithmetic, Code, Coded, Coding, Groups, Left, Offset, Output, PANEL, Packed, Scale, Start, Threads, Weight,
    matmul_each,
};
use crate::vector::{LANES, sum_of};

/// Multiplies 12 rows by matrices that stay in the first-level cache, `rounds` times on every thread of the pool, and
/// returns how many multiply-adds there were in all, and a number that depends on them.
#[must_use]
pub fn multiply_adds(arithmetic: Arithmetic, rounds: usize) -> (u64, f32) {
    let right = match arithmetic {
        Arithmetic::F32 => Weight::Floats(Packed::from_rows(&vec![1e-3; DEPTH * PANEL], DEPTH, PANEL)),
        Arithmetic::Bf16 => Weight::Coded(Coded::zeros(Coding::Bf16, DEPTH, PANEL), arithmetic),
        Arithmetic::Int8 => {
            let groups = Groups { len: 32, code: Code::Nibble(-8), scale: Scale::F16, offset: Offset::Without };
            Weight::Coded(Coded::zeros(Coding::Groups(groups), DEPTH, 4 * PANEL), arithmetic)
        }
    };
    // What is rounded is rounded once for several products.
    let products = if arithmetic == Arithmetic::F32 { 1 } else { PRODUCTS };
    let (threads, n) = (rayon::current_num_threads(), right.n());
    let total = (0..threads).into_par_iter().map(|_| {
        let a = vec![1e-3; ROWS * DEPTH];
        let mut c = vec![0.0; products * ROWS * n];
        for _ in 0..rounds {
            let output = |c| Output { right: right.view(), start: Start::Kept, c, c_stride: n };
            let mut outputs: Vec<Output<'_>> = c.chunks_exact_mut(ROWS * n).map(output).collect();
            matmul_each(Left { data: &a, m: ROWS, row_stride: DEPTH }, &mut outputs, Threads::One);
        }
        c.iter().sum::<f32>()
    });
    let total = total.sum();
    ((threads * rounds * products * ROWS * n * DEPTH) as u64, total)
}

/// Depth: as much as stays in the first-level cache.
const DEPTH: usize = 256;
const ROWS: usize = 12;

/// Products of one rounded operand: so many that rounding it takes next to nothing of the time.
const PRODUCTS: usize = 32;

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
        sums.iter().flatten().sum::<f32>() + sum_of([rest], |[x]| x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_is_done() {
        let (count, total) = multiply_adds(Arithmetic::F32, 10);
        assert_eq!(count, (rayon::current_num_threads() * 10 * ROWS * PANEL * DEPTH) as u64);
        assert!(total.is_finite() && total > 0.0);
        for (arithmetic, panels) in [(Arithmetic::Bf16, 1), (Arithmetic::Int8, 4)] {
            let (count, total) = multiply_adds(arithmetic, 1);
            assert_eq!(count, (rayon::current_num_threads() * PRODUCTS * ROWS * panels * PANEL * DEPTH) as u64);
            assert!(total.is_finite());
        }
        let memory = Memory::touched(1 << 20);
        assert_eq!(memory.read(), (1 << 20, (1 << 18) as f32));
    }
}
