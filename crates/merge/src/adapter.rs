//! Low-rank adapters (LoRA, 2106.09685) in the layout of PEFT: added to weights, and taken out of them.
//!
//! An adapter is a folder with `adapter_config.json` and `adapter_model.safetensors`. For a linear layer with weights
//! W `[out, in]` it has A `[r, in]` and B `[out, r]`, and means `W + s · B · A` with `s = lora_alpha / r`
//! (`lora_alpha / √r` with `use_rslora`). Modules that were trained whole are in it as they are.
//!
//! [`Adapter::open`] reads one, [`Adapter::claims`] finds the tensors of a base model that it changes, and
//! [`Claims::add`] changes any piece of one. The other way round, [`extract`] makes A and B of the difference of two
//! matrices, and [`write()`] the folder.

mod config;
mod error;
mod extract;
mod write;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};

use lathe_formats::{Checkpoint, ElementType};
use lathe_kernels::matmul::{Matrix, product};

use config::Config;

pub use config::WeightLayout;
pub use error::AdapterError;
pub use extract::{Extracted, extract};
pub use write::{NewAdapter, Place, Settings, places, write};

/// The two files of an adapter.
const CONFIG_FILE: &str = "adapter_config.json";
const WEIGHTS_FILE: &str = "adapter_model.safetensors";

/// What PEFT puts before the names of the base model.
const PREFIX: &str = "base_model.model.";

/// Numbers that are computed together: 4 MB of them.
const TILE: usize = 1 << 20;

/// An adapter whose configuration and tensors fit each other.
#[derive(Debug)]
pub struct Adapter {
    checkpoint: Checkpoint,
    weights_file: PathBuf,
    /// By the name of the tensor that PEFT would change.
    changes: BTreeMap<String, Change>,
    base_model: Option<String>,
    settings: Option<Settings>,
}

/// The factors of one tensor of the base.
#[derive(Clone, Debug, PartialEq)]
pub struct Product {
    /// Its name, as PEFT has it.
    pub tensor: String,
    /// `[rank, in]`
    pub a: Vec<f32>,
    /// `[out, rank]`
    pub b: Vec<f32>,
}

/// What happens to one tensor: it is replaced, or something is added, or both in this order.
#[derive(Debug, Default)]
struct Change {
    /// The tensor that takes its place.
    replace: Option<String>,
    low_rank: Option<LowRank>,
}

/// `scale · B · A`, as two tensors of the adapter.
#[derive(Debug)]
struct LowRank {
    /// `[rank, inputs]`
    a: String,
    /// `[outputs, rank]`
    b: String,
    rank: usize,
    inputs: usize,
    outputs: usize,
    scale: f32,
    layout: WeightLayout,
}

impl LowRank {
    /// The weights that it is added to.
    fn shape(&self) -> [usize; 2] {
        match self.layout {
            WeightLayout::OutputsFirst => [self.outputs, self.inputs],
            WeightLayout::InputsFirst => [self.inputs, self.outputs],
        }
    }
}

