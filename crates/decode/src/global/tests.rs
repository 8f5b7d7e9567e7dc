//! The worked examples of the method's page.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::importance::{Importance, effective_sample_size, log_mean_exp};
use super::*;
use crate::{DecodeError, History, Sampling, Step, Truncation, uniform};

/// A language of three tokens: A, B and the end, of at most two tokens.
pub(super) struct Toy {
    /// Next-token probabilities after nothing, after A, after B.
    after: [[f64; 3]; 3],
    k: usize,
    /// Every string that can be drawn: Σ log p, Σ log q, Σ log m.
    strings: Vec<(Vec<u32>, [f64; 3])>,
}

const A: u32 = 0;
const B: u32 = 1;
const END: u32 = 2;

impl Toy {
    /// Worked example A.
    pub(super) fn a() -> Self {
        Self::new([[0.5, 0.3, 0.2], [0.4, 0.35, 0.25], [0.08, 0.02, 0.90]])
    }

    /// Worked example B, with the second tokens A1, A2, B1, B2 as A and B, and the rest of the flat row as the end. (Its
    /// other tokens have .15 each as well; ties go to the smaller ids.)
    pub(super) fn b() -> Self {
        Self::new([[0.5, 0.5, 0.0], [0.15, 0.15, 0.1], [0.6, 0.4, 0.0]])
    }

    fn new(after: [[f64; 3]; 3]) -> Self {
        let mut toy = Self { after, k: 2, strings: Vec::new() };
        toy.strings = toy.enumerated();
        toy
    }

    /// The next token of a string; none where it has ended. The sampler under test draws it.
    pub(super) fn step(&self, path: &[u32], at: f64) -> Option<Step> {
        if path.len() == 2 || path.last() == Some(&END) {
            return None;
        }
        let row = self.after[path.last().map_or(0, |last| 1 + *last as usize)];
        let mut logits: Vec<f32> = row.iter().map(|p| p.ln() as f32).collect();
        // What is left of a row is spread over tokens that are never kept.
        let left = 1.0 - row.iter().sum::<f64>();
        logits.extend([(left / 10.0).ln() as f32; 10]);
        let truncation = Truncation { top_k: Some(self.k), ..Truncation::default() };
        let history = History { prompt: &[], drawn: path, forbidden: &[] };
        let sampling = Sampling { truncation, ..Sampling::default() };
        Some(sampling.draw(&mut logits, &history, at, 0).unwrap())
    }

    fn enumerated(&self) -> Vec<(Vec<u32>, [f64; 3])> {
        let mut strings = vec![(Vec::new(), [0.0; 3])];
        for _ in 0..2 {
            strings = strings
                .into_iter()
                .flat_map(|(path, sums): (Vec<u32>, [f64; 3])| {
                    let mut next: Vec<(Vec<u32>, [f64; 3])> = Vec::new();
                    for draw in 0..1000 {
                        let Some(step) = self.step(&path, f64::from(draw) / 1000.0) else {
                            return vec![(path, sums)];
                        };
                        let longer = [&path[..], &[step.id]].concat();
                        let add = [step.log_p, step.log_q, step.log_mass];
                        if next.iter().all(|(path, _)| *path != longer) {
                            next.push((longer, std::array::from_fn(|i| sums[i] + add[i])));
                        }
                    }
                    next
                })
                .collect();
        }
        strings
    }

    pub(super) fn index(&self, path: &[u32]) -> usize {
        self.strings.iter().position(|(string, _)| string == path).unwrap()
    }

    pub(super) fn local(&self) -> Vec<f64> {
        self.strings.iter().map(|(_, [_, log_q, _])| log_q.exp()).collect()
    }

    pub(super) fn global(&self) -> Vec<f64> {
        let p: Vec<f64> = self.strings.iter().map(|(_, [log_p, ..])| log_p.exp()).collect();
        let z: f64 = p.iter().sum();
        p.into_iter().map(|p| p / z).collect()
    }

    /// A string of local decoding: its index among the strings, and its log w.
    fn draw(&self, item: u64) -> (usize, f64) {
        let (mut path, mut log_weight) = (Vec::new(), 0.0);
        while let Some(step) = self.step(&path, uniform(7, item, path.len() as u64)) {
            log_weight += step.log_mass;
            path.push(step.id);
        }
        (self.index(&path), log_weight)
    }
}

