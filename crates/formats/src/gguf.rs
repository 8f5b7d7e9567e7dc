//! Reader of GGUF headers, versions 2 and 3, little-endian.
//!
//! A file is `"GGUF" | u32 version | u64 tensors | u64 keys | key/value pairs | tensor infos | padding | data`. Strings
//! are `u64 length | bytes`; a tensor info is `name | u32 dimensions | u64 sizes, innermost first | u32 type | u64 offset`,
//! the offset counted from the beginning of the data, which lies at the next multiple of `general.alignment` (32 where
//! the key is missing). Tensors may lie in any order and with any padding between them, but may not overlap.

use std::fmt;
use std::path::Path;

use crate::element::ElementType;
use crate::error::Error;
use crate::gguf_metadata::{GgufArray, GgufMetadata, GgufValue, optional};
use crate::tensor::{TensorInfo, stored_bytes};

/// First bytes of every GGUF file.
pub(crate) const MAGIC: &[u8; 4] = b"GGUF";
/// `GGML_MAX_DIMS`.
pub(crate) const MAX_DIMENSIONS: usize = 4;
/// Alignment of the data where the file has no `general.alignment`.
pub(crate) const DEFAULT_ALIGNMENT: u64 = 32;
/// The key of the alignment.
pub(crate) const ALIGNMENT_KEY: &str = "general.alignment";
/// Arrays of arrays are in the format's description but in no known file: a few levels are plenty.
pub(crate) const MAX_ARRAY_DEPTH: usize = 4;

/// Reads the header of one file, whose index among the checkpoint's files is `file_index`.
///
/// # Errors
/// The first thing that is wrong with the file. Never allocates more than a small multiple of `bytes.len()`.
pub(crate) fn parse(file: &Path, file_index: usize, bytes: &[u8]) -> Result<(GgufMetadata, Vec<TensorInfo>), Error> {
    let mut cursor = Cursor { file, bytes, at: 0 };
    let version = read_version(&mut cursor)?;
    let tensor_count = cursor.u64(Place::Header("the number of tensors"))?;
    let key_count = cursor.u64(Place::Header("the number of metadata keys"))?;
    // Each pair takes at least its key's length, a type and one byte; each tensor info 24 bytes.
    cursor.check_count(Place::Header("the number of metadata keys"), key_count, 8 + 4 + 1)?;
    cursor.check_count(Place::Header("the number of tensors"), tensor_count, 8 + 4 + 4 + 8)?;

    let mut entries = Vec::with_capacity(key_count as usize);
    for index in 0..key_count {
        let key = cursor.string(Place::KeyName(index))?;
        let type_id = cursor.u32(Place::Key(&key, "type"))?;
        let value = read_value(&mut cursor, &key, type_id)?;
        entries.push((key, value));
    }
    let metadata = GgufMetadata::new(file, version, entries)?;
    let alignment = read_alignment(file, &metadata)?;

    let mut claims = Vec::with_capacity(tensor_count as usize);
    for index in 0..tensor_count {
        claims.push(read_claim(&mut cursor, index)?);
    }
    let data_start = (cursor.at as u64).next_multiple_of(alignment);
    let mut tensors = Vec::with_capacity(claims.len());
    for claim in claims {
        tensors.push(place(file, file_index, claim, data_start, alignment, bytes.len())?);
    }
    tensors.sort_by_key(|tensor| (tensor.span.start, tensor.span.end));
    check_overlaps(file, &tensors)?;
    Ok((metadata, tensors))
}

/// A tensor info as the file states it, unchecked.
struct Claim {
    name: String,
    /// Outermost first.
    shape: Vec<u64>,
    type_id: u32,
    offset: u64,
}

fn read_version(cursor: &mut Cursor<'_>) -> Result<u32, Error> {
    let file = cursor.file;
    if cursor.take(4, Place::Header("the magic number"))? != MAGIC {
        return Err(Error::UnknownFormat { file: file.into() });
    }
    let version = cursor.u32(Place::Header("the version"))?;
    match version {
        2 | 3 => Ok(version),
        // Small versions only: the low half of a big-endian one is zero.
        _ if version & 0xffff == 0 && version != 0 => Err(Error::BigEndian { file: file.into() }),
        _ => Err(Error::UnsupportedVersion { file: file.into(), version }),
    }
}

fn read_alignment(file: &Path, metadata: &GgufMetadata) -> Result<u64, Error> {
    let alignment = optional(metadata.u64(ALIGNMENT_KEY))?.unwrap_or(DEFAULT_ALIGNMENT);
    if !is_alignment(alignment) {
        return Err(Error::BadAlignment { file: file.into(), alignment });
    }
    Ok(alignment)
}

/// A power of two that leaves room for sums of file positions.
pub(crate) fn is_alignment(alignment: u64) -> bool {
    alignment.is_power_of_two() && alignment < 1 << 31
}

