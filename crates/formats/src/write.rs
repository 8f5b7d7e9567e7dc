//! Streaming writers: the header first, then each tensor as it is handed over.
//!
//! At no time does the target hold half a checkpoint, and nothing is left behind when writing fails ([`NewFile`]).

mod placed;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use crate::element::ElementType;
use crate::encode::{EncodeError, encode_rows};
use crate::error::Error;
use crate::gguf;
use crate::gguf_metadata::{GgufArray, GgufValue};
use crate::new_file::NewFile;
use crate::safetensors;
use crate::tensor::{TensorInfo, stored_bytes};

pub use placed::{PlacedFile, safetensors_in_memory};

/// A tensor to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name in the file.
    pub name: String,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// How its numbers are stored.
    pub element: ElementType,
}

impl From<&TensorInfo> for TensorSpec {
    fn from(info: &TensorInfo) -> TensorSpec {
        TensorSpec { name: info.name.clone(), shape: info.shape.clone(), element: info.element }
    }
}

/// A checkpoint file whose header is written and whose tensors are awaited, in the order of the header.
///
/// Dropped before [`TensorWriter::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct TensorWriter {
    out: NewFile,
    tensors: Vec<Planned>,
    /// The tensor being written, and how many of its bytes have arrived.
    next: usize,
    arrived: usize,
}

/// A tensor of the header.
#[derive(Debug)]
struct Planned {
    name: String,
    element: ElementType,
    /// The last size: 1 for a single number.
    row_len: usize,
    bytes: usize,
    /// Zeros that follow it.
    padding: usize,
}

/// Begins a safetensors file: tensors in the given order, without holes.
///
/// The data begins at a multiple of 8; to keep every tensor aligned to its element, list wider types first.
///
/// # Errors
/// A block type, a name twice, the name `__metadata__`, or a shape that no file can hold; the system refuses.
pub fn safetensors(
    target: &Path,
    metadata: &BTreeMap<String, String>,
    tensors: &[TensorSpec],
) -> Result<TensorWriter, Error> {
    let plan = plan(target, tensors, 1)?;
    let header = safetensors_header(target, metadata, tensors, &plan)?;
    TensorWriter::begin(target, &header, plan)
}

/// Begins a GGUF file of version 3, little-endian. The data is aligned as `general.alignment` among the metadata says
/// (a u32), to 32 bytes where it is missing.
///
/// # Errors
/// A type that GGUF does not have, more than 4 dimensions, rows that are no whole number of blocks, a name or a key
/// twice, an alignment that is no power of two, or a shape that no file can hold; the system refuses.
pub fn gguf(target: &Path, metadata: &[(String, GgufValue)], tensors: &[TensorSpec]) -> Result<TensorWriter, Error> {
    let alignment = gguf_alignment(target, metadata)?;
    let plan = plan(target, tensors, alignment as usize)?;
    let header = gguf_header(target, metadata, tensors, &plan, alignment)?;
    TensorWriter::begin(target, &header, plan)
}

impl TensorWriter {
    /// Hands over bytes of a tensor: all of them, or the next piece of them.
    ///
    /// # Errors
    /// It is not this tensor's turn, or it gets more bytes than it has; the system refuses.
    pub fn append(&mut self, tensor: &str, bytes: &[u8]) -> Result<(), Error> {
        let needs = self.turn_of(tensor)?.bytes;
        let arrived = self.arrived.saturating_add(bytes.len());
        if arrived > needs {
            return Err(Error::WrongLength {
                file: self.out.target().into(),
                tensor: tensor.to_owned(),
                needs,
                got: arrived,
            });
        }
        self.out.append(bytes)?;
        self.arrived = arrived;
        self.close_when_full()
    }

