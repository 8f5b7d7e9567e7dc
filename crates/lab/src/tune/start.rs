//! What a run begins with, a model or a configuration, and how what became of it is written.

use std::fs;
use std::path::{Path, PathBuf};

use lathe_formats::{ElementType, Format};
use lathe_model::reference::{ModelReference, Resolved};
use lathe_model::spec::DecoderSpec;
use lathe_model::{Decoder, Draft, LoraSpec, ModuleFactors, Opened, Trainable, Weights, open};
use lathe_tokenizer::{ChatTemplate, Tokenizer};
use serde_json::{Map, Value};

use super::spec::{FromScratch, Method, TuneSpec, refuse};
use super::trained::Trained;
use crate::export::files::{COPIED, NamedFile, pretty, set_dtype, tokenizer_files};
use crate::export::{Numbers, write_folder, write_new_folder};
use crate::load::{fingerprint, sha256_of_bytes};
use crate::{Context, Error, WrittenFile, open_model, read_adapter, write_adapter};

/// What a run begins with.
pub(super) enum Start {
    /// A model.
    Model {
        /// As it was named.
        reference: ModelReference,
        resolved: Box<Resolved>,
        opened: Box<Opened>,
        /// Of an adapter that is trained further: its base, which `opened` is then, and its factors.
        adapter: Option<(ModelReference, Vec<ModuleFactors>)>,
    },
    /// A configuration.
    Scratch { draft: Box<Draft>, file: PathBuf, fields: Map<String, Value>, tokenizer: Option<Box<TokenizerOf>> },
}

/// Where the tokenizer of a new model comes from.
pub(super) enum TokenizerOf {
    /// A folder with a tokenizer and perhaps no model.
    Folder(PathBuf),
    /// A model.
    Model(Box<Opened>),
}

impl Start {
    pub(super) fn open(spec: &TuneSpec, context: &Context<'_>) -> Result<Self, Error> {
        match (&spec.model, &spec.from_scratch) {
            (_, Some(scratch)) => Self::scratch(scratch, context),
            (Some(reference), None) => {
                let (resolved, mut opened) = open_model(reference, context)?;
                let mut adapter = None;
                if let (Method::Lora(lora), Some(folder)) = (&spec.method, &resolved.adapter) {
                    opened = open(&resolved.path)?;
                    adapter = Some((base_of(folder, &resolved)?, factors(folder, lora)?));
                }
                let (resolved, opened) = (Box::new(resolved), Box::new(opened));
                Ok(Self::Model { reference: reference.clone(), resolved, opened, adapter })
            }
            (None, None) => Err(refuse("MODEL", "nothing to train", Some("name a model, or --from-scratch"))),
        }
    }

    fn scratch(scratch: &FromScratch, context: &Context<'_>) -> Result<Self, Error> {
        let file = scratch.config.clone();
        let bytes = fs::read(&file).map_err(|source| Error::Read { file: file.clone(), source })?;
        let bad = |problem: String| Error::BadJson { file: file.clone(), problem };
        let fields = match serde_json::from_slice(&bytes) {
            Ok(Value::Object(fields)) => fields,
            Ok(_) => return Err(bad("a configuration is an object".into())),
            Err(error) => return Err(bad(error.to_string())),
        };
        let draft = Box::new(Draft::new(&file, fields.clone())?);
        let tokenizer = match &scratch.tokenizer {
            None => None,
            Some(name) if Path::new(name).join("tokenizer.json").is_file() => Some(TokenizerOf::Folder(name.into())),
            Some(name) => Some(TokenizerOf::Model(Box::new(open_model(&name.parse()?, context)?.1))),
        };
        Ok(Self::Scratch { draft, file, fields, tokenizer: tokenizer.map(Box::new) })
    }

    pub(super) fn spec(&self) -> &DecoderSpec {
        match self {
            Self::Model { opened, .. } => &opened.spec,
            Self::Scratch { draft, .. } => &draft.spec,
        }
    }

