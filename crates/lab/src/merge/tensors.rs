//! From the tensors of several models to those of one, a piece at a time.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lathe_formats::write::TensorSpec;
use lathe_formats::{ElementType, encode_rows};
use lathe_kernels::weights::{f32_to_bf16, f32_to_f16, sum_bf16};
use lathe_merge::plan::{OutputTensor, Role};
use lathe_merge::rule::{MaskKey, Prepared, Remark};
use lathe_merge::vocabulary::ModelRows;
use lathe_merge::{InputError, Inputs};
use rayon::prelude::*;

use super::source::Source;
use crate::{Context, Error};

/// Numbers of one piece of work, written at once.
const PIECE: usize = 1 << 18;
/// Numbers that are read, merged and stored at once: those of all inputs and of the result stay in the cache of a core.
const TILE: usize = 1 << 13;

/// Everything that the tensors of a merge are made from.
pub(super) struct Merger<'a> {
    pub(super) sources: &'a [Arc<Source>],
    /// Where each input's rows of embeddings and heads come from, where models have different tokens.
    pub(super) rows: Option<&'a [ModelRows]>,
    /// Where random masks begin.
    pub(super) seed: u64,
    /// What threads work in, kept from one piece and tensor to the next: fresh memory has to be cleared by the system.
    pub(super) scratch: Mutex<Vec<Scratch>>,
}

/// Takes the bytes of a piece, beginning at a byte of the tensor.
pub(super) type Put<'a> = dyn Fn(usize, &[u8]) -> Result<(), Error> + Sync + 'a;

impl Merger<'_> {
    /// Makes one tensor, stored as `stored` says, and hands its pieces over in any order.
    ///
    /// # Errors
    /// An input cannot be read or its numbers cannot be merged; a number does not fit the type; `put` fails.
    pub(super) fn tensor(
        &self,
        tensor: &OutputTensor,
        stored: &TensorSpec,
        put: &Put<'_>,
        context: &Context<'_>,
    ) -> Result<Vec<Remark>, Error> {
        let remarks = if tensor.copied {
            self.copy(tensor, put)?;
            Vec::new()
        } else {
            self.merge(tensor, stored, put, context)?
        };
        for (input, name) in &tensor.inputs {
            self.sources[*input].release(name);
        }
        Ok(remarks)
    }

    fn merge(
        &self,
        tensor: &OutputTensor,
        stored: &TensorSpec,
        put: &Put<'_>,
        context: &Context<'_>,
    ) -> Result<Vec<Remark>, Error> {
        let inputs = TensorInputs::of(self, tensor)?;
        let key = MaskKey { seed: self.seed, tensor: &tensor.name };
        let prepared = tensor.rule.prepare(&key, &inputs)?;
        let numbers = tensor.shape.iter().product::<usize>();
        let piece = whole(PIECE, &prepared);
        let pieces: Vec<Range<usize>> =
            (0..numbers).step_by(piece).map(|first| first..numbers.min(first + piece)).collect();
        let bytes = stored.element.block_bytes();
        let done: Result<(), Error> = pieces
            .into_par_iter()
            .map(|range| {
                let mut scratch = self.scratch().pop().unwrap_or_default();
                let encoded = scratch.fill(&prepared, &inputs, range.clone(), stored)?;
                put(range.start * bytes, encoded)?;
                self.scratch().push(scratch);
                context.progress.advance((range.len() * bytes) as u64);
                Ok(())
            })
            // Collected before it is looked at: the first error counts, whichever thread is faster.
            .collect::<Vec<Result<(), Error>>>()
            .into_iter()
            .collect();
        done?;
        Ok(prepared.remarks().to_vec())
    }

    fn scratch(&self) -> MutexGuard<'_, Vec<Scratch>> {
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A tensor of integers or flags: the same bytes in all inputs.
    fn copy(&self, tensor: &OutputTensor, put: &Put<'_>) -> Result<(), Error> {
        let mut first: Option<(&str, &[u8])> = None;
        for (input, name) in &tensor.inputs {
            let source = &self.sources[*input];
            let Some(bytes) = source.bytes(name) else { continue };
            match first {
                None => first = Some((&source.name, bytes)),
                Some((_, same)) if same == bytes => {}
                Some((other, _)) => {
                    return Err(Error::UnequalBuffers {
                        tensor: name.clone(),
                        models: [other.to_owned(), source.name.clone()],
                    });
                }
            }
        }
        first.map_or(Ok(()), |(_, bytes)| put(0, bytes))
    }
}

/// Memory that one piece is made in.
#[derive(Default)]
pub(super) struct Scratch {
    inputs: Vec<Vec<f32>>,
    out: Vec<f32>,
    bytes: Vec<u8>,
}

impl Scratch {
    /// Makes a piece, tile by tile, and returns its bytes.
    fn fill(
        &mut self,
        prepared: &Prepared,
        inputs: &TensorInputs<'_>,
        piece: Range<usize>,
        stored: &TensorSpec,
    ) -> Result<&[u8], Error> {
        let width = stored.element.block_bytes();
        self.bytes.resize(piece.len() * width, 0);
        if inputs.sum(prepared, piece.clone(), stored, &mut self.bytes) {
            return Ok(&self.bytes);
        }
        self.inputs.resize_with(inputs.count(), Vec::new);
        for first in piece.clone().step_by(whole(TILE, prepared)) {
            let tile = first..piece.end.min(first + whole(TILE, prepared));
            for (model, numbers) in self.inputs.iter_mut().enumerate() {
                numbers.resize(tile.len(), 0.0);
                inputs.read(model, tile.clone(), numbers)?;
            }
            let tiles: Vec<&[f32]> = self.inputs.iter().map(Vec::as_slice).collect();
            self.out.resize(tile.len(), 0.0);
            prepared.fill(first, &tiles, &mut self.out);
            let place = (first - piece.start) * width..(tile.end - piece.start) * width;
            encode(stored, &self.out, first, &mut self.bytes[place])?;
        }
        Ok(&self.bytes)
    }
}

