//! `lathe export`: a model as a complete safetensors folder or GGUF file, which the formats' own loaders open.
//!
//! Tensors are written a few rows at a time, so a model larger than memory can be exported. The target appears under
//! its name only when it is complete.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use lathe_formats::write::{TensorSpec, TensorWriter, gguf, safetensors};
use lathe_formats::{ElementType, Error as FormatError, Format, GgufMetadata, GgufValue, encode_rows};
use lathe_model::reference::ModelReference;
use lathe_model::{Opened, Target, TargetTensor};
use lathe_tokenizer::export::{folder_files, gguf_metadata};
use lathe_tokenizer::{ChatTemplate, GgufVocabulary};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{Context, Error, open_model};

/// What to export, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportSpec {
    /// The model.
    pub model: ModelReference,
    /// Kind of the target.
    pub to: ExportFormat,
    /// Element type of matrices, by its name in the formats; none keeps what is stored.
    pub dtype: Option<String>,
    /// The folder or file to write; it must not exist.
    pub out: PathBuf,
}

/// Kinds of targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExportFormat {
    /// A folder with `model.safetensors`, `config.json` and the tokenizer's files.
    Safetensors,
    /// One file with everything.
    Gguf,
}

/// What was written.
#[derive(Clone, Debug, Serialize)]
pub struct ExportResult {
    /// The folder or file.
    pub out: PathBuf,
    /// Files and their bytes.
    pub files: Vec<(String, u64)>,
    /// Tensors and bytes of each element type, in the order in which they first occur.
    pub elements: Vec<(String, usize, u64)>,
    /// What the reader of the target should know, one sentence each.
    pub notes: Vec<String>,
}

/// Exports a model.
///
/// # Errors
/// The model cannot be opened; the format cannot hold the architecture, its tokenizer or the element type; the target
/// exists or cannot be written.
pub fn export(spec: &ExportSpec, context: &Context<'_>) -> Result<ExportResult, Error> {
    let element = spec.dtype.as_deref().map(|word| element_named(word, spec.to)).transpose()?;
    if fs::symlink_metadata(&spec.out).is_ok() {
        return Err(Error::Spec {
            field: "--out",
            problem: format!("{} exists", spec.out.display()),
            hint: Some("name another target, or remove this one first: nothing is overwritten".into()),
        });
    }
    let (_, opened) = open_model(&spec.model, context)?;
    match spec.to {
        ExportFormat::Gguf => {
            let plan = Plan::new(&opened, Format::Gguf, element)?;
            let mut metadata = plan.target.metadata.clone();
            metadata.extend(tokenizer_keys(&opened)?);
            let writer = gguf(&spec.out, &metadata, &plan.tensors)?;
            plan.write(&opened, writer, context)?;
            plan.result(&spec.out, std::slice::from_ref(&spec.out))
        }
        ExportFormat::Safetensors => {
            let plan = Plan::new(&opened, Format::Safetensors, element)?;
            let folder = TemporaryFolder::beside(&spec.out)?;
            let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
            let writer = safetensors(&folder.path.join(WEIGHTS), &metadata, &plan.tensors)?;
            plan.write(&opened, writer, context)?;
            for (name, bytes) in small_files(&opened, &plan)? {
                write_file(&folder.path.join(name), &bytes)?;
            }
            folder.rename(&spec.out)?;
            let mut files = files_in(&spec.out)?;
            files.sort();
            plan.result(&spec.out, &files)
        }
    }
}

const WEIGHTS: &str = "model.safetensors";

