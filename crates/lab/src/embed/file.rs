//! Files of vectors: JSON lines, NumPy arrays, Parquet; in f32, f16, or bytes with a scale for each vector.
//!
//! | | f32 | f16 | int8 |
//! |---|---|---|---|
//! | `.jsonl` | `vector` | `vector`, rounded | `scale` and `vector` of whole numbers |
//! | `.npy` | `<f4` `[n, width]` | `<f2` | `\|i1`, and the scales in `NAME.npy.scales.npy` |
//! | `.parquet` | list of floats | – | `scale`, list of 8-bit integers |

mod npy;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use lathe_formats::NewFile;
use lathe_kernels::weights::{f16_to_f32, f32_to_f16};
use lathe_measure::embedding::Vectors;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Error;
use crate::records::{Column, read_records, write_table};

/// How a number of a vector is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoredAs {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit floats, rounded to nearest.
    F16,
    /// Whole numbers from −127 to 127, times a scale for each vector: its largest magnitude / 127.
    Int8,
}

/// The format of a file, by the end of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileFormat {
    JsonLines,
    Npy,
    Parquet,
}

impl FileFormat {
    /// # Errors
    /// Another ending.
    pub(super) fn of(file: &Path) -> Result<Self, Error> {
        let extension = file.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
        match extension.as_str() {
            "jsonl" | "ndjson" => Ok(Self::JsonLines),
            "npy" => Ok(Self::Npy),
            "parquet" => Ok(Self::Parquet),
            _ => Err(Error::Spec {
                field: "--out",
                problem: format!("{}: vectors are not written to files of this name", file.display()),
                hint: Some("end it in .jsonl, .npy or .parquet".into()),
            }),
        }
    }

    /// Whether numbers can be stored so.
    ///
    /// # Errors
    /// They cannot.
    pub(super) fn check(self, stored: StoredAs) -> Result<(), Error> {
        if (self, stored) == (Self::Parquet, StoredAs::F16) {
            return Err(Error::Spec {
                field: "--dtype",
                problem: "few readers of Parquet know 16-bit floats".into(),
                hint: Some("f32 or int8; or write .npy".into()),
            });
        }
        Ok(())
    }
}

/// The file that says what vectors are.
pub(super) fn manifest_of(file: &Path) -> PathBuf {
    beside(file, ".manifest.json")
}

/// The scales of a NumPy array of bytes.
pub(super) fn scales_of(file: &Path) -> PathBuf {
    beside(file, ".scales.npy")
}

pub(super) fn beside(file: &Path, more: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(more);
    name.into()
}

