//! Keys of a header and fields of `config.json` that mean the same, for both directions.

use lathe_formats::{Checkpoint, Error as FormatError, GgufArray, GgufMetadata, GgufValue};
use serde_json::{Map, Value};

use crate::spec::DecoderSpec;
use crate::{Config, Error};

/// A key (after the architecture's prefix) and the field that means the same.
pub(crate) struct Word {
    pub(crate) key: &'static str,
    pub(crate) field: &'static str,
    pub(crate) of: Of,
}

/// The type of a key's value, and the value that a specification gives.
pub(crate) enum Of {
    /// A whole number.
    Whole(fn(&DecoderSpec) -> Option<usize>),
    /// A real number.
    Real(fn(&DecoderSpec) -> Option<f64>),
    /// True or false.
    Flag(fn(&DecoderSpec) -> Option<bool>),
}

/// Shorthand of a row of whole numbers.
pub(crate) const fn whole(key: &'static str, field: &'static str, of: fn(&DecoderSpec) -> Option<usize>) -> Word {
    Word { key, field, of: Of::Whole(of) }
}

/// Shorthand of a row of real numbers.
pub(crate) const fn real(key: &'static str, field: &'static str, of: fn(&DecoderSpec) -> Option<f64>) -> Word {
    Word { key, field, of: Of::Real(of) }
}

/// Shorthand of a row of truth values.
pub(crate) const fn flag(key: &'static str, field: &'static str, of: fn(&DecoderSpec) -> Option<bool>) -> Word {
    Word { key, field, of: Of::Flag(of) }
}

/// The tensors beside a header: of a file, or of one that is about to be written.
pub(crate) trait Tensors {
    /// How many there are.
    fn count(&self) -> usize;
    /// Shape of a tensor, outermost first.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;
    /// Values of a tensor.
    fn values(&self, name: &str) -> Result<Option<Vec<f32>>, Error>;
}

impl Tensors for Checkpoint {
    fn count(&self) -> usize {
        self.tensors().len()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        Some(self.tensor(name)?.info().shape.clone())
    }

    fn values(&self, name: &str) -> Result<Option<Vec<f32>>, Error> {
        Ok(self.tensor(name).map(|view| view.to_f32()).transpose()?)
    }
}

/// A header on its way to the words of `config.json`.
pub(crate) struct Reading<'a> {
    pub(crate) header: &'a GgufMetadata,
    pub(crate) tensors: &'a dyn Tensors,
    pub(crate) architecture: &'a str,
    pub(crate) fields: Map<String, Value>,
}

impl Reading<'_> {
    /// Takes over a row of a table, where the key is there.
    pub(crate) fn word(&mut self, word: &Word) -> Result<(), Error> {
        let value = match word.of {
            Of::Whole(_) => self.whole(word.key)?.map(Value::from),
            Of::Real(_) => self.real(word.key)?.map(short),
            Of::Flag(_) => self.flag(word.key)?.map(Value::from),
        };
        if let Some(value) = value {
            self.set(word.field, value);
        }
        Ok(())
    }

    pub(crate) fn whole(&self, key: &str) -> Result<Option<u64>, Error> {
        optional(self.header.u64(&self.key(key)))
    }

    pub(crate) fn real(&self, key: &str) -> Result<Option<f64>, Error> {
        optional(self.header.f64(&self.key(key)))
    }

    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, Error> {
        optional(self.header.bool(&self.key(key)))
    }

    pub(crate) fn str(&self, key: &str) -> Result<Option<&str>, Error> {
        optional(self.header.str(&self.key(key)))
    }

    /// A value for each layer.
    pub(crate) fn flags(&self, key: &str) -> Result<Option<&[bool]>, Error> {
        let list = optional(self.header.bools(&self.key(key)))?;
        self.for_each_layer(key, list.map(<[bool]>::len))?;
        Ok(list)
    }

    /// A value for each layer.
    pub(crate) fn wholes(&self, key: &str) -> Result<Option<Vec<i64>>, Error> {
        let list = optional(self.header.i64s(&self.key(key)))?;
        self.for_each_layer(key, list.as_ref().map(Vec::len))?;
        Ok(list)
    }

    fn for_each_layer(&self, key: &str, len: Option<usize>) -> Result<(), Error> {
        let layers = self.whole("block_count")?.unwrap_or(0);
        match len {
            Some(len) if len as u64 != layers => {
                Err(self.bad(key, &format!("a list of {len}"), &format!("one entry for each of {layers} layers")))
            }
            _ => Ok(()),
        }
    }

    /// Whether a key holds an array.
    pub(crate) fn is_array(&self, key: &str) -> bool {
        matches!(self.header.get(&self.key(key)), Some(GgufValue::Array(_)))
    }

    /// Whether a tensor is there.
    pub(crate) fn has(&self, tensor: &str) -> bool {
        self.tensors.shape(tensor).is_some()
    }

    /// The number of layers, at most the number of tensors: a hostile header may claim any.
    pub(crate) fn layers(&self) -> Result<usize, Error> {
        let claimed = self.whole("block_count")?.unwrap_or(0);
        Ok(usize::try_from(claimed).unwrap_or(usize::MAX).min(self.tensors.count()))
    }

    /// Width of a head.
    pub(crate) fn head_dim(&self) -> Result<Option<u64>, Error> {
        if let Some(width) = self.whole("attention.key_length")? {
            return Ok(Some(width));
        }
        let (Some(hidden), false) = (self.whole("embedding_length")?, self.is_array("attention.head_count")) else {
            return Ok(None);
        };
        Ok(self.whole("attention.head_count")?.filter(|heads| *heads > 0).map(|heads| hidden / heads))
    }

    pub(crate) fn set(&mut self, field: &str, value: impl Into<Value>) {
        self.fields.insert(field.into(), value.into());
    }

    /// Sets a field that nothing has set yet.
    pub(crate) fn set_default(&mut self, field: &str, value: impl Into<Value>) {
        if !self.fields.contains_key(field) {
            self.set(field, value);
        }
    }

    /// The error of a key that cannot be used.
    pub(crate) fn bad(&self, key: &str, found: &str, expected: &str) -> Error {
        Error::BadField {
            file: self.header.file().into(),
            field: self.key(key),
            found: found.into(),
            expected: expected.into(),
        }
    }

    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }
}

