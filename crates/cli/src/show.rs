//! Results as text for a terminal. Nothing is computed here; numbers are chosen and formatted.

mod context;
mod diff;
mod embed;
mod ensemble;
mod eval;
mod eval_embed;
mod fairness;
mod merge;
mod texts;
mod tokenizer;
mod tune;
mod upcycle;
mod vocabulary;

use std::fmt::Write;

use lathe_lab::figure::{bytes, count, number, percent, share, value};
use lathe_lab::measure::{AttentionResult, SpanResult, SpectrumResult, TokensResult};
use lathe_lab::{
    BenchResult, BuiltIn, Comparison, Compute, ExportResult, Inspection, MethodRow, ModelList, PassProfile, PhaseTime,
    State, TraceResult,
};
use lathe_measure::attention::ControlKind;
use lathe_measure::{Estimate, Measured, Number};
use lathe_model::sentence::{Normalise, Pooling};
use lathe_model::{Phase, SentenceSpec};

pub(crate) use context::{conflicts, context, critical, instructions};
pub(crate) use diff::diff;
pub(crate) use embed::{analysed, cut, embedded, found};
pub(crate) use ensemble::{determined, together};
pub(crate) use eval::{compare, eval, tasks};
pub(crate) use eval_embed::{embed_eval, embed_tasks};
pub(crate) use fairness::fairness;
pub(crate) use merge::{explored, extracted, merge_plan, merged, residual};
pub(crate) use texts::{experiment, generate, samples};
pub(crate) use tokenizer::tokenizer;
pub(crate) use tune::{audit, tuned};
pub(crate) use upcycle::upcycled;
pub(crate) use vocabulary::vocabulary;

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

/// `lathe trace`
pub(crate) fn trace(result: &TraceResult) -> String {
    let rows = result.tensors.iter().map(|(name, shape)| vec![name.clone(), format!("{shape:?}")]);
    let table = lines(&[("tensor", Align::Left), ("shape", Align::Left)], rows.collect());
    format!("{table}\n{} tokens; saved in {}\n", result.tokens, result.out.display())
}

/// `lathe export`
pub(crate) fn export(result: &ExportResult) -> String {
    let files = result.files.iter().map(|file| vec![file.file.clone(), bytes(file.bytes)]).collect();
    let files = lines(&[("file", Align::Left), ("size", Align::Right)], files);
    let elements =
        result.elements.iter().map(|e| vec![e.element.clone(), count(e.tensors as u64), bytes(e.bytes)]).collect();
    let columns = [("stored as", Align::Left), ("tensors", Align::Right), ("size", Align::Right)];
    let notes: String = result.notes.iter().map(|note| format!("note: {note}\n")).collect();
    let gap = if notes.is_empty() { "" } else { "\n" };
    format!(
        "{files}\n{}{gap}{notes}\n{} was written to {}\n",
        lines(&columns, elements),
        result.model,
        result.out.display()
    )
}

/// The arithmetic behind numbers, in words.
fn computed(compute: Compute) -> &'static str {
    match compute {
        Compute::F32 => "computed in f32",
        Compute::Bf16 => "computed in bf16 (weights and their inputs rounded)",
        Compute::Native => "computed in the file's precision (inputs rounded to match)",
    }
}

/// `lathe bench`
pub(crate) fn bench(result: &BenchResult) -> String {
    let columns = [
        ("timed", Align::Left),
        ("tokens/s", Align::Right),
        ("slowest to fastest", Align::Left),
        ("of ceiling", Align::Right),
    ];
    let mut out = format!(
        "{} threads, {}; this machine multiplies and adds at {} GFLOP/s (bf16 {}, bytes {}) and reads memory at {} GB/s\n",
        result.threads,
        result.instructions,
        number(result.ceiling.gflops),
        number(result.ceiling.bf16_gflops),
        number(result.ceiling.int8_gops),
        number(result.ceiling.read_gbytes)
    );
    for model in &result.models {
        let memory = model.peak_memory.map_or("not known".into(), bytes);
        let (load, weights) = (number(model.load_seconds), bytes(model.weight_bytes));
        let compute = computed(model.compute);
        let name = &model.model;
        let _ = write!(out, "\n{name}, {compute}: loaded in {load} s, {weights} of weights, peak memory {memory}\n\n",);
        let row = |row: &lathe_lab::BenchRow| {
            let [low, high] = row.range.map(number);
            vec![row.what.clone(), number(row.rate), format!("{low} to {high}"), percent(row.of_ceiling)]
        };
        if !model.rows.is_empty() {
            out += &lines(&columns, model.rows.iter().map(row).collect());
        }
        model.profiles.iter().for_each(|pass| out += &profile(pass));
        out += &methods(&model.methods);
    }
    if !result.methods.is_empty() {
        let _ = write!(out, "\nwithout a model:\n{}", methods(&result.methods));
    }
    out
}

