//! A merge as a folder, complete or not at all.

use std::collections::BTreeMap;
use std::fs;
use std::path::{MAIN_SEPARATOR, Path, PathBuf};

use lathe_formats::write::{PlacedFile, TensorSpec};
use lathe_model::reference::ModelReference;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::job::{Job, bytes_of, in_words_of_formats};
use super::{MergeResult, MergeSpec, Recipe, RemarkCount, Resume, card, folder};
use crate::export::files::{NamedFile, pretty};
use crate::export::{ExportFormat, ExportSpec, TemporaryFolder, WrittenFile, check_target, export, fits_gguf};
use crate::store::Store;
use crate::{Context, Error};

/// A tensor that has been written: a line of the record that survives a kill.
#[derive(Clone, Serialize, Deserialize)]
struct Done {
    tensor: String,
    remarks: Vec<String>,
}

/// Results of a run with another head are never gone on with.
#[derive(Serialize)]
struct Head<'a> {
    program: &'static str,
    config: &'a str,
    recipe: Recipe,
    seed: u64,
    inputs: &'a [card::Input],
    tensors: Vec<(&'a str, String)>,
    shards: usize,
}

/// A file of weights and the tensors in it, as indices of the plan.
struct Shard {
    file: String,
    tensors: Vec<usize>,
}

/// Makes and writes all tensors and the files beside them.
///
/// # Errors
/// An input cannot be read, the target cannot be written, or an interrupted run is in the way.
pub(super) fn write(
    job: &Job<'_>,
    spec: &MergeSpec,
    out: &Path,
    resume: Resume,
    context: &Context<'_>,
) -> Result<MergeResult, Error> {
    // Without the separator that a shell may have completed: the name of the partial folder is made from it.
    let out = &out.components().collect::<PathBuf>();
    check_target(out)?;
    let partial = partial_folder(out);
    if partial.exists() && resume == Resume::Refuse {
        let problem = format!("{} is there: a merge was interrupted", partial.display());
        let hint = Some("go on with --resume, or remove the folder to begin again".to_owned());
        return Err(Error::Spec { field: "--out", problem, hint });
    }
    let (made, seconds) = context.timed(|| {
        let made = fill(job, spec, out, &partial, context);
        // What cannot be gone on with leaves nothing behind; after a full disk or a kill, --resume goes on.
        if made.as_ref().is_err_and(Error::is_bad_input) && resume == Resume::Refuse {
            let _ = fs::remove_dir_all(&partial);
        }
        made
    });
    let mut result = made?;
    result.seconds = seconds;
    result.peak_memory = (context.peak_memory)();
    Ok(result)
}

