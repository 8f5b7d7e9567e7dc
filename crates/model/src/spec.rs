//! What a decoder is made of: the translation of a checkpoint's configuration that the one forward pass reads. An encoder is
//! one whose attention reaches both ways, without a head.

use lathe_kernels::activation::Activation;
use lathe_kernels::attention::Reach;
use lathe_kernels::norm::Kind;

use crate::rotary::Rotary;

/// A decoder-only transformer, or an encoder.
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
    /// From token ids to the first hidden state.
    pub embedding: EmbeddingSpec,
    /// Rotary tables that layers refer to by index.
    pub rotary: Vec<Rotary>,
    /// The layers, in order.
    pub layers: Vec<LayerSpec>,
    /// Norm after the last layer.
    pub final_norm: Option<NormSpec>,
    /// From the last hidden state to logits.
    pub head: HeadSpec,
    /// Standard deviation of a seeded random initialisation of matrices (`initializer_range`).
    pub initializer_range: f32,
}

/// From token ids to the first hidden state.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbeddingSpec {
    /// Factor of the embedding (Gemma: `sqrt(hidden_size)`).
    pub scale: f32,
    /// Learned positions that are added; none for rotary models.
    pub positions: Option<LearnedPositions>,
    /// Rows of a table of token types, of which the first is added to every token (BERT).
    pub token_types: Option<usize>,
    /// Norm of the sum (BERT).
    pub norm: Option<NormSpec>,
    /// Width of the embedding where it differs from the hidden state: two projections join them (OPT 350M).
    pub projected_from: Option<usize>,
}

impl EmbeddingSpec {
    /// A plain table: no factor, no positions.
    pub const PLAIN: Self = Self { scale: 1.0, positions: None, token_types: None, norm: None, projected_from: None };
}

/// A table of position embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LearnedPositions {
    /// Rows of the table.
    pub rows: usize,
    /// Row of position 0 (OPT: 2).
    pub offset: usize,
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
    /// How the two parts join the residual stream.
    pub residual: Residual,
    /// Factor of each part's output before the residual sum (Granite).
    pub residual_scale: f32,
}

/// How attention and feed-forward part join the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residual {
    /// The feed-forward part reads what attention wrote.
    Serial,
    /// Both read the layer's input (GPT-NeoX, Phi). Without a norm of its own, the feed-forward part reads the
    /// attention's normalised input.
    Parallel,
    /// Serial, with each norm after the sum instead of before the part (OPT 350M): `norm(x + part(x))`.
    PostNorm,
}

/// Norms of a layer; each is optional.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerNorms {
    /// Of the attention's input.
    pub before_attention: Option<NormSpec>,
    /// Of the attention's output, before the residual sum (after it for [`Residual::PostNorm`]).
    pub after_attention: Option<NormSpec>,
    /// Of the feed-forward part's input.
    pub before_feed_forward: Option<NormSpec>,
    /// Of the feed-forward part's output, before the residual sum (after it for [`Residual::PostNorm`]).
    pub after_feed_forward: Option<NormSpec>,
}

impl LayerNorms {
    /// The same norm before both parts.
    #[must_use]
    pub fn before(norm: NormSpec) -> Self {
        Self {
            before_attention: Some(norm),
            after_attention: None,
            before_feed_forward: Some(norm),
            after_feed_forward: None,
        }
    }

    /// The same norm after both parts.
    #[must_use]
    pub fn after(norm: NormSpec) -> Self {
        Self {
            before_attention: None,
            after_attention: Some(norm),
            before_feed_forward: None,
            after_feed_forward: Some(norm),
        }
    }
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
    /// Which parameters it has.
    pub parameters: NormParameters,
}

/// Parameters of a norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormParameters {
    /// None (OLMo 1).
    None,
    /// A factor.
    Weight,
    /// A factor and a summand.
    WeightAndBias,
}

impl NormSpec {
    /// Root mean square norm with a weight.
    #[must_use]
    pub fn rms(eps: f64) -> Self {
        Self { kind: Kind::Rms, eps: eps as f32, offset: 0.0, parameters: NormParameters::Weight }
    }

