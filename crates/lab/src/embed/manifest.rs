//! What stands beside a file of vectors: what they are, and the statistics that they were scaled by.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use lathe_formats::NewFile;
use lathe_model::reference::ModelReference;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::file::StoredAs;
use super::kinds::{BothMoments, ChosenAlpha, VectorSpec};
use super::{EmbedTexts, FeatureSpec};
use crate::Error;

/// What vectors are: everything that another text needs to get a vector like them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of lathe.
    pub lathe: String,
    /// The model.
    pub model: ModelReference,
    /// Its architecture.
    pub family: String,
    /// Of the model's files; only known of vectors in a file.
    pub model_sha256: Option<String>,
    /// The file that the texts come from.
    pub input: Option<EmbedTexts>,
    /// Texts.
    pub texts: usize,
    /// Tokens that were read.
    pub tokens: u64,
    /// Texts that were cut.
    pub truncated: usize,
    /// Tokens of a prompt at most.
    pub most_tokens: usize,
    /// What was read from the model, with what the model decides filled in.
    pub features: FeatureSpec,
    /// What stood around the texts.
    pub templates: Vec<String>,
    /// What vectors were made of it.
    pub vectors: VectorSpec,
    /// Of a sum.
    pub alpha: Option<ChosenAlpha>,
    /// The file of means and deviations.
    pub statistics: Option<PathBuf>,
    /// Numbers of a vector.
    pub width: usize,
    /// Of the hidden states.
    pub hidden_width: usize,
    /// Of the router outputs; none of a model without experts.
    pub router_width: Option<usize>,
    /// Layers whose routers were read, in the order of a vector.
    pub experts: Vec<ExpertLayer>,
    /// How numbers are stored.
    pub stored: StoredAs,
}

/// A layer with experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpertLayer {
    /// The layer, from 0.
    pub layer: usize,
    /// Its experts.
    pub experts: usize,
}

/// Means and deviations of some texts, and what they are of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Statistics {
    pub(super) lathe: String,
    pub(super) model_sha256: Option<String>,
    pub(super) features: FeatureSpec,
    #[serde(flatten)]
    pub(super) moments: BothMoments,
}

impl Statistics {
    /// # Errors
    /// They are of another model or of other features.
    pub(super) fn check(&self, model_sha256: Option<&str>, features: &FeatureSpec) -> Result<(), Error> {
        let refuse = |problem: &str| {
            let hint = Some("statistics are of one model, prompt, layers, pooling and arithmetic".into());
            Err(Error::Spec { field: "--statistics", problem: problem.to_owned(), hint })
        };
        if self.model_sha256.as_deref() != model_sha256 {
            return refuse("they are of another model");
        }
        // Another limit cuts other texts; what a text gives is the same kind of thing.
        let comparable = |of: &FeatureSpec| FeatureSpec { max_tokens: None, ..of.clone() };
        if comparable(&self.features) != comparable(features) {
            let mut problem = "they are of other features".to_owned();
            if self.features.prompt != features.prompt {
                let _ = write!(problem, ": prompt {} instead of {}", self.features.prompt, features.prompt);
            } else if self.features.compute != features.compute {
                let (was, is) = (self.features.compute, features.compute);
                let _ = write!(problem, ": computed in {} instead of {}", was.name(), is.name());
            }
            return refuse(&problem);
        }
        Ok(())
    }
}

pub(super) fn read_statistics(file: &Path) -> Result<Statistics, Error> {
    read_json(file)
}

pub(super) fn read_json<T: DeserializeOwned>(file: &Path) -> Result<T, Error> {
    let bytes = std::fs::read(file).map_err(|source| Error::Read { file: file.into(), source })?;
    let bad = |error: serde_json::Error| Error::Embedded {
        file: file.into(),
        problem: format!("it does not say what vectors are: {error}"),
    };
    serde_json::from_slice(&bytes).map_err(bad)
}

pub(super) fn write_json(file: &Path, value: &impl Serialize) -> Result<(), Error> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    Ok(NewFile::write(file, &text)?)
}
