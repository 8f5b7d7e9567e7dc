//! `lathe trace`: runs tokens and saves what happened inside, as safetensors.
//!
//! Names and shapes are those of transformers: `input_ids` [T], `logits` [T, V], `hidden_states.{i}` [T, H] with the
//! embedding at 0 and the state after the final norm at L, `attentions.{l}` [heads, T, T]; and of
//! the j-th expert layer `router_logits.{j}`, `router_probabilities.{j}` and `router_weights.{j}` [T, E]. Tensors are
//! written while the model runs; one layer's attention is the most that waits in memory.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use candle_core::Tensor;
use lathe_formats::ElementType;
use lathe_formats::write::{TensorSpec, TensorWriter, safetensors};
use lathe_model::reference::ModelReference;
use lathe_model::{Batch, DecoderSpec, Error as ModelError, Pattern, Site, Tap};
use lathe_tokenizer::{BosEos, Markup};
use serde::{Deserialize, Serialize};

use crate::{Context, Error, load};

/// What to run and what to keep.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceSpec {
    /// The model.
    pub model: ModelReference,
    /// Its input.
    pub input: TokenInput,
    /// Which tensors to save.
    pub take: Vec<TraceSite>,
    /// Indices of hidden states and layers of attention to save; none saves all.
    pub layers: Option<Vec<usize>>,
    /// Which rows to save.
    pub rows: Rows,
    /// The file to write.
    pub out: PathBuf,
}

/// Input of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenInput {
    /// Token ids, taken as they are.
    Ids(Vec<u32>),
    /// Text, tokenised with the start tokens that the tokenizer adds.
    Text(String),
}

/// A kind of tensor to save.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TraceSite {
    /// Logits of every position.
    Logits,
    /// Residual stream before every layer, and the state after the final norm.
    HiddenStates,
    /// Attention probabilities of every layer and head.
    Attentions,
    /// Router logits of every expert layer.
    RouterLogits,
    /// Their softmax over all experts.
    RouterProbabilities,
    /// What each expert's output is multiplied by: 0 for the experts that are not used.
    RouterWeights,
}

impl TraceSite {
    /// What the routers of expert layers say, in the order of the forward pass.
    const ROUTER: [Self; 3] = [Self::RouterLogits, Self::RouterProbabilities, Self::RouterWeights];

    /// First part of the names of its tensors.
    fn name(self) -> &'static str {
        match self {
            Self::Logits => "logits",
            Self::HiddenStates => "hidden_states",
            Self::Attentions => "attentions",
            Self::RouterLogits => "router_logits",
            Self::RouterProbabilities => "router_probabilities",
            Self::RouterWeights => "router_weights",
        }
    }
}

/// Which positions to save.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rows {
    /// Every position.
    All,
    /// The last position only: T is 1, and attention has one query row.
    Last,
}

/// What was saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TraceResult {
    /// The file.
    pub out: PathBuf,
    /// Tokens that were run.
    pub tokens: usize,
    /// Name and shape of every tensor, in the order of the file.
    pub tensors: Vec<(String, Vec<usize>)>,
}

/// Runs a trace.
///
/// # Errors
/// The model cannot be loaded, the input does not fit it, a layer does not exist, or the file cannot be written.
pub fn trace(spec: &TraceSpec, context: &Context<'_>) -> Result<TraceResult, Error> {
    let loaded = load(&spec.model, context)?;
    let decoder = &loaded.decoder;
    let ids = match &spec.input {
        TokenInput::Ids(ids) => ids.clone(),
        TokenInput::Text(text) => loaded.tokenizer()?.encode(text, BosEos::Add, Markup::Text)?,
    };
    let plan = Plan::new(spec, decoder.spec(), ids.len())?;
    // Nothing is written when the model refuses the input.
    if ids.is_empty() {
        return Err(ModelError::NoTokens.into());
    }
    let mut writer = safetensors(&spec.out, &BTreeMap::new(), &plan.tensors)?;
    let id_bytes: Vec<u8> = ids.iter().flat_map(|id| i64::from(*id).to_le_bytes()).collect();
    writer.append("input_ids", &id_bytes)?;

    let mut tap = Saver { plan: &plan, writer, patterns: Vec::new(), error: None };
    tap.make_room(0);
    let run = context.stage(&format!("running {} tokens", ids.len()), 0, "", || {
        decoder.forward(&Batch::single(&ids), None, &mut tap)
    });
    if let Some(error) = tap.error {
        return Err(error);
    }
    let hidden = run?;
    let mut writer = tap.writer;
    if plan.takes(TraceSite::Logits) {
        let hidden = hidden.narrow(0, plan.first_row, plan.tokens - plan.first_row)?;
        save_logits(decoder, &hidden, &mut writer)?;
    }
    writer.finish()?;
    let tensors = plan.tensors.iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect();
    Ok(TraceResult { out: spec.out.clone(), tokens: ids.len(), tensors })
}

