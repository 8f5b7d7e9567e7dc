//! Checkpoints: everything that the rest of a run follows from, in folders that appear whole.
//!
//! `checkpoints/step-N` is a model (or an adapter) that opens like any other, in f32, with a folder `training`:
//! `optimiser.safetensors`, the moments of AdamW by lathe's names of parameters, and `state.json`. It is written under
//! another name, flushed to the disk, and renamed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor, Var};
use lathe_formats::write::{TensorSpec, safetensors};
use lathe_formats::{Checkpoint, ElementType};
use lathe_model::Decoder;
use lathe_tune::{AdamW, Cursor, Moments};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::spec::{Method, TuneSpec, refuse};
use super::start::Start;
use crate::export::{TemporaryFolder, put};
use crate::{Context, Error};

const TRAINING: &str = "training";
const OPTIMISER: &str = "training/optimiser.safetensors";
const STATE: &str = "training/state.json";
/// Prefixes of its tensors: first and second moments, and of an adapter its factors.
const MEAN: &str = "mean/";
const SQUARE: &str = "square/";
const WEIGHT: &str = "weight/";

/// Where a run stood.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct State {
    /// Version of lathe.
    pub(super) lathe: String,
    /// Steps that were done.
    pub(super) step: usize,
    /// What was read of the data.
    pub(super) cursor: Cursor,
    /// How often each parameter was changed.
    pub(super) updates: BTreeMap<String, u64>,
    /// The best step so far, by the first file that is watched.
    pub(super) best: Option<Best>,
    /// What every later bit depends on.
    pub(super) settings: Map<String, Value>,
}

/// The best step by a watched loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// The step.
    pub step: usize,
    /// Its loss, nats per token.
    pub loss: f64,
}

/// The checkpoints of a run.
pub(super) struct Checkpoints {
    folder: PathBuf,
}

impl Checkpoints {
    pub(super) fn of(out: &Path) -> Self {
        Self { folder: out.join("checkpoints") }
    }

    pub(super) fn path(&self, step: usize) -> PathBuf {
        self.folder.join(format!("step-{step}"))
    }

    /// Steps of complete checkpoints, ascending.
    fn steps(&self) -> Vec<usize> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        let step = |entry: fs::DirEntry| {
            let step = entry.file_name().to_str()?.strip_prefix("step-")?.parse().ok()?;
            entry.path().join(STATE).is_file().then_some(step)
        };
        let mut steps: Vec<usize> = entries.filter_map(|entry| step(entry.ok()?)).collect();
        steps.sort_unstable();
        steps
    }

    /// The last complete checkpoint.
    pub(super) fn last(&self) -> Result<Option<(PathBuf, State)>, Error> {
        let Some(step) = self.steps().pop() else { return Ok(None) };
        let folder = self.path(step);
        let file = folder.join(STATE);
        let bytes = fs::read(&file).map_err(|source| Error::Read { file: file.clone(), source })?;
        let state =
            serde_json::from_slice(&bytes).map_err(|error| Error::BadJson { file, problem: error.to_string() })?;
        Ok(Some((folder, state)))
    }

    /// Folders that are there, by their steps.
    pub(super) fn all(&self) -> Vec<PathBuf> {
        self.steps().into_iter().map(|step| self.path(step)).collect()
    }

    /// Writes a checkpoint.
    pub(super) fn write(
        &self,
        state: &State,
        adamw: &AdamW,
        decoder: &Decoder,
        (start, spec): (&Start, &TuneSpec),
        context: &Context<'_>,
    ) -> Result<PathBuf, Error> {
        let refused = |source| Error::Write { file: self.folder.clone(), source };
        fs::create_dir_all(&self.folder).map_err(refused)?;
        let target = self.path(state.step);
        if target.is_dir() {
            // A run that goes on after its last step writes the same once more.
            fs::remove_dir_all(&target).map_err(refused)?;
        }
        let folder = TemporaryFolder::beside(&target)?;
        // It is filled by a rename.
        fs::remove_dir(&folder.path).map_err(refused)?;
        start.write(&folder.path, ElementType::F32, decoder, &spec.method, context)?;
        fs::create_dir(folder.path.join(TRAINING)).map_err(refused)?;
        let weights = match spec.method {
            Method::Lora(_) => Some(decoder.trainable()),
            Method::Full | Method::Only(_) => None,
        };
        write_optimiser(&folder.path.join(OPTIMISER), adamw, weights)?;
        put(&folder.path.join(STATE), &serde_json::to_vec_pretty(state)?)?;
        flush(&folder.path).map_err(refused)?;
        folder.rename(&target)?;
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(refused)?;
        Ok(target)
    }

    /// Removes all but the last `keep` and the best.
    pub(super) fn prune(&self, keep: usize, best: Option<Best>) -> Result<(), Error> {
        let steps = self.steps();
        let (old, _) = steps.split_at(steps.len().saturating_sub(keep.max(1)));
        for step in old.iter().filter(|step| best.is_none_or(|best| best.step != **step)) {
            let path = self.path(*step);
            // Without it the folder is no checkpoint, whatever else is left of it after a kill.
            let removed = fs::remove_file(path.join(STATE)).and_then(|()| fs::remove_dir_all(&path));
            removed.map_err(|source| Error::Write { file: path, source })?;
        }
        Ok(())
    }

    /// Removes what a killed run has left half done.
    pub(super) fn tidy(&self, out: &Path) {
        for folder in [out, &self.folder] {
            let Ok(entries) = fs::read_dir(folder) else { continue };
            for entry in entries.filter_map(Result::ok) {
                let name = entry.file_name().to_string_lossy().into_owned();
                let is_partial = name.starts_with(".lathe-");
                let is_headless =
                    name.starts_with("step-") && folder == self.folder && !entry.path().join(STATE).exists();
                if (is_partial || is_headless) && entry.path().is_dir() {
                    // What cannot be removed is in nobody's way.
                    _ = fs::remove_dir_all(entry.path());
                } else if is_partial {
                    _ = fs::remove_file(entry.path());
                }
            }
        }
    }
}

