//! Texts to embed.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Error;
use crate::records::read_records;

/// Texts to embed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmbedTexts {
    /// These.
    Given(Vec<String>),
    /// Records of a JSON lines or Parquet file; of another file each line.
    File {
        /// The file.
        file: PathBuf,
        /// Field of the records that holds the text.
        field: String,
    },
}

impl EmbedTexts {
    /// The texts in order. Empty ones are kept: what becomes of them is the prompt's affair.
    ///
    /// # Errors
    /// The file cannot be read or has no text; a record lacks the field.
    pub(super) fn read(&self) -> Result<Vec<String>, Error> {
        match self {
            Self::Given(texts) => Ok(texts.clone()),
            Self::File { file, field } => match records(file)? {
                Some(records) => strings(&records, field, file),
                None => lines(file),
            },
        }
    }

    /// The same, if they are in a file.
    pub(super) fn file(&self) -> Option<Self> {
        matches!(self, Self::File { .. }).then(|| self.clone())
    }
}

/// The records of a file; none of a file that is plain text by its name.
pub(super) fn records(file: &Path) -> Result<Option<Vec<Map<String, Value>>>, Error> {
    let extension = file.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
    match extension.as_str() {
        "jsonl" | "ndjson" | "parquet" => read_records(file).map(Some),
        "txt" | "text" | "" => Ok(None),
        _ => Err(Error::UnknownData { file: file.into(), extension }),
    }
}

/// A field of every record.
pub(super) fn strings(records: &[Map<String, Value>], field: &str, file: &Path) -> Result<Vec<String>, Error> {
    let of = |(index, record): (usize, &Map<String, Value>)| {
        let problem = match record.get(field) {
            Some(Value::String(text)) => return Ok(text.clone()),
            Some(_) => format!("field `{field}` is not a string"),
            None => format!("field `{field}` is missing"),
        };
        Err(bad_record(file, index, problem))
    };
    records.iter().enumerate().map(of).collect()
}

/// What is wrong with a record, by its number from 0.
pub(super) fn bad_record(file: &Path, index: usize, problem: String) -> Error {
    let expected = "`--field` names the field with the text; every record has it";
    Error::Row { file: file.into(), row: index + 1, problem, expected }
}

/// Every line that is not blank.
fn lines(file: &Path) -> Result<Vec<String>, Error> {
    let text = std::fs::read_to_string(file).map_err(|source| Error::Read { file: file.into(), source })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let lines: Vec<String> = text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
    if lines.is_empty() { Err(Error::NoText { file: file.into() }) } else { Ok(lines) }
}