    /// Layer norm with weight and bias.
    #[must_use]
    pub fn layer(eps: f64) -> Self {
        Self { kind: Kind::Layer, eps: eps as f32, offset: 0.0, parameters: NormParameters::WeightAndBias }
    }
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
    /// On which sides of a query the keys are that it sees.
    pub reach: Reach,
    /// Keys that a query sees on a side, itself included; `None` is all.
    pub window: Option<usize>,
    /// `cap · tanh(score / cap)`.
    pub soft_cap: Option<f32>,
    /// Index into [`DecoderSpec::rotary`]; `None` is a layer without rotary positions.
    pub rotary: Option<usize>,
    /// Biases of query, key and value.
    pub qkv_bias: Bias,
    /// Bias of the output projection.
    pub output_bias: Bias,
    /// Norm of queries and keys, before rotation.
    pub qk_norm: QkNorm,
    /// Query, key and value are clamped to `± clip` (OLMo).
    pub clip: Option<f32>,
}

impl AttentionSpec {
    /// Plain rotary attention: no biases, window, cap or norms; scores divided by `sqrt(head_dim)`.
    #[must_use]
    pub fn plain(heads: usize, kv_heads: usize, head_dim: usize) -> Self {
        Self {
            heads,
            kv_heads,
            head_dim,
            scale: 1.0 / (head_dim as f32).sqrt(),
            reach: Reach::Before,
            window: None,
            soft_cap: None,
            rotary: Some(0),
            qkv_bias: Bias::Without,
            output_bias: Bias::Without,
            qk_norm: QkNorm::None,
            clip: None,
        }
    }
}

/// Norm of queries and keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum QkNorm {
    /// None.
    None,
    /// Of every head by itself, with one weight for all heads.
    PerHead(NormSpec),
    /// Of every head by itself, each with a weight of its own (StableLM 2 12B).
    EachHead(NormSpec),
    /// Of the whole projection (OLMo 2, OLMoE).
    Whole(NormSpec),
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

/// Feed-forward part of a layer.
#[derive(Clone, Debug, PartialEq)]
pub enum FeedForwardSpec {
    /// One network for all tokens.
    Dense(MlpSpec),
    /// Several networks, of which a router picks some for each token.
    Experts(ExpertsSpec),
}

impl FeedForwardSpec {
    /// Width between the projections; of one expert where there are several.
    #[must_use]
    pub fn width(&self) -> usize {
        match self {
            Self::Dense(mlp) => mlp.width,
            Self::Experts(experts) => experts.expert.width,
        }
    }

    /// The experts, if the layer has any.
    #[must_use]
    pub fn experts(&self) -> Option<&ExpertsSpec> {
        match self {
            Self::Dense(_) => None,
            Self::Experts(experts) => Some(experts),
        }
    }
}

/// A network of two projections.
#[derive(Clone, Debug, PartialEq)]
pub struct MlpSpec {
    /// Width between the two projections.
    pub width: usize,
    /// `f`.
    pub activation: Activation,
    /// Whether there is a gate.
    pub shape: MlpShape,
    /// Biases of the projections.
    pub bias: Bias,
}

/// The two forms of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MlpShape {
    /// `down(f(gate x) · up x)`
    Gated,
    /// `down(f(up x))`
    Plain,
}

impl MlpSpec {
    /// A gated network without biases.
    #[must_use]
    pub fn gated(width: usize, activation: Activation) -> Self {
        Self { width, activation, shape: MlpShape::Gated, bias: Bias::Without }
    }

    /// A plain network with biases.
    #[must_use]
    pub fn plain(width: usize, activation: Activation) -> Self {
        Self { width, activation, shape: MlpShape::Plain, bias: Bias::With }
    }
}

/// Experts behind a router.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpertsSpec {
    /// Number of routed experts.
    pub count: usize,
    /// Experts that a token uses.
    pub top_k: usize,
    /// Every routed expert.
    pub expert: MlpSpec,
    /// What becomes of the probabilities of the chosen experts.
    pub weights: ExpertWeights,
    /// An expert that every token uses.
    pub shared: Option<SharedExpert>,
}

/// Weights of the chosen experts, from the softmax over all experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpertWeights {
    /// As they are; they sum to less than 1.
    AsTheyAre,
    /// Divided by their sum.
    Renormalised,
}

