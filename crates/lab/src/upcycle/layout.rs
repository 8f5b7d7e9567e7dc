//! Architectures with experts, and which dense ones they can hold.
//!
//! A layout can hold a model if the specification of the target differs from the model's in its feed-forward parts alone.
//! That is compared field by field, so that a setting which the target's architecture has no word for (a bias, a window
//! on some layers) is an error and not another model.

use std::path::Path;

use lathe_formats::ElementType;
use lathe_model::spec::{Bias, ExpertWeights, FeedForwardSpec, HeadWeight};
use lathe_model::{DecoderSpec, Draft, Opened};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::UpcycleSpec;
use crate::Error;
use crate::export::files::set_dtype;

/// Width of the shared expert of `qwen2_moe`, whose class has one in any case. Its last projection is zero.
const SHARED_WIDTH: usize = 64;

/// An architecture that has experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExpertLayout {
    /// Qwen 2 MoE: weights that sum to 1, and a shared expert, which is made to add nothing.
    Qwen2Moe,
    /// Qwen 3 MoE: norms of heads, weights that sum to 1.
    Qwen3Moe,
    /// Mixtral: no biases, weights that sum to 1.
    Mixtral,
}

impl ExpertLayout {
    /// Every layout, the preferred ones first.
    pub const ALL: [Self; 3] = [Self::Qwen2Moe, Self::Qwen3Moe, Self::Mixtral];

    /// `model_type` of `config.json`.
    #[must_use]
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Qwen2Moe => "qwen2_moe",
            Self::Qwen3Moe => "qwen3_moe",
            Self::Mixtral => "mixtral",
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Qwen2Moe => "Qwen2MoeForCausalLM",
            Self::Qwen3Moe => "Qwen3MoeForCausalLM",
            Self::Mixtral => "MixtralForCausalLM",
        }
    }

    /// Architectures of dense models whose configuration it shares.
    fn sources(self) -> &'static [&'static str] {
        match self {
            Self::Qwen2Moe => &["llama", "mistral", "qwen2"],
            Self::Qwen3Moe => &["qwen3"],
            Self::Mixtral => &["llama", "mistral"],
        }
    }
}

/// The layout that is asked for, or the first one for the architecture.
///
/// # Errors
/// The model has experts already; no layout, or not the one that is asked for, can hold its architecture.
pub(super) fn suitable(dense: &Opened, wanted: Option<ExpertLayout>) -> Result<ExpertLayout, Error> {
    let family = dense.family.model_type;
    let refuse = |field, problem, hint: String| Err(Error::Spec { field, problem, hint: Some(hint) });
    if dense.spec.layers.iter().any(|layer| layer.feed_forward.experts().is_some()) {
        let problem = format!("a {family} model has experts already");
        return refuse("MODEL", problem, "take a dense model".into());
    }
    let can_hold = |layout: &ExpertLayout| layout.sources().contains(&family);
    let Some(layout) = wanted else {
        return ExpertLayout::ALL.into_iter().find(can_hold).map_or_else(
            || {
                let problem = format!("no architecture with experts can hold what a {family} model has");
                refuse("MODEL", problem, "take a llama, mistral, qwen2 or qwen3 model".into())
            },
            Ok,
        );
    };
    if can_hold(&layout) {
        return Ok(layout);
    }
    let problem = format!("{} cannot hold what a {family} model has", layout.model_type());
    refuse("--layout", problem, format!("it is made of {} models", layout.sources().join(", ")))
}

/// The target, compared with the dense model.
///
/// # Errors
/// They differ in more than their feed-forward parts; there are more experts than an architecture has.
pub(super) fn draft(dense: &Opened, layout: ExpertLayout, spec: &UpcycleSpec) -> Result<Draft, Error> {
    let fields = config(dense, layout, spec, ElementType::F32);
    let draft = Draft::new(Path::new("config.json"), fields)?;
    match difference(&dense.spec, &draft.spec) {
        None => Ok(draft),
        Some(what) => Err(Error::Spec {
            field: "MODEL",
            problem: format!(
                "{} has no word for {what} of this {} model",
                layout.model_type(),
                dense.family.model_type
            ),
            hint: Some("take a model without it, or another --layout".into()),
        }),
    }
}

