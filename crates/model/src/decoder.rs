//! The one forward pass.
//!
//! [`Decoder::forward`] reads a [`DecoderSpec`] and runs every architecture: embedding, layers of attention and
//! feed-forward parts on a residual stream, final norm. The same code serves inference (frozen, packed weights; no
//! graph) and training (trainable weights on candle's tape; every operation in [`crate::ops`] has a gradient).

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Tensor, Var};
use lathe_kernels::attention::{self, Rows};
use lathe_kernels::matmul::Packed;
use lathe_kernels::norm::Kind;
use lathe_kernels::rotary::Angles;

use crate::batch::Batch;
use crate::cache::KvCache;
use crate::ops;
use crate::parameters::ParameterSource;
use crate::spec::{AttentionSpec, Bias, DecoderSpec, HeadWeight, LayerSpec, NormSpec, Parameter};
use crate::tap::{Site, Tap};
use crate::Error;

/// A decoder with its weights.
pub struct Decoder {
    spec: DecoderSpec,
    embedding: Embedding,
    layers: Vec<Layer>,
    final_norm: Norm,
    pub(crate) head: Linear,
    trainable: BTreeMap<String, Var>,
}

/// What the weights are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    /// Inference: matrices are packed for the kernels, no graph is kept.
    Frozen,
    /// Every parameter is a variable that receives gradients.
    Trainable,
}

enum Embedding {
    /// Rows are decoded from the source when they are looked up.
    Source(Arc<dyn ParameterSource + Send>, Parameter),
    Tensor(Tensor),
}

struct Layer {
    before_attention: Option<Norm>,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    query_norm: Option<Norm>,
    key_norm: Option<Norm>,
    after_attention: Option<Norm>,
    before_feed_forward: Option<Norm>,
    gate: Linear,
    up: Linear,
    down: Linear,
    after_feed_forward: Option<Norm>,
}

pub(crate) enum Linear {
    Frozen(Arc<Packed>, Option<Arc<Vec<f32>>>),
    Trainable(Tensor, Option<Tensor>),
}

struct Norm {
    kind: Kind,
    eps: f32,
    width: usize,
    /// The full factor: the stored weight plus its offset.
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Decoder {
    /// Runs the tokens of `batch` and returns the hidden states after the final norm, `[tokens, hidden_size]`.
    ///
    /// With a cache, sequence `i` of the batch continues slot `batch.slots()[i]`, whose length must be the position of
    /// its first token; without one, every sequence must start at position 0. Results do not depend on what else is in
    /// the batch, on the number of threads, or on whether earlier tokens came through the cache.
    ///
    /// # Errors
    /// No tokens, an id outside the vocabulary, a text longer than the context, a cache that does not fit.
    pub fn forward(&self, batch: &Batch, mut cache: Option<&mut KvCache>, tap: &mut dyn Tap) -> Result<Tensor, Error> {
        batch.check(self.spec.vocab_size, self.spec.context_length)?;
        self.check_cache(batch, cache.as_deref())?;
        let positions = batch.positions();
        let angles: Vec<Arc<Angles>> = self
            .spec
            .rotary
            .iter()
            .map(|rotary| Arc::new(Angles::new(&positions, &rotary.inverse_frequencies(), 1.0)))
            .collect();
        let sequences = Arc::new(batch.sequences().to_vec());

        let mut x = self.embed(batch.ids())?;
        for (l, (layer, spec)) in self.layers.iter().zip(&self.spec.layers).enumerate() {
            see(tap, Site::ResidualPre(l), &x)?;

            let h = layer.before_attention.apply(&x)?;
            let a = &spec.attention;
            let mut q = layer.query_norm.apply(&layer.query.apply(&h)?)?;
            let mut k = layer.key_norm.apply(&layer.key.apply(&h)?)?;
            let v = layer.value.apply(&h)?;
            if let Some(table) = a.rotary {
                q = ops::rotate(&q, &angles[table], a.heads, a.head_dim)?;
                k = ops::rotate(&k, &angles[table], a.kv_heads, a.head_dim)?;
            }
            let h = attend(l, a, &q, &k, &v, batch, &sequences, cache.as_deref_mut(), tap)?;
            let h = layer.after_attention.apply(&layer.output.apply(&h)?)?;
            x = (x + h)?;

            let h = layer.before_feed_forward.apply(&x)?;
            let h = ops::gated(&layer.gate.apply(&h)?, &layer.up.apply(&h)?, spec.feed_forward.activation)?;
            see(tap, Site::MlpPost(l), &h)?;
            let h = layer.after_feed_forward.apply(&layer.down.apply(&h)?)?;
            x = (x + h)?;

            see(tap, Site::ResidualPost(l), &x)?;
        }
        if let Some(cache) = cache {
            batch.sequences().iter().zip(batch.slots()).for_each(|(rows, slot)| cache.advance(*slot, rows.len));
        }
        let x = self.final_norm.apply(&x)?;
        see(tap, Site::FinalNorm, &x)?;
        Ok(x)
    }

    /// Logits of hidden states, `[tokens, vocab_size]`. For whole texts prefer [`Decoder::score`], which never holds
    /// them all.
    ///
    /// # Errors
    /// A tensor operation fails.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor, Error> {
        let logits = self.head.apply(hidden)?;
        Ok(match self.spec.head.soft_cap {
            Some(cap) => ((logits / f64::from(cap))?.tanh()? * f64::from(cap))?,
            None => logits,
        })
    }

