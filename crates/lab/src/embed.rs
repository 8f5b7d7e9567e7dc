//! `lathe embed`: vectors of texts from any model, made of hidden states, of what the routers of a mixture of experts say, or
//! of both (MoEE, arXiv 2410.10814). See docs/methods/embeddings.md.
//!
//! What a text gives depends on nothing but the text, the model and the settings: not on the batch, the order or the threads.
//! Only `batch` standardisation is made to depend on neighbours, for comparison with the paper's code.
//!
//! Features of finished texts are on disk before the next batch begins; a run that was killed goes on from there.

mod analyse;
mod capture;
mod embedder;
mod features;
mod file;
mod filter;
mod kinds;
mod manifest;
mod prompt;
mod search;
mod texts;

use std::path::{Path, PathBuf};

use lathe_measure::embedding::Vectors;
use lathe_model::reference::ModelReference;
use serde::{Deserialize, Serialize};

use crate::load::{fingerprint, sha256_of_bytes};
use crate::store::Store;
use crate::{Context, Error};
pub use analyse::{
    AgreementRow, AnalyseSpec, AnalysedTexts, Analysis, ClusterReport, ExpertUsage, Failing, FailureReport, LayerUsage,
    ListName, PromptReport, Spread, analyse, analysis_page,
};
pub(crate) use embedder::{Embedder, Features};
use embedder::{OfText, Reader};
pub use features::{
    FeatureSpec, HiddenLayers, HiddenSpec, Pooling, RouterLayers, RouterPooling, RouterSource, RouterSpec,
};
pub use file::StoredAs;
use file::{FileFormat, beside, manifest_of};
pub use kinds::{ALPHA_PAIRS, Alpha, ChosenAlpha, Kind, Length, Standardise, VectorSpec};
use kinds::{BothMoments, Scaling, chosen_alpha, combined, scaled, with_length};
pub use manifest::{ExpertLayer, Manifest};
use manifest::{Statistics, read_statistics, write_json};
pub use prompt::{Cleaning, NINE, Prompt, SLOT};
pub use search::{Found, Queries, QueryResult, SearchResult, SearchSpec, search};
pub use texts::EmbedTexts;

/// What to embed, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbedSpec {
    /// The model.
    pub model: ModelReference,
    /// The texts.
    pub texts: EmbedTexts,
    /// What is read from the model.
    #[serde(default)]
    pub features: FeatureSpec,
    /// What vectors are made of it.
    #[serde(default)]
    pub vectors: VectorSpec,
    /// How numbers are stored.
    #[serde(default)]
    pub stored: StoredAs,
    /// The file to write; none hands the vectors back.
    #[serde(default)]
    pub out: Option<PathBuf>,
}

/// Vectors, or where they are.
#[derive(Clone, Debug, Serialize)]
pub struct EmbedResult {
    /// What they are.
    #[serde(flatten)]
    pub manifest: Manifest,
    /// The files that were written.
    pub files: Vec<PathBuf>,
    /// Texts that an earlier run had read.
    pub resumed: usize,
    /// Seconds that the model read.
    pub seconds: f64,
    /// The vectors, where no file was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vectors: Vec<TextVector>,
}

/// The vector of a text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TextVector {
    /// The text.
    pub text: String,
    /// Its vector.
    pub vector: Vec<f32>,
}

/// What vectors are made of before they are scaled and joined: the first line of a partial file.
#[derive(Serialize)]
struct Head {
    lathe: &'static str,
    model_sha256: String,
    texts_sha256: String,
    features: FeatureSpec,
}

/// What a model said of a text, as a line of a partial file: floats by their bits.
#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    hidden: String,
    router: String,
    tokens: u64,
    truncated: bool,
}

