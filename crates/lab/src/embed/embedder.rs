//! A loaded model and what it says of texts: prompts to tokens, tokens to packed batches, batches to pooled vectors.

use std::ops::Range;

use lathe_measure::embedding::{BandFilter, Vectors};
use lathe_model::reference::ModelReference;
use lathe_model::{Batch, Normalise};
use lathe_tokenizer::{BosEos, Markup, Tokenizer};
use rayon::prelude::*;

use super::capture::{Capture, RouterPlace, Taken};
use super::features::{FeatureSpec, HiddenLayers, Pooling, RouterLayers};
use super::filter::band_filter;
use super::kinds::Length;
use super::prompt::{Pooled, Prompt, Wording};
use crate::{Compute, Context, Error, Loaded, load};

/// Tokens of one forward pass; a longer text has a pass of its own.
const BATCH_TOKENS: usize = 2048;

/// A loaded model and what it can give.
pub(crate) struct Embedder {
    pub(crate) loaded: Loaded,
}

/// What a model says of some texts, in their order.
pub(crate) struct Features {
    /// `[texts, width]`.
    pub(crate) hidden: Vectors,
    /// `[texts, router width]`; none of a model without experts.
    pub(crate) router: Option<Vectors>,
    /// Tokens that were read.
    pub(crate) tokens: u64,
    /// Texts that were cut.
    pub(crate) truncated: usize,
}

/// What a model says of one text.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct OfText {
    pub(super) hidden: Vec<f32>,
    pub(super) router: Vec<f32>,
    /// Tokens of all of its prompts.
    pub(super) tokens: u64,
    pub(super) truncated: bool,
}

