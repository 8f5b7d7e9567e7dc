//! Opening a model: from files to a specification, weights, a tokenizer and a template.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lathe_formats::{Checkpoint, ElementType, Format, GgufValue};
use lathe_tokenizer::{ChatTemplate, Tokenizer};
use serde_json::{Map, Value};

use crate::Error;
use crate::adapter::{self, LoraSpec, Selection, Trainable};
use crate::config::Config;
use crate::decoder::{Decoder, Weights};
use crate::family::{self, Family};
use crate::gguf;
use crate::parameters::{CheckpointSource, RandomSource, TensorChange};
use crate::sentence::{self, SentenceSpec};
use crate::spec::DecoderSpec;
use crate::target::{self, Target};

/// A model whose header has been read: everything but the weights.
pub struct Opened {
    /// The file or folder that was given.
    pub path: PathBuf,
    /// The mapped checkpoint.
    pub checkpoint: Arc<Checkpoint>,
    /// What the decoder is made of.
    pub spec: DecoderSpec,
    /// The architecture's row of the table.
    pub family: &'static Family,
    /// The configuration, with what its class assumes where it says nothing.
    config: Config,
    /// The same as it was read.
    fields: Map<String, Value>,
    source: CheckpointSource,
    /// What becomes of hidden states, where the folder says it.
    sentence: Option<SentenceSpec>,
}

/// Opens a folder, a `.safetensors` file beside its `config.json`, or a `.gguf` file. Reads headers only.
///
/// # Errors
/// Files are missing or malformed, the architecture is unknown, or tensors and configuration disagree.
pub fn open(path: &Path) -> Result<Opened, Error> {
    open_checkpoint(path, Checkpoint::open(path)?)
}

/// Opens a model whose weights are at hand: `path` is its folder, or a file in it, and has the configuration and the
/// tokenizer as far as the checkpoint does not.
///
/// # Errors
/// As [`open`].
pub fn open_checkpoint(path: &Path, checkpoint: Checkpoint) -> Result<Opened, Error> {
    let checkpoint = Arc::new(checkpoint);
    let (config, family, mut fields) = match checkpoint.gguf() {
        Some(header) => {
            let (config, family) = gguf::config(&checkpoint, header)?;
            let fields = config.fields().clone();
            (config, family, fields)
        }
        None => {
            let whole = Config::read(&folder_of(path).join("config.json"))?;
            refuse_quantised(&whole)?;
            let config = whole.language_model();
            let family = family::of(&config)?;
            let fields = config.fields().clone();
            (family::with_defaults(config, family), family, fields)
        }
    };
    // A specification holds something for every layer; each layer has a tensor at least.
    let tensors = checkpoint.tensors().len();
    for field in ["num_hidden_layers", "n_layer", "num_transformer_layers"] {
        if let Some(layers) = config.opt_usize(field)?.filter(|layers| *layers > tensors) {
            let expected = format!("at most one for each of the {tensors} tensors");
            return Err(config.bad(field, &layers.into(), &expected));
        }
    }
    let spec = (family.translate)(&config)?;
    let source = CheckpointSource::new(checkpoint.clone(), &spec, family)?;
    let sentence = match checkpoint.gguf() {
        Some(_) => None,
        None => sentence::sentence(folder_of(path), &spec)?,
    };
    // The language model of a multimodal folder has no class of its own.
    fields.entry("architectures").or_insert_with(|| vec![family.class].into());
    Ok(Opened { path: path.into(), checkpoint, spec, family, config, fields, source, sentence })
}

/// Packed integers of GPTQ, AWQ and their like would be read as weights.
fn refuse_quantised(config: &Config) -> Result<(), Error> {
    let Some(quantisation) = config.object("quantization_config")? else { return Ok(()) };
    let method = match quantisation.opt_str("quant_method")? {
        Some(method) => format!("`{method}`"),
        None => "a method without name".into(),
    };
    Err(Error::Quantised { file: config.file().into(), method })
}

