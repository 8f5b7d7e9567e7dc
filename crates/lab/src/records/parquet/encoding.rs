//! How Parquet writes many numbers and texts, taken apart again.
//!
//! Source: the Parquet format, "Encodings". Every function is told how many values are wanted and gives exactly these, or
//! says that the bytes end before.

use super::thrift::{unsigned, zigzag};
use super::{Budget, Fault, fault};

/// Runs of one number and groups of packed bits, mixed: levels, positions in a dictionary, flags.
pub(super) fn runs(bytes: &[u8], width: u8, count: usize, budget: &mut Budget) -> Result<Vec<u32>, Fault> {
    if width > 32 {
        return Err(fault(format!("numbers of {width} bits in a page")));
    }
    budget.spend(count, size_of::<u32>())?;
    let mut values = Vec::with_capacity(count);
    let mut rest = bytes;
    while values.len() < count {
        let (head, length) = unsigned(rest).map_err(|_| cut())?;
        rest = &rest[length..];
        let wanted = count - values.len();
        let length = usize::try_from(head >> 1).map_err(|_| cut())?;
        if head & 1 == 0 {
            let stored = rest.get(..usize::from(width).div_ceil(8)).ok_or_else(cut)?;
            rest = &rest[stored.len()..];
            let value = stored.iter().rev().fold(0u32, |value, byte| value << 8 | u32::from(*byte));
            if length == 0 {
                return Err(fault("an empty run in a page"));
            }
            values.extend(std::iter::repeat_n(value, length.min(wanted)));
        } else {
            // Groups of eight; the last one may be cut off with the page.
            let stored = length.checked_mul(usize::from(width)).ok_or_else(cut)?.min(rest.len());
            let length = length.saturating_mul(8).min(wanted);
            let (packed, after) = rest.split_at(stored);
            if length == 0 || packed.len() * 8 < length * usize::from(width) {
                return Err(cut());
            }
            values.extend((0..length).map(|index| bits(packed, index * usize::from(width), width) as u32));
            rest = after;
        }
    }
    Ok(values)
}

/// The number in `width` bits from bit `at`, the lowest first. The bytes are there.
fn bits(packed: &[u8], at: usize, width: u8) -> u64 {
    let mut value = 0;
    let mut taken = 0;
    while taken < usize::from(width) {
        let (byte, shift) = ((at + taken) / 8, (at + taken) % 8);
        let length = (8 - shift).min(usize::from(width) - taken);
        let part = (u64::from(packed[byte]) >> shift) & ((1 << length) - 1);
        value |= part << taken;
        taken += length;
    }
    value
}

/// Differences of whole numbers (`DELTA_BINARY_PACKED`), and how many bytes they took.
pub(super) fn deltas(bytes: &[u8], count: usize, budget: &mut Budget) -> Result<(Vec<i64>, usize), Fault> {
    budget.spend(count, size_of::<i64>())?;
    let mut at = 0;
    let mut number = || -> Result<u64, Fault> {
        let (value, length) = unsigned(bytes.get(at..).unwrap_or_default()).map_err(|_| cut())?;
        at += length;
        Ok(value)
    };
    let (block, parts, total, first) = (number()?, number()?, number()?, zigzag(number()?));
    let (Ok(block), Ok(parts)) = (usize::try_from(block), usize::try_from(parts)) else {
        return Err(fault("a page of differences has no such blocks"));
    };
    // The format asks for multiples of 128 and 32. A block is read value by value, so its size needs a bound only for sums.
    if parts == 0 || block > 1 << 24 || block % parts != 0 || (block / parts) % 8 != 0 || block == 0 {
        return Err(fault("a page of differences has no such blocks"));
    }
    if total != count as u64 {
        return Err(fault(format!("a page has {total} values instead of {count}")));
    }
    let mut values = Vec::with_capacity(count);
    if count > 0 {
        values.push(first);
    }
    let mut last = first;
    while values.len() < count {
        let (least, length) = unsigned(bytes.get(at..).unwrap_or_default()).map_err(|_| cut())?;
        let least = zigzag(least);
        at += length;
        let widths = bytes.get(at..).and_then(|rest| rest.get(..parts)).ok_or_else(cut)?;
        at += parts;
        for width in widths {
            // Parts after the last value may be left out, whatever width is written for them.
            if values.len() == count {
                break;
            }
            if *width > 64 {
                return Err(fault(format!("numbers of {width} bits in a page")));
            }
            let stored = block / parts / 8 * usize::from(*width);
            let packed = bytes.get(at..).and_then(|rest| rest.get(..stored)).ok_or_else(cut)?;
            at += stored;
            for index in 0..(block / parts).min(count - values.len()) {
                let difference = least.wrapping_add(bits(packed, index * usize::from(*width), *width).cast_signed());
                last = last.wrapping_add(difference);
                values.push(last);
            }
        }
    }
    Ok((values, at))
}

/// Texts, each after its length in four bytes (`PLAIN`).
pub(super) fn plain_texts<'a>(bytes: &'a [u8], count: usize, budget: &mut Budget) -> Result<Vec<&'a [u8]>, Fault> {
    // Every text takes four bytes or more.
    if count > bytes.len() / 4 {
        return Err(cut());
    }
    budget.spend(count, size_of::<&[u8]>())?;
    let mut texts = Vec::with_capacity(count);
    let mut rest = bytes;
    for _ in 0..count {
        let (text, after) = sized(rest)?;
        texts.push(text);
        rest = after;
    }
    Ok(texts)
}