/// Logits of a few rows at a time.
fn save_logits(decoder: &lathe_model::Decoder, hidden: &Tensor, writer: &mut TensorWriter) -> Result<(), Error> {
    const ROWS: usize = 64;
    let rows = hidden.dim(0)?;
    for first in (0..rows).step_by(ROWS) {
        let logits = decoder.logits(&hidden.narrow(0, first, ROWS.min(rows - first))?)?;
        writer.append_f32("logits", &logits.flatten_all()?.to_vec1::<f32>()?)?;
    }
    Ok(())
}

/// Which tensors a run saves, in the order in which the forward pass shows them.
struct Plan {
    take: Vec<TraceSite>,
    layers: Option<Vec<usize>>,
    tensors: Vec<TensorSpec>,
    tokens: usize,
    /// First saved position.
    first_row: usize,
    /// Number of decoder layers.
    last: usize,
    heads: Vec<usize>,
    /// Which expert layer a decoder layer is.
    routers: BTreeMap<usize, usize>,
}

impl Plan {
    fn new(spec: &TraceSpec, decoder: &DecoderSpec, tokens: usize) -> Result<Self, Error> {
        let last = decoder.layers.len();
        if let Some(layer) = spec.layers.iter().flatten().find(|layer| **layer > last) {
            return Err(Error::Spec {
                field: "--layers",
                problem: format!("there is no layer {layer}"),
                hint: Some(format!(
                    "the model has layers 0 to {}, and hidden state {last} after the final norm",
                    last - 1
                )),
            });
        }
        let experts: Vec<Option<usize>> =
            (decoder.layers.iter()).map(|layer| layer.feed_forward.experts().map(|experts| experts.count)).collect();
        let router = spec.take.iter().find(|site| TraceSite::ROUTER.contains(site));
        if let Some(site) = router.filter(|_| experts.iter().all(Option::is_none)) {
            return Err(Error::Spec {
                field: "--take",
                problem: format!("`{}` of a model without expert layers ({})", site.name(), decoder.family),
                hint: Some("take logits, hidden_states or attentions".into()),
            });
        }
        if spec.take.contains(&TraceSite::Logits) && !decoder.has_head() {
            return Err(Error::Spec {
                field: "--take",
                problem: format!("`logits` of an encoder, which has no language-model head ({})", decoder.family),
                hint: Some("take hidden_states or attentions".into()),
            });
        }
        let first_row = match spec.rows {
            Rows::All => 0,
            Rows::Last => tokens.saturating_sub(1),
        };
        let heads = decoder.layers.iter().map(|layer| layer.attention.heads).collect();
        let mut plan = Self {
            take: spec.take.clone(),
            layers: spec.layers.clone(),
            tensors: Vec::new(),
            tokens,
            first_row,
            last,
            heads,
            routers: BTreeMap::new(),
        };
        let rows = tokens - first_row;
        let mut tensors = vec![("input_ids".to_owned(), vec![tokens], ElementType::I64)];
        for layer in 0..=last {
            if plan.saves(TraceSite::HiddenStates, layer) {
                // OPT 350M projects its last state to the width of its embedding.
                let projected = decoder.embedding.projected_from.filter(|_| layer == last);
                let width = projected.unwrap_or(decoder.hidden_size);
                tensors.push((format!("hidden_states.{layer}"), vec![rows, width], ElementType::F32));
            }
            if layer < last && plan.saves(TraceSite::Attentions, layer) {
                tensors.push((format!("attentions.{layer}"), vec![plan.heads[layer], rows, tokens], ElementType::F32));
            }
            if let Some(count) = experts.get(layer).copied().flatten() {
                let index = experts[..layer].iter().flatten().count();
                plan.routers.insert(layer, index);
                for site in TraceSite::ROUTER.into_iter().filter(|site| plan.saves(*site, layer)) {
                    tensors.push((format!("{}.{index}", site.name()), vec![rows, count], ElementType::F32));
                }
            }
        }
        if plan.takes(TraceSite::Logits) {
            tensors.push(("logits".to_owned(), vec![rows, decoder.vocab_size], ElementType::F32));
        }
        plan.tensors = tensors.into_iter().map(|(name, shape, element)| TensorSpec { name, shape, element }).collect();
        Ok(plan)
    }

