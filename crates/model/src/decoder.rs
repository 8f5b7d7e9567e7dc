//! The one forward pass.
//!
//! [`Decoder::forward`] reads a [`DecoderSpec`] and runs every architecture: embedding, layers of attention and
//! feed-forward parts on a residual stream, final norm. The same code serves inference (frozen, packed weights; no
//! graph) and training (trainable weights on candle's tape; every operation in [`crate::ops`] has a gradient).

mod adapter;
mod attend;
mod experts;
mod gradients;
mod linear;
mod loader;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use candle_core::{Tensor, Var};
use lathe_kernels::Awake;
use lathe_kernels::attention::Rows;
use lathe_kernels::norm::Kind;
use lathe_kernels::rotary::Angles;
use rayon::prelude::*;

use crate::Error;
use crate::adapter::AdaptedModule;
use crate::batch::Batch;
use crate::cache::KvCache;
use crate::ops;
use crate::parameters::ParameterSource;
use crate::profile::Phase;
use crate::rotary::Rotary;
use crate::spec::{DecoderSpec, LearnedPositions, MlpSpec, Parameter, QkNorm, Residual};
use crate::tap::{Site, Tap};
use linear::Linear;

pub use gradients::{Gradients, Recompute, TrainingPass};

/// A decoder with its weights.
pub struct Decoder {
    spec: DecoderSpec,
    embedding: Embedding,
    positions: Option<Tensor>,
    token_types: Option<Tensor>,
    embedding_norm: Option<Norm>,
    embedding_in: Option<Linear>,
    layers: Vec<Layer>,
    final_norm: Option<Norm>,
    embedding_out: Option<Linear>,
    head: Option<Linear>,
    trainable: BTreeMap<String, Var>,
    adapter: Vec<AdaptedModule>,
    weight_bytes: usize,
}

/// What the weights are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    /// Inference: matrices are packed for the kernels, no graph is kept.
    Frozen,
    /// Coarser arithmetic than `f32`, on the way back of training too: faster, and every number that comes out of it must
    /// say so.
    Coarse(Coarse),
    /// Inference in little memory: matrices stay in the checkpoint, and a part of one at a time is packed when it is
    /// multiplied. The results are the same bits; every forward pass reads the whole checkpoint.
    Streamed,
    /// Every parameter is a variable that receives gradients.
    Trainable,
}

/// Arithmetic that rounds what is multiplied; sums, norms, attention and everything else stay in `f32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coarse {
    /// Weights and their inputs in bf16.
    Bf16,
    /// In the precision of the file: integers with scales are multiplied by inputs in signed bytes, bf16 by bf16, and
    /// what the file stores otherwise as `f32`.
    Native,
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
    feed_forward: FeedForward,
    after_feed_forward: Option<Norm>,
}

enum FeedForward {
    Dense(Mlp),
    Experts(experts::Experts),
}

struct Mlp {
    spec: MlpSpec,
    gate: Option<Linear>,
    up: Linear,
    down: Linear,
}

struct Norm {
    kind: Kind,
    eps: f32,
    width: usize,
    factor: Factor,
    bias: Option<Tensor>,
}

/// The full factor of a norm: the stored weight plus its offset. `[width]`, or `[heads · width]` where every head has one.
enum Factor {
    Whole(Tensor),
    /// Variables, side by side. Training changes them, so that what is made of them is made in every pass.
    Trained {
        parts: Vec<Tensor>,
        offset: f32,
    },
}

/// What every layer of one forward pass sees.
struct Pass<'a> {
    batch: &'a Batch,
    sequences: Arc<Vec<Rows>>,
    /// One for each rotary table.
    angles: Vec<Arc<Angles>>,
    cache: Option<&'a mut KvCache>,
    tap: &'a mut dyn Tap,
    /// Number of a training pass, which says what is dropped in it; nothing is in any other.
    draw: Option<u64>,
}

