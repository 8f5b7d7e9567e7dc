//! What follows from a configuration for each tensor of the result, from headers alone.
//!
//! [`plan`] matches tensors of the models by name, gives each its [`Rule`] with parameters resolved for its name and
//! depth, and finds everything that makes a merge impossible before a number is read: other shapes, missing tensors,
//! other vocabularies, layers that do not exist.

mod error;
mod names;
mod notes;
mod parts;
mod rules;

use std::collections::{HashMap, HashSet};

pub use error::PlanError;

use crate::config::{Form, MergeConfig, Parameters};
use crate::rule::Rule;
use names::Outside;
use notes::Notes;
use parts::{Extent, Part, Participant, parts};
use rules::{Target, rule};

/// What is known of a model without reading its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelHeader {
    /// For messages: the reference, as the configuration has it.
    pub name: String,
    /// Layers of its (text) model.
    pub layers: usize,
    /// Whether its configuration says that the embedding is the head.
    pub tied: bool,
    /// Its tensors, in the order of its files.
    pub tensors: Vec<TensorHeader>,
}

/// A tensor of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorHeader {
    /// Its name.
    pub name: String,
    /// Its sizes, outermost first.
    pub shape: Vec<usize>,
    /// Whether it can be merged.
    pub kind: Kind,
}

/// What a tensor holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Numbers that can be merged.
    Float,
    /// Integers or truths: they have to be equal in all models and are copied.
    Other,
}

/// The tensors of the result and what its configuration needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What is written.
    pub tensors: Vec<OutputTensor>,
    /// How many layers the result has.
    pub layers: usize,
    /// What `tie_word_embeddings` has to say.
    pub tied: bool,
    /// Where each layer comes from, (input, its layer), if the result was put together of slices: what the donor's
    /// configuration lists by layer has to follow. `None` where layers are as they were.
    pub layer_map: Option<Vec<(usize, usize)>>,
    /// The input whose configuration the result gets: the base, or the first model.
    pub config_donor: usize,
    /// What the user should know, a sentence each.
    pub notes: Vec<String>,
}

/// A tensor of the result.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputTensor {
    /// Its name.
    pub name: String,
    /// Its sizes, outermost first.
    pub shape: Vec<usize>,
    /// The tensors that it is made of: (input, name there), in the order of the rule's inputs.
    pub inputs: Vec<(usize, String)>,
    /// How.
    pub rule: Rule,
    /// What it is.
    pub role: Role,
    /// Whether it is not merged: all inputs have to be equal, and the first is copied.
    pub copied: bool,
}

/// What a tensor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The token embedding: rows are tokens.
    Embedding,
    /// The head, or its bias: rows are tokens.
    Head,
    /// A part of a layer of the result.
    Layer(usize),
    /// Norms and the like.
    Other,
}

impl Role {
    /// What the name of a tensor says of it.
    #[must_use]
    pub fn of(name: &str) -> Self {
        match names::layer(name) {
            Some(name) => Self::Layer(name.layer),
            None => match names::outside(name) {
                Outside::Embedding => Self::Embedding,
                Outside::Head | Outside::HeadBias => Self::Head,
                Outside::Before | Outside::After => Self::Other,
            },
        }
    }
}

/// Plans a merge. `headers` are the models in the order of [`MergeConfig::inputs`]. With `vocabulary`, embedding and
/// head have that many rows in the result and count as having them in every model, because the caller matches rows by
/// token first.
///
/// # Errors
/// [`PlanError`] says which: the configuration is wrong, models do not fit each other or the configuration, or a
/// parameter has no value for some tensor.
pub fn plan(config: &MergeConfig, headers: &[ModelHeader], vocabulary: Option<usize>) -> Result<Plan, PlanError> {
    config.check()?;
    let inputs = config.inputs();
    if inputs.len() != headers.len() {
        return Err(PlanError::Headers { expected: inputs.len(), found: headers.len() });
    }
    let nothing = Parameters::none();
    let parts = parts(config, &inputs, headers, &nothing)?;
    let taking_part: Vec<usize> = distinct(parts.iter().flat_map(|part| part.participants().map(|p| p.input)));
    // Without a base the first model that is listed, which is the first input.
    let config_donor =
        config.base_model.as_ref().and_then(|base| inputs.iter().position(|input| input == base)).unwrap_or_default();

    let models: Vec<Model> = headers.iter().map(Model::of).collect();
    let mut planner = Planner {
        config,
        vocabulary,
        models: &models,
        head: shared_head(&models, &taking_part),
        tensors: Vec::new(),
        notes: Notes::of_config(config),
        done: HashSet::new(),
    };
    planner.same_width(&taking_part)?;
    planner.tensors(&parts)?;
    let tied = match planner.head {
        SharedHead::Tied => true,
        SharedHead::Written(_) => false,
        SharedHead::Unknown => headers[config_donor].tied,
    };
    let Planner { tensors, notes, .. } = planner;
    Ok(Plan {
        tensors,
        layers: parts.iter().map(|part| part.layers).sum(),
        tied,
        layer_map: layer_map(config, &parts),
        config_donor,
        notes: notes.into_sentences(),
    })
}

