//! The three real models against reference token ids, losses, hidden-state norms and top tokens.
//!
//! A model that is not in the cache is skipped with a line; `lathe fetch ALIAS` brings it.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::path::PathBuf;

use candle_core::Tensor;
use lathe_model::reference::{Home, ModelReference, resolve};
use lathe_model::{Batch, Coarse, Error, NoTap, Site, Tap, Weights, open};
use lathe_tokenizer::{BosEos, Markup};
use serde_json::Value;

#[test]
fn smollm2() {
    compare("smollm2");
}

#[test]
fn gemma3_270m() {
    compare("gemma3-270m");
}

#[test]
fn qwen_coder() {
    compare("qwen2.5-coder-0.5b");
}

fn compare(alias: &str) {
    let home = Home::from_environment().unwrap();
    let resolved = match resolve(&alias.parse::<ModelReference>().unwrap(), &home) {
        Ok(resolved) => resolved,
        Err(error) => return println!("skipped {alias}: {error}"),
    };
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../tests/goldens/{alias}.json"));
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();

    let opened = open(&resolved.path).unwrap();
    let tokenizer = opened.tokenizer().unwrap();
    for item in golden["tokenizer"].as_array().unwrap().iter().filter(|item| item["agree"] == true) {
        let text = item["text"].as_str().unwrap();
        assert_eq!(tokenizer.encode(text, BosEos::Omit, Markup::Text).unwrap(), ids(&item["ids"]), "{text:?}");
    }

    let decoder = opened.decoder(Weights::Frozen).unwrap();
    for (name, text) in golden["texts"].as_object().unwrap() {
        let expected = ids(&text["ids"]);
        let ids = tokenizer.encode(text["text"].as_str().unwrap(), BosEos::Add, Markup::Text).unwrap();
        assert_eq!(ids, expected, "{name}");

        let mut tap = Norms { layers: decoder.spec().layers.len(), norms: Vec::new() };
        let hidden = decoder.forward(&Batch::single(&ids), None, &mut tap).unwrap();
        let last = ids.len() - 1;
        let scores = decoder.score(&hidden.narrow(0, 0, last).unwrap(), &ids[1..]).unwrap();
        let mut worst_nll = 0f64;
        for (score, expected) in scores.iter().zip(text["nll"].as_array().unwrap()) {
            worst_nll = worst_nll.max((score.nll - expected.as_f64().unwrap()).abs());
        }
        let mut worst_norm = 0f64;
        let norms = text["hidden_norm_last"].as_array().unwrap();
        assert_eq!(tap.norms.len(), norms.len());
        for (norm, expected) in tap.norms.iter().zip(norms) {
            let expected = expected.as_f64().unwrap();
            worst_norm = worst_norm.max((norm - expected).abs() / expected);
        }
        println!("{alias} {name}: worst NLL {worst_nll:.5} nats, worst hidden-state norm {:.4} %", 100.0 * worst_norm);
        assert!(worst_nll < 0.02, "{name}");
        assert!(worst_norm < 1e-3, "{name}");

        let logits = decoder.logits(&hidden.narrow(0, last, 1).unwrap()).unwrap();
        let logits: Vec<f32> = logits.flatten_all().unwrap().to_vec1().unwrap();
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        let top: Vec<u64> = text["last_top5"].as_array().unwrap().iter().map(|t| t[0].as_u64().unwrap()).collect();
        assert_eq!(order[..5].iter().map(|id| *id as u64).collect::<Vec<_>>(), top, "{name}");
    }
    // The same text after another one in a batch.
    let a = tokenizer.encode("fn main", BosEos::Add, Markup::Text).unwrap();
    let alone = decoder.forward(&Batch::single(&a), None, &mut NoTap).unwrap();
    let both = decoder.forward(&Batch::of([&[5, 6, 7][..], &a[..]]), None, &mut NoTap).unwrap();
    let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(flat(&alone), flat(&both.narrow(0, 3, a.len()).unwrap()));
}

/// The file's own precision on real 4-bit weights: near the f32 result, and the same in a batch.
#[test]
fn native_arithmetic_stays_near_on_smollm2() {
    let home = Home::from_environment().unwrap();
    let resolved = match resolve(&"smollm2".parse::<ModelReference>().unwrap(), &home) {
        Ok(resolved) => resolved,
        Err(error) => return println!("skipped smollm2: {error}"),
    };
    let opened = open(&resolved.path).unwrap();
    let text = "The quick brown fox jumps over the lazy dog, and the dog, which had been asleep since noon, looks up.";
    let ids = opened.tokenizer().unwrap().encode(text, BosEos::Add, Markup::Text).unwrap();
    let last = ids.len() - 1;
    let mean = |weights| {
        let decoder = opened.decoder(weights).unwrap();
        let hidden = decoder.forward(&Batch::single(&ids), None, &mut NoTap).unwrap();
        let both = decoder.forward(&Batch::of([&[5, 6, 7][..], &ids[..]]), None, &mut NoTap).unwrap();
        let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(flat(&hidden), flat(&both.narrow(0, 3, ids.len()).unwrap()));
        let scores = decoder.score(&hidden.narrow(0, 0, last).unwrap(), &ids[1..]).unwrap();
        scores.iter().map(|score| score.nll).sum::<f64>() / last as f64
    };
    let exact = mean(Weights::Frozen);
    for coarse in [Coarse::Native, Coarse::Bf16] {
        let coarse_mean = mean(Weights::Coarse(coarse));
        println!("smollm2: {exact:.5} nats per token in f32, {coarse_mean:.5} in {coarse:?}");
        assert!(coarse_mean != exact && (coarse_mean - exact).abs() < 0.05, "{coarse:?}: {exact} {coarse_mean}");
    }
}

fn ids(list: &Value) -> Vec<u32> {
    list.as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
}

/// Norm of the last token's hidden state at every layer.
struct Norms {
    layers: usize,
    norms: Vec<f64>,
}

impl Tap for Norms {
    fn wants(&self, site: Site) -> bool {
        matches!(site, Site::ResidualPre(_) | Site::FinalNorm)
    }

    fn tensor(&mut self, _: Site, value: &Tensor) -> Result<(), Error> {
        let (rows, _) = value.dims2()?;
        let last: Vec<f32> = value.narrow(0, rows - 1, 1)?.flatten_all()?.to_vec1()?;
        self.norms.push(last.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt());
        assert!(self.norms.len() <= self.layers + 1);
        Ok(())
    }
}
