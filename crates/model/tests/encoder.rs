//! What is different of an encoder: names of its tensors in the wild, what is refused, and the vectors of a real one.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lathe_formats::write::{self, TensorSpec};
use lathe_formats::{Checkpoint, ElementType};
use lathe_model::reference::{Home, ModelReference, resolve};
use lathe_model::sentence::{Normalise, Pooling};
use lathe_model::{Batch, Decoder, Error, KvCache, NoTap, Opened, Weights, open};
use lathe_tokenizer::{BosEos, Markup};
use serde_json::{Value, json};

fn fixture() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/parity/bert")
}

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// A folder with the fixture's configuration and tensors, changed.
fn changed(config: Value, tensors: impl Fn(Tensors) -> Tensors) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(fixture().join("config.json")).unwrap();
    let mut fields: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
    let Value::Object(config) = config else { panic!("an object") };
    fields.extend(config);
    std::fs::write(folder.path().join("config.json"), Value::Object(fields).to_string()).unwrap();
    let file = Checkpoint::open(fixture().join("model.safetensors")).unwrap();
    let stored = file.views().map(|view| {
        let info = view.info();
        (info.name.clone(), (info.shape.clone(), view.to_f32().unwrap()))
    });
    let tensors = tensors(stored.collect());
    let specs: Vec<TensorSpec> = tensors
        .iter()
        .map(|(name, (shape, _))| TensorSpec { name: name.clone(), shape: shape.clone(), element: ElementType::F32 })
        .collect();
    let path = folder.path().join("model.safetensors");
    let mut writer = write::safetensors(&path, &BTreeMap::new(), &specs).unwrap();
    for (name, (_, values)) in &tensors {
        writer.append_f32(name, values).unwrap();
    }
    writer.finish().unwrap();
    folder
}

fn renamed(tensors: Tensors, name: impl Fn(&str) -> String) -> Tensors {
    tensors.into_iter().map(|(old, tensor)| (name(&old), tensor)).collect()
}

fn hidden(opened: &Opened, ids: &[u32]) -> Vec<f32> {
    rows(&opened.decoder(Weights::Frozen).unwrap(), ids)
}

fn rows(decoder: &Decoder, ids: &[u32]) -> Vec<f32> {
    let hidden = decoder.forward(&Batch::single(ids), None, &mut NoTap).unwrap();
    hidden.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn names_of_pre_training_and_of_the_first_checkpoints_are_read() {
    let expected = hidden(&open(&fixture()).unwrap(), &[2, 7, 9, 3]);
    let inside = changed(json!({}), |tensors| {
        let mut tensors = renamed(tensors, |name| format!("bert.{name}"));
        tensors.insert("cls.predictions.bias".into(), (vec![128], vec![0.5; 128]));
        tensors.insert("cls.seq_relationship.weight".into(), (vec![2, 32], vec![0.5; 64]));
        tensors.insert("bert.embeddings.position_ids".into(), (vec![1, 64], vec![0.0; 64]));
        tensors
    });
    assert_eq!(hidden(&open(inside.path()).unwrap(), &[2, 7, 9, 3]), expected);
    let old = changed(json!({}), |tensors| {
        renamed(tensors, |name| {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        })
    });
    assert_eq!(hidden(&open(old.path()).unwrap(), &[2, 7, 9, 3]), expected);
}

#[test]
fn tensors_that_nobody_knows_are_refused() {
    let refused = |outside: &'static str, inside: &'static str| {
        let folder = changed(json!({}), |tensors| {
            let mut tensors = renamed(tensors, |name| format!("{outside}{name}"));
            tensors.insert(inside.into(), (vec![2], vec![1.0; 2]));
            tensors
        });
        open(folder.path()).err().expect("refused").to_string()
    };
    for (outside, inside) in [("", "adapter.weight"), ("bert.", "bert.adapter.weight"), ("bert.", "classifier.weight")]
    {
        let message = refused(outside, inside);
        assert!(message.ends_with(&format!("1 tensor(s) unknown to architecture `bert`: `{inside}`")), "{message}");
    }
}

#[test]
fn positions_of_another_kind_and_decoders_are_refused() {
    let refused = |config: Value| open(changed(config, |tensors| tensors).path()).err().expect("refused").to_string();
    let relative = refused(json!({"position_embedding_type": "relative_key_query"}));
    assert!(
        relative.ends_with("field `position_embedding_type` is \"relative_key_query\", expected absolute"),
        "{relative}"
    );
    for field in ["is_decoder", "add_cross_attention"] {
        let message = refused(json!({field: true}));
        assert!(
            message.ends_with(&format!("field `{field}` is true, expected false (an encoder by itself)")),
            "{message}"
        );
    }
    assert!(refused(json!({"type_vocab_size": 0})).contains("type_vocab_size"));
    assert!(refused(json!({"type_vocab_size": 3})).contains("has shape [2, 32]"));
}

#[test]
fn it_has_no_logits_and_no_cache() {
    let opened = open(&fixture()).unwrap();
    let said = "`bert` is an encoder: it has no language-model head";
    for weights in [Weights::Frozen, Weights::Streamed, Weights::Trainable] {
        let decoder = opened.decoder(weights).unwrap();
        let hidden = decoder.forward(&Batch::single(&[2, 7, 3]), None, &mut NoTap).unwrap();
        assert_eq!(decoder.logits(&hidden).unwrap_err().to_string(), said);
        assert_eq!(decoder.score(&hidden, &[1, 2, 3]).unwrap_err().to_string(), said);
        assert_eq!(decoder.negative_log_likelihood(&hidden, vec![1, 2, 3]).unwrap_err().to_string(), said);
        let mut cache = KvCache::new(decoder.spec(), 1);
        let error = decoder.forward(&Batch::single(&[2, 7]), Some(&mut cache), &mut NoTap).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.is_bad_input()), (said, true));
        assert!(error.hint().unwrap().contains("lathe embed"));
    }
}

