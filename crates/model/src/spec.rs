//! What a decoder is made of: the translation of a checkpoint's configuration that the one forward pass reads.

use lathe_kernels::activation::Activation;
use lathe_kernels::norm::Kind;

use crate::rotary::Rotary;

/// A decoder-only transformer.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderSpec {
    /// Architecture name, as `model_type` of the checkpoint says it.
    pub family: String,
    /// Rows of the embedding: token ids, padding rows included.
    pub vocab_size: usize,
    /// Width of the hidden state.
    pub hidden_size: usize,
    /// Positions that the model was made for.
    pub context_length: usize,
    /// Factor of the embedding (Gemma: `sqrt(hidden_size)`).
    pub embedding_scale: f32,
    /// Rotary tables that layers refer to by index.
    pub rotary: Vec<Rotary>,
    /// The layers, in order.
    pub layers: Vec<LayerSpec>,
    /// Norm after the last layer.
    pub final_norm: NormSpec,
    /// From the last hidden state to logits.
    pub head: HeadSpec,
    /// Standard deviation of a seeded random initialisation of matrices (`initializer_range`).
    pub initializer_range: f32,
}

/// One layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerSpec {
    /// Self-attention.
    pub attention: AttentionSpec,
    /// Feed-forward part.
    pub feed_forward: FeedForwardSpec,
    /// Where the layer normalises.
    pub norms: LayerNorms,
}

/// Norms of a layer; each is optional.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerNorms {
    /// Of the attention's input.
    pub before_attention: Option<NormSpec>,
    /// Of the attention's output, before the residual sum.
    pub after_attention: Option<NormSpec>,
    /// Of the feed-forward part's input.
    pub before_feed_forward: Option<NormSpec>,
    /// Of the feed-forward part's output, before the residual sum.
    pub after_feed_forward: Option<NormSpec>,
}

/// A normalisation of rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormSpec {
    /// Root mean square or mean and variance.
    pub kind: Kind,
    /// Added to the mean square.
    pub eps: f32,
    /// What the stored weight lacks (Gemma stores `g - 1`).
    pub offset: f32,
}

/// Self-attention of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionSpec {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Factor of the scores.
    pub scale: f32,
    /// Keys that a query sees, itself included; `None` is all.
    pub window: Option<usize>,
    /// `cap · tanh(score / cap)`.
    pub soft_cap: Option<f32>,
    /// Index into [`DecoderSpec::rotary`]; `None` is a layer without rotary positions.
    pub rotary: Option<usize>,
    /// Biases of query, key and value.
    pub qkv_bias: Bias,
    /// Bias of the output projection.
    pub output_bias: Bias,
    /// Norm of each query and key head, before rotation.
    pub qk_norm: Option<NormSpec>,
}

/// Whether a linear layer adds a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bias {
    /// `x Wᵀ`
    Without,
    /// `x Wᵀ + b`
    With,
}

impl Bias {
    /// From a configuration's flag.
    #[must_use]
    pub fn when(flag: bool) -> Self {
        if flag { Self::With } else { Self::Without }
    }
}

/// Feed-forward part of a layer: `down(f(gate x) · up x)`.
#[derive(Clone, Debug, PartialEq)]
pub struct FeedForwardSpec {
    /// Width between the two projections.
    pub width: usize,
    /// `f`.
    pub activation: Activation,
    /// Biases of the projections.
    pub bias: Bias,
}

/// From hidden states to logits.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadSpec {
    /// Whose weights the head uses.
    pub weight: HeadWeight,
    /// `cap · tanh(logit / cap)`.
    pub soft_cap: Option<f32>,
}

/// Whose weights the head uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadWeight {
    /// The embedding's.
    Tied,
    /// Its own.
    Own,
}

/// The part of the model that a parameter belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Token embedding (shared with a tied head).
    Embedding,
    /// Query, key, value, output, and norms of query and key.
    Attention,
    /// Projections of the feed-forward part.
    FeedForward,
    /// Norms on the residual stream.
    Norm,
    /// An untied head.
    Head,
}

/// A parameter of a decoder, by lathe's own name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// For example `layers.3.attention.query.weight`.
    pub name: String,
    /// `[out, in]` of a linear layer, `[width]` of a norm or bias.
    pub shape: Vec<usize>,
    /// Where it belongs.
    pub part: Part,
}

impl Parameter {
    /// Number of values.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

impl DecoderSpec {
    /// Every parameter of the model, in the order of the forward pass.
    #[must_use]
    pub fn parameters(&self) -> Vec<Parameter> {
        let mut list = Vec::new();
        let h = self.hidden_size;
        let mut add = |name: String, shape: &[usize], part| list.push(Parameter { name, shape: shape.to_vec(), part });
        add("embedding.weight".into(), &[self.vocab_size, h], Part::Embedding);
        for (l, layer) in self.layers.iter().enumerate() {
            let a = &layer.attention;
            let (q, kv) = (a.heads * a.head_dim, a.kv_heads * a.head_dim);
            let norms = &layer.norms;
            let mut norm = |name: &str, spec: Option<NormSpec>, width, part| {
                if let Some(spec) = spec {
                    add(format!("layers.{l}.{name}.weight"), &[width], part);
                    if spec.kind == Kind::Layer {
                        add(format!("layers.{l}.{name}.bias"), &[width], part);
                    }
                }
            };
            norm("before_attention", norms.before_attention, h, Part::Norm);
            norm("attention.query_norm", a.qk_norm, a.head_dim, Part::Attention);
            norm("attention.key_norm", a.qk_norm, a.head_dim, Part::Attention);
            norm("after_attention", norms.after_attention, h, Part::Norm);
            norm("before_feed_forward", norms.before_feed_forward, h, Part::Norm);
            norm("after_feed_forward", norms.after_feed_forward, h, Part::Norm);
            let mut linear = |name: &str, out: usize, input: usize, bias: Bias, part| {
                add(format!("layers.{l}.{name}.weight"), &[out, input], part);
                if bias == Bias::With {
                    add(format!("layers.{l}.{name}.bias"), &[out], part);
                }
            };
            linear("attention.query", q, h, a.qkv_bias, Part::Attention);
            linear("attention.key", kv, h, a.qkv_bias, Part::Attention);
            linear("attention.value", kv, h, a.qkv_bias, Part::Attention);
            linear("attention.output", h, q, a.output_bias, Part::Attention);
            let f = &layer.feed_forward;
            linear("feed_forward.gate", f.width, h, f.bias, Part::FeedForward);
            linear("feed_forward.up", f.width, h, f.bias, Part::FeedForward);
            linear("feed_forward.down", h, f.width, f.bias, Part::FeedForward);
        }
        add("final_norm.weight".into(), &[h], Part::Norm);
        if self.final_norm.kind == Kind::Layer {
            add("final_norm.bias".into(), &[h], Part::Norm);
        }
        if self.head.weight == HeadWeight::Own {
            add("head.weight".into(), &[self.vocab_size, h], Part::Head);
        }
        list
    }
}
