//! The files of a model folder beside its weights.

use std::fs;
use std::path::Path;

use lathe_formats::{ElementType, GgufMetadata};
use lathe_model::Opened;
use lathe_model::reference::{ModelReference, Resolved};
use lathe_tokenizer::export::folder_files;
use lathe_tokenizer::{ChatTemplate, GgufVocabulary};
use serde_json::{Map, Value, json};

use super::plan::Plan;
use crate::Error;

/// A file's path inside the folder, and its content.
pub(crate) type NamedFile = (String, Vec<u8>);

/// Files of a source folder that describe tokenizer, templates and generation, copied as they are.
pub(crate) const COPIED: [&str; 12] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "chat_template.jinja",
    "generation_config.json",
    "README.md",
];

/// What a sentence encoder has beside them.
const SENTENCE: [&str; 3] = ["modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"];

/// Folder of templates with names.
const TEMPLATES: &str = "additional_chat_templates";

/// How the names of files begin that have to stay with a model.
pub(crate) const TERMS: [&str; 5] = ["license", "licence", "notice", "copying", "use_policy"];

/// Everything of a folder but the weights and `config.json`: tokenizer, templates, licence, model card.
///
/// # Errors
/// A file cannot be read; a GGUF file's tokenizer cannot be written as `tokenizer.json`.
pub(crate) fn tokenizer_and_terms(resolved: &Resolved, opened: &Opened) -> Result<Vec<NamedFile>, Error> {
    let mut files = Vec::new();
    match opened.checkpoint.gguf() {
        Some(header) if opened.has_tokenizer() => files.extend(tokenizer_files(opened, header)?),
        Some(_) => {}
        None => {
            let folder = opened.folder();
            let has_code = opened.config_json().contains_key("auto_map");
            files.extend(copied(folder, |name| COPIED.contains(&name) || has_code && name.ends_with(".py"))?);
            let templates = copied(&folder.join(TEMPLATES), |name| name.ends_with(".jinja"))?;
            files.extend(templates.into_iter().map(|(name, bytes)| (format!("{TEMPLATES}/{name}"), bytes)));
            files.extend(of_sentences(folder, resolved)?);
        }
    }
    files.extend(terms(resolved, opened)?);
    Ok(files)
}

/// What a folder of sentence-transformers says of pooling: `modules.json`, `1_Pooling/config.json` and their like.
fn of_sentences(folder: &Path, resolved: &Resolved) -> Result<Vec<NamedFile>, Error> {
    let mut files = Vec::new();
    for path in &resolved.files {
        // A model in the current folder has names without a folder.
        let name = path.strip_prefix(folder).unwrap_or(path);
        let is_module = name.components().count() == 2 && name.ends_with("config.json");
        if let Some(name) = name.to_str().filter(|name| is_module || SENTENCE.contains(name)) {
            let bytes = fs::read(path).map_err(|source| Error::Read { file: path.clone(), source })?;
            files.push((name.replace('\\', "/"), bytes));
        }
    }
    Ok(files)
}

/// `config.json` with the type of the weights.
pub(super) fn config(plan: &Plan, opened: &Opened) -> Result<Vec<u8>, Error> {
    let mut config = opened.config_json().clone();
    let mut elements = plan.stored.iter().filter(|tensor| tensor.shape.len() > 1).map(|tensor| tensor.element);
    let first = elements.next();
    let same = elements.all(|element| Some(element) == first);
    set_dtype(&mut config, first.filter(|_| same));
    pretty(&Value::Object(config))
}

/// Says in a configuration how matrices are stored; none stands for several types.
pub(crate) fn set_dtype(config: &mut Map<String, Value>, element: Option<ElementType>) {
    let dtype = match element {
        Some(ElementType::F16) => "float16",
        Some(ElementType::BF16) => "bfloat16",
        _ => "float32",
    };
    // The older dialect's word for it is read by old and new loaders.
    config.remove("dtype");
    config.insert("torch_dtype".into(), dtype.into());
}

/// The tokenizer of a GGUF file as files of a folder.
pub(crate) fn tokenizer_files(opened: &Opened, header: &GgufMetadata) -> Result<Vec<NamedFile>, Error> {
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

pub(crate) fn pretty(value: &Value) -> Result<Vec<u8>, Error> {
    Ok((serde_json::to_string_pretty(value)? + "\n").into_bytes())
}

/// The licence and its like, where the folder is the model's own: beside a file that was given by its path, they may
/// be another's.
fn terms(resolved: &Resolved, opened: &Opened) -> Result<Vec<NamedFile>, Error> {
    let is_lone_file = matches!(&resolved.reference, ModelReference::Path(path) if path.is_file());
    if opened.checkpoint.gguf().is_some() && is_lone_file {
        return Ok(Vec::new());
    }
    copied(opened.folder(), |name| TERMS.iter().any(|start| name.to_lowercase().starts_with(start)))
}

/// The files of a folder whose names are asked for, sorted; none where there is no such folder.
pub(crate) fn copied(folder: &Path, is_asked_for: impl Fn(&str) -> bool) -> Result<Vec<NamedFile>, Error> {
    let failed = |source| Error::Read { file: folder.into(), source };
    let mut files = Vec::new();
    if !folder.is_dir() {
        return Ok(files);
    }
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        // A name that is no text is none of those asked for.
        let name = path.file_name().and_then(|name| name.to_str()).filter(|name| is_asked_for(name));
        if let Some(name) = name.filter(|_| path.is_file()) {
            let bytes = fs::read(&path).map_err(|source| Error::Read { file: path.clone(), source })?;
            files.push((name.to_owned(), bytes));
        }
    }
    files.sort();
    Ok(files)
}

/// What of the model's terms a GGUF file has no place for.
///
/// # Errors
/// The folder cannot be read.
pub(super) fn left_behind(resolved: &Resolved, opened: &Opened) -> Result<Option<String>, Error> {
    let names: Vec<String> = terms(resolved, opened)?.into_iter().map(|(name, _)| name).collect();
    let folder = opened.folder().display();
    Ok((!names.is_empty()).then(|| format!("{} stayed in {folder}: pass them on with the file", names.join(", "))))
}

/// The licence that a header names: a folder has no place for the word.
pub(super) fn licence_of_header(opened: &Opened) -> Option<String> {
    let licence = opened.checkpoint.gguf()?.str("general.license").ok()?;
    Some(format!("the source's header names its licence: {licence}"))
}