impl Adapter {
    /// Opens an adapter's folder. Its tensors stay on disk.
    ///
    /// # Errors
    /// A file is missing or malformed; the adapter is of another kind than LoRA, or uses something that changes the
    /// meaning of its tensors and that lathe does not know (DoRA, among others); tensors have the wrong shapes or no
    /// counterpart.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, AdapterError> {
        let folder = folder.as_ref();
        let config = Config::read(&folder.join(CONFIG_FILE))?;
        let weights_file = folder.join(WEIGHTS_FILE);
        let checkpoint = Checkpoint::open(&weights_file)?;
        let changes = changes(&config, &checkpoint, &weights_file)?;
        Ok(Self { checkpoint, weights_file, changes, settings: config.settings(), base_model: config.base_model })
    }

    /// The model that it was trained on, in the words of its configuration: a name or a path.
    #[must_use]
    pub fn base_model(&self) -> Option<&str> {
        self.base_model.as_deref()
    }

    /// How it was trained: `target_modules` are the whole names of the modules that it has factors of. None where ranks or
    /// scales differ between modules, or modules were trained whole: such an adapter can be used, and not trained further.
    #[must_use]
    pub fn settings(&self) -> Option<Settings> {
        let is_plain = |change: &Change| change.replace.is_none() && change.low_rank.is_some();
        let settings = self.settings.as_ref().filter(|_| self.changes.values().all(is_plain))?;
        let targets = self.changes.keys().map(|tensor| tensor.trim_end_matches(".weight").to_owned()).collect();
        Some(Settings { targets, ..settings.clone() })
    }

    /// Its factors, by the name of the tensor that they change.
    ///
    /// # Errors
    /// They cannot be read or are not finite.
    pub fn products(&self) -> Result<Vec<Product>, AdapterError> {
        let of = |(tensor, low_rank): (&String, &LowRank)| {
            let read = |name: &str| read_rows(&self.checkpoint, &self.weights_file, name, None);
            Ok(Product { tensor: tensor.clone(), a: read(&low_rank.a)?, b: read(&low_rank.b)? })
        };
        self.changes.iter().filter_map(|(tensor, change)| Some((tensor, change.low_rank.as_ref()?))).map(of).collect()
    }

    /// Finds what it changes among the tensors of a base model, `(name, shape)`.
    ///
    /// # Errors
    /// A tensor of the adapter has no counterpart, or one of another shape.
    pub fn claims<'a>(self, base: impl IntoIterator<Item = (&'a str, &'a [usize])>) -> Result<Claims, AdapterError> {
        let base = base.into_iter().collect::<HashMap<_, _>>();
        let mut claims = BTreeMap::new();
        for (name, change) in self.changes {
            let of_adapter = change.name().to_owned();
            let Some((found, shape)) = counterpart(&base, &name) else {
                let file = self.weights_file;
                return Err(AdapterError::NoCounterpart { file, tensor: of_adapter, base: name });
            };
            for (tensor, needs) in change.shapes(&self.checkpoint)? {
                if needs != shape {
                    return Err(AdapterError::OtherShape {
                        file: self.weights_file,
                        tensor,
                        needs,
                        base: found.to_owned(),
                        shape: shape.to_vec(),
                    });
                }
            }
            if claims.insert(found.to_owned(), change).is_some() {
                let (file, base) = (self.weights_file, found.to_owned());
                return Err(AdapterError::ClaimedTwice { file, tensor: of_adapter, base });
            }
        }
        Ok(Claims { checkpoint: self.checkpoint, weights_file: self.weights_file, claims })
    }
}

/// An adapter beside the base model that it belongs to.
#[derive(Debug)]
pub struct Claims {
    checkpoint: Checkpoint,
    weights_file: PathBuf,
    /// By the name of the base's tensor.
    claims: BTreeMap<String, Change>,
}

impl Claims {
    /// Names of the base's tensors that it changes.
    pub fn tensors(&self) -> impl Iterator<Item = &str> {
        self.claims.keys().map(String::as_str)
    }

    /// Applies it to the numbers `range` (row-major positions) of a tensor of the base, which `out` holds. Tensors that
    /// it does not change stay as they are.
    ///
    /// A number is `w + s · Σ_k b_k a_k`, with the sum as one chain of fused multiply-adds over rising k, in f32: its bits
    /// do not depend on the range.
    ///
    /// # Errors
    /// Numbers of the adapter cannot be read or are not finite.
    ///
    /// # Panics
    /// When `out` is not as long as the range, or the range is not in the tensor.
    pub fn add(&self, tensor: &str, range: Range<usize>, out: &mut [f32]) -> Result<(), AdapterError> {
        assert_eq!(range.len(), out.len(), "range of {tensor}");
        let Some(change) = self.claims.get(tensor) else { return Ok(()) };
        if let Some(name) = &change.replace {
            self.replace(name, range.clone(), out)?;
        }
        if let Some(low_rank) = &change.low_rank {
            self.add_product(low_rank, range, out)?;
        }
        Ok(())
    }

    fn replace(&self, name: &str, range: Range<usize>, out: &mut [f32]) -> Result<(), AdapterError> {
        let width = self.checkpoint.require(name)?.info().row_len();
        tiles(range, width, out, |rows, inner, out| {
            out.copy_from_slice(&self.rows(name, rows)?[inner]);
            Ok(())
        })
    }

