//! `lathe export`: what is written is the same model, in files that say so.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use lathe_formats::write::{TensorSpec, gguf};
use lathe_formats::{Checkpoint, GgufValue};
use serde_json::{Value, json};

use crate::bench::{Bench, assert_same};
use crate::models::{Start, copy, edit_config, edit_tensors, fixture, reading, with_tensors};
use crate::tensors::{self, Stored};

/// Fixtures that a GGUF file has no words for: an encoder, an architecture that llama.cpp lacks, attention that is scaled by
/// layer, frequencies that follow the length of the text.
const NOT_IN_GGUF: [&str; 5] = ["bert", "gpt2_scaled", "llama_dynamic", "opt", "opt_350m"];

/// The bytes of a trace of a model.
fn traced(bench: &Bench, model: &str, more: &[&str]) -> Vec<u8> {
    // An encoder has no logits.
    let sites = if model.starts_with("bert") { "hidden_states,attentions" } else { "logits,hidden_states,attentions" };
    let take = ["--ids", "5,9,77,3,127,64,31,8,100,12,13,90", "--take", sites];
    bench.succeed(&[&["trace", model], &take[..], &["--out", "t.safetensors"], more].concat());
    fs::read(bench.path("t.safetensors")).unwrap()
}

/// Logits of a model.
fn logits(bench: &Bench, model: &str) -> Stored {
    traced(bench, model, &[]);
    tensors::read(&bench.path("t.safetensors")).remove("logits").unwrap()
}

/// Exports a model and gives what was printed.
fn exported(bench: &Bench, model: &str, to: &str, out: &str, more: &[&str]) -> String {
    bench.succeed(&[&["export", model, "--to", to, "--out", out], more].concat())
}

/// Element types of a model's matrices and of its vectors, by tensor.
fn elements(bench: &Bench, model: &str) -> [BTreeMap<String, String>; 2] {
    let facts = bench.json(&["inspect", model, "--json"]);
    let of = |matrices: bool| {
        let tensors = facts["tensors"].as_array().unwrap().iter();
        let those = tensors.filter(|tensor| (tensor["shape"].as_array().unwrap().len() > 1) == matrices);
        let text = |tensor: &Value, field: &str| tensor[field].as_str().unwrap().to_owned();
        those.map(|tensor| (text(tensor, "name"), text(tensor, "element"))).collect()
    };
    [of(true), of(false)]
}

fn header(path: &Path) -> BTreeMap<String, GgufValue> {
    Checkpoint::open(path).unwrap().gguf().unwrap().entries().iter().cloned().collect()
}

