//! Reader of safetensors headers and of the index of a sharded checkpoint.
//!
//! A file is `u64 N | N bytes of JSON | data`. The JSON maps each tensor's name to its dtype, its shape and the two
//! offsets of its bytes in the data; `__metadata__` maps strings to strings. The tensors must cover the data without
//! overlaps and without holes.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _, MapAccess, Visitor};

use crate::element::ElementType;
use crate::error::Error;
use crate::tensor::{TensorInfo, stored_bytes};

/// Longest header that the format allows.
pub(crate) const MAX_HEADER_BYTES: u64 = 100_000_000;
/// The name in the header that is no tensor's.
pub(crate) const METADATA_KEY: &str = "__metadata__";

/// Reads the header of one file, whose index among the checkpoint's files is `file_index`.
///
/// # Errors
/// The first thing that is wrong with the file. Never allocates more than a small multiple of the header's length.
pub(crate) fn parse(
    file: &Path,
    file_index: usize,
    bytes: &[u8],
) -> Result<(BTreeMap<String, String>, Vec<TensorInfo>), Error> {
    let (header, data_start) = split_header(file, bytes)?;
    let header: Header =
        serde_json::from_slice(header).map_err(|source| Error::BadJson { file: file.into(), source })?;
    let mut tensors = Vec::with_capacity(header.tensors.len());
    for (name, claim) in header.tensors {
        tensors.push(place(file, file_index, name, claim, data_start, bytes.len())?);
    }
    tensors.sort_by_key(|tensor| (tensor.span.start, tensor.span.end));
    check_cover(file, &tensors, data_start, bytes.len())?;
    Ok((header.metadata, tensors))
}

/// `model.safetensors.index.json`: which shard holds each tensor.
pub(crate) struct Index {
    /// Tensor name and the shard's file name, in file order.
    pub(crate) weight_map: Vec<(String, String)>,
}

/// Reads an index file.
///
/// # Errors
/// The JSON is broken, has no `weight_map`, or names a tensor twice.
pub(crate) fn parse_index(file: &Path, json: &[u8]) -> Result<Index, Error> {
    #[derive(serde::Deserialize)]
    struct Raw {
        weight_map: UniqueMap<String>,
    }
    let raw: Raw = serde_json::from_slice(json).map_err(|source| Error::BadJson { file: file.into(), source })?;
    Ok(Index { weight_map: raw.weight_map.0 })
}

/// The JSON and where the data begins.
fn split_header<'a>(file: &Path, bytes: &'a [u8]) -> Result<(&'a [u8], usize), Error> {
    let truncated = |field: &str, at: u64, needs: u64| Error::Truncated {
        file: file.into(),
        field: field.to_owned(),
        at,
        needs,
        end: bytes.len() as u64,
    };
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(truncated("the header's length", 0, 8));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES {
        return Err(Error::HeaderTooLong { file: file.into(), claimed: length, limit: MAX_HEADER_BYTES });
    }
    match rest.get(..length as usize) {
        Some(header) => Ok((header, 8 + header.len())),
        None => Err(truncated("the header", 8, length)),
    }
}

/// The header as the file states it, unchecked.
struct Header {
    metadata: BTreeMap<String, String>,
    tensors: Vec<(String, Claim)>,
}

#[derive(serde::Deserialize)]
struct Claim {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Header, D::Error> {
        struct HeaderVisitor;
        impl<'de> Visitor<'de> for HeaderVisitor {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut metadata = None;
                let mut tensors = Vec::new();
                let mut seen = std::collections::HashSet::new();
                while let Some(name) = map.next_key::<String>()? {
                    if !seen.insert(name.clone()) {
                        return Err(A::Error::custom(format_args!("the name {name:?} appears twice")));
                    }
                    let in_entry = |error: A::Error| A::Error::custom(format_args!("in {name:?}: {error}"));
                    if name == METADATA_KEY {
                        // Writers that have nothing to say leave null.
                        let pairs: Option<UniqueMap<String>> = map.next_value().map_err(in_entry)?;
                        metadata = pairs.map(|pairs| pairs.0.into_iter().collect());
                    } else {
                        let claim = map.next_value().map_err(in_entry)?;
                        tensors.push((name, claim));
                    }
                }
                Ok(Header { metadata: metadata.unwrap_or_default(), tensors })
            }
        }
        deserializer.deserialize_map(HeaderVisitor)
    }
}

