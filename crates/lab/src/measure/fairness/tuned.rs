//! The checkpoints that a training run has left.

use std::fs;
use std::path::{Path, PathBuf};

use lathe_model::reference::ModelReference;
use serde::Deserialize;

use super::RunCheckpoint;
use crate::Error;

/// What a comparison needs of `tune.json`.
#[derive(Deserialize)]
struct Manifest {
    spec: Spec,
    settings: Settings,
}

#[derive(Deserialize)]
struct Spec {
    #[serde(default)]
    weight_decay: f64,
    #[serde(default)]
    decay_embeddings: bool,
    #[serde(default)]
    seed: u64,
    from_scratch: Option<Scratch>,
}

#[derive(Deserialize)]
struct Scratch {
    config: PathBuf,
}

#[derive(Deserialize)]
struct Settings {
    steps: u64,
}

/// The models `step-N` in the folder of a training run, and the one that it ended with. Weight decay and seed are those of its
/// `tune.json`; the variant is the name of its configuration, where it began with one, and whether embeddings decay.
///
/// # Errors
/// The folder is not that of a run, or the run has not ended.
pub fn tuned_checkpoints(folder: &Path) -> Result<Vec<RunCheckpoint>, Error> {
    let file = folder.join("tune.json");
    let refuse = |problem: String, hint: &str| Error::Spec { field: "--tuned", problem, hint: Some(hint.to_owned()) };
    let Ok(bytes) = fs::read(&file) else {
        let problem = format!("{} is no folder of a training run: it has no tune.json", folder.display());
        return Err(refuse(problem, "name other models with --checkpoint"));
    };
    let manifest: Manifest = serde_json::from_slice(&bytes)
        .map_err(|error| Error::BadJson { file: file.clone(), problem: error.to_string() })?;
    if !folder.join("config.json").is_file() {
        let problem = format!("the run in {} has not ended", folder.display());
        return Err(refuse(
            problem,
            "`lathe tune … --resume` goes on with it; adapters are compared with --checkpoint",
        ));
    }
    let Spec { weight_decay, decay_embeddings, seed, from_scratch } = manifest.spec;
    let name = from_scratch.and_then(|scratch| Some(scratch.config.file_stem()?.to_string_lossy().into_owned()));
    let decayed = decay_embeddings.then(|| "embeddings decay".to_owned());
    let variant = name.into_iter().chain(decayed).collect::<Vec<_>>().join(", ");
    let checkpoint = |path: &Path, step: u64| RunCheckpoint {
        model: ModelReference::Path(path.to_owned()),
        variant: variant.clone(),
        weight_decay,
        seed,
        step: Some(step),
    };
    let entries = fs::read_dir(folder).map_err(|source| Error::Read { file: folder.into(), source })?;
    let step_of = |path: &Path| path.file_name()?.to_str()?.strip_prefix("step-")?.parse::<u64>().ok();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found: Vec<(u64, PathBuf)> = paths
        .filter_map(|path| Some((step_of(&path)?, path)))
        .filter(|(step, _)| *step < manifest.settings.steps)
        .collect();
    found.sort();
    let saved = found.iter().map(|(step, path)| checkpoint(path, *step));
    Ok(saved.chain([checkpoint(folder, manifest.settings.steps)]).collect())
}
