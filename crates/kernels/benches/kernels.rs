//! How fast each family of kernels is, by itself: `cargo bench -p lathe-kernels`, or a part of the names after `--`.
//!
//! Sizes are those of a model with 135 million parameters: a hidden size of 576, a feed-forward width of 1,536, 9 heads
//! of 64 that share 3 keys and values, and of 512 tokens. Products and attention count multiply-adds, everything else
//! values. `lathe bench` times whole models; look there first.

#![expect(clippy::unwrap_used, reason = "operands of fixed sizes")]

use std::convert::Infallible;
use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lathe_kernels::activation::{Activation, gated};
use lathe_kernels::attention::{self, KeyValues, Reach, Rows, Shape};
use lathe_kernels::matmul::{
    Arithmetic, Code, Coded, Coding, GroupRows, Groups, Left, Offset, Packed, Right, Scale, Start, Threads, matmul,
};
use lathe_kernels::rotary::{Angles, Direction};
use lathe_kernels::{logits, norm};

const TOKENS: usize = 512;
const HIDDEN: usize = 576;
const WIDE: usize = 1536;
const HEADS: usize = 9;
const KV_HEADS: usize = 3;
const HEAD_DIM: usize = 64;
const VOCABULARY: usize = 49_152;

/// Any numbers between -1 and 1.
fn numbers(count: usize) -> Vec<f32> {
    let states = std::iter::successors(Some(1u32), |x| Some(x.wrapping_mul(747_796_405).wrapping_add(2_891_336_453)));
    states.take(count).map(|x| x as f32 / u32::MAX as f32 * 2.0 - 1.0).collect()
}

/// A matrix `[k, n]` in groups of 32 small integers with a scale.
fn grouped(code: Code, k: usize, n: usize) -> Coded {
    let coding = Coding::Groups(Groups { len: 32, code, scale: Scale::F16, offset: Offset::Without });
    let mut coded = Coded::zeros(coding, k, n);
    let fill = |column: usize, _, rows: GroupRows<'_>| {
        let codes = rows.codes.iter_mut().zip((column..).map(|i| i % 16));
        codes.for_each(|(code, i)| *code = u8::try_from(i).unwrap());
        rows.scales.fill(0.125);
        Ok::<_, Infallible>(())
    };
    coded.fill_groups(fill).unwrap();
    coded
}

/// A matrix `[k, n]` of bf16.
fn halves(k: usize, n: usize) -> Coded {
    let mut coded = Coded::zeros(Coding::Bf16, k, n);
    let fill = |_, _, values: &mut [f32]| {
        values.fill(0.125);
        Ok::<_, Infallible>(())
    };
    coded.fill_halves(fill).unwrap();
    coded
}

fn products(criterion: &mut Criterion) {
    let (k, n) = (HIDDEN, WIDE);
    let a = numbers(TOKENS * k);
    let mut c = vec![0.0; TOKENS * n];
    let packed = Packed::from_rows(&numbers(k * n), k, n);
    let nibbles = grouped(Code::Nibble(-8), k, n);
    let bytes = grouped(Code::Byte, k, n);
    let bf16 = halves(k, n);
    let rights = [
        ("f32", Right::from(packed.view())),
        ("4 bits in f32", Right::Coded(&nibbles, Arithmetic::F32)),
        ("4 bits in bytes", Right::Coded(&nibbles, Arithmetic::Int8)),
        ("8 bits in f32", Right::Coded(&bytes, Arithmetic::F32)),
        ("8 bits in bytes", Right::Coded(&bytes, Arithmetic::Int8)),
        ("bf16 in f32", Right::Coded(&bf16, Arithmetic::F32)),
        ("bf16", Right::Coded(&bf16, Arithmetic::Bf16)),
    ];
    let mut group = criterion.benchmark_group("product");
    for (name, right) in rights {
        for m in [1, 4, 16, TOKENS] {
            group.throughput(Throughput::Elements((m * k * n) as u64));
            group.bench_function(BenchmarkId::new(name, m), |bencher| {
                let left = Left { data: &a[..m * k], m, row_stride: k };
                bencher.iter(|| matmul(black_box(left), right, Start::Zero, &mut c[..m * n], n, Threads::Pool));
            });
        }
    }
}

