//! Thrift's compact protocol, in which Parquet writes its headers: read into a tree, looked up by field number.
//!
//! Source: the Thrift compact protocol specification. A tree takes memory in proportion to the bytes that were read.

use super::{Fault, fault};

/// Parquet's own headers are nine levels deep.
const MOST_NESTED: usize = 32;

/// A value of a header.
#[derive(Debug, PartialEq)]
pub(super) enum Item<'a> {
    Flag(bool),
    /// Every width of integers.
    Integer(i64),
    Bytes(&'a [u8]),
    List(Vec<Item<'a>>),
    Fields(Vec<(i16, Item<'a>)>),
    /// A kind that no field of ours has: its bytes were passed over.
    Other,
}

impl<'a> Item<'a> {
    /// The field with this number.
    pub(super) fn field(&self, number: i16) -> Option<&Item<'a>> {
        match self {
            Self::Fields(fields) => fields.iter().find(|(known, _)| *known == number).map(|(_, item)| item),
            _ => None,
        }
    }

    pub(super) fn flag(&self, number: i16) -> Option<bool> {
        match self.field(number) {
            Some(Self::Flag(flag)) => Some(*flag),
            _ => None,
        }
    }

    pub(super) fn integer(&self, number: i16) -> Option<i64> {
        match self.field(number) {
            Some(Self::Integer(integer)) => Some(*integer),
            _ => None,
        }
    }

    /// An integer that counts something.
    pub(super) fn count(&self, number: i16, what: &str) -> Result<usize, Fault> {
        let found = self.integer(number).ok_or_else(|| fault(format!("a header lacks its {what}")))?;
        usize::try_from(found).map_err(|_| fault(format!("a header's {what} is {found}")))
    }

    pub(super) fn text(&self, number: i16) -> Option<&'a str> {
        match self.field(number) {
            Some(Self::Bytes(bytes)) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    pub(super) fn list(&self, number: i16) -> Option<&[Item<'a>]> {
        match self.field(number) {
            Some(Self::List(items)) => Some(items),
            _ => None,
        }
    }
}

/// Reads one struct from the start of `bytes`; also says how many of them it took.
pub(super) fn read_struct(bytes: &[u8]) -> Result<(Item<'_>, usize), Fault> {
    let mut reader = Reader { bytes, at: 0 };
    let item = reader.fields(0)?;
    Ok((item, reader.at))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, Fault> {
        let byte = *self.bytes.get(self.at).ok_or_else(cut)?;
        self.at += 1;
        Ok(byte)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let end = self.at.checked_add(length).ok_or_else(cut)?;
        let taken = self.bytes.get(self.at..end).ok_or_else(cut)?;
        self.at = end;
        Ok(taken)
    }

    /// Seven bits a byte, the lowest first.
    fn unsigned(&mut self) -> Result<u64, Fault> {
        let (value, length) = unsigned(self.bytes.get(self.at..).unwrap_or_default())?;
        self.at += length;
        Ok(value)
    }

    fn signed(&mut self) -> Result<i64, Fault> {
        self.unsigned().map(zigzag)
    }

    fn length(&mut self) -> Result<usize, Fault> {
        usize::try_from(self.unsigned()?).map_err(|_| cut())
    }

    fn fields(&mut self, depth: usize) -> Result<Item<'a>, Fault> {
        if depth > MOST_NESTED {
            return Err(fault("a header is nested too deeply"));
        }
        let mut fields = Vec::new();
        let mut number = 0i16;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Ok(Item::Fields(fields));
            }
            number = match head >> 4 {
                0 => i16::try_from(self.signed()?).map_err(|_| fault("a header's field has no number"))?,
                step => number.wrapping_add(i16::from(step)),
            };
            let item = match head & 15 {
                1 => Item::Flag(true),
                2 => Item::Flag(false),
                kind => self.item(kind, depth)?,
            };
            fields.push((number, item));
        }
    }

    fn item(&mut self, kind: u8, depth: usize) -> Result<Item<'a>, Fault> {
        match kind {
            // In a list a flag is a byte of its own.
            1 | 2 => Ok(Item::Flag(self.byte()? == 1)),
            3 => Ok(Item::Integer(i64::from(self.byte()?.cast_signed()))),
            4..=6 => self.signed().map(Item::Integer),
            7 => self.take(8).map(|_| Item::Other),
            8 => {
                let length = self.length()?;
                self.take(length).map(Item::Bytes)
            }
            9 | 10 => self.list(depth + 1),
            12 => self.fields(depth + 1),
            // Maps and identifiers: no header of Parquet has one.
            _ => Err(fault(format!("a header has a field of the unknown kind {kind}"))),
        }
    }

    fn list(&mut self, depth: usize) -> Result<Item<'a>, Fault> {
        if depth > MOST_NESTED {
            return Err(fault("a header is nested too deeply"));
        }
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => self.length()?,
            count => usize::from(count),
        };
        // Every element takes a byte or more.
        if count > self.bytes.len() - self.at {
            return Err(cut());
        }
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(self.item(head & 15, depth)?);
        }
        Ok(Item::List(items))
    }
}

/// An unsigned number of seven bits a byte from the start of `bytes`, and its length.
pub(super) fn unsigned(bytes: &[u8]) -> Result<(u64, usize), Fault> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 127).checked_shl(7 * index as u32).unwrap_or(0);
        if byte & 128 == 0 {
            return Ok((value, index + 1));
        }
    }
    Err(cut())
}

/// Signed numbers are written with the sign in the lowest bit.
pub(super) fn zigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

fn cut() -> Fault {
    fault("a header ends too early")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(unsigned(&[0x96, 0x01]), Ok((150, 2)));
        assert_eq!(unsigned(&[0xff; 10]).map(|(value, _)| value).ok(), None);
        assert_eq!([0, 1, 2, 3, u64::MAX].map(zigzag), [0, -1, 1, -2, i64::MIN]);
    }

    #[test]
    fn a_struct_with_every_kind() -> Result<(), Fault> {
        // 1: 150, 2: true, 4: "ab", 5: [1, 2], 300: {}
        let bytes = [0x15, 0xac, 0x02, 0x11, 0x28, 2, b'a', b'b', 0x19, 0x25, 2, 4, 0x0c, 0xd8, 0x04, 0, 0, 99];
        let (item, length) = read_struct(&bytes)?;
        assert_eq!(length, 17);
        assert_eq!(item.count(1, "number")?, 150);
        assert_eq!(item.flag(2), Some(true));
        assert_eq!(item.text(4), Some("ab"));
        assert_eq!(item.list(5), Some(&[Item::Integer(1), Item::Integer(2)][..]));
        assert_eq!(item.field(300), Some(&Item::Fields(Vec::new())));
        for end in 0..17 {
            assert!(read_struct(&bytes[..end]).is_err(), "cut after {end}");
        }
        Ok(())
    }

    #[test]
    fn nesting_and_lengths_are_bounded() {
        assert!(read_struct(&[0x1c; 10_000]).is_err());
        assert!(read_struct(&[0x19, 0xf9, 0xff, 0xff, 0xff, 0xff, 0x0f]).is_err());
        assert!(read_struct(&[0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]).is_err());
    }
}
