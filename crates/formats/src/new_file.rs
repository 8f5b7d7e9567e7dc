//! A file that appears under its name when it is complete.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::TempPath;

use crate::error::Error;

/// A file being written under a temporary name beside its target, with the permissions of any new file.
///
/// Dropped before [`NewFile::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct NewFile {
    target: PathBuf,
    // Before the path, because fields are dropped in order and some systems remove no open file.
    out: BufWriter<File>,
    temporary: TempPath,
}

impl NewFile {
    /// Begins a file.
    ///
    /// # Errors
    /// The target's folder does not exist or the target is a folder; the system refuses.
    pub fn create(target: &Path) -> Result<NewFile, Error> {
        let folder = match target.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        if !folder.is_dir() {
            return Err(Error::NoFolder { file: target.into(), folder: folder.into() });
        }
        // The rename would say so too, but only after everything has been written.
        if target.is_dir() {
            return Err(refused(target, io::ErrorKind::IsADirectory.into()));
        }
        let mut builder = tempfile::Builder::new();
        builder.prefix(".lathe-").suffix(".partial");
        // Not `tempfile_in`, whose errors name the temporary file.
        let created = builder.make_in(folder, |path| File::options().write(true).create_new(true).open(path));
        let (file, temporary) = created.map_err(|source| refused(target, source))?.into_parts();
        Ok(NewFile { target: target.into(), out: BufWriter::with_capacity(1 << 20, file), temporary })
    }

    /// Writes a whole file. One that had the name is replaced.
    ///
    /// # Errors
    /// As [`NewFile::create`] and [`NewFile::finish`].
    pub fn write(target: &Path, content: &[u8]) -> Result<(), Error> {
        let mut file = NewFile::create(target)?;
        file.append(content)?;
        file.finish()
    }

    /// The name that the file will have.
    #[must_use]
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// The system refuses.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.out.write_all(bytes).map_err(|source| refused(&self.target, source))
    }

    /// Completes the file and gives it its name. A file that had the name is replaced.
    ///
    /// # Errors
    /// The system refuses; the target is as it was before.
    pub fn finish(self) -> Result<(), Error> {
        let NewFile { target, out, temporary } = self;
        let failed = |source| refused(&target, source);
        let file = out.into_inner().map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)?;
        // Some systems rename no open file.
        drop(file);
        temporary.persist(&target).map_err(|error| failed(error.error))
    }
}

fn refused(target: &Path, source: io::Error) -> Error {
    Error::Io { file: target.into(), action: "write the file", source }
}