/// Every file of a folder is on the disk.
fn flush(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            flush(&path)?;
        } else {
            File::open(path)?.sync_all()?;
        }
    }
    File::open(folder)?.sync_all()
}

fn write_optimiser(file: &Path, adamw: &AdamW, weights: Option<&BTreeMap<String, Var>>) -> Result<(), Error> {
    let flat = |name: String, len: usize| TensorSpec { name, shape: vec![len], element: ElementType::F32 };
    let mut tensors = Vec::new();
    for (name, moments) in adamw.moments() {
        tensors.push(flat(format!("{MEAN}{name}"), moments.mean.len()));
        tensors.push(flat(format!("{SQUARE}{name}"), moments.square.len()));
    }
    for (name, var) in weights.into_iter().flatten() {
        tensors.push(flat(format!("{WEIGHT}{name}"), var.elem_count()));
    }
    let mut writer = safetensors(file, &BTreeMap::new(), &tensors)?;
    for (name, moments) in adamw.moments() {
        writer.append_f32(&format!("{MEAN}{name}"), &moments.mean)?;
        writer.append_f32(&format!("{SQUARE}{name}"), &moments.square)?;
    }
    for (name, var) in weights.into_iter().flatten() {
        writer.append_f32(&format!("{WEIGHT}{name}"), &var.flatten_all()?.to_vec1::<f32>()?)?;
    }
    Ok(writer.finish()?)
}

/// Takes up the optimiser of a checkpoint, and the factors of an adapter.
pub(super) fn restore(folder: &Path, state: &State, adamw: &mut AdamW, decoder: &Decoder) -> Result<(), Error> {
    let file = folder.join(OPTIMISER);
    let checkpoint = Checkpoint::open(&file)?;
    let damaged = |name: &str| {
        let problem = format!("{}: `{name}` is not as this model has it", file.display());
        refuse("--resume", problem, Some("the checkpoint is damaged, or belongs to another version"))
    };
    let values = |name: String| -> Result<Vec<f32>, Error> {
        Ok(checkpoint.tensor(&name).ok_or_else(|| damaged(&name))?.to_f32()?)
    };
    for (name, var) in decoder.trainable() {
        let (mean, square) = (values(format!("{MEAN}{name}"))?, values(format!("{SQUARE}{name}"))?);
        let updates = state.updates.get(name).copied().unwrap_or_default();
        if !adamw.restore(name, Moments { mean, square, updates }) {
            return Err(damaged(name));
        }
        if let Some(weight) = checkpoint.tensor(&format!("{WEIGHT}{name}")) {
            let weight = weight.to_f32()?;
            if weight.len() != var.elem_count() {
                return Err(damaged(name));
            }
            var.set(&Tensor::from_vec(weight, var.shape(), &Device::Cpu)?)?;
        }
    }
    Ok(())
}

/// Whether a run goes on as it began: names the first setting that is another one.
pub(super) fn compare(before: &Map<String, Value>, now: &Map<String, Value>) -> Result<(), Error> {
    let constant = |of: &Map<String, Value>| of.get("schedule").is_some_and(|schedule| schedule == "constant");
    for (key, value) in now {
        // Under a constant rate no step depends on how many follow it.
        if key == "steps" && constant(before) && constant(now) {
            continue;
        }
        let was = before.get(key).unwrap_or(&Value::Null);
        if was != value {
            let short = |value: &Value| match value {
                Value::String(text) if text.len() > 24 => format!("{}…", text.chars().take(12).collect::<String>()),
                other => other.to_string(),
            };
            let problem = format!("{}: the run began with {}, not {}", key.replace('_', " "), short(was), short(value));
            let hint = "repeat the settings of the run that goes on, or begin another one in another folder";
            return Err(refuse("--resume", problem, Some(hint)));
        }
    }
    Ok(())
}
