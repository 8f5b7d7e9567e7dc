//! CPU kernels of lathe: matrix products, attention, norms, rotary positions, activations, log-softmax.
//!
//! This crate knows nothing of models: slices of `f32` in, slices of `f32` out. It is the only crate with `unsafe`
//! code (memory maps aside).
//!
//! **One result for one input.** Every kernel fixes the order of its sums in its definition, not in its
//! implementation: a matrix product is one chain of fused multiply-adds over `k`, a row sum is sixteen interleaved
//! partial sums and a fixed tree. Vector width, blocking, thread count and batch size therefore cannot change a bit of
//! a result, and tests compare the fast paths with the scalar references by equality.

pub mod activation;
pub mod attention;
mod awake;
mod buffer;
pub mod ceiling;
pub mod column_sums;
mod isa;
pub mod logits;
pub mod matmul;
mod memory;
pub mod norm;
pub mod rotary;
pub mod unit_rows;
pub mod vector;
pub mod weights;

pub use awake::Awake;
pub use buffer::Buffer;
pub use isa::Isa;
pub use memory::keep_freed_memory;

/// Test input: numbers between -1 and 1 that look random and depend on `seed` only.
#[cfg(test)]
fn noise(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state as f32 / u32::MAX as f32) * 2.0 - 1.0
        })
        .collect()
}