fn partial_folder(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

fn fill(
    job: &Job<'_>,
    spec: &MergeSpec,
    out: &Path,
    partial: &Path,
    context: &Context<'_>,
) -> Result<MergeResult, Error> {
    // Everything that can be refused is refused before a tensor is made.
    let files = job.files()?;
    let shards = shards(&job.stored, spec.shard_bytes);
    if !partial.exists() {
        rehearse(job, spec, out, &files, &shards)?;
    }
    let inputs = card::inputs(&job.sources, context)?;
    if partial.join(RECORD).exists() {
        // A kill came in the very last moment; to begin again is simpler than to find out where.
        fs::remove_dir_all(partial).map_err(|source| Error::Write { file: partial.into(), source })?;
    }
    fs::create_dir_all(partial).map_err(|source| Error::Write { file: partial.into(), source })?;
    let yaml = job.config.to_yaml();
    let head = || {
        let tensors = job.stored.iter().map(|tensor| (tensor.name.as_str(), tensor.element.to_string())).collect();
        Ok(Head {
            program: card::PROGRAM,
            config: &yaml,
            recipe: job.recipe,
            seed: job.config.seed,
            inputs: &inputs,
            tensors,
            shards: shards.len(),
        })
    };
    let mut store: Store<Done> = Store::open(Some(&partial.join(RECORD)), head)?;
    let resumed = store.len();
    weights(job, &shards, partial, &mut store, context)?;
    let done: Vec<Done> = (0..job.stored.len() as u64).filter_map(|item| store.get(item).cloned()).collect();
    let remarks = count(&done);
    for shard in &shards {
        let (from, to) = (partial.join(unfinished(&shard.file)), partial.join(&shard.file));
        if from.exists() {
            fs::rename(&from, &to).map_err(|source| Error::Write { file: to, source })?;
        }
    }
    if let [_, _, ..] = shards[..] {
        folder::put(partial, &[(INDEX.to_owned(), index(&shards, &job.stored)?)])?;
    }
    folder::put(partial, &files)?;
    folder::put(partial, &card::files(job, spec.to, &inputs, &remarks)?)?;
    match spec.to {
        ExportFormat::Safetensors => {
            store.finish(&done)?;
            fs::rename(partial, out).map_err(|source| Error::Write { file: out.into(), source })?;
        }
        ExportFormat::Gguf => {
            let folder = gguf_folder(spec, out, partial, context)?;
            store.finish(&done)?;
            for name in [card::CARD, card::MANIFEST, card::CONFIG, RECORD] {
                let to = folder.path.join(name);
                fs::copy(partial.join(name), &to).map_err(|source| Error::Write { file: to, source })?;
            }
            folder.rename(out)?;
            fs::remove_dir_all(partial).map_err(|source| Error::Write { file: partial.into(), source })?;
        }
    }
    let (summary, files) = (job.summary(), WrittenFile::all_in(out)?);
    Ok(MergeResult { out: out.into(), summary, files, remarks, resumed, seconds: 0.0, peak_memory: None })
}

/// Opens the result before a number of it is made: files of the right lengths, without content, take the place of weights.
///
/// # Errors
/// lathe would not open the result, or no GGUF file could hold it.
fn rehearse(job: &Job<'_>, spec: &MergeSpec, out: &Path, files: &[NamedFile], shards: &[Shard]) -> Result<(), Error> {
    // Models of an architecture that lathe does not run are not opened.
    let Some(first) = job.sources.first().and_then(|source| source.opened.as_ref()) else { return Ok(()) };
    let folder = TemporaryFolder::beside(out)?;
    folder::put(&folder.path, files)?;
    for shard in shards {
        PlacedFile::create(&folder.path.join(&shard.file), &BTreeMap::new(), &specs(job, shard))?;
    }
    if let [_, _, ..] = shards {
        folder::put(&folder.path, &[(INDEX.to_owned(), index(shards, &job.stored)?)])?;
    }
    // The name of the folder means nothing to a user.
    let said = |error: &dyn std::error::Error| {
        let folder = folder.path.display().to_string();
        error.to_string().replace(&format!("{folder}{MAIN_SEPARATOR}"), "").replace(&format!("{folder}: "), "")
    };
    let unloadable =
        |error: lathe_model::Error| Error::Unloadable { family: first.spec.family.clone(), problem: said(&error) };
    let opened = lathe_model::open(&folder.path).map_err(unloadable)?;
    match spec.to {
        ExportFormat::Safetensors => Ok(()),
        ExportFormat::Gguf => fits_gguf(&opened, gguf_dtype(spec)).map_err(|error| Error::Spec {
            field: "--to",
            problem: said(&error),
            hint: error.hint(),
        }),
    }
}

/// The tensors of a file, in its order.
fn specs(job: &Job<'_>, shard: &Shard) -> Vec<TensorSpec> {
    shard.tensors.iter().map(|&i| job.stored[i].clone()).collect()
}

/// What happened to which tensor, one line each.
const RECORD: &str = "merge-tensors.jsonl";
const INDEX: &str = "model.safetensors.index.json";

/// The name of a file of weights until all of them are complete.
fn unfinished(file: &str) -> String {
    format!("{file}.unfinished")
}

/// Makes the tensors that an earlier run has not written.
fn weights(
    job: &Job<'_>,
    shards: &[Shard],
    partial: &Path,
    store: &mut Store<Done>,
    context: &Context<'_>,
) -> Result<(), Error> {
    // transformers looks for this word before it reads a file.
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let merger = job.merger();
    let left: u64 =
        (0..job.stored.len()).filter(|i| store.get(*i as u64).is_none()).map(|i| bytes_of(&job.stored[i])).sum();
    context.stage("merging", left, "B", || {
        for shard in shards {
            let tensors = specs(job, shard);
            let complete = partial.join(&shard.file);
            let path = if complete.exists() { complete } else { partial.join(unfinished(&shard.file)) };
            let is_begun = shard.tensors.iter().any(|&i| store.get(i as u64).is_some());
            let file = if is_begun {
                PlacedFile::reopen(&path, &metadata, &tensors)?
            } else {
                // A kill may have come between the file and its first tensor.
                let _ = fs::remove_file(&path);
                PlacedFile::create(&path, &metadata, &tensors)?
            };
            for &i in &shard.tensors {
                if store.get(i as u64).is_some() {
                    continue;
                }
                let (tensor, stored) = (&job.plan.tensors[i], &job.stored[i]);
                let put = |offset: usize, bytes: &[u8]| Ok(file.write(&stored.name, offset, bytes)?);
                let remarks = merger.tensor(tensor, stored, &put, context)?;
                let remarks = remarks.iter().map(ToString::to_string).collect();
                store.put(i as u64, Done { tensor: stored.name.clone(), remarks })?;
            }
        }
        Ok(())
    })
}

/// Tensors by file: in the order of the plan, until a file is full. In a file, wider types come first, so that every number
/// is at a multiple of its size.
fn shards(stored: &[TensorSpec], most: u64) -> Vec<Shard> {
    let mut groups: Vec<(u64, Vec<usize>)> = vec![(0, Vec::new())];
    for (i, tensor) in stored.iter().enumerate() {
        let bytes = bytes_of(tensor);
        match groups.last_mut() {
            Some((held, tensors)) if tensors.is_empty() || *held + bytes <= most => {
                *held += bytes;
                tensors.push(i);
            }
            _ => groups.push((bytes, vec![i])),
        }
    }
    let count = groups.len();
    let named = |(number, (_, mut tensors)): (usize, (u64, Vec<usize>))| {
        tensors.sort_by_key(|&i| std::cmp::Reverse(stored[i].element.block_bytes()));
        let file = match count {
            1 => "model.safetensors".to_owned(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
        };
        Shard { file, tensors }
    };
    groups.into_iter().enumerate().map(named).collect()
}

fn index(shards: &[Shard], stored: &[TensorSpec]) -> Result<Vec<u8>, Error> {
    let of_shard = |shard: &Shard| {
        let file = shard.file.clone();
        shard.tensors.iter().map(|&i| (stored[i].name.clone(), json!(file))).collect::<Vec<_>>()
    };
    let weights: serde_json::Map<String, serde_json::Value> = shards.iter().flat_map(of_shard).collect();
    let total: u64 = stored.iter().map(bytes_of).sum();
    pretty(&json!({ "metadata": { "total_size": total }, "weight_map": weights }))
}

/// Remarks and how many tensors each was made of, the most frequent first.
fn count(done: &[Done]) -> Vec<RemarkCount> {
    let mut counts: Vec<RemarkCount> = Vec::new();
    for tensor in done {
        for remark in &tensor.remarks {
            match counts.iter_mut().find(|count| count.remark == *remark) {
                Some(count) => count.tensors += 1,
                None => counts.push(RemarkCount { remark: remark.clone(), tensors: 1, first: tensor.tensor.clone() }),
            }
        }
    }
    counts.sort_by_key(|count| std::cmp::Reverse(count.tensors));
    counts
}

/// The weights of a finished folder as a GGUF file in a folder of its own.
fn gguf_folder(spec: &MergeSpec, out: &Path, partial: &Path, context: &Context<'_>) -> Result<TemporaryFolder, Error> {
    let folder = TemporaryFolder::beside(out)?;
    let dtype = gguf_dtype(spec).map(str::to_owned);
    let model = ModelReference::Path(partial.into());
    export(&ExportSpec { model, to: ExportFormat::Gguf, dtype, out: folder.path.join("model.gguf") }, context)?;
    Ok(folder)
}

/// The element type that the user named, in the words of the formats.
fn gguf_dtype(spec: &MergeSpec) -> Option<&str> {
    spec.dtype.as_deref().map(in_words_of_formats)
}