    /// Negative log-likelihood of `targets[i]` given hidden state `i`, `[tokens]`, nats, on the tape.
    ///
    /// # Errors
    /// A target is outside the vocabulary.
    pub fn negative_log_likelihood(&self, hidden: &Tensor, targets: Vec<u32>) -> Result<Tensor, Error> {
        Ok(ops::negative_log_likelihood(&self.logits(hidden)?, targets)?)
    }

    /// What the decoder is made of.
    #[must_use]
    pub fn spec(&self) -> &DecoderSpec {
        &self.spec
    }

    /// The trainable parameters by lathe's names; empty for frozen weights.
    #[must_use]
    pub fn trainable(&self) -> &BTreeMap<String, Var> {
        &self.trainable
    }

    /// Builds a decoder from its specification and numbers.
    ///
    /// # Errors
    /// The source lacks a parameter or cannot be read.
    pub fn load(spec: DecoderSpec, source: Arc<dyn ParameterSource + Send>, weights: Weights) -> Result<Self, Error> {
        let mut loader = Loader::new(&spec, source, weights);
        let table = loader.parameter("embedding.weight")?;
        let embedding = match weights {
            Weights::Frozen => Embedding::Source(loader.source.clone(), table),
            Weights::Trainable => Embedding::Tensor(loader.tensor("embedding.weight")?),
        };
        let layers = spec.layers.iter().enumerate().map(|(l, layer)| loader.layer(l, layer)).collect::<Result<_, _>>()?;
        let final_norm = loader.norm("final_norm", spec.final_norm)?;
        let head = match (spec.head.weight, &embedding) {
            (HeadWeight::Own, _) => loader.linear("head", Bias::Without)?,
            (HeadWeight::Tied, Embedding::Tensor(table)) => Linear::Trainable(table.clone(), None),
            (HeadWeight::Tied, Embedding::Source(..)) => loader.linear("embedding", Bias::Without)?,
        };
        let trainable = loader.trainable;
        Ok(Self { spec, embedding, layers, final_norm, head, trainable })
    }

    fn embed(&self, ids: &[u32]) -> Result<Tensor, Error> {
        let width = self.spec.hidden_size;
        let rows = match &self.embedding {
            Embedding::Tensor(table) => table.index_select(&Tensor::new(ids, table.device())?, 0)?,
            Embedding::Source(source, table) => {
                let mut out = vec![0.0; ids.len() * width];
                for (id, row) in ids.iter().zip(out.chunks_exact_mut(width)) {
                    source.rows(table, *id as usize..*id as usize + 1, row)?;
                }
                ops::tensor(out, (ids.len(), width))?
            }
        };
        let scale = self.spec.embedding_scale;
        Ok(if scale == 1.0 { rows } else { (rows * f64::from(scale))? })
    }

