//! One column of a row group: pages, unpacked and decoded into levels and values.
//!
//! Source: the Parquet format, "Data Pages".

use std::io::Read;

use serde_json::{Number, Value};

use super::schema::{Leaf, Meaning, Physical};
use super::thrift::{Item, read_struct};
use super::{Budget, Fault, encoding, fault};

/// What a column holds of a row group.
#[derive(Debug, Default)]
pub(super) struct Column {
    /// Of each entry; empty where the column's are all 0.
    pub(super) repetition: Vec<u8>,
    /// Of each entry; empty where the column's are all 0.
    pub(super) definition: Vec<u8>,
    /// Of the entries that have one.
    pub(super) values: Vec<Value>,
    /// How many entries there are.
    pub(super) entries: usize,
}

/// Reads the column that a row group's header describes.
pub(super) fn read_column(file: &[u8], header: &Item<'_>, leaf: &Leaf, budget: &mut Budget) -> Result<Column, Fault> {
    if header.text(1).is_some() {
        return Err(fault("its values are in another file"));
    }
    let metadata = header.field(3).ok_or_else(|| fault("its header is missing"))?;
    let codec = Codec::numbered(metadata.integer(4))?;
    let wanted = metadata.count(5, "number of values")?;

    let mut column = Column::default();
    let mut dictionary = Vec::new();
    let mut rest = pages(file, metadata)?;
    while column.entries < wanted {
        let short = || fault("a page ends too early");
        let (header, length) = read_struct(rest)?;
        let (_, after) = rest.split_at_checked(length).ok_or_else(short)?;
        let (stored, after) = after.split_at_checked(header.count(3, "size of a page")?).ok_or_else(short)?;
        rest = after;
        let bytes = header.count(2, "size of a page")?;
        match (header.integer(1), header.field(7), header.field(5), header.field(8)) {
            (Some(2), Some(page), ..) => {
                if !matches!(page.integer(2), Some(PLAIN | PLAIN_DICTIONARY)) {
                    return Err(fault("a dictionary is encoded in an unknown way"));
                }
                let unpacked = codec.unpack(stored, bytes, budget)?;
                dictionary = values(PLAIN, &unpacked, page.count(1, "number of values")?, leaf, &[], budget)?;
            }
            (Some(0), _, Some(page), _) => {
                let unpacked = codec.unpack(stored, bytes, budget)?;
                column.extend(&first_version(page, &unpacked, leaf)?, wanted, leaf, &dictionary, budget)?;
            }
            (Some(3), _, _, Some(page)) => {
                let (repetition, after) =
                    stored.split_at_checked(page.count(6, "size of levels")?).ok_or_else(short)?;
                let (definition, packed) =
                    after.split_at_checked(page.count(5, "size of levels")?).ok_or_else(short)?;
                let bytes = bytes.checked_sub(repetition.len() + definition.len()).ok_or_else(short)?;
                let codec = if page.flag(7) == Some(false) { Codec::None } else { codec };
                let page = Page {
                    count: page.count(1, "number of values")?,
                    repetition,
                    definition,
                    encoding: page.integer(4),
                    values: &codec.unpack(packed, bytes, budget)?,
                };
                column.extend(&page, wanted, leaf, &dictionary, budget)?;
            }
            // An index says nothing that is not in the other pages.
            (Some(1), ..) => {}
            (kind, ..) => return Err(fault(format!("a page of kind {} has no such header", kind.unwrap_or(-1)))),
        }
    }
    Ok(column)
}

/// The bytes of all pages of a column.
fn pages<'a>(file: &'a [u8], metadata: &Item<'_>) -> Result<&'a [u8], Fault> {
    let data = metadata.count(9, "place")?;
    // Some writers say 0 where there is no dictionary.
    let start = match metadata.integer(11).map(usize::try_from) {
        Some(Ok(dictionary)) if dictionary > 0 => dictionary.min(data),
        _ => data,
    };
    let length = metadata.count(7, "size")?;
    let outside = || fault("its place is outside of the file");
    file.get(start..start.checked_add(length).ok_or_else(outside)?).ok_or_else(outside)
}

/// The parts of a page.
struct Page<'a> {
    /// Entries, those without a value included.
    count: usize,
    /// Levels as runs; of no use where the column's are all 0.
    repetition: &'a [u8],
    definition: &'a [u8],
    encoding: Option<i64>,
    values: &'a [u8],
}

