//! Adapters of low rank as folders in PEFT's layout: written from a decoder, read to be trained further, and added to the
//! model that they belong to when that is opened.

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use lathe_formats::Format;
use lathe_merge::adapter::{Adapter, Claims, Extracted, NewAdapter, Settings, WeightLayout, write};
use lathe_model::reference::ModelReference;
use lathe_model::{Decoder, LoraScaling, LoraSpec, ModuleFactors, Opened, TensorChange};
use serde::Serialize;

use crate::Error;

/// An adapter that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AdapterSummary {
    /// Modules that it has factors of.
    pub modules: usize,
    /// Their rank.
    pub rank: usize,
    /// Numbers of all factors.
    pub parameters: u64,
}

/// Writes the factors of a decoder, `adapter_config.json` and `adapter_model.safetensors` (f32), into a folder that is
/// there. `opened` is the base without the adapter and `base` what it is called: a path becomes an absolute one, so that the
/// adapter finds its base from anywhere on this machine.
///
/// # Errors
/// The decoder has no factors, or the system refuses.
pub fn write_adapter(
    folder: &Path,
    decoder: &Decoder,
    spec: &LoraSpec,
    opened: &Opened,
    base: &ModelReference,
) -> Result<AdapterSummary, Error> {
    let factors = decoder.factors()?;
    let tensors = opened.target(Format::Safetensors)?.tensors;
    let names: HashSet<&str> = factors.iter().map(|module| module.tensor.as_str()).collect();
    // Adapted modules of one model lie the same way round.
    let is_transposed = tensors.iter().any(|tensor| names.contains(tensor.name.as_str()) && !tensor.is_by_rows());
    let layout = if is_transposed { WeightLayout::InputsFirst } else { WeightLayout::OutputsFirst };
    let base_model = match base {
        ModelReference::Path(path) => path.canonicalize().unwrap_or_else(|_| path.clone()).display().to_string(),
        // The hub's own clients know no `hf:`.
        ModelReference::Hub(hub) if hub.revision.is_none() && hub.file.is_none() => format!("{}/{}", hub.org, hub.name),
        other => other.to_string(),
    };
    let summary = AdapterSummary {
        modules: factors.len(),
        rank: spec.rank,
        parameters: factors.iter().map(|module| (module.a.len() + module.b.len()) as u64).sum(),
    };
    let settings = Settings {
        rank: spec.rank,
        alpha: spec.alpha,
        rank_stabilised: spec.scaling == LoraScaling::RankStabilised,
        dropout: decimal(spec.dropout),
        targets: targets(spec, &factors),
    };
    let product = |module: ModuleFactors| {
        (module.tensor, Extracted { rank: spec.rank, a: module.a, b: module.b, norm: 0.0, residual: 0.0 })
    };
    let products = factors.into_iter().map(product).collect();
    let new =
        NewAdapter { base_model: Some(base_model), layout, products, saved: Vec::new(), settings: Some(settings) };
    write(folder, &new, |_, _, _| Ok(()))?;
    Ok(summary)
}

/// The decimal that a single-precision number was written as.
fn decimal(x: f32) -> f64 {
    x.to_string().parse().unwrap_or_else(|_| f64::from(x))
}

/// `target_modules`: as they were asked for, or the last parts of all names.
fn targets(spec: &LoraSpec, factors: &[ModuleFactors]) -> Vec<String> {
    if spec.targets.iter().all(|target| target != "all-linear") {
        return spec.targets.clone();
    }
    let module = |factors: &ModuleFactors| {
        factors.tensor.strip_suffix(".weight").and_then(|module| module.rsplit('.').next()).map(str::to_owned)
    };
    factors.iter().filter_map(module).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Reads an adapter to train it further: what [`Opened::decoder_with_adapter`] makes a decoder of, and the factors that
/// [`Decoder::set_factors`] puts in. The seed is 0; draws of dropout are those of the run that goes on.
///
/// # Errors
/// The folder is no adapter; its modules differ in rank or scale, or some were trained whole.
pub fn read_adapter(folder: &Path) -> Result<(LoraSpec, Vec<ModuleFactors>), Error> {
    let adapter = Adapter::open(folder)?;
    let Some(settings) = adapter.settings() else {
        let problem = format!("{}: its modules differ in rank or scale, or some were trained whole", folder.display());
        let hint = "merge it into its base, and train an adapter of the result".to_owned();
        return Err(Error::Spec { field: "adapter", problem, hint: Some(hint) });
    };
    let factors = adapter.products()?.into_iter();
    let factors = factors.map(|product| ModuleFactors { tensor: product.tensor, a: product.a, b: product.b });
    let scaling = if settings.rank_stabilised { LoraScaling::RankStabilised } else { LoraScaling::Classic };
    let spec = LoraSpec {
        rank: settings.rank,
        alpha: settings.alpha,
        scaling,
        dropout: settings.dropout as f32,
        targets: settings.targets,
        seed: 0,
    };
    Ok((spec, factors.collect()))
}

/// A model with an adapter added to its numbers.
///
/// # Errors
/// The adapter cannot be read, or does not belong to the model.
pub(crate) fn added(opened: Opened, folder: &Path) -> Result<Opened, Error> {
    let tensors = opened.target(Format::Safetensors)?.tensors;
    let base = tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.shape.as_slice()));
    let claims = Adapter::open(folder)?.claims(base)?;
    let changed = claims.tensors().map(str::to_owned).collect();
    Ok(opened.changed(Arc::new(Added { claims, changed }))?)
}

/// An adapter as a change of tensors.
struct Added {
    claims: Claims,
    changed: HashSet<String>,
}

impl TensorChange for Added {
    fn changes(&self, tensor: &str) -> bool {
        self.changed.contains(tensor)
    }

    fn apply(&self, tensor: &str, range: Range<usize>, out: &mut [f32]) -> Result<(), lathe_model::Error> {
        self.claims.add(tensor, range, out).map_err(|error| lathe_model::Error::Change(Box::new(error)))
    }
}

#[cfg(test)]
mod tests;
