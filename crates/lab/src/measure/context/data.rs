//! The records of conflicting contexts, and what is wrong with them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use lathe_measure::context::{Trap, normalised, relative_position, traps};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{ContextSpec, KnownBy, numbered};
use crate::Error;
use crate::records::read_records;

/// A record that can be measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    /// Its number in the file, from 1.
    pub(super) record: usize,
    pub(super) context: String,
    pub(super) question: String,
    pub(super) answer: String,
    pub(super) memorised: String,
    /// What the record says of it.
    pub(super) known: Option<bool>,
}

/// The records of a file.
#[derive(Clone, Debug)]
pub(super) struct Conflicts {
    pub(super) file: PathBuf,
    pub(super) records: Vec<Conflict>,
    pub(super) audit: ConflictAudit,
}

/// What the records are like.
#[derive(Clone, Debug, Serialize)]
pub struct ConflictAudit {
    /// The file.
    pub file: PathBuf,
    /// Records in it.
    pub records: usize,
    /// Records that are measured.
    pub items: usize,
    /// Different questions among these.
    pub questions: usize,
    /// Records left out because they repeat an earlier one.
    pub duplicates: usize,
    /// Records left out or doubtful, by what is wrong with them. One that is doubtful may be counted several times.
    pub traps: Vec<TrapCount>,
    /// Measured records by the fifth of the context in which the answer begins; those without it are in none.
    pub positions: [usize; 5],
}

/// Records with a fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TrapCount {
    /// The fault.
    pub trap: Trap,
    /// Whether these records are left out.
    pub is_left_out: bool,
    /// How many.
    pub records: usize,
    /// The first of them, numbers from 1.
    pub first: Vec<usize>,
}

/// Numbers of faulty records that are named.
const NAMED: usize = 5;

const MEMORISED: [&str; 3] = ["memorised", "parametric_answer", "memory_answer"];

impl Conflicts {
    /// Reads the records of a spec, as many as it wants.
    ///
    /// # Errors
    /// The file cannot be read; a field is missing or no text; no record is left.
    pub(super) fn read(spec: &ContextSpec) -> Result<Self, Error> {
        let file = spec.data.as_path();
        let rows = if file.extension().is_some_and(|e| e == "json") { json_array(file)? } else { read_records(file)? };
        let mut records = Vec::new();
        let mut found: Vec<Vec<usize>> = vec![Vec::new(); Trap::ALL.len()];
        let (mut seen, mut duplicates) = (BTreeSet::new(), 0);
        for (index, row) in rows.iter().enumerate() {
            if spec.limit == Some(records.len()) {
                break;
            }
            let number = index + 1;
            let record = conflict(number, row, spec.known_by).map_err(|problem| question(file, number, problem))?;
            let key =
                [&record.context, &record.question, &record.answer, &record.memorised].map(|text| normalised(text));
            if !seen.insert(key) {
                duplicates += 1;
                continue;
            }
            let mut traps = traps(&record.context, &record.question, &record.answer, &record.memorised);
            if traps.iter().any(|trap| trap.is_fatal()) {
                traps.retain(|trap| trap.is_fatal());
            }
            for (trap, found) in Trap::ALL.iter().zip(&mut found) {
                if traps.contains(trap) {
                    found.push(number);
                }
            }
            if !traps.iter().any(|trap| trap.is_fatal()) {
                records.push(record);
            }
        }
        if records.is_empty() {
            return Err(Error::Spec {
                field: "--data",
                problem: format!("{}: none of {} records can be measured", file.display(), rows.len()),
                hint: Some("the two answers must differ and have a letter or digit each".into()),
            });
        }
        let mut positions = [0; 5];
        for record in &records {
            if let Some(position) = relative_position(&record.context, &record.answer) {
                positions[((position * 5.0) as usize).min(4)] += 1;
            }
        }
        let traps = Trap::ALL.into_iter().zip(found).filter(|(_, found)| !found.is_empty());
        let traps = traps.map(|(trap, mut found)| {
            let records = found.len();
            found.truncate(NAMED);
            TrapCount { trap, is_left_out: trap.is_fatal(), records, first: found }
        });
        let mut audit = ConflictAudit {
            file: file.to_owned(),
            records: rows.len(),
            items: records.len(),
            questions: 0,
            duplicates,
            traps: traps.collect(),
            positions,
        };
        let mut conflicts = Self { file: file.to_owned(), records, audit: audit.clone() };
        audit.questions = conflicts.questions().iter().max().map_or(0, |last| last + 1);
        conflicts.audit = audit;
        Ok(conflicts)
    }

    /// Number of the question of every record: items of one question are resampled together.
    pub(super) fn questions(&self) -> Vec<usize> {
        numbered(self.records.iter().map(|record| record.question.as_str()))
    }
}

/// A problem with a record.
pub(super) fn question(file: &Path, record: usize, problem: String) -> Error {
    Error::Question {
        task: "context".into(),
        file: file.into(),
        record,
        problem,
        hint: "a record has the texts `context`, `question`, `answer` (of the context) and `memorised`",
    }
}

fn conflict(record: usize, row: &Map<String, Value>, known_by: KnownBy) -> Result<Conflict, String> {
    let text = |name: &str| match row.get(name) {
        Some(Value::String(text)) => Ok(text.trim().to_owned()),
        Some(_) => Err(format!("field `{name}` is not a string")),
        None => Err(format!("field `{name}` is missing")),
    };
    let filled = |name: &str| match text(name) {
        Ok(text) if text.is_empty() => Err(format!("field `{name}` is empty")),
        other => other,
    };
    let memorised = MEMORISED.into_iter().find(|name| row.contains_key(*name)).unwrap_or(MEMORISED[0]);
    let known = match (known_by, row.get("known")) {
        (KnownBy::Data, Some(Value::Bool(known))) => Some(*known),
        (KnownBy::Data, _) => return Err("field `known` is missing or neither true nor false".into()),
        _ => None,
    };
    Ok(Conflict {
        record,
        context: filled("context")?,
        question: filled("question")?,
        answer: text("answer")?,
        memorised: text(memorised)?,
        known,
    })
}

/// The objects of a JSON array, as one published set has them.
fn json_array(file: &Path) -> Result<Vec<Map<String, Value>>, Error> {
    let text = std::fs::read_to_string(file).map_err(|source| Error::Read { file: file.into(), source })?;
    let bad = |problem: String| Error::BadJson { file: file.into(), problem };
    let rows: Vec<Map<String, Value>> = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
    if rows.is_empty() { Err(Error::NoRecord { file: file.into() }) } else { Ok(rows) }
}
