//! Records of data files.

use std::path::Path;

use serde_json::{Map, Value};

use crate::Error;

/// The rows of a file of JSON lines, in order.
///
/// # Errors
/// The file cannot be read; a line is no JSON object.
pub(crate) fn read_records(file: &Path) -> Result<Vec<Map<String, Value>>, Error> {
    let text = std::fs::read_to_string(file).map_err(|source| Error::Read { file: file.into(), source })?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            serde_json::from_str(line).map_err(|error| Error::Record {
                file: file.into(),
                line: index + 1,
                problem: format!("not a JSON object: {error}"),
                expected: "each line is one JSON object",
            })
        })
        .collect()
}