/// The folder of a model's files: itself, or the one that a file lies in.
#[must_use]
pub fn folder_of(path: &Path) -> &Path {
    if path.is_dir() { path } else { path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")) }
}

impl Opened {
    /// Loads the weights.
    ///
    /// # Errors
    /// A tensor cannot be read.
    pub fn decoder(&self, weights: Weights) -> Result<Decoder, Error> {
        Decoder::load(self.spec.clone(), Arc::new(self.source.clone()), weights)
    }

    /// The same model with a change of its numbers, which every reader of [`parameters`](Self::parameters) and every decoder
    /// sees. The checkpoint stays what it is.
    ///
    /// # Errors
    /// The architecture has no names in a safetensors folder.
    pub fn changed(self, change: Arc<dyn TensorChange>) -> Result<Self, Error> {
        let tensors = self.target(Format::Safetensors)?.tensors;
        Ok(Self { source: self.source.changed(change, tensors), ..self })
    }

    /// Loads the weights, some of them to be trained; the others are frozen, and `weights` says how all are multiplied.
    ///
    /// # Errors
    /// A name matches no parameter, the weights are [`Weights::Streamed`], or a tensor cannot be read.
    pub fn decoder_training(&self, weights: Weights, which: &Trainable) -> Result<Decoder, Error> {
        adapter::check_weights(weights)?;
        let (spec, source) = (self.spec.clone(), Arc::new(self.source.clone()));
        Decoder::load_training(spec, source, weights, adapter::selection(self, which)?, None)
    }

    /// Loads the weights, frozen, with factors of low rank beside some: what is trainable are the factors. `A` is random,
    /// `B` zero, so that the decoder computes what it computes without them.
    ///
    /// # Errors
    /// A number of the specification makes no sense, a target means no module or one that can have no factors, the weights
    /// are [`Weights::Streamed`], or a tensor cannot be read.
    pub fn decoder_with_adapter(&self, weights: Weights, spec: &LoraSpec) -> Result<Decoder, Error> {
        adapter::check_weights(weights)?;
        let modules = adapter::modules(self, spec)?;
        let (decoder, source) = (self.spec.clone(), Arc::new(self.source.clone()));
        Decoder::load_training(decoder, source, weights, Selection::None, Some((spec, modules)))
    }

    /// The same architecture with seeded random weights ([`RandomSource`]).
    ///
    /// # Errors
    /// A tensor operation fails.
    pub fn random_decoder(&self, seed: u64, weights: Weights) -> Result<Decoder, Error> {
        let source = Arc::new(RandomSource::new(self.spec.clone(), seed));
        Decoder::load(self.spec.clone(), source, weights)
    }

    /// What becomes of the hidden states of a text, where the folder is one of sentence-transformers.
    #[must_use]
    pub fn sentence(&self) -> Option<&SentenceSpec> {
        self.sentence.as_ref()
    }

    /// The folder that holds the model's files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        folder_of(&self.path)
    }

    /// Whether a tokenizer lies beside or inside the weights.
    #[must_use]
    pub fn has_tokenizer(&self) -> bool {
        match self.checkpoint.gguf() {
            // A file may say that it has none.
            Some(header) => {
                header.get("tokenizer.ggml.model").is_some_and(|model| *model != GgufValue::Str("none".into()))
            }
            None => self.folder().join("tokenizer.json").exists(),
        }
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// There is none, or it is malformed.
    pub fn tokenizer(&self) -> Result<Tokenizer, Error> {
        if !self.has_tokenizer() {
            return Err(Error::NoTokenizer { file: self.path.clone() });
        }
        Ok(match self.checkpoint.gguf() {
            Some(header) => Tokenizer::from_gguf(header)?,
            None => Tokenizer::from_folder(self.folder())?,
        })
    }

    /// The default chat template, where the model has one.
    ///
    /// # Errors
    /// It is malformed.
    pub fn chat_template(&self) -> Result<Option<ChatTemplate>, Error> {
        let templates = match self.checkpoint.gguf() {
            Some(header) => ChatTemplate::from_gguf(header)?,
            None => ChatTemplate::from_folder(self.folder())?,
        };
        Ok(templates.into_iter().next())
    }

    /// The configuration: a folder's own, or a GGUF header in its words.
    #[must_use]
    pub fn config_json(&self) -> &Map<String, Value> {
        &self.fields
    }

    /// The numbers of the parameters.
    #[must_use]
    pub fn parameters(&self) -> &CheckpointSource {
        &self.source
    }

    /// What a checkpoint of this model in `format` is made of.
    ///
    /// # Errors
    /// The format has no names for the architecture or for some of its parameters.
    pub fn target(&self, format: Format) -> Result<Target, Error> {
        target::target(format, &self.config, &self.spec, self.family)
    }

    /// The tensor of the checkpoint that holds a parameter of [`DecoderSpec::parameters`].
    #[must_use]
    pub fn tensor_name(&self, parameter: &str) -> Option<&str> {
        self.source.tensor_name(parameter)
    }

    /// Tensors and bytes of each element type, the most bytes first.
    #[must_use]
    pub fn element_types(&self) -> Vec<(ElementType, usize, usize)> {
        let mut types: Vec<(ElementType, usize, usize)> = Vec::new();
        for info in self.checkpoint.tensors() {
            match types.iter_mut().find(|(element, ..)| *element == info.element) {
                Some((_, tensors, bytes)) => {
                    *tensors += 1;
                    *bytes += info.bytes();
                }
                None => types.push((info.element, 1, info.bytes())),
            }
        }
        types.sort_by_key(|(_, _, bytes)| std::cmp::Reverse(*bytes));
        types
    }
}