impl Decoder {
    /// Runs the tokens of `batch` and returns the hidden states after the final norm, `[tokens, hidden_size]`.
    ///
    /// With a cache, sequence `i` of the batch continues slot `batch.slots()[i]`, whose length must be the position of
    /// its first token; without one, every sequence must start at position 0. Results do not depend on what else is in
    /// the batch, on the number of threads, or on whether earlier tokens came through the cache. (Two rotary scalings
    /// whose frequencies depend on the length of the text keep cached keys as they were, as the reference implementation
    /// does: dynamic NTK, and LongRoPE outside Phi-3. Where Phi-3 changes its frequencies the cached tokens are run
    /// once more, and the tap sees them again.)
    ///
    /// # Errors
    /// No tokens, an id outside the vocabulary, a text longer than the context, a cache that does not fit or that an
    /// encoder has no use for.
    pub fn forward(&self, batch: &Batch, mut cache: Option<&mut KvCache>, tap: &mut dyn Tap) -> Result<Tensor, Error> {
        batch.check(self.spec.vocab_size, self.spec.context_length)?;
        self.check_cache(batch, cache.as_deref())?;
        match cache.as_deref_mut().and_then(|cache| self.outgrown(batch, cache)) {
            None => self.run(batch, cache, tap),
            Some((longer, rows)) => {
                let x = self.run(&longer, cache, tap)?;
                Ok(x.index_select(&Tensor::new(&rows[..], x.device())?, 0)?)
            }
        }
    }

    /// The batch with the whole text of sequences whose cached keys have other rotary frequencies than their next
    /// tokens, which leave the cache; and the rows of the batch's own tokens in it. None if there is no such sequence.
    fn outgrown(&self, batch: &Batch, cache: &mut KvCache) -> Option<(Batch, Vec<u32>)> {
        let limit = self.spec.rotary.iter().find_map(Rotary::runs_again_beyond)?;
        let sequences = || batch.sequences().iter().zip(batch.slots());
        let is_outgrown =
            |rows: &Rows, cached: usize| rows.position > 0 && (cached > limit) != (rows.position + rows.len > limit);
        if !sequences().any(|(rows, slot)| is_outgrown(rows, cache.rotated_for(*slot))) {
            return None;
        }
        let (mut longer, mut own_rows) = (Batch::default(), Vec::new());
        for (rows, slot) in sequences() {
            let ids = &batch.ids()[rows.start..rows.start + rows.len];
            if is_outgrown(rows, cache.rotated_for(*slot)) {
                let text = [cache.ids(*slot), ids].concat();
                cache.clear(*slot);
                longer.push(&text, *slot, 0);
            } else {
                longer.push(ids, *slot, rows.position);
            }
            #[expect(clippy::cast_possible_truncation, reason = "rows of a batch")]
            let end = longer.ids().len() as u32;
            #[expect(clippy::cast_possible_truncation, reason = "rows of a batch")]
            own_rows.extend(end - rows.len as u32..end);
        }
        Some((longer, own_rows))
    }

    fn run(&self, batch: &Batch, cache: Option<&mut KvCache>, tap: &mut dyn Tap) -> Result<Tensor, Error> {
        tap.begins(Phase::Rotary);
        let mut pass = self.pass(batch, cache, tap, None);
        pass.tap.begins(Phase::Embedding);
        let mut x = self.embed(batch)?;
        let awake = Awake::new();
        for (l, layer) in self.layers.iter().enumerate() {
            awake.call();
            pass.see(Site::ResidualPre(l), &x)?;
            x = self.layer(l, layer, &x, &mut pass)?;
            pass.see(Site::ResidualPost(l), &x)?;
        }
        pass.tap.begins(Phase::Other);
        if let Some(cache) = pass.cache.as_deref_mut() {
            for (rows, slot) in batch.sequences().iter().zip(batch.slots()) {
                cache.advance(*slot, &batch.ids()[rows.start..rows.start + rows.len], &self.spec);
            }
        }
        self.after_layers(&x, &mut pass)
    }