/// Embeds texts.
///
/// # Errors
/// The model, the texts or the options cannot be used, or not together; a file cannot be written.
pub fn embed(spec: &EmbedSpec, context: &Context<'_>) -> Result<EmbedResult, Error> {
    check(spec)?;
    let texts = spec.texts.read()?;
    check_count(&spec.vectors.standardise, texts.len())?;
    let out = spec.out.as_deref();
    let mut model_sha256 = None;
    let mut store = Store::open(out, || {
        let found = fingerprint(&spec.model, context)?;
        model_sha256 = Some(found.clone());
        let texts_sha256 = sha256_of_bytes(&serde_json::to_vec(&texts)?);
        let (lathe, features) = (env!("CARGO_PKG_VERSION"), spec.features.clone());
        Ok(Head { lathe, model_sha256: found, texts_sha256, features })
    })?;
    let stored = stored_statistics(spec, &mut model_sha256, context)?;
    let embedder = Embedder::open(&spec.model, spec.features.compute, context)?;
    if spec.vectors.kind.needs_router() && !embedder.has_router() {
        return Err(no_router(spec.vectors.kind, embedder.family()));
    }
    let reader = embedder.reader(&spec.features, context)?;
    if let Some(stored) = &stored {
        stored.check(model_sha256.as_deref(), &reader.spec)?;
    }
    let resumed = store.len();
    let (read, seconds) = context.timed(|| read_missing(&reader, &texts, &mut store, context));
    read?;
    let features = reader.features(all_of(&store, texts.len())?.iter())?;
    let (tokens, truncated) = (features.tokens, features.truncated);

    let moments = match &spec.vectors.standardise {
        Standardise::Corpus { .. } => Some(BothMoments::of(&features)?),
        Standardise::Stored { .. } => stored.map(|stored| stored.moments),
        Standardise::No | Standardise::Batch { .. } => None,
    };
    let scaling = match (&spec.vectors.standardise, &moments) {
        (Standardise::Batch { size }, _) => Scaling::Batch(*size),
        (_, Some(moments)) => Scaling::Moments(moments),
        (_, None) => Scaling::No,
    };
    let features = scaled(features, &scaling)?;
    let alpha = match spec.vectors.kind {
        Kind::Sum => Some(chosen_alpha(&features, spec.vectors.alpha)?),
        Kind::Hs | Kind::Rw | Kind::Concat => None,
    };
    let vectors = combined(&features, spec.vectors.kind, alpha.map_or(0.0, |chosen| chosen.alpha))?;
    let vectors = with_length(vectors, embedder.length(spec.vectors.length));

    let manifest = Manifest {
        lathe: env!("CARGO_PKG_VERSION").to_owned(),
        model: spec.model.clone(),
        family: embedder.family().to_owned(),
        model_sha256: model_sha256.clone(),
        input: spec.texts.file(),
        texts: texts.len(),
        tokens,
        truncated,
        most_tokens: reader.limit,
        features: reader.spec.clone(),
        templates: reader.wording.templates.clone(),
        vectors: VectorSpec { length: embedder.length(spec.vectors.length), ..spec.vectors.clone() },
        alpha,
        statistics: statistics_file(spec),
        width: vectors.width(),
        hidden_width: features.hidden.width(),
        router_width: features.router.as_ref().map(Vectors::width),
        experts: reader
            .taken
            .routers
            .iter()
            .map(|place| ExpertLayer { layer: place.layer, experts: place.experts })
            .collect(),
        stored: spec.stored,
    };
    let Some(out) = out else {
        let vectors = texts.into_iter().zip(vectors.rows());
        let vectors = vectors.map(|(text, vector)| TextVector { text, vector: vector.to_vec() }).collect();
        return Ok(EmbedResult { manifest, files: Vec::new(), resumed, seconds, vectors });
    };
    let mut files = Vec::new();
    if let (Some(file), Some(moments), Standardise::Corpus { .. }) =
        (&manifest.statistics, moments, &spec.vectors.standardise)
    {
        let statistics =
            Statistics { lathe: manifest.lathe.clone(), model_sha256, features: reader.spec.clone(), moments };
        write_json(file, &statistics)?;
        files.push(file.clone());
    }
    write_json(&manifest_of(out), &manifest)?;
    files.push(manifest_of(out));
    store.finish_by(|target| {
        files.extend(file::write(target, spec.stored, &texts, &vectors)?);
        Ok(())
    })?;
    Ok(EmbedResult { manifest, files, resumed, seconds, vectors: Vec::new() })
}

/// What can be known to be wrong before a model is opened.
fn check(spec: &EmbedSpec) -> Result<(), Error> {
    let refuse = |field: &'static str, problem: &str, hint: &str| {
        Err(Error::Spec { field, problem: problem.to_owned(), hint: Some(hint.to_owned()) })
    };
    if let Some(out) = &spec.out {
        FileFormat::of(out)?.check(spec.stored)?;
    }
    match &spec.vectors.standardise {
        Standardise::Batch { size: size @ (0 | 1) } => {
            let problem = format!("a batch of {size} has no deviation");
            return refuse("--standardise", &problem, "batch:128 is what MoEE's code does");
        }
        Standardise::Corpus { statistics: Some(file) } if file.exists() => {
            let problem = format!("{} is there already, and these texts would have others", file.display());
            return refuse(
                "--statistics",
                &problem,
                "leave out --standardise corpus to use it, or choose another name",
            );
        }
        Standardise::Corpus { statistics: Some(_) } if spec.out.is_none() => {
            return refuse("--statistics", "statistics are kept beside a file of vectors", "add --out FILE");
        }
        _ => {}
    }
    if let Alpha::Fixed(value) = spec.vectors.alpha
        && !(value >= 0.0 && value.is_finite())
    {
        return refuse("--alpha", &format!("{value} is no weight"), "a number from 0 on, auto, or search");
    }
    match spec.features.hidden.filter {
        Some(tau) if !(tau >= 1.0 && tau.is_finite()) => {
            refuse("--filter", &format!("the width cannot be divided by {tau}"), "a number from 1 on; the paper's is 2")
        }
        _ => Ok(()),
    }
}

