//! The mathematics of lathe's measurements, on slices in memory.
//!
//! * [`spectrum`]: Matrix Nuclear-Norm, matrix entropy, eRank, nuclear norm and RankMe of hidden states,
//!   each beside the value of a Gaussian cloud of the same shape.
//! * [`tokens`]: loss per token, per byte and per token type, by frequency.
//! * [`attention`]: the share of attention on a span, streamed as column sums, with control spans.
//! * [`samples`]: variety of sets of texts, MAUVE, paired comparison.
//! * [`answers`]: whether a text is the right answer; [`shares`]: shares and their comparison.
//! * [`context`]: whether answers follow a text or memory, where the two disagree.
//! * [`embedding`]: vectors of texts, how they are standardised, joined and projected; [`correlation`], [`ranking`],
//!   [`clusters`] and [`logistic`] are what they are judged by.
//! * [`weights`]: how far the weights of two models are apart.
//! * [`statistics`]: the bootstrap, moments and histogram entropy they report with.
//! * [`run`]: runs a model for what they need.
//!
//! Nothing here opens a file, prints, or depends on the number of threads. A number that
//! is undefined is [`Measured::Undefined`] with a reason, never NaN, 0 or −1; a wrong input is a
//! [`MeasureError`].

pub mod answers;
pub mod attention;
pub mod clusters;
pub mod context;
pub mod correlation;
pub mod embedding;
mod error;
pub mod logistic;
mod measured;
pub mod ranking;
pub mod run;
pub mod samples;
pub mod shares;
pub mod spectrum;
pub mod statistics;
pub mod tokens;
pub mod weights;

pub use error::MeasureError;
pub use measured::{Estimate, Interval, Measured, Number, Reason};
