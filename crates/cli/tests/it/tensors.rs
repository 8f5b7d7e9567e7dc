//! Safetensors files, read without lathe's own reader: what is tested must not test itself.

use std::collections::BTreeMap;
use std::path::Path;

use lathe_formats::ElementType;
use lathe_formats::write::{TensorSpec, safetensors};
use serde_json::Value;

/// One tensor: what the header says and the bytes it points at.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stored {
    /// Type as written in the header.
    pub(crate) dtype: String,
    /// Sizes, outermost first.
    pub(crate) shape: Vec<usize>,
    /// Stored bytes.
    pub(crate) bytes: Vec<u8>,
}

impl Stored {
    /// A tensor of f32 numbers.
    pub(crate) fn f32(shape: &[usize], values: &[f32]) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len());
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { dtype: "F32".into(), shape: shape.to_vec(), bytes }
    }

    /// Numbers of an F32 tensor.
    pub(crate) fn values(&self) -> Vec<f32> {
        assert_eq!(self.dtype, "F32");
        self.bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
    }

    /// Numbers of an I64 tensor.
    pub(crate) fn ids(&self) -> Vec<i64> {
        assert_eq!(self.dtype, "I64");
        self.bytes.chunks_exact(8).map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap())).collect()
    }

    /// The rows of an F32 tensor, in f64: slices of its last axis.
    pub(crate) fn rows(&self) -> Vec<Vec<f64>> {
        let values: Vec<f64> = self.values().into_iter().map(f64::from).collect();
        values.chunks_exact(*self.shape.last().unwrap()).map(<[f64]>::to_vec).collect()
    }

    /// Largest difference from `other`, as a share of the largest absolute value of `other`.
    pub(crate) fn relative_error(&self, other: &Self) -> f64 {
        assert_eq!(self.shape, other.shape);
        let largest = other.values().iter().fold(0f64, |largest, value| largest.max(f64::from(*value).abs()));
        let pairs = self.values().into_iter().zip(other.values());
        let worst = pairs.fold(0f64, |worst, (a, b)| {
            let difference = (f64::from(a) - f64::from(b)).abs();
            // `max` would step over a NaN.
            if difference.is_nan() { f64::INFINITY } else { worst.max(difference) }
        });
        worst / largest
    }
}

/// Every tensor of a safetensors file by name.
pub(crate) fn read(path: &Path) -> BTreeMap<String, Stored> {
    let bytes = std::fs::read(path).unwrap();
    let (length, rest) = bytes.split_at(8);
    let (header, data) = rest.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
    let header: BTreeMap<String, Value> = serde_json::from_slice(header).unwrap();
    let entries = header.into_iter().filter(|(name, _)| name != "__metadata__");
    entries
        .map(|(name, entry)| {
            let numbers = |field: &str| -> Vec<usize> {
                entry[field].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect()
            };
            let offsets = numbers("data_offsets");
            let dtype = entry["dtype"].as_str().unwrap().to_owned();
            (name, Stored { dtype, shape: numbers("shape"), bytes: data[offsets[0]..offsets[1]].to_vec() })
        })
        .collect()
}

/// Writes F32 tensors.
pub(crate) fn write(path: &Path, tensors: &BTreeMap<String, Stored>) {
    let specs: Vec<TensorSpec> = tensors
        .iter()
        .map(|(name, tensor)| {
            assert_eq!(tensor.dtype, "F32");
            TensorSpec { name: name.clone(), shape: tensor.shape.clone(), element: ElementType::F32 }
        })
        .collect();
    let mut writer = safetensors(path, &BTreeMap::new(), &specs).unwrap();
    for (name, tensor) in tensors {
        writer.append(name, &tensor.bytes).unwrap();
    }
    writer.finish().unwrap();
}