/// Whether so many texts have the deviations that they are to be scaled by.
fn check_count(standardise: &Standardise, texts: usize) -> Result<(), Error> {
    let (problem, hint) = match standardise {
        Standardise::Batch { size } if texts % size == 1 => {
            let problem = match texts {
                1 => "one text by itself has no deviation".to_owned(),
                _ => format!("batches of {size} leave the last of {texts} texts by itself, which has no deviation"),
            };
            (problem, "take another batch size, or corpus: its vectors do not depend on a batch")
        }
        Standardise::Corpus { .. } if texts < 2 => {
            ("one text by itself has no deviation".to_owned(), "--statistics FILE takes those of another run")
        }
        _ => return Ok(()),
    };
    Err(Error::Spec { field: "--standardise", problem, hint: Some(hint.to_owned()) })
}

pub(crate) fn no_router(kind: Kind, family: &str) -> Error {
    Error::Spec {
        field: "--kind",
        problem: format!("`{}` of a model without expert layers ({family})", kind.name()),
        hint: Some("--kind hs takes the hidden states, which every model has".into()),
    }
}

/// The statistics of an earlier run, if they are asked for.
fn stored_statistics(
    spec: &EmbedSpec,
    model_sha256: &mut Option<String>,
    context: &Context<'_>,
) -> Result<Option<Statistics>, Error> {
    let Standardise::Stored { statistics } = &spec.vectors.standardise else { return Ok(None) };
    if model_sha256.is_none() {
        *model_sha256 = Some(fingerprint(&spec.model, context)?);
    }
    read_statistics(statistics).map(Some)
}

/// Where the statistics of the vectors are.
fn statistics_file(spec: &EmbedSpec) -> Option<PathBuf> {
    match &spec.vectors.standardise {
        Standardise::Stored { statistics } => Some(statistics.clone()),
        Standardise::Corpus { statistics: Some(file) } => Some(file.clone()),
        Standardise::Corpus { statistics: None } => spec.out.as_deref().map(|out| beside(out, ".statistics.json")),
        Standardise::No | Standardise::Batch { .. } => None,
    }
}

fn read_missing(
    reader: &Reader<'_>,
    texts: &[String],
    store: &mut Store<Kept>,
    context: &Context<'_>,
) -> Result<(), Error> {
    let missing: Vec<usize> = (0..texts.len()).filter(|index| store.get(*index as u64).is_none()).collect();
    reader.read(texts, &missing, context, &mut |index, of| store.put(index as u64, Kept::from(&of)))
}

/// What was said of every text, in order.
fn all_of(store: &Store<Kept>, texts: usize) -> Result<Vec<OfText>, Error> {
    (0..texts as u64).filter_map(|item| store.get(item)).map(Kept::to_text).collect()
}

impl Kept {
    fn from(of: &OfText) -> Self {
        Self { hidden: hex(&of.hidden), router: hex(&of.router), tokens: of.tokens, truncated: of.truncated }
    }

    fn to_text(&self) -> Result<OfText, Error> {
        let values = |text: &str| {
            let (digits, rest) = text.as_bytes().as_chunks::<8>();
            let bits = digits.iter().map(|digits| u32::from_str_radix(str::from_utf8(digits).ok()?, 16).ok());
            let values: Option<Vec<f32>> = bits.map(|bits| bits.map(f32::from_bits)).collect();
            values.filter(|_| rest.is_empty()).ok_or_else(|| Error::Spec {
                field: "--out",
                problem: "the partial file has what is no number".into(),
                hint: Some("remove it to begin again".into()),
            })
        };
        let (hidden, router) = (values(&self.hidden)?, values(&self.router)?);
        Ok(OfText { hidden, router, tokens: self.tokens, truncated: self.truncated })
    }
}

/// The bits of floats, eight digits each.
fn hex(values: &[f32]) -> String {
    let digits = |bits: u32| (0..8).rev().filter_map(move |digit| char::from_digit((bits >> (4 * digit)) & 15, 16));
    values.iter().flat_map(|x| digits(x.to_bits())).collect()
}

/// The manifest of a file of vectors.
///
/// # Errors
/// There is none, or it is no manifest.
pub fn read_manifest(file: &Path) -> Result<Manifest, Error> {
    manifest::read_json(&manifest_of(file))
}

#[cfg(test)]
mod tests;
