//! What a merged model says of itself: a model card, the configuration, and a manifest with the hashes of its inputs.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::job::{Job, MergeSummary};
use super::source::Source;
use super::{Recipe, RemarkCount};
use crate::export::ExportFormat;
use crate::export::files::{NamedFile, pretty};
use crate::hashes::{Algorithm, remembered};
use crate::{Context, Error};

/// What made it.
pub(super) const PROGRAM: &str = concat!("lathe ", env!("CARGO_PKG_VERSION"));
/// The model card.
pub(super) const CARD: &str = "README.md";
/// The manifest.
pub(super) const MANIFEST: &str = "merge.json";
/// The configuration, with which the merge can be repeated.
pub(super) const CONFIG: &str = "merge.yaml";

/// An input and its files.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Input {
    model: String,
    path: PathBuf,
    files: Vec<InputFile>,
}

/// A file of an input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct InputFile {
    file: String,
    bytes: u64,
    blake3: String,
}

/// Hashes every file of every input.
///
/// # Errors
/// A file cannot be read.
pub(super) fn inputs(sources: &[Arc<Source>], context: &Context<'_>) -> Result<Vec<Input>, Error> {
    let files = |source: &Source| {
        let mut files = source.resolved.files.clone();
        files.extend(source.adapter_files.iter().cloned());
        files
    };
    let length = |file: &PathBuf| fs::metadata(file).map_or(0, |metadata| metadata.len());
    let total = sources.iter().flat_map(|source| files(source)).map(|file| length(&file)).sum();
    context.stage("hashing inputs", total, "B", || {
        let all: Vec<(&Arc<Source>, PathBuf)> =
            sources.iter().flat_map(|source| files(source).into_iter().map(move |file| (source, file))).collect();
        // Collected before it is looked at: the first error counts, whichever thread is faster.
        let hashed: Vec<_> = all.par_iter().map(|(source, file)| hashed(source, file, context)).collect();
        let mut hashed = hashed.into_iter();
        let mut input = |source: &Source| {
            let files = hashed.by_ref().take(files(source).len()).collect::<Result<_, Error>>()?;
            Ok(Input { model: source.name.clone(), path: source.resolved.path.clone(), files })
        };
        sources.iter().map(|source| input(source)).collect()
    })
}

/// A file with its hash. Weights are mapped already; small files are read.
fn hashed(source: &Source, file: &Path, context: &Context<'_>) -> Result<InputFile, Error> {
    let failed = |source| Error::Read { file: file.into(), source };
    let bytes = fs::metadata(file).map_err(failed)?.len();
    let blake3 = remembered(file, Algorithm::Blake3, context.home, || {
        const PIECE: usize = 16 << 20;
        let mut hasher = blake3::Hasher::new();
        match source.checkpoint().files().iter().find(|stored| stored.path() == file) {
            Some(stored) => stored.pieces(PIECE).for_each(|piece| {
                hasher.update(piece);
                context.progress.advance(piece.len() as u64);
            }),
            None => {
                hasher.update(&fs::read(file).map_err(failed)?);
                context.progress.advance(hasher.count());
            }
        }
        Ok(hasher.finalize().to_hex().to_string())
    })?;
    Ok(InputFile { file: file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned(), bytes, blake3 })
}

/// Card, configuration and manifest.
///
/// # Errors
/// JSON cannot be written.
pub(super) fn files(
    job: &Job<'_>,
    to: ExportFormat,
    inputs: &[Input],
    remarks: &[RemarkCount],
) -> Result<Vec<NamedFile>, Error> {
    let summary = job.summary();
    let manifest = json!({
        "schema": 1,
        "program": PROGRAM,
        "config": job.config.to_yaml(),
        "recipe": job.recipe,
        "seed": job.config.seed,
        "to": to,
        "inputs": inputs,
        "result": summary,
        "remarks": remarks,
    });
    Ok(vec![
        (CARD.to_owned(), card(job, &summary, remarks).into_bytes()),
        (CONFIG.to_owned(), job.config.to_yaml().into_bytes()),
        (MANIFEST.to_owned(), pretty(&manifest)?),
    ])
}

/// The card: a header that hubs read, then what a reader wants to know.
fn card(job: &Job<'_>, summary: &MergeSummary, remarks: &[RemarkCount]) -> String {
    let mut text = String::from("---\nlibrary_name: transformers\ntags:\n- merge\n- lathe\n");
    let repositories: Vec<&str> =
        job.sources.iter().map(|source| source.name.as_str()).filter(|name| !name.starts_with(['/', '.'])).collect();
    if !repositories.is_empty() {
        text.push_str("base_model:\n");
        repositories.iter().for_each(|name| _ = writeln!(text, "- {}", json!(name)));
    }
    _ = write!(text, "---\n\n# A merge by {}\n\n", summary.method);
    _ = writeln!(
        text,
        "{} tensors in {} layers, {} parameters, made by `lathe merge` from\n",
        summary.tensors, summary.layers, summary.parameters
    );
    text.push_str("| model | format | architecture | layers | licence |\n|---|---|---|---|---|\n");
    for input in &summary.inputs {
        let licence = input.licence.as_deref().unwrap_or("not stated");
        let cells = [&input.model, &input.format, &input.architecture, &input.layers.to_string(), licence];
        let cells = cells.map(|cell| cell.replace('|', "\\|"));
        _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text.push_str("\nThe terms of every model above hold for this one.\n\n## Configuration\n\n");
    let but = if job.recipe == Recipe::default() { "" } else { "; what a recipe did beside that is among the notes" };
    _ = write!(
        text,
        "Repeat it with `lathe merge {CONFIG} --out DIR`, run where these paths count from{but}.\n\n```yaml\n{}```\n",
        job.config.to_yaml()
    );
    if !summary.notes.is_empty() || !remarks.is_empty() {
        text.push_str("\n## Notes\n\n");
        summary.notes.iter().for_each(|note| _ = writeln!(text, "- {note}"));
        remarks.iter().for_each(|count| {
            let tensors = if count.tensors == 1 { "1 tensor".to_owned() } else { format!("{} tensors", count.tensors) };
            _ = writeln!(text, "- {tensors} ({} first): {}", count.first, count.remark);
        });
    }
    _ = writeln!(text, "\n`{MANIFEST}` has the BLAKE3 hashes of all inputs.");
    text
}
