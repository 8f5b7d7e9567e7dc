//! Context reliance: whether a model's answer follows the text that it was given or what it has memorised, on questions
//! where the two disagree (Context-Parametric Inversion, arXiv 2410.10796, §3).
//!
//! An item has a context, a question, the answer of the context and the memorised answer. A written answer belongs to one of four
//! classes ([`Answered`]); the paper's two rates are shares of answers that hold one of the two strings and need not sum to 1.
//! Two numbers need no writing: the preference M_C for the next token (§5.3) and a margin of log-probabilities.
//!
//! * [`mentions`] says which of the two answers a text holds, by one of three ways of matching.
//! * [`traps`] says what is wrong with an item before anything is measured.
//! * [`reliance`] makes rates of items, with intervals that resample questions, since several items may ask the same one.
//! * [`lowest`] is the filter of records that need their context (§4.3).

mod filter;
mod matching;
mod summary;
mod traps;

#[cfg(test)]
mod tests;

pub use filter::lowest;
pub use matching::{Answered, Matching, Mentions, mentions, normalised};
pub use summary::{Classes, Item, Reliance, context_preference, log_probability_margin, mean_by_question, reliance};
pub use traps::{SHORTEST_ANSWER, Trap, relative_position, traps};
