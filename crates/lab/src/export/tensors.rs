//! From a source's tensors to a target's, a few rows at a time.

use std::path::Path;

use lathe_formats::write::{TensorSpec, TensorWriter};
use lathe_formats::{Error as FormatError, encode_rows};
use lathe_model::{Opened, ParameterSource, TargetTensor};
use rayon::prelude::*;

use super::plan::{Plan, bytes_of, is_copied};
use crate::{Context, Error};

/// Where the numbers of a target come from.
#[derive(Clone, Copy)]
pub(crate) enum Numbers<'a> {
    /// From the model's own checkpoint: blocks that both have are copied.
    Own(&'a Opened),
    /// From somewhere else, which errors call by the path.
    Other(&'a dyn ParameterSource, &'a Path),
}

impl<'a> Numbers<'a> {
    fn source(self) -> (&'a dyn ParameterSource, &'a Path) {
        match self {
            Self::Own(opened) => (opened.parameters(), &opened.path),
            Self::Other(source, path) => (source, path),
        }
    }
}

/// Writes every tensor and completes the file.
///
/// # Errors
/// A tensor cannot be read; a number does not fit its type; the system refuses.
pub(super) fn write(
    plan: &Plan,
    numbers: Numbers<'_>,
    mut writer: TensorWriter,
    context: &Context<'_>,
) -> Result<(), Error> {
    let total = plan.stored.iter().map(bytes_of).sum();
    context.stage("writing tensors", total, "B", || {
        for (tensor, stored) in plan.target.tensors.iter().zip(&plan.stored) {
            // Blocks are copied where they can be: to decode and encode them again would change them.
            let same = match numbers {
                Numbers::Own(opened) if is_copied(tensor, stored.element, opened) => {
                    opened.checkpoint.tensor(&tensor.name)
                }
                Numbers::Own(_) | Numbers::Other(..) => None,
            };
            match same {
                Some(view) => append(&mut writer, stored, view.bytes(), context)?,
                None => convert(tensor, stored, numbers.source(), &mut writer, context)?,
            }
        }
        for (name, values) in &plan.target.constants {
            writer.append_f32(name, values)?;
        }
        Ok(writer.finish()?)
    })
}

/// Decodes, reorders and encodes a tensor.
fn convert(
    tensor: &TargetTensor,
    stored: &TensorSpec,
    (source, file): (&dyn ParameterSource, &Path),
    writer: &mut TensorWriter,
    context: &Context<'_>,
) -> Result<(), Error> {
    /// Numbers of one piece of work.
    const PIECE: usize = 1 << 18;
    /// Numbers that are held at once: 32 MB.
    const HELD: usize = 1 << 23;
    let (rows, width) = (tensor.rows(), tensor.row_len().max(1));
    let held = if tensor.is_by_rows() { (HELD / width).max(1) } else { rows.max(1) };
    let piece = (PIECE / width).max(1);
    for first in (0..rows).step_by(held) {
        let last = rows.min(first + held);
        let mut values = vec![0.0; (last - first) * width];
        if tensor.is_by_rows() {
            values.par_chunks_mut(piece * width).enumerate().try_for_each(|(i, values)| {
                let from = first + i * piece;
                tensor.values(source, from..from + values.len() / width, values)
            })?;
        } else {
            tensor.values(source, first..last, &mut values)?;
        }
        let encoded = values.par_chunks(piece * width).map(|values| {
            let mut bytes = Vec::new();
            encode_rows(stored.element, width, values, &mut bytes).map(|()| bytes)
        });
        // Collected before it is looked at: the first error counts, whichever thread is faster.
        for (i, bytes) in encoded.collect::<Vec<_>>().into_iter().enumerate() {
            let bytes = bytes.map_err(|source| {
                let earlier = (first + i * piece) * width;
                let (file, tensor) = (file.into(), stored.name.clone());
                FormatError::Unencodable { file, tensor, source: source.after(earlier) }
            })?;
            append(writer, stored, &bytes, context)?;
        }
    }
    Ok(())
}

fn append(writer: &mut TensorWriter, stored: &TensorSpec, bytes: &[u8], context: &Context<'_>) -> Result<(), Error> {
    writer.append(&stored.name, bytes)?;
    context.progress.advance(bytes.len() as u64);
    Ok(())
}
