//! Writes an adapter's folder as PEFT does.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::Path;

use lathe_formats::write::{TensorSpec, safetensors};
use lathe_formats::{ElementType, NewFile};
use serde_json::{Map, Value, json};

use super::config::WeightLayout;
use super::extract::Extracted;
use super::{AdapterError, CONFIG_FILE, PREFIX, WEIGHTS_FILE};
use crate::inputs::InputError;

/// What becomes of a tensor whose values differ between two models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A matrix of a layer: two factors.
    LowRank,
    /// An embedding, a head or a norm: `modules_to_save`.
    Saved,
    /// PEFT has no place for it beside the factors of its module, or it is no module's: its difference is lost.
    LeftOut,
}

/// Where the tensors of a model go, given their names and shapes.
#[must_use]
pub fn places(tensors: &[(&str, &[usize])]) -> Vec<Place> {
    let weights = tensors
        .iter()
        .filter_map(|(name, shape)| Some((name.strip_suffix(".weight")?, of_weight(name, shape))))
        .collect::<HashMap<_, _>>();
    let place = |name: &str| match (name.strip_suffix(".weight"), name.strip_suffix(".bias")) {
        (Some(module), _) => weights[module],
        // Saved modules are saved with their biases.
        (None, Some(module)) if weights.get(module) == Some(&Place::Saved) => Place::Saved,
        _ => Place::LeftOut,
    };
    tensors.iter().map(|(name, _)| place(name)).collect()
}

fn of_weight(name: &str, shape: &[usize]) -> Place {
    let is_in_layer = name.split('.').any(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    match shape {
        [_] => Place::Saved,
        [_, _] if is_in_layer => Place::LowRank,
        [_, _] => Place::Saved,
        _ => Place::LeftOut,
    }
}

/// An adapter to be written. Names are those of the base's tensors, as its model class has them.
#[derive(Clone, Debug)]
pub struct NewAdapter {
    /// The model that it is added to, by name or path.
    pub base_model: Option<String>,
    /// How the base's matrices lie.
    pub layout: WeightLayout,
    /// The tensors that get a product, by name.
    pub products: Vec<(String, Extracted)>,
    /// Tensors that are saved whole, with their shapes.
    pub saved: Vec<(String, Vec<usize>)>,
    /// How it was trained; none where it was extracted, and the products count as they are.
    pub settings: Option<Settings>,
}

/// How an adapter was trained: one rank and one scale for all of its products.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Rows of `A`.
    pub rank: usize,
    /// `lora_alpha`.
    pub alpha: f64,
    /// Whether alpha is divided by the root of the rank (`use_rslora`) and not by the rank.
    pub rank_stabilised: bool,
    /// `lora_dropout`.
    pub dropout: f64,
    /// `target_modules`: ends of module names.
    pub targets: Vec<String>,
}

/// Numbers of a saved tensor that are written at once.
const PIECE: usize = 1 << 20;

/// Writes `adapter_model.safetensors` (f32) and then `adapter_config.json` into a folder. `read_saved` writes numbers
/// (row-major positions) of a tensor that is saved whole.
///
/// # Errors
/// There is no product, a tensor cannot be read, or the system refuses.
pub fn write(
    folder: &Path,
    adapter: &NewAdapter,
    mut read_saved: impl FnMut(&str, Range<usize>, &mut [f32]) -> Result<(), InputError>,
) -> Result<(), AdapterError> {
    if adapter.products.is_empty() {
        return Err(AdapterError::NothingToWrite { folder: folder.into() });
    }
    let tensor = |name: String, shape: Vec<usize>| TensorSpec { name, shape, element: ElementType::F32 };
    let mut specs = Vec::new();
    for (name, product) in &adapter.products {
        let [a, b] = names(name);
        specs.push(tensor(a, vec![product.rank, product.a.len() / product.rank]));
        specs.push(tensor(b, vec![product.b.len() / product.rank, product.rank]));
    }
    specs.extend(adapter.saved.iter().map(|(name, shape)| tensor(format!("{PREFIX}{name}"), shape.clone())));
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let mut file = safetensors(&folder.join(WEIGHTS_FILE), &metadata, &specs)?;
    for (name, product) in &adapter.products {
        let [a, b] = names(name);
        file.append_f32(&a, &product.a)?;
        file.append_f32(&b, &product.b)?;
    }
    let mut values = Vec::new();
    for (name, shape) in &adapter.saved {
        let count = shape.iter().product::<usize>();
        for begin in (0..count).step_by(PIECE) {
            let range = begin..count.min(begin + PIECE);
            values.resize(range.len(), 0.0);
            read_saved(name, range, &mut values)?;
            file.append_f32(&format!("{PREFIX}{name}"), &values)?;
        }
    }
    file.finish()?;
    let mut file = NewFile::create(&folder.join(CONFIG_FILE))?;
    file.append(format!("{:#}\n", config(adapter)).as_bytes())?;
    Ok(file.finish()?)
}

fn module(tensor: &str) -> &str {
    tensor.strip_suffix(".weight").or_else(|| tensor.strip_suffix(".bias")).unwrap_or(tensor)
}

/// The tensors of a product: A and B.
fn names(tensor: &str) -> [String; 2] {
    ["lora_A", "lora_B"].map(|side| format!("{PREFIX}{}.{side}.weight", module(tensor)))
}

fn config(adapter: &NewAdapter) -> Value {
    let rank = adapter.products.iter().map(|(_, product)| product.rank).max().unwrap_or(1);
    // PEFT reads the names as regular expressions.
    let smaller = adapter.products.iter().filter(|(_, product)| product.rank != rank);
    let ranks = smaller.map(|(name, product)| (module(name).replace('.', r"\."), json!(product.rank)));
    let ranks = ranks.collect::<Map<_, _>>();
    let targets = adapter.products.iter().map(|(name, _)| module(name)).collect::<BTreeSet<_>>();
    let saved = adapter.saved.iter().map(|(name, _)| module(name)).collect::<BTreeSet<_>>();
    if let Some(settings) = &adapter.settings {
        return described(adapter, settings);
    }
    json!({
        "alpha_pattern": ranks,
        "base_model_name_or_path": adapter.base_model,
        "bias": "none",
        "fan_in_fan_out": adapter.layout == WeightLayout::InputsFirst,
        "inference_mode": true,
        "init_lora_weights": true,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "modules_to_save": if saved.is_empty() { Value::Null } else { json!(saved) },
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": ranks,
        "target_modules": targets,
        "task_type": "CAUSAL_LM",
        "use_dora": false,
        "use_rslora": false,
    })
}

fn described(adapter: &NewAdapter, settings: &Settings) -> Value {
    json!({
        "alpha_pattern": {},
        "base_model_name_or_path": adapter.base_model,
        "bias": "none",
        "fan_in_fan_out": adapter.layout == WeightLayout::InputsFirst,
        "inference_mode": true,
        "init_lora_weights": true,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "modules_to_save": null,
        "peft_type": "LORA",
        "r": settings.rank,
        "rank_pattern": {},
        "target_modules": settings.targets,
        "task_type": "CAUSAL_LM",
        "use_dora": false,
        "use_rslora": settings.rank_stabilised,
    })
}
