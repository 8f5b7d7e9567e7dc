//! Where the numbers of a decoder come from: a checkpoint, or a seeded random initialisation.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use lathe_formats::{Checkpoint, TensorView};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};

use crate::family::{Family, GgufLayout, Name};
use crate::gguf;
use crate::spec::{DecoderSpec, Parameter};
use crate::Error;

/// Numbers of parameters, by rows. Rows are independent: threads may ask for different ones at once.
pub trait ParameterSource: Sync {
    /// Writes `rows` of a parameter, `[rows, row length]`. A vector is one row.
    ///
    /// # Errors
    /// The source cannot be read.
    fn rows(&self, parameter: &Parameter, rows: Range<usize>, out: &mut [f32]) -> Result<(), Error>;
}

/// Parameters of a checkpoint.
#[derive(Clone)]
pub struct CheckpointSource {
    checkpoint: Arc<Checkpoint>,
    tensors: HashMap<String, Stored>,
}

/// How a parameter lies in the checkpoint.
#[derive(Clone)]
struct Stored {
    tensor: String,
    /// Width of a head whose rotary pairs lie side by side.
    paired: Option<usize>,
    /// Added to every value.
    add: f32,
}

impl CheckpointSource {
    /// Finds every parameter of `spec` in a checkpoint and checks names and shapes.
    ///
    /// # Errors
    /// Tensors are missing, unknown, or have another shape than the configuration says.
    pub fn new(checkpoint: Arc<Checkpoint>, spec: &DecoderSpec, family: &Family) -> Result<Self, Error> {
        let is_gguf = checkpoint.gguf().is_some();
        let names: HashMap<&str, &str> =
            if is_gguf { gguf::NAMES } else { family.names }.iter().map(|Name { ours, theirs }| (*ours, *theirs)).collect();
        let prefix = if is_gguf { Prefix::AsNamed } else { Prefix::find(&checkpoint, &names) };
        let file: PathBuf = checkpoint.path().into();
        let (mut tensors, mut missing, mut claimed) = (HashMap::new(), Vec::new(), HashSet::new());
        for parameter in spec.parameters() {
            let (pattern, layer) = split_layer(&parameter.name);
            let theirs = names.get(pattern.as_str()).map_or(String::new(), |name| name.replace("{l}", &layer));
            let theirs = prefix.apply(&theirs);
            let Some(view) = checkpoint.tensor(&theirs) else {
                missing.push(if theirs.is_empty() { parameter.name } else { theirs });
                continue;
            };
            if view.info().shape != parameter.shape {
                return Err(Error::WrongShape {
                    file,
                    tensor: theirs,
                    found: view.info().shape.clone(),
                    expected: parameter.shape,
                });
            }
            claimed.insert(theirs.clone());
            let stored = Stored { tensor: theirs, paired: None, add: 0.0 };
            tensors.insert(parameter.name.clone(), stored_as(stored, &parameter, &layer, is_gguf, spec, family));
        }
        if !missing.is_empty() {
            return Err(Error::MissingTensors { file, names: missing });
        }
        let tied = prefix.apply(names.get("head.weight").unwrap_or(&""));
        let unclaimed: Vec<String> = checkpoint
            .tensors()
            .iter()
            .map(|info| &info.name)
            .filter(|name| !claimed.contains(*name) && **name != tied && !is_derived(name) && prefix.owns(name))
            .cloned()
            .collect();
        if !unclaimed.is_empty() {
            return Err(Error::UnclaimedTensors { file, family: spec.family.clone(), names: unclaimed });
        }
        Ok(Self { checkpoint, tensors })
    }

    /// The tensor of the checkpoint that holds a parameter.
    #[must_use]
    pub fn tensor_name(&self, parameter: &str) -> Option<&str> {
        self.tensors.get(parameter).map(|stored| stored.tensor.as_str())
    }

    fn view(&self, parameter: &Parameter) -> Result<(TensorView<'_>, &Stored), Error> {
        let missing = || Error::MissingTensors { file: self.checkpoint.path().into(), names: vec![parameter.name.clone()] };
        let stored = self.tensors.get(&parameter.name).ok_or_else(missing)?;
        Ok((self.checkpoint.tensor(&stored.tensor).ok_or_else(missing)?, stored))
    }
}