impl Embedder {
    /// Loads a model.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(crate) fn open(model: &ModelReference, compute: Compute, context: &Context<'_>) -> Result<Self, Error> {
        Ok(Self { loaded: load(model, &compute.within(context)?)? })
    }

    /// Whether it has layers of experts.
    pub(crate) fn has_router(&self) -> bool {
        self.loaded.decoder.spec().layers.iter().any(|layer| layer.feed_forward.experts().is_some())
    }

    /// The architecture: `model_type`.
    pub(crate) fn family(&self) -> &str {
        &self.loaded.decoder.spec().family
    }

    /// The same with what the model decides filled in: prompt and pooling.
    pub(crate) fn resolved(&self, spec: &FeatureSpec) -> FeatureSpec {
        let mut spec = spec.clone();
        let encodes = self.loaded.decoder.spec().looks_ahead();
        let sentence = self.loaded.opened.sentence();
        if spec.prompt == Prompt::Usual {
            spec.prompt = if encodes || sentence.is_some() { Prompt::Plain } else { Prompt::Prompteol };
        }
        if spec.hidden.pooling == Pooling::Usual {
            spec.hidden.pooling = match sentence {
                Some(sentence) => of_folder(sentence.pooling),
                None if encodes || spec.prompt == Prompt::Echo => Pooling::Mean,
                None => Pooling::Last,
            };
        }
        spec
    }

    /// The length of vectors, with what the model decides filled in.
    pub(crate) fn length(&self, length: Length) -> Length {
        let of_folder = self.loaded.opened.sentence().map(|sentence| sentence.normalise);
        match (length, of_folder) {
            (Length::Usual, Some(Normalise::UnitLength)) => Length::One,
            (Length::Usual, _) => Length::AsItIs,
            (asked, _) => asked,
        }
    }

    /// Reads texts.
    ///
    /// # Errors
    /// The spec does not fit the model; a prompt does not fit into its context; a vector is not finite.
    pub(crate) fn features(
        &self,
        texts: &[String],
        spec: &FeatureSpec,
        context: &Context<'_>,
    ) -> Result<Features, Error> {
        let reader = self.reader(spec, context)?;
        let mut found: Vec<Option<OfText>> = vec![None; texts.len()];
        let all: Vec<usize> = (0..texts.len()).collect();
        reader.read(texts, &all, context, &mut |index, of| {
            found[index] = Some(of);
            Ok(())
        })?;
        let found: Vec<OfText> = found.into_iter().flatten().collect();
        reader.features(found.iter())
    }

    /// What reads texts as a spec says.
    pub(super) fn reader(&self, spec: &FeatureSpec, context: &Context<'_>) -> Result<Reader<'_>, Error> {
        let spec = self.resolved(spec);
        let wording = spec.prompt.wording(&spec.instruction)?;
        let context_length = self.loaded.decoder.spec().context_length;
        let of_folder = self.loaded.opened.sentence().and_then(|sentence| sentence.max_tokens);
        let most = of_folder.map_or(context_length, |tokens| tokens.min(context_length));
        let limit = match spec.max_tokens {
            Some(0) => {
                let hint = Some("leave it out to read as much as the model can".into());
                return Err(Error::Spec { field: "--max-tokens", problem: "no text has 0 tokens".into(), hint });
            }
            Some(tokens) => tokens.min(most),
            None => most,
        };
        let taken = self.taken(&spec)?;
        let filter = match spec.hidden.filter {
            Some(tau) => Some(band_filter(&self.loaded, &taken, tau, context)?),
            None => None,
        };
        Ok(Reader { loaded: &self.loaded, spec, wording, taken, limit, filter })
    }

    /// Which numbers of a forward pass a spec asks for.
    fn taken(&self, spec: &FeatureSpec) -> Result<Taken, Error> {
        let decoder = self.loaded.decoder.spec();
        let last = decoder.layers.len();
        let mut layers = match &spec.hidden.layers {
            HiddenLayers::Last => vec![last],
            HiddenLayers::Mean(layers) => layers.clone(),
        };
        layers.sort_unstable();
        layers.dedup();
        let no_layer =
            |field: &'static str, problem: String, hint: String| Err(Error::Spec { field, problem, hint: Some(hint) });
        let all = format!("hidden states are numbered 0 (the embedding) to {last} (after the final norm)");
        if layers.is_empty() {
            return no_layer("--layer", "no layer is named".into(), all);
        }
        if let Some(layer) = layers.iter().find(|layer| **layer > last) {
            return no_layer("--layer", format!("there is no hidden state {layer}"), all);
        }
        // OPT 350M projects its last state to the width of its embedding.
        let width_of =
            |layer: usize| decoder.embedding.projected_from.filter(|_| layer == last).unwrap_or(decoder.hidden_size);
        let width = width_of(layers[0]);
        if layers.iter().any(|layer| width_of(*layer) != width) {
            return no_layer("--layer", "these layers have different widths".into(), format!("take {last} alone"));
        }
        let experts: Vec<Option<usize>> =
            decoder.layers.iter().map(|layer| layer.feed_forward.experts().map(|experts| experts.count)).collect();
        let chosen: Vec<usize> = match &spec.router.layers {
            RouterLayers::All => (0..last).filter(|layer| experts[*layer].is_some()).collect(),
            RouterLayers::These(layers) => {
                let mut layers = layers.clone();
                layers.sort_unstable();
                layers.dedup();
                layers
            }
        };
        let mut routers: Vec<RouterPlace> = Vec::new();
        for layer in chosen {
            let Some(experts) = experts.get(layer).copied().flatten() else {
                let with = (0..last).filter(|layer| experts[*layer].is_some()).map(|layer| layer.to_string());
                let with = with.collect::<Vec<_>>().join(", ");
                let hint = match with.as_str() {
                    "" => format!("no layer of {} has experts ({})", self.loaded.reference, decoder.family),
                    _ => format!("layers with experts: {with}"),
                };
                return no_layer("--router-layers", format!("layer {layer} has no router"), hint);
            };
            let first = routers.last().map_or(0, |place| place.first + place.experts);
            routers.push(RouterPlace { layer, first, experts });
        }
        let (pooling, source, router_pooling) = (spec.hidden.pooling, spec.router.source, spec.router.pooling);
        Ok(Taken { layers, last, width, pooling, source, router_pooling, routers })
    }
}

/// Reads texts as one spec says.
pub(super) struct Reader<'a> {
    loaded: &'a Loaded,
    /// With everything filled in that the model decides.
    pub(super) spec: FeatureSpec,
    pub(super) wording: Wording,
    pub(super) taken: Taken,
    /// Tokens of a prompt at most.
    pub(super) limit: usize,
    filter: Option<BandFilter>,
}

/// Tokens of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Encoded {
    pub(super) ids: Vec<u32>,
    /// Those that are pooled over.
    pub(super) span: Range<usize>,
    /// Whether a part of the text is missing.
    pub(super) cut: bool,
}

