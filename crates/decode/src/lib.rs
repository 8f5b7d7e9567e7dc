//! Decoding: from a model's logits to strings, with every probability on record.
//!
//! * [`Truncation`] and [`Sampling`]: which tokens may be drawn, and the one sampler that draws them. A [`Step`] carries
//!   what was known when its token was drawn: log p under the model, log q under the truncated distribution, size and
//!   log-mass of the kept set.
//! * [`generate()`]: many strings at once through one KV cache. Every draw comes from (seed, item, step), so no string
//!   depends on how many others are written beside it.
//! * [`ensemble`]: several models with different tokenizers write one text.
//! * [`likelihoods`]: how likely texts are after a context, with everything in common read once.
//! * [`global`]: the same truncation, renormalised once over strings instead of at every step, by four samplers.
//!
//! Nothing here opens a file, prints, or depends on the number of threads.

mod choices;
mod draw;
pub mod ensemble;
mod error;
mod generate;
pub mod global;
mod sampling;
mod stop;
mod truncation;

pub use choices::{Fork, Likelihood, Room, likelihoods};
pub use draw::uniform;
pub use error::DecodeError;
pub use generate::{Decoding, Ended, Event, Generation, Request, Writer, generate, reply};
use sampling::History;
pub use sampling::{Alternative, Sampling, Step};
pub use stop::Stops;
pub use truncation::{Kept, Truncation};
