//! GGUF headers: into the words of `config.json`, and from a specification into a file.
//!
//! llama.cpp's header names sizes, rotary settings and a few constants; the rest is in its code. What an architecture's
//! keys, tensors and constants are is its row in `family/gguf.rs`. This file applies a row in either direction.

mod names;
mod rope;
mod word;

use lathe_formats::{Checkpoint, GgufMetadata, GgufValue};
use serde_json::{Map, Value, json};

use crate::Error;
use crate::config::Config;
use crate::family::{self, FAMILIES, Family, Gguf, TiedHead, Windows};
use crate::spec::{DecoderSpec, FeedForwardSpec, HeadWeight, LayerSpec, MlpSpec};
use crate::target::TargetTensor;

pub(crate) use names::{EMBEDDING, FUSED_GATE_UP, FUSED_QKV, HEAD, NAMES};
pub(crate) use rope::ROTARY_TENSORS;
pub(crate) use word::{Reading, Tensors, Word, flag, real, whole};
use word::{Writing, optional, short};

const WINDOW: &str = "attention.sliding_window";
const WINDOWED_LAYERS: &str = "attention.sliding_window_pattern";
const SCALE: &str = "attention.scale";
const ROTATED_LAYERS: &str = "attention.rope_pattern";
const ACTIVATION: &str = "hidden_activation";
/// A key of lathe's: the head in the file is the embedding once more.
const TIED: &str = "tie_word_embeddings";

/// Translates the header of a checkpoint.
///
/// # Errors
/// The architecture is unknown, a key has a wrong type, or says something that lathe's decoder does not do.
pub(crate) fn config(checkpoint: &Checkpoint, header: &GgufMetadata) -> Result<(Config, &'static Family), Error> {
    let architecture = header.str("general.architecture")?;
    let reading = Reading { header, tensors: checkpoint, architecture, fields: Map::new() };
    let (family, gguf) = row_of(&reading)?;
    Ok((Config::new(header.file(), fields(reading, family, gguf)?), family))
}

/// The header of a file to be written, and the tensors that are no parameters.
pub(crate) struct Header {
    pub(crate) entries: Vec<(String, GgufValue)>,
    pub(crate) constants: Vec<(String, Vec<f32>)>,
    pub(crate) unread: Vec<String>,
}

/// Puts a specification into a header, without the tokenizer. `tensors` are those that will follow it.
///
/// # Errors
/// The header cannot say all of the specification.
pub(crate) fn header(
    config: &Config,
    spec: &DecoderSpec,
    gguf: &'static Gguf,
    tensors: &[TargetTensor],
) -> Result<Header, Error> {
    let mut writing = Writing { config, spec, architecture: gguf.architecture, entries: Vec::new() };
    writing.entries.push(("general.architecture".into(), GgufValue::Str(gguf.architecture.into())));
    if let Some(name) = config.opt_str("_name_or_path")?.filter(|name| !name.is_empty()) {
        writing.entries.push(("general.name".into(), GgufValue::Str(name.into())));
    }
    for word in gguf.words.iter().copied().flatten() {
        writing.word(word)?;
    }
    writing.whole("vocab_size", spec.vocab_size);
    if has_copied_head(spec, gguf) {
        writing.flag(TIED, true);
    }
    put_layers(&mut writing, gguf);
    let constants = rope::write(&mut writing)?;
    let entries = writing.entries;

    // What cannot be read back as the same model is not written.
    let written = Written { tensors, constants: &constants };
    let read = |entries: &[(String, GgufValue)]| -> Result<DecoderSpec, Error> {
        let header = GgufMetadata::from_entries(config.file(), entries.to_vec())?;
        let architecture = gguf.architecture;
        let reading = Reading { header: &header, tensors: &written, architecture, fields: Map::new() };
        let (family, gguf) = row_of(&reading)?;
        (family.translate)(&Config::new(config.file(), fields(reading, family, gguf)?))
    };
    let missing = differences(spec, &read(&entries)?);
    if !missing.is_empty() {
        return Err(Error::NotInGguf { family: spec.family.clone(), missing });
    }
    let mut unread = Vec::new();
    for key in [WINDOW, SCALE, ROTATED_LAYERS, ACTIVATION, "attention.clamp_kqv", "expert_weights_norm"] {
        let full = format!("{}.{key}", gguf.architecture);
        let without: Vec<_> = entries.iter().filter(|(name, _)| !name.starts_with(&full)).cloned().collect();
        if without.len() < entries.len()
            && !gguf.honoured.contains(&key)
            && read(&without).is_ok_and(|other| !differences(spec, &other).is_empty())
        {
            unread.push(full);
        }
    }
    Ok(Header { entries, constants, unread })
}

