//! What llama.cpp's files say of each architecture: tensor names, keys, and what only its code says.
//!
//! The keys and constants are those of llama.cpp's loader (`src/models`), the changes to tensors those of its converter
//! (`conversion`).

use serde_json::Value;

use super::{GgufLayout, Windows};
use crate::Error;
use crate::gguf::{FUSED_GATE_UP, FUSED_QKV, NAMES, Reading, Word, decimal, flag, real, scalar_of, whole};
use crate::layout::Name;
use crate::spec::{DecoderSpec, ExpertWeights, ExpertsSpec, FeedForwardSpec, QkNorm, Residual};

/// GGUF files of an architecture.
pub struct Gguf {
    /// `general.architecture`.
    pub architecture: &'static str,
    /// What the converter does to weights.
    pub layout: GgufLayout,
    /// A key by which this row is told from others of the architecture: it is there and not 0.
    pub mark: Option<&'static str>,
    /// Tables of tensor names; the first row of a parameter is written.
    pub(crate) names: &'static [&'static [Name]],
    /// Keys and fields that mean the same.
    pub(crate) words: &'static [&'static [Word]],
    /// Field of the activation, and what it is where the header is silent.
    pub(crate) activation: (&'static str, &'static str),
    /// Field of a tied head.
    pub(crate) tied: &'static str,
    /// What llama.cpp wants to see of a tied head.
    pub(crate) tied_head: TiedHead,
    /// Field of partial rotation, and its value where a configuration is silent.
    pub(crate) partial: (&'static str, f64),
    /// Fields that are true where one of the tensors is there.
    pub(crate) presence: &'static [(&'static str, &'static [&'static str])],
    /// Fields and their value where the header is silent.
    pub(crate) flags: &'static [(&'static str, bool)],
    /// Which layers have a window.
    pub(crate) windows: Windows,
    /// Of the keys that llama.cpp reads for some architectures only, those that it reads for this one.
    pub(crate) honoured: &'static [&'static str],
    /// What the tables cannot say.
    pub(crate) complete: fn(&mut Reading<'_>) -> Result<(), Error>,
    /// A part of the model with which llama.cpp does not open the file, though its keys and tensors have names.
    pub(crate) unopened: fn(&DecoderSpec) -> Option<&'static str>,
}

/// How a head that shares the embedding lies in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TiedHead {
    /// It is not there.
    LeftOut,
    /// llama.cpp wants a tensor for it: the embedding once more, and a key of lathe's that says so.
    Copied,
}

/// Everything that most architectures have.
const PLAIN: Gguf = Gguf {
    architecture: "",
    layout: GgufLayout::Plain,
    mark: None,
    names: &[NAMES],
    words: &[SIZES, RMS, ROPE],
    activation: ("hidden_act", "silu"),
    tied: "tie_word_embeddings",
    tied_head: TiedHead::LeftOut,
    partial: ("partial_rotary_factor", 1.0),
    presence: &[],
    flags: &[],
    windows: Windows::None,
    honoured: &[],
    complete: |_| Ok(()),
    unopened: |_| None,
};

pub(super) const LLAMA: Gguf =
    Gguf { architecture: "llama", layout: GgufLayout::PairedRotary, presence: &[ATTENTION_BIAS, MLP_BIAS], ..PLAIN };

/// llama.cpp has no window for Mistral; its converter drops it. lathe writes the key and reads it.
pub(super) const MISTRAL: Gguf =
    Gguf { mark: Some("attention.sliding_window"), windows: Windows::Everywhere, presence: &[], ..LLAMA };

pub(super) const MIXTRAL: Gguf =
    Gguf { mark: Some("expert_count"), words: &[SIZES, RMS, ROPE, LOCAL_EXPERTS], ..MISTRAL };

pub(super) const QWEN2: Gguf = Gguf { architecture: "qwen2", windows: Windows::Listed, ..PLAIN };