/// A text's number, its tokens, and its prompts.
type ToRead = (usize, usize, Vec<Encoded>);

impl Reader<'_> {
    /// Reads those of the texts that are named, and hands over each as its batch is done: long texts first. What a text
    /// gives depends on nothing but the text.
    pub(super) fn read(
        &self,
        texts: &[String],
        which: &[usize],
        context: &Context<'_>,
        on: &mut dyn FnMut(usize, OfText) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let encoded = context.stage("tokenising", 0, "", || {
            which
                .par_iter()
                .map(|index| Ok((*index, self.encode(&texts[*index], *index)?)))
                .collect::<Result<Vec<(usize, Vec<Encoded>)>, Error>>()
        })?;
        let length = |of: &[Encoded]| of.iter().map(|prompt| prompt.ids.len()).sum::<usize>();
        let mut encoded: Vec<ToRead> = encoded.into_iter().map(|(index, of)| (index, length(&of), of)).collect();
        encoded.sort_by_key(|(index, length, _)| (std::cmp::Reverse(*length), *index));
        let tokens: usize = encoded.iter().map(|(_, length, _)| length).sum();
        context.stage("embedding", tokens as u64, "tokens", || {
            let mut rest = &encoded[..];
            while !rest.is_empty() {
                let (group, others) = rest.split_at(as_many_as_fit(rest));
                for (index, of) in self.run(group)? {
                    on(index, of)?;
                }
                context.progress.advance(group.iter().map(|(_, length, _)| *length as u64).sum());
                rest = others;
            }
            Ok(())
        })
    }

    /// Vectors of what was read of each text.
    ///
    /// # Errors
    /// A number is not finite.
    pub(super) fn features<'a>(&self, of: impl Iterator<Item = &'a OfText>) -> Result<Features, Error> {
        let (mut hidden, mut router, mut tokens, mut truncated) = (Vec::new(), Vec::new(), 0, 0);
        for of in of {
            hidden.extend_from_slice(&of.hidden);
            router.extend_from_slice(&of.router);
            tokens += of.tokens;
            truncated += usize::from(of.truncated);
        }
        let hidden = Vectors::new(self.taken.width, hidden)?;
        let hidden = match &self.filter {
            Some(filter) => filter.applied(&hidden),
            None => hidden,
        };
        let router = match self.taken.router_width() {
            0 => None,
            width => Some(Vectors::new(width, router)?),
        };
        Ok(Features { hidden, router, tokens, truncated })
    }

    /// One forward pass over whole texts.
    pub(super) fn run(&self, group: &[ToRead]) -> Result<Vec<(usize, OfText)>, Error> {
        let prompts = || group.iter().flat_map(|(_, _, prompts)| prompts);
        let batch = Batch::of(prompts().map(|prompt| &prompt.ids[..]));
        let spans: Vec<Range<usize>> = prompts()
            .zip(batch.sequences())
            .map(|(prompt, rows)| rows.start + prompt.span.start..rows.start + prompt.span.end)
            .collect();
        let mut capture = Capture::new(&self.taken, &spans);
        self.loaded.decoder.forward(&batch, None, &mut capture)?;
        let (mut hidden, mut router) = (&capture.hidden[..], &capture.router[..]);
        let of = group.iter().map(|(index, length, prompts)| {
            let of = OfText {
                hidden: mean_of_first(prompts.len(), self.taken.width, &mut hidden),
                router: mean_of_first(prompts.len(), self.taken.router_width(), &mut router),
                tokens: *length as u64,
                truncated: prompts.iter().any(|prompt| prompt.cut),
            };
            (*index, of)
        });
        Ok(of.collect())
    }

    /// Tokens of every prompt of a text; `index` counts texts from 0.
    pub(super) fn encode(&self, text: &str, index: usize) -> Result<Vec<Encoded>, Error> {
        let tokenizer = self.loaded.tokenizer()?;
        let sentence = self.wording.sentence(text);
        let prompts = self.wording.templates.iter();
        prompts.map(|template| self.encode_prompt(tokenizer, template, &sentence, index)).collect()
    }

    fn encode_prompt(
        &self,
        tokenizer: &Tokenizer,
        template: &str,
        sentence: &str,
        index: usize,
    ) -> Result<Encoded, Error> {
        let refused = |problem: String, hint: &str| Error::Text { number: index + 1, problem, hint: hint.to_owned() };
        let mut kept = sentence;
        loop {
            let rendered = self.wording.render(template, kept);
            // Places of tokens cost more than tokens.
            if self.wording.pooled == Pooled::Whole {
                let ids = tokenizer.encode(&rendered.text, BosEos::Add, Markup::Text)?;
                if ids.is_empty() {
                    return Err(refused("it has no tokens".into(), "an empty text needs a prompt around it"));
                }
                if ids.len() <= self.limit {
                    return Ok(Encoded { span: 0..ids.len(), ids, cut: kept.len() < sentence.len() });
                }
            }
            let tokens = tokenizer.encode_with_offsets(&rendered.text, BosEos::Add, Markup::Text)?;
            let inside = |slot: &Range<usize>| {
                let slot = slot.clone();
                move |bytes: &Range<usize>| bytes.start < slot.end && bytes.end > slot.start
            };
            if tokens.len() <= self.limit {
                let is_second = rendered.slots.last().map(inside);
                let of_copy = |token: &lathe_tokenizer::Token| match (&token.bytes, &is_second) {
                    (Some(bytes), Some(is_second)) => is_second(bytes),
                    _ => false,
                };
                let first = tokens.iter().position(of_copy);
                let end = tokens.iter().rposition(of_copy).map(|last| last + 1);
                let (Some(first), Some(end)) = (first, end) else {
                    return Err(refused("its second copy has no tokens".into(), "echo needs texts that are not empty"));
                };
                let ids = tokens.into_iter().map(|token| token.id).collect();
                return Ok(Encoded { ids, span: first..end, cut: kept.len() < sentence.len() });
            }
            if kept.is_empty() {
                let problem = format!(
                    "its prompt has {} tokens without the text, and {} are read at most",
                    tokens.len(),
                    self.limit
                );
                return Err(refused(problem, "take a shorter prompt or more --max-tokens"));
            }
            let Some(slot) = rendered.slots.first() else { return Err(refused("it has no place".into(), "")) };
            let of_first = inside(slot);
            let ends: Vec<usize> = tokens
                .iter()
                .filter_map(|token| token.bytes.clone())
                .filter(&of_first)
                .map(|bytes| bytes.end)
                .collect();
            let excess = (tokens.len() - self.limit).div_ceil(rendered.slots.len());
            let end = ends.len().checked_sub(excess + 1).map_or(slot.start, |last| ends[last]);
            // At least a character shorter each time.
            let length = end.clamp(slot.start, slot.end) - slot.start;
            kept = &kept[..kept.floor_char_boundary(length.min(kept.len() - 1))];
        }
    }
}