fn read_value(cursor: &mut Cursor<'_>, key: &str, type_id: u32) -> Result<GgufValue, Error> {
    let place = Place::Key(key, "value");
    Ok(match type_id {
        0 => GgufValue::U8(u8::from_le_bytes(cursor.array(place)?)),
        1 => GgufValue::I8(i8::from_le_bytes(cursor.array(place)?)),
        2 => GgufValue::U16(u16::from_le_bytes(cursor.array(place)?)),
        3 => GgufValue::I16(i16::from_le_bytes(cursor.array(place)?)),
        4 => GgufValue::U32(u32::from_le_bytes(cursor.array(place)?)),
        5 => GgufValue::I32(i32::from_le_bytes(cursor.array(place)?)),
        6 => GgufValue::F32(f32::from_le_bytes(cursor.array(place)?)),
        7 => GgufValue::Bool(cursor.bool(place)?),
        8 => GgufValue::Str(cursor.string(place)?),
        9 => GgufValue::Array(read_array(cursor, key, 1)?),
        10 => GgufValue::U64(u64::from_le_bytes(cursor.array(place)?)),
        11 => GgufValue::I64(i64::from_le_bytes(cursor.array(place)?)),
        12 => GgufValue::F64(f64::from_le_bytes(cursor.array(place)?)),
        id => return Err(cursor.unknown_type(Place::Key(key, "value"), id)),
    })
}

/// `u32 item type | u64 count | items`.
fn read_array(cursor: &mut Cursor<'_>, key: &str, depth: usize) -> Result<GgufArray, Error> {
    let type_id = cursor.u32(Place::Key(key, "item type"))?;
    let place = Place::Key(key, "number of items");
    let count = cursor.u64(place)?;
    Ok(match type_id {
        0 => GgufArray::U8(cursor.numbers(place, count, u8::from_le_bytes)?),
        1 => GgufArray::I8(cursor.numbers(place, count, i8::from_le_bytes)?),
        2 => GgufArray::U16(cursor.numbers(place, count, u16::from_le_bytes)?),
        3 => GgufArray::I16(cursor.numbers(place, count, i16::from_le_bytes)?),
        4 => GgufArray::U32(cursor.numbers(place, count, u32::from_le_bytes)?),
        5 => GgufArray::I32(cursor.numbers(place, count, i32::from_le_bytes)?),
        6 => GgufArray::F32(cursor.numbers(place, count, f32::from_le_bytes)?),
        7 => GgufArray::Bool(cursor.items(place, count, 1, |c| c.bool(Place::Key(key, "item")))?),
        8 => GgufArray::Str(cursor.items(place, count, 8, |c| c.string(Place::Key(key, "item")))?),
        9 if depth >= MAX_ARRAY_DEPTH => {
            return Err(Error::NestedTooDeep {
                file: cursor.file.into(),
                field: Place::Key(key, "value").to_string(),
                limit: MAX_ARRAY_DEPTH,
            });
        }
        9 => GgufArray::Array(cursor.items(place, count, 4 + 8, |c| read_array(c, key, depth + 1))?),
        10 => GgufArray::U64(cursor.numbers(place, count, u64::from_le_bytes)?),
        11 => GgufArray::I64(cursor.numbers(place, count, i64::from_le_bytes)?),
        12 => GgufArray::F64(cursor.numbers(place, count, f64::from_le_bytes)?),
        id => return Err(cursor.unknown_type(Place::Key(key, "items"), id)),
    })
}

fn read_claim(cursor: &mut Cursor<'_>, index: u64) -> Result<Claim, Error> {
    let name = cursor.string(Place::TensorName(index))?;
    let dimensions = cursor.u32(Place::Tensor(&name, "number of dimensions"))? as usize;
    if dimensions > MAX_DIMENSIONS {
        return Err(Error::TooManyDimensions {
            file: cursor.file.into(),
            tensor: name,
            dimensions,
            limit: MAX_DIMENSIONS,
        });
    }
    let mut shape = Vec::with_capacity(dimensions);
    for _ in 0..dimensions {
        shape.push(cursor.u64(Place::Tensor(&name, "shape"))?);
    }
    shape.reverse();
    let type_id = cursor.u32(Place::Tensor(&name, "type"))?;
    let offset = cursor.u64(Place::Tensor(&name, "offset"))?;
    Ok(Claim { name, shape, type_id, offset })
}