    fn takes(&self, site: TraceSite) -> bool {
        self.take.contains(&site)
    }

    fn saves(&self, site: TraceSite, layer: usize) -> bool {
        self.takes(site) && self.layers.as_ref().is_none_or(|layers| layers.contains(&layer))
    }
}

struct Saver<'a> {
    plan: &'a Plan,
    writer: TensorWriter,
    /// Rows of each head of the layer that is running.
    patterns: Vec<Mutex<Vec<f32>>>,
    error: Option<Error>,
}

impl Saver<'_> {
    /// Room for the attention of `layer`.
    fn make_room(&mut self, layer: usize) {
        if layer < self.plan.last && self.plan.saves(TraceSite::Attentions, layer) {
            let size = (self.plan.tokens - self.plan.first_row) * self.plan.tokens;
            self.patterns = (0..self.plan.heads[layer]).map(|_| Mutex::new(vec![0.0; size])).collect();
        }
    }

    fn save_patterns(&mut self, layer: usize) -> Result<(), Error> {
        for head in std::mem::take(&mut self.patterns) {
            let head = head.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
            self.writer.append_f32(&format!("attentions.{layer}"), &head)?;
        }
        Ok(())
    }

    fn save(&mut self, site: Site, value: &Tensor) -> Result<(), Error> {
        let rows = self.plan.tokens - self.plan.first_row;
        let rows_of = |name: String, writer: &mut TensorWriter| {
            let values = value.narrow(0, self.plan.first_row, rows)?.flatten_all()?.to_vec1::<f32>()?;
            writer.append_f32(&name, &values).map_err(Error::from)
        };
        let hidden = |writer: &mut TensorWriter, layer| rows_of(format!("hidden_states.{layer}"), writer);
        if let Some((kind, layer)) = router(site) {
            // The layer's attention is complete, and comes first in the file.
            self.save_patterns(layer)?;
            let index = self.plan.routers.get(&layer).copied().unwrap_or(layer);
            return rows_of(format!("{}.{index}", kind.name()), &mut self.writer);
        }
        match site {
            Site::ResidualPre(layer) if self.plan.saves(TraceSite::HiddenStates, layer) => {
                hidden(&mut self.writer, layer)
            }
            Site::FinalNorm => hidden(&mut self.writer, self.plan.last),
            Site::ResidualPost(layer) => {
                self.save_patterns(layer)?;
                self.make_room(layer + 1);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// What a router site saves, and of which layer.
fn router(site: Site) -> Option<(TraceSite, usize)> {
    match site {
        Site::RouterLogits(layer) => Some((TraceSite::RouterLogits, layer)),
        Site::RouterProbabilities(layer) => Some((TraceSite::RouterProbabilities, layer)),
        Site::RouterWeights(layer) => Some((TraceSite::RouterWeights, layer)),
        _ => None,
    }
}

impl Tap for Saver<'_> {
    fn wants(&self, site: Site) -> bool {
        match site {
            Site::ResidualPre(layer) => self.plan.saves(TraceSite::HiddenStates, layer),
            Site::FinalNorm => self.plan.saves(TraceSite::HiddenStates, self.plan.last),
            Site::Pattern(layer) => self.plan.saves(TraceSite::Attentions, layer),
            Site::ResidualPost(_) => true,
            Site::MlpIn(_) | Site::MlpPost(_) => false,
            Site::RouterLogits(_) | Site::RouterProbabilities(_) | Site::RouterWeights(_) => {
                router(site).is_some_and(|(kind, layer)| self.plan.saves(kind, layer))
            }
        }
    }

    fn tensor(&mut self, site: Site, value: &Tensor) -> Result<(), ModelError> {
        if self.error.is_none()
            && let Err(error) = self.save(site, value)
        {
            self.error = Some(error);
        }
        Ok(())
    }

    fn pattern(&self, _: usize, pattern: &Pattern<'_>) {
        let Some(head) = self.patterns.get(pattern.head) else { return };
        let mut head = head.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (query, row) in (pattern.first_query..).zip(pattern.probabilities.chunks_exact(pattern.keys)) {
            if let Some(saved) = query.checked_sub(self.plan.first_row) {
                head[saved * self.plan.tokens + pattern.first_key..][..pattern.keys].copy_from_slice(row);
            }
        }
    }
}