    fn add_product(&self, low_rank: &LowRank, range: Range<usize>, out: &mut [f32]) -> Result<(), AdapterError> {
        let LowRank { rank, inputs, outputs, scale, .. } = *low_rank;
        let right = match low_rank.layout {
            WeightLayout::OutputsFirst => self.rows(&low_rank.a, 0..rank)?,
            WeightLayout::InputsFirst => self.rows(&low_rank.b, 0..outputs)?,
        };
        let right = match low_rank.layout {
            WeightLayout::OutputsFirst => Matrix::new(&right, rank, inputs),
            WeightLayout::InputsFirst => Matrix::new(&right, outputs, rank).transposed(),
        };
        tiles(range, low_rank.shape()[1], out, |rows, inner, out| {
            let count = rows.len();
            let delta = match low_rank.layout {
                WeightLayout::OutputsFirst => {
                    product(&[(Matrix::new(&self.rows(&low_rank.b, rows)?, count, rank), right)])
                }
                WeightLayout::InputsFirst => {
                    let columns = self.columns(&low_rank.a, rows)?;
                    product(&[(Matrix::new(&columns, rank, count).transposed(), right)])
                }
            };
            out.iter_mut().zip(&delta[inner]).for_each(|(out, delta)| *out += scale * delta);
            Ok(())
        })
    }

    /// Rows of a tensor of the adapter.
    fn rows(&self, name: &str, rows: Range<usize>) -> Result<Vec<f32>, AdapterError> {
        read_rows(&self.checkpoint, &self.weights_file, name, Some(rows))
    }

    /// Columns of a tensor of the adapter, `[rows, columns.len()]`.
    fn columns(&self, name: &str, columns: Range<usize>) -> Result<Vec<f32>, AdapterError> {
        let rows = self.checkpoint.require(name)?.info().rows();
        let mut values = Vec::with_capacity(rows * columns.len());
        for row in 0..rows {
            values.extend_from_slice(&self.rows(name, row..row + 1)?[columns.clone()]);
        }
        Ok(values)
    }
}

/// Rows of a tensor, or all of it.
fn read_rows(
    checkpoint: &Checkpoint,
    file: &Path,
    name: &str,
    rows: Option<Range<usize>>,
) -> Result<Vec<f32>, AdapterError> {
    let view = checkpoint.require(name)?;
    let rows = rows.unwrap_or(0..view.info().rows());
    let mut values = vec![0.0; rows.len() * view.info().row_len()];
    view.decode_rows(rows, &mut values)?;
    if values.iter().all(|value| value.is_finite()) {
        return Ok(values);
    }
    Err(AdapterError::NotFinite { file: file.into(), tensor: name.to_owned() })
}

/// Walks through the numbers `range` of a matrix: `step` gets whole rows, where in them the numbers of the range are, and
/// these numbers.
fn tiles(
    range: Range<usize>,
    width: usize,
    mut out: &mut [f32],
    mut step: impl FnMut(Range<usize>, Range<usize>, &mut [f32]) -> Result<(), AdapterError>,
) -> Result<(), AdapterError> {
    let mut at = range.start;
    while at < range.end {
        let first = at / width;
        let end = range.end.min((first + (TILE / width).max(1)) * width);
        let (piece, rest) = out.split_at_mut(end - at);
        step(first..end.div_ceil(width), at - first * width..end - first * width, piece)?;
        (at, out) = (end, rest);
    }
    Ok(())
}

impl Change {
    /// A tensor of the adapter that stands for it in messages.
    fn name(&self) -> &str {
        let low_rank = self.low_rank.as_ref().map(|low_rank| &low_rank.b);
        self.replace.as_ref().or(low_rank).map_or("", String::as_str)
    }

    /// The shapes that its parts need the base's tensor to have.
    fn shapes(&self, checkpoint: &Checkpoint) -> Result<Vec<(String, Vec<usize>)>, AdapterError> {
        let mut shapes = Vec::new();
        if let Some(name) = &self.replace {
            shapes.push((name.clone(), checkpoint.require(name)?.info().shape.clone()));
        }
        if let Some(low_rank) = &self.low_rank {
            shapes.push((low_rank.b.clone(), low_rank.shape().to_vec()));
        }
        Ok(shapes)
    }
}

