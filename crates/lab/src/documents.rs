//! Texts to measure: plain files, JSON lines, Parquet, the built-in sample.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use lathe_measure::run::Document;
use lathe_measure::tokens::TargetKind;
use lathe_model::reference::data_file;
use lathe_tokenizer::{BosEos, Markup, TokenBytes, Tokenizer};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::records::{json_object, read_records};
use crate::report::Extent;
use crate::{Context, Error, sample};

/// Where texts come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum DataReference {
    /// The built-in sample, or one text of it (`sample:french`).
    Sample(Option<String>),
    /// A file: Parquet when it ends in `.parquet`, JSON lines when it ends in `.jsonl`, else plain text.
    File(PathBuf),
}

impl From<String> for DataReference {
    fn from(text: String) -> Self {
        match text.strip_prefix("sample") {
            Some("") => Self::Sample(None),
            Some(rest) if rest.starts_with(':') => Self::Sample(Some(rest[1..].into())),
            _ => Self::File(text.into()),
        }
    }
}

impl From<DataReference> for String {
    fn from(data: DataReference) -> Self {
        match data {
            DataReference::Sample(None) => "sample".into(),
            DataReference::Sample(Some(name)) => format!("sample:{name}"),
            DataReference::File(path) => path.to_string_lossy().into_owned(),
        }
    }
}

/// Some texts: where they are, and which of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Texts {
    /// Name of the fetched data that the files belong to; none for files by their own paths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// The files; each file, or each record of one, is a text.
    pub data: Vec<DataReference>,
    /// Field of records that holds the text.
    #[serde(default = "usual_field")]
    pub field: String,
    /// Which side of the split.
    #[serde(default)]
    pub part: Part,
    /// At most so many of them, from the first; none for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<NonZeroUsize>,
}

/// A side of the split of texts into those that are trained on and those that are not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Both.
    #[default]
    All,
    /// Nine tenths.
    Training,
    /// A tenth. Which texts, depends on the SHA-256 of each alone: equal texts are on one side, and other files, or
    /// another order, move none.
    HeldOut,
}

fn usual_field() -> String {
    "text".into()
}

impl Part {
    fn holds(self, text: &str) -> bool {
        /// Of the 256 values of a first byte.
        const HELD_OUT: u8 = 26;
        let is_held_out = || Sha256::digest(text)[0] < HELD_OUT;
        match self {
            Self::All => true,
            Self::Training => !is_held_out(),
            Self::HeldOut => is_held_out(),
        }
    }
}

/// Reads the texts of one side of a split.
///
/// # Errors
/// As [`read_documents`]; the data have not been fetched; no text is on that side.
pub(crate) fn read_texts(texts: &Texts, context: &Context<'_>) -> Result<Vec<TextDocument>, Error> {
    let data: Vec<DataReference> = match &texts.package {
        Some(package) => {
            let files = texts.data.iter().map(|name| data_file(package, &String::from(name.clone()), context.home));
            files.map(|file| file.map(DataReference::File)).collect::<Result<_, _>>()?
        }
        None => texts.data.clone(),
    };
    let mut documents = read_documents(&data, &texts.field)?;
    let all = documents.len();
    documents.retain(|document| texts.part.holds(&document.text));
    if let Some(most) = texts.at_most {
        documents.truncate(most.get());
    }
    if documents.is_empty() {
        let problem = format!("none of {all} texts is on the side of the split that is asked for");
        let hint = Some("a tenth of many texts is held out, and often none of a few".into());
        return Err(Error::Spec { field: "part", problem, hint });
    }
    Ok(documents)
}

/// A text with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextDocument {
    /// For messages and tables.
    pub name: String,
    /// The text.
    pub text: String,
}

/// Reads texts; `field` names the field of JSON records.
///
/// # Errors
/// A file cannot be read, is not UTF-8, or has no text; a record lacks the field.
pub fn read_documents(data: &[DataReference], field: &str) -> Result<Vec<TextDocument>, Error> {
    let mut documents = Vec::new();
    for reference in data {
        match reference {
            DataReference::Sample(None) => documents.extend(sample::texts().iter().map(of_sample)),
            DataReference::Sample(Some(name)) => {
                let text = sample::texts().iter().find(|text| text.name == *name);
                documents.push(of_sample(text.ok_or_else(|| Error::UnknownSample { name: name.clone() })?));
            }
            DataReference::File(file) => documents.extend(read_file(file, field)?),
        }
    }
    Ok(documents)
}

fn of_sample(text: &sample::SampleText) -> TextDocument {
    TextDocument { name: text.name.clone(), text: text.part(Extent::Full).into() }
}

fn read_file(file: &Path, field: &str) -> Result<Vec<TextDocument>, Error> {
    let extension = file.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
    if ["csv", "gz", "zst", "zip", "gguf", "safetensors"].contains(&extension.as_str()) {
        return Err(Error::UnknownData { file: file.into(), extension });
    }
    let name = file.file_name().map_or_else(|| file.to_string_lossy(), |name| name.to_string_lossy());
    let document = |number: usize, record: &Map<String, Value>| {
        Ok(TextDocument { name: format!("{name}:{number}"), text: text_of(record, field)? })
    };
    if extension == "parquet" {
        const EXPECTED: &str = "`--field` names the column with the text";
        let rows = read_records(file)?;
        let rows = rows.iter().enumerate().map(|(index, record)| {
            let bad = |problem| Error::Row { file: file.into(), row: index + 1, problem, expected: EXPECTED };
            document(index + 1, record).map_err(bad)
        });
        return rows.collect();
    }
    let text = std::fs::read_to_string(file).map_err(|source| Error::Read { file: file.into(), source })?;
    if text.trim().is_empty() {
        return Err(Error::NoText { file: file.into() });
    }
    if extension != "jsonl" && extension != "ndjson" {
        return Ok(vec![TextDocument { name: name.into_owned(), text }]);
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            const EXPECTED: &str = "each line is one JSON object; `--field` names the field with the text";
            let bad = |problem| Error::Record { file: file.into(), line: index + 1, problem, expected: EXPECTED };
            json_object(line).and_then(|record| document(index + 1, &record)).map_err(bad)
        })
        .collect()
}