/// Each frequency is within 4 standard errors of its probability.
#[track_caller]
pub(super) fn frequencies_agree(counts: &[usize], probabilities: &[f64]) {
    let n = counts.iter().sum::<usize>() as f64;
    for (count, p) in counts.iter().zip(probabilities) {
        let error = (p * (1.0 - p) / n).sqrt();
        assert!((*count as f64 / n - p).abs() < 4.0 * error, "{counts:?} against {probabilities:?}");
    }
}

fn close(a: f64, b: f64, tolerance: f64) -> bool {
    (a - b).abs() <= tolerance
}

/// Indices of AA, AB, BE, BA among the toy's strings.
fn named(toy: &Toy) -> [usize; 4] {
    [[A, A], [A, B], [B, END], [B, A]].map(|path| toy.index(&path))
}

#[test]
fn example_a_by_enumeration() {
    let toy = Toy::a();
    let strings = &toy.strings;
    assert_eq!(strings.len(), 4);
    let of = named(&toy);
    let (local, global) = (toy.local(), toy.global());
    let table = [
        (0.200, 0.298954, 0.333333, -0.510826),
        (0.175, 0.261584, 0.291667, -0.510826),
        (0.270, 0.403587, 0.344388, -0.243346),
        (0.024, 0.035874, 0.030612, -0.243346),
    ];
    for (i, (p, global_p, q, log_w)) in of.into_iter().zip(table) {
        let [log_p, _, log_mass] = strings[i].1;
        assert!(close(log_p.exp(), p, 1e-7) && close(log_mass, log_w, 5e-7), "{:?}", strings[i]);
        assert!(close(global[i], global_p, 5e-7) && close(local[i], q, 5e-7), "{i}");
    }
    let sum = |f: &dyn Fn(usize) -> f64| (0..4).map(f).sum::<f64>();
    assert!(close(local.iter().sum(), 1.0, 1e-7));
    assert!(close(sum(&|i| local[i] * strings[i].1[2].exp()), 0.669, 1e-7));
    assert!(close(sum(&|i| (local[i] - global[i]).abs()) / 2.0, 0.0644619, 1e-7));
    assert!(close(sum(&|i| local[i] * (local[i] / global[i]).ln()), 0.00854964, 1e-7));
    assert!(close(sum(&|i| global[i] * (global[i] / local[i]).ln()), 0.00869258, 1e-7));
    assert!(close(sum(&|i| local[i] * strings[i].1[0]), -1.609938, 1e-6));
    assert!(close(sum(&|i| global[i] * strings[i].1[0]), -1.599312, 1e-6));
    let length = |i: usize| strings[i].0.iter().filter(|id| **id != END).count() as f64;
    assert!(close(sum(&|i| local[i] * length(i)), 1.655612, 1e-6));
    assert!(close(sum(&|i| global[i] * length(i)), 1.596413, 1e-6));
}

/// The transition probability of a chain from one string to another: what the proposal's draws and `chain` make of it.
fn transition(toy: &Toy, from: usize, to: usize) -> f64 {
    let strings = &toy.strings;
    let (local, log_w) = (toy.local(), |i: usize| strings[i].1[2]);
    let accepted = |to: usize| {
        // The largest u that is accepted, by bisection: `chain` is asked and nothing else.
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..60 {
            let middle = (low + high) / 2.0;
            let is_accepted = chain(&[log_w(from), log_w(to)], |_| middle).accepted == 1;
            if is_accepted { low = middle } else { high = middle }
        }
        high
    };
    let leave: f64 = (0..4).filter(|i| *i != from).map(|i| local[i] * accepted(i)).sum();
    if from == to { 1.0 - leave } else { local[to] * accepted(to) }
}

