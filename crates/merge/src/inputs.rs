//! One tensor of several models.

use std::ops::Range;

/// The same tensor of several models, read a piece at a time. Pieces are independent: threads may read different ones
/// at once.
pub trait Inputs: Sync {
    /// How many models there are.
    fn count(&self) -> usize;

    /// Sizes of the tensor, outermost first: the same in every model.
    fn shape(&self) -> &[usize];

    /// Writes the numbers `range` (row-major positions) of a model's tensor. They are finite.
    ///
    /// # Errors
    /// They cannot be read, or one of them is not finite.
    fn read(&self, model: usize, range: Range<usize>, out: &mut [f32]) -> Result<(), InputError>;
}

/// Why a tensor of a model cannot be read: a sentence that names file and tensor, made by whoever reads it.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct InputError(#[from] pub Box<dyn std::error::Error + Send + Sync>);