    fn pass<'a>(
        &self,
        batch: &'a Batch,
        cache: Option<&'a mut KvCache>,
        tap: &'a mut dyn Tap,
        draw: Option<u64>,
    ) -> Pass<'a> {
        Pass { batch, sequences: Arc::new(batch.sequences().to_vec()), angles: self.angles(batch), cache, tap, draw }
    }

    /// What the residual stream goes through after the last layer.
    fn after_layers(&self, x: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor, Error> {
        pass.tap.begins(Phase::Norm);
        let x = self.final_norm.apply(x)?;
        pass.tap.begins(Phase::Head);
        let x = self.embedding_out.as_ref().map_or(Ok(x.clone()), |out| out.apply(&x, None))?;
        pass.see(Site::FinalNorm, &x)?;
        Ok(x)
    }

    /// One layer on the residual stream `x`.
    fn layer(&self, l: usize, layer: &Layer, x: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor, Error> {
        let spec = &self.spec.layers[l];
        let scaled = |part: Tensor| match spec.residual_scale {
            1.0 => Ok(part),
            scale => part * f64::from(scale),
        };
        pass.tap.begins(Phase::Norm);
        let input = layer.before_attention.apply(x)?;
        let attention = self.attention(l, layer, &input, pass)?;
        match spec.residual {
            Residual::Serial => {
                pass.tap.begins(Phase::Norm);
                let part = layer.after_attention.apply(&attention)?;
                pass.tap.begins(Phase::Residual);
                let x = ops::add(x, &scaled(part)?)?;
                pass.tap.begins(Phase::Norm);
                let input = layer.before_feed_forward.apply(&x)?;
                let part = layer.feed_forward.apply(&input, l, pass)?;
                pass.tap.begins(Phase::Norm);
                let part = layer.after_feed_forward.apply(&part)?;
                pass.tap.begins(Phase::Residual);
                Ok(ops::add(&x, &scaled(part)?)?)
            }
            Residual::Parallel => {
                pass.tap.begins(Phase::Norm);
                let input = match &layer.before_feed_forward {
                    Some(norm) => norm.apply(x)?,
                    None => input,
                };
                let part = layer.feed_forward.apply(&input, l, pass)?;
                pass.tap.begins(Phase::Residual);
                Ok(ops::add(&ops::add(x, &scaled(attention)?)?, &scaled(part)?)?)
            }
            Residual::PostNorm => {
                pass.tap.begins(Phase::Residual);
                let x = ops::add(x, &attention)?;
                pass.tap.begins(Phase::Norm);
                let x = layer.after_attention.apply(&x)?;
                let part = layer.feed_forward.apply(&x, l, pass)?;
                pass.tap.begins(Phase::Residual);
                let x = ops::add(&x, &part)?;
                pass.tap.begins(Phase::Norm);
                layer.after_feed_forward.apply(&x)
            }
        }
    }

    /// Self-attention of normalised input, output projection included.
    fn attention(&self, l: usize, layer: &Layer, input: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor, Error> {
        let spec = &self.spec.layers[l].attention;
        let clip = |x: Tensor| match spec.clip {
            Some(clip) => x.clamp(-clip, clip),
            None => Ok(x),
        };
        pass.tap.begins(Phase::QueryKeyValue);
        let [mut q, mut k, v] = Linear::apply_each([&layer.query, &layer.key, &layer.value], input, pass.draw)?;
        if spec.qk_norm != QkNorm::None {
            (q, k) = (layer.query_norm.apply(&q)?, layer.key_norm.apply(&k)?);
        }
        let (mut q, mut k, v) = (clip(q)?, clip(k)?, clip(v)?);
        pass.tap.begins(Phase::Rotary);
        let mut angles = spec.rotary.map(|table| pass.angles[table].clone());
        let is_one_operation = ops::tracked(&q) && pass.cache.is_none() && !pass.tap.wants(Site::Pattern(l));
        if let Some(angles) = angles.take_if(|_| !is_one_operation) {
            q = ops::rotate(&q, &angles, spec.heads, spec.head_dim)?;
            k = ops::rotate(&k, &angles, spec.kv_heads, spec.head_dim)?;
        }
        pass.tap.begins(Phase::Attention);
        let attended = pass.attend(l, spec, &q, &k, &v, angles.as_ref())?;
        pass.tap.begins(Phase::Output);
        layer.output.apply(&attended, pass.draw)
    }

    /// Logits of hidden states, `[tokens, vocab_size]`. For whole texts prefer [`Decoder::score`], which never holds
    /// them all.
    ///
    /// # Errors
    /// The model has no head, or a tensor operation fails.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor, Error> {
        let head = &self.spec.head;
        let mut logits = self.head()?.apply(hidden, None)?;
        if head.scale != 1.0 {
            logits = (logits * f64::from(head.scale))?;
        }
        Ok(match head.soft_cap {
            Some(cap) => ((logits / f64::from(cap))?.tanh()? * f64::from(cap))?,
            None => logits,
        })
    }

    /// Negative log-likelihood of `targets[i]` given hidden state `i`, `[tokens]`, nats, on the tape.
    ///
    /// # Errors
    /// A target is outside the vocabulary, or the model has no head.
    pub fn negative_log_likelihood(&self, hidden: &Tensor, targets: Vec<u32>) -> Result<Tensor, Error> {
        let scaling = ops::LogitScaling::of(&self.spec.head);
        if let Some(weight) = self.head()?.trained() {
            return Ok(ops::head_likelihood(hidden, weight, scaling, targets)?);
        }
        if let Some(head) = self.head()?.packed() {
            return Ok(ops::head_likelihood_frozen(hidden, head, scaling, targets)?);
        }
        Ok(ops::negative_log_likelihood(&self.logits(hidden)?, targets)?)
    }

    /// The language-model head.
    pub(crate) fn head(&self) -> Result<&Linear, Error> {
        self.head.as_ref().ok_or_else(|| Error::Encoder { family: self.spec.family.clone() })
    }

    /// What the decoder is made of.
    #[must_use]
    pub fn spec(&self) -> &DecoderSpec {
        &self.spec
    }

    /// Bytes of the weights in memory; rows that are decoded from the checkpoint as they are needed are not counted.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        self.weight_bytes
    }

    /// The trainable parameters by lathe's names; empty for frozen weights. The factors of an adapter are called after the
    /// parameter beside which they stand, `<parameter>.lora_A` `[rank, in]` and `<parameter>.lora_B` `[out, rank]`.
    #[must_use]
    pub fn trainable(&self) -> &BTreeMap<String, Var> {
        &self.trainable
    }

    fn embed(&self, batch: &Batch) -> Result<Tensor, Error> {
        let ids = batch.ids();
        let mut x = match &self.embedding {
            Embedding::Tensor(table) => ops::embed(table, ids)?,
            Embedding::Source(source, table) => {
                let width = table.shape[1];
                let mut out = vec![0.0; ids.len() * width];
                let rows = ids.par_iter().zip(out.par_chunks_exact_mut(width.max(1))).with_min_len(64);
                rows.try_for_each(|(id, row)| source.rows(table, *id as usize..*id as usize + 1, row))?;
                ops::tensor(out, (ids.len(), width))?
            }
        };
        if let Some(project) = &self.embedding_in {
            x = project.apply(&x, None)?;
        }
        if self.spec.embedding.scale != 1.0 {
            x = (x * f64::from(self.spec.embedding.scale))?;
        }
        if let (Some(table), Some(LearnedPositions { offset, .. })) = (&self.positions, self.spec.embedding.positions) {
            #[expect(clippy::cast_possible_truncation, reason = "a small constant of the architecture")]
            let rows: Vec<u32> = batch.positions().iter().map(|position| position + offset as u32).collect();
            x = ops::add_rows(&x, table, &rows)?;
        }
        if let Some(types) = &self.token_types {
            x = ops::add_rows(&x, types, &vec![0; ids.len()])?;
        }
        self.embedding_norm.apply(&x)
    }

    /// Angles of every token; frequencies may depend on the length of the token's sequence.
    fn angles(&self, batch: &Batch) -> Vec<Arc<Angles>> {
        let tables = self.spec.rotary.iter().map(|rotary| {
            let mut angles = Angles { pairs: rotary.dim / 2, cos: Vec::new(), sin: Vec::new() };
            for rows in batch.sequences() {
                let (frequencies, magnitude) = rotary.frequencies(rows.position + rows.len);
                #[expect(clippy::cast_possible_truncation, reason = "positions are checked against the context")]
                let positions: Vec<u32> = (rows.position..rows.position + rows.len).map(|p| p as u32).collect();
                let of_sequence = Angles::new(&positions, &frequencies, magnitude);
                angles.cos.extend(of_sequence.cos);
                angles.sin.extend(of_sequence.sin);
            }
            Arc::new(angles)
        });
        tables.collect()
    }

    fn check_cache(&self, batch: &Batch, cache: Option<&KvCache>) -> Result<(), Error> {
        if cache.is_some() && self.spec.looks_ahead() {
            return Err(Error::Encoder { family: self.spec.family.clone() });
        }
        let mut continued = HashSet::new();
        for (rows, slot) in batch.sequences().iter().zip(batch.slots()) {
            let cached = cache.map_or(0, |cache| if *slot < cache.slots() { cache.len(*slot) } else { usize::MAX });
            if cached != rows.position {
                return Err(Error::CacheMismatch { slot: *slot, cached, position: rows.position });
            }
            if cache.is_some() && !continued.insert(*slot) {
                return Err(Error::SlotTwice { slot: *slot });
            }
        }
        Ok(())
    }
}

