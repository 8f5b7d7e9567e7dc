//! Rows of a task's files, whatever their layout, and fields of a row with what is wrong with them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lathe_model::reference::data_file;
use serde_json::{Map, Value};

use super::task::{Encoding, Layout, Source};
use crate::records::read_records;
use crate::{Context, Error};

/// A row, and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) file: Arc<Path>,
    /// Number of the row in its file, from 1.
    pub(super) record: usize,
    pub(super) fields: Map<String, Value>,
}

/// Where the files of a task are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// The task, for messages.
    pub(super) task: &'a str,
    /// The folder that its files are named from.
    pub(super) folder: &'a Path,
    /// The file of sources that name none.
    pub(super) data: Option<&'a Path>,
}

/// The rows of several files, one file after the other.
///
/// # Errors
/// A file cannot be read, is not of its layout, or has no row.
pub(super) fn rows(sources: &[Source], place: &Place<'_>, context: &Context<'_>) -> Result<Vec<Row>, Error> {
    let mut all = Vec::new();
    for source in sources {
        let file: Arc<Path> = locate(source, place, context)?.into();
        let read = read_rows(source, &file)?;
        if read.is_empty() {
            return Err(Error::NoRecord { file: file.to_path_buf() });
        }
        let taken = |record: &usize| {
            source.rows.is_none_or(|rows| *record >= rows.first && (record - rows.first).is_multiple_of(rows.every))
        };
        for (record, mut fields) in (1..).zip(read).filter(|(record, _)| taken(record)) {
            fields.extend(source.constants.iter().map(|(key, value)| (key.clone(), value.clone())));
            all.push(Row { file: file.clone(), record, fields });
        }
    }
    Ok(all)
}

/// The numbers of each line of a table.
///
/// # Errors
/// The file cannot be read; something in it is no finite number.
pub(super) fn numbers(source: &Source, place: &Place<'_>, context: &Context<'_>) -> Result<Vec<Vec<f64>>, Error> {
    let file = locate(source, place, context)?;
    let content = whole(&file)?;
    let number = |(index, line): (usize, &[u8])| {
        let line = decoded(line, source.encoding, &file, index + 1)?;
        let bad = |word: &str| Error::Record {
            file: file.clone(),
            line: index + 1,
            problem: format!("`{word}` is no number"),
            expected: "each line is one row of a matrix of similarities, with tabs or blanks between numbers",
        };
        let numbers = line
            .split_whitespace()
            .map(|word| word.parse().ok().filter(|number: &f64| number.is_finite()).ok_or_else(|| bad(word)));
        numbers.collect()
    };
    lines(&content).filter(|(_, line)| !line.trim_ascii().is_empty()).map(number).collect()
}

impl Row {
    /// An error that names this row.
    pub(super) fn refused(&self, place: &Place<'_>, problem: String) -> Error {
        Error::Question {
            task: place.task.to_owned(),
            file: self.file.to_path_buf(),
            record: self.record,
            problem,
            hint: "the task file says which fields of a row are read",
        }
    }

    /// A text.
    pub(super) fn text(&self, key: &str, place: &Place<'_>) -> Result<String, Error> {
        match self.field(key, place)? {
            Value::String(text) => Ok(text.clone()),
            other => Err(self.refused(place, format!("`{key}` is {}, not a text", kind(other)))),
        }
    }

    /// Texts: a list of them, or one.
    pub(super) fn texts(&self, key: &str, place: &Place<'_>) -> Result<Vec<String>, Error> {
        let value = self.field(key, place)?;
        let text = |value: &Value| match value {
            Value::String(text) => Ok(text.clone()),
            other => Err(self.refused(place, format!("`{key}` has {} in it, not only texts", kind(other)))),
        };
        match value {
            Value::Array(list) => list.iter().map(text).collect(),
            one => Ok(vec![text(one)?]),
        }
    }

    /// A finite number; one that stands in a table is text.
    pub(super) fn number(&self, key: &str, place: &Place<'_>) -> Result<f64, Error> {
        self.as_number(self.field(key, place)?, key, place)
    }

    /// Finite numbers: a list of them, or one.
    pub(super) fn numbers(&self, key: &str, place: &Place<'_>) -> Result<Vec<f64>, Error> {
        match self.field(key, place)? {
            Value::Array(list) => list.iter().map(|value| self.as_number(value, key, place)).collect(),
            one => Ok(vec![self.as_number(one, key, place)?]),
        }
    }

    /// A label: a text, a whole number or a flag.
    pub(super) fn label(&self, key: &str, place: &Place<'_>) -> Result<String, Error> {
        self.as_label(self.field(key, place)?, key, place)
    }

    /// Labels: a list of them, or one.
    pub(super) fn labels(&self, key: &str, place: &Place<'_>) -> Result<Vec<String>, Error> {
        match self.field(key, place)? {
            Value::Array(list) => list.iter().map(|value| self.as_label(value, key, place)).collect(),
            one => Ok(vec![self.as_label(one, key, place)?]),
        }
    }

    /// Yes or no of 1 or 0, true or false; a list of them, or one.
    pub(super) fn flags(&self, key: &str, place: &Place<'_>) -> Result<Vec<bool>, Error> {
        let flag = |value: &Value| match value {
            Value::Bool(flag) => Ok(*flag),
            other => match self.as_number(other, key, place)? {
                1.0 => Ok(true),
                0.0 => Ok(false),
                number => Err(self.refused(place, format!("`{key}` is {number}, not 0 or 1"))),
            },
        };
        match self.field(key, place)? {
            Value::Array(list) => list.iter().map(flag).collect(),
            one => Ok(vec![flag(one)?]),
        }
    }

