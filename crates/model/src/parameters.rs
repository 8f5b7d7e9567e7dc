//! Where the numbers of a decoder come from: a checkpoint, or a seeded random initialisation.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use lathe_formats::{Checkpoint, ElementType, GroupOffset, ScalePrecision, TensorView};
use lathe_kernels::matmul::{Code, Coding, GroupRows, Groups, Offset, Scale};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};
use rayon::prelude::*;

use crate::Error;
use crate::family::Family;
use crate::gguf;
use crate::layout::{Name, Place, Placement};
use crate::spec::{DecoderSpec, Parameter};
use crate::target::TargetTensor;

/// Numbers of parameters, by rows. Rows are independent: threads may ask for different ones at once.
pub trait ParameterSource: Sync {
    /// Writes `rows` of a parameter, `[rows, row length]`. A vector is one row.
    ///
    /// # Errors
    /// The source cannot be read.
    fn rows(&self, parameter: &Parameter, rows: Range<usize>, out: &mut [f32]) -> Result<(), Error>;

    /// Says that a parameter has been read and its place in memory is free.
    fn release(&self, parameter: &Parameter) {
        let _ = parameter;
    }

    /// How a matrix is coded, if a product can read it so. Its rows then decode to what [`ParameterSource::rows`] gives.
    fn coding(&self, parameter: &Parameter) -> Option<Coding> {
        let _ = parameter;
        None
    }

    /// Rows of a matrix whose [`ParameterSource::coding`] is one of groups.
    ///
    /// # Errors
    /// The source cannot be read, or has no such matrix.
    fn group_rows(&self, parameter: &Parameter, rows: Range<usize>, out: GroupRows<'_>) -> Result<(), Error> {
        let (_, _) = (rows, out);
        Err(candle_core::Error::Msg(format!("`{}` is not coded in groups", parameter.name)).into())
    }
}

/// Parameters of a checkpoint.
pub struct CheckpointSource {
    checkpoint: Arc<Checkpoint>,
    tensors: HashMap<String, Stored>,
    /// The transposed tensor that was decoded last: its rows are asked for a few at a time.
    transposed: Mutex<Option<(String, Arc<Vec<f32>>)>>,
    /// What is done to numbers when they are read.
    changed: Option<Arc<Changed>>,
}

/// What changes the numbers of a model when they are read: an adapter that is added to its weights.
pub trait TensorChange: Send + Sync {
    /// Whether a tensor changes, by the name that it has in a safetensors folder of the model.
    fn changes(&self, tensor: &str) -> bool;

    /// Changes the numbers `range` (row-major positions) of a tensor, which `out` holds.
    ///
    /// # Errors
    /// The change cannot be read.
    fn apply(&self, tensor: &str, range: Range<usize>, out: &mut [f32]) -> Result<(), Error>;
}

/// A change, and where parameters are in the tensors that it knows.
struct Changed {
    change: Arc<dyn TensorChange>,
    tensors: Vec<TargetTensor>,
    /// Tensor of each changed parameter.
    of: HashMap<String, usize>,
    /// The tensor that was made whole last.
    whole: Mutex<Option<(usize, Arc<Vec<f32>>)>>,
}

/// How a parameter lies in the checkpoint.
#[derive(Clone)]
struct Stored {
    tensor: String,
    placement: Placement,
}

impl Clone for CheckpointSource {
    fn clone(&self) -> Self {
        Self {
            checkpoint: self.checkpoint.clone(),
            tensors: self.tensors.clone(),
            transposed: Mutex::new(None),
            changed: self.changed.clone(),
        }
    }
}