    /// Hash of what it begins with.
    pub(super) fn fingerprint(&self, context: &Context<'_>) -> Result<String, Error> {
        match self {
            Self::Model { reference, .. } => fingerprint(reference, context),
            Self::Scratch { fields, .. } => Ok(sha256_of_bytes(&serde_json::to_vec(fields)?)),
        }
    }

    pub(super) fn tokenizer(&self) -> Result<Option<Tokenizer>, Error> {
        Ok(match self {
            Self::Model { opened, .. } if opened.has_tokenizer() => Some(opened.tokenizer()?),
            Self::Model { .. } => None,
            Self::Scratch { tokenizer, .. } => match tokenizer.as_deref() {
                None => None,
                Some(TokenizerOf::Folder(folder)) => Some(Tokenizer::from_folder(folder)?),
                Some(TokenizerOf::Model(opened)) => Some(opened.tokenizer()?),
            },
        })
    }

    pub(super) fn chat_template(&self) -> Result<Option<ChatTemplate>, Error> {
        Ok(match self {
            Self::Model { opened, .. } => opened.chat_template()?,
            Self::Scratch { tokenizer, .. } => match tokenizer.as_deref() {
                None => None,
                Some(TokenizerOf::Folder(folder)) => ChatTemplate::from_folder(folder)?.into_iter().next(),
                Some(TokenizerOf::Model(opened)) => opened.chat_template()?,
            },
        })
    }

    /// Tokens that end a text: the tokenizer's, else those of the configuration; none where neither says it.
    pub(super) fn end_tokens(&self, tokenizer: Option<&Tokenizer>) -> Option<Vec<u32>> {
        if let Some(tokenizer) = tokenizer {
            return Some(tokenizer.special().eos.clone()).filter(|ends| !ends.is_empty());
        }
        let fields = match self {
            Self::Model { opened, .. } => opened.config_json(),
            Self::Scratch { fields, .. } => fields,
        };
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        match fields.get("eos_token_id")? {
            Value::Array(ids) => Some(ids.iter().filter_map(id).collect()),
            one => id(one).map(|id| vec![id]),
        }
    }

    /// The decoder with what is trained of it. `checkpoint` is the folder of an earlier run's model.
    pub(super) fn decoder(
        &self,
        spec: &TuneSpec,
        weights: Weights,
        checkpoint: Option<&Path>,
    ) -> Result<Decoder, Error> {
        let which = match &spec.method {
            Method::Full => Trainable::All,
            Method::Only(names) => Trainable::Matching(names.clone()),
            // Its factors are not in a checkpoint of a model.
            Method::Lora(lora) => {
                let decoder = self.opened()?.decoder_with_adapter(weights, lora)?;
                if let Self::Model { adapter: Some((_, factors)), .. } = self {
                    decoder.set_factors(factors)?;
                }
                return Ok(decoder);
            }
        };
        match (checkpoint.map(open).transpose()?, self) {
            (Some(opened), _) => Ok(opened.decoder_training(weights, &which)?),
            (None, Self::Model { opened, .. }) => Ok(opened.decoder_training(weights, &which)?),
            (None, Self::Scratch { draft, .. }) => Ok(draft.initialised(weights, spec.seed)?),
        }
    }

    fn opened(&self) -> Result<&Opened, Error> {
        match self {
            Self::Model { opened, .. } => Ok(opened),
            Self::Scratch { .. } => Err(refuse("MODEL", "an adapter belongs to a model", None)),
        }
    }