    fn check_cache(&self, batch: &Batch, cache: Option<&KvCache>) -> Result<(), Error> {
        for (rows, slot) in batch.sequences().iter().zip(batch.slots()) {
            let cached = cache.map_or(0, |cache| if *slot < cache.slots() { cache.len(*slot) } else { usize::MAX });
            if cached != rows.position {
                return Err(Error::CacheMismatch { slot: *slot, cached, position: rows.position });
            }
        }
        Ok(())
    }
}

fn see(tap: &mut dyn Tap, site: Site, value: &Tensor) -> Result<(), Error> {
    if tap.wants(site) { tap.tensor(site, value) } else { Ok(()) }
}

#[expect(clippy::too_many_arguments, reason = "one operation's operands")]
fn attend(
    layer: usize,
    spec: &AttentionSpec,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    batch: &Batch,
    sequences: &Arc<Vec<Rows>>,
    cache: Option<&mut KvCache>,
    tap: &dyn Tap,
) -> Result<Tensor, Error> {
    let shape = attention::Shape {
        heads: spec.heads,
        kv_heads: spec.kv_heads,
        head_dim: spec.head_dim,
        window: spec.window,
        scale: spec.scale,
        soft_cap: spec.soft_cap,
    };
    let wanted = tap.wants(Site::Pattern(layer));
    let sink = |pattern: &attention::Pattern<'_>| tap.pattern(layer, pattern);
    let sink: Option<attention::PatternSink<'_>> = if wanted { Some(&sink) } else { None };
    // Inference: the kernel reads keys and values where they lie, and shows its probabilities to the tap.
    let run = |kv: &[&attention::KeyValues]| {
        ops::with_values(q, |values| {
            let mut out = vec![0.0; values.len()];
            attention::forward(&shape, sequences, values, kv, sink, &mut out);
            ops::tensor(out, q.shape())
        })
    };
    let Some(cache) = cache else {
        if wanted {
            let kv = ops::with_values(k, |k| ops::with_values(v, |v| Ok(ops::key_values(&shape, sequences, k, v))))?;
            let out = run(&kv.iter().collect::<Vec<_>>())?;
            if !q.track_op() {
                return Ok(out);
            }
        }
        return Ok(ops::attention(q, k, v, shape, sequences)?);
    };
    let (d, width) = (spec.head_dim, spec.kv_heads * spec.head_dim);
    ops::with_values(k, |k| {
        ops::with_values(v, |v| {
            for (rows, slot) in batch.sequences().iter().zip(batch.slots()) {
                for (head, kv) in cache.heads_mut(*slot, layer).iter_mut().enumerate() {
                    let first = rows.start * width + head * d;
                    kv.append(&k[first..], &v[first..], width, rows.len);
                    kv.drop_before(shape.first_visible(rows.position));
                }
            }
            Ok(())
        })
    })?;
    let kv: Vec<_> = batch.slots().iter().flat_map(|slot| cache.heads(*slot, layer)).collect();
    Ok(run(&kv)?)
}

impl Linear {
    pub(crate) fn apply(&self, x: &Tensor) -> Result<Tensor, Error> {
        Ok(match self {
            Self::Frozen(weight, bias) => ops::linear_frozen(x, weight, bias.as_ref())?,
            Self::Trainable(weight, bias) => ops::linear(x, weight, bias.as_ref())?,
        })
    }
}

impl Norm {
    fn apply(&self, x: &Tensor) -> Result<Tensor, Error> {
        Ok(ops::norm(x, &self.weight, self.bias.as_ref(), self.kind, self.eps, self.width)?)
    }
}

/// A norm that a layer may lack.
trait ApplyIfThere {
    fn apply(&self, x: &Tensor) -> Result<Tensor, Error>;
}

impl ApplyIfThere for Option<Norm> {
    fn apply(&self, x: &Tensor) -> Result<Tensor, Error> {
        self.as_ref().map_or_else(|| Ok(x.clone()), |norm| norm.apply(x))
    }
}

/// Turns named parameters into the parts of a decoder.
struct Loader {
    source: Arc<dyn ParameterSource + Send>,
    parameters: BTreeMap<String, Parameter>,
    weights: Weights,
    trainable: BTreeMap<String, Var>,
}

impl Loader {
    fn new(spec: &DecoderSpec, source: Arc<dyn ParameterSource + Send>, weights: Weights) -> Self {
        let parameters = spec.parameters().into_iter().map(|p| (p.name.clone(), p)).collect();
        Self { source, parameters, weights, trainable: BTreeMap::new() }
    }