fn profile(pass: &PassProfile) -> String {
    let row = |phase: &PhaseTime| {
        let gflops = phase.gflops.map_or(String::new(), number);
        vec![phase_name(phase.phase).to_owned(), number(1e3 * phase.seconds), percent(phase.share), gflops]
    };
    let all = vec!["all".to_owned(), number(1e3 * pass.seconds), percent(1.0), String::new()];
    let columns =
        [("phase", Align::Left), ("ms", Align::Right), ("share", Align::Right), ("GFLOP/s of products", Align::Right)];
    let table = lines(&columns, pass.phases.iter().map(row).chain([all]).collect());
    format!("\n{}, the average of {}:\n\n{table}", pass.what, pass.passes)
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Embedding => "embedding",
        Phase::Norm => "norms",
        Phase::QueryKeyValue => "query, key, value",
        Phase::Rotary => "rotary",
        Phase::Attention => "attention",
        Phase::Output => "output projection",
        Phase::FeedForward => "feed-forward",
        Phase::Experts => "experts",
        Phase::Residual => "residual sums",
        Phase::Head => "head",
        Phase::Other => "other",
    }
}

fn methods(rows: &[MethodRow]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let columns = [
        ("method", Align::Left),
        ("ms", Align::Right),
        ("fastest to slowest", Align::Left),
        ("tokens/s", Align::Right),
        ("compared", Align::Left),
    ];
    let ms = |seconds: f64| number(1e3 * seconds);
    let row = |row: &MethodRow| {
        let compared = row.beside.as_ref().map(|beside| match beside.comparison {
            Comparison::Speed => format!("{} of the speed of {}", percent(beside.share), beside.what),
            Comparison::Added => format!("adds {} to {}", percent(beside.share), beside.what),
            Comparison::Time => format!("{} of {}", percent(beside.share), beside.what),
        });
        let [median, range, rate] = row.timing.as_ref().map_or_else(Default::default, |timing| {
            let [fastest, slowest] = timing.range.map(ms);
            [ms(timing.median), format!("{fastest} to {slowest}"), number(timing.rate)]
        });
        vec![row.what.clone(), median, range, rate, compared.or(row.note.clone()).unwrap_or_default()]
    };
    format!("\n{}", lines(&columns, rows.iter().map(row).collect()))
}