/// The text of a record, or what is wrong with it.
fn text_of(record: &Map<String, Value>, field: &str) -> Result<String, String> {
    match record.get(field) {
        Some(Value::String(text)) if text.is_empty() => Err(format!("field `{field}` is empty")),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(format!("field `{field}` is not a string")),
        None => Err(format!("field `{field}` is missing")),
    }
}

/// Tokens of a text as the measurements want them.
pub(crate) fn tokenise(tokenizer: &Tokenizer, text: &str) -> Result<Document, Error> {
    let tokens = tokenizer.encode_with_offsets(text, BosEos::Add, Markup::Text)?;
    let added = tokens.iter().take_while(|token| token.bytes.is_none()).count();
    Ok(Document {
        ids: tokens.iter().map(|token| token.id).collect(),
        bytes: tokens.iter().map(|token| token.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)).collect(),
        kinds: tokens.iter().map(|token| kind(tokenizer, token.id)).collect(),
        added,
    })
}

fn kind(tokenizer: &Tokenizer, id: u32) -> TargetKind {
    match tokenizer.token_bytes(id) {
        TokenBytes::Bytes(_) => TargetKind::Ordinary,
        TokenBytes::Byte(_) => TargetKind::ByteFallback,
        TokenBytes::Control(_) | TokenBytes::Unused => TargetKind::Special,
    }
}

/// Consecutive windows of exactly `window` tokens of all texts, each text's remainder left out, at most `limit` of
/// them, taken from the texts in turn. Every window begins with the start tokens that the tokenizer adds.
pub(crate) fn fixed_windows(documents: &[Document], window: usize, limit: Option<usize>) -> Vec<Vec<u32>> {
    let mut cut: Vec<_> = documents
        .iter()
        .map(|document| {
            let (added, ids) = document.ids.split_at(document.added.min(document.ids.len()));
            (added, ids.chunks_exact(window.saturating_sub(added.len()).max(1)))
        })
        .collect();
    let mut windows = Vec::new();
    loop {
        let before = windows.len();
        for (added, chunks) in &mut cut {
            if limit.is_some_and(|limit| windows.len() >= limit) {
                return windows;
            }
            windows.extend(chunks.next().map(|ids| [added, ids].concat()));
        }
        if windows.len() == before {
            return windows;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_come_from_the_texts_in_turn() {
        let document = |range: std::ops::Range<u32>| Document { ids: range.collect(), ..Document::default() };
        let documents = [document(0..5), document(10..17), document(20..21)];
        assert_eq!(fixed_windows(&documents, 2, None), [[0, 1], [10, 11], [2, 3], [12, 13], [14, 15]]);
        assert_eq!(fixed_windows(&documents, 2, Some(3)).len(), 3);
        assert!(fixed_windows(&documents, 9, None).is_empty());
        let with_start = Document { ids: vec![7, 1, 2, 3, 4], added: 1, ..Document::default() };
        assert_eq!(fixed_windows(&[with_start], 3, None), [[7, 1, 2], [7, 3, 4]]);
    }

    #[test]
    fn the_split_depends_on_each_text_alone() {
        let texts: Vec<String> = (0..2000).map(|i| format!("text {i}")).collect();
        let held_out: Vec<&String> = texts.iter().filter(|text| Part::HeldOut.holds(text)).collect();
        assert!((150..250).contains(&held_out.len()), "{}", held_out.len());
        for text in &texts {
            assert!(Part::All.holds(text));
            assert_ne!(Part::Training.holds(text), Part::HeldOut.holds(text), "{text}");
        }
        // The rule is part of every result that names a side: these stay where they are.
        assert_eq!(held_out[..3], ["text 12", "text 13", "text 19"]);
    }

    #[test]
    fn data_references_read_back() {
        for text in ["sample", "sample:french", "samples.txt", "a/b.jsonl"] {
            assert_eq!(String::from(DataReference::from(text.to_owned())), text);
        }
        assert_eq!(DataReference::from("sample".to_owned()), DataReference::Sample(None));
    }

    #[test]
    fn records_name_their_line_and_field() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.jsonl");
        std::fs::write(&file, "{\"text\": \"x\"}\n\n{\"body\": \"y\"}\n").expect("written");
        let error = read_documents(&[DataReference::File(file.clone())], "text").expect_err("no field");
        assert_eq!(error.to_string(), format!("{}, line 3: field `text` is missing", file.display()));
        // Rows of a Parquet file.
        let table = |field| {
            let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/parquet/flat_snappy.parquet");
            read_documents(&[DataReference::File(file.into())], field)
        };
        let documents = table("split").expect("texts");
        assert_eq!((documents.len(), documents[40].name.as_str()), (41, "flat_snappy.parquet:41"));
        assert_eq!(documents[40].text, "validation");
        let error = table("nothing").expect_err("nulls").to_string();
        assert!(error.ends_with("flat_snappy.parquet, row 1: field `nothing` is not a string"), "{error}");
        let file = folder.path().join("empty.txt");
        std::fs::write(&file, " \n").expect("written");
        assert!(read_documents(&[DataReference::File(file)], "text").is_err());
    }
}
