//! `lathe measure spectrum`: Matrix Nuclear-Norm, matrix entropy and relatives of hidden states.

use lathe_measure::run::{Layers, Watch, spectra};
use lathe_measure::spectrum::{
    DiffErank, KeptColumns, Metric, NullCache, SpectrumOptions, SpectrumSummary, diff_erank, summarise,
};
use lathe_model::Decoder;
use lathe_model::reference::ModelReference;
use serde::{Deserialize, Serialize};

use super::COMPUTE_TYPE;
use crate::documents::{fixed_windows, tokenise};
use crate::{Context, DataReference, Error, load, read_documents};

/// What to measure.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpectrumSpec {
    /// The model.
    pub model: ModelReference,
    /// The texts.
    pub data: Vec<DataReference>,
    /// Field of JSON records that holds the text.
    pub field: String,
    /// N: tokens of every window. A text's remainder is left out.
    pub window: usize,
    /// At most so many windows, taken from the texts in turn; none takes all.
    pub windows: Option<usize>,
    /// Which hidden states are measured.
    pub layers: Layers,
    /// The metrics.
    pub metrics: Vec<Metric>,
    /// D of the Matrix Nuclear-Norm.
    pub kept_columns: KeptColumns,
    /// Whether to compare with the untrained model.
    pub untrained: Untrained,
    /// Seed of the Gaussian null and of intervals.
    pub seed: u64,
}

/// The control of Diff-eRank: the same configuration with seeded random weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Untrained {
    /// No comparison.
    Skip,
    /// Random weights of this seed.
    Seed(u64),
}

/// Spectra of a model.
#[derive(Clone, Debug, Serialize)]
pub struct SpectrumResult {
    /// The model.
    pub model: String,
    /// N.
    pub window: usize,
    /// d.
    pub hidden_size: usize,
    /// Windows measured.
    pub windows: usize,
    /// Type of the forward pass; sums are f64.
    pub compute_type: &'static str,
    /// Seed of the Gaussian null and of intervals.
    pub seed: u64,
    /// Layers measured.
    pub layers: Vec<LayerResult>,
    /// Comparison with random weights.
    pub diff_erank: Option<DiffErankResult>,
    /// Seconds of the forward passes.
    pub forward_seconds: f64,
    /// Seconds of metrics and nulls.
    pub metric_seconds: f64,
}

/// One layer over all windows.
#[derive(Clone, Debug, Serialize)]
pub struct LayerResult {
    /// 0 is the embedding; the last index is the state after the final norm.
    pub layer: usize,
    /// Means over windows.
    pub summary: SpectrumSummary,
}

/// Diff-eRank of the last layer: exp(mean entropy, random weights) - exp(mean entropy, trained weights).
#[derive(Clone, Debug, Serialize)]
pub struct DiffErankResult {
    /// Seed of the random weights.
    pub seed: u64,
    /// How they were drawn.
    pub initialisation: String,
    /// The numbers.
    pub value: DiffErank,
}

/// Measures spectra.
///
/// # Errors
/// The model or a text cannot be read; no text is as long as a window.
pub fn measure_spectrum(spec: &SpectrumSpec, context: &Context<'_>) -> Result<SpectrumResult, Error> {
    let texts = read_documents(&spec.data, &spec.field)?;
    let loaded = load(&spec.model, context)?;
    let tokenizer = loaded.tokenizer()?;
    let limit = loaded.decoder.spec().context_length;
    if spec.window < 2 || spec.window > limit {
        return Err(Error::Spec {
            field: "--window",
            problem: format!("{} is not between 2 and the model's context of {limit} tokens", spec.window),
            hint: None,
        });
    }
    let documents = texts.iter().map(|text| tokenise(tokenizer, &text.text)).collect::<Result<Vec<_>, _>>()?;
    let windows = fixed_windows(&documents, spec.window, spec.windows);
    if windows.is_empty() {
        let longest = documents.iter().map(|document| document.ids.len()).max().unwrap_or(0);
        return Err(Error::Spec {
            field: "--window",
            problem: format!("no text has {} tokens", spec.window),
            hint: Some(format!(
                "the longest text has {longest}; spectra are compared at one N, so no window is cut short"
            )),
        });
    }
    let options = SpectrumOptions { metrics: spec.metrics.clone(), kept_columns: spec.kept_columns, seed: spec.seed };
    let nulls = NullCache::new();
    let watch = Watch { seconds: context.seconds, advance: &|by| context.progress.advance(by) };
    let tokens = (windows.len() * spec.window) as u64;
    let run = |decoder: &Decoder, what: &str, layers, options: &SpectrumOptions| {
        context.stage(what, tokens, "tokens", || spectra(decoder, &windows, layers, options, &nulls, watch))
    };
    let (measured, seconds) = run(&loaded.decoder, "spectrum", spec.layers, &options)?;

    let diff = match spec.untrained {
        Untrained::Skip => None,
        Untrained::Seed(seed) => {
            let entropy = SpectrumOptions { metrics: vec![Metric::MatrixEntropy], ..options.clone() };
            let random =
                context.stage("random weights", 0, "", || loaded.opened.random_decoder(seed, context.weights))?;
            let (untrained, _) = run(&random, "spectrum of random weights", Layers::Last, &entropy)?;
            let (trained, _) = match measured.last() {
                Some(last) if options.metrics.contains(&Metric::MatrixEntropy) => (vec![last.clone()], seconds),
                _ => run(&loaded.decoder, "matrix entropy", Layers::Last, &entropy)?,
            };
            let entropies = |layer: &lathe_measure::run::LayerSpectra| {
                layer.windows.iter().map(|window| window.entropy_nats).collect::<Vec<_>>()
            };
            let value = diff_erank(
                &untrained.last().map(entropies).unwrap_or_default(),
                &trained.last().map(entropies).unwrap_or_default(),
            )?;
            let range = loaded.decoder.spec().initializer_range;
            let initialisation = format!("normal, standard deviation {range}; norms 1, biases 0");
            Some(DiffErankResult { seed, initialisation, value })
        }
    };
    let layers = measured
        .iter()
        .map(|layer| Ok(LayerResult { layer: layer.layer, summary: summarise(&layer.windows, spec.seed)? }))
        .collect::<Result<_, Error>>()?;
    Ok(SpectrumResult {
        model: spec.model.to_string(),
        window: spec.window,
        hidden_size: loaded.decoder.spec().hidden_size,
        windows: windows.len(),
        compute_type: COMPUTE_TYPE,
        seed: spec.seed,
        layers,
        diff_erank: diff,
        forward_seconds: seconds.forward,
        metric_seconds: seconds.metric,
    })
}