/// Checks a claim against the file and makes it a tensor.
fn place(
    file: &Path,
    file_index: usize,
    claim: Claim,
    data_start: u64,
    alignment: u64,
    end: usize,
) -> Result<TensorInfo, Error> {
    let Claim { name, shape: claimed, type_id, offset } = claim;
    let Some(element) = ElementType::from_gguf_id(type_id) else {
        return Err(Error::UnknownElement {
            file: file.into(),
            tensor: name,
            element: match type_id {
                4 | 5 | 31..=33 | 36..=38 => format!("{type_id} (removed from ggml)"),
                _ => type_id.to_string(),
            },
        });
    };
    let sizes = claimed.iter().map(|&size| usize::try_from(size).ok());
    let shape: Option<Vec<usize>> = sizes.collect();
    let needs = shape.as_deref().and_then(|shape| {
        let row_len = shape.last().copied().unwrap_or(1);
        let whole_rows = row_len.is_multiple_of(element.block_len());
        stored_bytes(element, shape).filter(|_| whole_rows)
    });
    let (Some(shape), Some(needs)) = (shape, needs) else {
        return Err(Error::BadShape { file: file.into(), tensor: name, shape: claimed, element });
    };
    if offset % alignment != 0 {
        return Err(Error::Misaligned { file: file.into(), tensor: name, offset, alignment });
    }
    let start = data_start.checked_add(offset).and_then(|at| usize::try_from(at).ok());
    let span = start.and_then(|start| Some(start..start.checked_add(needs)?));
    match span.filter(|span| span.end <= end) {
        Some(span) => Ok(TensorInfo { name, shape, element, file: file_index, span }),
        None => Err(Error::OutOfFile { file: file.into(), tensor: name, end: end as u64 }),
    }
}

/// No byte belongs to two of the tensors, which are sorted by position. Empty tensors may lie anywhere.
fn check_overlaps(file: &Path, tensors: &[TensorInfo]) -> Result<(), Error> {
    let mut before: Option<&TensorInfo> = None;
    for tensor in tensors.iter().filter(|tensor| !tensor.span.is_empty()) {
        if let Some(before) = before.filter(|before| before.span.end > tensor.span.start) {
            return Err(Error::Overlap { file: file.into(), first: before.name.clone(), second: tensor.name.clone() });
        }
        before = Some(tensor);
    }
    Ok(())
}

/// What is being read, for messages: written out only when something is wrong.
#[derive(Clone, Copy)]
enum Place<'a> {
    Header(&'static str),
    KeyName(u64),
    Key(&'a str, &'static str),
    TensorName(u64),
    Tensor(&'a str, &'static str),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Header(what) => f.write_str(what),
            Place::KeyName(index) => write!(f, "the name of metadata key {index}"),
            Place::Key(key, what) => write!(f, "the {what} of metadata key {key:?}"),
            Place::TensorName(index) => write!(f, "the name of tensor {index}"),
            Place::Tensor(name, what) => write!(f, "the {what} of tensor {name:?}"),
        }
    }
}

/// The part of the file that has not been read yet. Lengths are compared with it before anything is allocated.
struct Cursor<'a> {
    file: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, length: u64, place: Place<'_>) -> Result<&'a [u8], Error> {
        if length > self.left() as u64 {
            return Err(Error::Truncated {
                file: self.file.into(),
                field: place.to_string(),
                at: self.at as u64,
                needs: length,
                end: self.bytes.len() as u64,
            });
        }
        let taken = &self.bytes[self.at..self.at + length as usize];
        self.at += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, place: Place<'_>) -> Result<[u8; N], Error> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64, place)?);
        Ok(array)
    }

    fn u32(&mut self, place: Place<'_>) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.array(place)?))
    }

    fn u64(&mut self, place: Place<'_>) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.array(place)?))
    }

    fn bool(&mut self, place: Place<'_>) -> Result<bool, Error> {
        match self.array(place)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [value] => Err(Error::BadBool { file: self.file.into(), field: place.to_string(), value }),
        }
    }

    fn string(&mut self, place: Place<'_>) -> Result<String, Error> {
        let length = self.u64(place)?;
        let bytes = self.take(length, place)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(Error::NotUtf8 { file: self.file.into(), field: place.to_string() }),
        }
    }

    fn numbers<const N: usize, T>(
        &mut self,
        place: Place<'_>,
        count: u64,
        number: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>, Error> {
        self.check_count(place, count, N as u64)?;
        let (chunks, _) = self.take(count * N as u64, place)?.as_chunks::<N>();
        Ok(chunks.iter().map(|&bytes| number(bytes)).collect())
    }

    fn items<T>(
        &mut self,
        place: Place<'_>,
        count: u64,
        at_least: u64,
        read: impl Fn(&mut Self) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        self.check_count(place, count, at_least)?;
        let mut items = Vec::with_capacity(count as usize);
        for _ in 0..count {
            items.push(read(self)?);
        }
        Ok(items)
    }

    /// Refuses a count of things of `at_least` bytes each that the rest of the file cannot hold.
    fn check_count(&self, place: Place<'_>, count: u64, at_least: u64) -> Result<(), Error> {
        let left = self.left() as u64;
        if count > left / at_least {
            return Err(Error::CountTooLarge { file: self.file.into(), field: place.to_string(), count, left });
        }
        Ok(())
    }

    fn unknown_type(&self, place: Place<'_>, id: u32) -> Error {
        Error::UnknownValueType { file: self.file.into(), field: place.to_string(), id }
    }
}
