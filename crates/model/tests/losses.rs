//! Losses and their gradients, and what may not change them.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use lathe_model::{Batch, Decoder, NoTap, Opened, Weights, open};

fn fixture(name: &str) -> Opened {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/parity").join(name);
    open(&folder).unwrap()
}

/// Hidden states of more rows than the head is applied to at once.
fn many_states(decoder: &Decoder) -> (candle_core::Tensor, Vec<u32>) {
    let ids: Vec<u32> = (0..60).map(|i| i * 7 % decoder.spec().vocab_size as u32).collect();
    let batch = Batch::of(std::iter::repeat_n(&ids[..], 15));
    (decoder.forward(&batch, None, &mut NoTap).unwrap(), ids.repeat(15))
}

/// The head is applied to some hundred rows at a time; where it is cut changes no score.
#[test]
fn a_long_text_is_scored_piece_by_piece() {
    let decoder = fixture("llama").decoder(Weights::Frozen).unwrap();
    let (hidden, ids) = many_states(&decoder);
    let scores = decoder.score(&hidden, &ids).unwrap();
    assert_eq!(scores.len(), ids.len());
    for (row, score) in scores.iter().enumerate().step_by(37) {
        assert_eq!(decoder.score(&hidden.narrow(0, row, 1).unwrap(), &ids[row..=row]).unwrap(), [*score], "row {row}");
    }
}

#[test]
fn gradients_are_the_same_bits_on_any_number_of_threads() {
    for name in ["llama", "gemma2"] {
        let opened = fixture(name);
        let decoder = opened.decoder(Weights::Trainable).unwrap();
        let gradients = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let (hidden, ids) = many_states(&decoder);
                let loss = decoder.negative_log_likelihood(&hidden, ids).unwrap().mean_all().unwrap();
                let gradients = loss.backward().unwrap();
                let bits = |var: &candle_core::Var| -> Vec<u32> {
                    let values = gradients.get(var).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
                    values.into_iter().map(f32::to_bits).collect()
                };
                decoder.trainable().values().map(bits).collect::<Vec<_>>()
            })
        };
        assert_eq!(gradients(1), gradients(3), "{name}");
    }
}

/// Nothing that is made of a variable may be kept from before it changed.
#[test]
fn a_changed_variable_changes_the_next_pass() {
    for name in ["llama", "llama_tied_scaled", "gemma2", "stablelm_norms_parallel"] {
        let decoder = fixture(name).decoder(Weights::Trainable).unwrap();
        let loss = || {
            let (hidden, ids) = many_states(&decoder);
            let losses = decoder.negative_log_likelihood(&hidden, ids).unwrap().to_vec1::<f32>().unwrap();
            losses.into_iter().map(f64::from).sum::<f64>()
        };
        let before = loss();
        for (parameter, var) in decoder.trainable() {
            let old = var.as_tensor().copy().unwrap();
            // Not the same factor everywhere: a bias of keys, or of a softmax, changes nothing as a whole.
            let by: Vec<f32> = (0..var.elem_count()).map(|i| 1.5 + (i % 3) as f32).collect();
            let by = candle_core::Tensor::from_vec(by, var.shape(), var.device()).unwrap();
            var.set(&((&old + 0.01).unwrap() * by).unwrap()).unwrap();
            assert_ne!(loss(), before, "{name}: {parameter}");
            var.set(&old).unwrap();
        }
        assert_eq!(loss(), before, "{name}");
    }
}
