//! A merge whose inputs are open and whose plan is made.

use std::sync::{Arc, Mutex};

use lathe_formats::ElementType;
use lathe_formats::write::TensorSpec;
use lathe_merge::config::{Dtype, MergeConfig, ModelRef};
use lathe_merge::plan::{OutputTensor, Plan, plan};
use lathe_merge::vocabulary::{Files, Missing, Vocabulary};
use serde::{Deserialize, Serialize};

use super::source::Source;
use super::tensors::Merger;
use super::{MergeSpec, Recipe, folder, tokens};
use crate::export::files::NamedFile;
use crate::export::{ExportFormat, FLOATS};
use crate::inspect::ElementCount;
use crate::{Context, Error};

/// Inputs of a merge, opened; several configurations over the same models may be planned with them.
pub(super) struct Inputs {
    pub(super) models: Vec<ModelRef>,
    pub(super) sources: Vec<Arc<Source>>,
}

/// A configuration over open inputs.
pub(super) struct Job<'a> {
    pub(super) config: &'a MergeConfig,
    pub(super) recipe: Recipe,
    /// The models of the configuration, in its order.
    pub(super) sources: Vec<Arc<Source>>,
    pub(super) plan: Plan,
    pub(super) vocabulary: Option<Vocabulary>,
    /// How the tensors of the plan are stored, in its order.
    pub(super) stored: Vec<TensorSpec>,
    /// Input whose tokenizer is taken.
    pub(super) tokenizer: usize,
    notes: Vec<String>,
}

/// What a merge is made of and what comes out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MergeSummary {
    /// The method.
    pub method: String,
    /// The models, in the order of the configuration.
    pub inputs: Vec<InputSummary>,
    /// Layers of the result.
    pub layers: usize,
    /// Tensors of the result.
    pub tensors: usize,
    /// Its numbers.
    pub parameters: u64,
    /// Bytes of its weights.
    pub bytes: u64,
    /// Tensors and bytes of each element type, the most bytes first.
    pub elements: Vec<ElementCount>,
    /// Rows of its embedding, where they are chosen by a tokenizer.
    pub vocabulary: Option<usize>,
    /// What the reader should know, one sentence each.
    pub notes: Vec<String>,
}

/// A model that goes into a merge.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InputSummary {
    /// What the configuration calls it.
    pub model: String,
    /// `gguf` or `safetensors`.
    pub format: String,
    /// The architecture, as its configuration names it.
    pub architecture: String,
    /// Its layers.
    pub layers: usize,
    /// Tensors and bytes of each element type, the most bytes first.
    pub elements: Vec<ElementCount>,
    /// Licence, where it is known.
    pub licence: Option<String>,
}

impl Inputs {
    /// Opens the models of a configuration: headers only.
    ///
    /// # Errors
    /// A model cannot be opened.
    pub(super) fn open(spec: &MergeSpec, context: &Context<'_>) -> Result<Self, Error> {
        let models = spec.config.inputs();
        let open =
            |model: &ModelRef| Source::open(model, spec.folder.as_deref(), spec.nonfinite, context).map(Arc::new);
        let sources = models.iter().map(open).collect::<Result<_, _>>()?;
        Ok(Self { models, sources })
    }

    /// Plans a configuration over these models.
    ///
    /// # Errors
    /// The models do not fit together, or not the configuration.
    pub(super) fn job<'a>(&'a self, config: &'a MergeConfig, spec: &MergeSpec) -> Result<Job<'a>, Error> {
        // Another method over the same models may have a base among them, or none.
        let models = config.inputs();
        let place = |model| self.models.iter().position(|other| other == model);
        let sources = models.iter().filter_map(|model| Some(self.sources[place(model)?].clone())).collect();
        let inputs = Self { models, sources };
        let headers: Vec<_> = inputs.sources.iter().map(|source| source.header()).collect();
        let vocabulary = tokens::vocabulary(config, spec.recipe, &inputs)?;
        let mut plan = plan(config, &headers, vocabulary.as_ref().map(|vocabulary| vocabulary.rows))?;
        if let Some(input) = spec.recipe.config {
            plan.config_donor = input;
        }
        let wanted = element_of(spec, config)?;
        let donor = &inputs.sources[plan.config_donor];
        let stored = plan.tensors.iter().map(|tensor| stored(tensor, wanted, donor, &inputs.sources)).collect();
        let tokenizer = match vocabulary.as_ref().map(|vocabulary| &vocabulary.files) {
            Some(Files::Of(input)) => *input,
            _ => plan.config_donor,
        };
        let mut notes = said_by_recipe(spec.recipe, &inputs.sources);
        if vocabulary.is_none() {
            notes.extend(tokens::different_tokenizers(&inputs.sources, tokenizer)?);
        }
        notes.extend(inputs.sources.iter().filter_map(|source| dequantised(source)));
        notes.append(&mut plan.notes);
        if let Some(vocabulary) = &vocabulary {
            notes.extend(vocabulary.notes.iter().cloned());
        }
        Ok(Job { config, recipe: spec.recipe, sources: inputs.sources, plan, vocabulary, stored, tokenizer, notes })
    }
}

