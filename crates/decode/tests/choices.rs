//! Likelihoods of targets with the committed tiny checkpoints: what the definition says, with the same bits however many
//! questions are scored at once and whatever they have in common.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::ops::ControlFlow;
use std::path::Path;

use lathe_decode::{DecodeError, Fork, Likelihood, Room, likelihoods};
use lathe_model::{Batch, Decoder, NoTap, Weights, open};

fn decoder(fixture: &str) -> Decoder {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/parity").join(fixture);
    open(&folder).unwrap().decoder(Weights::Frozen).unwrap()
}

const ROOMY: Room = Room { forks: 64, positions: 1 << 20 };

fn score(decoder: &Decoder, forks: &[Fork], room: Room) -> Result<Vec<Vec<Likelihood>>, DecodeError> {
    let mut all = Vec::new();
    likelihoods(decoder, forks, room, &mut |index, of| {
        assert_eq!(index, all.len(), "in order");
        all.push(of);
        ControlFlow::Continue(())
    })?;
    Ok(all)
}

/// Contexts of several lengths behind `shared` common tokens, with one to three targets of one to four tokens.
fn forks(shared: u32, n: u32) -> Vec<Fork> {
    let fork = |i: u32| {
        let own = (0..1 + i % 6).map(|k| (11 * i + 5 * k) % 60);
        let target = |j: u32| (0..1 + (i + j) % 4).map(|k| (3 * i + 7 * j + k) % 60).collect();
        Fork {
            context: (0..shared).map(|k| (k * k) % 60).chain(own).collect(),
            targets: (0..1 + i % 3).map(target).collect(),
        }
    };
    (0..n).map(fork).collect()
}

/// Every text alone, without a cache.
fn reference(decoder: &Decoder, fork: &Fork) -> Vec<Likelihood> {
    let of_target = |target: &Vec<u32>| {
        let ids = [&fork.context[..], target].concat();
        let hidden = decoder.forward(&Batch::single(&ids[..ids.len() - 1]), None, &mut NoTap).unwrap();
        let hidden = hidden.narrow(0, fork.context.len() - 1, target.len()).unwrap();
        let scores = decoder.score(&hidden, target).unwrap();
        Likelihood { log_p: scores.iter().fold(0.0, |sum, score| sum - score.nll), tokens: target.len() }
    };
    fork.targets.iter().map(of_target).collect()
}

#[test]
fn bits_are_those_of_each_text_alone() {
    // Windows that forget, experts, and frequencies that depend on the length of the text.
    for fixture in ["llama", "gemma3", "mistral_window", "mixtral", "llama_dynamic", "phi3_longrope"] {
        let decoder = decoder(fixture);
        for shared in [0, 1, 17] {
            let forks = forks(shared, 23);
            let expected: Vec<_> = forks.iter().map(|fork| reference(&decoder, fork)).collect();
            for room in
                [ROOMY, Room { forks: 1, ..ROOMY }, Room { forks: 3, ..ROOMY }, Room { forks: 9, positions: 90 }]
            {
                assert_eq!(score(&decoder, &forks, room).unwrap(), expected, "{fixture}, {shared} shared, {room:?}");
            }
            // Nor on which other questions there are.
            assert_eq!(score(&decoder, &forks[4..7], ROOMY).unwrap(), expected[4..7], "{fixture}");
        }
    }
}

#[test]
fn a_likelihood_is_the_sum_of_log_softmax() {
    let decoder = decoder("llama");
    let fork = Fork { context: vec![1, 5, 9], targets: vec![vec![4], vec![4, 8, 2]] };
    let scored = score(&decoder, std::slice::from_ref(&fork), ROOMY).unwrap().remove(0);
    let log_p = |ids: &[u32], target: u32| {
        let hidden = decoder.forward(&Batch::single(ids), None, &mut NoTap).unwrap();
        let logits: Vec<Vec<f32>> = decoder.logits(&hidden).unwrap().to_vec2().unwrap();
        let row = &logits[ids.len() - 1];
        let sum: f64 = row.iter().map(|logit| f64::from(*logit).exp()).sum();
        f64::from(row[target as usize]) - sum.ln()
    };
    let first = log_p(&[1, 5, 9], 4);
    let all = first + log_p(&[1, 5, 9, 4], 8) + log_p(&[1, 5, 9, 4, 8], 2);
    assert!((scored[0].log_p - first).abs() < 1e-5 && (scored[1].log_p - all).abs() < 1e-5, "{scored:?}");
    assert_eq!((scored[0].tokens, scored[1].tokens), (1, 3));
}

#[test]
fn nothing_more_is_scored_after_a_break() {
    let decoder = decoder("llama");
    let mut seen = 0;
    let stop = &mut |_, _| {
        seen += 1;
        if seen == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    likelihoods(&decoder, &forks(3, 23), Room { forks: 2, ..ROOMY }, stop).unwrap();
    assert_eq!(seen, 5);
    assert!(score(&decoder, &[], ROOMY).unwrap().is_empty());
}

#[test]
fn what_cannot_be_scored_is_named() {
    let decoder = decoder("llama");
    let context = decoder.spec().context_length;
    let error = |fork: Fork| score(&decoder, &[forks(0, 1).remove(0), fork], ROOMY).unwrap_err();
    assert!(matches!(error(Fork { context: vec![], targets: vec![vec![1]] }), DecodeError::EmptyPrompt { item: 1 }));
    assert!(matches!(error(Fork { context: vec![1], targets: vec![vec![]] }), DecodeError::EmptyTarget { item: 1 }));
    let too_long = error(Fork { context: vec![1; context], targets: vec![vec![1, 2]] });
    let expected = format!("item 1: the text has {} tokens and the model's context is {context}", context + 1);
    assert_eq!(too_long.to_string(), expected);
    // The last token is predicted and not read.
    assert!(score(&decoder, &[Fork { context: vec![1; context], targets: vec![vec![1]] }], ROOMY).is_ok());
    let vocabulary = decoder.spec().vocab_size as u32;
    assert!(error(Fork { context: vec![1], targets: vec![vec![vocabulary]] }).is_bad_input());
    assert!(error(Fork { context: vec![1], targets: vec![vec![1, vocabulary]] }).is_bad_input());
}