pub(super) const QWEN3: Gguf =
    Gguf { architecture: "qwen3", windows: Windows::Listed, presence: &[ATTENTION_BIAS], ..PLAIN };

pub(super) const QWEN2_MOE: Gguf = Gguf {
    architecture: "qwen2moe",
    words: &[SIZES, RMS, ROPE, EXPERTS, EXPERT_WIDTH, SHARED_WIDTH, RENORMALISED],
    presence: &[("qkv_bias", ATTENTION_BIAS.1)],
    flags: &[("norm_topk_prob", false)],
    windows: Windows::Listed,
    complete: |reading| {
        sparse_layers(reading)?;
        // Early files have one width for all: of the shared expert.
        let width = reading.fields.get("intermediate_size").cloned();
        reading.set_default("shared_expert_intermediate_size", width);
        Ok(())
    },
    tied_head: TiedHead::Copied,
    unopened: dense_layers,
    ..PLAIN
};

pub(super) const QWEN3_MOE: Gguf = Gguf {
    architecture: "qwen3moe",
    words: &[SIZES, RMS, ROPE, EXPERTS, EXPERT_WIDTH, RENORMALISED],
    presence: &[ATTENTION_BIAS],
    flags: &[("norm_topk_prob", true)],
    windows: Windows::Listed,
    complete: sparse_layers,
    unopened: dense_layers,
    ..PLAIN
};

pub(super) const GEMMA: Gguf = Gguf {
    architecture: "gemma",
    layout: GgufLayout::NormsPlusOne,
    activation: ("hidden_activation", "gelu_pytorch_tanh"),
    presence: &[ATTENTION_BIAS],
    complete: |reading| {
        // Gemma 1 has two fields for it.
        let activation = reading.fields.get("hidden_activation").cloned();
        reading.set("hidden_act", activation);
        Ok(())
    },
    ..PLAIN
};

pub(super) const GEMMA2: Gguf = Gguf {
    architecture: "gemma2",
    words: &[SIZES, RMS, ROPE, SOFT_CAPS],
    windows: Windows::Alternating { every: 2, usual: Some(4096) },
    honoured: &["attention.sliding_window"],
    complete: |reading| {
        reading.set_default("attn_logit_softcapping", 50.0);
        reading.set_default("final_logit_softcapping", 30.0);
        // The 27B model alone divides by another width than a head's.
        query_scalar(reading, 46)
    },
    ..GEMMA
};

pub(super) const GEMMA3: Gguf = Gguf {
    architecture: "gemma3",
    words: &[SIZES, RMS, ROPE, LOCAL_ROPE, SOFT_CAPS],
    windows: Windows::Alternating { every: 6, usual: None },
    honoured: &["attention.sliding_window"],
    complete: |reading| {
        // The key's first name.
        let older = reading.real("rope.local.freq_base")?.map(decimal);
        reading.set_default("rope_local_base_freq", older.unwrap_or_else(|| 10_000.0.into()));
        query_scalar(reading, 62)
    },
    ..GEMMA
};

pub(super) const PHI: Gguf = Gguf {
    architecture: "phi2",
    words: &[SIZES, LAYER_NORM, ROPE],
    activation: ("hidden_act", "gelu_new"),
    partial: ("partial_rotary_factor", 0.5),
    presence: &[("qk_layernorm", &["blk.0.attn_q_norm.weight"])],
    tied_head: TiedHead::Copied,
    unopened: |spec| {
        let normed = spec.layers.iter().any(|layer| layer.attention.qk_norm != QkNorm::None);
        normed.then_some("norms of query and key heads")
    },
    ..PLAIN
};

pub(super) const PHI3: Gguf =
    Gguf { architecture: "phi3", names: &[FUSED_QKV, FUSED_GATE_UP, NAMES], windows: Windows::Everywhere, ..PLAIN };