/// `lathe measure tokens`
pub(crate) fn tokens(result: &TokensResult) -> String {
    let report = &result.report;
    let text = &report.text;
    let types = &report.types;
    let estimate = |name: &str, e: &Estimate, unit: &str, n: &str| {
        vec![name.to_owned(), value(e.value), interval(e), unit.to_owned(), format!("{} {n}", count(e.n as u64))]
    };
    let rows = vec![
        estimate("NLL", &text.nll, "nats per token", "documents"),
        estimate("perplexity", &text.perplexity, "", "documents"),
        estimate("bits per byte", &text.bits_per_byte, "bits per byte", "documents"),
        estimate("accuracy", &text.accuracy, "share of tokens", "documents"),
        estimate("entropy", &text.entropy, "nats per token", "documents"),
        estimate("NLL by type (macro)", &types.macro_nll, "nats per token type", "documents"),
        estimate("perplexity by type", &types.macro_perplexity, "", "documents"),
    ];
    let mut out = format!(
        "{}: {} documents, {} tokens of {} bytes, windows of {} tokens, {}\n\n",
        result.model,
        count(report.documents as u64),
        count(text.tokens as u64),
        count(text.bytes),
        count(result.window as u64),
        result.compute_type,
    );
    out += &lines(
        &[
            ("measure", Align::Left),
            ("value", Align::Right),
            ("95 % interval", Align::Left),
            ("unit", Align::Left),
            ("resampled", Align::Left),
        ],
        rows,
    );
    out += "\nLoss by frequency of the target in these texts (bins by powers of 3):\n\n";
    let rows = types.bins.iter().map(|bin| {
        let range = if bin.count_least == bin.count_most {
            count(bin.count_least)
        } else {
            format!("{}–{}", count(bin.count_least), count(bin.count_most))
        };
        vec![
            range,
            count(bin.types as u64),
            count(bin.tokens as u64),
            value(bin.nll.value),
            interval(&bin.nll),
            value(bin.frequency_weighted_nll.value),
            share(bin.accuracy.value),
        ]
    });
    out += &lines(
        &[
            ("count", Align::Right),
            ("types", Align::Right),
            ("tokens", Align::Right),
            ("NLL over types", Align::Right),
            ("95 % interval", Align::Left),
            ("over tokens", Align::Right),
            ("accuracy", Align::Right),
        ],
        rows.collect(),
    );
    let _ = writeln!(
        out,
        "\n{} token types seen, {} of them once. Byte-fallback targets: {}. Special targets, in no number above: {}.",
        count(types.types as u64),
        share(types.singleton_share),
        count(report.byte_fallback.tokens as u64),
        count(report.special.tokens as u64),
    );
    let _ = writeln!(out, "Forward passes took {} s.", number(result.forward_seconds));
    out
}

/// `lathe measure spectrum`
pub(crate) fn spectrum(result: &SpectrumResult) -> String {
    let mut out = format!(
        "{}: {} windows of N = {} tokens, d = {}, {}; means over windows\n\n",
        result.model,
        count(result.windows as u64),
        count(result.window as u64),
        count(result.hidden_size as u64),
        result.compute_type,
    );
    let rows = result.layers.iter().map(|layer| {
        let s = &layer.summary;
        vec![
            layer.layer.to_string(),
            value(s.mnn.mean.value),
            interval(&s.mnn.mean),
            value(s.mnn_null.mean.value),
            value(s.mnn_corrected.mean.value),
            value(s.mnn_cap.mean.value),
            value(s.matrix_entropy.mean.value),
            value(s.matrix_entropy_null.mean.value),
            value(s.erank.mean.value),
            value(s.nuclear_norm.mean.value),
            value(s.nuclear_norm_null.mean.value),
        ]
    });
    out += &lines(
        &[
            ("layer", Align::Right),
            ("MNN", Align::Right),
            ("95 % interval", Align::Left),
            ("null", Align::Right),
            ("MNN/null", Align::Right),
            ("cap", Align::Right),
            ("entropy", Align::Right),
            ("null", Align::Right),
            ("eRank", Align::Right),
            ("nuclear/N", Align::Right),
            ("null", Align::Right),
        ],
        rows.collect(),
    );
    out += "\nnull: Gaussian states of the same N and d, 8 seeded draws. cap: sqrt(D / N), the largest possible MNN; D is min(N, d) unless\n\
            `--columns` says otherwise. entropy: matrix entropy / ln d. nuclear/N: with `--metrics mnn,entropy,nuclear`. –: not asked for or undefined;\n\
            `--json` says why.\n";
    if let Some(diff) = &result.diff_erank {
        let _ = writeln!(
            out,
            "Diff-eRank {} = {} (random weights, seed {}: {}) − {} (this model), {} windows.",
            value(diff.value.diff_erank),
            value(diff.value.untrained_erank),
            diff.seed,
            diff.initialisation,
            value(diff.value.trained_erank),
            diff.value.n,
        );
    }
    let _ = writeln!(
        out,
        "Forward passes took {} s, the metrics and their nulls {} s.",
        number(result.forward_seconds),
        number(result.metric_seconds)
    );
    out
}

