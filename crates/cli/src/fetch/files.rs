//! Writing files of a model: bounded, hashed while they are written.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use lathe_lab::Progress;
use lathe_model::reference::SourceFile;

use super::FetchError;

const BUFFER: usize = 1 << 20;

/// Turns an I/O error into one that names the path.
pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> FetchError {
    |source| FetchError::Io { path: path.to_owned(), source }
}

/// A file that is being written.
pub(crate) struct HashedFile {
    name: String,
    file: File,
    hash: Sha256,
    bytes: u64,
    limit: u64,
}

impl HashedFile {
    /// Creates `<folder>/<name>` and the folders between. At most `limit` bytes will be written to it.
    pub(crate) fn create(folder: &Path, name: &str, limit: u64) -> Result<Self, FetchError> {
        let path = folder.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(at(parent))?;
        }
        let file = File::create_new(&path).map_err(at(&path))?;
        Ok(Self { name: name.to_owned(), file, hash: Sha256::new(), bytes: 0, limit })
    }

    /// Appends everything that the reader has.
    ///
    /// # Errors
    /// The reader's and the disk's; `InvalidData` when it has more than the limit.
    pub(crate) fn append(&mut self, reader: &mut dyn Read, progress: &dyn Progress) -> io::Result<()> {
        each_chunk(reader, |chunk| {
            self.bytes += chunk.len() as u64;
            if self.bytes > self.limit {
                let problem = format!("{} is larger than the expected {} bytes", self.name, self.limit);
                return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
            }
            self.file.write_all(chunk)?;
            self.hash.update(chunk);
            progress.advance(chunk.len() as u64);
            Ok(())
        })
    }

    /// Flushes the file to the disk, so that the rename that follows can't survive a crash that its bytes don't.
    pub(crate) fn finish(self) -> io::Result<SourceFile> {
        self.file.sync_all()?;
        Ok(SourceFile { name: self.name, bytes: self.bytes, sha256: hexadecimal(self.hash) })
    }
}

/// SHA-256 of a file, lower-case hexadecimal.
pub(crate) fn hash_file(path: &Path, progress: &dyn Progress) -> io::Result<String> {
    let mut hash = Sha256::new();
    each_chunk(&mut File::open(path)?, |chunk| {
        hash.update(chunk);
        progress.advance(chunk.len() as u64);
        Ok(())
    })?;
    Ok(hexadecimal(hash))
}

fn each_chunk(reader: &mut dyn Read, mut chunk: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => chunk(&buffer[..length])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn hexadecimal(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
