//! Records of data files: JSON lines and Parquet, one JSON object each; and tables to Parquet.

mod parquet;

use std::path::Path;

use serde_json::{Map, Value};

use crate::Error;
pub(crate) use parquet::{Column, write_table};

/// Reads all records of a file, in order: Parquet when its name ends in `.parquet`, JSON lines in `.jsonl` and `.ndjson`.
/// Lines of nothing but white space are no records.
///
/// # Errors
/// The file cannot be read or is of another type; it has no record; a line is no JSON object; a Parquet file is damaged, or
/// has columns that are not read.
pub(crate) fn read_records(file: &Path) -> Result<Vec<Map<String, Value>>, Error> {
    let extension = file.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
    let read = |source| Error::Read { file: file.into(), source };
    let records = match extension.as_str() {
        "jsonl" | "ndjson" => json_lines(&std::fs::read_to_string(file).map_err(read)?, file)?,
        "parquet" => parquet::rows(&std::fs::read(file).map_err(read)?)
            .map_err(|parquet::Fault(problem)| Error::Parquet { file: file.into(), problem })?,
        _ => return Err(Error::UnknownRecords { file: file.into(), extension }),
    };
    if records.is_empty() { Err(Error::NoRecord { file: file.into() }) } else { Ok(records) }
}

/// The object of each line that is not empty.
fn json_lines(text: &str, file: &Path) -> Result<Vec<Map<String, Value>>, Error> {
    // Some editors put a mark of the byte order first.
    let lines = text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate();
    lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(index, line)| {
            const EXPECTED: &str = "each line is one JSON object";
            let bad = |problem| Error::Record { file: file.into(), line: index + 1, problem, expected: EXPECTED };
            json_object(line).map_err(bad)
        })
        .collect()
}

/// The object that a line is, or what is wrong with it.
pub(crate) fn json_object(line: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(line) {
        Ok(Value::Object(record)) => Ok(record),
        Ok(_) => Err("the record is no JSON object".into()),
        Err(error) => Err(format!("not valid JSON: {error}")),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn read(name: &str, content: &[u8]) -> Result<Vec<Map<String, Value>>, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        std::fs::write(&file, content).unwrap();
        let said = |error: Error| error.to_string().replace(&format!("{}/", folder.path().display()), "");
        read_records(&file).map_err(said)
    }

    #[test]
    fn lines_are_records() {
        let records = read("a.jsonl", "\u{feff}{\"b\": 1, \"a\": [\"é\"]}\r\n\n{}\n".as_bytes()).unwrap();
        assert_eq!(serde_json::to_string(&records).unwrap(), "[{\"b\":1,\"a\":[\"é\"]},{}]");
    }

    #[test]
    fn what_is_wrong_names_file_and_line() {
        let problem = |name: &str, content: &str| read(name, content.as_bytes()).unwrap_err();
        assert!(problem("a.jsonl", "{}\n\n{x}").starts_with("a.jsonl, line 3: not valid JSON: "));
        assert_eq!(problem("a.ndjson", "[1]"), "a.ndjson, line 1: the record is no JSON object");
        assert_eq!(problem("a.jsonl", " \n"), "a.jsonl: no record in it");
        assert_eq!(problem("a.csv", "a,b"), "a.csv: records are not read from files of type `csv`");
        assert_eq!(
            problem("a.Parquet", "PAR1"),
            "a.Parquet: not a Parquet file that can be read: it does not end as Parquet files do: it may have been cut off"
        );
        assert!(read("a.jsonl", b"{\"a\": \"\xff\"}").unwrap_err().contains("UTF-8"));
    }
}