/// An expert that every token uses.
#[derive(Clone, Debug, PartialEq)]
pub struct SharedExpert {
    /// Its network.
    pub mlp: MlpSpec,
    /// Whether its output is weighted.
    pub gate: SharedGate,
}

/// Weight of a shared expert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedGate {
    /// 1.
    Open,
    /// `sigmoid(w · x)` (Qwen 2 MoE).
    Sigmoid,
}

/// From hidden states to logits.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadSpec {
    /// Whose weights the head uses.
    pub weight: HeadWeight,
    /// Whether a bias is added (Phi).
    pub bias: Bias,
    /// Factor of the logits (Granite).
    pub scale: f32,
    /// `cap · tanh(logit / cap)`.
    pub soft_cap: Option<f32>,
}

impl HeadSpec {
    /// No head: an encoder.
    pub const NONE: Self = Self { weight: HeadWeight::Absent, bias: Bias::Without, scale: 1.0, soft_cap: None };

    /// A head without bias, factor or cap.
    #[must_use]
    pub fn plain(weight: HeadWeight) -> Self {
        Self { weight, bias: Bias::Without, scale: 1.0, soft_cap: None }
    }
}

/// Whose weights the head uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadWeight {
    /// The embedding's.
    Tied,
    /// Its own.
    Own,
    /// There is no head: the model encodes and predicts no token.
    Absent,
}

impl HeadWeight {
    /// From a configuration's flag.
    #[must_use]
    pub fn tied_when(flag: bool) -> Self {
        if flag { Self::Tied } else { Self::Own }
    }
}

/// The part of the model that a parameter belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Token and position embeddings (shared with a tied head).
    Embedding,
    /// Query, key, value, output, and norms of query and key.
    Attention,
    /// Projections of the feed-forward part.
    FeedForward,
    /// Router, routed and shared experts.
    Experts,
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
    /// Whether it predicts tokens. A model without a head gives hidden states only.
    #[must_use]
    pub fn has_head(&self) -> bool {
        self.head.weight != HeadWeight::Absent
    }

    /// Whether some layer sees what comes after a token, so that a text cannot be read a piece at a time.
    #[must_use]
    pub fn looks_ahead(&self) -> bool {
        self.layers.iter().any(|layer| layer.attention.reach == Reach::Both)
    }

    /// Every parameter of the model, in the order of the forward pass.
    #[must_use]
    pub fn parameters(&self) -> Vec<Parameter> {
        let mut list = List(Vec::new());
        let h = self.hidden_size;
        let embedded = self.embedding.projected_from.unwrap_or(h);
        list.add("embedding.weight".into(), &[self.vocab_size, embedded], Part::Embedding);
        if let Some(positions) = self.embedding.positions {
            list.add("positions.weight".into(), &[positions.rows, h], Part::Embedding);
        }
        if let Some(rows) = self.embedding.token_types {
            list.add("token_types.weight".into(), &[rows, h], Part::Embedding);
        }
        list.norm("embedding_norm", self.embedding.norm, h, Part::Norm);
        if self.embedding.projected_from.is_some() {
            list.linear("embedding_in", h, embedded, Bias::Without, Part::Embedding);
        }
        for (l, layer) in self.layers.iter().enumerate() {
            list.layer(&format!("layers.{l}"), layer, h);
        }
        list.norm("final_norm", self.final_norm, h, Part::Norm);
        if self.embedding.projected_from.is_some() {
            list.linear("embedding_out", embedded, h, Bias::Without, Part::Embedding);
        }
        if self.head.weight == HeadWeight::Own {
            list.add("head.weight".into(), &[self.vocab_size, embedded], Part::Head);
        }
        if self.head.bias == Bias::With {
            list.add("head.bias".into(), &[self.vocab_size], Part::Head);
        }
        list.0
    }
}

impl DecoderSpec {
    /// Number of values of each part, in the order in which the parts first occur. A tied head has none of its own.
    #[must_use]
    pub fn parameters_by_part(&self) -> Vec<(Part, u64)> {
        let mut parts: Vec<(Part, u64)> = Vec::new();
        for parameter in self.parameters() {
            let elements = parameter.elements() as u64;
            match parts.iter_mut().find(|(part, _)| *part == parameter.part) {
                Some((_, count)) => *count += elements,
                None => parts.push((parameter.part, elements)),
            }
        }
        parts
    }
}

