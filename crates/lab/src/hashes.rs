//! Hashes of large files, remembered until the files change.
//!
//! What a result depends on is told by hashes, and weights are large: to hash the inputs of a merge takes as long as half of
//! the merge. On Unix a file is known by its device, inode, length and times. The time of the last change of its status
//! cannot be set by a program: whoever writes into the file, replaces it or moves it back changes one of these. Elsewhere
//! nothing is remembered.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use lathe_formats::NewFile;
use lathe_model::reference::Home;
use serde::{Deserialize, Serialize};

use crate::Error;

/// How a file is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Algorithm {
    Sha256,
    Blake3,
}

/// The hash of a file in hexadecimal digits: the remembered one, or what `hash` says, which is remembered then.
///
/// # Errors
/// Those of `hash`. A memory that cannot be read or written is none.
pub(crate) fn remembered(
    file: &Path,
    algorithm: Algorithm,
    home: &Home,
    hash: impl FnOnce() -> Result<String, Error>,
) -> Result<String, Error> {
    let Some(state) = State::of(file) else { return hash() };
    let memory = home.root().join("hashes.jsonl");
    let known = read(&memory).into_iter().rfind(|entry| entry.algorithm == algorithm && entry.state == state);
    if let Some(known) = known {
        return Ok(known.hash);
    }
    let entry = Entry { algorithm, hash: hash()?, state };
    // What was written while it was read is another file.
    if entry.state.is_settled() && State::of(file).as_ref() == Some(&entry.state) {
        let _ = remember(&memory, &entry);
    }
    Ok(entry.hash)
}

/// A line of the memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    algorithm: Algorithm,
    hash: String,
    #[serde(flatten)]
    state: State,
}

/// What changes when a file changes. Times are seconds and nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl State {
    /// Files that are hashed in no time are not worth a line.
    const LEAST_BYTES: u64 = 1 << 20;

    #[cfg(unix)]
    fn of(file: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        let of = fs::metadata(file).ok().filter(|of| of.is_file() && of.len() >= Self::LEAST_BYTES)?;
        Some(Self {
            device: of.dev(),
            inode: of.ino(),
            bytes: of.len(),
            modified: (of.mtime(), of.mtime_nsec()),
            changed: (of.ctime(), of.ctime_nsec()),
        })
    }

    #[cfg(not(unix))]
    fn of(_: &Path) -> Option<Self> {
        None
    }

    /// Whether its last change is so long ago that another one would have another time, on any file system. No result
    /// depends on this clock: only whether a file is hashed again.
    fn is_settled(&self) -> bool {
        const COARSEST_CLOCK: Duration = Duration::from_secs(3);
        let changed = u64::try_from(self.changed.0).unwrap_or(u64::MAX);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        now.checked_sub(COARSEST_CLOCK).is_some_and(|latest| changed < latest.as_secs())
    }
}

/// Lines beyond which the older half is forgotten.
const MOST_ENTRIES: usize = 4096;

/// All entries that can be read, the latest last.
fn read(memory: &Path) -> Vec<Entry> {
    let text = fs::read_to_string(memory).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn remember(memory: &PathBuf, entry: &Entry) -> Result<(), Error> {
    let mut entries = read(memory);
    let line = |entry: &Entry| Ok::<_, Error>(serde_json::to_string(entry)? + "\n");
    if entries.len() >= MOST_ENTRIES {
        entries.drain(..MOST_ENTRIES / 2);
        let kept: Vec<String> = entries.iter().chain([entry]).map(line).collect::<Result<_, _>>()?;
        return Ok(NewFile::write(memory, kept.concat().as_bytes())?);
    }
    let refused = |source| Error::Write { file: memory.clone(), source };
    if let Some(folder) = memory.parent() {
        fs::create_dir_all(folder).map_err(refused)?;
    }
    // One write of one line: programs that run at the same time do not mix theirs.
    let mut file = File::options().create(true).append(true).open(memory).map_err(refused)?;
    file.write_all(line(entry)?.as_bytes()).map_err(refused)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn home(folder: &Path) -> Home {
        Home::new(folder.join("home"), folder.join("hub"))
    }

    /// The hash that is asked for, and whether the file was read for it.
    fn asked(file: &Path, algorithm: Algorithm, home: &Home) -> (String, bool) {
        let mut is_read = false;
        let hash = remembered(file, algorithm, home, || {
            is_read = true;
            let bytes = fs::read(file).map_err(|source| Error::Read { file: file.into(), source })?;
            Ok(crate::load::sha256_of_bytes(&bytes))
        });
        (hash.expect("a readable file"), is_read)
    }

    fn put(memory: &Path, state: State, hash: &str) {
        let entry = Entry { algorithm: Algorithm::Sha256, hash: hash.to_owned(), state };
        remember(&memory.to_owned(), &entry).expect("a writable folder");
    }

    #[test]
    fn a_file_that_has_just_changed_is_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let (home, file) = (home(folder.path()), folder.path().join("weights"));
        fs::write(&file, vec![1; 2 << 20]).expect("a file");
        let (first, is_read) = asked(&file, Algorithm::Sha256, &home);
        assert!(is_read && !home.root().join("hashes.jsonl").exists());
        assert_eq!(asked(&file, Algorithm::Sha256, &home), (first, true));
    }

    #[test]
    fn what_is_remembered_holds_for_one_state_and_one_algorithm() {
        let folder = tempfile::tempdir().expect("a folder");
        let (home, file) = (home(folder.path()), folder.path().join("weights"));
        fs::write(&file, vec![1; 2 << 20]).expect("a file");
        let memory = home.root().join("hashes.jsonl");
        put(&memory, State::of(&file).expect("a large file"), "remembered");
        fs::write(&memory, fs::read_to_string(&memory).expect("a memory") + "{\"algorithm\":\"sha2")
            .expect("a cut line");
        assert_eq!(asked(&file, Algorithm::Sha256, &home), ("remembered".to_owned(), false));
        assert!(asked(&file, Algorithm::Blake3, &home).1);
        // As long as before, and with the old time of modification.
        let modified = fs::metadata(&file).and_then(|of| of.modified()).expect("a time");
        std::thread::sleep(Duration::from_millis(20));
        fs::write(&file, vec![2; 2 << 20]).expect("a file");
        File::options().write(true).open(&file).and_then(|file| file.set_modified(modified)).expect("a time");
        assert!(asked(&file, Algorithm::Sha256, &home).1);
    }

    #[test]
    fn the_memory_does_not_grow_without_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let memory = folder.path().join("hashes.jsonl");
        let state = |inode| State { device: 1, inode, bytes: 1, modified: (0, 0), changed: (0, 0) };
        let lines: Vec<String> = (0..MOST_ENTRIES as u64)
            .map(|inode| Entry { algorithm: Algorithm::Blake3, hash: String::new(), state: state(inode) })
            .map(|entry| serde_json::to_string(&entry).expect("JSON") + "\n")
            .collect();
        fs::write(&memory, lines.concat()).expect("a file");
        put(&memory, state(u64::MAX), "latest");
        let left = read(&memory);
        assert_eq!(left.len(), MOST_ENTRIES / 2 + 1);
        assert_eq!(left.last().map(|entry| entry.hash.as_str()), Some("latest"));
    }
}