impl Job<'_> {
    pub(super) fn merger(&self) -> Merger<'_> {
        let rows = self.vocabulary.as_ref().and_then(|vocabulary| vocabulary.from.as_deref());
        Merger { sources: &self.sources, rows, seed: self.config.seed, scratch: Mutex::default() }
    }

    /// The files beside the weights.
    ///
    /// # Errors
    /// A file of an input cannot be read.
    pub(super) fn files(&self) -> Result<Vec<NamedFile>, Error> {
        folder::files(&folder::Parts {
            config: self.config,
            sources: &self.sources,
            plan: &self.plan,
            vocabulary: self.vocabulary.as_ref(),
            tokenizer: self.tokenizer,
            template: self.recipe.template,
            element: self.element(),
        })
    }

    /// The type of all matrices, if it is one.
    pub(super) fn element(&self) -> Option<ElementType> {
        let mut elements = self.stored.iter().filter(|tensor| tensor.shape.len() > 1).map(|tensor| tensor.element);
        let first = elements.next()?;
        elements.all(|element| element == first).then_some(first)
    }

    /// Bytes of all weights.
    pub(super) fn bytes(&self) -> u64 {
        self.stored.iter().map(bytes_of).sum()
    }

    pub(super) fn summary(&self) -> MergeSummary {
        let numbers = |tensor: &TensorSpec| tensor.shape.iter().product::<usize>() as u64;
        MergeSummary {
            method: self.config.merge_method.name().to_owned(),
            inputs: self.sources.iter().map(|source| input_summary(source)).collect(),
            layers: self.plan.layers,
            tensors: self.stored.len(),
            parameters: self.stored.iter().map(numbers).sum(),
            bytes: self.bytes(),
            elements: ElementCount::of(self.stored.iter().map(|tensor| (tensor.element, bytes_of(tensor)))),
            vocabulary: self.vocabulary.as_ref().map(|vocabulary| vocabulary.rows),
            notes: self.notes.clone(),
        }
    }
}

/// Bytes of a tensor in the file.
pub(super) fn bytes_of(tensor: &TensorSpec) -> u64 {
    (tensor.shape.iter().product::<usize>() * tensor.element.block_bytes()) as u64
}

fn input_summary(source: &Source) -> InputSummary {
    let tensors = source.checkpoint().tensors().iter();
    let architecture = source.config.get("architectures").and_then(|names| names.get(0)?.as_str());
    InputSummary {
        model: source.name.clone(),
        format: if source.is_gguf() { "gguf" } else { "safetensors" }.to_owned(),
        architecture: architecture.unwrap_or("unknown").to_owned(),
        layers: source.layers(),
        elements: ElementCount::of(tensors.map(|info| (info.element, info.bytes() as u64))),
        licence: source.licence(),
    }
}

/// The type that floats are stored in, if the user or the configuration says one.
fn element_of(spec: &MergeSpec, config: &MergeConfig) -> Result<Option<ElementType>, Error> {
    let Some(word) = &spec.dtype else {
        return Ok(config.stored_dtype().map(|dtype| match dtype {
            Dtype::Float32 => ElementType::F32,
            Dtype::Float16 => ElementType::F16,
            Dtype::Bfloat16 => ElementType::BF16,
        }));
    };
    match in_words_of_formats(word).parse().ok() {
        Some(element) if FLOATS.contains(&element) => Ok(Some(element)),
        // Blocks are made from numbers that have not been rounded before.
        Some(element) if spec.to == ExportFormat::Gguf && element.is_writable() => Ok(Some(ElementType::F32)),
        _ => Err(Error::Spec {
            field: "--dtype",
            problem: format!("merged weights are not stored as `{word}`"),
            hint: Some(match spec.to {
                ExportFormat::Safetensors => "take float32, float16 or bfloat16; blocks need `--to gguf`".into(),
                ExportFormat::Gguf => "take float32, float16, bfloat16 or a type that `lathe export` writes".into(),
            }),
        }),
    }
}

/// The name of an element type in the formats: configurations have their own for three.
pub(super) fn in_words_of_formats(word: &str) -> &str {
    match word {
        "float32" => "f32",
        "float16" => "f16",
        "bfloat16" => "bf16",
        other => other,
    }
}

/// How a tensor is stored: as the user wants, as the configuration's donor stores it, or else as f32.
fn stored(tensor: &OutputTensor, wanted: Option<ElementType>, donor: &Source, sources: &[Arc<Source>]) -> TensorSpec {
    let first = || tensor.inputs.first().and_then(|(input, name)| sources[*input].tensor(name));
    let theirs = donor.tensor(&tensor.name).or_else(first).map_or(ElementType::F32, |tensor| tensor.element);
    let element = match wanted {
        _ if tensor.copied => theirs,
        Some(wanted) => wanted,
        None if FLOATS.contains(&theirs) => theirs,
        None => ElementType::F32,
    };
    TensorSpec { name: tensor.name.clone(), shape: tensor.shape.clone(), element }
}

/// What a configuration file cannot say of a recipe.
fn said_by_recipe(recipe: Recipe, sources: &[Arc<Source>]) -> Vec<String> {
    let of = |what: &str, input: Option<usize>| input.map(|input| format!("{what} from {}", sources[input].name));
    let missing =
        (recipe.missing == Missing::Zero).then(|| "rows of tokens that a model lacks are zero there".to_owned());
    let config = of("config comes", recipe.config);
    config.into_iter().chain(of("the chat template comes", recipe.template)).chain(missing).collect()
}

fn dequantised(source: &Source) -> Option<String> {
    let is_quantised = source.checkpoint().tensors().iter().any(|info| info.element.is_quantised());
    is_quantised
        .then(|| format!("{} is quantised: its numbers were decoded, and what quantisation lost is lost", source.name))
}