impl Pass<'_> {
    fn see(&mut self, site: Site, value: &Tensor) -> Result<(), Error> {
        if self.tap.wants(site) { self.tap.tensor(site, value) } else { Ok(()) }
    }
}

impl FeedForward {
    fn apply(&self, x: &Tensor, l: usize, pass: &mut Pass<'_>) -> Result<Tensor, Error> {
        pass.see(Site::MlpIn(l), x)?;
        match self {
            Self::Dense(mlp) => {
                pass.tap.begins(Phase::FeedForward);
                let inner = mlp.inner(x, pass.draw)?;
                pass.see(Site::MlpPost(l), &inner)?;
                mlp.down.apply(&inner, pass.draw)
            }
            Self::Experts(experts) => {
                pass.tap.begins(Phase::Experts);
                experts.apply(x, l, pass)
            }
        }
    }
}

impl Mlp {
    /// Of an expert, which has no factors beside it: nothing is drawn.
    fn apply(&self, x: &Tensor) -> Result<Tensor, Error> {
        self.down.apply(&self.inner(x, None)?, None)
    }

    /// The values between the two projections.
    fn inner(&self, x: &Tensor, draw: Option<u64>) -> Result<Tensor, Error> {
        Ok(match &self.gate {
            Some(gate) => Linear::apply_gated(gate, &self.up, x, self.spec.activation, draw)?,
            None => Linear::apply_activated(&self.up, x, self.spec.activation, draw)?,
        })
    }
}

