//! `lathe merge extract`: what a tuned model has learnt, as an adapter.

use std::ops::Range;
use std::path::PathBuf;

use lathe_merge::adapter::{self, NewAdapter, Place, WeightLayout, places, write};
use lathe_merge::{InputError, Inputs};
use lathe_model::reference::ModelReference;
use serde::Serialize;

use super::source::{Nonfinite, Source};
use crate::export::{TemporaryFolder, check_target};
use crate::{Context, Error};

/// What to extract.
#[derive(Clone, Debug)]
pub struct ExtractSpec {
    /// The model that the adapter is for.
    pub base: ModelReference,
    /// The model that it makes of it.
    pub tuned: ModelReference,
    /// Rank of every matrix.
    pub rank: usize,
    /// The folder.
    pub out: PathBuf,
}

/// What was extracted.
#[derive(Clone, Debug, Serialize)]
pub struct ExtractResult {
    /// The folder.
    pub out: PathBuf,
    /// Matrices that are adapted.
    pub matrices: usize,
    /// Their rank.
    pub rank: usize,
    /// Numbers of the adapter.
    pub parameters: u64,
    /// Share of the squared difference of these matrices that it holds.
    pub kept: f64,
    /// What the reader should know, one sentence each.
    pub notes: Vec<String>,
}

/// Takes an adapter out of the difference of two models.
///
/// # Errors
/// The models cannot be read or do not fit each other; they are equal; the target exists or cannot be written.
pub fn extract(spec: &ExtractSpec, context: &Context<'_>) -> Result<ExtractResult, Error> {
    check_target(&spec.out)?;
    let open = |model: &ModelReference| Source::of(model.to_string(), model, Nonfinite::Refuse, context);
    let (base, tuned) = (open(&spec.base)?, open(&spec.tuned)?);
    let mut plan = Plan::of(&base, &tuned)?;
    let layout = layout(&base);
    let numbers = plan.matrices.iter().map(|name| elements(&base, name)).sum();
    let (mut products, mut lost, mut all) = (Vec::new(), 0.0, 0.0);
    context.stage("decomposing", numbers, "numbers", || {
        for name in &plan.matrices {
            let pair = Pair { models: [&base, &tuned], name, shape: base.tensor(name).map_or(&[][..], |t| &t.shape) };
            let product = adapter::extract(&pair, spec.rank, layout)?;
            // A matrix that tuning left alone needs no factors.
            if product.norm > 0.0 {
                lost += (product.norm * product.residual).powi(2);
                all += product.norm.powi(2);
                products.push((name.clone(), product));
            }
            context.progress.advance(elements(&base, name));
        }
        Ok::<_, Error>(())
    })?;
    if products.is_empty() {
        let problem = format!("the matrices of {} and {} are equal", spec.base, spec.tuned);
        return Err(Error::Spec { field: "TUNED", problem, hint: None });
    }
    let saved = plan.differing_saved(&base, &tuned)?;
    let saved_numbers: usize = saved.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    let factors: usize = products.iter().map(|(_, product)| product.a.len() + product.b.len()).sum();
    let (matrices, rank) = (products.len(), products.iter().map(|(_, product)| product.rank).max().unwrap_or(0));
    if !saved.is_empty() {
        let names: Vec<&str> = saved.iter().map(|(name, _)| name.as_str()).take(4).collect();
        let more = if saved.len() > names.len() { ", …" } else { "" };
        plan.notes.push(format!(
            "{} tensors that are no matrices of layers differ and are saved whole: {}{more}",
            saved.len(),
            names.join(", ")
        ));
    }
    let folder = TemporaryFolder::beside(&spec.out)?;
    let new = NewAdapter { base_model: Some(spec.base.to_string()), layout, products, saved, settings: None };
    write(&folder.path, &new, |name, range, out| tuned.read(name, range, out).map_err(|e| InputError(Box::new(e))))?;
    folder.rename(&spec.out)?;
    Ok(ExtractResult {
        out: spec.out.clone(),
        matrices,
        rank,
        parameters: (factors + saved_numbers) as u64,
        kept: 1.0 - lost / all,
        notes: plan.notes,
    })
}

