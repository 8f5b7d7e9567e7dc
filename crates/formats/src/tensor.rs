//! One tensor of a checkpoint: what it is, and its bytes.

use std::ops::Range;
use std::path::Path;

use crate::blocks;
use crate::element::ElementType;
use crate::error::Error;

/// What a checkpoint's header says of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// The name that the file gives it.
    pub name: String,
    /// Sizes row-major, outermost first, as in safetensors: GGUF's dimensions reversed. Empty for a single number;
    /// a tensor with a size of zero holds nothing and is allowed.
    pub shape: Vec<usize>,
    /// How its numbers are stored.
    pub element: ElementType,
    /// Index into [`crate::Checkpoint::files`].
    pub(crate) file: usize,
    /// Where its bytes are in that file, from the file's beginning.
    pub(crate) span: Range<usize>,
}

impl TensorInfo {
    /// How many numbers it holds.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// How many bytes it takes in the file.
    pub fn bytes(&self) -> usize {
        self.span.len()
    }

    /// The product of all sizes but the last: 1 for a vector and for a single number.
    pub fn rows(&self) -> usize {
        self.shape.iter().rev().skip(1).product()
    }

    /// The last size: 1 for a single number.
    pub fn row_len(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Index of its file in [`crate::Checkpoint::files`].
    pub fn file(&self) -> usize {
        self.file
    }
}

/// A tensor in a mapped file.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    info: &'a TensorInfo,
    bytes: &'a [u8],
    file: &'a Path,
}

impl<'a> TensorView<'a> {
    pub(crate) fn new(info: &'a TensorInfo, bytes: &'a [u8], file: &'a Path) -> TensorView<'a> {
        TensorView { info, bytes, file }
    }

    /// What the header says of it.
    pub fn info(&self) -> &'a TensorInfo {
        self.info
    }

