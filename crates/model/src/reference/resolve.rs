//! From a reference to files on this machine.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use super::home::{Home, SourceRecord};
use super::{HubReference, ModelReference, ReferenceError};
use crate::catalog::CatalogFile;

/// A reference that leads to a model on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The reference that was resolved.
    pub reference: ModelReference,
    /// Alias of a built-in model.
    pub alias: Option<&'static str>,
    /// What is there.
    pub kind: CheckpointKind,
    /// The model's file, or its folder ([`CheckpointKind::Folder`]).
    pub path: PathBuf,
    /// Every file that the model is read from, sorted: what a manifest has to hash.
    pub files: Vec<PathBuf>,
    /// Licence, where the reference tells it.
    pub licence: Option<String>,
    /// The folder of an adapter that is added to the model.
    pub adapter: Option<PathBuf>,
}

/// The three shapes of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointKind {
    /// One `.gguf` file with everything.
    Gguf,
    /// One `.safetensors` file; configuration and tokenizer are beside it.
    Safetensors,
    /// A folder with `config.json`, tokenizer and `*.safetensors`.
    Folder,
}

/// Finds the files that a reference means. Reads folders and a fetched model's record, no model file, no network.
///
/// Of a fetched model only the sizes of its files are compared with the record; `lathe fetch --verify` compares the hashes.
///
/// # Errors
/// [`ReferenceError`]: nothing is there, it has not been fetched, it was damaged since, or it is not exactly one model.
pub fn resolve(reference: &ModelReference, home: &Home) -> Result<Resolved, ReferenceError> {
    let (path, licence) = match reference {
        ModelReference::Path(path) => (existing(path)?, None),
        ModelReference::Alias(_) | ModelReference::Package(_) => fetched(reference, home)?,
        ModelReference::Hub(hub) => (in_hub_cache(reference, hub, home)?, None),
    };
    if is_adapter(&path) {
        return adapted(reference, &path, home);
    }
    let (kind, path, files) = checkpoint_at(&path, reference)?;
    let alias = match reference {
        ModelReference::Alias(entry) => Some(entry.alias),
        _ => None,
    };
    Ok(Resolved { reference: reference.clone(), alias, kind, path, files, licence, adapter: None })
}

/// The files of an adapter's folder, as PEFT calls them.
const ADAPTER: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];

/// Whether a path is the folder of an adapter, and of no model.
fn is_adapter(path: &Path) -> bool {
    path.join(ADAPTER[0]).is_file() && !path.join("config.json").exists()
}

/// The base that an adapter names, with the adapter beside it.
fn adapted(reference: &ModelReference, folder: &Path, home: &Home) -> Result<Resolved, ReferenceError> {
    let bad = |problem: String| ReferenceError::Adapter { folder: folder.to_owned(), problem };
    let file = folder.join(ADAPTER[0]);
    let json = fs::read(&file).map_err(|source| ReferenceError::Io { path: file, source })?;
    let fields: serde_json::Value =
        serde_json::from_slice(&json).map_err(|error| bad(format!("{} is no valid JSON: {error}", ADAPTER[0])))?;
    let Some(base) = fields.get("base_model_name_or_path").and_then(serde_json::Value::as_str) else {
        return Err(bad("field base_model_name_or_path names no base".into()));
    };
    let base_reference = base_of(base, folder)?;
    if matches!(&base_reference, ModelReference::Path(path) if is_adapter(path)) {
        return Err(bad(format!("its base `{base}` is an adapter too")));
    }
    let base = resolve(&base_reference, home).map_err(|error| bad(format!("its base cannot be used: {error}")))?;
    let mut files = base.files;
    files.extend(ADAPTER.map(|name| folder.join(name)));
    files.sort();
    Ok(Resolved { reference: reference.clone(), alias: None, files, adapter: Some(folder.to_owned()), ..base })
}

/// What an adapter calls its base: a path from where the program runs or from the adapter's folder, a reference, or a
/// repository of the hub.
fn base_of(base: &str, folder: &Path) -> Result<ModelReference, ReferenceError> {
    let reference = base.parse::<ModelReference>()?;
    let ModelReference::Path(path) = &reference else { return Ok(reference) };
    let beside = folder.join(path);
    if path.exists() {
        Ok(reference)
    } else if beside.exists() {
        Ok(ModelReference::Path(beside))
    } else {
        Ok(format!("hf:{base}").parse().unwrap_or(reference))
    }
}

