//! A model as the tensors of a safetensors folder, whatever it is stored as.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use lathe_formats::{Checkpoint, ElementType, Format, TensorView};
use lathe_kernels::weights::{all_finite, bf16_to_f32, f16_to_f32};
use lathe_merge::adapter::{Adapter, Claims};
use lathe_merge::config::ModelRef;
use lathe_merge::plan::{Kind, ModelHeader, TensorHeader};
use lathe_model::reference::{CheckpointKind, ModelReference, Resolved, resolve};
use lathe_model::{Opened, TargetTensor, folder_of};
use serde_json::{Map, Value};

use crate::load::licence;
use crate::{Context, Error};

/// A model whose tensors can be read a piece at a time, under the names of a safetensors folder.
pub(crate) struct Source {
    /// What the configuration calls it.
    pub(super) name: String,
    /// Its files.
    pub(super) resolved: Resolved,
    /// What lathe's decoder knows of it; none for an architecture that it does not run, whose tensors are merged by
    /// their names alone.
    pub(super) opened: Option<Opened>,
    /// `config.json`, whole; a GGUF header in its words.
    pub(super) config: Map<String, Value>,
    /// An adapter that is added to the weights.
    adapter: Option<Claims>,
    /// Its files.
    pub(super) adapter_files: Vec<PathBuf>,
    checkpoint: Arc<Checkpoint>,
    tensors: Vec<Tensor>,
    by_name: HashMap<String, usize>,
    /// The tensor that was decoded as a whole last, where rows cannot be had a few at a time.
    whole: Mutex<Option<(usize, Arc<Vec<f32>>)>>,
    /// Whether NaN and infinity are read like other numbers.
    nonfinite: Nonfinite,
}

/// The words of configurations for the number of layers.
pub(super) const LAYERS: [&str; 5] =
    ["num_hidden_layers", "n_layer", "num_layers", "n_layers", "num_transformer_layers"];

/// Bytes of a tensor whose pages stay in memory until it is done: to find them again for every piece and every pass takes
/// longer than to read them. Larger tensors are let go of window by window.
const HELD_BYTES: usize = 32 << 20;
/// Bytes of a large tensor that are let go of together, when reading has reached their end.
const WINDOW: usize = 2 << 20;

/// What happens to numbers that are not finite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Nonfinite {
    /// They are an error.
    #[default]
    Refuse,
    /// They are numbers like others.
    Allow,
}

/// A tensor under its name in a safetensors folder.
pub(super) struct Tensor {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    /// How it is stored; of a GGUF file how its first part is.
    pub(super) element: ElementType,
    content: Content,
}

/// Where the numbers of a tensor are.
enum Content {
    /// In the tensor of that name.
    Stored,
    /// In parameters, which lie in a GGUF file in another order.
    Parameters(TargetTensor),
}

impl Source {
    /// Opens a model that a configuration names: a path relative to the configuration's folder, or else a reference.
    ///
    /// # Errors
    /// The name leads nowhere; the model or its adapter cannot be opened.
    pub(super) fn open(
        model: &ModelRef,
        folder: Option<&Path>,
        nonfinite: Nonfinite,
        context: &Context<'_>,
    ) -> Result<Self, Error> {
        let reference = reference_of(&model.path, model.revision.as_deref(), folder)?;
        let mut source = Self::of(model.to_string(), &reference, nonfinite, context)?;
        if let Some(lora) = &model.lora {
            let folder = adapter_folder(&lora.path, lora.revision.as_deref(), folder)?;
            if source.adapter.is_some() {
                let problem = format!("{model} has an adapter already: it is the folder of one");
                let hint = Some("merge one of them into a folder first".into());
                return Err(Error::Spec { field: "model", problem, hint });
            }
            source.add(&folder)?;
        }
        Ok(source)
    }