/// Bytes after their length in four bytes, and what follows them.
pub(super) fn sized(bytes: &[u8]) -> Result<(&[u8], &[u8]), Fault> {
    let (length, rest) = bytes.split_first_chunk().ok_or_else(cut)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| cut())?;
    rest.split_at_checked(length).ok_or_else(cut)
}

/// Texts after all of their lengths (`DELTA_LENGTH_BYTE_ARRAY`).
pub(super) fn texts_after_lengths<'a>(
    bytes: &'a [u8],
    count: usize,
    budget: &mut Budget,
) -> Result<Vec<&'a [u8]>, Fault> {
    let (lengths, taken) = deltas(bytes, count, budget)?;
    budget.spend(count, size_of::<&[u8]>())?;
    let mut rest = bytes.get(taken..).unwrap_or_default();
    let mut texts = Vec::with_capacity(count);
    for length in lengths {
        let length = usize::try_from(length).map_err(|_| cut())?;
        let (text, after) = rest.split_at_checked(length).ok_or_else(cut)?;
        texts.push(text);
        rest = after;
    }
    Ok(texts)
}

/// Texts that begin as the one before (`DELTA_BYTE_ARRAY`).
pub(super) fn texts_with_prefixes(bytes: &[u8], count: usize, budget: &mut Budget) -> Result<Vec<Vec<u8>>, Fault> {
    let (prefixes, taken) = deltas(bytes, count, budget)?;
    let suffixes = texts_after_lengths(bytes.get(taken..).unwrap_or_default(), count, budget)?;
    budget.spend(count, size_of::<Vec<u8>>())?;
    let mut texts: Vec<Vec<u8>> = Vec::with_capacity(count);
    for (prefix, suffix) in prefixes.into_iter().zip(suffixes) {
        let before = texts.last().map_or(&[][..], Vec::as_slice);
        let prefix = usize::try_from(prefix).ok().and_then(|length| before.get(..length)).ok_or_else(cut)?;
        budget.spend(prefix.len() + suffix.len(), 1)?;
        texts.push([prefix, suffix].concat());
    }
    Ok(texts)
}

/// Numbers of `N` bytes each (`PLAIN`).
pub(super) fn plain_numbers<const N: usize>(bytes: &[u8], count: usize) -> Result<&[[u8; N]], Fault> {
    bytes.as_chunks().0.get(..count).ok_or_else(cut)
}

/// Flags of one bit each (`PLAIN`).
pub(super) fn plain_flags(bytes: &[u8], count: usize) -> Result<impl Iterator<Item = bool>, Fault> {
    let packed = bytes.get(..count.div_ceil(8)).ok_or_else(cut)?;
    Ok((0..count).map(|index| packed[index / 8] >> (index % 8) & 1 == 1))
}

fn cut() -> Fault {
    fault("a page ends too early")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget() -> Budget {
        Budget::of(1 << 20)
    }

    /// The worked examples of the format's page.
    #[test]
    fn packed_bits_and_runs() -> Result<(), Fault> {
        let packed = [0x03, 0x88, 0xc6, 0xfa];
        assert_eq!(runs(&packed, 3, 8, &mut budget())?, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(runs(&[8, 5, 3, 0b1], 1, 5, &mut budget())?, [5, 5, 5, 5, 1]);
        assert_eq!(runs(&[200, 1], 0, 100, &mut budget())?, [0; 100]);
        for end in 0..packed.len() {
            assert!(runs(&packed[..end], 3, 8, &mut budget()).is_err());
        }
        assert!(runs(&[0, 0], 1, 1, &mut budget()).is_err(), "an empty run never ends");
        Ok(())
    }

    #[test]
    fn differences() -> Result<(), Fault> {
        // 7, 5, 3, 1, 2, 3, 4, 5: differences -2 -2 -2 1 1 1 1, least -2, then 0 0 0 3 3 3 3 in two bits.
        let mut bytes = vec![0x80, 0x01, 4, 8, 14, 3, 2, 0, 0, 0, 0b1100_0000, 0b0011_1111];
        bytes.extend([0; 6]);
        let (values, taken) = deltas(&bytes, 8, &mut budget())?;
        assert_eq!(values, [7, 5, 3, 1, 2, 3, 4, 5]);
        assert_eq!(taken, bytes.len());
        for end in 0..bytes.len() {
            assert!(deltas(&bytes[..end], 8, &mut budget()).is_err(), "cut after {end}");
        }
        // Five values of equal distance need no bits at all.
        assert_eq!(deltas(&[0x80, 0x01, 4, 5, 2, 2, 0, 0, 0, 0], 5, &mut budget())?.0, [1, 2, 3, 4, 5]);
        Ok(())
    }

    #[test]
    fn a_claim_of_many_values_is_refused_before_it_is_believed() {
        let mut budget = Budget::of(1000);
        assert!(runs(&[0xfe, 0xff, 0xff, 0xff, 0x0f, 1], 1, 1 << 31, &mut budget).is_err());
        assert!(plain_texts(&[0; 8], usize::MAX, &mut budget).is_err());
        assert!(deltas(&[0x80, 0x01, 4, 0xff, 0xff, 0xff, 0x7f, 2, 2, 0, 0, 0, 0], 0x0fff_ffff, &mut budget).is_err());
    }
}
