//! A configuration whose models have become positions in the list of headers: whole models are one part, slices one
//! each.

use std::ops::Range;

use super::{ModelHeader, PlanError};
use crate::config::{BaseUse, Form, MergeConfig, ModelRef, Parameters, base_position};

/// The result has at most this many layers. Files of a megabyte can ask for more.
const MOST_LAYERS: usize = 4096;

/// Consecutive layers of the result and what they are made of.
pub(super) struct Part<'a> {
    /// Parameters of the slice.
    pub(super) parameters: Option<&'a Parameters>,
    /// The base, where the method gives it a part of its own.
    pub(super) base: Option<Participant<'a>>,
    /// The models, in the order of the configuration.
    pub(super) models: Vec<Participant<'a>>,
    /// The first of its layers in the result.
    pub(super) first: usize,
    /// How many layers it has.
    pub(super) layers: usize,
    /// Which layers of the models take part.
    pub(super) extent: Extent,
}

/// Which layers of a model take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// All, of every stack that it has.
    WholeModel,
    /// As many as the part has layers, from the participant's first one.
    Range,
}

/// A model in a part.
#[derive(Clone, Debug)]
pub(super) struct Participant<'a> {
    /// Position in the list of headers.
    pub(super) input: usize,
    /// For messages.
    pub(super) name: &'a str,
    /// The first of its layers.
    pub(super) first: usize,
    /// What the configuration says of it here.
    pub(super) parameters: &'a Parameters,
}

impl<'a> Part<'a> {
    /// Base first, then the models: the order of a rule's inputs.
    pub(super) fn participants(&self) -> impl Iterator<Item = &Participant<'a>> {
        self.base.iter().chain(&self.models)
    }
}

/// The parts of a configuration, with layers checked against the models.
pub(super) fn parts<'a>(
    config: &'a MergeConfig,
    inputs: &[ModelRef],
    headers: &'a [ModelHeader],
    nothing: &'a Parameters,
) -> Result<Vec<Part<'a>>, PlanError> {
    let base_use = config.merge_method.row().base;
    let lists = Lists { base_use, inputs, headers, nothing };
    match &config.form {
        Form::Models(models) => {
            let listed: Vec<Listed> = models.iter().map(|entry| (&entry.model, 0..0, &entry.parameters)).collect();
            let (base, models) = lists.split(&listed, config.base_model.as_ref());
            let mut part = Part { parameters: None, base, models, first: 0, layers: 0, extent: Extent::WholeModel };
            part.layers = same_depth(&part, headers)?;
            Ok(vec![part])
        }
        Form::Slices(slices) => {
            let mut parts = Vec::with_capacity(slices.len());
            let mut first = 0;
            for slice in slices {
                let listed: Vec<Listed> = slice
                    .sources
                    .iter()
                    .map(|source| (&source.model, source.layers.clone(), &source.parameters))
                    .collect();
                let base = slice.base_model.as_ref().or(config.base_model.as_ref());
                let (base, models) = lists.split(&listed, base);
                let layers = slice.sources.first().map_or(0, |source| source.layers.len());
                let part =
                    Part { parameters: Some(&slice.parameters), base, models, first, layers, extent: Extent::Range };
                inside_models(&part, headers)?;
                first += layers;
                parts.push(part);
            }
            if first > MOST_LAYERS {
                return Err(PlanError::TooManyLayers { layers: first, most: MOST_LAYERS });
            }
            Ok(parts)
        }
    }
}

/// A model of a list, its layers, and what is said of it.
type Listed<'a> = (&'a ModelRef, Range<usize>, &'a Parameters);

/// What turns a list of models into participants.
struct Lists<'a, 'b> {
    base_use: BaseUse,
    inputs: &'b [ModelRef],
    headers: &'a [ModelHeader],
    nothing: &'a Parameters,
}

impl<'a> Lists<'a, '_> {
    /// Base and models of a list. A base that is not listed has the layers of the others, which are then all the same.
    fn split(&self, listed: &[Listed<'a>], base: Option<&ModelRef>) -> (Option<Participant<'a>>, Vec<Participant<'a>>) {
        let participants: Vec<Participant> = listed
            .iter()
            .map(|(model, layers, parameters)| self.participant(model, layers.start, parameters))
            .collect();
        let position = base_position(self.base_use, base, listed.iter().map(|(model, ..)| *model));
        let unlisted = if self.base_use == BaseUse::DonorOnly || position.is_some() { None } else { base };
        let first = listed.first().map_or(0, |(_, layers, _)| layers.start);
        let base = position
            .map(|position| participants[position].clone())
            .or_else(|| unlisted.map(|base| self.participant(base, first, self.nothing)));
        let models = participants
            .into_iter()
            .enumerate()
            .filter(|(index, _)| Some(*index) != position)
            .map(|(_, participant)| participant)
            .collect();
        (base, models)
    }

    fn participant(&self, model: &ModelRef, first: usize, parameters: &'a Parameters) -> Participant<'a> {
        let input = self.inputs.iter().position(|input| input == model).unwrap_or_default();
        Participant { input, name: &self.headers[input].name, first, parameters }
    }
}

/// The number of layers that all models of a part have.
fn same_depth(part: &Part, headers: &[ModelHeader]) -> Result<usize, PlanError> {
    let mut depths = part.participants().map(|participant| (participant.name, headers[participant.input].layers));
    let Some((first, first_layers)) = depths.next() else { return Ok(0) };
    match depths.find(|(_, layers)| *layers != first_layers) {
        None => Ok(first_layers),
        Some((other, other_layers)) => {
            Err(PlanError::Layers { first: first.into(), first_layers, other: other.into(), other_layers })
        }
    }
}

/// Every range ends within its model.
fn inside_models(part: &Part, headers: &[ModelHeader]) -> Result<(), PlanError> {
    for participant in part.participants() {
        let layers = headers[participant.input].layers;
        let (from, to) = (participant.first, participant.first.saturating_add(part.layers));
        if to > layers {
            return Err(PlanError::LayerRange { model: participant.name.into(), from, to, layers });
        }
    }
    Ok(())
}
