//! Made-up reports for the tests: plausible in shape, odd on purpose, and never shown to a user.

use super::data::*;

/// What a made-up model should look like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) layers: usize,
    pub(super) heads: usize,
}

/// A report of made-up models, one for each shape.
pub(super) fn report(shapes: &[Shape]) -> Report {
    let references = ["smollm2", "hf:org/gemma-3-270m@main", "models/qwen2.5-coder-0.5b-instruct-q8_0.gguf"];
    let models = shapes.iter().enumerate();
    let models: Vec<ModelReport> = models.map(|(i, shape)| model(references[i % 3], i, *shape)).collect();
    let comparison = (models.len() > 1).then(|| comparison(models.len()));
    Report {
        schema: SCHEMA.to_owned(),
        lathe_version: "0.1.0".to_owned(),
        created: "2026-01-02 03:04 UTC".to_owned(),
        settings: Settings {
            sample: "built-in sample 1".to_owned(),
            extent: Extent::Default,
            token_limit: Some(30_000),
            text_window: 1024,
            interval_block: 64,
            window: 256,
            seed: 7,
            threads: 2,
            compute_type: "f32".to_owned(),
        },
        machine: Machine { cpu: "Example CPU @ 2.4 GHz".to_owned(), cores: 2, memory_bytes: Some(8_000_000_000) },
        models,
        comparison,
        seconds: 141.3,
    }
}

/// The report with everything that can be odd: markup in every name, missing values, empty panels.
pub(super) fn odd_report() -> Report {
    let mut report =
        report(&[Shape { layers: 1, heads: 1 }, Shape { layers: 80, heads: 64 }, Shape { layers: 3, heads: 2 }]);
    let nasty = "<script>alert(\"&'x'\")</script>\u{202e}\u{1b}[31m";
    report.created = nasty.to_owned();
    report.machine.cpu = nasty.to_owned();
    let first = &mut report.models[0];
    first.reference = format!("./{nasty}");
    first.what.family = nasty.to_owned();
    first.what.licence = None;
    first.what.element_types[0].name = nasty.to_owned();
    first.fertility[0].language = nasty.to_owned();
    first.fertility[1].tokens_per_character = Quantity::missing("tokens/character", nasty);
    first.texts[0].name = nasty.to_owned();
    first.texts[1].bits_per_byte = Quantity::new(f64::NAN, "bits/byte");
    first.texts[2].bits_per_byte.value = Some(f64::INFINITY);
    first.generations[0].prompt = nasty.to_owned();
    first.generations[0].tokens[0] = GeneratedToken { text: nasty.to_owned(), surprisal: None };
    first.generations[0].tokens[1].surprisal = Some(f64::NAN);
    first.generations[1].tokens.clear();
    if let Some(spectrum) = &mut first.spectrum {
        spectrum.layers[1].mnn = Quantity::missing("1", "a window of one token has no spectrum");
        spectrum.cap = f64::NAN;
    }
    if let Some(attention) = &mut report.models[1].attention {
        attention.sink_share.values[3][5] = None;
        attention.sink_share.values[4].pop();
        attention.sink_share.values[5][0] = Some(f64::NAN);
        attention.sink_by_layer[6] = Quantity::missing("1", "no mass");
        attention.sink_share.null = None;
    }
    let same_name = report.models[0].reference.clone();
    let last = &mut report.models[2];
    last.reference = same_name;
    last.overall = None;
    last.fertility.clear();
    last.texts.clear();
    last.bins.clear();
    last.spectrum = None;
    last.attention = None;
    last.speed = None;
    last.generations.clear();
    last.not_measured =
        vec![NotMeasured { panel: Panel::Attention, reason: format!("the runtime gives no probabilities {nasty}") }];
    report
}