    /// Writes the model, or of an adapter its folder, complete; `out` is not there.
    pub(super) fn write(
        &self,
        out: &Path,
        element: ElementType,
        decoder: &Decoder,
        method: &Method,
        context: &Context<'_>,
    ) -> Result<Vec<WrittenFile>, Error> {
        if let Method::Lora(lora) = method {
            return self.write_adapter(out, decoder, lora);
        }
        match self {
            Self::Model { resolved, opened, .. } => {
                let numbers = Trained { decoder, others: Some(opened.parameters()) };
                let numbers = Numbers::Other(&numbers, &opened.path);
                Ok(write_folder(out, Some(element), resolved, opened, numbers, context)?.1)
            }
            Self::Scratch { draft, file, fields, tokenizer } => {
                let mut config = fields.clone();
                config.entry("architectures").or_insert_with(|| vec![draft.family.class].into());
                set_dtype(&mut config, Some(element));
                let mut small = vec![("config.json".to_owned(), pretty(&config.into())?)];
                small.extend(tokenizer.as_deref().map(files_of).transpose()?.into_iter().flatten());
                let numbers = Trained { decoder, others: None };
                let numbers = Numbers::Other(&numbers, file);
                let target = draft.target(Format::Safetensors)?;
                Ok(write_new_folder(out, target, element, &small, numbers, context)?.1)
            }
        }
    }

    fn write_adapter(&self, out: &Path, decoder: &Decoder, lora: &LoraSpec) -> Result<Vec<WrittenFile>, Error> {
        let Self::Model { reference, opened, adapter, .. } = self else {
            return Err(refuse("MODEL", "an adapter belongs to a model", None));
        };
        fs::create_dir(out).map_err(|source| Error::Write { file: out.into(), source })?;
        let base = adapter.as_ref().map_or(reference, |(base, _)| base);
        write_adapter(out, decoder, lora, opened, base)?;
        WrittenFile::all_in(out)
    }
}

/// What an adapter calls its base; a path is the one that was found.
fn base_of(folder: &Path, resolved: &Resolved) -> Result<ModelReference, Error> {
    let file = folder.join("adapter_config.json");
    let bytes = fs::read(&file).map_err(|source| Error::Read { file: file.clone(), source })?;
    let fields: Value =
        serde_json::from_slice(&bytes).map_err(|error| Error::BadJson { file, problem: error.to_string() })?;
    let named = fields.get("base_model_name_or_path").and_then(Value::as_str).map(str::parse).transpose()?;
    Ok(match named {
        Some(ModelReference::Path(_)) | None => ModelReference::Path(resolved.path.clone()),
        Some(other) => other,
    })
}

/// Factors of an adapter that is trained further, which keeps its rank, scale and modules.
fn factors(folder: &Path, lora: &LoraSpec) -> Result<Vec<ModuleFactors>, Error> {
    let (own, factors) = read_adapter(folder)?;
    let differs = |field: &'static str, own: String, asked: String| {
        let problem = format!("the adapter has {own}, not {asked}");
        Err(refuse(field, problem, Some("leave it out to train the adapter further, or merge it into its base first")))
    };
    if own.rank != lora.rank {
        return differs("--rank", own.rank.to_string(), lora.rank.to_string());
    }
    if own.scale() != lora.scale() {
        return differs("--alpha", own.alpha.to_string(), lora.alpha.to_string());
    }
    if own.targets != lora.targets {
        return differs("--targets", own.targets.join(","), lora.targets.join(","));
    }
    Ok(factors)
}

/// Files of a tokenizer and its templates, without what speaks of a model.
fn files_of(tokenizer: &TokenizerOf) -> Result<Vec<NamedFile>, Error> {
    let folder = match tokenizer {
        TokenizerOf::Folder(folder) => folder,
        TokenizerOf::Model(opened) => match opened.checkpoint.gguf() {
            Some(header) => return tokenizer_files(opened, header),
            None => opened.folder(),
        },
    };
    let mut files = Vec::new();
    for name in COPIED.iter().filter(|name| **name != "README.md") {
        let path = folder.join(name);
        if path.is_file() {
            let bytes = fs::read(&path).map_err(|source| Error::Read { file: path, source })?;
            files.push(((*name).to_owned(), bytes));
        }
    }
    Ok(files)
}
