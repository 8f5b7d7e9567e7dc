//! A safetensors file whose tensors are written at their places, in any order and by several threads.
//!
//! The length of the file is known when it is made. A program that was killed can open it again and go on; whether a
//! tensor has been written is for the caller to remember. Unlike [`super::safetensors`], the file has its own name from the
//! beginning: it belongs into a folder that gets its name when everything in it is complete.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::{Planned, TensorSpec, plan, safetensors_header};
use crate::error::Error;

/// A safetensors file of which every byte has its place.
#[derive(Debug)]
pub struct PlacedFile {
    path: PathBuf,
    file: File,
    /// The bytes of each tensor.
    places: HashMap<String, Range<usize>>,
}

impl PlacedFile {
    /// Makes the file: its header, and room for the tensors in the given order.
    ///
    /// # Errors
    /// As [`super::safetensors`]; the file is there already.
    pub fn create(
        path: &Path,
        metadata: &BTreeMap<String, String>,
        tensors: &[TensorSpec],
    ) -> Result<PlacedFile, Error> {
        let laid = Laid::out(path, metadata, tensors)?;
        let refused = |source| refused(path, source);
        let mut file = File::options().read(true).write(true).create_new(true).open(path).map_err(refused)?;
        file.write_all(&laid.header).map_err(refused)?;
        file.set_len(laid.length as u64).map_err(refused)?;
        Ok(PlacedFile { path: path.into(), file, places: laid.by_name(tensors) })
    }

    /// Opens a file that [`PlacedFile::create`] made with the same arguments.
    ///
    /// # Errors
    /// As [`PlacedFile::create`]; the file is not there, or is another one.
    pub fn reopen(
        path: &Path,
        metadata: &BTreeMap<String, String>,
        tensors: &[TensorSpec],
    ) -> Result<PlacedFile, Error> {
        let laid = Laid::out(path, metadata, tensors)?;
        let refused = |source| refused(path, source);
        let mut file = File::options().read(true).write(true).open(path).map_err(refused)?;
        let mut found = vec![0; laid.header.len()];
        let has_length = file.metadata().map_err(refused)?.len() == laid.length as u64;
        if !has_length || file.read_exact(&mut found).is_err() || found != laid.header {
            return Err(Error::Unwritable {
                file: path.into(),
                field: "the header".to_owned(),
                reason: "it is not the one that an interrupted run would have left".to_owned(),
            });
        }
        Ok(PlacedFile { path: path.into(), file, places: laid.by_name(tensors) })
    }

    /// Writes bytes of a tensor, beginning at byte `offset` of it.
    ///
    /// # Errors
    /// There is no such tensor, or it has fewer bytes; the system refuses.
    pub fn write(&self, tensor: &str, offset: usize, bytes: &[u8]) -> Result<(), Error> {
        let Some(place) = self.places.get(tensor) else {
            return Err(Error::MissingTensor { file: self.path.clone(), tensor: tensor.to_owned() });
        };
        let (needs, got) = (place.len(), offset.saturating_add(bytes.len()));
        if got > needs {
            return Err(Error::WrongLength { file: self.path.clone(), tensor: tensor.to_owned(), needs, got });
        }
        write_at(&self.file, bytes, (place.start + offset) as u64).map_err(|source| refused(&self.path, source))
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Where everything lies in a safetensors file.
struct Laid {
    header: Vec<u8>,
    /// The bytes of each tensor, in the given order.
    places: Vec<Range<usize>>,
    length: usize,
}

impl Laid {
    fn out(path: &Path, metadata: &BTreeMap<String, String>, tensors: &[TensorSpec]) -> Result<Laid, Error> {
        let plan = plan(path, tensors, 1)?;
        let header = safetensors_header(path, metadata, tensors, &plan)?;
        let mut length = header.len();
        let place = |planned: &Planned| {
            let place = length..length + planned.bytes;
            length = place.end;
            place
        };
        let places = plan.iter().map(place).collect();
        Ok(Laid { header, places, length })
    }

    fn by_name(&self, tensors: &[TensorSpec]) -> HashMap<String, Range<usize>> {
        tensors.iter().zip(&self.places).map(|(tensor, place)| (tensor.name.clone(), place.clone())).collect()
    }
}

fn refused(path: &Path, source: io::Error) -> Error {
    Error::Io { file: path.into(), action: "write the file", source }
}

/// The bytes of a safetensors file in memory: header, and zeros in the place of tensors. The second value says where each
/// tensor lies in them, in the given order.
///
/// # Errors
/// As [`super::safetensors`]; `name` stands for the file in messages.
pub fn safetensors_in_memory(name: &Path, tensors: &[TensorSpec]) -> Result<(Vec<u8>, Vec<Range<usize>>), Error> {
    let Laid { header: mut bytes, places, length } = Laid::out(name, &BTreeMap::new(), tensors)?;
    bytes.resize(length, 0);
    Ok((bytes, places))
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
fn write_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = std::os::windows::fs::FileExt::seek_write(file, bytes, offset)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[written..];
        offset += written as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Checkpoint, ElementType};

    fn specs() -> Vec<TensorSpec> {
        let spec =
            |name: &str, shape: &[usize], element| TensorSpec { name: name.into(), shape: shape.into(), element };
        vec![spec("a", &[2, 3], ElementType::F32), spec("b", &[4], ElementType::BF16)]
    }

    #[test]
    fn pieces_in_any_order_make_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model.safetensors");
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        let numbers: Vec<f32> = (0..6).map(|i| i as f32 - 2.5).collect();
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        {
            let file = PlacedFile::create(&path, &metadata, &specs()).expect("a new file");
            file.write("b", 2, &[1, 2, 3, 4, 5, 6]).expect("the end of b");
            file.write("a", 12, &bytes[12..]).expect("the second row");
        }
        let file = PlacedFile::reopen(&path, &metadata, &specs()).expect("the same file");
        file.write("a", 0, &bytes[..12]).expect("the first row");
        file.write("b", 0, &[7, 8]).expect("the beginning of b");
        assert!(matches!(file.write("a", 20, &[0; 5]), Err(Error::WrongLength { needs: 24, got: 25, .. })));
        assert!(matches!(file.write("c", 0, &[0]), Err(Error::MissingTensor { .. })));

        let checkpoint = Checkpoint::open(&path).expect("a checkpoint");
        assert_eq!(checkpoint.require("a").and_then(|a| a.to_f32()).expect("numbers"), numbers);
        assert_eq!(checkpoint.require("b").expect("b").bytes(), [7, 8, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn another_file_is_not_gone_on_with() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model.safetensors");
        let none = BTreeMap::new();
        PlacedFile::create(&path, &none, &specs()).expect("a new file");
        assert!(PlacedFile::create(&path, &none, &specs()).is_err(), "nothing is overwritten");
        let mut other = specs();
        other[0].shape = vec![3, 2];
        let error = PlacedFile::reopen(&path, &none, &other).expect_err("another header");
        assert!(error.to_string().contains("not the one that an interrupted run would have left"), "{error}");
    }
}