fn model(reference: &str, index: usize, shape: Shape) -> ModelReport {
    let offset = index as f64 * 0.11;
    ModelReport {
        reference: reference.to_owned(),
        what: what(index, shape),
        fertility: fertility(offset),
        texts: texts(offset),
        overall: Some(Overall {
            documents: 16,
            bytes: 84_211,
            tokens: 29_871,
            bits_per_byte: Quantity::new(1.172 + offset, "bits/byte")
                .over(84_211)
                .within([1.03 + offset, 1.31 + offset]),
            nll_micro: Quantity::new(2.29 + offset, "nats/token").over(29_871).within([2.05 + offset, 2.54 + offset]),
            nll_macro: Quantity::new(4.61 + offset, "nats/token type").over(6_122),
            perplexity: Quantity::new((2.29 + offset).exp(), "1").over(29_871),
        }),
        bins: bins(offset),
        spectrum: Some(spectrum(index, shape)),
        attention: Some(attention(index, shape)),
        speed: Some(Speed {
            load: Quantity::new(0.412, "s").over(1),
            prefill: Quantity::new(183.0 - 40.0 * offset, "tokens/s").over(2_560),
            decode: Quantity::new(31.2 - 30.0 * offset, "tokens/s").over(320),
            prefill_range: Some([170.0 - 40.0 * offset, 186.0 - 40.0 * offset]),
            decode_range: Some([29.8 - 30.0 * offset, 32.9 - 30.0 * offset]),
            prefill_tokens: 512,
            decode_tokens: 64,
            runs: 5,
            peak_memory: Quantity::new(812_000_000.0, "bytes").over(1),
        }),
        generations: generations(index),
        not_measured: Vec::new(),
    }
}

fn what(index: usize, shape: Shape) -> What {
    let parts = [
        ("embedding", 28_311_552),
        ("attention", 26_542_080),
        ("feed-forward", 79_626_240),
        ("norms", 35_136),
        ("head", 0),
    ];
    let parts: Vec<ParameterPart> = parts
        .iter()
        .map(|(part, parameters)| ParameterPart {
            part: (*part).to_owned(),
            parameters: *parameters * (1 + index as u64),
        })
        .collect();
    What {
        family: ["llama", "gemma3", "qwen2"][index % 3].to_owned(),
        parameters: parts.iter().map(|part| part.parameters).sum(),
        parts,
        layers: shape.layers as u64,
        hidden_size: 576,
        heads: shape.heads as u64,
        kv_heads: 1,
        context: 8_192,
        vocabulary: 49_152,
        file_bytes: 144_811_000,
        element_types: vec![
            ElementType { name: "Q8_0".to_owned(), tensors: 211, values: 134_479_872, bytes: 142_884_864 },
            ElementType { name: "F32".to_owned(), tensors: 61, values: 35_136, bytes: 140_544 },
        ],
        tokenizer: "byte-level BPE".to_owned(),
        chat_template: index == 0,
        licence: Some("Apache-2.0".to_owned()),
        files: vec![
            FileRecord {
                name: "model.gguf".to_owned(),
                bytes: 144_811_000,
                sha256: Some("5a1395716f7913741cc51d98581b9b1228d80987a9f7d3664106742eb06bba83".to_owned()),
            },
            FileRecord { name: "tokenizer.json".to_owned(), bytes: 2_104_556, sha256: None },
        ],
    }
}

const LANGUAGES: [(&str, &str, f64, f64, Option<u64>); 12] = [
    ("English", "Latin", 0.23, 1.0, Some(1_604)),
    ("French", "Latin", 0.36, 1.03, Some(1_530)),
    ("German", "Latin", 0.39, 1.02, Some(1_377)),
    ("Turkish", "Latin", 0.52, 1.1, Some(1_190)),
    ("Vietnamese", "Latin", 0.61, 1.3, Some(1_810)),
    ("Russian", "Cyrillic", 0.64, 1.8, Some(1_282)),
    ("Greek", "Greek", 0.98, 1.8, Some(1_344)),
    ("Arabic", "Arabic", 0.91, 1.8, Some(1_255)),
    ("Chinese", "Han", 1.24, 3.0, None),
    ("Japanese", "Han and kana", 1.05, 3.0, None),
    ("Hindi", "Devanagari", 1.67, 2.6, Some(1_502)),
    ("Thai", "Thai", 1.88, 2.9, None),
];