/// A page of the first version: the levels are packed with the values, each after their length.
fn first_version<'a>(header: &Item<'_>, unpacked: &'a [u8], leaf: &Leaf) -> Result<Page<'a>, Fault> {
    let mut rest = unpacked;
    let mut levels = |highest: u8, encoding: Option<i64>| -> Result<&'a [u8], Fault> {
        if highest == 0 {
            return Ok(&[]);
        }
        if encoding != Some(RLE) {
            return Err(fault("its levels are encoded in a way that is not read"));
        }
        let (levels, after) = encoding::sized(rest)?;
        rest = after;
        Ok(levels)
    };
    let repetition = levels(leaf.repetition, header.integer(4))?;
    let definition = levels(leaf.definition, header.integer(3))?;
    let (count, encoding) = (header.count(1, "number of values")?, header.integer(2));
    Ok(Page { count, repetition, definition, encoding, values: rest })
}

impl Column {
    /// Appends what a page holds; `wanted` entries are all there will be.
    fn extend(
        &mut self,
        page: &Page<'_>,
        wanted: usize,
        leaf: &Leaf,
        dictionary: &[Value],
        budget: &mut Budget,
    ) -> Result<(), Fault> {
        if page.count > wanted - self.entries {
            return Err(fault(format!("a page has {} values, and {} are left", page.count, wanted - self.entries)));
        }
        self.entries += page.count;
        self.repetition.extend(levels(page.repetition, leaf.repetition, page.count, budget)?);
        let definition = levels(page.definition, leaf.definition, page.count, budget)?;
        let present = match leaf.definition {
            0 => page.count,
            highest => definition.iter().filter(|level| **level == highest).count(),
        };
        self.definition.extend(definition);
        let encoding = page.encoding.unwrap_or(-1);
        self.values.extend(values(encoding, page.values, present, leaf, dictionary, budget)?);
        Ok(())
    }
}

/// The levels of a page; none where the highest is 0.
fn levels(bytes: &[u8], highest: u8, count: usize, budget: &mut Budget) -> Result<Vec<u8>, Fault> {
    if highest == 0 {
        return Ok(Vec::new());
    }
    let width = (u8::BITS - highest.leading_zeros()) as u8;
    let found = encoding::runs(bytes, width, count, budget)?;
    if let Some(wrong) = found.iter().find(|level| **level > u32::from(highest)) {
        return Err(fault(format!("a level is {wrong}, and the highest is {highest}")));
    }
    Ok(found.into_iter().map(|level| level as u8).collect())
}

const PLAIN: i64 = 0;
const PLAIN_DICTIONARY: i64 = 2;
const RLE: i64 = 3;
const DELTA_BINARY_PACKED: i64 = 5;
const DELTA_LENGTH_BYTE_ARRAY: i64 = 6;
const DELTA_BYTE_ARRAY: i64 = 7;
const RLE_DICTIONARY: i64 = 8;

/// Decodes `count` values.
fn values(
    encoding: i64,
    bytes: &[u8],
    count: usize,
    leaf: &Leaf,
    dictionary: &[Value],
    budget: &mut Budget,
) -> Result<Vec<Value>, Fault> {
    budget.spend(count, size_of::<Value>())?;
    match (encoding, leaf.physical) {
        (PLAIN, Physical::Boolean) => Ok(encoding::plain_flags(bytes, count)?.map(Value::Bool).collect()),
        (PLAIN, Physical::Int32) => {
            let numbers = encoding::plain_numbers(bytes, count)?.iter();
            Ok(numbers.map(|bytes| integer(i64::from(i32::from_le_bytes(*bytes)), leaf)).collect())
        }
        (PLAIN, Physical::Int64) => {
            let numbers = encoding::plain_numbers(bytes, count)?.iter();
            Ok(numbers.map(|bytes| integer(i64::from_le_bytes(*bytes), leaf)).collect())
        }
        (PLAIN, Physical::Float) => {
            let numbers = encoding::plain_numbers(bytes, count)?.iter();
            numbers.map(|bytes| real(f64::from(f32::from_le_bytes(*bytes)))).collect()
        }
        (PLAIN, Physical::Double) => {
            let numbers = encoding::plain_numbers(bytes, count)?.iter();
            numbers.map(|bytes| real(f64::from_le_bytes(*bytes))).collect()
        }
        (PLAIN, Physical::Bytes) => {
            encoding::plain_texts(bytes, count, budget)?.into_iter().map(|bytes| text(bytes, budget)).collect()
        }
        (PLAIN_DICTIONARY | RLE_DICTIONARY, _) => {
            // A page of nulls only may have no byte at all.
            let Some((width, bytes)) = bytes.split_first() else {
                return if count == 0 { Ok(Vec::new()) } else { Err(fault("a page ends too early")) };
            };
            let places = encoding::runs(bytes, *width, count, budget)?;
            let mut values = Vec::with_capacity(count);
            for place in places {
                let value = usize::try_from(place).ok().and_then(|place| dictionary.get(place));
                let value = value.ok_or_else(|| fault("a value is not in the dictionary"))?;
                if let Value::String(text) = value {
                    budget.spend(text.len(), 1)?;
                }
                values.push(value.clone());
            }
            Ok(values)
        }
        (RLE, Physical::Boolean) => {
            let (bytes, _) = encoding::sized(bytes)?;
            Ok(encoding::runs(bytes, 1, count, budget)?.into_iter().map(|bit| Value::Bool(bit == 1)).collect())
        }
        (DELTA_BINARY_PACKED, Physical::Int32) => {
            let (numbers, _) = encoding::deltas(bytes, count, budget)?;
            // Sums wrap in the width of the type.
            Ok(numbers.into_iter().map(|number| integer(i64::from(number as i32), leaf)).collect())
        }
        (DELTA_BINARY_PACKED, Physical::Int64) => {
            let (numbers, _) = encoding::deltas(bytes, count, budget)?;
            Ok(numbers.into_iter().map(|number| integer(number, leaf)).collect())
        }
        (DELTA_LENGTH_BYTE_ARRAY, Physical::Bytes) => {
            let texts = encoding::texts_after_lengths(bytes, count, budget)?;
            texts.into_iter().map(|bytes| text(bytes, budget)).collect()
        }
        (DELTA_BYTE_ARRAY, Physical::Bytes) => {
            let texts = encoding::texts_with_prefixes(bytes, count, budget)?;
            texts.iter().map(|bytes| text(bytes, budget)).collect()
        }
        (other, _) => Err(fault(format!("encoding {other} of its values is not read"))),
    }
}