    /// Whether the field is a list.
    pub(super) fn is_list(&self, key: &str) -> bool {
        self.fields.get(key).is_some_and(Value::is_array)
    }

    fn field(&self, key: &str, place: &Place<'_>) -> Result<&Value, Error> {
        self.fields.get(key).ok_or_else(|| {
            let mut names: Vec<&str> = self.fields.keys().map(String::as_str).collect();
            names.truncate(12);
            self.refused(place, format!("there is no field `{key}` among {}", names.join(", ")))
        })
    }

    fn as_number(&self, value: &Value, key: &str, place: &Place<'_>) -> Result<f64, Error> {
        let number = match value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        number
            .filter(|number| number.is_finite())
            .ok_or_else(|| self.refused(place, format!("`{key}` is {}, not a finite number", kind(value))))
    }

    fn as_label(&self, value: &Value, key: &str, place: &Place<'_>) -> Result<String, Error> {
        match value {
            Value::String(text) => Ok(text.clone()),
            Value::Bool(flag) => Ok(flag.to_string()),
            Value::Number(number) if number.is_i64() || number.is_u64() => Ok(number.to_string()),
            other => Err(self.refused(place, format!("`{key}` is {}, not a label", kind(other)))),
        }
    }
}

fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("`{}`", text.chars().take(40).collect::<String>()),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
    }
}

/// Path of a source.
fn locate(source: &Source, place: &Place<'_>, context: &Context<'_>) -> Result<PathBuf, Error> {
    match (&source.package, &source.file) {
        (Some(package), Some(file)) => Ok(data_file(package, &file.to_string_lossy(), context.home)?),
        (None, Some(file)) => Ok(place.folder.join(file)),
        (_, None) => place.data.map(Path::to_owned).ok_or_else(|| Error::Spec {
            field: "--task",
            problem: format!("the task {} has no data of its own", place.task),
            hint: Some("name its file with --data; docs/methods/embedding-tasks.md says where it comes from".into()),
        }),
    }
}

fn read_rows(source: &Source, file: &Path) -> Result<Vec<Map<String, Value>>, Error> {
    let extension = file.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
    let layout = source.layout.unwrap_or(if extension == "tsv" { Layout::Tsv } else { Layout::Records });
    if layout == Layout::Records {
        return read_records(file);
    }
    let content = whole(file)?;
    if layout == Layout::Documents {
        let text = |(index, bytes): (usize, &[u8])| {
            Ok(one("text", decoded(bytes, source.encoding, file, index + 1)?.trim().to_owned()))
        };
        let documents = content.split(|byte| *byte == b'\x0c').filter(|bytes| !bytes.trim_ascii().is_empty());
        return documents.enumerate().map(text).collect();
    }
    let is_row = |line: &[u8]| {
        let comment = source.comment.as_ref().is_some_and(|mark| line.starts_with(mark.as_bytes()));
        !comment && !line.trim_ascii().is_empty()
    };
    let mut columns = source.columns.clone();
    let mut rows = Vec::new();
    for (index, line) in lines(&content).filter(|(_, line)| is_row(line)) {
        let line = decoded(line, source.encoding, file, index + 1)?;
        let bad = |problem: String, expected| Error::Record { file: file.into(), line: index + 1, problem, expected };
        match layout {
            Layout::Lines => rows.push(one("text", line)),
            Layout::Fasttext => {
                const EXPECTED: &str = "each line is `__label__NAME`, a blank and the text";
                let cut = line.strip_prefix("__label__").and_then(|rest| rest.split_once(' '));
                let (label, text) = cut.ok_or_else(|| bad("it does not begin with a label".into(), EXPECTED))?;
                let mut row = one("label", label.to_owned());
                row.extend(one("text", text.trim().to_owned()));
                rows.push(row);
            }
            // The others have returned.
            Layout::Tsv | Layout::Records | Layout::Documents => {
                let cells: Vec<String> = line.split('\t').map(str::to_owned).collect();
                if columns.is_empty() {
                    columns = cells;
                    continue;
                }
                if cells.len() != columns.len() {
                    let problem = format!("{} columns instead of {}", cells.len(), columns.len());
                    return Err(bad(problem, "every line of a table has as many columns as its heading"));
                }
                rows.push(columns.iter().cloned().zip(cells.into_iter().map(Value::String)).collect());
            }
        }
    }
    Ok(rows)
}

fn one(key: &str, text: String) -> Map<String, Value> {
    Map::from_iter([(key.to_owned(), Value::String(text))])
}

fn whole(file: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = std::fs::read(file).map_err(|source| Error::Read { file: file.into(), source })?;
    // Some editors put a mark of the byte order first.
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    Ok(bytes)
}

/// Lines without their ends, and their places from 0.
fn lines(content: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    content.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)).enumerate()
}

fn decoded(bytes: &[u8], encoding: Encoding, file: &Path, line: usize) -> Result<String, Error> {
    match (std::str::from_utf8(bytes), encoding) {
        (Ok(text), _) => Ok(text.to_owned()),
        (Err(_), Encoding::Windows1252) => Ok(bytes.iter().map(|byte| windows_1252(*byte)).collect()),
        (Err(_), Encoding::Utf8) => Err(Error::Record {
            file: file.into(),
            line,
            problem: "it is not UTF-8".into(),
            expected: "`encoding = \"windows-1252\"` in the task file reads such texts",
        }),
    }
}

/// The character of a byte in Windows-1252; the five bytes that have none there are control characters of their number, as
/// in the WHATWG encoding standard.
fn windows_1252(byte: u8) -> char {
    const FROM_80: [char; 32] = [
        '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}', '‘',
        '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
    ];
    match byte {
        0x80..=0x9f => FROM_80[usize::from(byte - 0x80)],
        other => char::from(other),
    }
}

#[cfg(test)]
mod tests;