fn attention(criterion: &mut Criterion) {
    let shape = Shape {
        heads: HEADS,
        kv_heads: KV_HEADS,
        head_dim: HEAD_DIM,
        reach: Reach::Before,
        window: None,
        scale: 0.125,
        soft_cap: None,
    };
    let (q_width, kv_width) = (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM);
    let (q, kv) = (numbers(TOKENS * q_width), numbers(TOKENS * kv_width));
    let heads = (0..KV_HEADS).map(|head| {
        let rows = &kv[head * HEAD_DIM..];
        KeyValues::from_rows(HEAD_DIM, rows, rows, kv_width, TOKENS)
    });
    let heads: Vec<KeyValues> = heads.collect();
    let heads: Vec<&KeyValues> = heads.iter().collect();
    let mut group = criterion.benchmark_group("attention");
    for (name, position) in [("a text", 0), ("its last token", TOKENS - 1)] {
        let len = TOKENS - position;
        let q = &q[..len * q_width];
        let mut out = vec![0.0; q.len()];
        group.throughput(Throughput::Elements((q.len() * (position + TOKENS + 1)) as u64));
        group.bench_function(name, |bencher| {
            let rows = [Rows { start: 0, len, position }];
            bencher.iter(|| attention::forward(&shape, &rows, black_box(q), &heads, None, &mut out));
        });
    }
}

fn row_by_row(criterion: &mut Criterion) {
    let (x, weight) = (numbers(TOKENS * HIDDEN), numbers(HIDDEN));
    let mut out = vec![0.0; x.len()];
    let mut group = criterion.benchmark_group("norm");
    group.throughput(Throughput::Elements(x.len() as u64));
    for (name, kind) in [("rms", norm::Kind::Rms), ("layer", norm::Kind::Layer)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| norm::forward(kind, black_box(&x), HIDDEN, Some(&weight), None, 1e-5, &mut out));
        });
    }
    group.finish();

    let positions: Vec<u32> = (0..).take(TOKENS).collect();
    let frequencies: Vec<f32> = (0..HEAD_DIM / 2).map(|pair| 0.75_f32.powf(pair as f32)).collect();
    let angles = Angles::new(&positions, &frequencies, 1.0);
    let mut group = criterion.benchmark_group("rotary");
    group.throughput(Throughput::Elements(x.len() as u64));
    group.bench_function("queries", |bencher| {
        bencher.iter(|| angles.rotate(black_box(&mut out), HEADS, HEAD_DIM, Direction::Forward));
    });
    group.finish();

    let (gate, up) = (numbers(TOKENS * WIDE), numbers(TOKENS * WIDE));
    let mut out = vec![0.0; gate.len()];
    let mut group = criterion.benchmark_group("gated activation");
    group.throughput(Throughput::Elements(gate.len() as u64));
    for (name, f) in [("silu", Activation::Silu), ("gelu tanh", Activation::GeluTanh)] {
        group.bench_function(name, |bencher| bencher.iter(|| gated(f, black_box(&gate), &up, &mut out)));
    }
    group.finish();

    let row = numbers(VOCABULARY);
    let mut group = criterion.benchmark_group("logits");
    group.throughput(Throughput::Elements(row.len() as u64));
    group.bench_function("summary of a row", |bencher| bencher.iter(|| logits::summarise(black_box(&row))));
}

criterion_group! {
    name = kernels;
    // A few seconds for all of them: differences below a few per cent are noise on most machines anyway.
    config = Criterion::default().warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(400)).sample_size(10);
    targets = products, attention, row_by_row
}
criterion_main!(kernels);