fn fertility(offset: f64) -> Vec<FertilityRow> {
    let rows = LANGUAGES.iter().enumerate().map(|(index, (language, script, rate, width, words))| {
        let characters = 9_000 - 600 * index as u64;
        let rate = rate * (1.0 + offset * (0.5 - index as f64 / 6.0));
        let tokens = (characters as f64 * rate) as u64;
        let bytes = (characters as f64 * width) as u64;
        let missing = Quantity::missing("tokens/word", "the script does not separate words");
        FertilityRow {
            language: (*language).to_owned(),
            script: (*script).to_owned(),
            bytes,
            characters,
            words: *words,
            tokens,
            tokens_per_character: Quantity::new(rate, "tokens/character").over(characters),
            bytes_per_token: Quantity::new(bytes as f64 / tokens as f64, "bytes/token").over(tokens),
            tokens_per_word: words
                .map_or(missing, |words| Quantity::new(tokens as f64 / words as f64, "tokens/word").over(words)),
        }
    });
    rows.collect()
}

fn texts(offset: f64) -> Vec<TextLoss> {
    let others = [
        ("A river novel, chapter 1", TextKind::Prose, 0.93),
        ("A short story", TextKind::Prose, 1.08),
        ("A constitution", TextKind::Legal, 0.71),
        ("Sorting in Rust", TextKind::Code, 0.84),
    ];
    let others = others.iter().map(|(name, kind, bits)| (*name, *kind, *bits));
    let languages = LANGUAGES.iter().enumerate().map(|(i, row)| (row.0, TextKind::Language, 0.9 + 0.09 * i as f64));
    others
        .chain(languages)
        .enumerate()
        .map(|(i, (name, kind, bits))| {
            let bits = bits + offset * (1.0 - i as f64 / 9.0);
            TextLoss {
                name: name.to_owned(),
                kind,
                bytes: 5_000,
                tokens: 1_700,
                bits_per_byte: Quantity::new(bits, "bits/byte").over(5_000).within([bits * 0.93, bits * 1.06]),
                nll: Quantity::new(bits * 2.1, "nats/token").over(1_700).within([bits * 1.95, bits * 2.2]),
            }
        })
        .collect()
}

fn bins(offset: f64) -> Vec<FrequencyBin> {
    let losses = [6.1, 5.2, 4.4, 3.5, 2.9, 2.2, 1.9];
    losses
        .iter()
        .enumerate()
        .map(|(k, loss)| {
            let low = 3_u64.pow(k as u32);
            let types = 4_000 / low + 1;
            let spread = 0.04 + 0.03 * k as f64;
            let loss = loss + offset;
            FrequencyBin {
                low,
                high: low * 3,
                types,
                tokens: types * low * 2,
                nll: Quantity::new(loss, "nats/token type").over(types).within([loss - spread, loss + spread]),
            }
        })
        .collect()
}

fn spectrum(index: usize, shape: Shape) -> Spectrum {
    let layers = (0..=shape.layers).map(|layer| {
        let depth = layer as f64 / shape.layers as f64;
        let bend = (depth * 3.0 + index as f64).sin() * 0.08;
        let mnn = 0.46 - 0.3 * (1.0 - (2.0 * depth - 1.0).powi(2)) + bend;
        let entropy = 0.74 - 0.42 * (1.0 - (2.0 * depth - 1.0).powi(2)) + bend;
        LayerSpectrum {
            layer: layer as u64,
            mnn: Quantity::new(mnn, "1").over(24).within([mnn - 0.02, mnn + 0.02]).against(0.64),
            mnn_corrected: Quantity::new(mnn / 0.64, "1").over(24),
            matrix_entropy: Quantity::new(entropy, "1")
                .over(24)
                .within([entropy - 0.015, entropy + 0.015])
                .against(0.86),
            effective_rank: Quantity::new((entropy * 576_f64.ln()).exp(), "1")
                .over(24)
                .against((0.86 * 576_f64.ln()).exp()),
        }
    });
    Spectrum {
        input: "windows of the sample texts in turn".to_owned(),
        tokens: 256,
        hidden_size: 576,
        windows: 24,
        cap: 1.0,
        layers: layers.collect(),
        forward: Quantity::new(31.0, "s").over(24),
        metric: Quantity::new(1.9, "s").over(24),
    }
}