/// Whether the embedding is in the file a second time, as the head.
pub(crate) fn has_copied_head(spec: &DecoderSpec, gguf: &Gguf) -> bool {
    gguf.tied_head == TiedHead::Copied && spec.head.weight == HeadWeight::Tied
}

/// The tensors of a file that is about to be written.
struct Written<'a> {
    tensors: &'a [TargetTensor],
    constants: &'a [(String, Vec<f32>)],
}

impl Tensors for Written<'_> {
    fn count(&self) -> usize {
        self.tensors.len() + self.constants.len()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.iter().find(|tensor| tensor.name == name).map(|tensor| tensor.shape.clone())
    }

    fn values(&self, name: &str) -> Result<Option<Vec<f32>>, Error> {
        Ok(self.constants.iter().find(|(constant, _)| constant == name).map(|(_, values)| values.clone()))
    }
}

/// The row of the table that a header means: of those with its architecture the last whose mark is there.
fn row_of(reading: &Reading<'_>) -> Result<(&'static Family, &'static Gguf), Error> {
    let rows = || FAMILIES.iter().filter_map(|family| Some((family, family.gguf.as_ref()?)));
    let mut found = None;
    for (family, gguf) in rows().filter(|(_, gguf)| gguf.architecture == reading.architecture) {
        let marked = match gguf.mark {
            Some(mark) => reading.whole(mark)?.is_some_and(|n| n > 0),
            None => true,
        };
        if marked {
            found = Some((family, gguf));
        }
    }
    found.ok_or_else(|| {
        let known = rows().map(|(_, gguf)| gguf.architecture).collect::<std::collections::BTreeSet<_>>();
        family::unknown(reading.header.file(), reading.architecture, known.into_iter())
    })
}

/// All fields of a `config.json` that says the same as the header.
fn fields(mut reading: Reading<'_>, family: &Family, gguf: &Gguf) -> Result<Map<String, Value>, Error> {
    reading.set("model_type", family.model_type);
    reading.set("architectures", json!([family.class]));
    for word in gguf.words.iter().copied().flatten() {
        // Where every layer has its own value, the row's own function reads it.
        if !reading.is_array(word.key) {
            reading.word(word)?;
        }
    }
    if let Some(name) = optional(reading.header.str("general.name"))? {
        let name = name.to_owned();
        reading.set("_name_or_path", name);
    }
    for (key, field) in [("bos", "bos_token_id"), ("eos", "eos_token_id"), ("padding", "pad_token_id")] {
        // Null where there is none: a class's own default may lie outside the vocabulary.
        let id = optional(reading.header.u64(&format!("tokenizer.ggml.{key}_token_id")))?;
        reading.set(field, id);
    }
    if let Some(rows) = reading.tensors.shape(EMBEDDING).and_then(|shape| shape.first().copied()) {
        reading.set("vocab_size", rows);
    }
    let tied = !reading.has(HEAD) || reading.flag(TIED)? == Some(true);
    reading.set(gguf.tied, tied);
    for (field, tensors) in gguf.presence {
        let there = tensors.iter().any(|tensor| reading.has(tensor));
        reading.set(field, there);
    }
    for (field, value) in gguf.flags {
        reading.set_default(field, *value);
    }
    let (field, usual) = gguf.activation;
    let activation = reading.str(ACTIVATION)?.unwrap_or(usual).to_owned();
    reading.set(field, activation);
    refuse_the_unknown(&reading)?;
    read_sizes(&mut reading, gguf)?;
    read_windows(&mut reading, gguf.windows)?;
    if let Some(layers) = reading.flags(ROTATED_LAYERS)? {
        let list: Vec<u8> = layers.iter().map(|rotated| u8::from(*rotated)).collect();
        reading.set("no_rope_layers", list);
    }
    (gguf.complete)(&mut reading)?;
    Ok(reading.fields)
}

