//! From a reference to a model in memory: the one way to load.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use lathe_model::reference::{ModelReference, Resolved, SourceRecord, resolve};
use lathe_model::{Coarse, Decoder, Opened, Weights, open};
use lathe_tokenizer::Tokenizer;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::adapter;
use crate::hashes::{Algorithm, remembered};
use crate::{Context, Error};

/// A model with weights and tokenizer.
pub struct Loaded {
    /// How the user named it.
    pub reference: ModelReference,
    /// Its files.
    pub resolved: Resolved,
    /// Headers, specification, template.
    pub opened: Opened,
    /// The decoder.
    pub decoder: Decoder,
    /// The tokenizer, where the model has one.
    pub tokenizer: Option<Tokenizer>,
    /// From opening the files to being ready, seconds.
    pub seconds: f64,
}

impl Loaded {
    /// The tokenizer.
    ///
    /// # Errors
    /// The model has none.
    pub fn tokenizer(&self) -> Result<&Tokenizer, Error> {
        let missing = || lathe_model::Error::NoTokenizer { file: self.resolved.path.clone() };
        Ok(self.tokenizer.as_ref().ok_or_else(missing)?)
    }
}

/// The arithmetic of matrix products. All but [`Compute::F32`] round, and are another model in the last digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compute {
    /// Single precision: what every measurement is computed in.
    #[default]
    F32,
    /// bf16 products, f32 sums.
    Bf16,
    /// The precision of the file: 4- and 8-bit integers by inputs in signed bytes, bf16 by bf16, the rest in f32.
    Native,
}

impl Compute {
    /// The word for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Native => "native",
        }
    }

    /// The surroundings in which models are loaded for it.
    ///
    /// # Errors
    /// Weights that stay in their files are multiplied in f32 only.
    pub(crate) fn within<'a>(self, context: &Context<'a>) -> Result<Context<'a>, Error> {
        let coarse = match self {
            Self::F32 => return Ok(*context),
            Self::Bf16 => Coarse::Bf16,
            Self::Native => Coarse::Native,
        };
        if context.weights == Weights::Streamed {
            return Err(refuse("weights that stay in their files are multiplied in f32", "leave out --low-memory"));
        }
        Ok(Context { weights: Weights::Coarse(coarse), ..*context })
    }

    /// The weights of a model that is trained in it.
    ///
    /// # Errors
    /// There is no way back in bytes, or through weights that stay in their files.
    pub(crate) fn for_training(self, context: &Context<'_>) -> Result<Weights, Error> {
        if context.weights == Weights::Streamed {
            let problem = "training has its weights in memory".into();
            let hint = Some("--recompute, or a smaller --batch with --accumulate, needs less of it".into());
            return Err(Error::Spec { field: "--low-memory", problem, hint });
        }
        match self {
            Self::F32 => Ok(Weights::Frozen),
            Self::Bf16 => Ok(Weights::Coarse(Coarse::Bf16)),
            Self::Native => Err(refuse("training multiplies floats", "f32 or bf16")),
        }
    }
}

fn refuse(problem: &str, hint: &str) -> Error {
    Error::Spec { field: "--compute", problem: problem.into(), hint: Some(hint.into()) }
}

/// Resolves a reference and reads headers only. The folder of an adapter opens the base that it names, with the adapter
/// added to its numbers.
///
/// # Errors
/// The reference leads nowhere, or the files cannot be used.
pub fn open_model(reference: &ModelReference, context: &Context<'_>) -> Result<(Resolved, Opened), Error> {
    let resolved = resolve(reference, context.home)?;
    let mut opened = open(&resolved.path)?;
    if let Some(folder) = &resolved.adapter {
        opened = adapter::added(opened, folder)?;
    }
    Ok((resolved, opened))
}

/// SHA-256 of everything that a model is read from: what results depend on beside their settings. Of a fetched model the
/// record says it; other files are read.
pub(crate) fn fingerprint(reference: &ModelReference, context: &Context<'_>) -> Result<String, Error> {
    let resolved = resolve(reference, context.home)?;
    let record = match reference {
        ModelReference::Alias(_) | ModelReference::Package(_) => {
            context.home.folder_of(reference).and_then(|folder| SourceRecord::read(&folder).ok().flatten())
        }
        ModelReference::Path(_) | ModelReference::Hub(_) => None,
    };
    let mut all = Sha256::new();
    match record {
        Some(record) => record.files.iter().for_each(|file| all.update(&file.sha256)),
        None => {
            let sums: Vec<String> = context.stage("hashing the model", 0, "B", || {
                let advance = |by| context.progress.advance(by);
                let sum = |file| remembered(file, Algorithm::Sha256, context.home, || sha256_of(file, &advance));
                resolved.files.par_iter().map(|file| sum(file)).collect::<Result<_, _>>()
            })?;
            sums.iter().for_each(|sum| all.update(sum));
        }
    }
    Ok(hex(all))
}

/// SHA-256 of a file; `advance` gets the bytes as they are read.
pub(crate) fn sha256_of(file: &Path, advance: &(dyn Fn(u64) + Sync)) -> Result<String, Error> {
    let failed = |source| Error::Read { file: file.to_owned(), source };
    let mut content = File::open(file).map_err(failed)?;
    let mut buffer = vec![0; 1 << 20];
    let mut sum = Sha256::new();
    loop {
        let read = content.read(&mut buffer).map_err(failed)?;
        if read == 0 {
            return Ok(hex(sum));
        }
        sum.update(&buffer[..read]);
        advance(read as u64);
    }
}

/// SHA-256 of bytes.
pub(crate) fn sha256_of_bytes(bytes: &[u8]) -> String {
    hex(Sha256::new_with_prefix(bytes))
}

fn hex(sum: Sha256) -> String {
    sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The licence as far as it is known: what the record of a fetched model says, else the table of built-in models, else
/// the header of a GGUF file.
pub(crate) fn licence(resolved: &Resolved, opened: &Opened) -> Option<String> {
    let built_in = match &resolved.reference {
        ModelReference::Alias(entry) => Some(entry.licence.name.to_owned()),
        _ => None,
    };
    let in_file = || opened.checkpoint.gguf()?.str("general.license").ok().map(str::to_owned);
    resolved.licence.clone().or(built_in).or_else(in_file)
}

/// Loads a model for inference.
///
/// # Errors
/// As [`open_model`]; a tensor or the tokenizer cannot be read.
pub fn load(reference: &ModelReference, context: &Context<'_>) -> Result<Loaded, Error> {
    context.stage(&format!("loading {reference}"), 0, "", || {
        let (parts, seconds) = context.timed(|| {
            let (resolved, opened) = open_model(reference, context)?;
            // The two have nothing in common; building a large vocabulary takes as long as dequantising.
            let (decoder, tokenizer) = rayon::join(
                || opened.decoder(context.weights),
                || if opened.has_tokenizer() { opened.tokenizer().map(Some) } else { Ok(None) },
            );
            Ok::<_, Error>((resolved, decoder?, tokenizer?, opened))
        });
        let (resolved, decoder, tokenizer, opened) = parts?;
        Ok(Loaded { reference: reference.clone(), resolved, opened, decoder, tokenizer, seconds })
    })
}