impl CheckpointSource {
    /// Finds every parameter of `spec` in a checkpoint and checks names and shapes.
    ///
    /// # Errors
    /// Tensors are missing, unknown, or have another shape than the configuration says.
    pub fn new(checkpoint: Arc<Checkpoint>, spec: &DecoderSpec, family: &Family) -> Result<Self, Error> {
        let gguf = checkpoint.gguf().and(family.gguf.as_ref());
        let tables = gguf.map_or(family.names, |gguf| gguf.names);
        let mut names: HashMap<&str, Vec<&Name>> = HashMap::new();
        for row in tables.iter().flat_map(|table| table.iter()) {
            names.entry(row.ours).or_default().push(row);
        }
        let prefix = if gguf.is_some() { Prefix::AsNamed } else { Prefix::find(&checkpoint, &names) };
        let file: PathBuf = checkpoint.path().into();
        let (mut tensors, mut missing, mut claimed) = (HashMap::new(), Vec::new(), HashSet::new());
        for parameter in spec.parameters() {
            let place = Place::of(&parameter.name);
            let rows = names.get(place.pattern.as_str()).map_or(&[][..], |rows| rows);
            let mut first = None;
            let mut misshapen = None;
            let found = rows.iter().find_map(|row| {
                let tensor = prefix.apply(&place.fill(row.theirs));
                let view = checkpoint.tensor(&tensor);
                first.get_or_insert_with(|| tensor.clone());
                let placement = row.layout.place(&parameter, spec, &place);
                let shape = &view?.info().shape;
                if *shape == placement.shape {
                    return Some(Stored { tensor, placement });
                }
                misshapen.get_or_insert((tensor, shape.clone(), placement.shape));
                None
            });
            let Some(Stored { tensor, placement }) = found else {
                if let Some((tensor, found, expected)) = misshapen {
                    return Err(Error::WrongShape { file, tensor, found, expected });
                }
                missing.push(first.unwrap_or(parameter.name));
                continue;
            };
            claimed.insert(tensor.clone());
            let placement = match gguf {
                Some(gguf) => placement.converted(&place, spec, gguf.layout),
                None => placement,
            };
            tensors.insert(parameter.name, Stored { tensor, placement });
        }
        if !missing.is_empty() {
            return Err(Error::MissingTensors { file, names: missing });
        }
        let tied: Vec<String> =
            names.get("head.weight").into_iter().flatten().map(|row| prefix.apply(row.theirs)).collect();
        let unclaimed: Vec<String> = checkpoint
            .tensors()
            .iter()
            .map(|info| &info.name)
            .filter(|name| !claimed.contains(*name) && !tied.contains(name) && !is_derived(name) && prefix.owns(name))
            .filter(|name| !family.left_out.iter().any(|start| prefix.inner(name).starts_with(start)))
            .cloned()
            .collect();
        if !unclaimed.is_empty() {
            return Err(Error::UnclaimedTensors { file, family: spec.family.clone(), names: unclaimed });
        }
        Ok(Self { checkpoint, tensors, transposed: Mutex::new(None), changed: None })
    }

    /// The tensor of the checkpoint that holds a parameter, whole or as a part of it.
    #[must_use]
    pub fn tensor_name(&self, parameter: &str) -> Option<&str> {
        self.tensors.get(parameter).map(|stored| stored.tensor.as_str())
    }

    /// The same with a change of its numbers; `tensors` are those of a safetensors folder.
    pub(crate) fn changed(self, change: Arc<dyn TensorChange>, tensors: Vec<TargetTensor>) -> Self {
        let mut of = HashMap::new();
        for (i, tensor) in tensors.iter().enumerate().filter(|(_, tensor)| change.changes(&tensor.name)) {
            of.extend(tensor.parameters().map(|parameter| (parameter.name.clone(), i)));
        }
        let changed = Changed { change, tensors, of, whole: Mutex::new(None) };
        Self { changed: Some(Arc::new(changed)), ..self }
    }

    /// Whether numbers are changed when they are read: those of the checkpoint are not the model's.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.changed.is_some()
    }

    fn view(&self, parameter: &Parameter) -> Result<(TensorView<'_>, &Stored), Error> {
        let missing =
            || Error::MissingTensors { file: self.checkpoint.path().into(), names: vec![parameter.name.clone()] };
        let stored = self.tensors.get(&parameter.name).ok_or_else(missing)?;
        Ok((self.checkpoint.tensor(&stored.tensor).ok_or_else(missing)?, stored))
    }

    /// All values of a tensor that is stored transposed.
    fn decoded(&self, view: &TensorView<'_>) -> Result<Arc<Vec<f32>>, Error> {
        let mut last = self.transposed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((name, values)) = &*last
            && *name == view.info().name
        {
            return Ok(values.clone());
        }
        let values = Arc::new(view.to_f32()?);
        *last = Some((view.info().name.clone(), values.clone()));
        Ok(values)
    }
}