/// The element type that a user named, if the target can hold it and lathe writes it.
fn element_named(word: &str, to: ExportFormat) -> Result<ElementType, Error> {
    let refuse = |problem: String, hint: &str| Error::Spec { field: "--dtype", problem, hint: Some(hint.into()) };
    let element: ElementType = word.parse()?;
    let holds = match to {
        ExportFormat::Safetensors => [ElementType::F32, ElementType::F16, ElementType::BF16].contains(&element),
        ExportFormat::Gguf => element.is_writable(),
    };
    match (holds, to) {
        (true, _) => Ok(element),
        (false, ExportFormat::Safetensors) => {
            let problem = format!("weights of a safetensors folder are not stored as {element}");
            Err(refuse(problem, "take f32, f16 or bf16, or export to gguf"))
        }
        (false, ExportFormat::Gguf) => {
            let problem = format!("lathe does not write {element}");
            Err(refuse(problem, "take f32, f16, bf16, q8_0, q6_k, q5_k, q4_k or q4_0"))
        }
    }
}

/// Which tensors the target has and how each is stored.
struct Plan {
    target: Target,
    tensors: Vec<TensorSpec>,
    notes: Vec<String>,
}

impl Plan {
    fn new(opened: &Opened, format: Format, wanted: Option<ElementType>) -> Result<Self, Error> {
        let target = opened.target(format)?;
        let mut notes: Vec<String> = Vec::new();
        if !target.unread.is_empty() {
            notes.push(format!("llama.cpp does not read {}, which this model needs", target.unread.join(", ")));
        }
        let mut narrower = Vec::new();
        let mut tensors: Vec<TensorSpec> = (target.tensors.iter())
            .map(|tensor| {
                let element = stored_as(tensor, opened, format, wanted);
                if wanted.is_some_and(|wanted| wanted.is_quantised() && element.is_quantised() && wanted != element) {
                    narrower.push(element);
                }
                TensorSpec { name: tensor.name.clone(), shape: tensor.shape.clone(), element }
            })
            .collect();
        if let (Some(wanted), Some(element)) = (wanted, narrower.first()) {
            let (count, block) = (narrower.len(), wanted.block_len());
            notes.push(format!("{count} tensors are {element}: their rows are no whole number of {block}"));
        }
        let constant = |(name, values): &(String, Vec<f32>)| TensorSpec {
            name: name.clone(),
            shape: vec![values.len()],
            element: ElementType::F32,
        };
        tensors.extend(target.constants.iter().map(constant));
        Ok(Self { target, tensors, notes })
    }

    /// Writes every tensor.
    fn write(&self, opened: &Opened, mut writer: TensorWriter, context: &Context<'_>) -> Result<(), Error> {
        let total: usize = self.tensors.iter().map(bytes_of).sum();
        context.stage("writing tensors", total as u64, "B", || {
            for (tensor, stored) in self.target.tensors.iter().zip(&self.tensors) {
                match unchanged(tensor, stored, opened) {
                    Some(bytes) => writer.append(&stored.name, bytes)?,
                    None => write_tensor(tensor, stored, opened, &mut writer)?,
                }
                context.progress.advance(bytes_of(stored) as u64);
            }
            for (name, values) in &self.target.constants {
                writer.append_f32(name, values)?;
            }
            Ok::<_, Error>(writer.finish()?)
        })
    }

    fn result(self, out: &Path, files: &[PathBuf]) -> Result<ExportResult, Error> {
        let mut elements: Vec<(String, usize, u64)> = Vec::new();
        for tensor in &self.tensors {
            let (name, bytes) = (tensor.element.to_string(), bytes_of(tensor) as u64);
            match elements.iter_mut().find(|(element, ..)| *element == name) {
                Some((_, count, sum)) => (*count, *sum) = (*count + 1, *sum + bytes),
                None => elements.push((name, 1, bytes)),
            }
        }
        let size = |file: &PathBuf| {
            let bytes = fs::metadata(file).map_err(|source| Error::Read { file: file.clone(), source })?.len();
            let name = file.strip_prefix(out).ok().filter(|name| !name.as_os_str().is_empty());
            Ok((name.unwrap_or(file).display().to_string(), bytes))
        };
        let files = files.iter().map(size).collect::<Result<_, Error>>()?;
        Ok(ExportResult { out: out.into(), files, elements, notes: self.notes })
    }
}

fn bytes_of(tensor: &TensorSpec) -> usize {
    tensor.shape.iter().product::<usize>() / tensor.element.block_len() * tensor.element.block_bytes()
}