/// A header on its way into a file.
pub(crate) struct Writing<'a> {
    pub(crate) config: &'a Config,
    pub(crate) spec: &'a DecoderSpec,
    pub(crate) architecture: &'static str,
    pub(crate) entries: Vec<(String, GgufValue)>,
}

impl Writing<'_> {
    /// Puts a row of a table. Where the specification does not say, the configuration's own field counts.
    pub(crate) fn word(&mut self, word: &Word) -> Result<(), Error> {
        match word.of {
            Of::Whole(of) => {
                let value = of(self.spec).map_or_else(|| self.config.opt_usize(word.field), |n| Ok(Some(n)))?;
                if let Some(n) = value {
                    self.whole(word.key, n);
                }
            }
            Of::Real(of) => {
                if let Some(x) = of(self.spec) {
                    self.real(word.key, x);
                }
            }
            Of::Flag(of) => {
                if let Some(flag) = of(self.spec) {
                    self.flag(word.key, flag);
                }
            }
        }
        Ok(())
    }

    /// A whole number, which llama.cpp wants in 32 bits.
    pub(crate) fn whole(&mut self, key: &str, n: usize) {
        self.put(key, u32::try_from(n).map_or(GgufValue::U64(n as u64), GgufValue::U32));
    }

    pub(crate) fn real(&mut self, key: &str, x: f64) {
        self.put(key, GgufValue::F32(x as f32));
    }

    pub(crate) fn text(&mut self, key: &str, text: &str) {
        self.put(key, GgufValue::Str(text.into()));
    }

    pub(crate) fn flag(&mut self, key: &str, flag: bool) {
        self.put(key, GgufValue::Bool(flag));
    }

    pub(crate) fn flags(&mut self, key: &str, flags: Vec<bool>) {
        self.put(key, GgufValue::Array(GgufArray::Bool(flags)));
    }

    pub(crate) fn wholes(&mut self, key: &str, values: &[usize]) {
        let values = values.iter().map(|n| i32::try_from(*n).unwrap_or(i32::MAX)).collect();
        self.put(key, GgufValue::Array(GgufArray::I32(values)));
    }

    fn put(&mut self, key: &str, value: GgufValue) {
        self.entries.push((format!("{}.{key}", self.architecture), value));
    }
}

/// The shortest decimal of a stored f32: 1e-5 stays 1e-5.
pub(crate) fn short(x: f64) -> Value {
    let narrow = x as f32;
    if f64::from(narrow) == x { narrow.to_string().parse::<f64>().map_or(Value::Null, Value::from) } else { x.into() }
}

pub(crate) fn optional<T>(value: Result<T, FormatError>) -> Result<Option<T>, Error> {
    Ok(lathe_formats::optional(value)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn decimals_stay_short() {
        assert_eq!(short(f64::from(1e-5f32)), json!(1e-5));
        assert_eq!(short(100_000.0), json!(100_000.0));
    }
}
