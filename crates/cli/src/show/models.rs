//! What models there are, and what one is.

use lathe_lab::figure::{bytes, count, number, percent};
use lathe_lab::{BuiltIn, Inspection, ModelList, State};
use lathe_model::SentenceSpec;
use lathe_model::sentence::{Normalise, Pooling};

use super::lines;
use crate::table::{Align, Table, render, terminal_width};

/// `lathe models`
pub(crate) fn models(list: &ModelList) -> String {
    let built_in = built_in("built-in model", &list.built_in);
    let architectures = list.architectures.iter().map(|architecture| {
        let gguf = architecture.gguf.as_ref().map_or("–", |gguf| gguf.architecture);
        [architecture.model_type, gguf, architecture.models, architecture.differs].map(str::to_owned).to_vec()
    });
    let architectures = lines(
        &[
            ("architecture", Align::Left),
            ("GGUF", Align::Left),
            ("models", Align::Left),
            ("what is different from Llama", Align::Left),
        ],
        architectures.collect(),
    );
    format!(
        "{built_in}\n{architectures}\nEvery command takes a name of the first table, or a folder or GGUF file of an architecture of the second.\n\
         `lathe models --markdown` prints a page that says more.\n"
    )
}

/// `lathe fetch --list`
pub(crate) fn fetchable(models: &[BuiltIn], data_sets: &[BuiltIn]) -> String {
    format!(
        "{}\n{}\nSizes are those of what is kept; the packages that are downloaded may be larger.\n",
        built_in("built-in model", models),
        built_in("data set", data_sets)
    )
}

fn built_in(title: &str, entries: &[BuiltIn]) -> String {
    let rows = entries.iter().map(|entry| {
        let state = match entry.state {
            State::Fetched => "yes",
            State::Absent => "no",
            State::Damaged => "damaged",
        };
        let text = [entry.name, &bytes(entry.bytes), state, entry.licence, entry.description];
        text.map(str::to_owned).to_vec()
    });
    lines(
        &[
            (title, Align::Left),
            ("size", Align::Right),
            ("fetched", Align::Left),
            ("licence", Align::Left),
            ("what it is", Align::Left),
        ],
        rows.collect(),
    )
}