/// llama.cpp computes the tanh approximation of GELU; the models were trained with the exact one.
pub(super) const GPT_NEOX: Gguf = Gguf {
    architecture: "gptneox",
    names: &[FUSED_QKV, NAMES],
    words: &[SIZES, LAYER_NORM, NEOX],
    activation: ("hidden_act", "gelu"),
    partial: ("rotary_pct", 0.25),
    presence: &[ATTENTION_BIAS],
    tied_head: TiedHead::Copied,
    ..PLAIN
};

pub(super) const GPT2: Gguf = Gguf {
    architecture: "gpt2",
    names: &[FUSED_QKV, NAMES],
    words: &[GPT2_WORDS],
    activation: ("activation_function", "gelu_new"),
    ..PLAIN
};

pub(super) const OLMO: Gguf = Gguf {
    architecture: "olmo",
    layout: GgufLayout::PairedRotary,
    words: &[SIZES, ROPE, OLMO_WORDS],
    presence: &[ATTENTION_BIAS],
    honoured: &["attention.clamp_kqv"],
    ..PLAIN
};

pub(super) const OLMO2: Gguf =
    Gguf { architecture: "olmo2", presence: &[ATTENTION_BIAS], tied_head: TiedHead::Copied, ..PLAIN };

pub(super) const OLMOE: Gguf = Gguf {
    architecture: "olmoe",
    words: &[SIZES, RMS, ROPE, EXPERTS, RENORMALISED, CLIP],
    presence: &[ATTENTION_BIAS],
    flags: &[("norm_topk_prob", false)],
    tied_head: TiedHead::Copied,
    unopened: |spec| {
        let grouped = spec.layers.iter().any(|layer| layer.attention.kv_heads != layer.attention.heads);
        grouped.then_some("fewer key heads than query heads")
    },
    ..PLAIN
};

pub(super) const SMOLLM3: Gguf = Gguf {
    architecture: "smollm3",
    layout: GgufLayout::PairedRotary,
    presence: &[ATTENTION_BIAS, MLP_BIAS],
    windows: Windows::Listed,
    complete: |reading| {
        // Every fourth layer has no positions.
        let rotated: Vec<u8> = (1..=reading.layers()?).map(|l| u8::from(!l.is_multiple_of(4))).collect();
        reading.set_default("no_rope_layers", rotated);
        Ok(())
    },
    ..PLAIN
};

pub(super) const GRANITE: Gguf = Gguf {
    architecture: "granite",
    layout: GgufLayout::PairedRotary,
    words: &[SIZES, RMS, ROPE, MULTIPLIERS],
    presence: &[ATTENTION_BIAS, MLP_BIAS],
    honoured: &["attention.scale"],
    complete: multipliers,
    ..PLAIN
};

pub(super) const GRANITE_MOE: Gguf = Gguf {
    architecture: "granitemoe",
    words: &[SIZES, RMS, ROPE, MULTIPLIERS, LOCAL_EXPERTS],
    presence: &[ATTENTION_BIAS],
    ..GRANITE
};

pub(super) const GRANITE_MOE_SHARED: Gguf = Gguf {
    mark: Some("expert_shared_feed_forward_length"),
    words: &[SIZES, RMS, ROPE, MULTIPLIERS, LOCAL_EXPERTS, GRANITE_SHARED],
    ..GRANITE_MOE
};

pub(super) const STABLELM: Gguf = Gguf {
    architecture: "stablelm",
    words: &[SIZES, LAYER_NORM, ROPE, &[PARALLEL]],
    partial: ("partial_rotary_factor", 0.25),
    presence: &[("use_qkv_bias", ATTENTION_BIAS.1), ("qk_layernorm", &["blk.0.attn_q_norm.weight"])],
    complete: |reading| {
        // The key says true for all; whether there is a second norm is what llama.cpp looks at.
        let parallel = !reading.has("blk.0.ffn_norm.weight");
        reading.set("use_parallel_residual", parallel);
        Ok(())
    },
    tied_head: TiedHead::Copied,
    ..PLAIN
};