    /// A model by its reference.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub(super) fn of(
        name: String,
        reference: &ModelReference,
        nonfinite: Nonfinite,
        context: &Context<'_>,
    ) -> Result<Self, Error> {
        let resolved = resolve(reference, context.home)?;
        let opened = match lathe_model::open(&resolved.path) {
            Ok(opened) => Some(opened),
            // The names of its tensors are all that a merge needs.
            Err(lathe_model::Error::UnknownFamily { .. }) if resolved.kind != CheckpointKind::Gguf => None,
            Err(error) => return Err(error.into()),
        };
        let checkpoint = match &opened {
            Some(opened) => opened.checkpoint.clone(),
            None => Arc::new(Checkpoint::open(&resolved.path)?),
        };
        let (config, tensors) = match &opened {
            Some(opened) if checkpoint.format() == Format::Gguf => {
                (opened.config_json().clone(), from_parameters(opened)?)
            }
            _ => (whole_config(&resolved.path)?, stored(&checkpoint)),
        };
        let by_name = tensors.iter().enumerate().map(|(i, tensor)| (tensor.name.clone(), i)).collect();
        let folder = resolved.adapter.clone();
        let mut source = Self {
            name,
            resolved,
            opened,
            config,
            adapter: None,
            adapter_files: Vec::new(),
            checkpoint,
            tensors,
            by_name,
            whole: Mutex::new(None),
            nonfinite,
        };
        if let Some(folder) = folder {
            source.add(&folder)?;
        }
        Ok(source)
    }

    /// Adds the adapter of a folder to the weights.
    fn add(&mut self, folder: &Path) -> Result<(), Error> {
        let base = self.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.shape.as_slice()));
        self.adapter = Some(Adapter::open(folder)?.claims(base)?);
        self.adapter_files =
            ["adapter_config.json", "adapter_model.safetensors"].map(|name| folder.join(name)).to_vec();
        Ok(())
    }

    /// What the plan of a merge needs to know.
    pub(super) fn header(&self) -> ModelHeader {
        let tensors = self.tensors.iter().map(|tensor| TensorHeader {
            name: tensor.name.clone(),
            shape: tensor.shape.clone(),
            kind: if tensor.element.is_float_like() { Kind::Float } else { Kind::Other },
        });
        let tensors = tensors.collect();
        ModelHeader { name: self.name.clone(), layers: self.layers(), tied: self.is_tied(), tensors }
    }

    pub(super) fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    pub(super) fn tensor(&self, name: &str) -> Option<&Tensor> {
        Some(&self.tensors[*self.by_name.get(name)?])
    }

    pub(super) fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The folder of its configuration and tokenizer.
    pub(super) fn folder(&self) -> &Path {
        folder_of(&self.resolved.path)
    }

    pub(super) fn is_gguf(&self) -> bool {
        self.checkpoint.format() == Format::Gguf
    }

    /// The licence, as far as it is known.
    pub(super) fn licence(&self) -> Option<String> {
        self.opened.as_ref().map_or_else(|| self.resolved.licence.clone(), |opened| licence(&self.resolved, opened))
    }

    /// Stored bytes of a tensor that is no number: none for a GGUF file.
    pub(super) fn bytes(&self, name: &str) -> Option<&[u8]> {
        Some(self.checkpoint.tensor(name)?.bytes())
    }

    /// The numbers `range` of a tensor, with those of the adapter.
    ///
    /// # Errors
    /// They cannot be read; one of them is not finite.
    pub(super) fn read(&self, name: &str, range: Range<usize>, out: &mut [f32]) -> Result<(), Error> {
        let index = *self.by_name.get(name).ok_or_else(|| self.missing(name))?;
        let tensor = &self.tensors[index];
        let mut is_finite = match &tensor.content {
            Content::Stored => self.read_stored(tensor, range.clone(), out)?,
            Content::Parameters(target) => {
                self.read_parameters(index, target, range.clone(), out)?;
                all_finite(out)
            }
        };
        if let Some(adapter) = &self.adapter {
            adapter.add(name, range.clone(), out)?;
            is_finite = all_finite(out);
        }
        if self.nonfinite == Nonfinite::Refuse && !is_finite {
            let at = out.iter().position(|x| !x.is_finite()).unwrap_or(0);
            return Err(Error::NonfiniteWeight {
                model: self.name.clone(),
                tensor: name.to_owned(),
                position: position(&tensor.shape, range.start + at),
                value: out[at],
            });
        }
        Ok(())
    }

    /// The stored bytes of a tensor whose numbers are bf16 as they lie in the file.
    pub(super) fn bf16(&self, name: &str) -> Option<TensorView<'_>> {
        let tensor = self.tensor(name)?;
        let as_stored = matches!(tensor.content, Content::Stored) && self.adapter.is_none();
        if as_stored && tensor.element == ElementType::BF16 { self.checkpoint.tensor(name) } else { None }
    }

    /// Says that these bytes of a tensor have been read: they may leave memory.
    pub(super) fn has_read(&self, view: &TensorView<'_>, bytes: &Range<usize>) {
        let done = bytes.start / WINDOW * WINDOW..bytes.end / WINDOW * WINDOW;
        if view.bytes().len() > HELD_BYTES && !done.is_empty() {
            self.checkpoint.release_bytes(view, done);
        }
    }

    /// Says that a tensor has been read and its place in memory is free.
    pub(super) fn release(&self, name: &str) {
        match self.tensor(name).map(|tensor| &tensor.content) {
            Some(Content::Stored) => self.checkpoint.release(name),
            Some(Content::Parameters(target)) => {
                let tensors = target.parameters().filter_map(|parameter| self.tensor_of(&parameter.name));
                tensors.for_each(|tensor| self.checkpoint.release(tensor));
            }
            None => {}
        }
    }

    fn tensor_of(&self, parameter: &str) -> Option<&str> {
        self.opened.as_ref()?.tensor_name(parameter)
    }

    /// Reads numbers as they are stored, and says whether all of them are finite.
    fn read_stored(&self, tensor: &Tensor, range: Range<usize>, out: &mut [f32]) -> Result<bool, Error> {
        let view = self.checkpoint.require(&tensor.name)?;
        let width = tensor.element.block_bytes();
        let stored = range.start * width..range.end * width;
        let is_finite = match tensor.element {
            ElementType::BF16 => bf16_to_f32(&view.bytes()[stored.clone()], out),
            ElementType::F16 => f16_to_f32(&view.bytes()[stored.clone()], out),
            _ => {
                view.decode(range, out)?;
                all_finite(out)
            }
        };
        self.has_read(&view, &stored);
        Ok(is_finite)
    }

    fn read_parameters(
        &self,
        index: usize,
        target: &TargetTensor,
        range: Range<usize>,
        out: &mut [f32],
    ) -> Result<(), Error> {
        let Some(opened) = &self.opened else { return Err(self.missing(&target.name)) };
        let width = target.row_len().max(1);
        if !target.is_by_rows() {
            let mut whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
            let values = match &*whole {
                Some((held, values)) if *held == index => values.clone(),
                _ => {
                    let mut values = vec![0.0; target.rows() * width];
                    target.values(opened.parameters(), 0..target.rows(), &mut values)?;
                    let values = Arc::new(values);
                    *whole = Some((index, values.clone()));
                    values
                }
            };
            drop(whole);
            out.copy_from_slice(&values[range]);
            return Ok(());
        }
        let rows = range.start / width..range.end.div_ceil(width);
        if rows.len() * width == out.len() {
            return Ok(target.values(opened.parameters(), rows, out)?);
        }
        let mut values = vec![0.0; rows.len() * width];
        target.values(opened.parameters(), rows.clone(), &mut values)?;
        let first = range.start - rows.start * width;
        out.copy_from_slice(&values[first..first + out.len()]);
        Ok(())
    }

    fn missing(&self, tensor: &str) -> Error {
        let file = self.checkpoint.path().to_owned();
        lathe_formats::Error::MissingTensor { file, tensor: tensor.to_owned() }.into()
    }

    /// Layers, as the configuration says.
    pub(super) fn layers(&self) -> usize {
        if let Some(opened) = &self.opened {
            return opened.spec.layers.len();
        }
        let fields = language_model(&self.config);
        let said = LAYERS.iter().find_map(|word| fields.get(*word)?.as_u64());
        // At most one for each tensor: the number comes from a file.
        said.map_or(0, |layers| (layers as usize).min(self.tensors.len()))
    }

    /// Whether the head is the embedding.
    fn is_tied(&self) -> bool {
        if let Some(opened) = &self.opened {
            return opened.spec.head.weight != lathe_model::spec::HeadWeight::Own;
        }
        let said = |fields: &Map<String, Value>| fields.get("tie_word_embeddings")?.as_bool();
        said(&self.config).or_else(|| said(language_model(&self.config))).unwrap_or(false)
    }
}

