//! One task of an experiment file on a model that is being made: what a training looks at between its steps.

use std::path::Path;

use serde_json::{Map, Value};

use super::{Work, done};
use crate::{Context, Error};

/// Does a task whose spec names no model on the one at `model`; `folder` is for what it writes.
///
/// # Errors
/// The spec cannot be used, or the task fails.
pub(crate) fn on_model(
    work: &Map<String, Value>,
    model: &Path,
    folder: &Path,
    context: &Context<'_>,
) -> Result<Value, Error> {
    let work = filled(work, model).map_err(|problem| Error::Spec { field: "--eval", problem, hint: None })?;
    let output = folder.join("output.jsonl");
    let result = done(work, &output, &folder.join("kept"), context);
    // The next task begins its own.
    match std::fs::remove_file(&output) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(Error::Write { file: output, source }),
        _ => result,
    }
}

/// Whether a spec can be used with a model.
pub(crate) fn check(work: &Map<String, Value>, model: &Path) -> Result<(), String> {
    filled(work, model).map(drop)
}

/// The task with its model, or what is wrong with it.
fn filled(work: &Map<String, Value>, model: &Path) -> Result<Work, String> {
    /// Tasks that take several models.
    const SEVERAL: [&str; 3] = ["eval", "embed_eval", "measure_context"];
    let mut work = work.clone();
    let path = model.to_string_lossy().into_owned();
    for (task, spec) in &mut work {
        let Value::Object(spec) = spec else { continue };
        if spec.contains_key("model") || spec.contains_key("models") {
            continue;
        }
        if SEVERAL.contains(&task.as_str()) {
            spec.insert("models".into(), vec![path.clone()].into());
        } else {
            spec.insert("model".into(), path.clone().into());
        }
    }
    let work = serde_json::from_value(Value::Object(work)).map_err(|error| error.to_string())?;
    match work {
        Work::Tune(_) => Err("a training inside of a training is not watched".into()),
        work => Ok(work),
    }
}