#[test]
fn every_fixture_survives_every_direction() {
    let mut refused = Vec::new();
    let mut names: Vec<String> = fs::read_dir(fixture(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| fixture(name).join("config.json").exists())
        .collect();
    names.sort();
    assert!(names.len() > 30);
    for name in &names {
        let bench = Bench::new();
        let [model, folder] = if name == "bert" { ["bert-model", "bert-folder"] } else { ["model", "folder"] };
        copy(&bench, name, model);
        let source = traced(&bench, model, &[]);
        exported(&bench, model, "safetensors", folder, &[]);
        assert!(source == traced(&bench, folder, &[]), "{name} as safetensors");
        if NOT_IN_GGUF.contains(&name.as_str()) {
            let said = bench.refuse(&["export", model, "--to", "gguf", "--out", "model.gguf"]);
            assert!(said.contains("hint: export it as safetensors"), "{said}");
            refused.push(name.as_str());
            continue;
        }
        exported(&bench, "model", "gguf", "model.gguf", &[]);
        assert!(source == traced(&bench, "model.gguf", &[]), "{name} as GGUF");
        exported(&bench, "model.gguf", "safetensors", "back", &[]);
        assert!(source == traced(&bench, "back", &[]), "{name} as GGUF and back");
        same_tensors(name, &bench);
    }
    assert_eq!(refused, NOT_IN_GGUF);
}

/// The tensors of a fixture, of its export, and of its way through GGUF.
fn same_tensors(name: &str, bench: &Bench) {
    let read = |folder: &str| tensors::read(&bench.path(folder).join("model.safetensors"));
    let [original, direct, back] = [read("model"), read("folder"), read("back")];
    let shared = original.iter().filter(|(tensor, _)| direct.contains_key(*tensor));
    assert!(shared.clone().count() > original.len() / 4, "{name}: experts may be stacked, the rest keeps its names");
    for (tensor, stored) in shared {
        assert_eq!(stored, &direct[tensor], "{name}: {tensor}");
    }
    assert_eq!(direct.keys().collect::<Vec<_>>(), back.keys().collect::<Vec<_>>(), "{name}");
    for (tensor, stored) in &direct {
        // GGUF files of Gemma store 1 + w, which is rounded.
        if name.starts_with("gemma") && tensor.contains("norm") {
            let sums = |stored: &Stored| stored.values().iter().map(|w| 1.0 + w).collect::<Vec<f32>>();
            assert_eq!(sums(stored), sums(&back[tensor]), "{name}: {tensor}");
        } else {
            assert_eq!(stored, &back[tensor], "{name}: {tensor}");
        }
    }
}

#[test]
fn a_tied_head_is_written_where_llama_cpp_wants_one() {
    for (name, head, copied) in [
        ("gpt_neox", "embed_out.weight", true),
        ("phi", "lm_head.weight", true),
        ("olmo2", "lm_head.weight", true),
        ("olmoe", "lm_head.weight", true),
        ("qwen2_moe", "lm_head.weight", true),
        ("stablelm", "lm_head.weight", true),
        ("llama", "lm_head.weight", false),
        ("qwen3_moe", "lm_head.weight", false),
    ] {
        let bench = Bench::new();
        copy(&bench, name, "model");
        edit_config(&bench, "model", |config| {
            config.insert("tie_word_embeddings".into(), true.into());
        });
        edit_tensors(&bench, "model", |tensors| {
            tensors.remove(head).unwrap_or_else(|| panic!("{name} has no {head}"));
        });
        let source = traced(&bench, "model", &[]);
        exported(&bench, "model", "gguf", "model.gguf", &[]);
        let checkpoint = Checkpoint::open(bench.path("model.gguf")).unwrap();
        let bytes = |tensor: &str| checkpoint.tensor(tensor).map(|view| view.bytes().to_vec());
        assert_eq!(bytes("output.weight"), bytes("token_embd.weight").filter(|_| copied), "{name}");
        assert_eq!(bench.json(&["inspect", "model.gguf", "--json"])["tied_head"], true, "{name}");
        assert!(source == traced(&bench, "model.gguf", &[]), "{name}");
        exported(&bench, "model.gguf", "gguf", "again.gguf", &[]);
        exported(&bench, "again.gguf", "safetensors", "back", &[]);
        exported(&bench, "model", "safetensors", "direct", &[]);
        let read = |folder: &str| tensors::read(&bench.path(folder).join("model.safetensors"));
        assert_eq!(read("direct"), read("back"), "{name}");
        assert!(!read("back").contains_key(head), "{name}");
    }
}

#[test]
fn halves_are_rounded_to_the_nearest() {
    let bench = Bench::new();
    copy(&bench, "llama", "model");
    let original = tensors::read(&bench.path("model/model.safetensors"));
    for (dtype, word) in [("bf16", "bfloat16"), ("f16", "float16")] {
        let (folder, file) = (format!("{dtype}-folder"), format!("{dtype}.gguf"));
        exported(&bench, "model", "safetensors", &folder, &["--dtype", dtype]);
        exported(&bench, "model", "gguf", &file, &["--dtype", dtype]);
        let config: Value =
            serde_json::from_slice(&fs::read(bench.path(&folder).join("config.json")).unwrap()).unwrap();
        assert_eq!((&config["torch_dtype"], config.get("dtype")), (&word.into(), None));
        let stored = tensors::read(&bench.path(&folder).join("model.safetensors"));
        for (name, tensor) in &original {
            assert_eq!(stored[name].dtype, dtype.to_uppercase());
            let halves = stored[name].bytes.chunks_exact(2).map(|b| u16::from_le_bytes(b.try_into().unwrap()));
            for (half, value) in halves.zip(tensor.values()) {
                if dtype == "bf16" {
                    let bits = value.to_bits();
                    let expected = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
                    assert_eq!(u32::from(half), expected, "{name}: {value}");
                }
            }
        }
        // Vectors of GGUF files stay F32, so only what they have in common is compared: the matrices.
        let [matrices, vectors] = elements(&bench, &file);
        assert!(matrices.values().all(|element| *element == dtype.to_uppercase()), "{matrices:?}");
        assert!(vectors.values().all(|element| element == "F32"), "{vectors:?}");
        let error = logits(&bench, &file).relative_error(&logits(&bench, "model"));
        assert!(error > 0.0 && error < 0.1, "{dtype}: {error}");
        assert!(traced(&bench, &file, &[]) == traced(&bench, &file, &["--low-memory"]), "{dtype}");
    }
}

#[test]
fn without_a_type_everything_stays_as_it_is() {
    let bench = Bench::new();
    copy(&bench, "stablelm_norms_parallel", "model");
    exported(&bench, "model", "safetensors", "half", &["--dtype", "bf16"]);
    exported(&bench, "half", "gguf", "half.gguf", &[]);
    let [matrices, vectors] = elements(&bench, "half.gguf");
    assert!(vectors.values().all(|element| element == "F32"), "{vectors:?}");
    for (name, element) in &matrices {
        // The norms of heads are matrices here, and llama.cpp multiplies with F32 norms only.
        let expected = if name.ends_with("_norm.weight") { "F32" } else { "BF16" };
        assert_eq!(element, expected, "{name}");
    }
    assert!(matrices.keys().any(|name| name.ends_with("attn_q_norm.weight")));
    exported(&bench, "half.gguf", "safetensors", "back", &[]);
    let read = |folder: &str| tensors::read(&bench.path(folder).join("model.safetensors"));
    let [half, back] = [read("half"), read("back")];
    for (name, tensor) in &back {
        if tensor.dtype == "BF16" {
            assert_eq!(tensor, &half[name]);
        }
    }
    assert!(traced(&bench, "half", &[]) == traced(&bench, "back", &[]));
    // Wider types lie first, so that every number begins at a multiple of its size.
    let checkpoint = Checkpoint::open(bench.path("back")).unwrap();
    let sizes: Vec<usize> = checkpoint.tensors().iter().map(|info| info.element.block_bytes()).collect();
    assert!(sizes.is_sorted_by(|a, b| a >= b) && sizes.contains(&4) && sizes.contains(&2), "{sizes:?}");
}

/// A llama with rows of 256 numbers and more, so that the K types fit: width 256, feed-forward part 1280.
fn wide(bench: &Bench, to: &str) {
    const SIZES: [(&str, [usize; 2]); 9] = [
        ("model.embed_tokens", [128, 256]),
        ("lm_head", [128, 256]),
        ("self_attn.q_proj", [256, 256]),
        ("self_attn.k_proj", [128, 256]),
        ("self_attn.v_proj", [128, 256]),
        ("self_attn.o_proj", [256, 256]),
        ("mlp.gate_proj", [1280, 256]),
        ("mlp.up_proj", [1280, 256]),
        ("mlp.down_proj", [256, 1280]),
    ];
    copy(bench, "llama", to);
    edit_config(bench, to, |config| {
        for (field, value) in [
            ("hidden_size", 256),
            ("intermediate_size", 1280),
            ("num_hidden_layers", 2),
            ("num_attention_heads", 8),
            ("num_key_value_heads", 4),
            ("head_dim", 32),
        ] {
            config.insert(field.into(), value.into());
        }
    });
    edit_tensors(bench, to, |tensors| {
        tensors.retain(|name, _| !name.starts_with("model.layers.2."));
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        for (name, tensor) in tensors {
            let size = SIZES.iter().find(|(part, _)| name.contains(part)).map(|(_, size)| size);
            let (shape, scale, offset) = match size {
                Some(size) => (size.to_vec(), 0.2, 0.0),
                None => (vec![256], 0.2, 1.0),
            };
            let values: Vec<f32> = (0..shape.iter().product()).map(|_| next() * scale + offset).collect();
            *tensor = Stored::f32(&shape, &values);
        }
    });
}

#[test]
fn blocks() {
    let bench = Bench::new();
    wide(&bench, "model");
    let expected = logits(&bench, "model");
    // Type, its number as the type of a file, and how far logits may be off.
    for (dtype, number, tolerance) in
        [("q8_0", 7, 0.03), ("q6_k", 18, 0.12), ("q5_k", 16, 0.2), ("q4_k", 14, 0.4), ("q4_0", 2, 0.5)]
    {
        let file = format!("{dtype}.gguf");
        let said = exported(&bench, "model", "gguf", &file, &["--dtype", dtype]);
        assert!(!said.contains("note:"), "{said}");
        let [matrices, vectors] = elements(&bench, &file);
        assert!(matrices.values().all(|element| *element == dtype.to_uppercase()), "{matrices:?}");
        assert!(vectors.values().all(|element| element == "F32"), "{vectors:?}");
        let header = header(&bench.path(&file));
        assert_eq!(header["general.file_type"], GgufValue::U32(number), "{dtype}");
        assert_eq!(header["general.quantization_version"], GgufValue::U32(2), "{dtype}");
        assert_eq!(header["tokenizer.ggml.model"], GgufValue::Str("none".into()));

        // Blocks are multiplied as they are stored, from memory and from the file.
        let loaded = traced(&bench, &file, &[]);
        assert!(loaded == traced(&bench, &file, &["--low-memory"]), "{dtype}");
        let error = logits(&bench, &file).relative_error(&expected);
        assert!(error > 1e-4 && error < tolerance, "{dtype}: {error}");

        // And once more without a type: the same blocks, not blocks of blocks.
        let again = format!("{dtype}-again.gguf");
        let said = exported(&bench, &file, "gguf", &again, &[]);
        assert!(!said.contains("note:"), "{said}");
        let [one, two] = [&file, &again].map(|file| Checkpoint::open(bench.path(file)).unwrap());
        assert_eq!(one.tensors().len(), two.tensors().len());
        for (one, two) in one.views().zip(two.views()) {
            assert_eq!((one.info(), one.bytes()), (two.info(), two.bytes()), "{dtype}");
        }
        assert_eq!(header, self::header(&bench.path(&again)), "{dtype}");

        // Threads share the work, not the result.
        let alone = format!("{dtype}-alone.gguf");
        exported(&bench, "model", "gguf", &alone, &["--dtype", dtype, "--threads", "1"]);
        let [one, two] = [&file, &alone].map(|file| fs::read(bench.path(file)).unwrap());
        assert!(one == two, "{dtype}");

        // As f32, they are the numbers that the blocks stand for.
        let folder = format!("{dtype}-folder");
        exported(&bench, &file, "safetensors", &folder, &[]);
        let error = logits(&bench, &folder).relative_error(&logits(&bench, &file));
        assert!(error < 1e-5, "{dtype}: {error}");
    }
    let said = exported(&bench, "q8_0.gguf", "gguf", "twice.gguf", &["--dtype", "q4_0"]);
    assert!(said.contains("note: 16 tensors were quantised in the source already"), "{said}");
}

#[test]
fn rows_that_no_block_fits() {
    let bench = Bench::new();
    copy(&bench, "qwen2_moe", "model");
    assert_same("export_text", &exported(&bench, "model", "gguf", "model.gguf", &["--dtype", "q4_k"]));
    let [matrices, _] = elements(&bench, "model.gguf");
    for (name, element) in &matrices {
        let expected = if name.contains("ffn_gate_inp") {
            "F32"
        } else if name.contains("ffn_down") {
            // The widths of experts are no multiple of 32.
            "F16"
        } else {
            "Q5_0"
        };
        assert_eq!(element, expected, "{name}");
    }
    assert!(traced(&bench, "model.gguf", &[]) == traced(&bench, "model.gguf", &["--low-memory"]));
    for (dtype, fallback) in [("q5_k", "Q5_1"), ("q6_k", "Q8_0"), ("q8_0", "Q8_0")] {
        let file = format!("{dtype}.gguf");
        exported(&bench, "model", "gguf", &file, &["--dtype", dtype]);
        assert_eq!(elements(&bench, &file)[0]["token_embd.weight"], fallback, "{dtype}");
    }
}

#[test]
fn what_llama_cpp_does_with_a_file_is_said() {
    let bench = Bench::new();
    for (name, part) in [
        ("qwen2_moe_sparse", "does not open this file: it has no layers without experts"),
        ("qwen3_moe", "does not open this file: it has no layers without experts"),
        ("deepseek_freq", "does not open this file: it has no layers without experts between those with experts"),
        ("olmoe", "does not open this file: it has no fewer key heads than query heads"),
        ("phi_norms", "does not open this file: it has no norms of query and key heads"),
        ("mistral_window", "does not read llama.attention.sliding_window"),
        ("smollm3", "does not read smollm3.attention.rope_pattern"),
    ] {
        copy(&bench, name, name);
        let said = exported(&bench, name, "gguf", &format!("{name}.gguf"), &[]);
        assert!(said.contains(&format!("note: llama.cpp {part}")), "{name}: {said}");
    }
    for name in ["llama", "qwen2_moe", "deepseek", "granitemoeshared", "gemma3"] {
        copy(&bench, name, name);
        let said = exported(&bench, name, "gguf", &format!("{name}.gguf"), &[]);
        assert!(!said.contains("note:"), "{name}: {said}");
    }
}

#[test]
fn a_folder_is_complete() {
    let bench = Bench::new();
    reading(&bench, "model", 64, Start::Token);
    let kept = [
        "LICENSE",
        "Notice.txt",
        "README.md",
        "additional_chat_templates/rag.jinja",
        "chat_template.jinja",
        "generation_config.json",
        "modeling_llama.py",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    let content = |name: &str| match name {
        "generation_config.json" => "{\"eos_token_id\": 2}".to_owned(),
        other => format!("{{# {other} #}}"),
    };
    for name in kept.iter().filter(|name| !name.starts_with("tokenizer")) {
        bench.write(&format!("model/{name}"), content(name));
    }
    bench.write("model/optimizer.bin", "not a part of the model");
    edit_config(&bench, "model", |config| {
        config.insert("auto_map".into(), json!({"AutoModelForCausalLM": "modeling_llama.Model"}));
        config.insert("dtype".into(), "bfloat16".into());
    });
    assert_same("export_json", &exported(&bench, "model", "safetensors", "folder", &["--json"]));
    for name in kept {
        let [source, target] = ["model", "folder"].map(|folder| fs::read(bench.path(folder).join(name)).unwrap());
        assert_eq!(source, target, "{name}");
    }
    let mut expected: Vec<&str> = kept.iter().copied().chain(["config.json", "model.safetensors"]).collect();
    expected.sort_unstable();
    let files = bench.files();
    let found: Vec<&str> = files
        .iter()
        .filter(|path| bench.path("folder").parent().unwrap().join(path).is_file())
        .filter_map(|path| path.strip_prefix("folder").ok()?.to_str())
        .collect();
    assert_eq!(found, expected);
    let config = |folder: &str| -> Value {
        serde_json::from_slice(&fs::read(bench.path(folder).join("config.json")).unwrap()).unwrap()
    };
    let mut wanted = config("model");
    wanted.as_object_mut().unwrap().remove("dtype");
    wanted["torch_dtype"] = "float32".into();
    assert_eq!(config("folder"), wanted);

    // A GGUF file has no place for terms, and a file given by its path takes none from the folder around it.
    let said = exported(&bench, "model", "gguf", "folder/model.gguf", &[]);
    assert!(said.contains("note: LICENSE, Notice.txt stayed in model: pass them on with the file"), "{said}");
    let said = exported(&bench, "folder/model.gguf", "gguf", "other.gguf", &[]);
    assert!(!said.contains("note:"), "{said}");
    exported(&bench, "folder/model.gguf", "safetensors", "lone", &[]);
    assert!(!bench.path("lone/LICENSE").exists());
}

#[test]
fn texts_become_the_same_tokens() {
    let bench = Bench::new();
    reading(&bench, "model", 64, Start::Token);
    bench.write("model/chat_template.jinja", "{{ bos_token }}{{ messages[0].content }}");
    exported(&bench, "model", "gguf", "model.gguf", &[]);
    exported(&bench, "model.gguf", "safetensors", "back", &[]);
    let run = |model: &str| {
        let text = "The cat sat on the other side of the river, and was here.\n";
        bench.succeed(&["trace", model, "--text", text, "--take", "logits", "--out", "t.safetensors"]);
        fs::read(bench.path("t.safetensors")).unwrap()
    };
    let source = run("model");
    assert!(source == run("model.gguf"), "GGUF");
    assert!(source == run("back"), "GGUF and back");
    for model in ["model.gguf", "back"] {
        let facts = bench.json(&["inspect", model, "--json"]);
        assert_eq!(facts["chat_template"], "{{ bos_token }}{{ messages[0].content }}", "{model}");
        assert_eq!(facts["tokenizer"]["adds_bos"], true, "{model}");
    }
    let generation: Value =
        serde_json::from_slice(&fs::read(bench.path("back/generation_config.json")).unwrap()).unwrap();
    assert_eq!((&generation["bos_token_id"], &generation["eos_token_id"]), (&1.into(), &json!([2])));
    assert_eq!(header(&bench.path("model.gguf"))["general.name"], GgufValue::Str("model".into()));
}

#[test]
fn what_a_header_says_of_the_model_is_kept() {
    let bench = Bench::new();
    copy(&bench, "llama", "model");
    exported(&bench, "model", "gguf", "plain.gguf", &[]);
    let checkpoint = Checkpoint::open(bench.path("plain.gguf")).unwrap();
    let mut entries: Vec<_> = checkpoint.gguf().unwrap().entries().to_vec();
    entries.retain(|(key, _)| key != "tokenizer.ggml.model");
    let text = |text: &str| GgufValue::Str(text.into());
    let told = [("general.author", "A. N. Other"), ("general.license", "mit"), ("general.languages", "en")];
    entries.extend(told.map(|(key, value)| (key.to_owned(), text(value))));
    entries.push(("general.alignment".into(), GgufValue::U32(64)));
    let specs: Vec<TensorSpec> = checkpoint.tensors().iter().map(TensorSpec::from).collect();
    let mut writer = gguf(&bench.path("told.gguf"), &entries, &specs).unwrap();
    for view in checkpoint.views() {
        writer.append(&view.info().name, view.bytes()).unwrap();
    }
    writer.finish().unwrap();

    exported(&bench, "told.gguf", "gguf", "told-f16.gguf", &["--dtype", "f16"]);
    let header = header(&bench.path("told-f16.gguf"));
    for (key, value) in told {
        assert_eq!(header[key], text(value));
    }
    assert_eq!(header["general.file_type"], GgufValue::U32(1), "not that of the source");
    assert_eq!(header["tokenizer.ggml.model"], text("none"), "without it, llama.cpp opens no file");
    assert!(!header.contains_key("general.quantization_version") && !header.contains_key("general.alignment"));
    let said = exported(&bench, "told.gguf", "safetensors", "folder", &[]);
    assert!(said.contains("note: the source's header names its licence: mit"), "{said}");
}

#[test]
fn refusals() {
    let bench = Bench::new();
    copy(&bench, "llama", "llama");
    copy(&bench, "opt", "opt");
    copy(&bench, "llama_dynamic", "dynamic");
    with_tensors(&bench, "nan", |tensors| spoil(tensors, "model.layers.1.mlp.up_proj.weight", 70, f32::NAN));
    with_tensors(&bench, "large", |tensors| spoil(tensors, "model.layers.2.mlp.down_proj.weight", 5, 1e6));
    reading(&bench, "words", 64, Start::Nothing);
    let list = json!({"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0, "<unk>": 1, "b": 2}, "unk_token": "<unk>"}});
    bench.write("words/tokenizer.json", list.to_string());
    bench.write("words/tokenizer_config.json", "{}");
    bench.write("there.gguf", "");
    let export = |model: &'static str, to: &'static str, out: &'static str, dtype: &[&'static str]| {
        let dtype: Vec<_> = dtype.iter().flat_map(|dtype| ["--dtype", *dtype]).collect();
        [&["export", model, "--to", to, "--out", out], &dtype[..]].concat()
    };
    let commands = [
        export("llama", "gguf", "there.gguf", &[]),
        export("llama", "safetensors", "opt", &[]),
        export("llama", "gguf", "no/such/model.gguf", &[]),
        export("llama", "safetensors", "there.gguf/folder", &[]),
        export("llama", "gguf", "x.gguf", &["q4"]),
        export("llama", "safetensors", "x", &["float16"]),
        export("llama", "gguf", "x.gguf", &["iq4_xs"]),
        export("llama", "safetensors", "x", &["q8_0"]),
        export("opt", "gguf", "x.gguf", &[]),
        export("dynamic", "gguf", "x.gguf", &[]),
        export("words", "gguf", "x.gguf", &[]),
        export("nan", "gguf", "x.gguf", &["q8_0"]),
        export("large", "gguf", "x.gguf", &["f16"]),
        export("large", "safetensors", "x", &["f16"]),
        export("missing", "gguf", "x.gguf", &[]),
        export("llama", "onnx", "x.onnx", &[]),
        vec!["export", "llama", "--to", "gguf"],
        vec!["export", "llama", "--out", "x.gguf"],
    ];
    let commands: Vec<&[&str]> = commands.iter().map(|command| &command[..]).collect();
    assert_same("exports", &bench.refuse_all(&commands));
    // The same numbers can be kept, and what is no number too.
    for model in ["nan", "large"] {
        exported(&bench, model, "gguf", &format!("{model}.gguf"), &["--dtype", "bf16"]);
    }
}

fn spoil(tensors: &mut BTreeMap<String, Stored>, name: &str, index: usize, value: f32) {
    let tensor = tensors.get_mut(name).unwrap();
    let mut values = tensor.values();
    values[index] = value;
    *tensor = Stored::f32(&tensor.shape, &values);
}

/// Pieces of a tensor are encoded at the same time; the place of a number is counted from the tensor's beginning.
#[test]
fn a_bad_number_far_inside_is_found() {
    let bench = Bench::new();
    wide(&bench, "model");
    edit_tensors(&bench, "model", |tensors| {
        for index in [1100 * 256 + 7, 1200 * 256] {
            spoil(tensors, "model.layers.1.mlp.gate_proj.weight", index, f32::INFINITY);
        }
    });
    for threads in ["1", "2"] {
        let said = bench.refuse(&[
            "export",
            "model",
            "--to",
            "gguf",
            "--dtype",
            "q4_k",
            "--out",
            "x.gguf",
            "--threads",
            threads,
        ]);
        assert!(said.contains("tensor \"blk.1.ffn_gate.weight\" cannot be written: number 281607 is inf"), "{said}");
    }
}