impl Norm {
    /// Whether it is nothing but [`ops::norm`] of a factor that is there.
    fn is_one_operation(&self) -> bool {
        let is_there = match &self.factor {
            Factor::Whole(factor) => factor.elem_count() == self.width,
            Factor::Trained { parts, offset } => {
                *offset == 0.0 && matches!(&parts[..], [only] if only.elem_count() == self.width)
            }
        };
        is_there && self.bias.is_none()
    }

    fn apply(&self, x: &Tensor) -> Result<Tensor, Error> {
        let factor = self.factor.now()?;
        if factor.elem_count() == self.width {
            return Ok(ops::norm(x, &factor, self.bias.as_ref(), self.kind, self.eps, self.width)?);
        }
        let ones = Tensor::ones(self.width, x.dtype(), x.device())?;
        Ok(ops::norm(x, &ones, None, self.kind, self.eps, self.width)?.broadcast_mul(&factor)?)
    }
}

impl Factor {
    fn now(&self) -> Result<Tensor, Error> {
        Ok(match self {
            Self::Whole(factor) => factor.clone(),
            Self::Trained { parts, offset } => {
                let stored = if let [only] = &parts[..] { only.clone() } else { Tensor::cat(parts, 0)? };
                if *offset == 0.0 { stored } else { (stored + f64::from(*offset))? }
            }
        })
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
