//! `lathe embed analyse`: what router outputs (RW) say that hidden states (HS) do not, after section 3.2 of MoEE
//! (arXiv 2410.10814), whose code is not published: how far clusters of both agree, how similarities under nine prompts are
//! related, who fails where, and which experts work on which texts. Every number stands beside its control.

mod clusters;
mod failures;
mod page;
mod prompts;
mod usage;

use std::path::PathBuf;

use lathe_formats::NewFile;
use lathe_model::reference::ModelReference;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::features::FeatureSpec;
use super::kinds::Kind;
use super::texts::{bad_record, records, strings};
use super::{Embedder, no_router};
use crate::{Context, Error};
pub use clusters::{AgreementRow, ClusterReport, Spread};
pub use failures::{Failing, FailureReport};
pub use page::analysis_page;
pub use prompts::{ListName, PromptReport};
pub use usage::{ExpertUsage, LayerUsage};

/// What to analyse.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnalyseSpec {
    /// The model, with layers of experts.
    pub model: ModelReference,
    /// The texts.
    pub input: AnalysedTexts,
    /// What is read from the model; its prompt is that of the clusters and the failures.
    #[serde(default)]
    pub features: FeatureSpec,
    /// Clusters; none for as many as there are labels, or a tenth of the texts, at most 20.
    #[serde(default)]
    pub clusters: Option<usize>,
    /// Seeds that clusters are looked for with.
    #[serde(default = "five")]
    pub seeds: usize,
    /// The page to write.
    #[serde(default)]
    pub out: Option<PathBuf>,
}

fn five() -> usize {
    5
}

/// Texts, and what is known of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnalysedTexts {
    /// Texts, with a label each or without.
    Texts {
        /// JSON lines, Parquet, or lines of text.
        file: PathBuf,
        /// Field of the text.
        field: String,
        /// Field of the label.
        label: Option<String>,
    },
    /// Pairs of texts that people gave a score of similarity.
    Pairs {
        /// JSON lines or Parquet.
        file: PathBuf,
        /// Fields of the two texts.
        fields: [String; 2],
        /// Field of the score.
        score: String,
    },
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Analysis {
    /// Version of lathe.
    pub lathe: &'static str,
    /// What was asked.
    pub spec: AnalyseSpec,
    /// What was read from the model, with what it decides filled in.
    pub features: FeatureSpec,
    /// Its architecture.
    pub family: String,
    /// Texts; of pairs both.
    pub texts: usize,
    /// Clusters of HS and of RW.
    pub clusters: ClusterReport,
    /// Similarities under nine prompts.
    pub prompts: PromptReport,
    /// Who fails where; none where nothing is known of the texts.
    pub failures: Option<FailureReport>,
    /// Which experts work on which texts.
    pub usage: ExpertUsage,
}

/// Texts as they are worked on.
struct Material {
    texts: Vec<String>,
    /// Names of the labels, and the label of each text.
    labels: Option<(Vec<String>, Vec<usize>)>,
    /// Pairs that people scored, by the numbers of their texts.
    pairs: Option<(Vec<[usize; 2]>, Vec<f64>)>,
}

/// Analyses a model on texts, and writes the page if one is asked for.
///
/// # Errors
/// The model has no experts, or cannot be read; the texts cannot be read, or are too few for the clusters.
pub fn analyse(spec: &AnalyseSpec, context: &Context<'_>) -> Result<Analysis, Error> {
    if spec.seeds == 0 {
        let hint = Some("5 say how much of a number is luck".into());
        return Err(Error::Spec { field: "--seeds", problem: "no clusters are looked for".into(), hint });
    }
    let material = Material::read(&spec.input)?;
    let embedder = Embedder::open(&spec.model, spec.features.compute, context)?;
    if !embedder.has_router() {
        return Err(no_router(Kind::Rw, embedder.family()));
    }
    let features = embedder.features(&material.texts, &spec.features, context)?;
    let Some(router) = &features.router else { return Err(no_router(Kind::Rw, embedder.family())) };
    let wanted = spec.clusters.unwrap_or_else(|| material.usual_clusters());
    let (clusters, found) = context.stage("looking for clusters", 0, "", || {
        clusters::report(&features.hidden, router, &material, wanted, spec.seeds)
    })?;
    let failures = failures::report(&features.hidden, router, &material);
    let prompts = prompts::report(&embedder, &material, &spec.features, context)?;
    let usage = usage::report(&embedder, &material, &found, context)?;
    let analysis = Analysis {
        lathe: env!("CARGO_PKG_VERSION"),
        spec: spec.clone(),
        features: embedder.resolved(&spec.features),
        family: embedder.family().to_owned(),
        texts: material.texts.len(),
        clusters,
        prompts,
        failures,
        usage,
    };
    if let Some(out) = &spec.out {
        NewFile::write(out, analysis_page(&analysis).as_bytes())?;
    }
    Ok(analysis)
}

impl Material {
    fn read(input: &AnalysedTexts) -> Result<Self, Error> {
        match input {
            AnalysedTexts::Texts { file, field, label: None } => {
                let texts = super::EmbedTexts::File { file: file.clone(), field: field.clone() }.read()?;
                Ok(Self { texts, labels: None, pairs: None })
            }
            AnalysedTexts::Texts { file, field, label: Some(label) } => {
                let records = records(file)?
                    .ok_or_else(|| Error::UnknownRecords { file: file.clone(), extension: "txt".into() })?;
                let texts = strings(&records, field, file)?;
                let of = |(index, record): (usize, &Map<String, Value>)| match record.get(label) {
                    Some(Value::String(name)) => Ok(name.clone()),
                    Some(Value::Number(number)) => Ok(number.to_string()),
                    Some(Value::Bool(flag)) => Ok(flag.to_string()),
                    Some(_) => Err(bad_record(file, index, format!("field `{label}` is no label"))),
                    None => Err(bad_record(file, index, format!("field `{label}` is missing"))),
                };
                let of_text = records.iter().enumerate().map(of).collect::<Result<Vec<String>, Error>>()?;
                let mut names = of_text.clone();
                names.sort();
                names.dedup();
                let numbers = of_text.iter().map(|name| names.binary_search(name).unwrap_or_default()).collect();
                Ok(Self { texts, labels: Some((names, numbers)), pairs: None })
            }
            AnalysedTexts::Pairs { file, fields, score } => {
                let records = records(file)?
                    .ok_or_else(|| Error::UnknownRecords { file: file.clone(), extension: "txt".into() })?;
                let mut texts = strings(&records, &fields[0], file)?;
                texts.extend(strings(&records, &fields[1], file)?);
                let of = |(index, record): (usize, &Map<String, Value>)| {
                    let number = record.get(score).and_then(Value::as_f64);
                    number.ok_or_else(|| bad_record(file, index, format!("field `{score}` is missing or no number")))
                };
                let scores = records.iter().enumerate().map(of).collect::<Result<Vec<f64>, Error>>()?;
                let pairs = (0..records.len()).map(|pair| [pair, records.len() + pair]).collect();
                Ok(Self { texts, labels: None, pairs: Some((pairs, scores)) })
            }
        }
    }

    fn usual_clusters(&self) -> usize {
        match &self.labels {
            Some((names, _)) => names.len(),
            None => (self.texts.len() / 10).clamp(2, 20),
        }
    }
}