/// The tensor of the base that PEFT means. Some checkpoints leave out the first part of the names that their model class
/// has (`transformer.` of GPT-2).
fn counterpart<'a>(base: &HashMap<&'a str, &'a [usize]>, name: &str) -> Option<(&'a str, &'a [usize])> {
    let shorter = name.split_once('.').map(|(_, rest)| rest);
    [Some(name), shorter]
        .into_iter()
        .flatten()
        .find_map(|name| base.get_key_value(name))
        .map(|(name, shape)| (*name, *shape))
}

/// A tensor's part in a low-rank product.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    A,
    B,
}

/// Endings of the tensors of a product. Embeddings store no `weight`, and their rows are inputs.
const SIDES: [(&str, Side, &str); 4] = [
    (".lora_A.weight", Side::A, ".lora_B.weight"),
    (".lora_B.weight", Side::B, ".lora_A.weight"),
    (".lora_embedding_A", Side::A, ".lora_embedding_B"),
    (".lora_embedding_B", Side::B, ".lora_embedding_A"),
];

/// Sorts the tensors of an adapter by what they change.
fn changes(config: &Config, checkpoint: &Checkpoint, file: &Path) -> Result<BTreeMap<String, Change>, AdapterError> {
    let mut changes: BTreeMap<String, Change> = BTreeMap::new();
    for info in checkpoint.tensors() {
        let unknown = || AdapterError::UnknownTensor { file: file.into(), tensor: info.name.clone() };
        let name = info.name.strip_prefix(PREFIX).ok_or_else(unknown)?;
        if !matches!(info.element, ElementType::F32 | ElementType::F16 | ElementType::BF16 | ElementType::F64) {
            let (file, tensor) = (file.into(), info.name.clone());
            return Err(AdapterError::NotFloat { file, tensor, element: info.element });
        }
        let side = SIDES.iter().find_map(|(ending, side, other)| Some((name.strip_suffix(ending)?, *side, *other)));
        if let Some((module, side, other)) = side {
            let other = format!("{PREFIX}{module}{other}");
            if checkpoint.tensor(&other).is_none() {
                let (file, tensor) = (file.into(), info.name.clone());
                return Err(AdapterError::Unpaired { file, tensor, missing: other });
            }
            if side == Side::B {
                let low_rank = low_rank(config, checkpoint, file, module, [other, info.name.clone()])?;
                let change = changes.entry(format!("{module}.weight")).or_default();
                if change.low_rank.replace(low_rank).is_some() {
                    let (file, tensor) = (file.into(), info.name.clone());
                    return Err(AdapterError::ClaimedTwice { file, tensor, base: format!("{module}.weight") });
                }
            }
            continue;
        }
        if name.contains("lora_") {
            return Err(unknown());
        }
        // Wrappers around a module are no part of the base's names.
        let target = name.replace(".modules_to_save.", ".").replace(".base_layer.", ".");
        let change = changes.entry(target.clone()).or_default();
        if change.replace.replace(info.name.clone()).is_some() {
            let (file, tensor) = (file.into(), info.name.clone());
            return Err(AdapterError::ClaimedTwice { file, tensor, base: target });
        }
    }
    if changes.is_empty() {
        return Err(AdapterError::NoTensors { file: file.into() });
    }
    if config.saves_modules && changes.values().all(|change| change.replace.is_none()) {
        return Err(AdapterError::NoSavedModules { file: file.into() });
    }
    Ok(changes)
}

fn low_rank(
    config: &Config,
    checkpoint: &Checkpoint,
    file: &Path,
    module: &str,
    [a, b]: [String; 2],
) -> Result<LowRank, AdapterError> {
    let rank = config.rank_of(module);
    let shape = |name: &str, expected: String, at: usize| match *checkpoint.require(name)?.info().shape.as_slice() {
        [rows, columns] if [rows, columns][at] == rank && rows > 0 && columns > 0 => Ok([rows, columns][1 - at]),
        ref shape => {
            Err(AdapterError::BadShape { file: file.into(), tensor: name.to_owned(), shape: shape.to_vec(), expected })
        }
    };
    let (inputs, outputs) = (shape(&a, format!("[{rank}, in]"), 0)?, shape(&b, format!("[out, {rank}]"), 1)?);
    let layout = if a.ends_with(".lora_embedding_A") { WeightLayout::InputsFirst } else { config.layout };
    let scale = config.scale_of(module) as f32;
    Ok(LowRank { a, b, rank, inputs, outputs, scale, layout })
}