    fn layer(&mut self, l: usize, spec: &LayerSpec) -> Result<Layer, Error> {
        let (a, norms) = (&spec.attention, &spec.norms);
        let name = |part: &str| format!("layers.{l}.{part}");
        let mut norm = |part: &str, spec: Option<NormSpec>| spec.map(|spec| self.norm(&name(part), spec)).transpose();
        let before_attention = norm("before_attention", norms.before_attention)?;
        let query_norm = norm("attention.query_norm", a.qk_norm)?;
        let key_norm = norm("attention.key_norm", a.qk_norm)?;
        let after_attention = norm("after_attention", norms.after_attention)?;
        let before_feed_forward = norm("before_feed_forward", norms.before_feed_forward)?;
        let after_feed_forward = norm("after_feed_forward", norms.after_feed_forward)?;
        let mut linear = |part: &str, bias: Bias| self.linear(&name(part), bias);
        Ok(Layer {
            before_attention,
            query: linear("attention.query", a.qkv_bias)?,
            key: linear("attention.key", a.qkv_bias)?,
            value: linear("attention.value", a.qkv_bias)?,
            output: linear("attention.output", a.output_bias)?,
            query_norm,
            key_norm,
            after_attention,
            before_feed_forward,
            gate: linear("feed_forward.gate", spec.feed_forward.bias)?,
            up: linear("feed_forward.up", spec.feed_forward.bias)?,
            down: linear("feed_forward.down", spec.feed_forward.bias)?,
            after_feed_forward,
        })
    }

    fn parameter(&self, name: &str) -> Result<Parameter, Error> {
        self.parameters
            .get(name)
            .cloned()
            .ok_or_else(|| candle_core::Error::Msg(format!("no parameter `{name}` in this architecture")).into())
    }

    fn values(&self, name: &str) -> Result<(Vec<f32>, Parameter), Error> {
        let parameter = self.parameter(name)?;
        let mut values = vec![0.0; parameter.elements()];
        let rows = if parameter.shape.len() < 2 { 1 } else { parameter.shape[0] };
        self.source.rows(&parameter, 0..rows, &mut values)?;
        Ok((values, parameter))
    }

    /// A parameter as a tensor; a variable when training.
    fn tensor(&mut self, name: &str) -> Result<Tensor, Error> {
        let (values, parameter) = self.values(name)?;
        let tensor = ops::tensor(values, parameter.shape)?;
        if self.weights == Weights::Frozen {
            return Ok(tensor);
        }
        let var = Var::from_tensor(&tensor)?;
        let tensor = var.as_tensor().clone();
        self.trainable.insert(name.into(), var);
        Ok(tensor)
    }

    fn norm(&mut self, name: &str, spec: NormSpec) -> Result<Norm, Error> {
        let weight = self.tensor(&format!("{name}.weight"))?;
        let width = weight.elem_count();
        let weight = if spec.offset == 0.0 { weight } else { (weight + f64::from(spec.offset))? };
        let bias = match spec.kind {
            Kind::Rms => None,
            Kind::Layer => Some(self.tensor(&format!("{name}.bias"))?),
        };
        Ok(Norm { kind: spec.kind, eps: spec.eps, width, weight, bias })
    }

    fn linear(&mut self, name: &str, bias: Bias) -> Result<Linear, Error> {
        let (weight, bias_name) = (format!("{name}.weight"), format!("{name}.bias"));
        if self.weights == Weights::Trainable {
            let bias = (bias == Bias::With).then(|| self.tensor(&bias_name)).transpose()?;
            return Ok(Linear::Trainable(self.tensor(&weight)?, bias));
        }
        let parameter = self.parameter(&weight)?;
        let mut packed = Packed::zeros(parameter.shape[1], parameter.shape[0]);
        packed.fill_columns(|first, count, rows| self.source.rows(&parameter, first..first + count, rows))?;
        let bias = (bias == Bias::With).then(|| self.values(&bias_name)).transpose()?;
        Ok(Linear::Frozen(Arc::new(packed), bias.map(|(values, _)| Arc::new(values))))
    }
}