/// How a tensor is stored in the target: as `wanted`, or as in the source, where the target and the tensor allow it.
///
/// Vectors and routers of GGUF files are F32, as llama.cpp wants them. Where rows are no whole number of blocks the type is
/// Q8_0, or F16 in the last resort.
fn stored_as(tensor: &TargetTensor, opened: &Opened, format: Format, wanted: Option<ElementType>) -> ElementType {
    let is_vector = tensor.shape.len() < 2;
    if format == Format::Gguf && (is_vector || tensor.name.contains("ffn_gate_inp")) {
        return ElementType::F32;
    }
    let element = wanted.unwrap_or_else(|| {
        let name = tensor.parameters().next().and_then(|parameter| opened.tensor_name(&parameter.name));
        name.and_then(|name| opened.checkpoint.tensor(name)).map_or(ElementType::F32, |view| view.info().element)
    });
    let floats = [ElementType::F32, ElementType::F16, ElementType::BF16];
    let fits = |element: ElementType| tensor.row_len().is_multiple_of(element.block_len());
    match format {
        Format::Safetensors if floats.contains(&element) => element,
        Format::Safetensors => ElementType::F32,
        Format::Gguf if is_copied(tensor, element, opened) => element,
        Format::Gguf if !element.is_writable() => ElementType::F32,
        Format::Gguf if fits(element) => element,
        Format::Gguf if fits(ElementType::Q8_0) => ElementType::Q8_0,
        Format::Gguf => ElementType::F16,
    }
}

/// Whether the source has the very same tensor.
fn is_copied(tensor: &TargetTensor, element: ElementType, opened: &Opened) -> bool {
    let same_format = opened.checkpoint.gguf().is_some();
    let view = opened.checkpoint.tensor(&tensor.name).filter(|_| same_format);
    view.is_some_and(|view| view.info().element == element && view.info().shape == tensor.shape)
}

/// The bytes of a tensor that the source has in the same form: quantised blocks are copied, not quantised again.
fn unchanged<'a>(tensor: &TargetTensor, stored: &TensorSpec, opened: &'a Opened) -> Option<&'a [u8]> {
    let copied = stored.element.is_quantised() && is_copied(tensor, stored.element, opened);
    opened.checkpoint.tensor(&tensor.name).filter(|_| copied).map(|view| view.bytes())
}

/// Decodes, reorders and encodes a tensor, some rows at a time.
fn write_tensor(
    tensor: &TargetTensor,
    stored: &TensorSpec,
    opened: &Opened,
    writer: &mut TensorWriter,
) -> Result<(), Error> {
    /// Numbers of one piece of work, and of what is held at once.
    const PIECE: usize = 1 << 18;
    const HELD: usize = 1 << 23;
    let (rows, width) = (tensor.rows(), tensor.row_len().max(1));
    let held = if tensor.is_by_rows() { (HELD / width).max(1) } else { rows.max(1) };
    let source = opened.parameters();
    for first in (0..rows).step_by(held) {
        let last = rows.min(first + held);
        let mut values = vec![0.0; (last - first) * width];
        if tensor.is_by_rows() {
            let piece = (PIECE / width).max(1);
            values.par_chunks_mut(piece * width).enumerate().try_for_each(|(i, values)| {
                let from = first + i * piece;
                tensor.values(source, from..from + values.len() / width, values)
            })?;
        } else {
            tensor.values(source, first..last, &mut values)?;
        }
        let encoded = values.par_chunks((PIECE / width).max(1) * width).map(|values| {
            let mut bytes = Vec::new();
            encode_rows(stored.element, width, values, &mut bytes).map(|()| bytes)
        });
        for bytes in encoded.collect::<Vec<_>>() {
            let bytes = bytes.map_err(|source| {
                let (file, tensor) = (opened.path.clone(), stored.name.clone());
                FormatError::Unencodable { file, tensor, source }
            })?;
            writer.append(&stored.name, &bytes)?;
        }
    }
    Ok(())
}