/// `lathe measure attention`
pub(crate) fn attention(result: &AttentionResult) -> String {
    let mut out = String::new();
    for span in &result.spans {
        let _ = writeln!(
            out,
            "{}: {}, {} tokens, span of {} tokens, {} tokens left out, {}",
            result.model,
            span.name,
            span.tokens,
            span.positions.len(),
            span.excluded.len(),
            result.compute_type,
        );
        let _ = writeln!(
            out,
            "share of attention on the span: mean over {} heads {}, under uniform causal attention {}\n",
            span.distribution.n,
            value(span.distribution.mean),
            value(span.baseline.share),
        );
        out += match span.baseline.control_kind {
            ControlKind::Consecutive => "",
            ControlKind::Scattered => {
                "control spans are scattered tokens: the text is too short for 100 consecutive ones\n\n"
            }
            ControlKind::None => "no percentiles: the text is too short for 100 control spans\n\n",
        };
        out += &by_layer(span);
        out += "\nHeads with the largest lift:\n\n";
        out += &top_heads(span);
        if let (Some(comparison), Some(against)) = (&span.comparison, &result.against) {
            let c = &comparison.share;
            let d = &c.distribution;
            let _ = writeln!(
                out,
                "\n{against} minus {}: mean difference per head {}, skewness {}, kurtosis {}, histogram entropy {} nats, {} of heads up; row-renormalised: mean {}, {} up.",
                result.model,
                value(d.mean),
                value(d.skewness),
                value(d.kurtosis),
                value(d.histogram_entropy_nats),
                share(c.share_up),
                value(comparison.renormalised.distribution.mean),
                share(comparison.renormalised.share_up),
            );
        }
        out.push('\n');
    }
    out += "share: attention on the span / attention outside punctuation and start tokens, summed over all queries. renormalised: mean over rows.\n\
            lift: share / uniform share. percentile: among 100 control spans of equal length nearby. –: undefined; `--json` says why.\n";
    out
}

fn by_layer(span: &SpanResult) -> String {
    let mean = |layer: usize, of: &dyn Fn(&lathe_lab::measure::HeadRow) -> Number| {
        let values: Vec<f64> = span.heads.iter().filter(|h| h.layer == layer).filter_map(|h| of(h).value()).collect();
        if values.is_empty() { "–".to_owned() } else { number(values.iter().sum::<f64>() / values.len() as f64) }
    };
    let rows = span.layers.iter().map(|layer| {
        vec![
            layer.layer.to_string(),
            value(layer.mean),
            mean(layer.layer, &|h| h.span.renormalised_share),
            mean(layer.layer, &|h| h.span.lift),
            mean(layer.layer, &|h| h.span.control_percentile),
            mean(layer.layer, &|h| h.sink_share),
            layer.n.to_string(),
        ]
    });
    lines(
        &[
            ("layer", Align::Right),
            ("share", Align::Right),
            ("renormalised", Align::Right),
            ("lift", Align::Right),
            ("percentile", Align::Right),
            ("sink share", Align::Right),
            ("heads", Align::Right),
        ],
        rows.collect(),
    )
}

fn top_heads(span: &SpanResult) -> String {
    const SHOWN: usize = 5;
    let mut heads: Vec<_> = span.heads.iter().filter(|head| head.span.lift.value().is_some()).collect();
    heads.sort_by(|a, b| b.span.lift.value().unwrap_or(0.0).total_cmp(&a.span.lift.value().unwrap_or(0.0)));
    let rows = heads.into_iter().take(SHOWN).map(|head| {
        vec![
            head.layer.to_string(),
            head.head.to_string(),
            value(head.span.share),
            value(head.span.lift),
            value(head.span.control_percentile),
            value(head.sink_share),
        ]
    });
    lines(
        &[
            ("layer", Align::Right),
            ("head", Align::Right),
            ("share", Align::Right),
            ("lift", Align::Right),
            ("percentile", Align::Right),
            ("sink share", Align::Right),
        ],
        rows.collect(),
    )
}

fn lines(columns: &[(&str, Align)], rows: Vec<Vec<String>>) -> String {
    let columns = columns.iter().map(|(title, align)| ((*title).to_owned(), *align)).collect();
    render(&Table { columns, rows }, terminal_width())
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

fn interval(e: &Estimate) -> String {
    match &e.interval {
        Measured::Value(i) => format!("{} to {}", number(i.low), number(i.high)),
        Measured::Undefined(reason) => reason.to_string(),
    }
}