/// A header with what its names say.
struct Model<'a> {
    header: &'a ModelHeader,
    by_name: HashMap<&'a str, &'a TensorHeader>,
    embedding: Option<&'a TensorHeader>,
    head: Option<&'a TensorHeader>,
    /// Layers of each stack, by what stands before the number.
    stacks: HashMap<&'a str, usize>,
}

impl<'a> Model<'a> {
    fn of(header: &'a ModelHeader) -> Self {
        let mut stacks = HashMap::new();
        for name in header.tensors.iter().filter_map(|tensor| names::layer(&tensor.name)) {
            let layers = stacks.entry(name.before).or_insert(0);
            *layers = (*layers).max(name.layer.saturating_add(1));
        }
        let first = |what: Outside| {
            header
                .tensors
                .iter()
                .find(|tensor| names::layer(&tensor.name).is_none() && names::outside(&tensor.name) == what)
        };
        Self {
            header,
            by_name: header.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect(),
            embedding: first(Outside::Embedding),
            head: first(Outside::Head),
            stacks,
        }
    }

    /// Whether the embedding is the head: there is no other, or the configuration says that it does not count.
    fn is_tied(&self) -> bool {
        self.embedding.is_some() && (self.head.is_none() || self.header.tied)
    }

    /// Depth of a layer in its stack. Layers behind the last one (for the prediction of further tokens) are as deep.
    fn depth(&self, name: &names::LayerName) -> f64 {
        let stack = self.stacks.get(name.before).copied().unwrap_or(self.header.layers);
        crate::config::depth(name.layer, stack.min(self.header.layers))
    }
}

/// What becomes of the heads of the models that take part.
enum SharedHead {
    /// All are tied, and so is the result.
    Tied,
    /// One has a head of its own, with this name, so the result has one too.
    Written(String),
    /// No token embedding was recognised: heads are tensors like others.
    Unknown,
}

fn shared_head(models: &[Model], taking_part: &[usize]) -> SharedHead {
    let models = || taking_part.iter().map(|&input| &models[input]);
    if models().all(|model| model.embedding.is_none()) {
        return SharedHead::Unknown;
    }
    // A head that is there but does not count names nothing.
    match models().filter(|model| !model.is_tied()).find_map(|model| model.head) {
        Some(head) => SharedHead::Written(head.name.clone()),
        None => SharedHead::Tied,
    }
}

/// The walk over all parts.
struct Planner<'a> {
    config: &'a MergeConfig,
    vocabulary: Option<usize>,
    models: &'a [Model<'a>],
    head: SharedHead,
    tensors: Vec<OutputTensor>,
    notes: Notes,
    /// Names of the result that are planned or left out.
    done: HashSet<String>,
}

