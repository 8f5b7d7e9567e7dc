//! How similarities under the paper's nine prompts are related: Spearman's correlation of every two lists of cosines.

use lathe_measure::correlation::spearman;
use lathe_measure::embedding::{Vectors, cosine};
use lathe_measure::{Number, Reason};
use serde::Serialize;

use super::super::kinds::{ALPHA_PAIRS, sampled_pairs};
use super::super::prompt::NINE;
use super::super::{Embedder, FeatureSpec};
use super::Material;
use crate::{Context, Error};

/// Correlations of lists of similarities.
#[derive(Clone, Debug, Serialize)]
pub struct PromptReport {
    /// Pairs of texts in every list: those that were given, or all, or 20,000 that are drawn.
    pub pairs: usize,
    /// The lists: HS under each prompt, then RW.
    pub lists: Vec<ListName>,
    /// `[lists][lists]`.
    pub correlations: Vec<Vec<Number>>,
    /// Mean over two different prompts, HS and HS.
    pub within_hidden: Number,
    /// Mean over two different prompts, RW and RW.
    pub within_router: Number,
    /// Mean over any two prompts, HS and RW.
    pub between: Number,
}

/// Where a list of similarities comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListName {
    /// HS or RW.
    pub of: &'static str,
    /// The prompt.
    pub prompt: String,
}

pub(super) fn report(
    embedder: &Embedder,
    material: &Material,
    features: &FeatureSpec,
    context: &Context<'_>,
) -> Result<PromptReport, Error> {
    let pairs = match &material.pairs {
        Some((pairs, _)) => pairs.clone(),
        None => sampled_pairs(material.texts.len(), ALPHA_PAIRS),
    };
    let similarities = |of: &Vectors| pairs.iter().map(|[a, b]| cosine(of.row(*a), of.row(*b))).collect::<Vec<f64>>();
    let (mut hidden, mut router) = (Vec::new(), Vec::new());
    for prompt in NINE {
        let spec = FeatureSpec { prompt: prompt.clone(), ..features.clone() };
        let found = embedder.features(&material.texts, &spec, context)?;
        let name = |of| ListName { of, prompt: prompt.to_string() };
        hidden.push((name("HS"), similarities(&found.hidden)));
        if let Some(found) = &found.router {
            router.push((name("RW"), similarities(found)));
        }
    }
    let lists: Vec<(ListName, Vec<f64>)> = hidden.into_iter().chain(router).collect();
    let correlations: Vec<Vec<Number>> =
        lists.iter().map(|(_, a)| lists.iter().map(|(_, b)| spearman(a, b)).collect()).collect();
    let n = NINE.len();
    let mean = |which: &dyn Fn(usize, usize) -> bool| {
        let all = (0..lists.len()).flat_map(|a| (0..lists.len()).map(move |b| (a, b)));
        let values: Vec<f64> =
            all.filter(|(a, b)| which(*a, *b)).filter_map(|(a, b)| correlations[a][b].value()).collect();
        Number::ratio(values.iter().sum(), values.len() as f64, Reason::Empty)
    };
    Ok(PromptReport {
        pairs: pairs.len(),
        within_hidden: mean(&|a, b| a < b && b < n),
        within_router: mean(&|a, b| n <= a && a < b),
        between: mean(&|a, b| a < n && n <= b),
        lists: lists.into_iter().map(|(name, _)| name).collect(),
        correlations,
    })
}
