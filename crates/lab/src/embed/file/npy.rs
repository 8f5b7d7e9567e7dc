//! NumPy's array files.
//!
//! Source: NumPy's description of its format (numpy.lib.format): a magic string, the version, the length of a header in
//! Python's notation, the header, the values.

use std::path::Path;

use lathe_formats::NewFile;
use lathe_kernels::weights::f16_to_f32;
use lathe_measure::embedding::Vectors;

use crate::Error;

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Where the values begin is a multiple of this.
const ALIGNED: usize = 64;

/// Writes an array of little-endian values.
pub(super) fn write<const N: usize>(
    out: &Path,
    descr: &str,
    shape: &[usize],
    values: impl Iterator<Item = [u8; N]>,
) -> Result<(), Error> {
    let shape: String = shape.iter().map(|size| format!("{size}, ")).collect();
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}), }}", shape.trim_end());
    let before = MAGIC.len() + 4;
    while !(before + header.len() + 1).is_multiple_of(ALIGNED) {
        header.push(' ');
    }
    header.push('\n');
    let mut file = NewFile::create(out)?;
    file.append(MAGIC)?;
    file.append(&[1, 0])?;
    file.append(&(header.len() as u16).to_le_bytes())?;
    file.append(header.as_bytes())?;
    for value in values {
        file.append(&value)?;
    }
    Ok(file.finish()?)
}

/// Reads a matrix of f32, f16, or bytes with their scales in another file.
pub(super) fn read(file: &Path, scales: &Path) -> Result<Vectors, Error> {
    let fault = |problem: String| Error::Embedded { file: file.to_owned(), problem };
    let bytes = std::fs::read(file).map_err(|source| Error::Read { file: file.into(), source })?;
    let array = Array::parse(&bytes).map_err(fault)?;
    let [rows, width] = array.shape[..] else {
        return Err(fault(format!("it has {} dimensions instead of 2", array.shape.len())));
    };
    let mut values = array.values().map_err(fault)?;
    if array.descr == "|i1" {
        let of_scales = std::fs::read(scales).map_err(|source| Error::Read { file: scales.into(), source })?;
        let fault = |problem: String| Error::Embedded { file: scales.to_owned(), problem };
        let scales = Array::parse(&of_scales).and_then(|array| array.values()).map_err(fault)?;
        if scales.len() != rows {
            return Err(fault(format!("{} scales of {rows} vectors", scales.len())));
        }
        for (row, scale) in values.chunks_exact_mut(width.max(1)).zip(scales) {
            row.iter_mut().for_each(|x| *x *= scale);
        }
    }
    Vectors::new(width, values).map_err(|error| fault(error.to_string()))
}

/// An array of a file.
struct Array<'a> {
    descr: &'a str,
    shape: Vec<usize>,
    data: &'a [u8],
}

impl<'a> Array<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let rest = bytes.strip_prefix(MAGIC).ok_or("it does not begin as NumPy's files do")?;
        let cut = "it has been cut off";
        let (version, rest) = rest.split_first_chunk::<2>().ok_or(cut)?;
        let (length, rest) = match version[0] {
            1 => {
                let (length, rest) = rest.split_first_chunk::<2>().ok_or(cut)?;
                (usize::from(u16::from_le_bytes(*length)), rest)
            }
            2 | 3 => {
                let (length, rest) = rest.split_first_chunk::<4>().ok_or(cut)?;
                (u32::from_le_bytes(*length) as usize, rest)
            }
            other => return Err(format!("version {other} of the format is not read")),
        };
        let (header, data) = rest.split_at_checked(length).ok_or(cut)?;
        let header = std::str::from_utf8(header).map_err(|_| "its header is no text")?;
        let field = |name: &str| {
            let (_, after) = header.split_once(&format!("'{name}':"))?;
            Some(after.trim_start())
        };
        let descr = field("descr").and_then(|descr| descr.strip_prefix('\'')?.split_once('\''));
        let (descr, _) = descr.ok_or("its header does not say what it holds")?;
        if !field("fortran_order").is_some_and(|order| order.starts_with("False")) {
            return Err("its columns come first; save it in C order".into());
        }
        let shape = field("shape").and_then(|shape| shape.strip_prefix('(')?.split_once(')'));
        let (shape, _) = shape.ok_or("its header has no shape")?;
        let sizes = shape.split(',').map(str::trim).filter(|size| !size.is_empty());
        let shape = sizes.map(|size| size.parse().map_err(|_| format!("its shape has `{size}`")));
        let shape = shape.collect::<Result<Vec<usize>, String>>()?;
        let size = match descr {
            "<f4" => 4,
            "<f2" => 2,
            "|i1" => 1,
            other => return Err(format!("values of type `{other}` are not read, but <f4, <f2 and |i1 are")),
        };
        let expected = shape.iter().try_fold(size, |bytes: usize, size| bytes.checked_mul(*size));
        if expected != Some(data.len()) {
            return Err(format!(
                "it has {} bytes of values, and its shape ({}) needs others",
                data.len(),
                shape_text(&shape)
            ));
        }
        Ok(Self { descr, shape, data })
    }

    fn values(&self) -> Result<Vec<f32>, String> {
        Ok(match self.descr {
            "<f4" => self.data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            "<f2" => {
                let mut values = vec![0.0; self.data.len() / 2];
                f16_to_f32(self.data, &mut values);
                values
            }
            _ => self.data.iter().map(|byte| f32::from(byte.cast_signed())).collect(),
        })
    }
}

fn shape_text(shape: &[usize]) -> String {
    shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_header_is_numpy_s() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.npy");
        write(&file, "<f4", &[2, 3], (0..6u8).map(|x| f32::from(x).to_le_bytes())).unwrap();
        let bytes = std::fs::read(&file).unwrap();
        assert_eq!(&bytes[..10], b"\x93NUMPY\x01\x00\x76\x00");
        assert!(bytes[10..].starts_with(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3,), }"));
        assert_eq!((bytes[127], bytes.len()), (b'\n', 128 + 24));
    }

    #[test]
    fn any_byte_may_be_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.npy");
        write(&file, "|i1", &[2, 2], [[1u8], [2], [3], [4]].into_iter()).unwrap();
        let whole = std::fs::read(&file).unwrap();
        for end in 0..whole.len() {
            assert!(Array::parse(&whole[..end]).is_err(), "cut after {end}");
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x55;
            // Whatever it is, it is no panic.
            let _ = Array::parse(&damaged).and_then(|array| array.values());
        }
        let said = |from: &str, to: &str| {
            let text = String::from_utf8_lossy(&whole[10..128]).replace(from, to);
            let mut bytes = whole[..8].to_vec();
            bytes.extend((text.len() as u16).to_le_bytes());
            bytes.extend(text.as_bytes());
            bytes.extend(&whole[128..]);
            Array::parse(&bytes).err().unwrap()
        };
        assert!(said("|i1", "<f8").contains("`<f8`"));
        assert!(said("False", "True").contains("C order"));
        assert!(said("(2, 2,)", "(99999999999999999, 99999999999999999)").contains("needs others"));
    }
}