    /// Hands over numbers of a tensor, to be stored in its type as [`encode_rows`] does.
    ///
    /// The pieces of a quantised tensor are whole rows; those of a plain one may end anywhere.
    ///
    /// # Errors
    /// As [`TensorWriter::append`] and [`encode_rows`].
    pub fn append_f32(&mut self, tensor: &str, values: &[f32]) -> Result<(), Error> {
        // A few rows at a time keep the copy small.
        const STEP: usize = 1 << 16;
        let planned = self.turn_of(tensor)?;
        let (element, row_len) = (planned.element, if planned.element.is_quantised() { planned.row_len } else { 1 });
        let step = (STEP / row_len.max(1)).max(1).saturating_mul(row_len);
        let refused = |writer: &TensorWriter, source| Error::Unencodable {
            file: writer.out.target().into(),
            tensor: tensor.to_owned(),
            source,
        };
        if !values.len().is_multiple_of(row_len) {
            return Err(refused(self, EncodeError::PartialRow { row_len, got: values.len() }));
        }
        let mut bytes = Vec::new();
        for values in values.chunks(step.max(1)) {
            bytes.clear();
            let earlier = self.arrived / element.block_bytes() * element.block_len();
            encode_rows(element, row_len, values, &mut bytes).map_err(|error| refused(self, error.after(earlier)))?;
            self.append(tensor, &bytes)?;
        }
        Ok(())
    }

    /// Completes the file and gives it its name. A file that had the name is replaced.
    ///
    /// # Errors
    /// A tensor has not been handed over; the system refuses. The target is as it was before.
    pub fn finish(mut self) -> Result<(), Error> {
        while self.tensors.get(self.next).is_some_and(|planned| planned.bytes == 0) {
            self.next += 1;
        }
        if let Some(missing) = self.tensors.get(self.next) {
            return Err(Error::Unfinished { file: self.out.target().into(), tensor: missing.name.clone() });
        }
        self.out.finish()
    }

    fn begin(target: &Path, header: &[u8], tensors: Vec<Planned>) -> Result<TensorWriter, Error> {
        let mut out = NewFile::create(target)?;
        out.append(header)?;
        Ok(TensorWriter { out, tensors, next: 0, arrived: 0 })
    }

    /// The tensor that comes next, if it is this one. Tensors without bytes need not be handed over.
    fn turn_of(&mut self, tensor: &str) -> Result<&Planned, Error> {
        while let Some(planned) = self.tensors.get(self.next)
            && planned.bytes == 0
            && planned.name != tensor
        {
            self.next += 1;
        }
        match self.tensors.get(self.next) {
            Some(planned) if planned.name == tensor => Ok(planned),
            other => Err(Error::OutOfOrder {
                file: self.out.target().into(),
                got: tensor.to_owned(),
                expected: other.map_or("none left".to_owned(), |planned| format!("{:?}", planned.name)),
            }),
        }
    }

    fn close_when_full(&mut self) -> Result<(), Error> {
        let planned = &self.tensors[self.next];
        if self.arrived < planned.bytes {
            return Ok(());
        }
        let zeros = std::iter::repeat_n(0, planned.padding).collect::<Vec<u8>>();
        self.out.append(&zeros)?;
        self.next += 1;
        self.arrived = 0;
        Ok(())
    }
}

/// Sizes of the tensors, each padded to the alignment.
fn plan(target: &Path, tensors: &[TensorSpec], alignment: usize) -> Result<Vec<Planned>, Error> {
    let mut names = HashSet::new();
    let mut total = 0usize;
    let mut planned = Vec::with_capacity(tensors.len());
    for spec in tensors {
        if !names.insert(spec.name.as_str()) {
            return Err(Error::DuplicateTensor { file: target.into(), tensor: spec.name.clone() });
        }
        let bytes = stored_bytes(spec.element, &spec.shape);
        let padded = bytes.and_then(|bytes| bytes.checked_next_multiple_of(alignment));
        let grown = padded.and_then(|padded| total.checked_add(padded));
        let (Some(bytes), Some(padded), Some(grown)) = (bytes, padded, grown) else {
            return Err(bad_shape(target, spec));
        };
        total = grown;
        let row_len = spec.shape.last().copied().unwrap_or(1);
        let padding = padded - bytes;
        planned.push(Planned { name: spec.name.clone(), element: spec.element, row_len, bytes, padding });
    }
    Ok(planned)
}