/// The tokenizer and the templates as keys of a GGUF header.
fn tokenizer_keys(opened: &Opened) -> Result<Vec<(String, GgufValue)>, Error> {
    match opened.checkpoint.gguf() {
        Some(header) => Ok(header.entries().iter().filter(|(key, _)| key.starts_with("tokenizer.")).cloned().collect()),
        None if opened.has_tokenizer() => Ok(gguf_metadata(opened.folder(), opened.spec.vocab_size)?),
        None => Ok(vec![("tokenizer.ggml.model".into(), GgufValue::Str("none".into()))]),
    }
}

/// Files of a source folder that describe tokenizer and templates, copied as they are.
const COPIED: &[&str] = &[
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "generation_config.json",
];

/// Everything of a folder but the weights: name and content.
fn small_files(opened: &Opened, plan: &Plan) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let mut config = opened.config_json().clone();
    let widest = plan.tensors.iter().filter(|tensor| tensor.shape.len() > 1).map(|tensor| tensor.element);
    let dtype = match widest.max_by_key(|element| element.block_bytes()) {
        Some(ElementType::F16) => "float16",
        Some(ElementType::BF16) => "bfloat16",
        _ => "float32",
    };
    // The older dialect's word for it is read by old and new loaders.
    config.remove("dtype");
    config.insert("torch_dtype".into(), dtype.into());
    let mut files = vec![("config.json".to_owned(), pretty(&Value::Object(config))?)];
    match opened.checkpoint.gguf() {
        None => {
            let folder = opened.folder();
            for name in COPIED {
                let path = folder.join(name);
                if path.is_file() {
                    let bytes = fs::read(&path).map_err(|source| Error::Read { file: path, source })?;
                    files.push(((*name).to_owned(), bytes));
                }
            }
        }
        Some(header) if opened.has_tokenizer() => files.extend(tokenizer_files(opened, header)?),
        Some(_) => {}
    }
    Ok(files)
}

/// The tokenizer of a GGUF file as files of a folder.
fn tokenizer_files(opened: &Opened, header: &GgufMetadata) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let vocabulary = GgufVocabulary::from_metadata(header)?;
    let templates = ChatTemplate::from_gguf(header)?;
    let folder = folder_files(&vocabulary, &templates, Some(opened.spec.context_length))?;
    let mut files = folder.files;
    let generation: Map<String, Value> = match serde_json::to_value(&folder.generation)? {
        Value::Object(ids) => [("_from_model_config".to_owned(), json!(true))].into_iter().chain(ids).collect(),
        _ => Map::new(),
    };
    files.push(("generation_config.json".to_owned(), pretty(&Value::Object(generation))?));
    Ok(files)
}

fn pretty(value: &Value) -> Result<Vec<u8>, Error> {
    Ok((serde_json::to_string_pretty(value)? + "\n").into_bytes())
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let failed = |source| Error::Write { file: path.into(), source };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    fs::write(path, bytes).map_err(failed)
}

fn files_in(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::Read { file: folder.into(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() { files.extend(files_in(&path)?) } else { files.push(path) }
    }
    Ok(files)
}

/// A folder that is removed again unless it is renamed to its target.
struct TemporaryFolder {
    path: PathBuf,
    holder: tempfile::TempDir,
}

impl TemporaryFolder {
    fn beside(target: &Path) -> Result<Self, Error> {
        let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let holder = tempfile::Builder::new().prefix(".lathe-export-").tempdir_in(parent);
        let holder = holder.map_err(|source| Error::Write { file: target.into(), source })?;
        // The inner folder gets ordinary permissions; the holder's are its owner's alone.
        let path = holder.path().join("model");
        fs::create_dir(&path).map_err(|source| Error::Write { file: target.into(), source })?;
        Ok(Self { path, holder })
    }

    fn rename(self, target: &Path) -> Result<(), Error> {
        fs::rename(&self.path, target).map_err(|source| Error::Write { file: target.into(), source })?;
        drop(self.holder);
        Ok(())
    }
}
