//! Arithmetic on the weights of models.
//!
//! * [`config`]: the YAML file that says what is merged with what.
//! * [`plan`]: what follows from it for each tensor of the result.
//! * [`rule`]: how one tensor is made of the same tensor of several models, in f32, a piece at a time.
//! * [`vocabulary`]: rows of embeddings and heads where models have different tokens.
//! * [`adapter`]: low-rank adapters, added to weights or taken out of them.
//!
//! It knows tensors by the names and shapes of a safetensors folder and knows no decoder. Where numbers come from is
//! the caller's business ([`Inputs`]); nothing here depends on the number of threads, and only [`adapter::write()`] writes files.

pub mod adapter;
pub mod config;
mod inputs;
pub mod plan;
pub mod rule;
pub mod vocabulary;

pub use inputs::{InputError, Inputs};
