//! Finished items, in memory and in a file that survives a kill.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use lathe_formats::NewFile;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Error;

/// Finished items by number.
pub(crate) struct Store<T> {
    items: BTreeMap<u64, T>,
    /// Those that this run put there.
    new: Vec<u64>,
    file: Option<Partial>,
}

/// The file that items are appended to; it is made for the first of them.
struct Partial {
    path: PathBuf,
    target: PathBuf,
    head: String,
    /// Bytes that are worth keeping of what an interrupted run has left.
    whole: u64,
    out: Option<File>,
}

/// A line of a partial file; the first one is the head: what items depend on.
#[derive(Serialize, Deserialize)]
struct Line<T> {
    item: u64,
    #[serde(flatten)]
    of: T,
}

impl<T: Clone + Serialize + DeserializeOwned> Store<T> {
    /// Opens the partial file of a result, and reads what an interrupted run with the same head has left. Without a
    /// result everything is kept in memory only.
    ///
    /// # Errors
    /// The result is there already; another run's partial file is in the way; the system refuses.
    pub(crate) fn open<H: Serialize>(
        target: Option<&Path>,
        head: impl FnOnce() -> Result<H, Error>,
    ) -> Result<Self, Error> {
        let mut store = Self { items: BTreeMap::new(), new: Vec::new(), file: None };
        let Some(target) = target else { return Ok(store) };
        let in_the_way =
            |problem: String, hint: &str| Err(Error::Spec { field: "--out", problem, hint: Some(hint.to_owned()) });
        if target.exists() {
            return in_the_way(format!("{} is there already", target.display()), "remove it or choose another name");
        }
        let mut name = target.as_os_str().to_owned();
        name.push(".partial");
        let path = PathBuf::from(name);
        let head = serde_json::to_string(&head()?)? + "\n";
        let read = |source| Error::Read { file: path.clone(), source };
        let mut whole = 0;
        let mut bytes = Vec::new();
        if path.exists() {
            File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(read)?;
            // The last line may have been cut.
            let lines = bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
            for (index, line) in lines.enumerate() {
                if index == 0 && line != head.as_bytes() {
                    let problem =
                        format!("{} belongs to a run with other options, prompts or another model", path.display());
                    return in_the_way(problem, "repeat that run's options to complete it, or remove the file");
                }
                if index > 0 {
                    let line: Line<T> = serde_json::from_slice(line).map_err(|error| Error::Record {
                        file: path.clone(),
                        line: index + 1,
                        problem: format!("not a finished item: {error}"),
                        expected: "remove the file to begin again",
                    })?;
                    store.items.insert(line.item, line.of);
                }
                whole += line.len() as u64;
            }
        }
        store.file = Some(Partial { path, target: target.to_owned(), head, whole, out: None });
        Ok(store)
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn get(&self, item: u64) -> Option<&T> {
        self.items.get(&item)
    }

    /// The items that this run has put there.
    pub(crate) fn new_items(&self) -> impl Iterator<Item = &T> {
        self.new.iter().filter_map(|item| self.items.get(item))
    }

    /// Keeps a finished item.
    pub(crate) fn put(&mut self, item: u64, of: T) -> Result<(), Error> {
        if let Some(file) = &mut self.file {
            let mut line = serde_json::to_vec(&Line { item, of: of.clone() })?;
            line.push(b'\n');
            file.append(&line).map_err(|source| Error::Write { file: file.path.clone(), source })?;
        }
        self.new.push(item);
        self.items.insert(item, of);
        Ok(())
    }

    /// Writes the result as lines under its name and removes the partial file.
    pub(crate) fn finish(self, result: &[T]) -> Result<(), Error> {
        self.finish_by(|target| write_lines(target, result))
    }

    /// Has the result written under its name and removes the partial file.
    pub(crate) fn finish_by(self, write: impl FnOnce(&Path) -> Result<(), Error>) -> Result<(), Error> {
        let Some(Partial { path, target, out, .. }) = self.file else { return Ok(()) };
        drop(out);
        write(&target)?;
        match std::fs::remove_file(&path) {
            // Nothing was ever appended.
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Write { file: path, source }),
            _ => Ok(()),
        }
    }
}

impl Partial {
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let out = match &mut self.out {
            Some(out) => out,
            none => {
                let mut out = File::options().create(true).append(true).open(&self.path)?;
                out.set_len(self.whole)?;
                if self.whole == 0 {
                    out.write_all(self.head.as_bytes())?;
                }
                none.insert(out)
            }
        };
        out.write_all(line)
    }
}

/// Writes records as JSON lines.
pub(crate) fn write_lines(target: &Path, records: &[impl Serialize]) -> Result<(), Error> {
    let mut file = NewFile::create(target)?;
    for record in records {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        file.append(&line)?;
    }
    Ok(file.finish()?)
}