pub(super) const OPENELM: Gguf = Gguf {
    architecture: "openelm",
    names: &[FUSED_QKV, NAMES],
    words: &[OPENELM_WORDS],
    activation: ("activation_fn_name", "swish"),
    tied: "share_input_output_layers",
    presence: &[
        ("normalize_qk_projections", &["blk.0.attn_q_norm.weight"]),
        ("ffn_with_glu", &["blk.0.ffn_gate.weight"]),
    ],
    complete: openelm,
    ..PLAIN
};

pub(super) const DEEPSEEK: Gguf = Gguf {
    architecture: "deepseek",
    layout: GgufLayout::PairedRotary,
    words: &[SIZES, RMS, ROPE, EXPERT_WIDTH, RENORMALISED, DEEPSEEK_WORDS],
    presence: &[ATTENTION_BIAS],
    flags: &[("norm_topk_prob", false)],
    unopened: |spec| {
        let mut behind_the_first = spec.layers.iter().skip_while(|layer| !is_sparse(layer));
        (!behind_the_first.all(is_sparse)).then_some("layers without experts between those with experts")
    },
    ..PLAIN
};

const ATTENTION_BIAS: (&str, &[&str]) = ("attention_bias", &["blk.0.attn_q.bias", "blk.0.attn_qkv.bias"]);
const MLP_BIAS: (&str, &[&str]) = ("mlp_bias", &["blk.0.ffn_up.bias"]);

const SIZES: &[Word] = &[
    whole("block_count", "num_hidden_layers", |s| Some(s.layers.len())),
    whole("context_length", "max_position_embeddings", |s| Some(s.context_length)),
    whole("embedding_length", "hidden_size", |s| Some(s.hidden_size)),
    whole("feed_forward_length", "intermediate_size", dense_width),
    whole("attention.head_count", "num_attention_heads", heads),
    whole("attention.head_count_kv", "num_key_value_heads", kv_heads),
    whole("attention.key_length", "head_dim", head_dim),
];

const RMS: &[Word] = &[real("attention.layer_norm_rms_epsilon", "rms_norm_eps", epsilon)];

const LAYER_NORM: &[Word] = &[real("attention.layer_norm_epsilon", "layer_norm_eps", epsilon)];

const ROPE: &[Word] = &[real("rope.freq_base", "rope_theta", base)];

const LOCAL_ROPE: &[Word] =
    &[real("rope.freq_base_swa", "rope_local_base_freq", |s| s.rotary.get(1).map(|rotary| rotary.base))];

const SOFT_CAPS: &[Word] = &[
    real("attn_logit_softcapping", "attn_logit_softcapping", |s| s.layers.first()?.attention.soft_cap.map(f64::from)),
    real("final_logit_softcapping", "final_logit_softcapping", |s| s.head.soft_cap.map(f64::from)),
];

const EXPERTS: &[Word] = &[
    whole("expert_count", "num_experts", |s| Some(experts(s)?.count)),
    whole("expert_used_count", "num_experts_per_tok", |s| Some(experts(s)?.top_k)),
];

const LOCAL_EXPERTS: &[Word] = &[
    whole("expert_count", "num_local_experts", |s| Some(experts(s)?.count)),
    whole("expert_used_count", "num_experts_per_tok", |s| Some(experts(s)?.top_k)),
];

const EXPERT_WIDTH: &[Word] =
    &[whole("expert_feed_forward_length", "moe_intermediate_size", |s| Some(experts(s)?.expert.width))];

const SHARED_WIDTH: &[Word] =
    &[whole("expert_shared_feed_forward_length", "shared_expert_intermediate_size", shared_width)];

const RENORMALISED: &[Word] =
    &[flag("expert_weights_norm", "norm_topk_prob", |s| Some(experts(s)?.weights == ExpertWeights::Renormalised))];

const CLIP: &[Word] = &[real("attention.clamp_kqv", "clip_qkv", |s| s.layers.first()?.attention.clip.map(f64::from))];

