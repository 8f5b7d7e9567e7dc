//! `lathe export`: a model as a complete safetensors folder or GGUF file, which the formats' own loaders open.
//!
//! Tensors are written a few rows at a time, so a model larger than memory can be exported. The target appears under
//! its name only when it is complete, and nothing is left of one that fails.

pub(crate) mod files;
mod header;
mod plan;
mod tensors;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use lathe_formats::write::{gguf, safetensors};
use lathe_formats::{ElementType, Format};
use lathe_model::reference::{ModelReference, Resolved};
use lathe_model::{Opened, Target};
use serde::{Deserialize, Serialize};

use crate::inspect::ElementCount;
use crate::{Context, Error, open_model};
use files::NamedFile;
pub(crate) use plan::FLOATS;
use plan::Plan;
pub(crate) use tensors::Numbers;

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
    /// The folder or file to write; it must not exist, and the folder above it must.
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
    /// The reference as given.
    pub model: String,
    /// The folder or file.
    pub out: PathBuf,
    /// Every file, by name.
    pub files: Vec<WrittenFile>,
    /// Tensors and bytes of each element type, the most bytes first.
    pub elements: Vec<ElementCount>,
    /// What the reader of the target should know, one sentence each.
    pub notes: Vec<String>,
}

/// A file that was written.
#[derive(Clone, Debug, Serialize)]
pub struct WrittenFile {
    /// Its path inside the folder; of a GGUF file its own path.
    pub file: String,
    /// Its length.
    pub bytes: u64,
}

impl WrittenFile {
    /// Every file of a folder, by name.
    pub(crate) fn all_in(folder: &Path) -> Result<Vec<Self>, Error> {
        let failed = |source| Error::Read { file: folder.into(), source };
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let bytes = entry.metadata().map_err(failed)?.len();
            files.push(Self { file: entry.file_name().to_string_lossy().into_owned(), bytes });
        }
        files.sort_by(|a, b| a.file.cmp(&b.file));
        Ok(files)
    }
}

/// Exports a model.
///
/// # Errors
/// The model cannot be opened; the format cannot hold the architecture, its tokenizer, or a number in the element type;
/// the target exists or cannot be written.
pub fn export(spec: &ExportSpec, context: &Context<'_>) -> Result<ExportResult, Error> {
    let wanted = spec.dtype.as_deref().map(|word| element_named(word, spec.to)).transpose()?;
    check_target(&spec.out)?;
    let (resolved, opened) = open_model(&spec.model, context)?;
    let (plan, files) = match spec.to {
        ExportFormat::Gguf => write_file(spec, wanted, &resolved, &opened, context)?,
        ExportFormat::Safetensors => {
            let numbers = Numbers::Own(&opened);
            write_folder(&spec.out, wanted, &resolved, &opened, numbers, context)?
        }
    };
    let elements = plan.elements();
    Ok(ExportResult { model: spec.model.to_string(), out: spec.out.clone(), files, elements, notes: plan.notes })
}

const WEIGHTS: &str = "model.safetensors";

fn write_file(
    spec: &ExportSpec,
    wanted: Option<ElementType>,
    resolved: &Resolved,
    opened: &Opened,
    context: &Context<'_>,
) -> Result<(Plan, Vec<WrittenFile>), Error> {
    let mut plan = Plan::new(opened, Format::Gguf, wanted)?;
    plan.notes.extend(files::left_behind(resolved, opened)?);
    let header = header::entries(opened, &plan, wanted)?;
    let writer = gguf(&spec.out, &header, &plan.stored)?;
    tensors::write(&plan, Numbers::Own(opened), writer, context)?;
    let written = WrittenFile { file: spec.out.display().to_string(), bytes: length(&spec.out)? };
    Ok((plan, vec![written]))
}

/// Whether a GGUF file can hold a model: its tensors, its tokenizer, and an element type that the user named.
///
/// # Errors
/// As [`export`].
pub(crate) fn fits_gguf(opened: &Opened, dtype: Option<&str>) -> Result<(), Error> {
    let wanted = dtype.map(|word| element_named(word, ExportFormat::Gguf)).transpose()?;
    let plan = Plan::new(opened, Format::Gguf, wanted)?;
    header::entries(opened, &plan, wanted).map(drop)
}

/// Writes a folder that is complete, with `numbers` of the shapes of `opened`, or none.
///
/// # Errors
/// As [`export`], for a model that is open.
pub(crate) fn write_folder(
    out: &Path,
    wanted: Option<ElementType>,
    resolved: &Resolved,
    opened: &Opened,
    numbers: Numbers<'_>,
    context: &Context<'_>,
) -> Result<(Plan, Vec<WrittenFile>), Error> {
    let mut plan = Plan::new(opened, Format::Safetensors, wanted)?;
    let mut small = vec![("config.json".to_owned(), files::config(&plan, opened)?)];
    small.extend(files::tokenizer_and_terms(resolved, opened)?);
    plan.notes.extend(files::licence_of_header(opened));
    let written = fill_folder(out, &plan, &small, numbers, context)?;
    Ok((plan, written))
}