/// Keys that say something which the decoder does not do.
fn refuse_the_unknown(reading: &Reading<'_>) -> Result<(), Error> {
    if reading.flag("attention.causal")? == Some(false) {
        return Err(reading.bad("attention.causal", "false", "true (a decoder)"));
    }
    if reading.flag("rope.scaling.finetuned")? == Some(false) && reading.architecture.starts_with("granite") {
        return Err(reading.bad("rope.scaling.finetuned", "false", "true (rotary positions)"));
    }
    // 1 is a softmax over all experts.
    if let Some(other) = reading.whole("expert_gating_func")?.filter(|function| *function > 1) {
        return Err(reading.bad("expert_gating_func", &other.to_string(), "1 (softmax)"));
    }
    if let Some(other) = reading.real("expert_weights_scale")?.filter(|scale| *scale != 0.0 && *scale != 1.0) {
        return Err(reading.bad("expert_weights_scale", &other.to_string(), "1"));
    }
    Ok(())
}

/// What llama.cpp derives from other sizes, and the rotary settings.
fn read_sizes(reading: &mut Reading<'_>, gguf: &Gguf) -> Result<(), Error> {
    let field_of = |key: &str| gguf.words.iter().copied().flatten().find(|word| word.key == key).map(|word| word.field);
    let head_dim = reading.head_dim()?;
    if let (Some(field), Some(width)) = (field_of("attention.key_length"), head_dim) {
        reading.set(field, width);
    }
    if let Some(field) = field_of("attention.head_count_kv").filter(|_| !reading.is_array("attention.head_count")) {
        let heads = reading.whole("attention.head_count")?;
        reading.set_default(field, heads);
    }
    let Some(field) = field_of("rope.freq_base") else { return Ok(()) };
    reading.set_default(field, 10_000.0);
    let base = reading.real("rope.freq_base")?.unwrap_or(10_000.0);
    rope::read(reading, base)?;
    let (partial, usual) = gguf.partial;
    let rotated = reading.whole("rope.dimension_count")?.or(head_dim);
    if let (Some(rotated), Some(head_dim)) = (rotated, head_dim.filter(|width| *width > 0)) {
        let mut factor = rotated as f64 / head_dim as f64;
        // The product with the width is rounded down.
        if (head_dim as f64 * factor) < rotated as f64 {
            factor = factor.next_up();
        }
        // Where a class rotates a part by default, all of it has to be said too.
        if factor != 1.0 || usual != 1.0 {
            reading.set(partial, factor);
        }
    }
    Ok(())
}

/// Which layers have a window, in the words of the family.
fn read_windows(reading: &mut Reading<'_>, windows: Windows) -> Result<(), Error> {
    let window = reading.whole(WINDOW)?;
    let layers = reading.layers()?;
    let types = |local: &dyn Fn(usize) -> bool| -> Value {
        (0..layers).map(|l| if local(l) { "sliding_attention" } else { "full_attention" }).collect()
    };
    let listed = if reading.is_array(WINDOWED_LAYERS) {
        reading.flags(WINDOWED_LAYERS)?.map(|list| types(&|l| list.get(l) == Some(&true)))
    } else {
        None
    };
    let window = window.filter(|window| *window > 0);
    match windows {
        Windows::None => {
            if let Some(window) = window {
                return Err(reading.bad(WINDOW, &window.to_string(), "none (this architecture is read without)"));
            }
        }
        Windows::Everywhere => reading.set("sliding_window", window),
        Windows::Listed => {
            let used = window.is_some() && listed.is_some();
            reading.set("use_sliding_window", used);
            if let Some(listed) = listed.filter(|_| used) {
                reading.set("sliding_window", window);
                reading.set("layer_types", listed);
            }
        }
        Windows::Alternating { every, usual } => {
            let every = match reading.is_array(WINDOWED_LAYERS) {
                true => every,
                false => reading.whole(WINDOWED_LAYERS)?.map_or(every, |n| usize::try_from(n).unwrap_or(usize::MAX)),
            };
            let window = window.or(usual);
            // A period of 0 means a window everywhere.
            let local = |l: usize| window.is_some() && (every == 0 || !(l + 1).is_multiple_of(every));
            let listed = listed.filter(|_| window.is_some()).unwrap_or_else(|| types(&local));
            reading.set("sliding_window", window);
            reading.set("layer_types", listed);
        }
    }
    Ok(())
}

