//! Attention against the definition in f64, its cache against the full pass, its gradients against differences.

use std::sync::Mutex;

use proptest::prelude::*;

use super::*;
use crate::noise;

struct Case {
    shape: Shape,
    sequences: Vec<Rows>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Case {
    fn new(shape: Shape, lengths: &[usize], seed: u32) -> Self {
        let mut start = 0;
        let sequences = lengths
            .iter()
            .map(|&len| {
                start += len;
                Rows { start: start - len, len, position: 0 }
            })
            .collect();
        let (width, kv_width) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
        Self {
            shape,
            sequences,
            q: noise(start * width, seed),
            k: noise(start * kv_width, seed + 1),
            v: noise(start * kv_width, seed + 2),
        }
    }

    fn key_values(&self) -> Vec<KeyValues> {
        key_values(&self.shape, &self.sequences, &self.k, &self.v)
    }

    /// As it is run with a cache and without.
    fn run(&self) -> Vec<f32> {
        let kv = self.key_values();
        let mut out = vec![f32::NAN; self.q.len()];
        forward(&self.shape, &self.sequences, &self.q, &kv.iter().collect::<Vec<_>>(), None, &mut out);
        let mut whole = vec![f32::NAN; self.q.len()];
        forward_whole(&self.shape, &self.sequences, &self.q, &self.k, &self.v, &mut whole);
        assert!(out.iter().zip(&whole).all(|(a, b)| a.to_bits() == b.to_bits()), "the same without a cache");
        out
    }

    /// The definition, in f64.
    fn reference(&self) -> Vec<f64> {
        let s = &self.shape;
        let (d, width, kv_width, group) =
            (s.head_dim, s.heads * s.head_dim, s.kv_heads * s.head_dim, s.heads / s.kv_heads);
        let mut out = vec![0.0; self.q.len()];
        for rows in &self.sequences {
            for head in 0..s.heads {
                for i in 0..rows.len {
                    let sees = |j: usize| {
                        let (near, before) = (s.window.is_none_or(|window| i.abs_diff(j) < window), j <= i);
                        near && (before || s.reach == Reach::Both)
                    };
                    let visible: Vec<usize> = (0..rows.len).filter(|j| sees(*j)).collect();
                    let dot = |j: usize| {
                        (0..d)
                            .map(|c| {
                                f64::from(self.q[(rows.start + i) * width + head * d + c])
                                    * f64::from(self.k[(rows.start + j) * kv_width + head / group * d + c])
                            })
                            .sum::<f64>()
                    };
                    let scores: Vec<f64> = visible
                        .iter()
                        .map(|&j| {
                            let s_j = dot(j) * f64::from(s.scale);
                            s.soft_cap.map_or(s_j, |cap| f64::from(cap) * (s_j / f64::from(cap)).tanh())
                        })
                        .collect();
                    let max = scores.iter().copied().fold(f64::MIN, f64::max);
                    let total: f64 = scores.iter().map(|s| (s - max).exp()).sum();
                    for (&j, score) in visible.iter().zip(&scores) {
                        for c in 0..d {
                            out[(rows.start + i) * width + head * d + c] += (score - max).exp() / total
                                * f64::from(self.v[(rows.start + j) * kv_width + head / group * d + c]);
                        }
                    }
                }
            }
        }
        out
    }
}

fn shapes() -> impl Strategy<Value = Shape> {
    let reach = prop_oneof![Just(Reach::Before), Just(Reach::Both)];
    let cap = prop::option::of(Just(0.7f32));
    (1usize..3, 1usize..4, 1usize..40, reach, prop::option::of(1usize..70), cap).prop_map(
        |(kv_heads, group, head_dim, reach, window, soft_cap)| Shape {
            heads: kv_heads * group,
            kv_heads,
            head_dim,
            reach,
            window,
            scale: 1.3 / (head_dim as f32).sqrt(),
            soft_cap,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn equals_the_definition(shape in shapes(), lengths in prop::collection::vec(0usize..120, 1..3), seed in 1u32..99) {
        let case = Case::new(shape, &lengths, seed);
        for (out, expected) in case.run().iter().zip(case.reference()) {
            prop_assert!((f64::from(*out) - expected).abs() < 1e-5, "{out} {expected}");
        }
    }

    #[test]
    fn decoding_through_a_cache_gives_the_same_bits(
        shape in shapes(), len in 1usize..120, step in 1usize..50, seed in 1u32..99,
    ) {
        // What looks ahead cannot be decoded.
        let shape = Shape { reach: Reach::Before, ..shape };
        let case = Case::new(shape, &[len], seed);
        let whole = case.run();
        let (d, width, kv_width) = (shape.head_dim, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
        let mut kv = vec![KeyValues::new(d); shape.kv_heads];
        let mut position = 0;
        while position < len {
            let rows = step.min(len - position);
            for (head, kv) in kv.iter_mut().enumerate() {
                let first = position * kv_width + head * d;
                // A detour that is rolled back must leave no trace.
                kv.append(&case.v, &case.k, 0, 3);
                kv.truncate(position);
                kv.append(&case.k[first..], &case.v[first..], kv_width, rows);
                kv.drop_before(shape.first_visible(position));
            }
            let mut out = vec![0.0; rows * width];
            let sequence = [Rows { start: 0, len: rows, position }];
            let q = &case.q[position * width..(position + rows) * width];
            forward(&shape, &sequence, q, &kv.iter().collect::<Vec<_>>(), None, &mut out);
            prop_assert_eq!(&out[..], &whole[position * width..(position + rows) * width]);
            position += rows;
        }
        if let Some(window) = shape.window {
            for kv in &kv {
                prop_assert!(kv.len() - kv.first() < window + step + PANEL, "the cache stays near the window");
            }
        }
    }

    #[test]
    fn a_sequence_does_not_see_its_neighbours(shape in shapes(), a in 1usize..60, b in 1usize..60, seed in 1u32..99) {
        let both = Case::new(shape, &[a, b], seed);
        let (width, kv_width) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
        let alone = Case {
            shape,
            sequences: vec![Rows { start: 0, len: b, position: 0 }],
            q: both.q[a * width..].to_vec(),
            k: both.k[a * kv_width..].to_vec(),
            v: both.v[a * kv_width..].to_vec(),
        };
        prop_assert_eq!(&both.run()[a * width..], &alone.run()[..]);
    }
}

#[test]
fn an_encoder_sees_every_key_in_order_of_its_position() {
    let shape =
        Shape { heads: 1, kv_heads: 1, head_dim: 1, reach: Reach::Both, window: None, scale: 1.0, soft_cap: None };
    assert_eq!((shape.first_visible(3), shape.end_visible(3, 9)), (0, 9));
    let near = Shape { window: Some(3), ..shape };
    assert_eq!((near.first_visible(3), near.end_visible(3, 9), near.end_visible(8, 9)), (1, 6, 9));
    // Scores of 0 weigh all keys alike: each query gets the mean of the values.
    let case = Case {
        shape,
        sequences: vec![Rows { start: 0, len: 3, position: 0 }],
        q: vec![0.0; 3],
        k: vec![1.0, 2.0, 3.0],
        v: vec![3.0, 6.0, 9.0],
    };
    for x in case.run() {
        assert!((x - 6.0).abs() < 1e-5, "{x}");
    }
}

#[test]
fn patterns_are_whole_rows_that_sum_to_one() {
    for reach in [Reach::Before, Reach::Both] {
        patterns_sum_to_one(reach);
    }
}

fn patterns_sum_to_one(reach: Reach) {
    let shape = Shape { heads: 4, kv_heads: 2, head_dim: 8, reach, window: Some(40), scale: 0.35, soft_cap: None };
    let case = Case::new(shape, &[100, 3], 5);
    let kv = case.key_values();
    let mut out = vec![0.0; case.q.len()];
    let seen = Mutex::new(vec![0usize; 8]);
    let sink = |p: &Pattern<'_>| {
        let mut seen = seen.lock().expect("no panics");
        let slot = &mut seen[p.sequence * 4 + p.head];
        assert_eq!(*slot, p.first_query, "blocks come in order");
        *slot += p.queries;
        for (r, row) in p.probabilities.chunks_exact(p.keys).enumerate() {
            let sum: f32 = row.iter().sum();
            assert!((sum - 1.0).abs() < 1e-5);
            let position = p.first_query + r;
            for (c, x) in row.iter().enumerate() {
                let key = p.first_key + c;
                let ahead = if reach == Reach::Both { 39 } else { 0 };
                assert!(*x == 0.0 || (key <= position + ahead && key + 40 > position));
            }
        }
    };
    forward(&shape, &case.sequences, &case.q, &kv.iter().collect::<Vec<_>>(), Some(&sink), &mut out);
    assert_eq!(*seen.lock().expect("no panics"), [100, 100, 100, 100, 3, 3, 3, 3]);
}

/// As many as are taken one by one, the keys of each in the memory of the last.
#[test]
fn many_short_sequences_are_as_each_alone() {
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    for (reach, head_dim) in [(Reach::Both, 32), (Reach::Before, 5)] {
        let shape = Shape { heads: 6, kv_heads: 3, head_dim, reach, window: None, scale: 0.4, soft_cap: None };
        let case = Case::new(shape, &[1, 40, 7, 1, 0, 33, 64, 2, 100], 3);
        one.install(|| case.run());
    }
}

#[test]
fn gradients_equal_finite_differences() {
    let both = Reach::Both;
    let before = [(None, None), (Some(7), None), (None, Some(0.8))].map(|(window, cap)| (Reach::Before, window, cap));
    for (reach, window, soft_cap) in before.into_iter().chain([(both, None, Some(0.8)), (both, Some(7), None)]) {
        let shape = Shape { heads: 4, kv_heads: 2, head_dim: 5, reach, window, scale: 0.6, soft_cap };
        let case = Case::new(shape, &[60, 4], 3);
        let dout = noise(case.q.len(), 9);
        let (mut dq, mut dk, mut dv) = (vec![0.0; case.q.len()], vec![0.0; case.k.len()], vec![0.0; case.v.len()]);
        backward(&shape, &case.sequences, &case.q, &case.k, &case.v, &dout, &mut dq, &mut dk, &mut dv);
        let loss = |case: &Case| case.reference().iter().zip(&dout).map(|(y, g)| y * f64::from(*g)).sum::<f64>();
        let h = 1e-3f32;
        for (name, gradient) in [("q", &dq), ("k", &dk), ("v", &dv)] {
            for i in (0..gradient.len()).step_by(37) {
                let shifted = |by: f32| {
                    let mut other = Case {
                        shape,
                        sequences: case.sequences.clone(),
                        q: case.q.clone(),
                        k: case.k.clone(),
                        v: case.v.clone(),
                    };
                    match name {
                        "q" => other.q[i] += by,
                        "k" => other.k[i] += by,
                        _ => other.v[i] += by,
                    }
                    loss(&other)
                };
                let expected = (shifted(h) - shifted(-h)) / f64::from(2.0 * h);
                let actual = f64::from(gradient[i]);
                assert!((actual - expected).abs() < 2e-4, "d{name}[{i}] {actual} {expected} {window:?} {soft_cap:?}");
            }
        }
    }
}
