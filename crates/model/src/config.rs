//! A `config.json` (or a GGUF header in its words) with typed access and errors that name the field.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::Error;

/// The fields of one configuration.
#[derive(Clone, Debug)]
pub struct Config {
    file: PathBuf,
    /// Path of this object inside the file, with a trailing dot; empty at the top.
    prefix: String,
    fields: Map<String, Value>,
}

impl Config {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// The file cannot be read, or is not a JSON object.
    pub fn read(file: &Path) -> Result<Self, Error> {
        match json(file)? {
            Value::Object(fields) => Ok(Self::new(file, fields)),
            other => Err(not_whole(file, &other, "an object")),
        }
    }

    /// Reads a file that is a list of objects, such as `modules.json`.
    ///
    /// # Errors
    /// The file cannot be read, or is something else.
    pub(crate) fn read_list(file: &Path) -> Result<Vec<Self>, Error> {
        let list = match json(file)? {
            Value::Array(list) => list,
            other => return Err(not_whole(file, &other, "a list")),
        };
        let object = |(index, value)| match value {
            Value::Object(fields) => Ok(Self { file: file.into(), prefix: format!("{index}."), fields }),
            other => Err(not_whole(file, &other, "a list of objects")),
        };
        list.into_iter().enumerate().map(object).collect()
    }

    /// The language model of a multimodal configuration (`text_config`), else the configuration itself.
    #[must_use]
    pub fn language_model(self) -> Self {
        match self.fields.get("text_config") {
            Some(Value::Object(text)) => Self { file: self.file, prefix: "text_config.".into(), fields: text.clone() },
            _ => self,
        }
    }

    /// Other fields of the same file.
    #[must_use]
    pub(crate) fn map(self, change: impl FnOnce(Map<String, Value>) -> Map<String, Value>) -> Self {
        Self { fields: change(self.fields), ..self }
    }

    /// Fields from another source; `file` is named in errors.
    #[must_use]
    pub fn new(file: &Path, fields: Map<String, Value>) -> Self {
        Self { file: file.into(), prefix: String::new(), fields }
    }

    /// The file named in errors.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// All fields, as they were read.
    #[must_use]
    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }

    /// The value of a field that is there and not null.
    #[must_use]
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    /// A nested object.
    ///
    /// # Errors
    /// The field is there and no object.
    pub fn object(&self, field: &str) -> Result<Option<Config>, Error> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::Object(fields)) => Ok(Some(Self {
                file: self.file.clone(),
                prefix: format!("{}{field}.", self.prefix),
                fields: fields.clone(),
            })),
            Some(other) => Err(self.bad(field, other, "an object")),
        }
    }

    /// # Errors
    /// The field is missing or no whole number that fits.
    pub fn usize(&self, field: &str) -> Result<usize, Error> {
        self.opt_usize(field)?.ok_or_else(|| self.missing(field))
    }

    /// A size that must not be zero.
    ///
    /// # Errors
    /// The field is missing, zero, or no whole number that fits.
    pub fn size(&self, field: &str) -> Result<usize, Error> {
        match self.usize(field)? {
            0 => Err(self.bad(field, &Value::from(0), "at least 1")),
            // Keeps products of two sizes far from overflow; no model is near it.
            n if n > 1 << 30 => Err(self.bad(field, &Value::from(n), "at most 2^30")),
            n => Ok(n),
        }
    }

    /// # Errors
    /// The field is there and no whole number that fits.
    pub fn opt_usize(&self, field: &str) -> Result<Option<usize>, Error> {
        self.get(field)
            .map(|value| {
                value
                    .as_u64()
                    .and_then(|n| usize::try_from(n).ok())
                    .ok_or_else(|| self.bad(field, value, "a whole number"))
            })
            .transpose()
    }

    /// # Errors
    /// The field is there and no finite number.
    pub fn opt_f64(&self, field: &str) -> Result<Option<f64>, Error> {
        self.get(field)
            .map(|value| {
                value.as_f64().filter(|x| x.is_finite()).ok_or_else(|| self.bad(field, value, "a finite number"))
            })
            .transpose()
    }

    /// # Errors
    /// The field is missing or no finite number.
    pub fn f64(&self, field: &str) -> Result<f64, Error> {
        self.opt_f64(field)?.ok_or_else(|| self.missing(field))
    }

    /// # Errors
    /// The field is there and not true or false.
    pub fn bool_or(&self, field: &str, default: bool) -> Result<bool, Error> {
        self.get(field)
            .map_or(Ok(default), |value| value.as_bool().ok_or_else(|| self.bad(field, value, "true or false")))
    }

    /// # Errors
    /// The field is there and no string.
    pub fn opt_str(&self, field: &str) -> Result<Option<&str>, Error> {
        self.get(field).map(|value| value.as_str().ok_or_else(|| self.bad(field, value, "a string"))).transpose()
    }

    /// # Errors
    /// The field is missing or no string.
    pub fn str(&self, field: &str) -> Result<&str, Error> {
        self.opt_str(field)?.ok_or_else(|| self.missing(field))
    }

    /// # Errors
    /// The field is there and no list of finite numbers.
    pub fn opt_f64s(&self, field: &str) -> Result<Option<Vec<f64>>, Error> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let numbers = value.as_array().and_then(|list| list.iter().map(Value::as_f64).collect::<Option<Vec<_>>>());
        numbers.map(Some).ok_or_else(|| self.bad(field, value, "a list of numbers"))
    }

    /// # Errors
    /// The field is there and no list of strings.
    pub fn opt_strs(&self, field: &str) -> Result<Option<Vec<&str>>, Error> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let strings = value.as_array().and_then(|list| list.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
        strings.map(Some).ok_or_else(|| self.bad(field, value, "a list of strings"))
    }

    /// The error of a field that is not there.
    #[must_use]
    pub fn missing(&self, field: &str) -> Error {
        Error::MissingField { file: self.file.clone(), field: format!("{}{field}", self.prefix) }
    }

    /// The error of an activation that lathe does not compute.
    #[must_use]
    pub(crate) fn unknown_activation(&self, field: &str, found: &str) -> Error {
        let field = format!("{}{field}", self.prefix);
        Error::UnknownActivation { file: self.file.clone(), field, found: found.into() }
    }

    /// The error of a field that cannot be used.
    #[must_use]
    pub fn bad(&self, field: &str, found: &Value, expected: &str) -> Error {
        let mut text = found.to_string();
        if text.len() > 60 {
            text = kind(found).into();
        }
        Error::BadField {
            file: self.file.clone(),
            field: format!("{}{field}", self.prefix),
            found: text,
            expected: expected.into(),
        }
    }
}

fn json(file: &Path) -> Result<Value, Error> {
    let text = std::fs::read_to_string(file).map_err(|source| Error::Read { file: file.into(), source })?;
    serde_json::from_str(&text).map_err(|source| Error::Json { file: file.into(), source })
}

/// The error of a file that is another kind of value, or has one inside.
fn not_whole(file: &Path, found: &Value, expected: &str) -> Error {
    let field = "(whole file)".into();
    Error::BadField { file: file.into(), field, found: kind(found).into(), expected: expected.into() }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
