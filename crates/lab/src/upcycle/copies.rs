//! The numbers of a mixture of experts: those of the dense model, copied.

use std::collections::HashMap;
use std::ops::Range;

use lathe_measure::statistics::item_generator;
use lathe_model::{DecoderSpec, Error as ModelError, Opened, Parameter, ParameterSource};
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::UpcycleSpec;
use crate::{Context, Error};

/// Matrices of a gated feed-forward part, in the order in which their noise is numbered.
const MATRICES: [&str; 3] = ["gate", "up", "down"];

/// The parameters of the target.
pub(super) struct Copies<'a> {
    dense: &'a Opened,
    /// Feed-forward matrices of the dense model by name, with the standard deviation of their noise.
    matrices: HashMap<String, (Parameter, f32)>,
    /// Of each layer, `[experts, hidden_size]`.
    routers: Vec<Vec<f32>>,
    seed: u64,
}

/// A parameter of a layer's experts.
enum Part<'a> {
    Router { layer: usize },
    Expert { layer: usize, expert: usize, matrix: &'a str },
    Shared { layer: usize, matrix: &'a str },
    SharedGate,
}

impl<'a> Copies<'a> {
    /// Reads the feed-forward matrices once, for how far their numbers spread.
    ///
    /// # Errors
    /// The model cannot be read.
    pub(super) fn new(
        dense: &'a Opened,
        routers: Vec<Vec<f32>>,
        spec: &UpcycleSpec,
        context: &Context<'_>,
    ) -> Result<Self, Error> {
        let is_matrix = |parameter: &Parameter| parameter.name.contains(".feed_forward.");
        let matrices: Vec<Parameter> = dense.spec.parameters().into_iter().filter(is_matrix).collect();
        let matrices = context.stage("reading weights", matrices.len() as u64, "matrices", || {
            let of_matrix = |matrix: Parameter| {
                let noise = if spec.noise == 0.0 { 0.0 } else { spec.noise * deviation(dense, &matrix)? };
                context.progress.advance(1);
                Ok((matrix.name.clone(), (matrix, noise as f32)))
            };
            matrices.into_par_iter().map(of_matrix).collect::<Result<_, Error>>()
        })?;
        Ok(Self { dense, matrices, routers, seed: spec.seed })
    }

    /// A feed-forward matrix of the dense model, and the standard deviation of the noise of its copies.
    fn matrix(&self, layer: usize, matrix: &str) -> Result<&(Parameter, f32), ModelError> {
        let name = format!("layers.{layer}.feed_forward.{matrix}.weight");
        self.matrices.get(&name).ok_or_else(|| no_parameter(&name))
    }
}

impl ParameterSource for Copies<'_> {
    fn rows(&self, parameter: &Parameter, rows: Range<usize>, out: &mut [f32]) -> Result<(), ModelError> {
        let dense = self.dense.parameters();
        match part(&parameter.name) {
            None => dense.rows(parameter, rows, out),
            Some(Part::Router { layer }) => {
                let width = parameter.shape.last().copied().unwrap_or(1);
                let router = self.routers.get(layer).ok_or_else(|| no_parameter(&parameter.name))?;
                out.copy_from_slice(&router[rows.start * width..rows.end * width]);
                Ok(())
            }
            Some(Part::Expert { layer, expert, matrix }) => {
                let (source, noise) = self.matrix(layer, matrix)?;
                dense.rows(source, rows.clone(), out)?;
                let width = source.shape.last().copied().unwrap_or(1);
                for (row, values) in rows.zip(out.chunks_exact_mut(width)).filter(|_| *noise > 0.0) {
                    let draws = StandardNormal.sample_iter(item_generator(self.seed, item(layer, expert, matrix, row)));
                    values.iter_mut().zip(draws).for_each(|(value, draw): (_, f32)| *value += noise * draw);
                }
                Ok(())
            }
            // The first rows of the dense network, so that training has something to go on; its output is zero.
            Some(Part::Shared { layer, matrix: matrix @ ("gate" | "up") }) => {
                dense.rows(&self.matrix(layer, matrix)?.0, rows, out)
            }
            Some(Part::Shared { .. } | Part::SharedGate) => {
                out.fill(0.0);
                Ok(())
            }
        }
    }
}

/// What a parameter of the target is, if the dense model has none of its name.
fn part(name: &str) -> Option<Part<'_>> {
    let (layer, rest) = name.strip_prefix("layers.")?.split_once('.')?;
    let layer = layer.parse().ok()?;
    let rest = rest.strip_prefix("experts.")?.strip_suffix(".weight")?;
    Some(match rest.split_once('.') {
        None if rest == "router" => Part::Router { layer },
        None => Part::SharedGate,
        Some(("shared", matrix)) => Part::Shared { layer, matrix },
        Some((expert, matrix)) => Part::Expert { layer, expert: expert.parse().ok()?, matrix },
    })
}

/// The number of a row's draws: no two rows of a model have the same.
fn item(layer: usize, expert: usize, matrix: &str, row: usize) -> u64 {
    let matrix = MATRICES.iter().position(|known| *known == matrix).unwrap_or(MATRICES.len()) as u64;
    // 16 bits for the layer, 14 for the expert, 2 for the matrix, 32 for the row.
    (layer as u64) << 48 | (expert as u64) << 34 | matrix << 32 | row as u64
}

/// Standard deviation of a matrix's numbers, in f64, row by row.
fn deviation(dense: &Opened, matrix: &Parameter) -> Result<f64, Error> {
    let [rows, width] = matrix.shape[..] else { return Ok(0.0) };
    let mut values = vec![0.0; width];
    let (mut sum, mut squares) = (0.0, 0.0);
    for row in 0..rows {
        dense.parameters().rows(matrix, row..row + 1, &mut values)?;
        for value in values.iter().map(|value| f64::from(*value)) {
            sum += value;
            squares += value * value;
        }
    }
    let n = (rows * width) as f64;
    // Weights are centred near 0, so that nothing is lost in the difference.
    Ok((squares / n - (sum / n).powi(2)).max(0.0).sqrt())
}

fn no_parameter(name: &str) -> ModelError {
    candle_core::Error::Msg(format!("the dense model has no `{name}`")).into()
}

/// Numbers of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// All of them.
    pub all: u64,
    /// Those that are used for one token: all but the experts that it does not use.
    pub active: u64,
}

impl Counts {
    /// Of a target: of the experts, a token uses `top_k`.
    pub(super) fn of(target: &DecoderSpec, top_k: usize) -> Self {
        let mut counts = Self { all: 0, active: 0 };
        for parameter in target.parameters() {
            let elements = parameter.elements() as u64;
            let is_idle = matches!(part(&parameter.name), Some(Part::Expert { expert, .. }) if expert >= top_k);
            counts.all += elements;
            counts.active += if is_idle { 0 } else { elements };
        }
        counts
    }
}