impl Changed {
    /// Rows of a parameter that changes.
    fn rows(
        &self,
        source: &CheckpointSource,
        index: usize,
        parameter: &Parameter,
        rows: Range<usize>,
        out: &mut [f32],
    ) -> Result<(), Error> {
        let tensor = &self.tensors[index];
        let Some(places) = tensor.rows_of_parameters().find(|(of, _)| of.name == parameter.name).map(|(_, at)| at)
        else {
            return Err(Error::MissingTensors {
                file: source.checkpoint.path().into(),
                names: vec![tensor.name.clone()],
            });
        };
        let width = tensor.row_len();
        if parameter.shape.len() == 2 && tensor.shape.len() == 2 && tensor.is_by_rows() {
            source.stored_rows(parameter, rows.clone(), out)?;
            // Neighbours that are neighbours in the tensor at once.
            let mut rest = out;
            for run in places[rows].chunk_by(|a, b| a + 1 == *b) {
                let (piece, behind) = rest.split_at_mut(run.len() * width);
                let first = run[0] * width;
                self.change.apply(&tensor.name, first..first + piece.len(), piece)?;
                rest = behind;
            }
            return Ok(());
        }
        let values = self.whole(source, index)?;
        if parameter.shape.len() < 2 {
            out.iter_mut().zip(&places).for_each(|(x, at)| *x = values[*at]);
            return Ok(());
        }
        // Rows of the parameter are columns of the tensor.
        for (row, out) in rows.zip(out.chunks_exact_mut(tensor.rows())) {
            out.iter_mut().enumerate().for_each(|(i, x)| *x = values[i * width + places[row]]);
        }
        Ok(())
    }

    /// All numbers of a tensor, changed.
    fn whole(&self, source: &CheckpointSource, index: usize) -> Result<Arc<Vec<f32>>, Error> {
        let mut last = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((held, values)) = &*last
            && *held == index
        {
            return Ok(values.clone());
        }
        let tensor = &self.tensors[index];
        let mut values = vec![0.0; tensor.rows() * tensor.row_len()];
        tensor.values(&AsStored(source), 0..tensor.rows(), &mut values)?;
        self.change.apply(&tensor.name, 0..values.len(), &mut values)?;
        let values = Arc::new(values);
        *last = Some((index, values.clone()));
        Ok(values)
    }
}

/// The numbers of a checkpoint as they are stored.
struct AsStored<'a>(&'a CheckpointSource);

impl ParameterSource for AsStored<'_> {
    fn rows(&self, parameter: &Parameter, rows: Range<usize>, out: &mut [f32]) -> Result<(), Error> {
        self.0.stored_rows(parameter, rows, out)
    }
}

impl CheckpointSource {
    /// Rows of a parameter without the change.
    fn stored_rows(&self, parameter: &Parameter, rows: Range<usize>, out: &mut [f32]) -> Result<(), Error> {
        let (view, stored) = self.view(parameter)?;
        let place = &stored.placement;
        if place.transposed {
            let values = self.decoded(&view)?;
            let columns = view.info().row_len();
            for (row, out) in rows.zip(out.chunks_exact_mut(view.info().rows())) {
                for (i, x) in out.iter_mut().enumerate() {
                    *x = values[i * columns + place.row(row)];
                }
            }
        } else if view.info().shape.len() == 1 {
            // A vector is one row of the file; its values are what may be fused or reordered.
            let values = view.to_f32()?;
            for (i, x) in out.iter_mut().enumerate() {
                *x = values[place.row(i)];
            }
        } else if place.is_contiguous() {
            view.decode_rows(place.first + rows.start..place.first + rows.end, out)?;
        } else {
            let width = view.info().row_len();
            for (row, out) in rows.zip(out.chunks_exact_mut(width)) {
                view.decode_rows(place.row(row)..place.row(row) + 1, out)?;
            }
        }
        if place.add != 0.0 {
            out.iter_mut().for_each(|x| *x += place.add);
        }
        Ok(())
    }
}

impl ParameterSource for CheckpointSource {
    fn rows(&self, parameter: &Parameter, rows: Range<usize>, out: &mut [f32]) -> Result<(), Error> {
        match self.changed.as_ref().and_then(|changed| Some((changed, *changed.of.get(&parameter.name)?))) {
            Some((changed, index)) => changed.rows(self, index, parameter, rows, out),
            None => self.stored_rows(parameter, rows, out),
        }
    }

    fn release(&self, parameter: &Parameter) {
        if let Some(stored) = self.tensors.get(&parameter.name) {
            self.checkpoint.release(&stored.tensor);
        }
    }

    fn coding(&self, parameter: &Parameter) -> Option<Coding> {
        // A sum of what is stored and an adapter has another precision than the file.
        if self.changed.as_ref().is_some_and(|changed| changed.of.contains_key(&parameter.name)) {
            return None;
        }
        let (view, stored) = self.view(parameter).ok()?;
        if parameter.shape.len() != 2 || stored.placement.transposed || stored.placement.add != 0.0 {
            return None;
        }
        coding_of(view.info().element)
    }