/// A row of JSON lines.
#[derive(Serialize)]
struct Line<'a> {
    index: usize,
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    scale: Option<f32>,
    vector: Numbers<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Numbers<'a> {
    Floats(&'a [f32]),
    Bytes(&'a [i8]),
}

/// Writes vectors and their texts; the files that were written, the named one last.
///
/// # Errors
/// The system refuses; a number is too large for a 16-bit float.
pub(super) fn write(out: &Path, stored: StoredAs, texts: &[String], vectors: &Vectors) -> Result<Vec<PathBuf>, Error> {
    let format = FileFormat::of(out)?;
    format.check(stored)?;
    let width = vectors.width();
    let small = (stored == StoredAs::Int8).then(|| vectors.rows().map(to_bytes).collect::<Vec<(f32, Vec<i8>)>>());
    let scales: Vec<f32> = small.iter().flatten().map(|(scale, _)| *scale).collect();
    let bytes: Vec<i8> = small.into_iter().flatten().flat_map(|(_, bytes)| bytes).collect();
    let halves = if stored == StoredAs::F16 { to_halves(vectors)? } else { Vec::new() };
    let mut files = Vec::new();
    match format {
        FileFormat::JsonLines => {
            let rounded = match stored {
                StoredAs::F16 => Cow::Owned(from_halves(&halves)),
                StoredAs::F32 | StoredAs::Int8 => Cow::Borrowed(vectors.values()),
            };
            let mut file = NewFile::create(out)?;
            for (index, text) in texts.iter().enumerate() {
                let of = index * width..(index + 1) * width;
                let line = match stored {
                    StoredAs::Int8 => {
                        Line { index, text, scale: Some(scales[index]), vector: Numbers::Bytes(&bytes[of]) }
                    }
                    StoredAs::F32 | StoredAs::F16 => {
                        Line { index, text, scale: None, vector: Numbers::Floats(&rounded[of]) }
                    }
                };
                let mut line = serde_json::to_vec(&line)?;
                line.push(b'\n');
                file.append(&line)?;
            }
            file.finish()?;
        }
        FileFormat::Npy => {
            let shape = [vectors.len(), width];
            match stored {
                StoredAs::F32 => npy::write(out, "<f4", &shape, vectors.values().iter().map(|x| x.to_le_bytes()))?,
                StoredAs::F16 => npy::write(out, "<f2", &shape, halves.as_chunks::<2>().0.iter().copied())?,
                StoredAs::Int8 => {
                    let of_scales = scales_of(out);
                    npy::write(&of_scales, "<f4", &shape[..1], scales.iter().map(|x| x.to_le_bytes()))?;
                    files.push(of_scales);
                    npy::write(out, "|i1", &shape, bytes.iter().map(|x| x.to_le_bytes()))?;
                }
            }
        }
        FileFormat::Parquet => {
            let indices: Vec<i64> = (0..vectors.len() as i64).collect();
            let mut columns = vec![("index", Column::Whole(&indices)), ("text", Column::Text(texts))];
            if stored == StoredAs::Int8 {
                columns.push(("scale", Column::Float(&scales)));
                columns.push(("vector", Column::ByteList(width, &bytes)));
            } else {
                columns.push(("vector", Column::FloatList(width, vectors.values())));
            }
            let mut file = NewFile::create(out)?;
            write_table(&columns, &mut |bytes| file.append(bytes))?;
            file.finish()?;
        }
    }
    files.push(out.to_owned());
    Ok(files)
}

/// Vectors of a file, and their texts where the file has them.
pub(super) struct Embedded {
    pub(super) vectors: Vectors,
    pub(super) texts: Option<Vec<String>>,
}

/// Reads what [`write`] has written.
///
/// # Errors
/// The file cannot be read, or is no such file.
pub(super) fn read(file: &Path) -> Result<Embedded, Error> {
    let fault = |problem: String| Error::Embedded { file: file.to_owned(), problem };
    let (vectors, texts) = match FileFormat::of(file)? {
        FileFormat::Npy => (npy::read(file, &scales_of(file))?, None),
        FileFormat::JsonLines | FileFormat::Parquet => {
            let (mut values, mut texts, mut width) = (Vec::new(), Vec::new(), None);
            for (index, record) in read_records(file)?.iter().enumerate() {
                let vector = vector_of(record).map_err(|problem| fault(format!("record {}: {problem}", index + 1)))?;
                if *width.get_or_insert(vector.len()) != vector.len() {
                    let problem = format!(
                        "record {}: {} numbers after vectors of {}",
                        index + 1,
                        vector.len(),
                        width.unwrap_or(0)
                    );
                    return Err(fault(problem));
                }
                values.extend(vector);
                texts.extend(record.get("text").and_then(Value::as_str).map(str::to_owned));
            }
            let vectors = Vectors::new(width.unwrap_or(0), values).map_err(|error| fault(error.to_string()))?;
            let texts = (texts.len() == vectors.len()).then_some(texts);
            (vectors, texts)
        }
    };
    Ok(Embedded { vectors, texts })
}

fn vector_of(record: &Map<String, Value>) -> Result<Vec<f32>, String> {
    let scale = match record.get("scale") {
        Some(scale) => scale.as_f64().ok_or("`scale` is no number")? as f32,
        None => 1.0,
    };
    let numbers = record.get("vector").and_then(Value::as_array).ok_or("it has no list `vector`")?;
    let number = |value: &Value| Some(value.as_f64()? as f32 * scale);
    numbers.iter().map(number).collect::<Option<Vec<f32>>>().ok_or_else(|| "`vector` has what is no number".to_owned())
}

/// The scale of a vector and its values in units of it.
fn to_bytes(vector: &[f32]) -> (f32, Vec<i8>) {
    let largest = vector.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    let scale = largest / 127.0;
    // The largest value may be too small to have a 127th.
    let in_units = |x: &f32| if scale == 0.0 { 0.0 } else { (x / scale).round_ties_even().clamp(-127.0, 127.0) };
    (scale, vector.iter().map(|x| in_units(x) as i8).collect())
}

/// Little-endian bytes of 16-bit floats.
fn to_halves(vectors: &Vectors) -> Result<Vec<u8>, Error> {
    let mut halves = vec![0; 2 * vectors.values().len()];
    if f32_to_f16(vectors.values(), &mut halves) {
        return Ok(halves);
    }
    let largest = vectors.values().iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    let problem = format!("a vector has the value {largest}, and 16-bit floats end at 65504");
    Err(Error::Spec { field: "--dtype", problem, hint: Some("f32; or vectors of length 1 with --normalise".into()) })
}

fn from_halves(halves: &[u8]) -> Vec<f32> {
    let mut values = vec![0.0; halves.len() / 2];
    f16_to_f32(halves, &mut values);
    values
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn example() -> (Vec<String>, Vectors) {
        let texts = ["a", "", "c\n"].map(str::to_owned).to_vec();
        (texts, Vectors::new(3, vec![1.0, -2.5, 0.1, 0.0, 0.0, 0.0, 1e-3, 65000.0, -3.0]).unwrap())
    }

    #[test]
    fn what_is_written_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let (texts, vectors) = example();
        for (name, has_texts) in [("a.jsonl", true), ("a.npy", false), ("a.parquet", true)] {
            let file = folder.path().join(name);
            write(&file, StoredAs::F32, &texts, &vectors).unwrap();
            let found = read(&file).unwrap();
            assert_eq!(found.vectors, vectors, "{name}");
            assert_eq!(found.texts, has_texts.then(|| texts.clone()), "{name}");
        }
    }

    #[test]
    fn fewer_bits_are_the_nearest_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let (texts, vectors) = example();
        for name in ["a.jsonl", "a.npy", "a.parquet"] {
            let file = folder.path().join(name);
            write(&file, StoredAs::Int8, &texts, &vectors).unwrap();
            let found = read(&file).unwrap().vectors;
            for (found, row) in found.rows().zip(vectors.rows()) {
                let scale = row.iter().fold(0.0f32, |most, x| most.max(x.abs())) / 127.0;
                assert!(found.iter().zip(row).all(|(a, b)| (a - b).abs() <= 0.501 * scale), "{found:?} {row:?}");
            }
        }
        for name in ["b.jsonl", "b.npy"] {
            let file = folder.path().join(name);
            write(&file, StoredAs::F16, &texts, &vectors).unwrap();
            let found = read(&file).unwrap().vectors;
            assert!(found.values().iter().zip(vectors.values()).all(|(a, b)| (a - b).abs() <= 5e-4 * b.abs() + 1e-7));
            assert_ne!(found, vectors);
        }
        assert!(FileFormat::Parquet.check(StoredAs::F16).is_err());
        let large = Vectors::new(1, vec![70000.0]).unwrap();
        let error = write(&folder.path().join("c.npy"), StoredAs::F16, &texts[..1], &large).unwrap_err();
        assert!(error.to_string().contains("65504"), "{error}");
    }

    #[test]
    fn what_is_no_such_file() {
        let folder = tempfile::tempdir().unwrap();
        let said = |name: &str, content: &str| {
            let file = folder.path().join(name);
            std::fs::write(&file, content).unwrap();
            read(&file).err().unwrap().to_string().replace(&format!("{}/", folder.path().display()), "")
        };
        assert!(said("a.jsonl", "{\"vector\": [1, 2]}\n{\"vector\": [1]}\n").contains("record 2: 1 numbers"));
        assert!(said("a.jsonl", "{\"text\": \"x\"}\n").contains("record 1: it has no list `vector`"));
        assert!(said("a.jsonl", "{\"vector\": [\"x\"]}\n").contains("no number"));
        assert!(said("a.jsonl", "{\"vector\": []}\n").contains("a.jsonl"));
        assert!(said("a.jsonl", "{\"vector\": [1e300]}\n").contains("inf"));
        assert!(said("a.csv", "1").contains("--out"));
    }
}
