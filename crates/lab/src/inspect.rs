//! `lathe inspect`: what is in a model's files. Only headers are read, unless the model is to be run.

use std::path::PathBuf;

use lathe_formats::ElementType;
use lathe_model::reference::ModelReference;
use lathe_model::spec::Part;
use lathe_model::{Batch, KvCache, NoTap, SentenceSpec};
use lathe_tokenizer::TokenizerKind;
use serde::{Deserialize, Serialize};

use crate::bench::arbitrary_ids;
use crate::load::licence;
use crate::{Context, Error, load, open_model};

/// What to look at.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InspectSpec {
    /// The model.
    pub model: ModelReference,
    /// How deep to look.
    pub depth: Depth,
}

/// How deep to look into a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Depth {
    /// Headers only.
    Headers,
    /// Load the weights and read a prompt.
    Run,
}

/// What a model is.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// The reference as given.
    pub reference: String,
    /// File or folder.
    pub path: PathBuf,
    /// `gguf` or `safetensors`.
    pub format: &'static str,
    /// Licence, as far as it is known.
    pub licence: Option<String>,
    /// Architecture.
    pub family: String,
    /// Parameters; a tied head is counted once.
    pub parameters: u64,
    /// Parameters by part.
    pub parts: Vec<PartCount>,
    /// Decoder layers.
    pub layers: usize,
    /// Width of the hidden state.
    pub hidden_size: usize,
    /// Query heads of the first layer.
    pub heads: usize,
    /// Key and value heads of the first layer.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Width of the first layer's feed-forward part; of one expert where it has several.
    pub feed_forward_width: usize,
    /// Experts of the layers that have any, and how many a token uses.
    pub experts: Option<ExpertCount>,
    /// Sliding window of each layer; null sees everything.
    pub windows: Vec<Option<usize>>,
    /// Base of the rotary frequencies, per table.
    pub rotary_bases: Vec<f64>,
    /// Positions that the model was made for.
    pub context: usize,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Whether the head shares the embedding.
    pub tied_head: bool,
    /// Whether there is no head at all: it encodes texts and predicts no token.
    pub encoder: bool,
    /// What becomes of the hidden states of a text, where a folder of sentence-transformers says it.
    pub sentence: Option<SentenceSpec>,
    /// Bytes of the files.
    pub file_bytes: u64,
    /// Element types of the tensors, the most bytes first.
    pub element_types: Vec<ElementCount>,
    /// The tokenizer.
    pub tokenizer: Option<TokenizerSummary>,
    /// Source of the default chat template.
    pub chat_template: Option<String>,
    /// Every tensor of the files.
    pub tensors: Vec<TensorRow>,
    /// What loading and running took, where it was asked for.
    pub load: Option<LoadSummary>,
}

/// What loading a model and reading a prompt took.
#[derive(Clone, Debug, Serialize)]
pub struct LoadSummary {
    /// From opening the files to being ready, seconds.
    pub load_seconds: f64,
    /// Bytes of the weights as they are held; what is read from the file as it is needed is not counted.
    pub weight_bytes: u64,
    /// Bytes of keys and values for each position of a text; 0 of an encoder, which keeps none.
    pub cache_bytes_per_token: u64,
    /// Largest resident memory of the process once the model was loaded, mapped pages of the file included.
    pub peak_memory_loaded: Option<u64>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Seconds of the prompt, logits of every position included where there is a head.
    pub prompt_seconds: f64,
    /// Largest resident memory of the process after the prompt.
    pub peak_memory: Option<u64>,
}

/// Parameters of one part.
#[derive(Clone, Debug, Serialize)]
pub struct PartCount {
    /// Which part.
    pub part: Part,
    /// Parameters in it.
    pub parameters: u64,
}

/// Layers whose feed-forward part is several experts.
#[derive(Clone, Debug, Serialize)]
pub struct ExpertCount {
    /// Layers with experts.
    pub layers: usize,
    /// Routed experts of a layer.
    pub experts: usize,
    /// Experts that a token uses.
    pub per_token: usize,
    /// Whether one more expert sees every token.
    pub shared: bool,
}

/// Tensors of one element type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElementCount {
    /// Such as `Q4_K`.
    pub element: String,
    /// Tensors.
    pub tensors: usize,
    /// Bytes in the file.
    pub bytes: u64,
}

impl ElementCount {
    /// Counts tensors, given by type and bytes; the type with the most bytes first.
    pub(crate) fn of(tensors: impl Iterator<Item = (ElementType, u64)>) -> Vec<Self> {
        let mut counts: Vec<Self> = Vec::new();
        for (element, bytes) in tensors {
            let element = element.to_string();
            match counts.iter_mut().find(|count| count.element == element) {
                Some(count) => (count.tensors, count.bytes) = (count.tensors + 1, count.bytes + bytes),
                None => counts.push(Self { element, tensors: 1, bytes }),
            }
        }
        counts.sort_by_key(|count| std::cmp::Reverse(count.bytes));
        counts
    }
}

/// What a tokenizer is.
#[derive(Clone, Debug, Serialize)]
pub struct TokenizerSummary {
    /// Kind, pre-tokenizer, what it adds.
    #[serde(flatten)]
    pub kind: TokenizerKind,
    /// Entries; the embedding may have more rows.
    pub entries: usize,
    /// Role, id and name of each special token.
    pub special: Vec<SpecialToken>,
}

