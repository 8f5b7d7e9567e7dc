//! From f32 to stored bytes.

use crate::blocks;
use crate::element::ElementType;

/// Appends whole rows to `out`, stored as `element`: `values` is [rows, row_len].
///
/// A pure function of one row at a time: threads may encode different rows at once, and the pieces are the bytes of the
/// tensor in order. Quantised types give the bytes of ggml's own quantiser (without an importance matrix); F16 and
/// BF16 are rounded to nearest, ties to even.
///
/// What is too small for a type vanishes: scales are f16, and numbers whose scale is below 2^-25 are stored as zeros.
/// What is too large is refused. NaN and infinity are kept by F32, F16 and BF16 and refused by all others.
///
/// # Errors
/// The type is not [writable](ElementType::is_writable); a row is no whole number of blocks, or `values` no whole number of
/// rows; a number that the type cannot hold. `out` is as it was before.
pub fn encode_rows(element: ElementType, row_len: usize, values: &[f32], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if !element.is_writable() {
        return Err(EncodeError::NotWritable { element });
    }
    if !row_len.is_multiple_of(element.block_len()) {
        return Err(EncodeError::RowLength { element, row_len });
    }
    if !values.len().is_multiple_of(row_len) {
        return Err(EncodeError::PartialRow { row_len, got: values.len() });
    }
    if element.is_quantised()
        && let Some(index) = values.iter().position(|value| !value.is_finite())
    {
        return Err(EncodeError::NotFinite { element, index, value: values[index] });
    }
    let before = out.len();
    blocks::encode(element, values, out).map_err(|block| {
        out.truncate(before);
        let begin = block * element.block_len();
        let index = (begin..begin + element.block_len())
            .fold(begin, |largest, index| if values[index].abs() > values[largest].abs() { index } else { largest });
        EncodeError::TooLarge { element, index, value: values[index] }
    })
}

/// Why numbers cannot be stored as an element type. Indices count the numbers that were handed over.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EncodeError {
    /// A type that f32 values are not turned into.
    #[error("f32 values are not stored as {element} (but as {})", ElementType::writable_names())]
    NotWritable {
        /// The type.
        element: ElementType,
    },

    /// Rows that are no whole number of blocks.
    #[error("rows of {row_len} numbers are no whole number of {element} blocks of {}", element.block_len())]
    RowLength {
        /// The type.
        element: ElementType,
        /// Numbers per row.
        row_len: usize,
    },

    /// The end of a row is missing.
    #[error("{got} numbers are no whole number of rows of {row_len}")]
    PartialRow {
        /// Numbers per row.
        row_len: usize,
        /// How many were handed over.
        got: usize,
    },

    /// NaN or infinity for a quantised type.
    #[error("number {index} is {value}, which {element} cannot hold")]
    NotFinite {
        /// The type.
        element: ElementType,
        /// Where the number is.
        index: usize,
        /// The number.
        value: f32,
    },

    /// A number beyond the largest one of the type.
    #[error("number {index} is {value:e}, which is too large for {element}")]
    TooLarge {
        /// The type.
        element: ElementType,
        /// Where the number is.
        index: usize,
        /// The number; of a block, the one of the largest magnitude.
        value: f32,
    },
}

impl EncodeError {
    /// The same error for numbers that are `earlier` numbers further on.
    #[must_use]
    pub fn after(mut self, earlier: usize) -> EncodeError {
        if let EncodeError::NotFinite { index, .. } | EncodeError::TooLarge { index, .. } = &mut self {
            *index += earlier;
        }
        self
    }
}
