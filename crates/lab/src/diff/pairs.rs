//! Which tensor of one model stands beside which of the other.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use lathe_model::reference::ModelReference;
use lathe_model::spec::HeadWeight;
use lathe_model::{DecoderSpec, Opened, Parameter, ParameterSource as _};

use super::{DiffModel, RANK_SIDE, Ranks, WeightKind};
use crate::figure::count;
use crate::{Context, Error, open_model};

/// The field of the base.
pub(super) const BASE: &str = "--base";

/// One of the models.
pub(super) struct Side {
    /// What the command line calls it.
    field: &'static str,
    model: DiffModel,
    pub(super) opened: Opened,
    parameters: HashMap<String, Parameter>,
}

/// One tensor of all models.
pub(super) struct Pair {
    /// lathe's name.
    pub(super) name: String,
    pub(super) layer: Option<usize>,
    pub(super) kind: WeightKind,
    /// Rows that are compared: all that every model has. A vector is one row.
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Whether it is a matrix.
    pub(super) is_matrix: bool,
    pub(super) a: Parameter,
    pub(super) b: Parameter,
    pub(super) base: Option<Parameter>,
}

impl Side {
    pub(super) fn open(field: &'static str, reference: &ModelReference, context: &Context<'_>) -> Result<Self, Error> {
        let (resolved, opened) = open_model(reference, context)?;
        let model = DiffModel {
            reference: reference.to_string(),
            path: resolved.path,
            family: opened.spec.family.clone(),
            elements: opened.element_types().into_iter().map(|(element, ..)| element.to_string()).collect(),
        };
        let parameters = opened.spec.parameters().into_iter().map(|parameter| (parameter.name.clone(), parameter));
        Ok(Self { field, model, parameters: parameters.collect(), opened })
    }

    pub(super) fn into_model(self) -> DiffModel {
        self.model
    }

    fn spec(&self) -> &DecoderSpec {
        &self.opened.spec
    }

    /// A parameter by its name; the head of a model whose head is tied is its embedding.
    fn parameter(&self, name: &str) -> Option<&Parameter> {
        let tied = name == "head.weight" && self.spec().head.weight == HeadWeight::Tied;
        self.parameters.get(if tied { "embedding.weight" } else { name })
    }

    /// Rows of a parameter; all of them are finite.
    pub(super) fn read(&self, parameter: &Parameter, rows: Range<usize>, out: &mut [f32]) -> Result<(), Error> {
        let first = rows.start;
        self.opened.parameters().rows(parameter, rows, out)?;
        let Some(at) = out.iter().position(|value| !value.is_finite()) else { return Ok(()) };
        let columns = if parameter.shape.len() < 2 { out.len() } else { parameter.elements() / parameter.shape[0] };
        let (row, column) = (first + at / columns.max(1), at % columns.max(1));
        Err(Error::NonfiniteWeight {
            model: self.opened.path.display().to_string(),
            tensor: self.opened.tensor_name(&parameter.name).unwrap_or(&parameter.name).to_owned(),
            position: if parameter.shape.len() < 2 { vec![column] } else { vec![row, column] },
            value: out[at],
        })
    }

    /// Frees what a parameter takes of memory.
    pub(super) fn release(&self, parameter: &Parameter) {
        self.opened.parameters().release(parameter);
    }
}

impl Pair {
    /// Whether the effective rank of the difference is to be computed.
    pub(super) fn is_ranked(&self, ranks: Ranks) -> bool {
        let is_small = self.layer.is_some() && self.rows.min(self.columns) <= RANK_SIDE;
        self.is_matrix
            && match ranks {
                Ranks::Small => is_small,
                Ranks::All => true,
                Ranks::None => false,
            }
    }
}