#[test]
fn example_a_transition_matrix() {
    let toy = Toy::a();
    let of = named(&toy);
    let expected = [
        [0.333333, 0.291667, 0.344388, 0.030612],
        [0.333333, 0.291667, 0.344388, 0.030612],
        [0.255102, 0.223214, 0.491071, 0.030612],
        [0.255102, 0.223214, 0.344388, 0.177296],
    ];
    let matrix: Vec<Vec<f64>> =
        of.iter().map(|from| of.iter().map(|to| transition(&toy, *from, *to)).collect()).collect();
    for (row, expected) in matrix.iter().zip(expected) {
        assert!(row.iter().zip(expected).all(|(a, b)| close(*a, b, 6e-7)), "{row:?}");
    }
    let global: Vec<f64> = of.iter().map(|i| toy.global()[*i]).collect();
    let mut distribution: Vec<f64> = of.iter().map(|i| toy.local()[*i]).collect();
    let apply =
        |d: &[f64]| -> Vec<f64> { (0..4).map(|to| (0..4).map(|from| d[from] * matrix[from][to]).sum()).collect() };
    assert!(apply(&global).iter().zip(&global).all(|(a, b)| close(*a, *b, 1e-9)));
    for distance in [0.0644619, 0.00945551, 0.00138697, 0.000203446] {
        let found = distribution.iter().zip(&global).map(|(a, b)| (a - b).abs()).sum::<f64>() / 2.0;
        assert!(close(found, distance, distance * 1e-5), "{found} {distance}");
        distribution = apply(&distribution);
    }
    // The second eigenvalue, 1 − Z / w_max, is how fast that distance falls.
    assert!(close(0.000203446 / 0.00138697, 1.0 - 0.669 / 0.784, 1e-5));
    // Self-proposals count as accepted.
    let local: Vec<f64> = of.iter().map(|i| toy.local()[*i]).collect();
    let acceptance: f64 = (0..4).map(|i| global[i] * (1.0 - matrix[i][i] + local[i])).sum();
    assert!(close(acceptance, 0.935538, 1e-6), "{acceptance}");
}

#[test]
fn example_a_deterministic_trace() {
    let (light, heavy) = (0.6f64.ln(), 0.784f64.ln());
    // AA, BE, AB, BA, AA, BE
    let log_weights = [light, heavy, light, heavy, light, heavy];
    let uniforms = [f64::NAN, 0.9, 0.80, 0.5, 0.70, 0.2];
    let trace = chain(&log_weights, |step| uniforms[step]);
    assert_eq!((trace.states, trace.accepted), (vec![0, 1, 1, 3, 4, 5], 4));
    assert!(close(log_mean_exp(&log_weights).exp(), 0.692, 1e-12));
    assert!(close(effective_sample_size(&log_weights), 5.89579, 5e-6));
}

#[test]
fn example_a_chains_reach_the_target() {
    let toy = Toy::a();
    let (chains, proposals) = (20_000, 20);
    let drawn: Vec<(usize, f64)> = (0..chains * proposals).map(|item| toy.draw(item as u64)).collect();
    let pool: Vec<Proposal> =
        drawn.iter().map(|(_, log_weight)| Proposal { log_weight: *log_weight, censored: false }).collect();
    let imh = Imh { chains, proposals, keep: Keep::Last, supply: Supply::Fresh };
    let selection = imh.select(&pool, 3).unwrap();
    let mut counts = [0; 4];
    selection.chosen.iter().for_each(|chosen| counts[drawn[chosen.proposal].0] += 1);
    frequencies_agree(&counts, &toy.global());
    let acceptance = selection.diagnostics.acceptance.value().unwrap();
    assert!(close(acceptance, 0.9355, 0.004), "{acceptance}");
    assert!(selection.diagnostics.warnings.is_empty());
    assert!(close(selection.diagnostics.log_z.value().unwrap().exp(), 0.669, 0.001));

    // All states after burn-in follow the target as well, but are not independent: a wider bound.
    let all = Imh { keep: Keep::After(10), ..imh }.select(&pool, 3).unwrap();
    assert_eq!(all.chosen.len(), chains * 10);

    // Weights instead of chains, on the same strings.
    let sir = Importance { proposals: pool.len(), samples: 20_000 }.select(&pool, 4).unwrap();
    let mut counts = [0; 4];
    sir.chosen.iter().for_each(|chosen| counts[drawn[chosen.proposal].0] += 1);
    frequencies_agree(&counts, &toy.global());

    // 200,000 draws for rejection: acceptance 0.669 ± 0.0042.
    let mut rejection = Rejection::new(usize::MAX, 5);
    let mut counts = [0; 4];
    for (proposal, (string, _)) in pool.iter().zip(&drawn).take(200_000) {
        if rejection.offer(*proposal) {
            counts[*string] += 1;
        }
    }
    assert!(close(counts.iter().sum::<usize>() as f64 / 200_000.0, 0.669, 0.0042), "{counts:?}");
    frequencies_agree(&counts, &toy.global());
}

#[test]
fn example_b_local_decoding_favours_what_was_cut() {
    let toy = Toy::b();
    let of = [[A, A], [A, B], [B, A], [B, B]].map(|path| toy.index(&path));
    for (i, (local, global)) in
        of.into_iter().zip([(0.25, 0.115385), (0.25, 0.115385), (0.3, 0.461538), (0.2, 0.307692)])
    {
        assert!(close(toy.local()[i], local, 1e-6) && close(toy.global()[i], global, 1e-6), "{i}");
    }
}