/// About so many numbers, but whole units of a rule.
fn whole(numbers: usize, prepared: &Prepared) -> usize {
    let unit = prepared.unit().max(1);
    (numbers / unit).max(1) * unit
}

/// Numbers as stored bytes, rounded once to nearest, ties to even.
fn encode(stored: &TensorSpec, numbers: &[f32], first: usize, bytes: &mut [u8]) -> Result<(), Error> {
    let is_finite = match stored.element {
        ElementType::BF16 => f32_to_bf16(numbers, bytes),
        ElementType::F16 => f32_to_f16(numbers, bytes),
        _ => false,
    };
    if is_finite {
        return Ok(());
    }
    // The slow way names the number that does not fit, and keeps those that were not finite before.
    let mut slowly = Vec::with_capacity(bytes.len());
    encode_rows(stored.element, 1, numbers, &mut slowly)
        .map_err(|source| Error::UnfitWeight { tensor: stored.name.clone(), source: source.after(first) })?;
    bytes.copy_from_slice(&slowly);
    Ok(())
}

/// One tensor of all models that it is made from.
struct TensorInputs<'a> {
    merger: &'a Merger<'a>,
    tensor: &'a OutputTensor,
    /// For each model its rows in the order of the result, and the row that pads them; none where the file has that order.
    tokens: Option<Vec<(&'a ModelRows, Vec<f32>)>>,
    /// Numbers of a row of tokens.
    width: usize,
}

impl<'a> TensorInputs<'a> {
    fn of(merger: &'a Merger<'a>, tensor: &'a OutputTensor) -> Result<Self, Error> {
        let width = tensor.shape.iter().skip(1).product();
        let mut inputs = Self { merger, tensor, tokens: None, width };
        if let (Some(rows), Role::Embedding | Role::Head) = (merger.rows, tensor.role) {
            let padded = |(input, _): &(usize, String)| {
                let rows = &rows[*input];
                let has_padding = tensor.shape.first().is_some_and(|all| *all > rows.tokens());
                let padding = if has_padding { rows.padding_row(width, &inputs.rows())? } else { Vec::new() };
                Ok((rows, padding))
            };
            inputs.tokens = Some(tensor.inputs.iter().map(padded).collect::<Result<_, InputError>>()?);
        }
        Ok(inputs)
    }

    /// Makes a piece in one pass over bf16 in and out, and says whether that could be done: otherwise `out` is worth
    /// nothing. A number that is not finite is left to the way that names it.
    fn sum(&self, prepared: &Prepared, piece: Range<usize>, stored: &TensorSpec, out: &mut [u8]) -> bool {
        let Some(coefficients) = prepared.plain_sum() else { return false };
        if stored.element != ElementType::BF16 || self.tokens.is_some() {
            return false;
        }
        let sources = || self.tensor.inputs.iter().map(|(input, name)| (&self.merger.sources[*input], name));
        let Some(views) = sources().map(|(source, name)| source.bf16(name)).collect::<Option<Vec<_>>>() else {
            return false;
        };
        let bytes = 2 * piece.start..2 * piece.end;
        let inputs: Vec<&[u8]> = views.iter().map(|view| &view.bytes()[bytes.clone()]).collect();
        let is_finite = sum_bf16(&inputs, coefficients, out);
        if is_finite {
            sources().zip(&views).for_each(|((source, _), view)| source.has_read(view, &bytes));
        }
        is_finite
    }

    /// Reads rows of the matrix that a model's file has.
    fn rows(&self) -> impl Fn(usize, Range<usize>, &mut [f32]) -> Result<(), InputError> + Sync {
        |input, rows, out| {
            let (sources, width) = (self.merger.sources, self.width);
            let name = self.tensor.inputs.iter().find(|(other, _)| *other == input);
            let name = name.map_or(&self.tensor.name, |(_, name)| name);
            sources[input].read(name, rows.start * width..rows.end * width, out).map_err(boxed)
        }
    }

    /// Numbers of a matrix whose rows are found one by one. A piece may begin and end within a row.
    fn numbers_of_tokens(&self, model: usize, range: Range<usize>, out: &mut [f32]) -> Result<(), InputError> {
        let Some((rows, padding)) = self.tokens.as_ref().map(|tokens| &tokens[model]) else { return Ok(()) };
        let width = self.width.max(1);
        let whole = range.start / width..range.end.div_ceil(width);
        if whole.len() * width == out.len() {
            return rows.read(whole, width, padding, &self.rows(), out);
        }
        let mut values = vec![0.0; whole.len() * width];
        rows.read(whole.clone(), width, padding, &self.rows(), &mut values)?;
        let first = range.start - whole.start * width;
        out.copy_from_slice(&values[first..first + out.len()]);
        Ok(())
    }
}

impl Inputs for TensorInputs<'_> {
    fn count(&self) -> usize {
        self.tensor.inputs.len()
    }

    fn shape(&self) -> &[usize] {
        &self.tensor.shape
    }

    fn read(&self, model: usize, range: Range<usize>, out: &mut [f32]) -> Result<(), InputError> {
        if self.tokens.is_some() {
            return self.numbers_of_tokens(model, range, out);
        }
        let (input, name) = &self.tensor.inputs[model];
        self.merger.sources[*input].read(name, range, out).map_err(boxed)
    }
}

fn boxed(error: Error) -> InputError {
    InputError(Box::new(error))
}