struct List(Vec<Parameter>);

impl List {
    fn add(&mut self, name: String, shape: &[usize], part: Part) {
        self.0.push(Parameter { name, shape: shape.to_vec(), part });
    }

    fn linear(&mut self, name: &str, out: usize, input: usize, bias: Bias, part: Part) {
        self.add(format!("{name}.weight"), &[out, input], part);
        if bias == Bias::With {
            self.add(format!("{name}.bias"), &[out], part);
        }
    }

    fn norm(&mut self, name: &str, spec: Option<NormSpec>, width: usize, part: Part) {
        let parameters = spec.map_or(NormParameters::None, |spec| spec.parameters);
        if parameters != NormParameters::None {
            self.add(format!("{name}.weight"), &[width], part);
        }
        if parameters == NormParameters::WeightAndBias {
            self.add(format!("{name}.bias"), &[width], part);
        }
    }

    fn mlp(&mut self, name: &str, spec: &MlpSpec, h: usize, part: Part) {
        if spec.shape == MlpShape::Gated {
            self.linear(&format!("{name}.gate"), spec.width, h, spec.bias, part);
        }
        self.linear(&format!("{name}.up"), spec.width, h, spec.bias, part);
        self.linear(&format!("{name}.down"), h, spec.width, spec.bias, part);
    }

    fn layer(&mut self, name: &str, layer: &LayerSpec, h: usize) {
        let (a, norms) = (&layer.attention, &layer.norms);
        let (q, kv) = (a.heads * a.head_dim, a.kv_heads * a.head_dim);
        self.norm(&format!("{name}.before_attention"), norms.before_attention, h, Part::Norm);
        let (query_norm, key_norm) = (format!("{name}.attention.query_norm"), format!("{name}.attention.key_norm"));
        match a.qk_norm {
            QkNorm::None => {}
            QkNorm::PerHead(norm) => {
                self.norm(&query_norm, Some(norm), a.head_dim, Part::Attention);
                self.norm(&key_norm, Some(norm), a.head_dim, Part::Attention);
            }
            QkNorm::EachHead(norm) => {
                for (norms, heads) in [(query_norm, a.heads), (key_norm, a.kv_heads)] {
                    (0..heads)
                        .for_each(|h| self.norm(&format!("{norms}.{h}"), Some(norm), a.head_dim, Part::Attention));
                }
            }
            QkNorm::Whole(norm) => {
                self.norm(&query_norm, Some(norm), q, Part::Attention);
                self.norm(&key_norm, Some(norm), kv, Part::Attention);
            }
        }
        self.linear(&format!("{name}.attention.query"), q, h, a.qkv_bias, Part::Attention);
        self.linear(&format!("{name}.attention.key"), kv, h, a.qkv_bias, Part::Attention);
        self.linear(&format!("{name}.attention.value"), kv, h, a.qkv_bias, Part::Attention);
        self.linear(&format!("{name}.attention.output"), h, q, a.output_bias, Part::Attention);
        self.norm(&format!("{name}.after_attention"), norms.after_attention, h, Part::Norm);
        self.norm(&format!("{name}.before_feed_forward"), norms.before_feed_forward, h, Part::Norm);
        match &layer.feed_forward {
            FeedForwardSpec::Dense(mlp) => self.mlp(&format!("{name}.feed_forward"), mlp, h, Part::FeedForward),
            FeedForwardSpec::Experts(experts) => {
                self.linear(&format!("{name}.experts.router"), experts.count, h, Bias::Without, Part::Experts);
                for e in 0..experts.count {
                    self.mlp(&format!("{name}.experts.{e}"), &experts.expert, h, Part::Experts);
                }
                if let Some(shared) = &experts.shared {
                    self.mlp(&format!("{name}.experts.shared"), &shared.mlp, h, Part::Experts);
                    if shared.gate == SharedGate::Sigmoid {
                        self.linear(&format!("{name}.experts.shared_gate"), 1, h, Bias::Without, Part::Experts);
                    }
                }
            }
        }
        self.norm(&format!("{name}.after_feed_forward"), norms.after_feed_forward, h, Part::Norm);
    }
}
