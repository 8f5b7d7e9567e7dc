//! How fast each rule is on one thread, all its readings of the inputs and the result included: `cargo bench -p
//! lathe-merge`, or a part of the names after `--`.
//!
//! Inputs are in memory; a reading copies them. A tensor has 2^22 numbers in rows of 2048, rounded to bf16 as those of
//! most checkpoints are. Throughput counts numbers of the result.

use std::hint::black_box;
use std::ops::Range;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lathe_merge::rule::{Consensus, Deltas, MaskKey, Over, Rescale, Rule, Sparsify};
use lathe_merge::{InputError, Inputs};

const LEN: usize = 1 << 22;
const ROW: usize = 2048;
const TILE: usize = 1 << 16;

struct Memory(Vec<Vec<f32>>);

impl Inputs for Memory {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn shape(&self) -> &[usize] {
        &[LEN / ROW, ROW]
    }

    fn read(&self, model: usize, range: Range<usize>, out: &mut [f32]) -> Result<(), InputError> {
        out.copy_from_slice(&self.0[model][range]);
        Ok(())
    }
}

/// About a normal distribution with this deviation.
fn numbers(seed: u32, deviation: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 - 0.5
    };
    (0..LEN).map(|_| (next() + next() + next() + next()) * deviation * 1.73).collect()
}

/// A base and two children of it.
fn family() -> Memory {
    let bf16 = |x: f32| f32::from_bits(x.to_bits().wrapping_add(0x8000) & 0xffff_0000);
    let base: Vec<f32> = numbers(1, 0.02).into_iter().map(bf16).collect();
    let child = |seed| base.iter().zip(numbers(seed, 0.002)).map(|(b, d)| bf16(b + d)).collect();
    Memory(vec![base.clone(), child(2), child(3)])
}

fn rules() -> [(&'static str, usize, Rule); 11] {
    let deltas = |sparsify, rescale, consensus| {
        let (weights, sparsify) = (vec![0.6, 0.4], vec![sparsify; 2]);
        let normalize = consensus != Consensus::Sum;
        Rule::Deltas(Deltas { weights, sparsify, rescale, consensus, normalize, lambda: 1.0 })
    };
    let random = Sparsify::Random { density: 0.5 };
    let ranked = Sparsify::RandomByRank { density: 0.5, epsilon: 0.15 };
    let largest = Sparsify::Largest { density: 0.5 };
    let middle = Sparsify::Middle { density: 0.9, gamma: 0.01 };
    [
        ("linear", 2, Rule::Linear { weights: vec![0.6, 0.4], normalize: true }),
        ("slerp", 2, Rule::Slerp { t: 0.3 }),
        ("nuslerp rows", 3, Rule::Nuslerp { weights: [1.0, 2.0], has_base: true, over: Over::Rows }),
        ("task arithmetic", 3, deltas(Sparsify::All, Rescale::None, Consensus::Sum)),
        ("ties", 3, deltas(largest, Rescale::None, Consensus::Sign)),
        ("dare ties", 3, deltas(random, Rescale::InverseDensity, Consensus::Sign)),
        ("dare linear, l1", 3, deltas(random, Rescale::L1, Consensus::Sum)),
        ("della", 3, deltas(ranked, Rescale::L1, Consensus::Sign)),
        ("breadcrumbs", 3, deltas(middle, Rescale::None, Consensus::Sum)),
        ("model stock", 3, Rule::ModelStock { by_rows: false }),
        ("sce", 3, Rule::Sce { select_topk: 0.5 }),
    ]
}

fn bench(criterion: &mut Criterion) {
    let family = family();
    let mask = MaskKey { seed: 1, tensor: "model.layers.0.mlp.up_proj.weight" };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    let mut group = criterion.benchmark_group("rules");
    group.throughput(Throughput::Elements(LEN as u64)).sample_size(10).measurement_time(Duration::from_secs(1));
    for (name, count, rule) in rules() {
        let inputs = Memory(family.0[..count].to_vec());
        let mut scratch = vec![0.0; count * TILE];
        let mut out = vec![0.0; TILE];
        let mut merge = || {
            let prepared = rule.prepare(&mask, &inputs).expect("inputs that fit");
            for first in (0..LEN).step_by(TILE) {
                for (model, part) in scratch.chunks_exact_mut(TILE).enumerate() {
                    inputs.read(model, first..first + TILE, part).expect("numbers in memory");
                }
                let parts: Vec<&[f32]> = scratch.chunks_exact(TILE).collect();
                prepared.fill(first, &parts, black_box(&mut out));
            }
        };
        group.bench_function(name, |bencher| pool.install(|| bencher.iter(&mut merge)));
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