const OLMO_WORDS: &[Word] = &[
    real("attention.layer_norm_epsilon", "layer_norm_eps", epsilon),
    real("attention.clamp_kqv", "clip_qkv", |s| s.layers.first()?.attention.clip.map(f64::from)),
];

const PARALLEL: Word =
    flag("use_parallel_residual", "use_parallel_residual", |s| Some(s.layers.first()?.residual == Residual::Parallel));

const NEOX: &[Word] = &[real("rope.freq_base", "rotary_emb_base", base), PARALLEL];

const GPT2_WORDS: &[Word] = &[
    whole("block_count", "n_layer", |s| Some(s.layers.len())),
    whole("context_length", "n_positions", |s| Some(s.context_length)),
    whole("embedding_length", "n_embd", |s| Some(s.hidden_size)),
    whole("feed_forward_length", "n_inner", dense_width),
    whole("attention.head_count", "n_head", heads),
    real("attention.layer_norm_epsilon", "layer_norm_epsilon", epsilon),
];

const MULTIPLIERS: &[Word] = &[
    real("embedding_scale", "embedding_multiplier", |s| Some(f64::from(s.embedding.scale))),
    real("residual_scale", "residual_multiplier", |s| Some(f64::from(s.layers.first()?.residual_scale))),
    // A divisor in both.
    real("logit_scale", "logits_scaling", |s| Some(1.0 / f64::from(s.head.scale))),
];

const GRANITE_SHARED: &[Word] = &[whole("expert_shared_feed_forward_length", "shared_intermediate_size", shared_width)];

const OPENELM_WORDS: &[Word] = &[
    whole("block_count", "num_transformer_layers", |s| Some(s.layers.len())),
    whole("context_length", "max_context_length", |s| Some(s.context_length)),
    whole("embedding_length", "model_dim", |s| Some(s.hidden_size)),
    whole("attention.key_length", "head_dim", head_dim),
    real("attention.layer_norm_rms_epsilon", "rms_norm_eps", epsilon),
    real("rope.freq_base", "rope_freq_constant", base),
];

const DEEPSEEK_WORDS: &[Word] = &[
    whole("expert_count", "n_routed_experts", |s| Some(experts(s)?.count)),
    whole("expert_used_count", "num_experts_per_tok", |s| Some(experts(s)?.top_k)),
    whole("expert_shared_count", "n_shared_experts", |s| Some(shared_width(s).unwrap_or(0) / experts(s)?.expert.width)),
    whole("leading_dense_block_count", "first_k_dense_replace", |s| s.layers.iter().position(is_sparse)),
    whole("moe_every_n_layers", "moe_layer_freq", |s| {
        let first = s.layers.iter().position(is_sparse)?;
        let fits = |step: &usize| {
            let expected = |l: usize| l >= first && l.is_multiple_of(*step);
            s.layers.iter().enumerate().all(|(l, layer)| is_sparse(layer) == expected(l))
        };
        (1..=s.layers.len()).find(fits)
    }),
];

fn heads(spec: &DecoderSpec) -> Option<usize> {
    Some(spec.layers.first()?.attention.heads)
}

fn kv_heads(spec: &DecoderSpec) -> Option<usize> {
    Some(spec.layers.first()?.attention.kv_heads)
}

fn head_dim(spec: &DecoderSpec) -> Option<usize> {
    Some(spec.layers.first()?.attention.head_dim)
}

fn base(spec: &DecoderSpec) -> Option<f64> {
    Some(spec.rotary.first()?.base)
}

fn epsilon(spec: &DecoderSpec) -> Option<f64> {
    spec.final_norm.map(|norm| f64::from(norm.eps))
}

fn dense_width(spec: &DecoderSpec) -> Option<usize> {
    spec.layers.iter().find_map(|layer| match &layer.feed_forward {
        FeedForwardSpec::Dense(mlp) => Some(mlp.width),
        FeedForwardSpec::Experts(_) => None,
    })
}

