//! The model layer of lathe: references, configurations, and the one decoder.
//!
//! [`mod@reference`] finds a model's files, [`open()`] reads their headers into a [`DecoderSpec`], and
//! [`Opened::decoder`] loads the weights into the one forward pass, [`Decoder::forward`]. This crate knows nothing of
//! the methods that use it.

mod adapter;
mod batch;
mod cache;
pub mod catalog;
mod config;
mod decoder;
mod draft;
mod error;
pub mod family;
mod gguf;
mod layout;
mod open;
mod ops;
mod parameters;
mod prefix;
mod profile;
pub mod reference;
pub mod rotary;
mod score;
pub mod sentence;
pub mod spec;
mod tap;
mod target;

pub use adapter::{LoraScaling, LoraSpec, ModuleFactors, Trainable};
pub use batch::Batch;
pub use cache::KvCache;
pub use config::Config;
pub use decoder::{Coarse, Decoder, Gradients, Recompute, TrainingPass, Weights};
pub use draft::Draft;
pub use error::Error;
pub use lathe_kernels::attention::Pattern;
pub use layout::{Layout, Name};
pub use open::{Opened, folder_of, open, open_checkpoint};
pub use parameters::{CheckpointSource, ParameterSource, RandomSource, TensorChange};
pub use prefix::{Continuation, PrefixCache};
pub use profile::{Phase, Profile};
pub use score::TokenScore;
pub use sentence::{Normalise, Pooling, SentenceSpec};
pub use spec::{DecoderSpec, Parameter};
pub use tap::{NoTap, Site, Tap};
pub use target::{Target, TargetTensor};