/// What layers have in common, and where they differ: windows, layers without rotation, scale, activation.
fn put_layers(writing: &mut Writing<'_>, gguf: &Gguf) {
    let spec = writing.spec;
    let of_layers = |of: fn(&LayerSpec) -> usize| spec.layers.iter().map(of).collect::<Vec<_>>();
    if !gguf.words.iter().copied().flatten().any(|word| word.key == "attention.head_count") {
        writing.wholes("attention.head_count", &of_layers(|layer| layer.attention.heads));
        writing.wholes("attention.head_count_kv", &of_layers(|layer| layer.attention.kv_heads));
        writing.wholes("feed_forward_length", &of_layers(|layer| layer.feed_forward.width()));
    }
    let windowed: Vec<bool> = spec.layers.iter().map(|layer| layer.attention.window.is_some()).collect();
    if let Some(window) = spec.layers.iter().find_map(|layer| layer.attention.window) {
        writing.whole(WINDOW, window);
        let usual: Option<Vec<bool>> = match gguf.windows {
            Windows::None | Windows::Listed => None,
            Windows::Everywhere => Some(vec![true; windowed.len()]),
            Windows::Alternating { every, .. } => {
                Some((1..=windowed.len()).map(|l| !l.is_multiple_of(every)).collect())
            }
        };
        if usual.as_ref() != Some(&windowed) {
            writing.flags(WINDOWED_LAYERS, windowed);
        }
    }
    if !spec.rotary.is_empty() {
        let rotated: Vec<bool> = spec.layers.iter().map(|layer| layer.attention.rotary.is_some()).collect();
        if rotated.contains(&false) {
            writing.flags(ROTATED_LAYERS, rotated);
        }
    }
    let Some(first) = spec.layers.first() else { return };
    let a = &first.attention;
    if !spec.rotary.is_empty() {
        writing.whole("attention.value_length", a.head_dim);
    }
    if a.scale != 1.0 / (a.head_dim as f32).sqrt() || gguf.honoured.contains(&SCALE) {
        writing.real(SCALE, f64::from(a.scale));
    }
    let activation = mlp_of(&first.feed_forward).activation;
    if family::activation_of(gguf.activation.1) != Some(activation) {
        writing.text(ACTIVATION, family::activation_name(activation));
    }
}

fn mlp_of(feed_forward: &FeedForwardSpec) -> &MlpSpec {
    match feed_forward {
        FeedForwardSpec::Dense(mlp) => mlp,
        FeedForwardSpec::Experts(experts) => &experts.expert,
    }
}

/// Parts of a model that two specifications say differently. How a part is called, and with what standard deviation
/// it would be initialised, makes no difference.
pub(crate) fn differences(one: &DecoderSpec, other: &DecoderSpec) -> Vec<&'static str> {
    let layers =
        |same: &dyn Fn(&LayerSpec, &LayerSpec) -> bool| one.layers.iter().zip(&other.layers).all(|(a, b)| same(a, b));
    let frequencies = |spec: &DecoderSpec| -> Vec<(usize, Vec<f32>, f32)> {
        let lengths = [1, spec.context_length];
        let tables = spec.rotary.iter().flat_map(|rotary| lengths.map(|len| (rotary, len)));
        tables.map(|(rotary, len)| (rotary.dim, rotary.frequencies(len).0, rotary.frequencies(len).1)).collect()
    };
    // Divisors are stored as f32.
    let near = |a: f32, b: f32| (a - b).abs() <= 1e-6 * a.abs();
    let (f, g) = (frequencies(one), frequencies(other));
    let same_rotary = f.len() == g.len()
        && f.iter().zip(&g).all(|(a, b)| {
            a.0 == b.0 && near(a.2, b.2) && a.1.len() == b.1.len() && a.1.iter().zip(&b.1).all(|(a, b)| near(*a, *b))
        });
    let parts = [
        ("sizes", one.vocab_size == other.vocab_size && one.hidden_size == other.hidden_size),
        ("context length", one.context_length == other.context_length),
        ("number of layers", one.layers.len() == other.layers.len()),
        ("embedding", one.embedding == other.embedding),
        ("rotary positions", same_rotary),
        ("attention", layers(&|a, b| a.attention == b.attention)),
        ("feed-forward parts", layers(&|a, b| a.feed_forward == b.feed_forward)),
        ("norms", layers(&|a, b| a.norms == b.norms) && one.final_norm == other.final_norm),
        ("residual", layers(&|a, b| a.residual == b.residual && a.residual_scale == b.residual_scale)),
        ("head", one.head == other.head),
    ];
    parts.into_iter().filter(|(_, same)| !same).map(|(part, _)| part).collect()
}

/// The scalar whose root divides attention scores, as Gemma's configurations have it.
pub(crate) fn scalar_of(scale: f64) -> f64 {
    let scalar = scale.powi(-2);
    let whole = scalar.round();
    if whole.powf(-0.5) as f32 == scale as f32 { whole } else { scalar }
}

/// A stored scale as a short decimal.
pub(crate) fn decimal(x: f64) -> Value {
    short(x)
}
