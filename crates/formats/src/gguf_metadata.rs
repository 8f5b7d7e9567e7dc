//! The typed key/value pairs of a GGUF file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// Metadata of a GGUF file, in file order.
#[derive(Debug, Clone)]
pub struct GgufMetadata {
    file: PathBuf,
    version: u32,
    entries: Vec<(String, GgufValue)>,
    index: HashMap<String, usize>,
}

/// A value of GGUF metadata.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the types of the format")]
pub enum GgufValue {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Str(String),
    Array(GgufArray),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// An array of GGUF metadata: all items are of one type.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the types of the format")]
pub enum GgufArray {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    Str(Vec<String>),
    Array(Vec<GgufArray>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

/// Turns the error of a missing key into None: `optional(metadata.f64("llama.rope.freq_base"))?.unwrap_or(10_000.0)`.
///
/// # Errors
/// Every other error stays: a key that is there must have the right type.
pub fn optional<T>(value: Result<T, Error>) -> Result<Option<T>, Error> {
    match value {
        Ok(value) => Ok(Some(value)),
        Err(Error::MissingKey { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The accessors fail with [`Error::MissingKey`] where the key is missing and with [`Error::WrongKeyType`] where its
/// value is of another kind or out of range. Numbers may have any width in the file.
impl GgufMetadata {
    /// # Errors
    /// A key that appears twice.
    pub(crate) fn new(file: &Path, version: u32, entries: Vec<(String, GgufValue)>) -> Result<GgufMetadata, Error> {
        let mut index = HashMap::with_capacity(entries.len());
        for (position, (key, _)) in entries.iter().enumerate() {
            if index.insert(key.clone(), position).is_some() {
                return Err(Error::DuplicateKey { file: file.into(), key: key.clone() });
            }
        }
        Ok(GgufMetadata { file: file.into(), version, entries, index })
    }

    /// Metadata that is about to be written; `file` is named in errors.
    ///
    /// # Errors
    /// A key that appears twice.
    pub fn from_entries(file: &Path, entries: Vec<(String, GgufValue)>) -> Result<GgufMetadata, Error> {
        GgufMetadata::new(file, 3, entries)
    }

    /// The file that holds it (of a split set, the first).
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Version of the format, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// All pairs, in file order.
    pub fn entries(&self) -> &[(String, GgufValue)] {
        &self.entries
    }

    /// The value as it is in the file.
    pub fn get(&self, key: &str) -> Option<&GgufValue> {
        Some(&self.entries[*self.index.get(key)?].1)
    }

    /// A string.
    pub fn str(&self, key: &str) -> Result<&str, Error> {
        match self.value(key)? {
            GgufValue::Str(value) => Ok(value),
            other => Err(self.wrong(key, "a string", other)),
        }
    }

    /// A boolean.
    pub fn bool(&self, key: &str) -> Result<bool, Error> {
        match self.value(key)? {
            GgufValue::Bool(value) => Ok(*value),
            other => Err(self.wrong(key, "a boolean", other)),
        }
    }

    /// A whole number that is not negative.
    pub fn u64(&self, key: &str) -> Result<u64, Error> {
        let value = self.value(key)?;
        let number = value.as_integer().and_then(|n| u64::try_from(n).ok());
        number.ok_or_else(|| self.wrong(key, "a whole number from 0 to 2^64 - 1", value))
    }

    /// A whole number that is not negative, as a size or an index.
    pub fn usize(&self, key: &str) -> Result<usize, Error> {
        let value = self.value(key)?;
        let number = value.as_integer().and_then(|n| usize::try_from(n).ok());
        number.ok_or_else(|| self.wrong(key, "a whole number that is not negative", value))
    }

    /// A whole number.
    pub fn i64(&self, key: &str) -> Result<i64, Error> {
        let value = self.value(key)?;
        let number = value.as_integer().and_then(|n| i64::try_from(n).ok());
        number.ok_or_else(|| self.wrong(key, "a whole number below 2^63", value))
    }

    /// A number, whole or not.
    pub fn f64(&self, key: &str) -> Result<f64, Error> {
        let value = self.value(key)?;
        match value {
            GgufValue::F32(number) => Ok(f64::from(*number)),
            GgufValue::F64(number) => Ok(*number),
            other => match other.as_integer() {
                Some(number) => Ok(number as f64),
                None => Err(self.wrong(key, "a number", value)),
            },
        }
    }

    /// An array of any type.
    pub fn array(&self, key: &str) -> Result<&GgufArray, Error> {
        match self.value(key)? {
            GgufValue::Array(array) => Ok(array),
            other => Err(self.wrong(key, "an array", other)),
        }
    }

    /// An array of strings.
    pub fn strs(&self, key: &str) -> Result<&[String], Error> {
        match self.value(key)? {
            GgufValue::Array(GgufArray::Str(items)) => Ok(items),
            other => Err(self.wrong(key, "an array of strings", other)),
        }
    }

    /// An array of booleans.
    pub fn bools(&self, key: &str) -> Result<&[bool], Error> {
        match self.value(key)? {
            GgufValue::Array(GgufArray::Bool(items)) => Ok(items),
            other => Err(self.wrong(key, "an array of booleans", other)),
        }
    }

    /// An array of whole numbers below 2^63.
    pub fn i64s(&self, key: &str) -> Result<Vec<i64>, Error> {
        let value = self.value(key)?;
        let items = match value {
            GgufValue::Array(array) => array.to_i64s(),
            _ => None,
        };
        items.ok_or_else(|| self.wrong(key, "an array of whole numbers", value))
    }

    /// An array of floats, rounded to f32 where the file has f64.
    pub fn f32s(&self, key: &str) -> Result<Vec<f32>, Error> {
        match self.value(key)? {
            GgufValue::Array(GgufArray::F32(items)) => Ok(items.clone()),
            GgufValue::Array(GgufArray::F64(items)) => Ok(items.iter().map(|&x| x as f32).collect()),
            other => Err(self.wrong(key, "an array of floats", other)),
        }
    }

    fn value(&self, key: &str) -> Result<&GgufValue, Error> {
        self.get(key).ok_or_else(|| Error::MissingKey { file: self.file.clone(), key: key.to_owned() })
    }

    fn wrong(&self, key: &str, expected: &'static str, found: &GgufValue) -> Error {
        Error::WrongKeyType { file: self.file.clone(), key: key.to_owned(), expected, found: found.describe() }
    }
}

impl GgufValue {
    fn as_integer(&self) -> Option<i128> {
        match self {
            GgufValue::U8(n) => Some(i128::from(*n)),
            GgufValue::I8(n) => Some(i128::from(*n)),
            GgufValue::U16(n) => Some(i128::from(*n)),
            GgufValue::I16(n) => Some(i128::from(*n)),
            GgufValue::U32(n) => Some(i128::from(*n)),
            GgufValue::I32(n) => Some(i128::from(*n)),
            GgufValue::U64(n) => Some(i128::from(*n)),
            GgufValue::I64(n) => Some(i128::from(*n)),
            _ => None,
        }
    }

    /// The value in the words of an error message: numbers as they are, longer things by type and length.
    fn describe(&self) -> String {
        match self {
            GgufValue::F32(x) => format!("the float {x}"),
            GgufValue::F64(x) => format!("the float {x}"),
            GgufValue::Bool(x) => format!("the boolean {x}"),
            GgufValue::Str(text) => format!("a string of {} bytes", text.len()),
            GgufValue::Array(array) => {
                format!("an array of {} {} items", array.len(), array.item_type())
            }
            integer => format!("the {} {}", integer.type_name(), integer.as_integer().unwrap_or_default()),
        }
    }

    /// The format's name of the type, as `u32`.
    pub fn type_name(&self) -> &'static str {
        TYPE_NAMES[self.type_id() as usize]
    }

    /// The format's number of the type (`gguf_metadata_value_type`).
    pub(crate) fn type_id(&self) -> u32 {
        match self {
            GgufValue::U8(_) => 0,
            GgufValue::I8(_) => 1,
            GgufValue::U16(_) => 2,
            GgufValue::I16(_) => 3,
            GgufValue::U32(_) => 4,
            GgufValue::I32(_) => 5,
            GgufValue::F32(_) => 6,
            GgufValue::Bool(_) => 7,
            GgufValue::Str(_) => 8,
            GgufValue::Array(_) => 9,
            GgufValue::U64(_) => 10,
            GgufValue::I64(_) => 11,
            GgufValue::F64(_) => 12,
        }
    }
}

impl GgufArray {
    /// How many items it has.
    pub fn len(&self) -> usize {
        match self {
            GgufArray::U8(items) => items.len(),
            GgufArray::I8(items) => items.len(),
            GgufArray::U16(items) => items.len(),
            GgufArray::I16(items) => items.len(),
            GgufArray::U32(items) => items.len(),
            GgufArray::I32(items) => items.len(),
            GgufArray::F32(items) => items.len(),
            GgufArray::Bool(items) => items.len(),
            GgufArray::Str(items) => items.len(),
            GgufArray::Array(items) => items.len(),
            GgufArray::U64(items) => items.len(),
            GgufArray::I64(items) => items.len(),
            GgufArray::F64(items) => items.len(),
        }
    }

    /// Whether it has no items.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The format's name of the items' type, as `u32`.
    pub fn item_type(&self) -> &'static str {
        TYPE_NAMES[self.item_type_id() as usize]
    }

    /// The format's number of the items' type.
    pub(crate) fn item_type_id(&self) -> u32 {
        match self {
            GgufArray::U8(_) => 0,
            GgufArray::I8(_) => 1,
            GgufArray::U16(_) => 2,
            GgufArray::I16(_) => 3,
            GgufArray::U32(_) => 4,
            GgufArray::I32(_) => 5,
            GgufArray::F32(_) => 6,
            GgufArray::Bool(_) => 7,
            GgufArray::Str(_) => 8,
            GgufArray::Array(_) => 9,
            GgufArray::U64(_) => 10,
            GgufArray::I64(_) => 11,
            GgufArray::F64(_) => 12,
        }
    }

    /// Levels of arrays: 1 for an array of anything else.
    pub(crate) fn depth(&self) -> usize {
        match self {
            GgufArray::Array(items) => 1 + items.iter().map(GgufArray::depth).max().unwrap_or(0),
            _ => 1,
        }
    }

    fn to_i64s(&self) -> Option<Vec<i64>> {
        match self {
            GgufArray::U8(items) => Some(items.iter().map(|&n| i64::from(n)).collect()),
            GgufArray::I8(items) => Some(items.iter().map(|&n| i64::from(n)).collect()),
            GgufArray::U16(items) => Some(items.iter().map(|&n| i64::from(n)).collect()),
            GgufArray::I16(items) => Some(items.iter().map(|&n| i64::from(n)).collect()),
            GgufArray::U32(items) => Some(items.iter().map(|&n| i64::from(n)).collect()),
            GgufArray::I32(items) => Some(items.iter().map(|&n| i64::from(n)).collect()),
            GgufArray::U64(items) => items.iter().map(|&n| i64::try_from(n).ok()).collect(),
            GgufArray::I64(items) => Some(items.clone()),
            _ => None,
        }
    }
}

const TYPE_NAMES: [&str; 13] =
    ["u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64"];

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn metadata(entries: Vec<(&str, GgufValue)>) -> Result<GgufMetadata, Error> {
        let entries = entries.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        GgufMetadata::new(Path::new("m.gguf"), 3, entries)
    }

    #[test]
    fn numbers_of_any_width() {
        let m = metadata(vec![
            ("u8", GgufValue::U8(7)),
            ("i64", GgufValue::I64(-1)),
            ("u64", GgufValue::U64(u64::MAX)),
            ("f32", GgufValue::F32(0.5)),
            ("ids", GgufValue::Array(GgufArray::I32(vec![-1, 3]))),
        ])
        .unwrap();
        assert_eq!(m.u64("u8").unwrap(), 7);
        assert_eq!(m.usize("u8").unwrap(), 7);
        assert_eq!(m.f64("u8").unwrap(), 7.0);
        assert_eq!(m.i64("i64").unwrap(), -1);
        assert_eq!(m.u64("u64").unwrap(), u64::MAX);
        assert_eq!(m.f64("f32").unwrap(), 0.5);
        assert_eq!(m.i64s("ids").unwrap(), [-1, 3]);
        assert!(m.u64("i64").is_err() && m.i64("u64").is_err() && m.u64("f32").is_err());
    }

    #[test]
    fn errors_name_file_key_and_types() {
        let m = metadata(vec![("tokens", GgufValue::Array(GgufArray::F32(vec![1.0]))), ("size", GgufValue::I32(-4))])
            .unwrap();
        assert_eq!(
            m.strs("tokens").unwrap_err().to_string(),
            "m.gguf: the metadata key \"tokens\" should be an array of strings, but is an array of 1 f32 items"
        );
        assert_eq!(
            m.u64("size").unwrap_err().to_string(),
            "m.gguf: the metadata key \"size\" should be a whole number from 0 to 2^64 - 1, but is the i32 -4"
        );
        assert_eq!(m.str("name").unwrap_err().to_string(), "m.gguf: the metadata key \"name\" is missing");
        assert_eq!(optional(m.str("name")).unwrap(), None);
        assert!(optional(m.str("size")).is_err());
    }

    #[test]
    fn a_key_appears_once() {
        let twice = metadata(vec![("a", GgufValue::U8(1)), ("a", GgufValue::U8(1))]);
        assert!(matches!(twice, Err(Error::DuplicateKey { key, .. }) if key == "a"));
    }
}