    /// The stored bytes, `info().bytes()` of them, at any alignment.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The file that holds it.
    pub fn file(&self) -> &'a Path {
        self.file
    }

    /// Writes rows as f32 into `out`, [rows, row_len]. Integers, booleans and F64 become the nearest f32.
    ///
    /// Rows are independent of each other: threads may decode different ranges at once.
    ///
    /// # Errors
    /// The element type is one that lathe only knows by name; the rows are not in the tensor; `out` has another length.
    pub fn decode_rows(&self, rows: Range<usize>, out: &mut [f32]) -> Result<(), Error> {
        let info = self.info;
        if !info.element.is_readable() {
            return Err(Error::Unreadable { file: self.file.into(), tensor: info.name.clone(), element: info.element });
        }
        self.check_rows(&rows)?;
        // The rows are in the tensor, so the products are at most its own sizes, which fit.
        self.check_length(rows.len() * info.row_len(), out.len())?;
        blocks::decode(info.element, self.row_bytes(&rows), out);
        Ok(())
    }

    /// Writes the numbers `range` as f32 into `out`, by row-major position: for types that hold single numbers, whose
    /// pieces may begin and end anywhere.
    ///
    /// # Errors
    /// As [`TensorView::decode_rows`]; a type of blocks of several numbers.
    pub fn decode(&self, range: Range<usize>, out: &mut [f32]) -> Result<(), Error> {
        let info = self.info;
        if !info.element.is_readable() || info.element.block_len() != 1 {
            return Err(Error::Unreadable { file: self.file.into(), tensor: info.name.clone(), element: info.element });
        }
        let have = info.elements();
        if range.start > range.end || range.end > have {
            let (file, tensor) = (self.file.into(), info.name.clone());
            return Err(Error::NumbersOutOfRange { file, tensor, range, have });
        }
        self.check_length(range.len(), out.len())?;
        let bytes = info.element.block_bytes();
        blocks::decode(info.element, &self.bytes[range.start * bytes..range.end * bytes], out);
        Ok(())
    }

    /// Splits rows of a quantised type into `levels`, [rows, row_len], and the scales and offsets of their groups,
    /// [rows, row_len / group_len]. A number is `scale · level + offset`, with the bits of
    /// [`TensorView::decode_rows`] when the product is rounded before the sum (and nothing is added for a type without offsets).
    ///
    /// # Errors
    /// The type has no [`crate::IntegerLayout`]; the rows are not in the tensor; an output has another length.
    pub fn decode_integers(
        &self,
        rows: Range<usize>,
        levels: &mut [i8],
        scales: &mut [f32],
        offsets: &mut [f32],
    ) -> Result<(), Error> {
        let info = self.info;
        let Some(layout) = info.element.integer_layout() else {
            return Err(Error::Unreadable { file: self.file.into(), tensor: info.name.clone(), element: info.element });
        };
        self.check_rows(&rows)?;
        let groups = rows.len() * info.row_len() / layout.group_len;
        self.check_length(rows.len() * info.row_len(), levels.len())?;
        self.check_length(groups, scales.len())?;
        self.check_length(groups, offsets.len())?;
        blocks::integers::split(info.element, self.row_bytes(&rows), levels, scales, offsets);
        Ok(())
    }

    /// The whole tensor as f32, row-major. Takes 4 bytes per element: at most 29 times the stored bytes.
    ///
    /// # Errors
    /// The element type is one that lathe only knows by name.
    pub fn to_f32(&self) -> Result<Vec<f32>, Error> {
        if !self.info.element.is_readable() {
            return Err(Error::Unreadable {
                file: self.file.into(),
                tensor: self.info.name.clone(),
                element: self.info.element,
            });
        }
        let mut out = vec![0.0; self.info.elements()];
        self.decode_rows(0..self.info.rows(), &mut out)?;
        Ok(out)
    }

    fn check_rows(&self, rows: &Range<usize>) -> Result<(), Error> {
        let have = self.info.rows();
        if rows.start > rows.end || rows.end > have {
            let (file, tensor) = (self.file.into(), self.info.name.clone());
            return Err(Error::RowsOutOfRange { file, tensor, rows: rows.clone(), have });
        }
        Ok(())
    }

    fn check_length(&self, needs: usize, got: usize) -> Result<(), Error> {
        if got != needs {
            return Err(Error::OutputLength { file: self.file.into(), tensor: self.info.name.clone(), needs, got });
        }
        Ok(())
    }

    /// The stored bytes of rows that are in the tensor.
    fn row_bytes(&self, rows: &Range<usize>) -> &'a [u8] {
        let len = self.info.row_len() / self.info.element.block_len() * self.info.element.block_bytes();
        &self.bytes[rows.start * len..rows.end * len]
    }
}

/// Bytes of a tensor of this shape, or None where the sizes cannot belong to any file: their product (zeros apart, so
/// that every partial product fits too) exceeds the address space, or the numbers do not fill their last block.
pub(crate) fn stored_bytes(element: ElementType, shape: &[usize]) -> Option<usize> {
    let mut product = 1usize;
    for &size in shape {
        product = product.checked_mul(size.max(1))?;
    }
    // A block holds at most as many bytes as 8 times its numbers, and lengths of slices end at isize::MAX.
    if product > isize::MAX as usize / 8 {
        return None;
    }
    let elements = if shape.contains(&0) { 0 } else { product };
    if !elements.is_multiple_of(element.block_len()) {
        return None;
    }
    Some(elements / element.block_len() * element.block_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_fit_no_file_have_no_bytes() {
        assert_eq!(stored_bytes(ElementType::F32, &[]), Some(4));
        assert_eq!(stored_bytes(ElementType::F32, &[3, 5]), Some(60));
        assert_eq!(stored_bytes(ElementType::F32, &[0, 5]), Some(0));
        assert_eq!(stored_bytes(ElementType::Q4_K, &[2, 256]), Some(288));
        assert_eq!(stored_bytes(ElementType::Q4_K, &[255]), None);
        assert_eq!(stored_bytes(ElementType::F64, &[usize::MAX]), None);
        assert_eq!(stored_bytes(ElementType::U8, &[usize::MAX, usize::MAX, 0]), None);
        assert_eq!(stored_bytes(ElementType::U8, &[1 << 40, 1 << 40]), None);
    }
}
