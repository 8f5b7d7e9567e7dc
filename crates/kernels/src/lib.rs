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
mod buffer;
mod isa;
pub mod logits;
pub mod matmul;
pub mod norm;
pub mod rotary;
pub mod vector;

pub use buffer::Buffer;
pub use isa::Isa;