#[test]
fn a_token_sees_what_comes_after_it() {
    let opened = open(&fixture()).unwrap();
    let width = opened.spec.hidden_size;
    let (one, other) = (hidden(&opened, &[2, 7, 9, 3]), hidden(&opened, &[2, 7, 10, 3]));
    assert_ne!(one[..width], other[..width]);
}

/// The vector that the folder asks for.
fn vector(opened: &Opened, decoder: &Decoder, ids: &[u32]) -> Vec<f64> {
    let spec = opened.sentence().unwrap();
    assert_eq!((spec.pooling, spec.normalise), (Pooling::Mean, Normalise::UnitLength));
    let width = decoder.spec().hidden_size;
    let mut mean = vec![0.0; width];
    for row in rows(decoder, ids).chunks_exact(width) {
        mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += f64::from(*x) / ids.len() as f64);
    }
    let norm = mean.iter().map(|x| x * x).sum::<f64>().sqrt();
    mean.iter().map(|x| x / norm).collect()
}

/// Texts, their tokens and vectors as sentence-transformers has them.
fn compare_sentences(folder: &Path, golden: &Path) -> f64 {
    let opened = open(folder).unwrap();
    let decoder = opened.decoder(Weights::Frozen).unwrap();
    let tokenizer = opened.tokenizer().unwrap();
    let most = opened.sentence().unwrap().max_tokens.unwrap();
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(golden).unwrap()).unwrap();
    let list = |field: &str| golden[field].as_array().unwrap().clone();
    let mut worst = 0f64;
    assert!(list("texts").len() > 3);
    for ((text, ids), expected) in list("texts").iter().zip(list("ids")).zip(list("vectors")) {
        let expected_ids: Vec<u32> = serde_json::from_value(ids).unwrap();
        let mut ids = tokenizer.encode(text.as_str().unwrap(), BosEos::Add, Markup::Text).unwrap();
        // Cut before the mark at the end.
        if ids.len() > most {
            let end = ids.pop().unwrap();
            ids.truncate(most - 1);
            ids.push(end);
        }
        assert_eq!(ids, expected_ids, "{text}");
        let expected: Vec<f64> = serde_json::from_value(expected).unwrap();
        let found = vector(&opened, &decoder, &ids);
        assert_eq!(found.len(), expected.len());
        worst = found.iter().zip(&expected).fold(worst, |worst, (a, b)| worst.max((a - b).abs()));
    }
    worst
}

#[test]
fn sentences_of_the_fixture_have_the_reference_s_vectors() {
    let worst = compare_sentences(&fixture(), &fixture().join("sentences.json"));
    assert!(worst < 1e-5, "{worst}");
}

#[test]
fn poolings_have_the_reference_s_values() {
    let opened = open(&fixture()).unwrap();
    let expected = Checkpoint::open(fixture().join("expected.safetensors")).unwrap();
    let get = |name: &str| expected.tensor(name).unwrap().to_f32().unwrap();
    let decoder = opened.decoder(Weights::Frozen).unwrap();
    for sequence in 0..3 {
        let ids: Vec<u32> = get(&format!("seq{sequence}.input_ids")).iter().map(|id| *id as u32).collect();
        let (hidden, width) = (rows(&decoder, &ids), opened.spec.hidden_size);
        let (first, last) = (&hidden[..width], &hidden[hidden.len() - width..]);
        for (mode, found) in [("cls", first), ("lasttoken", last)] {
            for (found, expected) in found.iter().zip(get(&format!("seq{sequence}.pooled.{mode}"))) {
                assert!((found - expected).abs() < 1e-5, "{mode}: {found} {expected}");
            }
        }
    }
}

#[test]
fn minilm() {
    let home = Home::from_environment().unwrap();
    let resolved = match resolve(&"minilm".parse::<ModelReference>().unwrap(), &home) {
        Ok(resolved) => resolved,
        Err(error) => return println!("skipped minilm: {error}"),
    };
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/minilm.json");
    let worst = compare_sentences(&resolved.path, &golden);
    println!("minilm: worst value of a vector of length 1: {worst:.1e}");
    assert!(worst < 1e-5, "{worst}");
}

#[test]
fn an_error_of_an_encoder_is_not_one_of_a_batch() {
    let opened = open(&fixture()).unwrap();
    let decoder = opened.decoder(Weights::Frozen).unwrap();
    let error = decoder.forward(&Batch::single(&[3; 65]), None, &mut NoTap).unwrap_err();
    assert!(matches!(error, Error::ContextExceeded { tokens: 65, context: 64 }));
}