impl ParameterSource for CheckpointSource {
    fn rows(&self, parameter: &Parameter, rows: Range<usize>, out: &mut [f32]) -> Result<(), Error> {
        let (view, stored) = self.view(parameter)?;
        match stored.paired {
            None => view.decode_rows(rows, out)?,
            // A bias is one row of the file; its values are what was reordered.
            Some(head_dim) if parameter.shape.len() == 1 => {
                let mut all = vec![0.0; out.len()];
                view.decode_rows(rows, &mut all)?;
                for (row, x) in out.iter_mut().enumerate() {
                    *x = all[gguf::paired_row(row, head_dim)];
                }
            }
            Some(head_dim) => {
                let width = view.info().row_len();
                for (row, out) in rows.zip(out.chunks_exact_mut(width)) {
                    let from = gguf::paired_row(row, head_dim);
                    view.decode_rows(from..from + 1, out)?;
                }
            }
        }
        if stored.add != 0.0 {
            out.iter_mut().for_each(|x| *x += stored.add);
        }
        Ok(())
    }
}

/// What the converter of GGUF files did to a parameter.
fn stored_as(
    mut stored: Stored,
    parameter: &Parameter,
    layer: &str,
    is_gguf: bool,
    spec: &DecoderSpec,
    family: &Family,
) -> Stored {
    if !is_gguf {
        return stored;
    }
    let name = parameter.name.as_str();
    match family.gguf_layout {
        GgufLayout::Plain => {}
        GgufLayout::PairedRotary => {
            if name.contains("attention.query.") || name.contains("attention.key.") {
                stored.paired = layer.parse().ok().and_then(|l: usize| spec.layers.get(l)).map(|l| l.attention.head_dim);
            }
        }
        GgufLayout::NormsPlusOne => {
            let norm = ["before_", "after_", "norm.weight"].iter().any(|part| name.contains(part));
            if norm {
                stored.add = -1.0;
            }
        }
    }
    stored
}

/// Splits `layers.3.x` into `layers.{l}.x` and `3`.
fn split_layer(name: &str) -> (String, String) {
    let mut parts = name.splitn(3, '.');
    match (parts.next(), parts.next(), parts.next()) {
        (Some("layers"), Some(layer), Some(rest)) => (format!("layers.{{l}}.{rest}"), layer.into()),
        _ => (name.into(), String::new()),
    }
}

/// Tensors that follow from the configuration and need no rule.
fn is_derived(name: &str) -> bool {
    name.ends_with("rotary_emb.inv_freq") || name == gguf::ROTARY_DIVISORS || name.ends_with(".attn_rot_embd")
}

/// What stands before the names of a family's table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Prefix {
    /// Nothing.
    AsNamed,
    /// A bare model without its `model.` wrapper.
    Bare,
    /// The language model of a multimodal checkpoint.
    LanguageModel,
}

impl Prefix {
    fn find(checkpoint: &Checkpoint, names: &HashMap<&str, &str>) -> Self {
        let embedding = names.get("embedding.weight").copied().unwrap_or("");
        [Self::AsNamed, Self::Bare, Self::LanguageModel]
            .into_iter()
            .find(|prefix| checkpoint.tensor(&prefix.apply(embedding)).is_some())
            .unwrap_or(Self::AsNamed)
    }

    fn apply(self, name: &str) -> String {
        match self {
            Self::AsNamed => name.into(),
            Self::Bare => name.strip_prefix("model.").unwrap_or(name).into(),
            Self::LanguageModel => format!("language_model.{name}"),
        }
    }

    /// Whether a tensor belongs to the language model at all.
    fn owns(self, name: &str) -> bool {
        self != Self::LanguageModel || name.starts_with("language_model.")
    }
}

/// Seeded random weights: matrices from a normal distribution with the configuration's `initializer_range`, biases 0,
/// norms such that their factor is 1. Each row has its own random stream, so rows can be asked for in any order.
pub struct RandomSource {
    spec: DecoderSpec,
    seed: u64,
}

impl RandomSource {
    /// Weights of `spec` for `seed`.
    #[must_use]
    pub fn new(spec: DecoderSpec, seed: u64) -> Self {
        Self { spec, seed }
    }
}

impl ParameterSource for RandomSource {
    fn rows(&self, parameter: &Parameter, rows: Range<usize>, out: &mut [f32]) -> Result<(), Error> {
        if parameter.shape.len() < 2 {
            let is_norm = parameter.name.ends_with(".weight");
            out.fill(if is_norm { 1.0 - self.spec.final_norm.offset } else { 0.0 });
            return Ok(());
        }
        let width = *parameter.shape.last().unwrap_or(&1);
        let normal = Normal::new(0.0f32, self.spec.initializer_range)
            .map_err(|_| Error::Tensor(candle_core::Error::Msg("initializer_range is not a positive number".into())))?;
        for (row, out) in rows.zip(out.chunks_exact_mut(width)) {
            let mut rng = ChaCha8Rng::seed_from_u64(self.seed ^ name_hash(&parameter.name));
            rng.set_stream(row as u64);
            out.iter_mut().for_each(|x| *x = normal.sample(&mut rng));
        }
        Ok(())
    }
}

/// FNV-1a: a fixed function of the name, so that a parameter's stream does not depend on its place in the model.
fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
