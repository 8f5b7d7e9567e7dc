//! `lathe merge`: weights against closed forms, files that open, and nothing left behind where something is wrong.

mod deltas;
mod explored;
mod goldens;
mod methods;
mod random;
mod recipes;
mod refused;
mod tokens;

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::bench::Bench;
use crate::models::{Start, copy, edit_tensors, reading};
use crate::tensors::{self, Stored};

/// Tensors by name.
pub(crate) type Weights = BTreeMap<String, Stored>;

/// What a result may be away from the closed form, as a share of the larger of 1 and the number.
const NEAR: f64 = 2e-6;

/// A folder with the llama fixture, every number moved by up to `size` in a direction of `seed`'s.
fn moved(bench: &Bench, to: &str, seed: u64, size: f32) {
    copy(bench, "llama", to);
    move_numbers(bench, to, seed, size);
}

/// The same with a tokenizer.
fn moved_reading(bench: &Bench, to: &str, seed: u64, size: f32) {
    reading(bench, to, 64, Start::Nothing);
    move_numbers(bench, to, seed, size);
}

fn move_numbers(bench: &Bench, folder: &str, seed: u64, size: f32) {
    edit_tensors(bench, folder, |tensors| {
        for (number, tensor) in tensors.values_mut().enumerate() {
            let first = (number as u64) << 32;
            let values: Vec<f32> = (first..).zip(tensor.values()).map(|(i, x)| x + size * noise(seed, i)).collect();
            *tensor = Stored::f32(&tensor.shape, &values);
        }
    });
}

/// Between -1 and 1: the finaliser of SplitMix64.
fn noise(seed: u64, index: u64) -> f32 {
    let mut x = index.wrapping_add(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^= x >> 31;
    (x >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}

/// The weights of a folder, of all its files.
fn weights(bench: &Bench, folder: &str) -> Weights {
    let files = fs::read_dir(bench.path(folder)).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
    files.flat_map(|path| tensors::read(&path)).collect()
}

/// Writes a configuration, merges by it, and gives the weights.
fn merged(bench: &Bench, yaml: &str, out: &str, more: &[&str]) -> Weights {
    bench.write("merge.yaml", yaml);
    bench.succeed(&[&["merge", "merge.yaml", "--out", out], more].concat());
    weights(bench, out)
}

/// A file of a folder as JSON.
fn json_of(bench: &Bench, file: &str) -> Value {
    serde_json::from_slice(&fs::read(bench.path(file)).unwrap()).unwrap()
}

fn numbers(tensor: &Stored) -> Vec<f64> {
    tensor.values().into_iter().map(f64::from).collect()
}

/// Compares every tensor of a merge with a closed form on the same tensor of the models.
fn assert_follows(merged: &Weights, models: &[&Weights], form: impl Fn(&str, &[Vec<f64>]) -> Vec<f64>) {
    assert_eq!(merged.keys().collect::<Vec<_>>(), models[0].keys().collect::<Vec<_>>());
    for (name, tensor) in merged {
        let inputs: Vec<Vec<f64>> = models.iter().map(|model| numbers(&model[name])).collect();
        assert_eq!(tensor.shape, models[0][name].shape, "{name}");
        assert_near(name, tensor, &form(name, &inputs));
    }
}

fn assert_near(name: &str, tensor: &Stored, expected: &[f64]) {
    let found = numbers(tensor);
    assert_eq!(found.len(), expected.len(), "{name}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let most = NEAR * expected.abs().max(1.0);
        assert!((found - expected).abs() <= most, "{name}[{i}]: {found} instead of {expected}");
    }
}

/// `Σ c_i x_i`
fn combination(coefficients: &[f64], vectors: &[Vec<f64>]) -> Vec<f64> {
    let at = |i: usize| coefficients.iter().zip(vectors).map(|(c, vector)| c * vector[i]).sum();
    (0..vectors[0].len()).map(at).collect()
}

fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// The number of a tensor's layer, in a model of three layers, as a depth from 0 to 1; 0 outside the layers.
fn depth(name: &str) -> f64 {
    name.strip_prefix("model.layers.").map_or(0.0, |rest| rest[..1].parse::<f64>().unwrap() / 2.0)
}