fn safetensors_header(
    target: &Path,
    metadata: &BTreeMap<String, String>,
    tensors: &[TensorSpec],
    plan: &[Planned],
) -> Result<Vec<u8>, Error> {
    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        header.insert(safetensors::METADATA_KEY.to_owned(), serde_json::json!(metadata));
    }
    let mut begin = 0;
    for (spec, planned) in tensors.iter().zip(plan) {
        let unwritable = |reason: String| Error::Unwritable {
            file: target.into(),
            field: format!("tensor {:?}", spec.name),
            reason,
        };
        if spec.name == safetensors::METADATA_KEY {
            return Err(unwritable("the name is taken by the format".to_owned()));
        }
        let Some(dtype) = spec.element.safetensors_name() else {
            return Err(unwritable(format!("safetensors has no {}", spec.element)));
        };
        let end = begin + planned.bytes;
        let entry = serde_json::json!({"dtype": dtype, "shape": spec.shape, "data_offsets": [begin, end]});
        header.insert(spec.name.clone(), entry);
        begin = end;
    }
    let mut json = serde_json::Value::Object(header).to_string().into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    if json.len() as u64 > safetensors::MAX_HEADER_BYTES {
        return Err(Error::HeaderTooLong {
            file: target.into(),
            claimed: json.len() as u64,
            limit: safetensors::MAX_HEADER_BYTES,
        });
    }
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.append(&mut json);
    Ok(bytes)
}

fn gguf_alignment(target: &Path, metadata: &[(String, GgufValue)]) -> Result<u64, Error> {
    let entry = metadata.iter().find(|(key, _)| key == gguf::ALIGNMENT_KEY);
    let alignment = match entry {
        None => gguf::DEFAULT_ALIGNMENT,
        Some((_, GgufValue::U32(alignment))) => u64::from(*alignment),
        Some((key, other)) => {
            return Err(Error::Unwritable {
                file: target.into(),
                field: format!("metadata key {key:?}"),
                reason: format!("the alignment is a u32, not a {}", other.type_name()),
            });
        }
    };
    if !gguf::is_alignment(alignment) {
        return Err(Error::BadAlignment { file: target.into(), alignment });
    }
    Ok(alignment)
}

fn gguf_header(
    target: &Path,
    metadata: &[(String, GgufValue)],
    tensors: &[TensorSpec],
    plan: &[Planned],
    alignment: u64,
) -> Result<Vec<u8>, Error> {
    let mut bytes = gguf::MAGIC.to_vec();
    bytes.extend(3u32.to_le_bytes());
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend((metadata.len() as u64).to_le_bytes());
    let mut keys = HashSet::new();
    for (key, value) in metadata {
        if !keys.insert(key) {
            return Err(Error::DuplicateKey { file: target.into(), key: key.clone() });
        }
        if let GgufValue::Array(array) = value
            && array.depth() > gguf::MAX_ARRAY_DEPTH
        {
            return Err(Error::NestedTooDeep {
                file: target.into(),
                field: format!("the value of metadata key {key:?}"),
                limit: gguf::MAX_ARRAY_DEPTH,
            });
        }
        put_string(&mut bytes, key);
        bytes.extend(value.type_id().to_le_bytes());
        put_value(&mut bytes, value);
    }
    let mut offset = 0u64;
    for (spec, planned) in tensors.iter().zip(plan) {
        put_tensor_info(&mut bytes, target, spec, offset)?;
        offset += (planned.bytes + planned.padding) as u64;
    }
    bytes.resize(bytes.len().next_multiple_of(alignment as usize), 0);
    Ok(bytes)
}