/// Which tensors go where.
struct Plan {
    matrices: Vec<String>,
    saved: Vec<String>,
    notes: Vec<String>,
}

impl Plan {
    fn of(base: &Source, tuned: &Source) -> Result<Self, Error> {
        let tensors: Vec<(&str, &[usize])> =
            base.tensors().iter().map(|tensor| (tensor.name.as_str(), tensor.shape.as_slice())).collect();
        let (mut plan, mut left_out) =
            (Self { matrices: Vec::new(), saved: Vec::new(), notes: Vec::new() }, Vec::new());
        for ((name, shape), place) in tensors.iter().zip(places(&tensors)) {
            let found = tuned.tensor(name).map(|tensor| tensor.shape.as_slice());
            if found != Some(*shape) {
                let found = found.map_or("not there".to_owned(), |found| format!("{found:?}"));
                let problem = format!("tensor `{name}` is {shape:?} in {} and {found} in {}", base.name, tuned.name);
                return Err(Error::Spec { field: "TUNED", problem, hint: Some("an adapter changes no shapes".into()) });
            }
            match place {
                Place::LowRank => plan.matrices.push((*name).to_owned()),
                Place::Saved => plan.saved.push((*name).to_owned()),
                Place::LeftOut => left_out.push((*name).to_owned()),
            }
        }
        let differing = differing(base, tuned, &left_out)?;
        if let [first, ..] = &differing[..] {
            plan.notes.push(format!(
                "{} tensors differ for which an adapter has no place, and their differences are lost: {first} first",
                differing.len()
            ));
        }
        Ok(plan)
    }

    /// Tensors that are saved whole because they differ.
    fn differing_saved(&self, base: &Source, tuned: &Source) -> Result<Vec<(String, Vec<usize>)>, Error> {
        let names = differing(base, tuned, &self.saved)?;
        let shape = |name: &String| base.tensor(name).map(|tensor| tensor.shape.clone()).unwrap_or_default();
        Ok(names.into_iter().map(|name| (name.clone(), shape(&name))).collect())
    }
}

/// The tensors of a list that are not equal in two models.
fn differing(base: &Source, tuned: &Source, names: &[String]) -> Result<Vec<String>, Error> {
    const PIECE: usize = 1 << 18;
    let mut differing = Vec::new();
    for name in names {
        let count = elements(base, name) as usize;
        let (mut a, mut b) = (vec![0.0; PIECE.min(count)], vec![0.0; PIECE.min(count)]);
        for begin in (0..count).step_by(PIECE) {
            let range = begin..count.min(begin + PIECE);
            let len = range.len();
            base.read(name, range.clone(), &mut a[..len])?;
            tuned.read(name, range, &mut b[..len])?;
            if a[..len] != b[..len] {
                differing.push(name.clone());
                break;
            }
        }
    }
    Ok(differing)
}

fn elements(source: &Source, name: &str) -> u64 {
    source.tensor(name).map_or(0, |tensor| tensor.shape.iter().product::<usize>() as u64)
}

/// GPT-2's linear layers are stored transposed.
fn layout(base: &Source) -> WeightLayout {
    let is_transposed = base.config.get("model_type").and_then(|kind| kind.as_str()) == Some("gpt2");
    if is_transposed { WeightLayout::InputsFirst } else { WeightLayout::OutputsFirst }
}

/// One matrix of both models.
struct Pair<'a> {
    models: [&'a Source; 2],
    name: &'a str,
    shape: &'a [usize],
}

impl Inputs for Pair<'_> {
    fn count(&self) -> usize {
        2
    }

    fn shape(&self) -> &[usize] {
        self.shape
    }

    fn read(&self, model: usize, range: Range<usize>, out: &mut [f32]) -> Result<(), InputError> {
        self.models[model].read(self.name, range, out).map_err(|error| InputError(Box::new(error)))
    }
}
