//! What lathe does not read is refused with one sentence that names the file and the field, and a hint.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use lathe_model::open;
use serde_json::{Map, Value, json};

fn fixture() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/parity/llama")
}

/// The fixture `llama` with other fields in its `config.json`: message, with the folder left out, and hint.
fn refusal(changes: Value) -> (String, Option<String>) {
    let folder = tempfile::tempdir().unwrap();
    with_config(folder.path(), changes);
    std::fs::copy(fixture().join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    let error = open(folder.path()).err().expect("refused");
    (error.to_string().replace(&format!("{}/", folder.path().display()), ""), error.hint())
}

fn with_config(folder: &Path, changes: Value) {
    let text = std::fs::read_to_string(fixture().join("config.json")).unwrap();
    let mut config: Map<String, Value> = serde_json::from_str(&text).unwrap();
    let Value::Object(changes) = changes else { panic!("an object") };
    config.extend(changes);
    std::fs::write(folder.join("config.json"), serde_json::to_string(&config).unwrap()).unwrap();
}

#[test]
fn an_unknown_architecture_names_its_neighbours() {
    let (message, hint) = refusal(json!({"model_type": "olmo3"}));
    assert_eq!(message, "config.json: architecture `olmo3` is not supported");
    assert_eq!(hint.unwrap(), "the nearest supported architectures are `olmo`, `olmo2`, `olmoe`");
}

#[test]
fn code_beside_the_weights_is_not_run() {
    let auto_map = json!({"AutoModelForCausalLM": "modeling_mine.MineForCausalLM"});
    let (message, hint) = refusal(json!({"model_type": "llamb", "auto_map": auto_map}));
    assert_eq!(
        message,
        "config.json: architecture `llamb` is code beside the weights (field `auto_map`), which lathe does not run"
    );
    let hint = hint.unwrap();
    assert!(hint.contains("set `model_type` to its name; the nearest names are `llama`, "), "{hint}");
}

#[test]
fn code_beside_a_known_architecture_is_ignored() {
    let folder = tempfile::tempdir().unwrap();
    with_config(folder.path(), json!({"auto_map": {"AutoConfig": "configuration_mine.MineConfig"}}));
    std::fs::copy(fixture().join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    assert_eq!(open(folder.path()).unwrap().spec, open(&fixture()).unwrap().spec);
}

#[test]
fn an_unknown_activation_names_its_field() {
    let (message, hint) = refusal(json!({"hidden_act": "xielu"}));
    assert_eq!(message, "config.json: field `hidden_act`: activation `xielu` is not known");
    assert_eq!(
        hint.unwrap(),
        "the activations are silu, swish, gelu, gelu_python, gelu_pytorch_tanh, gelu_new, gelu_python_tanh, gelu_fast, \
         gelu_accurate, quick_gelu, relu"
    );
}

#[test]
fn quantised_weights_name_their_method() {
    for method in ["gptq", "awq", "bitsandbytes", "compressed-tensors", "fp8", "mxfp4"] {
        let (message, hint) = refusal(json!({"quantization_config": {"quant_method": method, "bits": 4}}));
        assert_eq!(
            message,
            format!("config.json: field `quantization_config`: weights quantised by `{method}` are not read")
        );
        assert_eq!(hint.unwrap(), "take the unquantised checkpoint of the model, or a GGUF file of it: both open");
    }
    let (message, _) = refusal(json!({"quantization_config": {"bits": 4}}));
    assert_eq!(
        message,
        "config.json: field `quantization_config`: weights quantised by a method without name are not read"
    );
    // A multimodal configuration says so beside its language model.
    let text = json!({"model_type": "gemma3_text"});
    let (message, _) = refusal(json!({"text_config": text, "quantization_config": {"quant_method": "awq"}}));
    assert_eq!(message, "config.json: field `quantization_config`: weights quantised by `awq` are not read");
}

#[test]
fn pickles_are_not_loaded() {
    let folder = tempfile::tempdir().unwrap();
    with_config(folder.path(), json!({}));
    std::fs::write(folder.path().join("pytorch_model.bin"), b"PK").unwrap();
    let error = open(folder.path()).err().expect("refused");
    assert!(error.to_string().ends_with("the weights are Python pickles, which lathe does not load"), "{error}");
    assert!(error.hint().unwrap().contains("safetensors"), "{:?}", error.hint());
}

#[test]
fn attention_to_later_tokens_is_refused() {
    let (message, _) = refusal(json!({"model_type": "gemma", "use_bidirectional_attention": true}));
    let field = "config.json: field `use_bidirectional_attention` is true, expected ";
    assert_eq!(message, format!("{field}false (a decoder sees no later tokens)"));
}

#[test]
fn head_counts_beyond_any_model_are_refused_before_they_are_listed() {
    let sizes = json!({"hidden_size": 1 << 20, "num_attention_heads": 1 << 20, "num_key_value_heads": 1 << 20});
    let Value::Object(mut changes) = sizes else { panic!("an object") };
    changes.extend([("model_type".to_owned(), json!("stablelm")), ("qk_layernorm".to_owned(), json!(true))]);
    let (message, _) = refusal(Value::Object(changes));
    assert_eq!(message, "config.json: field `num_attention_heads` is 1048576, expected at most 4096");
}
