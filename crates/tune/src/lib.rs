//! Training: the mathematics, without files and flags.
//!
//! [`labels`] has examples and their audit, [`packing`] puts them into bins, [`order`] says which are read when,
//! [`schedule`] is the learning rate, [`clip`] the length of a gradient, [`adamw`] the optimiser, [`loss`] what is
//! minimised; [`trainer`] makes one update of a decoder from micro-batches.

pub mod adamw;
pub mod clip;
pub mod labels;
pub mod loss;
pub mod order;
pub mod packing;
pub mod schedule;
pub mod trainer;

pub use adamw::{AdamW, AdamWSettings, DecayGroups, Moments};
pub use labels::{Audit, Example, Limits, Overlong, prepare};
pub use loss::{Loss, NextToken};
pub use order::{Cursor, Epochs, Order, Reading, Shares, Source, SourceRead};
pub use schedule::{Rate, Schedule};
pub use trainer::{StepReport, TrainError, Trainer, TrainerSettings};