/// What of a dense model a target lacks.
fn difference(dense: &DecoderSpec, target: &DecoderSpec) -> Option<&'static str> {
    let layers = || dense.layers.iter().zip(&target.layers);
    let is_kept = |dense: &FeedForwardSpec, target: &FeedForwardSpec| match (dense, target) {
        (FeedForwardSpec::Dense(dense), FeedForwardSpec::Experts(experts)) => {
            *dense == experts.expert && experts.weights == ExpertWeights::Renormalised
        }
        _ => false,
    };
    let kept = [
        ("the sizes", dense.hidden_size == target.hidden_size && dense.vocab_size == target.vocab_size),
        ("the number of layers", dense.layers.len() == target.layers.len()),
        ("the length of texts", dense.context_length == target.context_length),
        ("the embedding", dense.embedding == target.embedding),
        ("the rotary positions", dense.rotary == target.rotary),
        ("the last norm", dense.final_norm == target.final_norm),
        ("the head", dense.head == target.head),
        (
            "a bias, window, norm or clamp of the attention",
            layers().all(|(dense, target)| dense.attention == target.attention),
        ),
        ("the norms", layers().all(|(dense, target)| dense.norms == target.norms)),
        ("the residual stream", layers().all(|(dense, target)| dense.residual == target.residual)),
        ("the residual factor", layers().all(|(dense, target)| dense.residual_scale == target.residual_scale)),
        ("the feed-forward part", layers().all(|(dense, target)| is_kept(&dense.feed_forward, &target.feed_forward))),
    ];
    kept.into_iter().find(|(_, is_kept)| !is_kept).map(|(what, _)| what)
}

/// The configuration of the target: that of the model, with what the new class would read differently said in full.
pub(super) fn config(
    dense: &Opened,
    layout: ExpertLayout,
    spec: &UpcycleSpec,
    element: ElementType,
) -> Map<String, Value> {
    let decoder = &dense.spec;
    let mut fields = dense.config_json().clone();
    // Words of the dense class that mean nothing, or something else, to the new one.
    for field in ["auto_map", "attention_bias", "mlp_bias", "pretraining_tp", "max_window_layers", "layer_types"] {
        fields.remove(field);
    }
    // The name of the dense model.
    fields.remove("_name_or_path");
    fields.retain(|_, value| !value.is_null());
    set_dtype(&mut fields, Some(element));
    let mut set = |field: &str, value: Value| _ = fields.insert(field.to_owned(), value);
    set("architectures", json!([layout.class()]));
    set("model_type", layout.model_type().into());
    set("tie_word_embeddings", (decoder.head.weight == HeadWeight::Tied).into());
    if let Some(norm) = decoder.final_norm {
        // The shortest decimal of the f32, and not all digits of its f64.
        set("rms_norm_eps", norm.eps.to_string().parse::<f64>().unwrap_or(f64::from(norm.eps)).into());
    }
    set("num_experts_per_tok", spec.top_k.into());
    set("output_router_logits", false.into());
    set("router_aux_loss_coef", json!(0.001));
    let Some(first) = decoder.layers.first() else { return fields };
    let attention = &first.attention;
    set("num_key_value_heads", attention.kv_heads.into());
    set("head_dim", attention.head_dim.into());
    set("intermediate_size", first.feed_forward.width().into());
    // Newer files have it among the rotary parameters.
    if let ([rotary], false) = (&decoder.rotary[..], dense.config_json().contains_key("rope_parameters")) {
        set("rope_theta", rotary.base.into());
    }
    let windows: Vec<Option<usize>> = decoder.layers.iter().map(|layer| layer.attention.window).collect();
    let window = windows.iter().copied().flatten().next();
    match layout {
        ExpertLayout::Mixtral => {
            set("num_local_experts", spec.experts.into());
            set("sliding_window", window.map_or(Value::Null, Value::from));
        }
        ExpertLayout::Qwen2Moe | ExpertLayout::Qwen3Moe => {
            set("num_experts", spec.experts.into());
            set("moe_intermediate_size", first.feed_forward.width().into());
            set("norm_topk_prob", true.into());
            set("decoder_sparse_step", 1.into());
            set("mlp_only_layers", json!([]));
            set("use_sliding_window", window.is_some().into());
            set("sliding_window", window.map_or(Value::Null, Value::from));
        }
    }
    if layout == ExpertLayout::Qwen2Moe {
        set("qkv_bias", (attention.qkv_bias == Bias::With).into());
        set("shared_expert_intermediate_size", SHARED_WIDTH.min(first.feed_forward.width()).into());
        let kind = |window: &Option<usize>| if window.is_some() { "sliding_attention" } else { "full_attention" };
        set("layer_types", windows.iter().map(kind).collect::<Vec<_>>().into());
    }
    if layout == ExpertLayout::Qwen3Moe {
        set("attention_bias", (attention.qkv_bias == Bias::With).into());
    }
    fields
}