/// A JSON object in file order, in which no name appears twice.
struct UniqueMap<T>(Vec<(String, T)>);

impl<'de, T: DeserializeOwned> Deserialize<'de> for UniqueMap<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<UniqueMap<T>, D::Error> {
        struct UniqueVisitor<T>(PhantomData<T>);
        impl<'de, T: DeserializeOwned> Visitor<'de> for UniqueVisitor<T> {
            type Value = UniqueMap<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object without repeated names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UniqueMap<T>, A::Error> {
                let mut entries = Vec::new();
                let mut seen = std::collections::HashSet::new();
                while let Some((name, value)) = map.next_entry::<String, T>()? {
                    if !seen.insert(name.clone()) {
                        return Err(A::Error::custom(format_args!("the name {name:?} appears twice")));
                    }
                    entries.push((name, value));
                }
                Ok(UniqueMap(entries))
            }
        }
        deserializer.deserialize_map(UniqueVisitor(PhantomData))
    }
}

/// Checks a claim against the file and makes it a tensor.
fn place(
    file: &Path,
    file_index: usize,
    name: String,
    claim: Claim,
    data_start: usize,
    end: usize,
) -> Result<TensorInfo, Error> {
    let Some(element) = ElementType::from_safetensors_name(&claim.dtype) else {
        return Err(Error::UnknownElement { file: file.into(), tensor: name, element: format!("{:?}", claim.dtype) });
    };
    let sizes = claim.shape.iter().map(|&size| usize::try_from(size).ok());
    let shape: Option<Vec<usize>> = sizes.collect();
    let needs = shape.as_deref().and_then(|shape| stored_bytes(element, shape));
    let (Some(shape), Some(needs)) = (shape, needs) else {
        return Err(Error::BadShape { file: file.into(), tensor: name, shape: claim.shape, element });
    };
    let [begin, stop] = claim.data_offsets;
    let data_bytes = (end - data_start) as u64;
    if stop > data_bytes || begin > data_bytes {
        return Err(Error::OutOfFile { file: file.into(), tensor: name, end: end as u64 });
    }
    // An end before the beginning is a span of nothing, which no stored number has; where the tensor is empty, the
    // order of the offsets still has to be right.
    let span = stop.saturating_sub(begin);
    if span != needs as u64 || stop < begin {
        return Err(Error::SpanMismatch { file: file.into(), tensor: name, span, needs: needs as u64 });
    }
    Ok(TensorInfo {
        name,
        shape,
        element,
        file: file_index,
        span: data_start + begin as usize..data_start + stop as usize,
    })
}

/// Every byte of the data belongs to exactly one of the tensors, which are sorted by position.
fn check_cover(file: &Path, tensors: &[TensorInfo], data_start: usize, end: usize) -> Result<(), Error> {
    let gap = |from: usize, to: usize| Error::Gap { file: file.into(), bytes: from as u64..to as u64 };
    let mut covered = data_start;
    for (index, tensor) in tensors.iter().enumerate() {
        if tensor.span.start > covered {
            return Err(gap(covered, tensor.span.start));
        }
        if tensor.span.start < covered {
            return Err(Error::Overlap {
                file: file.into(),
                first: tensors[index - 1].name.clone(),
                second: tensor.name.clone(),
            });
        }
        covered = tensor.span.end;
    }
    if covered != end {
        return Err(gap(covered, end));
    }
    Ok(())
}
