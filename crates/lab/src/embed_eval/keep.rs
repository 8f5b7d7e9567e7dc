//! What came of a run, on disk: `MODEL.PROMPT.TASK.json`, and beside it a line for each unit.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::asked::{Asked, What};
use super::{EmbedEvalSpec, EmbedRun, Training, VectorsRow};
use crate::Error;
use crate::embed::{Alpha, FeatureSpec, Prompt};
use crate::load::sha256_of_bytes;
use crate::store::write_lines;

/// Where a run is kept.
pub(super) struct Place {
    /// Hash of all that the run depends on.
    pub(super) run: String,
    /// The file; none keeps nothing.
    pub(super) file: Option<PathBuf>,
    /// What an earlier run with the same settings has left.
    pub(super) finished: Option<EmbedRun>,
}

/// What is in the file.
#[derive(Serialize, Deserialize)]
struct Kept {
    depends_on: String,
    run: EmbedRun,
}

/// All that scores depend on.
#[derive(Serialize)]
struct Head<'a> {
    lathe: &'a str,
    model_sha256: &'a str,
    task: &'a str,
    texts_sha256: &'a str,
    features: FeatureSpec,
    alpha: Alpha,
    clusterings: usize,
    training: Training,
    seed: u64,
}

impl Place {
    /// Looks for what an earlier run has left.
    ///
    /// # Errors
    /// It had other settings; the file cannot be read.
    pub(super) fn of(
        spec: &EmbedEvalSpec,
        (name, model_sha256): (&str, &str),
        prompt: &Prompt,
        asked: &Asked,
    ) -> Result<Self, Error> {
        let Some(out) = &spec.out else { return Ok(Self { run: String::new(), file: None, finished: None }) };
        let head = Head {
            lathe: env!("CARGO_PKG_VERSION"),
            model_sha256,
            task: &asked.task.name,
            texts_sha256: &asked.sha256,
            features: FeatureSpec { prompt: prompt.clone(), ..spec.features.clone() },
            alpha: spec.alpha,
            clusterings: spec.clusterings,
            training: spec.training,
            seed: spec.seed,
        };
        let run = sha256_of_bytes(&serde_json::to_vec(&head)?)[..16].to_owned();
        let plain = |text: &str| -> String {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
            text.chars().take(60).map(|c| if is_plain(c) { c } else { '-' }).collect()
        };
        let file = out.join(format!("{}.{}.{}.json", plain(name), plain(&prompt.to_string()), asked.task.name));
        let finished = match fs::read(&file) {
            Ok(bytes) => Some(serde_json::from_slice::<Kept>(&bytes).ok().filter(|kept| kept.depends_on == run)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(source) => return Err(Error::Read { file, source }),
        };
        match finished {
            Some(None) => Err(Error::Spec {
                field: "--out",
                problem: format!("{} is of a run with other settings", file.display()),
                hint: Some("repeat that run's settings to use it again, or choose another folder".into()),
            }),
            Some(Some(kept)) => {
                Ok(Self { run, file: Some(file), finished: Some(EmbedRun { resumed: true, ..kept.run }) })
            }
            None => Ok(Self { run, file: Some(file), finished: None }),
        }
    }
}

/// A line for each unit.
#[derive(Serialize)]
struct Line<'a> {
    /// Number of its row in its file, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<usize>,
    /// What people say: a score, a label, the names of what is relevant.
    #[serde(skip_serializing_if = "Value::is_null")]
    gold: Value,
    /// Of each kind of vector: a cosine, a score, the share of draws that are right, the cluster in each clustering.
    of: BTreeMap<&'a str, &'a Value>,
}

/// Writes what came of a run: the lines first, so that the result stands for all of it.
pub(super) fn write(
    file: &Path,
    depends_on: &str,
    run: &EmbedRun,
    asked: &Asked,
    rows: &[(VectorsRow, Vec<Value>)],
) -> Result<(), Error> {
    let units = units(&asked.what);
    let line = |(index, (record, gold)): (usize, (Option<usize>, Value))| {
        let of = rows.iter().filter_map(|(row, units)| Some((row.name.as_str(), units.get(index)?))).collect();
        Line { record, gold, of }
    };
    let lines: Vec<Line<'_>> = units.into_iter().enumerate().map(line).collect();
    write_lines(&file.with_extension("jsonl"), &lines)?;
    let kept = Kept { depends_on: depends_on.to_owned(), run: run.clone() };
    Ok(lathe_formats::NewFile::write(file, (serde_json::to_string_pretty(&kept)? + "\n").as_bytes())?)
}

/// Record and truth of each unit, in the order of scores.
fn units(what: &What) -> Vec<(Option<usize>, Value)> {
    match what {
        What::Pairs(of) => of.iter().map(|pair| (Some(pair.record), json!(pair.score))).collect(),
        What::SamePairs(of) => of.iter().map(|pair| (Some(pair.record), json!(pair.same))).collect(),
        What::Lists(of) => of.iter().map(|list| (Some(list.record), Value::Null)).collect(),
        What::Search(of) => of.queries.iter().map(|query| (None, json!({ "query": query.id }))).collect(),
        What::Classes(of) => of.test.iter().map(|text| (Some(text.record), json!(of.names.get(text.label)))).collect(),
        What::Sets(sets) => match sets.as_slice() {
            [only] => only.texts.iter().map(|text| (Some(text.record), json!(only.names.get(text.label)))).collect(),
            _ => sets.iter().map(|set| (set.texts.first().map(|text| text.record), Value::Null)).collect(),
        },
        What::Summaries(of) => of.iter().map(|one| (Some(one.record), Value::Null)).collect(),
    }
}