fn put_tensor_info(bytes: &mut Vec<u8>, target: &Path, spec: &TensorSpec, offset: u64) -> Result<(), Error> {
    let Some(id) = spec.element.gguf_id() else {
        return Err(Error::Unwritable {
            file: target.into(),
            field: format!("tensor {:?}", spec.name),
            reason: format!("GGUF has no {}", spec.element),
        });
    };
    if spec.shape.len() > gguf::MAX_DIMENSIONS {
        return Err(Error::TooManyDimensions {
            file: target.into(),
            tensor: spec.name.clone(),
            dimensions: spec.shape.len(),
            limit: gguf::MAX_DIMENSIONS,
        });
    }
    let row_len = spec.shape.last().copied().unwrap_or(1);
    if !row_len.is_multiple_of(spec.element.block_len()) {
        return Err(bad_shape(target, spec));
    }
    put_string(bytes, &spec.name);
    bytes.extend((spec.shape.len() as u32).to_le_bytes());
    for &size in spec.shape.iter().rev() {
        bytes.extend((size as u64).to_le_bytes());
    }
    bytes.extend(id.to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    Ok(())
}

fn bad_shape(target: &Path, spec: &TensorSpec) -> Error {
    Error::BadShape {
        file: target.into(),
        tensor: spec.name.clone(),
        shape: spec.shape.iter().map(|&size| size as u64).collect(),
        element: spec.element,
    }
}

fn put_string(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

fn put_value(bytes: &mut Vec<u8>, value: &GgufValue) {
    match value {
        GgufValue::U8(n) => bytes.extend(n.to_le_bytes()),
        GgufValue::I8(n) => bytes.extend(n.to_le_bytes()),
        GgufValue::U16(n) => bytes.extend(n.to_le_bytes()),
        GgufValue::I16(n) => bytes.extend(n.to_le_bytes()),
        GgufValue::U32(n) => bytes.extend(n.to_le_bytes()),
        GgufValue::I32(n) => bytes.extend(n.to_le_bytes()),
        GgufValue::F32(x) => bytes.extend(x.to_le_bytes()),
        GgufValue::Bool(flag) => bytes.push(u8::from(*flag)),
        GgufValue::Str(text) => put_string(bytes, text),
        GgufValue::Array(array) => put_array(bytes, array),
        GgufValue::U64(n) => bytes.extend(n.to_le_bytes()),
        GgufValue::I64(n) => bytes.extend(n.to_le_bytes()),
        GgufValue::F64(x) => bytes.extend(x.to_le_bytes()),
    }
}

fn put_array(bytes: &mut Vec<u8>, array: &GgufArray) {
    bytes.extend(array.item_type_id().to_le_bytes());
    bytes.extend((array.len() as u64).to_le_bytes());
    match array {
        GgufArray::U8(items) => bytes.extend(items),
        GgufArray::I8(items) => bytes.extend(items.iter().flat_map(|n| n.to_le_bytes())),
        GgufArray::U16(items) => bytes.extend(items.iter().flat_map(|n| n.to_le_bytes())),
        GgufArray::I16(items) => bytes.extend(items.iter().flat_map(|n| n.to_le_bytes())),
        GgufArray::U32(items) => bytes.extend(items.iter().flat_map(|n| n.to_le_bytes())),
        GgufArray::I32(items) => bytes.extend(items.iter().flat_map(|n| n.to_le_bytes())),
        GgufArray::F32(items) => bytes.extend(items.iter().flat_map(|x| x.to_le_bytes())),
        GgufArray::Bool(items) => bytes.extend(items.iter().map(|&flag| u8::from(flag))),
        GgufArray::Str(items) => items.iter().for_each(|text| put_string(bytes, text)),
        GgufArray::Array(items) => items.iter().for_each(|inner| put_array(bytes, inner)),
        GgufArray::U64(items) => bytes.extend(items.iter().flat_map(|n| n.to_le_bytes())),
        GgufArray::I64(items) => bytes.extend(items.iter().flat_map(|n| n.to_le_bytes())),
        GgufArray::F64(items) => bytes.extend(items.iter().flat_map(|x| x.to_le_bytes())),
    }
}