fn integer(number: i64, leaf: &Leaf) -> Value {
    match (leaf.meaning, leaf.physical) {
        (Meaning::Itself, _) => number.into(),
        (Meaning::Unsigned, Physical::Int32) => (number as u32).into(),
        (Meaning::Unsigned, _) => number.cast_unsigned().into(),
    }
}

fn real(number: f64) -> Result<Value, Fault> {
    Number::from_f64(number).map(Value::Number).ok_or_else(|| fault(format!("{number} has no form in JSON")))
}

fn text(bytes: &[u8], budget: &mut Budget) -> Result<Value, Fault> {
    budget.spend(bytes.len(), 1)?;
    let text = std::str::from_utf8(bytes).map_err(|_| fault("a value is not text in UTF-8"))?;
    Ok(Value::String(text.to_owned()))
}

/// How pages are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Codec {
    None,
    Snappy,
    Gzip,
}

impl Codec {
    fn numbered(number: Option<i64>) -> Result<Self, Fault> {
        let name = match number {
            Some(0) => return Ok(Self::None),
            Some(1) => return Ok(Self::Snappy),
            Some(2) => return Ok(Self::Gzip),
            Some(3) => "LZO",
            Some(4) => "Brotli",
            Some(5 | 7) => "LZ4",
            Some(6) => "Zstandard",
            _ => "an unknown program",
        };
        Err(fault(format!("it is packed with {name}; only Snappy and gzip are read")))
    }

    /// The most that the packed bytes can become: what a header claims beyond is not believed. Snappy's longest copy is 64 bytes
    /// for 3; deflate's is 258 bytes for 2 bits.
    fn most(self, packed: usize) -> usize {
        match self {
            Self::None => packed,
            Self::Snappy => packed.saturating_mul(22),
            Self::Gzip => packed.saturating_mul(1032),
        }
    }

    fn unpack(self, packed: &[u8], bytes: usize, budget: &mut Budget) -> Result<Vec<u8>, Fault> {
        let wrong = |what: String| fault(format!("a page cannot be unpacked: {what}"));
        if bytes > self.most(packed.len()) {
            return Err(wrong(format!("{} bytes do not become {bytes}", packed.len())));
        }
        budget.spend(bytes, 1)?;
        let mut unpacked = vec![0; bytes];
        let found = match self {
            Self::None => {
                unpacked.copy_from_slice(&packed[..bytes]);
                packed.len()
            }
            Self::Snappy if packed.is_empty() => 0,
            Self::Snappy => {
                let length = snap::raw::decompress_len(packed).map_err(|error| wrong(error.to_string()))?;
                if length != bytes {
                    return Err(wrong(format!("{length} bytes instead of {bytes}")));
                }
                let mut decoder = snap::raw::Decoder::new();
                decoder.decompress(packed, &mut unpacked).map_err(|error| wrong(error.to_string()))?
            }
            Self::Gzip => {
                let mut decoder = flate2::read::MultiGzDecoder::new(packed);
                decoder.read_exact(&mut unpacked).map_err(|error| wrong(error.to_string()))?;
                let more = decoder.read(&mut [0]).map_err(|error| wrong(error.to_string()))?;
                bytes + more
            }
        };
        if found != bytes {
            return Err(wrong(format!("it is not {bytes} bytes")));
        }
        Ok(unpacked)
    }
}