#[test]
fn equal_weights_are_always_accepted() {
    let pool = vec![Proposal { log_weight: 0.0, censored: true }; 60];
    let imh = Imh { chains: 6, proposals: 10, keep: Keep::Last, supply: Supply::Fresh };
    let selection = imh.select(&pool, 0).unwrap();
    assert_eq!(selection.diagnostics.acceptance.value(), Some(1.0));
    // The last proposal of every chain.
    assert_eq!(selection.chosen.iter().map(|c| c.proposal).collect::<Vec<_>>(), [9, 19, 29, 39, 49, 59]);
    assert_eq!((selection.diagnostics.sd_log_w.value(), selection.diagnostics.log_z.value()), (Some(0.0), Some(0.0)));
    assert!(selection.diagnostics.warnings[0].starts_with("no string ended"));
    let mut rejection = Rejection::new(60, 0);
    assert!(pool.iter().all(|proposal| rejection.offer(*proposal)));
    assert!(rejection.finish().is_ok());
}

#[test]
fn chains_of_one_and_runs_of_the_paper() {
    let pool: Vec<Proposal> =
        (0..12).map(|i| Proposal { log_weight: -0.1 * f64::from(i), censored: i % 2 == 0 }).collect();
    let one = Imh { chains: 12, proposals: 1, keep: Keep::Last, supply: Supply::Fresh };
    let selection = one.select(&pool, 0).unwrap();
    assert_eq!(selection.chosen.iter().map(|c| c.proposal).collect::<Vec<_>>(), (0..12).collect::<Vec<_>>());
    assert_eq!(selection.diagnostics.acceptance.value(), None, "a chain of one offers nothing");
    let paper = Imh { chains: 3, proposals: 4, keep: Keep::Last, supply: Supply::Bootstrap(10) };
    let selection = paper.select(&pool, 0).unwrap();
    assert_eq!(selection.chosen.len(), 30);
    assert!(selection.chosen.iter().any(|c| c.run == 9) && selection.chosen.iter().all(|c| c.proposal < 12));
    assert_eq!(selection, paper.select(&pool, 0).unwrap());
}

#[test]
fn chains_that_cannot_mix_say_so() {
    let pool: Vec<Proposal> =
        (0..400).map(|i| Proposal { log_weight: -40.0 * uniform(0, i, 0), censored: false }).collect();
    let imh = Imh { chains: 4, proposals: 100, keep: Keep::Last, supply: Supply::Fresh };
    let diagnostics = imh.select(&pool, 0).unwrap().diagnostics;
    assert!(diagnostics.warnings[0].contains("cannot have mixed"), "{diagnostics:?}");
    assert!(diagnostics.warnings[0].contains("--sampler"), "{diagnostics:?}");
    let sir = Importance { proposals: 400, samples: 400 }.select(&pool, 0).unwrap();
    assert!(sir.diagnostics.warnings[0].contains("is worth"), "{:?}", sir.diagnostics);
}

#[test]
fn numbers_that_make_no_sense_are_refused() {
    let pool = [Proposal { log_weight: -0.5, censored: false }; 6];
    let imh = Imh { chains: 2, proposals: 3, keep: Keep::Last, supply: Supply::Fresh };
    assert!(imh.select(&pool, 0).is_ok());
    let bad = [
        Imh { chains: 3, ..imh },
        Imh { chains: 0, ..imh },
        Imh { proposals: 0, ..imh },
        Imh { keep: Keep::After(3), ..imh },
        Imh { supply: Supply::Bootstrap(0), ..imh },
    ];
    assert!(bad.iter().all(|imh| imh.select(&pool, 0).is_err()));
    assert!(Importance { proposals: 7, samples: 1 }.select(&pool, 0).is_err());
    assert!(Importance { proposals: 0, samples: 1 }.select(&pool, 0).is_err());
    assert!(Importance { proposals: 6, samples: 0 }.select(&pool, 0).is_err());
    for bad in [Population { particles: 0, resample_below: 0.5 }, Population { particles: 1, resample_below: 1.5 }] {
        assert!(bad.check().is_err());
    }
    let mut rejection = Rejection::new(3, 0);
    rejection.offer(pool[0]);
    assert!(matches!(rejection.finish(), Err(DecodeError::TooFewAccepted { drawn: 1, wanted: 3, .. })));
}
