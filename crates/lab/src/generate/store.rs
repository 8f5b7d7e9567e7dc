//! Finished strings, in memory and in a file that survives a kill.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use lathe_formats::NewFile;
use serde::{Deserialize, Serialize};

use super::{GenerateSpec, GeneratedString, Prompts};
use crate::load::{fingerprint, sha256_of};
use crate::{Context, Error};

/// Strings by item.
pub(crate) struct Store {
    strings: BTreeMap<u64, GeneratedString>,
    file: Option<Partial>,
    tokens_drawn: usize,
}

/// The file that strings are appended to; it is made for the first of them.
struct Partial {
    path: PathBuf,
    target: PathBuf,
    head: String,
    /// Bytes that are worth keeping of what an interrupted run has left.
    whole: u64,
    out: Option<File>,
}

/// First line of a partial file: what strings depend on.
#[derive(Serialize)]
struct Head {
    lathe: &'static str,
    /// Of the model's files.
    model_sha256: String,
    /// Of the file of prompts.
    prompts_sha256: Option<String>,
    spec: GenerateSpec,
}

/// Every further line.
#[derive(Serialize, Deserialize)]
struct Line {
    item: u64,
    #[serde(flatten)]
    string: GeneratedString,
}

impl Store {
    /// Opens the file of a spec, and reads what an interrupted run of the same spec has left.
    ///
    /// # Errors
    /// The result is there already; another run's partial file is in the way; the system refuses.
    pub(crate) fn open(spec: &GenerateSpec, context: &Context<'_>) -> Result<Self, Error> {
        let mut store = Self { strings: BTreeMap::new(), file: None, tokens_drawn: 0 };
        let Some(target) = &spec.out else { return Ok(store) };
        let in_the_way =
            |problem: String, hint: &str| Err(Error::Spec { field: "--out", problem, hint: Some(hint.to_owned()) });
        if target.exists() {
            return in_the_way(format!("{} is there already", target.display()), "remove it or choose another name");
        }
        let mut name = target.as_os_str().to_owned();
        name.push(".partial");
        let path = PathBuf::from(name);
        let prompts_sha256 = match &spec.prompts {
            Prompts::File { file, .. } => Some(sha256_of(file, &|_| {})?),
            Prompts::Text(_) | Prompts::Ids(_) => None,
        };
        let model_sha256 = fingerprint(&spec.model, context)?;
        // Neither batch nor name changes a string.
        let of = GenerateSpec { batch: None, out: None, ..spec.clone() };
        let head = Head { lathe: env!("CARGO_PKG_VERSION"), model_sha256, prompts_sha256, spec: of };
        let head = serde_json::to_string(&head)? + "\n";
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
                    let line: Line = serde_json::from_slice(line).map_err(|error| Error::Record {
                        file: path.clone(),
                        line: index + 1,
                        problem: format!("not a finished string: {error}"),
                        expected: "remove the file to begin again",
                    })?;
                    store.strings.insert(line.item, line.string);
                }
                whole += line.len() as u64;
            }
        }
        store.file = Some(Partial { path, target: target.clone(), head, whole, out: None });
        Ok(store)
    }

    pub(crate) fn len(&self) -> usize {
        self.strings.len()
    }

    pub(super) fn get(&self, item: u64) -> Option<&GeneratedString> {
        self.strings.get(&item)
    }

    /// Tokens of the strings that this run wrote.
    pub(super) fn tokens_drawn(&self) -> usize {
        self.tokens_drawn
    }

    /// Keeps a finished string.
    pub(super) fn put(&mut self, item: u64, string: GeneratedString) -> Result<(), Error> {
        self.tokens_drawn += string.tokens;
        if let Some(file) = &mut self.file {
            let mut line = serde_json::to_vec(&Line { item, string: string.clone() })?;
            line.push(b'\n');
            file.append(&line).map_err(|source| Error::Write { file: file.path.clone(), source })?;
        }
        self.strings.insert(item, string);
        Ok(())
    }

    /// Writes the result under its name and removes the partial file.
    pub(super) fn finish(self, strings: &[GeneratedString]) -> Result<(), Error> {
        let Some(Partial { path, target, out, .. }) = self.file else { return Ok(()) };
        drop(out);
        write_lines(&target, strings)?;
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