fn attention(index: usize, shape: Shape) -> Attention {
    let values: Vec<Vec<Option<f64>>> = (0..shape.layers)
        .map(|layer| {
            (0..shape.heads)
                .map(|head| {
                    let wave = ((layer * 7 + head * 13 + index * 5) % 17) as f64 / 17.0;
                    let depth = layer as f64 / shape.layers as f64;
                    Some((0.05 + 0.9 * wave * (depth * 3.1).sin().max(0.05)).clamp(0.0, 1.0))
                })
                .collect()
        })
        .collect();
    let by_layer = values.iter().map(|heads: &Vec<Option<f64>>| {
        let sum: f64 = heads.iter().flatten().sum();
        Quantity::new(sum / heads.len() as f64, "1").over(heads.len() as u64).against(0.024)
    });
    let sink_by_layer = by_layer.collect();
    Attention {
        input: "windows of the sample texts in turn".to_owned(),
        tokens: 256,
        windows: 4,
        sink_share: HeadMatrix { unit: "1".to_owned(), n: 1_024, null: Some(0.024), values },
        sink_by_layer,
        entropy: None,
    }
}

fn generations(index: usize) -> Vec<Generation> {
    let prompts = ["The river rose in the night, and", "fn quicksort<T: Ord>(items: &mut [T]) {\n", "ماذا يحدث عندما"];
    let texts: [&[&str]; 3] = [
        &[
            " by", " morning", " the", " lower", " fields", " were", " a", " lake", " with", " hed", "ger", "ows",
            " for", " shores", ".", "\n\n", "Nobody", " in", " the", " village", " had", " seen", " it", " so",
            " high", ",", " and", " the", " old", " bridge", " groan", "ed", " under", " the", " weight", ".",
        ],
        &[
            "\t", "if", " items", ".", "len", "()", " <=", " ", "1", " {", "\n", "        ", "return", ";", "\n",
            "    ", "}", "\n",
        ],
        &[" ", "ي", "رت", "فع", " الماء", "؟", "\u{fffd}", "\u{200b}"],
    ];
    prompts
        .iter()
        .zip(texts)
        .enumerate()
        .map(|(g, (prompt, tokens))| Generation {
            prompt: (*prompt).to_owned(),
            decoding: format!("temperature 0.8, top-p 0.95, seed {}", 7 + g),
            tokens: tokens
                .iter()
                .enumerate()
                .map(|(t, text)| GeneratedToken {
                    text: (*text).to_owned(),
                    surprisal: Some(
                        ((t * 37 + g * 11 + index * 3) % 29) as f64 / 29.0 * if t % 5 == 1 { 15.0 } else { 3.0 },
                    ),
                })
                .collect(),
        })
        .collect()
}

fn comparison(models: usize) -> Comparison {
    let pairs = (0..models).flat_map(|left| (left + 1..models).map(move |right| (left, right)));
    let pairs = pairs.map(|(left, right)| ModelPair {
        left,
        right,
        merge: Feasibility {
            possible: false,
            reasons: vec!["hidden size 576 and 640".to_owned(), "different tokenizers".to_owned()],
        },
        ensemble: Feasibility { possible: true, reasons: vec!["both tokenizers can emit every byte".to_owned()] },
        vocabulary: VocabularyOverlap {
            left: 49_152,
            right: 151_936,
            shared_bytes: 30_211 + 1_000 * left as u64,
            shared_strings: 28_004,
        },
    });
    Comparison { pairs: pairs.collect() }
}
