//! `lathe data`: records for measurements and training, made by rules or chosen by a model.

mod conflicts;
mod critical;
mod facts;
mod instructions;

#[cfg(test)]
mod tests;

pub use conflicts::{ConflictRecord, ConflictsResult, ConflictsSpec, RelationCount, conflicts};
pub use critical::{CriticalBy, CriticalResult, CriticalSpec, RecordScore, context_critical};
pub use facts::Split;
pub use instructions::{InstructionsResult, InstructionsSpec, KindCount, instructions};