/// `lathe inspect`
pub(crate) fn inspection(i: &Inspection) -> String {
    let mut rows: Vec<[String; 2]> = Vec::new();
    let mut row = |name: &str, value: String| rows.push([name.to_owned(), value]);
    row("model", i.reference.clone());
    row("file", i.path.display().to_string());
    row("licence", i.licence.clone().unwrap_or_else(|| "not stated".into()));
    let kind = if i.encoder { ", an encoder: no language-model head" } else { "" };
    row("architecture", format!("{}, {} layers{kind}", i.family, i.layers));
    row("hidden size", count(i.hidden_size as u64));
    row("attention", format!("{} heads of {}, {} key/value heads", i.heads, i.head_dim, i.kv_heads));
    row("windows", windows(&i.windows));
    if !i.rotary_bases.is_empty() {
        row("rotary base", i.rotary_bases.iter().map(|base| number(*base)).collect::<Vec<_>>().join(", "));
    }
    row("feed-forward", count(i.feed_forward_width as u64));
    if let Some(experts) = &i.experts {
        let shared = if experts.shared { " and a shared one" } else { "" };
        let (all, used, layers) = (experts.experts, experts.per_token, experts.layers);
        row("experts", format!("{all} in {layers} layers, {used} for each token{shared}"));
    }
    row("context", format!("{} tokens", count(i.context as u64)));
    row("vocabulary", count(i.vocab_size as u64));
    let tied = if i.tied_head { " (the head shares the embedding)" } else { "" };
    row("parameters", format!("{}{tied}", count(i.parameters)));
    for part in &i.parts {
        let share = percent(part.parameters as f64 / i.parameters as f64);
        let name = serde_json::to_value(part.part).ok().and_then(|v| v.as_str().map(|s| s.replace('_', "-")));
        row(&format!("  {}", name.unwrap_or_default()), format!("{} ({share})", count(part.parameters)));
    }
    row("bytes", format!("{} in {} tensors", bytes(i.file_bytes), i.tensors.len()));
    for element in &i.element_types {
        row(&format!("  {}", element.element), format!("{} in {} tensors", bytes(element.bytes), element.tensors));
    }
    match &i.tokenizer {
        None => row("tokenizer", "none".into()),
        Some(tokenizer) => {
            let kind = &tokenizer.kind;
            let pre = kind.pre_tokenizer.as_ref().map(|pre| format!(", {pre}")).unwrap_or_default();
            row("tokenizer", format!("{}{pre}, {} entries", kind.model, count(tokenizer.entries as u64)));
            let adds = match (kind.adds_bos, kind.adds_eos) {
                (false, false) => "nothing",
                (true, false) => "a start token",
                (false, true) => "an end token",
                (true, true) => "start and end tokens",
            };
            row("  adds", adds.into());
            for special in &tokenizer.special {
                let token = special.token.as_deref().unwrap_or("not in the vocabulary");
                row(&format!("  {}", special.role), format!("{} {token}", special.id));
            }
        }
    }
    if let Some(sentence) = &i.sentence {
        row("sentence", pooled(sentence));
    }
    let template =
        i.chat_template.as_ref().map(|template| format!("yes, {} characters", count(template.chars().count() as u64)));
    row("chat template", template.unwrap_or_else(|| "none".into()));
    if let Some(load) = &i.load {
        let memory = |bytes_held: Option<u64>| bytes_held.map_or("not known".into(), bytes);
        row("loading", format!("{} s", number(load.load_seconds)));
        row("  weights", format!("{} in memory", bytes(load.weight_bytes)));
        row("  peak memory", memory(load.peak_memory_loaded));
        row("running", format!("{} tokens in {} s", load.prompt_tokens, number(load.prompt_seconds)));
        if load.cache_bytes_per_token > 0 {
            row("  keys, values", format!("{} for each token of a text", bytes(load.cache_bytes_per_token)));
        }
        row("  peak memory", memory(load.peak_memory));
    }
    // No titles: the first column names each line, so the printer's two title lines are dropped.
    let table = Table {
        columns: vec![(String::new(), Align::Left), (String::new(), Align::Left)],
        rows: rows.into_iter().map(Into::into).collect(),
    };
    render(&table, terminal_width()).split_inclusive('\n').skip(2).collect()
}

/// What a sentence encoder makes of a text, in words.
fn pooled(sentence: &SentenceSpec) -> String {
    let pooling = match sentence.pooling {
        Pooling::First => "the first token",
        Pooling::Mean => "the mean over tokens",
        Pooling::Max => "the largest value of each feature",
        Pooling::MeanSqrtLength => "the sum over tokens by the root of their number",
        Pooling::WeightedMean => "the mean over tokens, later ones weighing more",
        Pooling::Last => "the last token",
    };
    let most = sentence.max_tokens.map(|most| format!(", {} at most", count(most as u64))).unwrap_or_default();
    let length = match sentence.normalise {
        Normalise::AsItIs => "",
        Normalise::UnitLength => ", scaled to length 1",
    };
    format!("{pooling}{most}{length}")
}

/// `lathe inspect --tensors`
pub(crate) fn tensors(i: &Inspection) -> String {
    let rows = i.tensors.iter().map(|tensor| {
        let shape = tensor.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(" x ");
        vec![tensor.name.clone(), shape, tensor.element.clone(), count(tensor.bytes)]
    });
    lines(
        &[("tensor", Align::Left), ("shape", Align::Right), ("type", Align::Left), ("bytes", Align::Right)],
        rows.collect(),
    )
}

/// Runs of equal windows: `512 in layers 0–4, none in 5`.
fn windows(windows: &[Option<usize>]) -> String {
    let full = windows.iter().filter(|window| window.is_none()).count();
    match windows.iter().flatten().max() {
        None => "none".into(),
        Some(window) if full == 0 => format!("{} tokens in every layer", count(*window as u64)),
        Some(window) => {
            format!("{} tokens in {} layers, {full} layers see everything", count(*window as u64), windows.len() - full)
        }
    }
}