/// The fields of the language model: those of `text_config` in a multimodal configuration.
pub(super) fn language_model(config: &Map<String, Value>) -> &Map<String, Value> {
    config.get("text_config").and_then(Value::as_object).unwrap_or(config)
}

/// A row-major position as indices: `[row, column]`.
fn position(shape: &[usize], flat: usize) -> Vec<usize> {
    let mut rest = flat;
    let mut indices: Vec<usize> = shape
        .iter()
        .rev()
        .map(|size| {
            let index = rest % size.max(&1);
            rest /= size.max(&1);
            index
        })
        .collect();
    indices.reverse();
    indices
}

/// The reference of a model in a configuration. A path counts from the configuration's folder, then from where the
/// program runs; `org/name` that is neither is a repository of the hub.
pub(super) fn reference_of(path: &str, revision: Option<&str>, folder: Option<&Path>) -> Result<ModelReference, Error> {
    let beside = folder.map(|folder| folder.join(path)).filter(|path| path.exists());
    if let Some(beside) = beside.filter(|_| revision.is_none()) {
        return Ok(ModelReference::Path(beside));
    }
    let text = match revision {
        Some(revision) => format!("{path}@{revision}"),
        None => path.to_owned(),
    };
    match text.parse()? {
        ModelReference::Path(path) if !path.exists() && is_repository(&text) => Ok(format!("hf:{text}").parse()?),
        reference => Ok(reference),
    }
}

