//! A checkpoint to be written: its tensors, and where each parameter goes in them.
//!
//! The tables of names that find parameters in a file are used the other way round: of several rows for a parameter
//! the first counts.

use std::collections::HashMap;
use std::ops::Range;

use lathe_formats::{Format, GgufValue};

use crate::Error;
use crate::config::Config;
use crate::family::{Family, GgufLayout};
use crate::gguf;
use crate::layout::{Name, Place, Placement};
use crate::parameters::ParameterSource;
use crate::spec::{DecoderSpec, Parameter};

/// What a checkpoint file holds, except a tokenizer.
pub struct Target {
    /// The tensors of parameters, in the order of the forward pass.
    pub tensors: Vec<TargetTensor>,
    /// Tensors that follow from the configuration (divisors of rotary frequencies), by name. Vectors, stored as F32.
    pub constants: Vec<(String, Vec<f32>)>,
    /// The header of a GGUF file; empty for safetensors.
    pub metadata: Vec<(String, GgufValue)>,
    /// Keys of the header that llama.cpp does not read for this architecture, though the model needs what they say.
    pub unread: Vec<String>,
    /// A part of the model with which llama.cpp does not open the file.
    pub unopened: Option<&'static str>,
}

/// A tensor to be written and the parameters in it.
#[derive(Clone)]
pub struct TargetTensor {
    /// Its name in the file.
    pub name: String,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// The parameters, with their place in it. Together they fill it.
    pieces: Vec<(Parameter, Placement)>,
}

/// Plans a checkpoint of a model.
///
/// # Errors
/// The format has no names for the architecture or for some of its parameters.
pub(crate) fn target(
    format: Format,
    config: &Config,
    spec: &DecoderSpec,
    family: &'static Family,
) -> Result<Target, Error> {
    match format {
        Format::Safetensors => {
            let tensors = tensors(spec, family.names, GgufLayout::Plain)?;
            let (constants, metadata, unread) = Default::default();
            Ok(Target { tensors, constants, metadata, unread, unopened: None })
        }
        Format::Gguf => {
            let Some(gguf) = &family.gguf else {
                return Err(Error::NotInGguf { family: spec.family.clone(), missing: vec!["architecture"] });
            };
            let mut tensors = tensors(spec, gguf.names, gguf.layout)?;
            let embedding = tensors.iter().find(|tensor| tensor.name == gguf::EMBEDDING);
            if let Some(embedding) = embedding.filter(|_| gguf::has_copied_head(spec, gguf)).cloned() {
                tensors.push(TargetTensor { name: gguf::HEAD.into(), ..embedding });
            }
            let gguf::Header { entries, constants, unread } = gguf::header(config, spec, gguf, &tensors)?;
            Ok(Target { tensors, constants, metadata: entries, unread, unopened: (gguf.unopened)(spec) })
        }
    }
}

/// The tensors of a table of names that hold all parameters, after what a converter does to them.
fn tensors(spec: &DecoderSpec, tables: &[&[Name]], layout: GgufLayout) -> Result<Vec<TargetTensor>, Error> {
    let mut rows: HashMap<&str, &Name> = HashMap::new();
    for row in tables.iter().copied().flatten() {
        rows.entry(row.ours).or_insert(row);
    }
    let mut tensors: Vec<TargetTensor> = Vec::new();
    let mut by_name: HashMap<String, usize> = HashMap::new();
    let mut unnamed = Vec::new();
    for parameter in spec.parameters() {
        let place = Place::of(&parameter.name);
        let Some(row) = rows.get(place.pattern.as_str()) else {
            unnamed.push(parameter.name);
            continue;
        };
        let name = place.fill(row.theirs);
        let placement = row.layout.place(&parameter, spec, &place).converted(&place, spec, layout);
        let index = *by_name.entry(name.clone()).or_insert(tensors.len());
        if index == tensors.len() {
            tensors.push(TargetTensor { name, shape: placement.shape.clone(), pieces: Vec::new() });
        }
        tensors[index].pieces.push((parameter, placement));
    }
    if unnamed.is_empty() {
        Ok(tensors)
    } else {
        Err(Error::UnnamedParameters { family: spec.family.clone(), names: unnamed })
    }
}