fn experts(spec: &DecoderSpec) -> Option<&ExpertsSpec> {
    spec.layers.iter().find_map(|layer| layer.feed_forward.experts())
}

fn is_sparse(layer: &crate::spec::LayerSpec) -> bool {
    layer.feed_forward.experts().is_some()
}

fn dense_layers(spec: &DecoderSpec) -> Option<&'static str> {
    (!spec.layers.iter().all(is_sparse)).then_some("layers without experts")
}

fn shared_width(spec: &DecoderSpec) -> Option<usize> {
    Some(experts(spec)?.shared.as_ref()?.mlp.width)
}

/// Layers without a router are dense. llama.cpp's own files have none; lathe's may.
fn sparse_layers(reading: &mut Reading<'_>) -> Result<(), Error> {
    let dense = |l: &usize| !reading.has(&format!("blk.{l}.ffn_gate_inp.weight"));
    let list: Vec<usize> = (0..reading.layers()?).filter(dense).collect();
    reading.set("mlp_only_layers", list);
    reading.set("decoder_sparse_step", 1);
    // Early files have no key for the width of an expert.
    let (all, used) = (reading.whole("feed_forward_length")?, reading.whole("expert_used_count")?);
    if let (Some(all), Some(used)) = (all, used.filter(|used| *used > 0)) {
        reading.set_default("moe_intermediate_size", all / used);
    }
    let width = reading.fields.get("moe_intermediate_size").cloned();
    reading.set_default("intermediate_size", width);
    Ok(())
}

/// The divisor of attention scores. The header has no key for it; lathe writes one where it is unusual.
fn query_scalar(reading: &mut Reading<'_>, layers_of_27b: u64) -> Result<(), Error> {
    let scalar = match reading.real("attention.scale")?.filter(|scale| *scale > 0.0) {
        Some(scale) => Some(scalar_of(scale)),
        None if reading.whole("block_count")? == Some(layers_of_27b) => {
            let (hidden, heads) = (reading.whole("embedding_length")?, reading.whole("attention.head_count")?);
            hidden.zip(heads.filter(|heads| *heads > 0)).map(|(hidden, heads)| (hidden / heads) as f64)
        }
        None => reading.head_dim()?.map(|width| width as f64),
    };
    let scalar = scalar.map(|x| if x.fract() == 0.0 { Value::from(x as i64) } else { x.into() });
    reading.set("query_pre_attn_scalar", scalar);
    Ok(())
}

/// Granite's multipliers; 0 stands for none.
fn multipliers(reading: &mut Reading<'_>) -> Result<(), Error> {
    for (key, field) in [("embedding_scale", "embedding_multiplier"), ("residual_scale", "residual_multiplier")] {
        if reading.real(key)?.is_none_or(|x| x == 0.0) {
            reading.set(field, 1.0);
        }
    }
    let scale = match reading.real("attention.scale")?.filter(|scale| *scale != 0.0) {
        Some(scale) => decimal(scale),
        None => reading.head_dim()?.map_or(Value::Null, |width| (1.0 / (width as f64).sqrt()).into()),
    };
    reading.set("attention_multiplier", scale);
    Ok(())
}

/// Heads and widths that grow with depth.
fn openelm(reading: &mut Reading<'_>) -> Result<(), Error> {
    let hidden = reading.whole("embedding_length")?.unwrap_or(0) as f64;
    for (key, field) in [("attention.head_count", "num_query_heads"), ("attention.head_count_kv", "num_kv_heads")] {
        let heads = reading.wholes(key)?;
        reading.set(field, heads);
    }
    let widths = reading.wholes("feed_forward_length")?;
    reading.set("ffn_multipliers", widths.map(|list| list.iter().map(|n| *n as f64 / hidden).collect::<Vec<_>>()));
    // Any width is a multiple of it.
    reading.set("ffn_dim_divisor", 1);
    Ok(())
}
