//! Batches and caches: padding, prefixes, windows, and weights that stay in the checkpoint change no bit.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;

use candle_core::Tensor;
use lathe_model::{Batch, Coarse, Continuation, Decoder, KvCache, NoTap, PrefixCache, Weights, open};

fn decoder(fixture: &str, weights: Weights) -> Decoder {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/parity").join(fixture);
    open(&folder).unwrap().decoder(weights).unwrap()
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn ids(len: u32, seed: u32) -> Vec<u32> {
    (0..len).map(|i| 3 + (i * i * 7 + i * seed + seed) % 120).collect()
}

/// Hidden states of a text by itself.
fn alone(decoder: &Decoder, ids: &[u32]) -> Vec<f32> {
    flat(&decoder.forward(&Batch::single(ids), None, &mut NoTap).unwrap())
}

#[test]
fn left_and_right_padding_equal_no_padding() {
    for fixture in ["llama", "mistral_window", "gpt2", "gemma3", "opt", "mixtral"] {
        let decoder = decoder(fixture, Weights::Frozen);
        let width = decoder.spec().hidden_size;
        let texts = [ids(9, 1), ids(4, 2), ids(12, 3)];
        for left in [true, false] {
            let (mut padded, mut mask) = (Vec::new(), Vec::new());
            for text in &texts {
                let padding = 12 - text.len();
                let (before, after) = if left { (padding, 0) } else { (0, padding) };
                padded.extend([vec![0; before], text.clone(), vec![0; after]].concat());
                mask.extend([vec![false; before], vec![true; text.len()], vec![false; after]].concat());
            }
            // The prompts, then one more token of each, through the cache.
            let mut cache = KvCache::new(decoder.spec(), 3);
            let batch = Batch::from_padded(&padded, &mask, 12).unwrap();
            let prompts = flat(&decoder.forward(&batch, Some(&mut cache), &mut NoTap).unwrap());
            let mut next = Batch::default();
            texts.iter().enumerate().for_each(|(slot, text)| next.push(&[7], slot, text.len()));
            let decoded = flat(&decoder.forward(&next, Some(&mut cache), &mut NoTap).unwrap());
            let (mut row, mut last) = (0, 0);
            for text in &texts {
                let expected = alone(&decoder, &[&text[..], &[7]].concat());
                let prompt = text.len() * width;
                assert_eq!(prompts[row..row + prompt], expected[..prompt], "{fixture}, left: {left}");
                assert_eq!(decoded[last..last + width], expected[prompt..], "{fixture}, left: {left}");
                (row, last) = (row + prompt, last + width);
            }
        }
    }
}

#[test]
fn padding_between_tokens_is_refused() {
    let refused = |mask: &[bool]| Batch::from_padded(&[3, 4, 5, 6], mask, 2).unwrap_err().to_string();
    assert_eq!(refused(&[true, true, false, false]), "nothing to run: the input has no tokens");
    let error = Batch::from_padded(&[3, 4, 5], &[true, false, true], 3).unwrap_err();
    assert_eq!(error.to_string(), "row 0 of the batch has padding at 1 and tokens again at 2");
}

#[test]
fn a_prefix_is_reused_and_changes_no_bit() {
    for fixture in ["llama", "mistral_window", "gemma2"] {
        let decoder = decoder(fixture, Weights::Frozen);
        let spec = decoder.spec();
        let width = spec.hidden_size;
        let mut prefixes = PrefixCache::new(spec, 2);
        let mut run = |ids: &[u32]| {
            let Continuation { slot, reused } = prefixes.begin(ids, spec);
            let mut batch = Batch::default();
            batch.push(&ids[reused..], slot, reused);
            let hidden = flat(&decoder.forward(&batch, Some(prefixes.cache()), &mut NoTap).unwrap());
            let last = ids.len() - reused - 1;
            assert_eq!(hidden[last * width..], alone(&decoder, ids)[(ids.len() - 1) * width..], "{fixture}");
            reused
        };
        let first = ids(20, 5);
        assert_eq!(run(&first), 0, "nothing is known yet");
        assert_eq!(run(&[&first[..], &[8, 9]].concat()), 20, "a conversation goes on");
        let branch = [&first[..18], &[40, 41, 42]].concat();
        assert_eq!(run(&branch), 18, "another continuation of the same prompt");
        assert_eq!(run(&[&first[..], &[8, 9, 10]].concat()), 22, "the first one was kept");
        assert_eq!(run(&branch), 20, "the same request again runs its last token only");
        assert_eq!(run(&ids(11, 9)), 0, "a new text takes the slot that was used least recently");
    }
}

#[test]
fn a_window_bounds_the_memory_of_the_cache() {
    let mut spec = decoder("mistral_window", Weights::Frozen).spec().clone();
    // The window of 8 on every layer; the cache works in panels of 32 positions.
    spec.context_length = 4096;
    let source = lathe_model::RandomSource::new(spec.clone(), 1);
    let decoder = Decoder::load(spec.clone(), std::sync::Arc::new(source), Weights::Frozen).unwrap();
    let mut cache = KvCache::new(&spec, 1);
    let mut bytes_at = |tokens: usize, position: usize| {
        let mut batch = Batch::default();
        batch.push(&ids(tokens as u32, 3), 0, position);
        decoder.forward(&batch, Some(&mut cache), &mut NoTap).unwrap();
        cache.bytes()
    };
    let early = bytes_at(64, 0);
    let after_a_long_prompt = bytes_at(2000, 64);
    let later = (2064..2200).map(|position| bytes_at(1, position)).max().unwrap();
    assert!(after_a_long_prompt <= early && later <= early, "{early}, {after_a_long_prompt}, {later}");
}

#[test]
fn streamed_weights_give_the_same_bits() {
    for fixture in ["llama", "gpt2", "gemma3", "phi", "qwen2_moe", "opt"] {
        let (frozen, streamed) = (decoder(fixture, Weights::Frozen), decoder(fixture, Weights::Streamed));
        let text = ids(20, 4);
        assert_eq!(alone(&frozen, &text), alone(&streamed, &text), "{fixture}");
        let hidden = frozen.forward(&Batch::single(&text), None, &mut NoTap).unwrap();
        let hidden = hidden.narrow(0, 0, 19).unwrap();
        assert_eq!(frozen.score(&hidden, &text[1..]).unwrap(), streamed.score(&hidden, &text[1..]).unwrap());
        assert_eq!(flat(&frozen.logits(&hidden).unwrap()), flat(&streamed.logits(&hidden).unwrap()));
    }
}

#[test]
fn a_slot_is_continued_once_in_a_batch() {
    let decoder = decoder("llama", Weights::Frozen);
    let mut cache = KvCache::new(decoder.spec(), 2);
    let mut batch = Batch::default();
    batch.push(&[3, 4], 1, 0);
    batch.push(&[5, 6], 1, 0);
    let error = decoder.forward(&batch, Some(&mut cache), &mut NoTap).unwrap_err();
    assert_eq!(error.to_string(), "sequence 1 of the cache is twice in one batch");
    // Without a cache, slots mean nothing.
    decoder.forward(&batch, None, &mut NoTap).unwrap();
}

/// What is rounded is rounded row by row: neither the batch nor the cache is seen in the result.
#[test]
fn coarse_arithmetic_is_near_and_independent_of_the_batch() {
    for fixture in ["llama", "gemma3", "mixtral"] {
        let (exact, coarse) = (decoder(fixture, Weights::Frozen), decoder(fixture, Weights::Coarse(Coarse::Bf16)));
        let (a, b) = (ids(31, 1), ids(9, 2));
        let (expected, got) = (alone(&exact, &a), alone(&coarse, &a));
        let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let off = norm(&mut expected.iter().zip(&got).map(|(a, b)| a - b)) / norm(&mut expected.iter().copied());
        assert!(off > 1e-6 && off < 0.05, "{fixture}: {off}");

        let width = coarse.spec().hidden_size;
        let mut cache = KvCache::new(coarse.spec(), 2);
        let mut batch = Batch::default();
        batch.push(&b, 0, 0);
        batch.push(&a[..30], 1, 0);
        coarse.forward(&batch, Some(&mut cache), &mut NoTap).unwrap();
        let mut next = Batch::default();
        next.push(&a[30..], 1, 30);
        let last = flat(&coarse.forward(&next, Some(&mut cache), &mut NoTap).unwrap());
        assert_eq!(last, got[30 * width..], "{fixture}");
    }
}