impl Planner<'_> {
    fn tensors(&mut self, parts: &[Part]) -> Result<(), PlanError> {
        if parts.iter().any(|part| part.extent == Extent::Range) {
            self.one_stack(parts)?;
        }
        for (index, part) in parts.iter().enumerate() {
            for participant in part.participants() {
                for tensor in &self.models[participant.input].header.tensors {
                    self.tensor(tensor, participant, part, (index == 0, index + 1 == parts.len()))?;
                }
            }
        }
        if let (SharedHead::Written(name), Some(part)) = (&self.head, parts.last()) {
            self.head(&name.clone(), part)?;
        }
        self.same_rows()
    }

    /// Plans the tensor of the result that a participant's tensor belongs to, unless it is planned, left out, or
    /// another part's.
    fn tensor(
        &mut self,
        tensor: &TensorHeader,
        participant: &Participant,
        part: &Part,
        (first_part, last_part): (bool, bool),
    ) -> Result<(), PlanError> {
        let model = &self.models[participant.input];
        let Some(name) = names::layer(&tensor.name) else {
            let outside = names::outside(&tensor.name);
            let role = Role::of(&tensor.name);
            let here = if matches!(outside, Outside::Embedding | Outside::Before) { first_part } else { last_part };
            let head_apart = outside == Outside::Head && !matches!(self.head, SharedHead::Unknown);
            if head_apart && matches!(self.head, SharedHead::Tied) {
                self.notes.add(format!("`{}` is left out: the embedding is the head of every model", tensor.name));
            }
            if head_apart || !here || !self.done.insert(tensor.name.clone()) {
                return Ok(());
            }
            let sources = part.participants().map(|p| (p.input, tensor.name.clone())).collect();
            return self.planned(tensor.name.clone(), sources, role, 0.0, part);
        };
        let (local, tau, output) = match part.extent {
            Extent::WholeModel => (name.layer, model.depth(&name), name.layer),
            Extent::Range => {
                let Some(local) = name.layer.checked_sub(participant.first).filter(|local| *local < part.layers) else {
                    return Ok(());
                };
                (local, crate::config::depth(local, part.layers), part.first + local)
            }
        };
        let output_name = name.in_layer(output);
        if !self.done.insert(output_name.clone()) {
            return Ok(());
        }
        let sources = part.participants().map(|p| (p.input, name.in_layer(p.first + local))).collect();
        self.planned(output_name, sources, Role::Layer(output), tau, part)
    }

    /// The head, where the result has one: the embedding stands in for those of tied models.
    fn head(&mut self, name: &str, part: &Part) -> Result<(), PlanError> {
        let sources: Vec<(usize, String)> = part
            .participants()
            .map(|participant| {
                let model = &self.models[participant.input];
                let head = if model.is_tied() { model.embedding } else { model.head };
                (participant.input, head.map_or_else(|| name.to_owned(), |head| head.name.clone()))
            })
            .collect();
        if sources.iter().any(|(input, _)| self.models[*input].is_tied()) {
            self.notes.add(format!("some models use the embedding as the head, others do not: `{name}` is written"));
        }
        self.planned(name.to_owned(), sources, Role::Head, 0.0, part)
    }

    /// Adds a tensor of the result that is made of `sources`, which follow the participants of the part.
    fn planned(
        &mut self,
        name: String,
        sources: Vec<(usize, String)>,
        role: Role,
        tau: f64,
        part: &Part,
    ) -> Result<(), PlanError> {
        let found: Vec<Option<&TensorHeader>> =
            sources.iter().map(|(input, name)| self.models[*input].by_name.get(name.as_str()).copied()).collect();
        let Some((first, first_header)) = sources.iter().zip(&found).find_map(|(s, header)| Some((s, (*header)?)))
        else {
            return Ok(());
        };
        if let Some(absent) = found.iter().position(Option::is_none) {
            if names::follows_from_config(&name, &first_header.shape) {
                self.notes
                    .add(format!("`{name}` is left out: some models lack it, and it follows from the configuration"));
                return Ok(());
            }
            let lacking = self.name(sources[absent].0);
            let other = self.name(first.0);
            return Err(if absent == 0 && part.base.is_some() {
                PlanError::MissingInBase { tensor: name, base: lacking, model: other }
            } else {
                PlanError::Missing { tensor: name, model: lacking, other }
            });
        }
        let headers: Vec<&TensorHeader> = found.into_iter().flatten().collect();
        self.same_kind(&name, &sources, &headers)?;
        let shape = self.shape(&name, &sources, &headers, role)?;
        let copied = first_header.kind == Kind::Other;
        let rule = if copied {
            Rule::Passthrough { scale: 1.0 }
        } else {
            let target = Target { name: &name, tau, rank: shape.len() };
            rule(self.config.merge_method, &self.config.parameters, part, target, &mut self.notes)?
        };
        self.tensors.push(OutputTensor { name, shape, inputs: sources, rule, role, copied });
        Ok(())
    }

    fn same_kind(&self, tensor: &str, sources: &[(usize, String)], headers: &[&TensorHeader]) -> Result<(), PlanError> {
        match headers.iter().position(|header| header.kind != headers[0].kind) {
            None => Ok(()),
            Some(other) => Err(PlanError::Kinds {
                tensor: tensor.into(),
                first: self.name(sources[0].0),
                other: self.name(sources[other].0),
            }),
        }
    }

    /// The sizes that all inputs have; rows of embedding and head may be the caller's business.
    fn shape(
        &self,
        tensor: &str,
        sources: &[(usize, String)],
        headers: &[&TensorHeader],
        role: Role,
    ) -> Result<Vec<usize>, PlanError> {
        let of_tokens = matches!(role, Role::Embedding | Role::Head);
        let rows = self.vocabulary.filter(|_| of_tokens);
        let counted = |header: &TensorHeader| {
            let mut shape = header.shape.clone();
            if let (Some(rows), Some(first)) = (rows, shape.first_mut()) {
                *first = rows;
            }
            shape
        };
        let shape = counted(headers[0]);
        for (header, (input, _)) in headers.iter().zip(sources) {
            let other_shape = counted(header);
            if other_shape == shape {
                continue;
            }
            let (tensor, first, other) = (tensor.to_owned(), self.name(sources[0].0), self.name(*input));
            return Err(match (shape.split_first(), other_shape.split_first()) {
                (Some((&first_rows, rest)), Some((&other_rows, other_rest))) if of_tokens && rest == other_rest => {
                    PlanError::Vocabulary { tensor, first, first_rows, other, other_rows }
                }
                _ => PlanError::Shape { tensor, first, first_shape: shape, other, other_shape },
            });
        }
        Ok(shape)
    }

    /// The embeddings of all models have one width: models in different slices meet in no other tensor.
    fn same_width(&self, taking_part: &[usize]) -> Result<(), PlanError> {
        let mut embeddings = taking_part.iter().filter_map(|&input| Some((input, self.models[input].embedding?)));
        let Some((first, first_header)) = embeddings.next() else { return Ok(()) };
        match embeddings.find(|(_, header)| header.shape.get(1..) != first_header.shape.get(1..)) {
            None => Ok(()),
            Some((other, header)) => Err(PlanError::Shape {
                tensor: first_header.name.clone(),
                first: self.name(first),
                first_shape: first_header.shape.clone(),
                other: self.name(other),
                other_shape: header.shape.clone(),
            }),
        }
    }

    /// Embedding and head have the same number of rows, also where they come from different slices.
    fn same_rows(&self) -> Result<(), PlanError> {
        let of = |role: Role| {
            self.tensors.iter().find(|tensor| tensor.role == role && tensor.shape.len() == 2).map(|t| (t, &t.inputs[0]))
        };
        let (Some((embedding, (first, _))), Some((head, (other, _)))) = (of(Role::Embedding), of(Role::Head)) else {
            return Ok(());
        };
        // Within one model they may differ: that is its own affair.
        if embedding.shape[0] == head.shape[0] || first == other {
            return Ok(());
        }
        Err(PlanError::Vocabulary {
            tensor: head.name.clone(),
            first: self.name(*first),
            first_rows: embedding.shape[0],
            other: self.name(*other),
            other_rows: head.shape[0],
        })
    }

    /// Slices renumber layers, which means something for one stack only, with one name.
    fn one_stack(&self, parts: &[Part]) -> Result<(), PlanError> {
        let mut shared: Option<(usize, &str)> = None;
        for participant in parts.iter().flat_map(Part::participants) {
            let mut stacks: Vec<&str> = self.models[participant.input].stacks.keys().copied().collect();
            stacks.sort_unstable();
            match stacks.as_slice() {
                [] => {}
                [stack] => {
                    let (first, first_stack) = *shared.get_or_insert((participant.input, stack));
                    if first_stack != *stack {
                        let (first, other) = (self.name(first), participant.name.into());
                        let (first_stack, other_stack) = (first_stack.into(), (*stack).into());
                        return Err(PlanError::OtherNames { first, first_stack, other, other_stack });
                    }
                }
                [first, second, ..] => {
                    let (first, second) = ((*first).into(), (*second).into());
                    return Err(PlanError::SeveralStacks { model: participant.name.into(), first, second });
                }
            }
        }
        Ok(())
    }

    fn name(&self, input: usize) -> String {
        self.models[input].header.name.clone()
    }
}

/// For each layer of the result: the base's where it has a part, else the first model's.
fn layer_map(config: &MergeConfig, parts: &[Part]) -> Option<Vec<(usize, usize)>> {
    if matches!(config.form, Form::Models(_)) {
        return None;
    }
    let of_part = |part: &Part| {
        let leader = part.participants().next().map(|leader| (leader.input, leader.first));
        (0..part.layers)
            .filter_map(move |local| leader.map(|(input, first)| (input, first + local)))
            .collect::<Vec<_>>()
    };
    Some(parts.iter().flat_map(of_part).collect())
}

fn distinct(inputs: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut seen = Vec::new();
    for input in inputs {
        if !seen.contains(&input) {
            seen.push(input);
        }
    }
    seen
}

#[cfg(test)]
mod tests;