fn existing(path: &Path) -> Result<PathBuf, ReferenceError> {
    match fs::metadata(path) {
        Ok(_) => Ok(path.to_owned()),
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(ReferenceError::Io { path: path.to_owned(), source })
        }
        // A bare word was meant as a name, anything else as a path.
        Err(_) if is_bare_word(path) => {
            let reference = path.to_string_lossy().into_owned();
            let nearest = crate::catalog::nearest(&reference);
            Err(ReferenceError::Unknown { reference, nearest })
        }
        Err(_) => Err(ReferenceError::NotFound { path: path.to_owned() }),
    }
}

/// Whether a path could be a mistyped alias: no separator, not `.` or `..`, not a model file's name.
fn is_bare_word(path: &Path) -> bool {
    let mut parts = path.components();
    let one_name = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
    one_name
        && !path.to_string_lossy().contains(['/', '\\'])
        && !matches!(extension(path).as_str(), "gguf" | "safetensors")
}

/// The model's file or folder and the licence, after comparing what is there with the record.
fn fetched(reference: &ModelReference, home: &Home) -> Result<(PathBuf, Option<String>), ReferenceError> {
    let name = reference.to_string();
    let folder = home.folder_of(reference).ok_or_else(|| ReferenceError::NotFetched { reference: name.clone() })?;
    let pinned = match reference {
        ModelReference::Alias(entry) => entry.files,
        _ => &[],
    };
    let record = checked_record(&name, &folder, pinned)?;
    match record.model.as_str() {
        "." => Ok((folder, record.licence)),
        model if record.files.iter().any(|file| file.name == model) => Ok((folder.join(model), record.licence)),
        model => Err(ReferenceError::Damaged {
            reference: name,
            path: folder.join(super::SOURCE_RECORD),
            problem: format!("field model names `{model}`"),
        }),
    }
}

/// The record of a fetched folder, after comparing the sizes of what is there with it, and its hashes with the pinned ones.
pub(super) fn checked_record(
    name: &str,
    folder: &Path,
    pinned: &[CatalogFile],
) -> Result<SourceRecord, ReferenceError> {
    let damaged =
        |path: PathBuf, problem: String| ReferenceError::Damaged { reference: name.to_owned(), path, problem };
    let record = match SourceRecord::read(folder) {
        Ok(Some(record)) => record,
        Ok(None) => return Err(ReferenceError::NotFetched { reference: name.to_owned() }),
        Err(error) => {
            return Err(damaged(folder.join(super::SOURCE_RECORD), error.to_string()));
        }
    };

    // The record is a file like any other: names that lead out of the folder are not followed.
    let inside = |name: &str| super::inner_path(name).is_ok();
    if let Some(bad) = record.files.iter().map(|file| &file.name).find(|name| !inside(name)) {
        return Err(damaged(folder.join(super::SOURCE_RECORD), format!("field files names `{bad}`")));
    }
    for file in &record.files {
        let path = folder.join(&file.name);
        match fs::metadata(&path) {
            Ok(metadata) if metadata.len() == file.bytes => {}
            Ok(metadata) => {
                let problem = format!("{} bytes instead of {}", metadata.len(), file.bytes);
                return Err(damaged(path, problem));
            }
            Err(error) => return Err(damaged(path, error.to_string())),
        }
    }
    // A newer table may pin another file under the same name.
    for pinned in pinned {
        if !record.files.iter().any(|file| file.name == pinned.name && file.sha256 == pinned.sha256) {
            let problem = "not the file that this version of lathe expects".to_owned();
            return Err(damaged(folder.join(pinned.name), problem));
        }
    }
    Ok(record)
}

/// File or folder in the layout that the hub's clients share:
/// `models--org--name/refs/<revision>` holds a commit, `models--org--name/snapshots/<commit>/` its files, which may be links to blobs.
fn in_hub_cache(reference: &ModelReference, hub: &HubReference, home: &Home) -> Result<PathBuf, ReferenceError> {
    let not_fetched = || ReferenceError::NotFetched { reference: reference.to_string() };
    let repository = home.hub_cache().join(format!("models--{}--{}", hub.org, hub.name));
    let revision = hub.revision_or_main();
    let snapshots = repository.join("snapshots");

    let as_commit = snapshots.join(revision);
    let snapshot = if !revision.contains('/') && as_commit.is_dir() {
        as_commit
    } else {
        let refs = repository.join("refs").join(revision);
        let mut commit = String::new();
        match File::open(&refs).and_then(|file| file.take(256).read_to_string(&mut commit)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(not_fetched()),
            Err(source) => return Err(ReferenceError::Io { path: refs, source }),
        }
        let commit = commit.trim();
        // It becomes part of a path.
        if commit.is_empty() || !commit.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(ReferenceError::Damaged {
                reference: reference.to_string(),
                path: refs,
                problem: "expected a commit's hash".to_owned(),
            });
        }
        snapshots.join(commit)
    };

    let path = match &hub.file {
        Some(file) => snapshot.join(file),
        None => snapshot,
    };
    // Follows links: a blob that is gone counts as not fetched.
    if path.exists() { Ok(path) } else { Err(not_fetched()) }
}