/// The pooling that a folder names.
fn of_folder(pooling: lathe_model::Pooling) -> Pooling {
    match pooling {
        lathe_model::Pooling::First => Pooling::First,
        lathe_model::Pooling::Mean => Pooling::Mean,
        lathe_model::Pooling::Max => Pooling::Max,
        lathe_model::Pooling::MeanSqrtLength => Pooling::MeanSqrtLength,
        lathe_model::Pooling::WeightedMean => Pooling::WeightedMean,
        lathe_model::Pooling::Last => Pooling::Last,
    }
}

/// How many of the texts, which come by length, go into one pass.
fn as_many_as_fit(texts: &[ToRead]) -> usize {
    let mut tokens = 0;
    let fit = texts.iter().take_while(|(_, length, _)| {
        tokens += length;
        tokens <= BATCH_TOKENS
    });
    fit.count().max(1)
}

/// Takes so many vectors from the front; their mean.
fn mean_of_first(count: usize, width: usize, from: &mut &[f64]) -> Vec<f32> {
    let (of, rest) = from.split_at(count * width);
    *from = rest;
    let mut sum = vec![0.0; width];
    for vector in of.chunks_exact(width.max(1)) {
        sum.iter_mut().zip(vector).for_each(|(sum, x)| *sum += x);
    }
    #[expect(clippy::cast_possible_truncation, reason = "vectors are f32")]
    sum.into_iter().map(|sum| (sum / count as f64) as f32).collect()
}
