//! What is read from a model for each text: hidden states and what its routers say.

use serde::{Deserialize, Serialize};

use super::prompt::Prompt;
use crate::Compute;

/// What is read from a model for each text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FeatureSpec {
    /// What stands around a text.
    pub prompt: Prompt,
    /// What stands before every text, inside of the prompt; nothing by default.
    pub instruction: String,
    /// Which hidden states.
    pub hidden: HiddenSpec,
    /// Which router outputs.
    pub router: RouterSpec,
    /// Tokens of a prompt at most; none for as many as the model reads. The text is cut, never what stands around it.
    pub max_tokens: Option<usize>,
    /// Arithmetic of the model.
    pub compute: Compute,
}

/// Which hidden states become a vector.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HiddenSpec {
    /// From which layers.
    pub layers: HiddenLayers,
    /// How the tokens of a text become one vector.
    pub pooling: Pooling,
    /// EmbedFilter (arXiv 2606.07502): the factor τ by which the width shrinks; none leaves hidden states as they are.
    pub filter: Option<f64>,
}

/// Indices of hidden states as transformers counts them: 0 is the embedding, L follows the final norm.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HiddenLayers {
    /// After the final norm.
    #[default]
    Last,
    /// The mean over these.
    Mean(Vec<usize>),
}

/// How the tokens of a text become one vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// What a sentence encoder's folder says; the mean for other encoders and for Echo; else the last token.
    #[default]
    Usual,
    /// The last token.
    Last,
    /// The first token, which is `[CLS]` of an encoder.
    First,
    /// The mean over tokens.
    Mean,
    /// The sum over tokens, divided by the square root of their number.
    MeanSqrtLength,
    /// The mean with weights 1, 2, 3, … in the order of tokens (SGPT).
    WeightedMean,
    /// The largest value of each feature.
    Max,
}

/// Which router outputs become a vector: those of every chosen layer, one after another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RouterSpec {
    /// Which numbers.
    pub source: RouterSource,
    /// Of which layers.
    pub layers: RouterLayers,
    /// Of which tokens.
    pub pooling: RouterPooling,
}

/// Which numbers of a router.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouterSource {
    /// Softmax over all experts, before the best are chosen: what MoEE's paper says.
    #[default]
    Probabilities,
    /// What the softmax is taken of: what MoEE's code does for OLMoE and Qwen1.5-MoE.
    Logits,
    /// What each expert's output is multiplied by: 0 for the experts that are not used.
    Weights,
}

/// Which layers' routers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouterLayers {
    /// Every layer that has one.
    #[default]
    All,
    /// These, counted from 0 over all layers, dense ones included.
    These(Vec<usize>),
}

/// Which tokens' routers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouterPooling {
    /// The last token's.
    #[default]
    Last,
    /// The mean over tokens.
    Mean,
}