/// Recognises the model at a path that exists, and lists its files.
fn checkpoint_at(
    path: &Path,
    reference: &ModelReference,
) -> Result<(CheckpointKind, PathBuf, Vec<PathBuf>), ReferenceError> {
    if !path.is_dir() {
        return match extension(path).as_str() {
            "gguf" => Ok((CheckpointKind::Gguf, path.to_owned(), vec![path.to_owned()])),
            "safetensors" => {
                let folder = match path.parent() {
                    Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
                    Some(parent) => parent,
                    None => Path::new("."),
                };
                let mut files = folder_files(folder)?;
                files.retain(|file| is_description(file));
                files.push(path.to_owned());
                files.sort();
                Ok((CheckpointKind::Safetensors, path.to_owned(), files))
            }
            _ => Err(ReferenceError::NotAModelFile { path: path.to_owned() }),
        };
    }

    let files = folder_files(path)?;
    let named = |name: &str| files.iter().any(|file| file.file_name().is_some_and(|known| known == name));
    let mut weights = files.iter().filter(|file| extension(file) == "safetensors").peekable();
    if named("config.json") && weights.peek().is_some() {
        let own = files.iter().filter(|file| is_description(file) || extension(file) == "safetensors");
        let mut all: Vec<PathBuf> = own.cloned().collect();
        if named("modules.json") {
            all.extend(module_files(path)?);
            all.sort();
        }
        return Ok((CheckpointKind::Folder, path.to_owned(), all));
    }
    let gguf: Vec<&PathBuf> = files.iter().filter(|file| extension(file) == "gguf").collect();
    let pickled = |file: &PathBuf| matches!(extension(file).as_str(), "bin" | "pt" | "pth" | "ckpt" | "pkl");
    match gguf.as_slice() {
        // Opening it says why it can't be used, and what to do.
        [] if named("config.json") && files.iter().any(pickled) => Ok((CheckpointKind::Folder, path.to_owned(), files)),
        [] => Err(ReferenceError::NoModel { path: path.to_owned() }),
        [file] => Ok((CheckpointKind::Gguf, (*file).clone(), vec![(*file).clone()])),
        several => Err(ReferenceError::Ambiguous {
            path: path.to_owned(),
            candidates: several.iter().map(|file| candidate(reference, file)).collect(),
        }),
    }
}

/// How to name one of several files of a folder.
fn candidate(reference: &ModelReference, file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    match reference {
        ModelReference::Hub(hub) => {
            let folder = hub.file.as_ref().map(|folder| format!("{folder}/")).unwrap_or_default();
            let file = Some(format!("{folder}{name}"));
            ModelReference::Hub(HubReference { file, ..hub.clone() }).to_string()
        }
        _ => file.display().to_string(),
    }
}

/// The files directly in a folder, sorted; links are followed.
fn folder_files(folder: &Path) -> Result<Vec<PathBuf>, ReferenceError> {
    let io_error = |source| ReferenceError::Io { path: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(io_error)? {
        let entry = entry.map_err(io_error)?;
        // `./config.json` and `config.json` are one file; keep the shorter name.
        let path = if folder == Path::new(".") { PathBuf::from(entry.file_name()) } else { entry.path() };
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The settings of what stands behind a sentence encoder: `1_Pooling/config.json` and its like.
fn module_files(folder: &Path) -> Result<Vec<PathBuf>, ReferenceError> {
    let io_error = |source| ReferenceError::Io { path: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(io_error)? {
        let entry = entry.map_err(io_error)?;
        let name = entry.file_name();
        let is_module = name.to_string_lossy().split_once('_').is_some_and(|(index, _)| index.parse::<u8>().is_ok());
        let file = if folder == Path::new(".") { PathBuf::from(name) } else { entry.path() }.join("config.json");
        if is_module && file.is_file() {
            files.push(file);
        }
    }
    Ok(files)
}

/// Configuration, tokenizer and template files, as the Transformers library names them.
fn is_description(file: &Path) -> bool {
    const NAMES: [&str; 15] = [
        "added_tokens.json",
        "chat_template.jinja",
        "chat_template.json",
        "config.json",
        "config_sentence_transformers.json",
        "generation_config.json",
        "merges.txt",
        "model.safetensors.index.json",
        "modules.json",
        "sentence_bert_config.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "vocab.json",
    ];
    file.file_name().and_then(|name| name.to_str()).is_some_and(|name| NAMES.contains(&name))
}

fn extension(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase()
}

#[cfg(test)]
mod tests;