/// Whether a text has the form `org/name`, with or without a revision.
fn is_repository(text: &str) -> bool {
    let mut parts = text.split('/');
    let is_name = |part: Option<&str>| {
        part.is_some_and(|part| !part.is_empty() && !part.starts_with('.') && !part.contains('\\'))
    };
    is_name(parts.next()) && is_name(parts.next()) && parts.next().is_none()
}

/// The folder of an adapter: beside the configuration, or where the program runs.
pub(super) fn adapter_folder(path: &str, revision: Option<&str>, folder: Option<&Path>) -> Result<PathBuf, Error> {
    match reference_of(path, revision, folder) {
        Ok(ModelReference::Path(path)) if path.is_dir() => Ok(path),
        _ => Err(Error::NoAdapter { adapter: path.to_owned() }),
    }
}

/// The whole `config.json` beside the weights.
fn whole_config(path: &Path) -> Result<Map<String, Value>, Error> {
    Ok(lathe_model::Config::read(&folder_of(path).join("config.json"))?.fields().clone())
}

fn stored(checkpoint: &Checkpoint) -> Vec<Tensor> {
    let tensor = |info: &lathe_formats::TensorInfo| Tensor {
        name: info.name.clone(),
        shape: info.shape.clone(),
        element: info.element,
        content: Content::Stored,
    };
    checkpoint.tensors().iter().map(tensor).collect()
}

fn from_parameters(opened: &Opened) -> Result<Vec<Tensor>, Error> {
    let target = opened.target(Format::Safetensors)?;
    let tensor = |tensor: TargetTensor| {
        let first = tensor.parameters().next().and_then(|parameter| opened.tensor_name(&parameter.name));
        let element = first.and_then(|name| opened.checkpoint.tensor(name)).map(|view| view.info().element);
        Tensor {
            name: tensor.name.clone(),
            shape: tensor.shape.clone(),
            element: element.unwrap_or(ElementType::F32),
            content: Content::Parameters(tensor),
        }
    };
    Ok(target.tensors.into_iter().map(tensor).collect())
}