/// Writes a folder of a model that has no files yet, all of its numbers `element`; `small` is everything but the weights.
///
/// # Errors
/// A number cannot be read or does not fit its type; the folder cannot be written.
pub(crate) fn write_new_folder(
    out: &Path,
    target: Target,
    element: ElementType,
    small: &[NamedFile],
    numbers: Numbers<'_>,
    context: &Context<'_>,
) -> Result<(Vec<ElementCount>, Vec<WrittenFile>), Error> {
    let plan = Plan::of_one_type(target, element);
    let written = fill_folder(out, &plan, small, numbers, context)?;
    Ok((plan.elements(), written))
}

fn fill_folder(
    out: &Path,
    plan: &Plan,
    small: &[NamedFile],
    numbers: Numbers<'_>,
    context: &Context<'_>,
) -> Result<Vec<WrittenFile>, Error> {
    let folder = TemporaryFolder::beside(out)?;
    let mut written = Vec::new();
    for (name, bytes) in small {
        put(&folder.path.join(name), bytes)?;
        written.push(WrittenFile { file: name.clone(), bytes: bytes.len() as u64 });
    }
    let weights = folder.path.join(WEIGHTS);
    // transformers looks for this word before it reads a file.
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    tensors::write(plan, numbers, safetensors(&weights, &metadata, &plan.stored)?, context)?;
    written.push(WrittenFile { file: WEIGHTS.to_owned(), bytes: length(&weights)? });
    written.sort_by(|a, b| a.file.cmp(&b.file));
    folder.rename(out)?;
    Ok(written)
}

/// The element type that a user named, if the target can hold it and lathe writes it.
pub(crate) fn element_named(word: &str, to: ExportFormat) -> Result<ElementType, Error> {
    let writable = |element: &ElementType| match to {
        ExportFormat::Safetensors => FLOATS.contains(element),
        ExportFormat::Gguf => element.is_writable(),
    };
    let refuse = |problem: String| {
        let names: Vec<String> =
            ElementType::all().filter(writable).map(|element| element.to_string().to_lowercase()).collect();
        let others = if to == ExportFormat::Safetensors { "; blocks need `--to gguf`" } else { "" };
        Error::Spec { field: "--dtype", problem, hint: Some(format!("take one of {}{others}", names.join(", "))) }
    };
    let element: ElementType = word.parse().map_err(|_| refuse(format!("no element type is called `{word}`")))?;
    if writable(&element) {
        return Ok(element);
    }
    Err(refuse(match to {
        ExportFormat::Safetensors => format!("weights of a safetensors folder are not stored as {element}"),
        ExportFormat::Gguf => format!("lathe does not write {element}"),
    }))
}

/// Whether the target can come into being: known before anything is read.
pub(crate) fn check_target(out: &Path) -> Result<(), Error> {
    let refuse = |problem: String, hint: &str| Error::Spec { field: "--out", problem, hint: Some(hint.into()) };
    if fs::symlink_metadata(out).is_ok() {
        let hint = "name another target, or remove this one first: nothing is overwritten";
        return Err(refuse(format!("{} is there already", out.display()), hint));
    }
    let above = folder_above(out);
    if !above.is_dir() {
        return Err(refuse(format!("{} is no folder", above.display()), "make the folder first"));
    }
    Ok(())
}

fn folder_above(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn length(path: &Path) -> Result<u64, Error> {
    Ok(fs::metadata(path).map_err(|source| Error::Read { file: path.into(), source })?.len())
}

pub(crate) fn put(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let failed = |source| Error::Write { file: path.into(), source };
    fs::create_dir_all(folder_above(path)).map_err(failed)?;
    fs::write(path, bytes).map_err(failed)
}

/// A folder that is removed again unless it is renamed to its target.
pub(crate) struct TemporaryFolder {
    /// The folder to fill.
    pub(crate) path: PathBuf,
    holder: tempfile::TempDir,
}

impl TemporaryFolder {
    pub(crate) fn beside(target: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Write { file: target.into(), source };
        let holder = tempfile::Builder::new().prefix(".lathe-").suffix(".partial").tempdir_in(folder_above(target));
        let holder = holder.map_err(failed)?;
        // The inner folder gets ordinary permissions; the holder's are its owner's alone.
        let path = holder.path().join("model");
        fs::create_dir(&path).map_err(failed)?;
        Ok(Self { path, holder })
    }

    pub(crate) fn rename(self, target: &Path) -> Result<(), Error> {
        fs::rename(&self.path, target).map_err(|source| Error::Write { file: target.into(), source })?;
        drop(self.holder);
        Ok(())
    }
}