    fn group_rows(&self, parameter: &Parameter, rows: Range<usize>, out: GroupRows<'_>) -> Result<(), Error> {
        let (view, stored) = self.view(parameter)?;
        let width = view.info().row_len();
        let layout = view.info().element.integer_layout();
        let groups = layout.map_or(1, |layout| width / layout.group_len);
        let mut levels = vec![0; out.codes.len()];
        for (i, row) in rows.enumerate() {
            let row = stored.placement.row(row);
            let of_row = i * groups..(i + 1) * groups;
            view.decode_integers(
                row..row + 1,
                &mut levels[i * width..(i + 1) * width],
                &mut out.scales[of_row.clone()],
                &mut out.offsets[of_row],
            )?;
        }
        // Bytes are signed; smaller codes count from the lowest level.
        let lowest = layout.map_or(0, |layout| if layout.levels > 32 { 0 } else { layout.lowest });
        for (code, level) in out.codes.iter_mut().zip(levels) {
            *code = level.wrapping_sub(lowest) as u8;
        }
        Ok(())
    }
}

/// How a product can read the rows of an element type, if it can.
fn coding_of(element: ElementType) -> Option<Coding> {
    match element {
        ElementType::F16 => return Some(Coding::F16),
        ElementType::BF16 => return Some(Coding::Bf16),
        _ => {}
    }
    let layout = element.integer_layout()?;
    Some(Coding::Groups(Groups {
        len: layout.group_len,
        code: match layout.levels {
            0..=16 => Code::Nibble(layout.lowest),
            17..=32 => Code::NibbleAndBit(layout.lowest),
            _ => Code::Byte,
        },
        scale: match layout.scale {
            ScalePrecision::F16 => Scale::F16,
            ScalePrecision::F32 => Scale::F32,
        },
        offset: match layout.offset {
            GroupOffset::Without => Offset::Without,
            GroupOffset::With => Offset::With,
        },
    }))
}

/// Tensors that follow from the configuration and need no rule.
fn is_derived(name: &str) -> bool {
    let ends = [
        "rotary_emb.inv_freq",
        ".attn_rot_embd",
        ".attn.bias",
        ".attn.masked_bias",
        ".attention.bias",
        ".attention.masked_bias",
    ];
    gguf::ROTARY_TENSORS.contains(&name) || ends.iter().any(|end| name.ends_with(end))
}

/// What stands before the names of a family's table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Prefix {
    /// Nothing.
    AsNamed,
    /// A bare model without its `model.` or `transformer.` wrapper.
    Bare,
    /// The language model of a multimodal checkpoint.
    LanguageModel,
    /// An encoder inside a model for pre-training.
    Encoder,
}

impl Prefix {
    fn find(checkpoint: &Checkpoint, names: &HashMap<&str, Vec<&Name>>) -> Self {
        let embedding = names.get("embedding.weight").and_then(|rows| rows.first()).map_or("", |row| row.theirs);
        [Self::AsNamed, Self::Bare, Self::LanguageModel, Self::Encoder]
            .into_iter()
            .find(|prefix| checkpoint.tensor(&prefix.apply(embedding)).is_some())
            .unwrap_or(Self::AsNamed)
    }

    fn apply(self, name: &str) -> String {
        match self {
            Self::AsNamed => name.into(),
            Self::Bare => {
                let wrappers = ["model.", "transformer.", "gpt_neox."];
                wrappers.iter().find_map(|wrapper| name.strip_prefix(wrapper)).unwrap_or(name).into()
            }
            Self::LanguageModel => format!("language_model.{name}"),
            Self::Encoder => format!("bert.{name}"),
        }
    }

    /// A tensor's name without what an encoder's stand behind.
    fn inner(self, name: &str) -> &str {
        if self == Self::Encoder { name.strip_prefix("bert.").unwrap_or(name) } else { name }
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
            let offset = self.spec.final_norm.map_or(0.0, |norm| norm.offset);
            out.fill(if is_norm { 1.0 - offset } else { 0.0 });
            return Ok(());
        }
        let width = *parameter.shape.last().unwrap_or(&1);
        let normal = Normal::new(0.0f32, self.spec.initializer_range)
            .map_err(|_| Error::Tensor(candle_core::Error::Msg("initializer_range is not a positive number".into())))?;
        let first = rows.start;
        out.par_chunks_exact_mut(width).enumerate().with_min_len(16).for_each(|(row, out)| {
            let mut rng = row_generator(self.seed, &parameter.name, first + row);
            out.iter_mut().for_each(|x| *x = normal.sample(&mut rng));
        });
        Ok(())
    }
}

/// The random numbers of one row of a parameter.
pub(crate) fn row_generator(seed: u64, name: &str, row: usize) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ name_hash(name));
    rng.set_stream(row as u64);
    rng
}

/// FNV-1a: a fixed function of the name, so that a parameter's stream does not depend on its place in the model.
pub(crate) fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