impl TargetTensor {
    /// The product of all sizes but the last: 1 for a vector.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.shape.iter().rev().skip(1).product()
    }

    /// The last size.
    #[must_use]
    pub fn row_len(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// The parameters in it.
    pub fn parameters(&self) -> impl Iterator<Item = &Parameter> {
        self.pieces.iter().map(|(parameter, _)| parameter)
    }

    /// The parameters in it, with the row (column, where it is transposed) of the tensor that each of their rows is.
    pub(crate) fn rows_of_parameters(&self) -> impl Iterator<Item = (&Parameter, Vec<usize>)> {
        self.pieces.iter().map(|(parameter, place)| {
            let rows = parameter.shape.first().copied().unwrap_or(0);
            (parameter, (0..rows).map(|row| place.row(row)).collect())
        })
    }

    /// Whether rows can be asked for a few at a time. The rows of a transposed tensor take a pass over all of its
    /// parameters, however few they are.
    #[must_use]
    pub fn is_by_rows(&self) -> bool {
        !self.pieces.iter().any(|(_, place)| place.transposed)
    }

    /// Writes `rows` of the tensor, `[rows, row_len]`, with numbers from `source`.
    ///
    /// # Errors
    /// The source cannot be read.
    pub fn values(&self, source: &dyn ParameterSource, rows: Range<usize>, out: &mut [f32]) -> Result<(), Error> {
        let width = self.row_len();
        for (parameter, place) in &self.pieces {
            if place.transposed {
                transposed(source, parameter, place, rows.clone(), width, out)?;
            } else if self.shape.len() == 1 {
                let mut values = vec![0.0; parameter.elements()];
                source.rows(parameter, 0..1, &mut values)?;
                for (i, value) in values.into_iter().enumerate() {
                    out[place.row(i)] = value - place.add;
                }
            } else {
                some_rows(source, parameter, place, rows.clone(), width, out)?;
            }
        }
        Ok(())
    }
}

/// Rows of a matrix that belong to one parameter.
fn some_rows(
    source: &dyn ParameterSource,
    parameter: &Parameter,
    place: &Placement,
    rows: Range<usize>,
    width: usize,
    out: &mut [f32],
) -> Result<(), Error> {
    // A vector in a stack is one row.
    let count = if parameter.shape.len() < 2 { 1 } else { parameter.shape[0] };
    let slice = |from: usize, to: usize| (from - rows.start) * width..(to - rows.start) * width;
    if place.is_contiguous() {
        let (from, to) = (rows.start.max(place.first), rows.end.min(place.first + count));
        if from < to {
            source.rows(parameter, from - place.first..to - place.first, &mut out[slice(from, to)])?;
        }
        return Ok(());
    }
    for row in rows.clone() {
        if let Some(ours) = place.row_of(row, count) {
            source.rows(parameter, ours..ours + 1, &mut out[slice(row, row + 1)])?;
        }
    }
    Ok(())
}

/// Rows of a transposed tensor: columns of the parameter.
fn transposed(
    source: &dyn ParameterSource,
    parameter: &Parameter,
    place: &Placement,
    rows: Range<usize>,
    width: usize,
    out: &mut [f32],
) -> Result<(), Error> {
    let mut values = vec![0.0; parameter.shape[1]];
    for row in 0..parameter.shape[0] {
        source.rows(parameter, row..row + 1, &mut values)?;
        for (line, value) in out.chunks_exact_mut(width).zip(&values[rows.clone()]) {
            line[place.row(row)] = *value;
        }
    }
    Ok(())
}
