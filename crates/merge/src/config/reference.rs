//! How a file names a model: `path[@revision][+adapter[@revision]]`.

use std::fmt;
use std::str::FromStr;

/// A model, and perhaps an adapter that is added to its weights first. The paths are text: whoever opens them decides
/// what they are relative to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModelRef {
    /// A folder, a file, or a name that the program knows.
    pub path: String,
    /// Which version of it.
    pub revision: Option<String>,
    /// A low-rank adapter.
    pub lora: Option<LoraRef>,
}

/// An adapter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LoraRef {
    /// A folder or a name.
    pub path: String,
    /// Which version of it.
    pub revision: Option<String>,
}

impl ModelRef {
    /// A model without revision and adapter.
    #[must_use]
    pub fn plain(path: impl Into<String>) -> Self {
        Self { path: path.into(), revision: None, lora: None }
    }
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        if let Some(revision) = &self.revision {
            write!(f, "@{revision}")?;
        }
        if let Some(lora) = &self.lora {
            write!(f, "+{}", lora.path)?;
            if let Some(revision) = &lora.revision {
                write!(f, "@{revision}")?;
            }
        }
        Ok(())
    }
}

/// Why a text names no model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Two adapters.
    #[error("more than one `+`")]
    TwoAdapters,
    /// Two revisions of one thing.
    #[error("more than one `@`")]
    TwoRevisions,
    /// Nothing before or after a sign.
    #[error("an empty part")]
    EmptyPart,
}

impl FromStr for ModelRef {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let mut parts = text.split('+');
        let (path, revision) = versioned(parts.next().unwrap_or_default())?;
        let lora = parts.next().map(versioned).transpose()?;
        if parts.next().is_some() {
            return Err(ReferenceError::TwoAdapters);
        }
        Ok(Self { path, revision, lora: lora.map(|(path, revision)| LoraRef { path, revision }) })
    }
}

/// Takes `path[@revision]` apart.
fn versioned(text: &str) -> Result<(String, Option<String>), ReferenceError> {
    let mut parts = text.split('@').map(str::trim);
    let path = parts.next().unwrap_or_default();
    let revision = parts.next();
    if parts.next().is_some() {
        return Err(ReferenceError::TwoRevisions);
    }
    if path.is_empty() || revision == Some("") {
        return Err(ReferenceError::EmptyPart);
    }
    Ok((path.to_owned(), revision.map(str::to_owned)))
}