/// Pairs the tensors of A and B, and of the base. The notes say what is left out.
///
/// # Errors
/// The models differ in layers, in widths, or in the matrices that they have.
pub(super) fn pair(a: &Side, b: &Side, base: Option<&Side>) -> Result<(Vec<Pair>, Vec<String>), Error> {
    let sides: Vec<&Side> = [Some(a), Some(b), base].into_iter().flatten().collect();
    for side in &sides[1..] {
        same_size(a, side)?;
    }
    let mut pairs = Vec::new();
    // Vectors that some models lack, by the parameter's name without its layer.
    let mut left_out: BTreeMap<String, (usize, BTreeSet<&'static str>)> = BTreeMap::new();
    for name in names(&sides) {
        let found: Vec<Option<&Parameter>> = sides.iter().map(|side| side.parameter(&name)).collect();
        for (side, parameter) in sides.iter().zip(&found) {
            if let (None, Some(other)) = (parameter, found.iter().flatten().find(|other| other.shape.len() > 1)) {
                let has = sides.iter().zip(&found).find(|(_, found)| found.is_some_and(|found| found == *other));
                let has = has.map_or("the other", |(side, _)| &side.model.reference);
                let problem = format!("{} has no `{name}`, {has} does", side.model.reference);
                return Err(refuse(side, problem));
            }
            if parameter.is_none() {
                let (_, pattern) = place(&name);
                let (times, sides) = left_out.entry(pattern).or_default();
                *times += 1;
                sides.insert(side.field);
            }
        }
        let (Some(of_a), Some(of_b)) = (found[0], found[1]) else { continue };
        let of_base = found.get(2).copied().flatten();
        let shapes = [Some(of_a), Some(of_b), of_base].into_iter().flatten();
        for (side, other) in sides.iter().zip(shapes.clone()).skip(1) {
            same_shape(&name, [a, side], [of_a, other])?;
        }
        let is_matrix = of_a.shape.len() > 1;
        let first = shapes.map(|parameter| parameter.shape[0]).min().unwrap_or(0);
        let (layer, _) = place(&name);
        pairs.push(Pair {
            layer,
            kind: kind(&name),
            rows: if is_matrix { first } else { 1 },
            columns: if is_matrix { of_a.shape[1..].iter().product() } else { first },
            is_matrix,
            a: of_a.clone(),
            b: of_b.clone(),
            base: of_base.cloned(),
            name,
        });
    }
    let mut notes = notes(&sides);
    for (pattern, (times, sides)) in left_out {
        let what = if sides.iter().all(|side| *side == BASE) { "Not compared with the base" } else { "Left out" };
        let sides: Vec<&str> = sides.into_iter().map(called).collect();
        let times = if times == 1 { String::new() } else { format!(" ({times} of them)") };
        notes.push(format!("{what}, because {} has none: `{pattern}`{times}.", sides.join(" and ")));
    }
    Ok((pairs, notes))
}

/// Names of all parameters in the order of the forward pass: A's, then what only the others have. A head counts if one of
/// the models has its own.
fn names(sides: &[&Side]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut known = BTreeSet::new();
    for side in sides {
        for parameter in side.spec().parameters() {
            if known.insert(parameter.name.clone()) {
                names.push(parameter.name);
            }
        }
    }
    names
}

fn refuse(side: &Side, problem: String) -> Error {
    let hint = "weights are compared one by one, so the models need the same layers and widths";
    Error::Spec { field: side.field, problem, hint: Some(hint.into()) }
}

/// Layers and width: said first, because every tensor follows from them.
fn same_size(a: &Side, other: &Side) -> Result<(), Error> {
    let size = |side: &Side| (side.spec().layers.len(), side.spec().hidden_size);
    let ((layers, width), (other_layers, other_width)) = (size(a), size(other));
    if (layers, width) == (other_layers, other_width) {
        return Ok(());
    }
    let problem = format!(
        "{} has {other_layers} layers of width {}, {} has {layers} of width {}",
        other.model.reference,
        count(other_width as u64),
        a.model.reference,
        count(width as u64),
    );
    Err(refuse(other, problem))
}

/// Shapes are the same, but for the number of tokens or positions.
fn same_shape(name: &str, sides: [&Side; 2], [a, other]: [&Parameter; 2]) -> Result<(), Error> {
    let by_rows = ["embedding.weight", "positions.weight", "head.weight", "head.bias"].contains(&name);
    let skipped = usize::from(by_rows);
    if a.shape.len() == other.shape.len() && a.shape[skipped..] == other.shape[skipped..] {
        return Ok(());
    }
    let [a_name, other_name] = sides.map(|side| &side.model.reference);
    let problem = format!("`{name}` is {:?} in {other_name}, {:?} in {a_name}", other.shape, a.shape);
    Err(refuse(sides[1], problem))
}

/// Layer of a parameter, and its name without it.
fn place(name: &str) -> (Option<usize>, String) {
    let numbered = name.strip_prefix("layers.").and_then(|rest| rest.split_once('.'));
    match numbered.and_then(|(layer, rest)| Some((layer.parse().ok()?, rest))) {
        Some((layer, rest)) => (Some(layer), rest.to_owned()),
        None => (None, name.to_owned()),
    }
}

fn kind(name: &str) -> WeightKind {
    let (_, name) = place(name);
    let parts: Vec<&str> = name.split('.').collect();
    let projection = |word: &str| match word {
        "gate" => WeightKind::Gate,
        "up" => WeightKind::Up,
        _ => WeightKind::Down,
    };
    match parts[..] {
        ["attention", "query", ..] => WeightKind::Query,
        ["attention", "key", ..] => WeightKind::Key,
        ["attention", "value", ..] => WeightKind::Value,
        ["attention", "output", ..] => WeightKind::Output,
        ["attention", ..] => WeightKind::QueryKeyNorm,
        ["feed_forward", word, ..] => projection(word),
        ["experts", "router" | "shared_gate", ..] => WeightKind::Router,
        ["experts", _, word, ..] => projection(word),
        ["embedding" | "positions" | "embedding_in" | "embedding_out", ..] => WeightKind::Embedding,
        ["head", ..] => WeightKind::Head,
        _ => WeightKind::Norm,
    }
}

/// What the numbers depend on beside the weights.
fn notes(sides: &[&Side]) -> Vec<String> {
    let mut notes = Vec::new();
    let said = |what: &dyn Fn(&Side) -> String| -> Option<String> {
        let values: Vec<String> = sides.iter().map(|side| what(side)).collect();
        let differ = values.iter().any(|value| *value != values[0]);
        let each = sides.iter().zip(&values).map(|(side, value)| format!("{}: {value}", called(side.field)));
        differ.then(|| each.collect::<Vec<_>>().join(", "))
    };
    let is_tied = |side: &Side| side.spec().head.weight == HeadWeight::Tied;
    if sides.iter().all(|side| is_tied(side)) {
        notes.push("The head shares the embedding, which is counted once.".to_owned());
    } else if let Some(each) = said(&|side| if is_tied(side) { "tied" } else { "its own" }.to_owned()) {
        notes.push(format!("Heads ({each}): where a head is tied, the embedding stands for it."));
    }
    if let Some(each) = said(&|side| count(side.spec().vocab_size as u64)) {
        notes.push(format!(
            "Rows of the embedding ({each}): those that all have are compared, which is right if the same ids are the same \
             tokens (`lathe inspect --vocab` says)."
        ));
    }
    let positions = |side: &Side| side.spec().embedding.positions.map_or("none".into(), |of| count(of.rows as u64));
    if let Some(each) = said(&positions) {
        notes.push(format!("Learned positions ({each}): those that all have are compared."));
    }
    if let Some(each) = said(&|side| side.model.elements.first().cloned().unwrap_or_default()) {
        notes.push(format!("Most bytes are stored as ({each}): what rounding changed is part of the difference."));
    }
    if let Some(each) = said(&|side| side.model.family.clone()) {
        notes.push(format!("Architectures ({each})."));
    }
    let first = sides[0].spec();
    if sides.iter().any(|side| side.spec().rotary != first.rotary) {
        notes.push("The rotary positions differ: weights are not all that tells these models apart.".to_owned());
    }
    notes
}

/// A side as sentences call it.
fn called(field: &'static str) -> &'static str {
    if field == BASE { "the base" } else { field }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_where_a_weight_belongs() {
        for (name, layer, of) in [
            ("embedding.weight", None, WeightKind::Embedding),
            ("positions.weight", None, WeightKind::Embedding),
            ("layers.0.before_attention.weight", Some(0), WeightKind::Norm),
            ("layers.11.attention.query.bias", Some(11), WeightKind::Query),
            ("layers.11.attention.query_norm.3.weight", Some(11), WeightKind::QueryKeyNorm),
            ("layers.2.attention.output.weight", Some(2), WeightKind::Output),
            ("layers.2.feed_forward.down.weight", Some(2), WeightKind::Down),
            ("layers.2.experts.router.weight", Some(2), WeightKind::Router),
            ("layers.2.experts.shared_gate.weight", Some(2), WeightKind::Router),
            ("layers.2.experts.17.gate.weight", Some(2), WeightKind::Gate),
            ("layers.2.experts.shared.up.weight", Some(2), WeightKind::Up),
            ("final_norm.weight", None, WeightKind::Norm),
            ("head.bias", None, WeightKind::Head),
        ] {
            assert_eq!((place(name).0, kind(name)), (layer, of), "{name}");
        }
    }
}