/// A token with a meaning for the model.
#[derive(Clone, Debug, Serialize)]
pub struct SpecialToken {
    /// `bos`, `eos`, `pad` or `unk`.
    pub role: &'static str,
    /// Its id.
    pub id: u32,
    /// Its name in the vocabulary.
    pub token: Option<String>,
}

/// One tensor of the files.
#[derive(Clone, Debug, Serialize)]
pub struct TensorRow {
    /// Name in the file.
    pub name: String,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Element type.
    pub element: String,
    /// Bytes in the file.
    pub bytes: u64,
}

/// Inspects a model.
///
/// # Errors
/// The reference leads nowhere, or the files cannot be used.
pub fn inspect(spec: &InspectSpec, context: &Context<'_>) -> Result<Inspection, Error> {
    let load = match spec.depth {
        Depth::Headers => None,
        Depth::Run => Some(run(&spec.model, context)?),
    };
    Ok(Inspection { load, ..headers(spec, context)? })
}

/// Tokens of the prompt that tells how much memory a model works in.
const PROMPT: usize = 512;

/// Loads the weights and scores a prompt of arbitrary tokens.
fn run(model: &ModelReference, context: &Context<'_>) -> Result<LoadSummary, Error> {
    let loaded = load(model, context)?;
    let peak_memory_loaded = (context.peak_memory)();
    let spec = loaded.decoder.spec();
    let tokens = PROMPT.min(spec.context_length);
    let ids = arbitrary_ids(tokens, spec.vocab_size);
    let (scored, prompt_seconds) = context.timed(|| {
        context.stage(&format!("running {tokens} tokens"), 0, "", || {
            let hidden = loaded.decoder.forward(&Batch::single(&ids), None, &mut NoTap)?;
            if spec.has_head() { loaded.decoder.score(&hidden, &ids).map(drop) } else { Ok(()) }
        })
    });
    scored?;
    Ok(LoadSummary {
        load_seconds: loaded.seconds,
        weight_bytes: loaded.decoder.weight_bytes() as u64,
        cache_bytes_per_token: if spec.looks_ahead() { 0 } else { KvCache::bytes_per_position(spec) as u64 },
        peak_memory_loaded,
        prompt_tokens: tokens,
        prompt_seconds,
        peak_memory: (context.peak_memory)(),
    })
}

fn headers(spec: &InspectSpec, context: &Context<'_>) -> Result<Inspection, Error> {
    let (resolved, opened) = open_model(&spec.model, context)?;
    let decoder = &opened.spec;
    let parts = decoder.parameters_by_part();
    let tokenizer = if opened.has_tokenizer() { Some(opened.tokenizer()?) } else { None };
    let tokenizer = tokenizer.map(|tokenizer| {
        let special = tokenizer.special();
        let roles = [("bos", special.bos), ("pad", special.pad), ("unk", special.unk)];
        let roles = roles.into_iter().filter_map(|(role, id)| id.map(|id| (role, id)));
        let roles = roles.chain(special.eos.iter().map(|id| ("eos", *id)));
        TokenizerSummary {
            kind: tokenizer.kind().clone(),
            entries: tokenizer.vocab_size(),
            special: roles
                .map(|(role, id)| SpecialToken { role, id, token: tokenizer.token_str(id).map(str::to_owned) })
                .collect(),
        }
    });
    let checkpoint = &opened.checkpoint;
    let first = &decoder.layers[0];
    let expert_layers = decoder.layers.iter().filter_map(|layer| layer.feed_forward.experts());
    Ok(Inspection {
        reference: spec.model.to_string(),
        licence: licence(&resolved, &opened),
        path: resolved.path,
        format: if checkpoint.gguf().is_some() { "gguf" } else { "safetensors" },
        family: decoder.family.clone(),
        parameters: parts.iter().map(|(_, parameters)| parameters).sum(),
        parts: parts.into_iter().map(|(part, parameters)| PartCount { part, parameters }).collect(),
        layers: decoder.layers.len(),
        hidden_size: decoder.hidden_size,
        heads: first.attention.heads,
        kv_heads: first.attention.kv_heads,
        head_dim: first.attention.head_dim,
        feed_forward_width: first.feed_forward.width(),
        experts: expert_layers.clone().next().map(|experts| ExpertCount {
            layers: expert_layers.count(),
            experts: experts.count,
            per_token: experts.top_k,
            shared: experts.shared.is_some(),
        }),
        windows: decoder.layers.iter().map(|layer| layer.attention.window).collect(),
        rotary_bases: decoder.rotary.iter().map(|rotary| rotary.base).collect(),
        context: decoder.context_length,
        vocab_size: decoder.vocab_size,
        tied_head: decoder.head.weight == lathe_model::spec::HeadWeight::Tied,
        encoder: !decoder.has_head(),
        sentence: opened.sentence().cloned(),
        file_bytes: checkpoint.files().iter().map(|file| file.bytes().len() as u64).sum(),
        element_types: opened
            .element_types()
            .into_iter()
            .map(|(element, tensors, bytes)| ElementCount {
                element: element.to_string(),
                tensors,
                bytes: bytes as u64,
            })
            .collect(),
        tokenizer,
        chat_template: opened.chat_template()?.map(|template| template.source().to_owned()),
        tensors: checkpoint
            .tensors()
            .iter()
            .map(|info| TensorRow {
                name: info.name.clone(),
                shape: info.shape.clone(),
                element: info.element.to_string(),
                bytes: info.bytes() as u64,
            })
            .collect(),
        load: None,
    })
}
