//! Generation with the committed tiny checkpoints: the same strings however many are written at once, and a record that
//! agrees with a forward pass over the finished string.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::ops::ControlFlow;
use std::path::Path;

use lathe_decode::global::{Population, SmcRun, smc};
use lathe_decode::{
    DecodeError, Decoding, Ended, Event, Generation, Request, Sampling, Stops, Truncation, Writer, generate,
};
use lathe_model::{Batch, Decoder, NoTap, Weights, open};

fn decoder(fixture: &str) -> Decoder {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/parity").join(fixture);
    open(&folder).unwrap().decoder(Weights::Frozen).unwrap()
}

/// Ids below 100 stand for a letter, the others for nothing.
fn bytes(id: u32) -> Vec<u8> {
    if id < 100 { vec![b'a' + (id % 26) as u8] } else { Vec::new() }
}

fn decoding() -> Decoding {
    Decoding { max_tokens: 12, seed: 5, ..Decoding::default() }
}

fn requests(n: u64) -> Vec<Request> {
    let prompt = |item: u64| (0..1 + item as u32 % 5).map(|i| (7 * i + item as u32 / 2) % 90).collect();
    (0..n).map(|item| Request { item, prompt: prompt(item) }).collect()
}

fn run(
    decoder: &Decoder,
    decoding: &Decoding,
    requests: &[Request],
    batch: usize,
) -> Result<Vec<Generation>, DecodeError> {
    let mut finished = Vec::new();
    let writer = Writer { decoder, bytes: &bytes, batch };
    generate(&writer, decoding, requests.iter().cloned(), &mut |event| {
        if let Event::Finished(generation) = event {
            finished.push(generation);
        }
        ControlFlow::Continue(())
    })?;
    finished.sort_by_key(|generation| generation.item);
    Ok(finished)
}

#[test]
fn no_string_depends_on_how_many_are_written_at_once() {
    // One with windows, so that the cache forgets, and one with experts.
    for fixture in ["llama", "gemma3", "mixtral"] {
        let decoder = decoder(fixture);
        let stops = Stops { end_tokens: vec![3, 4], ids: vec![11], strings: vec!["ab".into()] };
        let sampling = Sampling {
            truncation: Truncation { top_p: Some(0.9), ..Truncation::default() },
            repetition_penalty: 1.2,
            ..Sampling::default()
        };
        let decoding = Decoding { sampling, stops, alternatives: 2, ..decoding() };
        let requests = requests(23);
        let alone = run(&decoder, &decoding, &requests, 1).unwrap();
        assert_eq!(alone.len(), 23);
        for batch in [2, 7, 64] {
            assert_eq!(run(&decoder, &decoding, &requests, batch).unwrap(), alone, "{fixture}, {batch}");
        }
        // Nor on which others there are: the item decides.
        let some = run(&decoder, &decoding, &requests[5..9], 3).unwrap();
        assert_eq!(some, alone[5..9], "{fixture}");
    }
}

#[test]
fn a_prompt_of_many_strings_is_read_once_with_the_same_result() {
    let decoder = decoder("llama");
    let same: Vec<Request> = (0..6).map(|item| Request { item, prompt: vec![1, 2, 3, 4, 5] }).collect();
    let shared = run(&decoder, &decoding(), &same, 3).unwrap();
    for (request, shared) in same.iter().zip(&shared) {
        assert_eq!(&run(&decoder, &decoding(), std::slice::from_ref(request), 1).unwrap()[0], shared);
    }
}

#[test]
fn prompts_that_begin_alike_are_read_together_with_the_same_result() {
    // Windows that forget, and frequencies that depend on the length of the text.
    for fixture in ["llama", "gemma3", "mistral_window", "llama_dynamic"] {
        let decoder = decoder(fixture);
        // A beginning that grows, shrinks, is left and comes back.
        let prompt = |item: u32| -> Vec<u32> {
            let shared = [16, 16, 32, 32, 18, 0, 0, 16, 32, 32, 16][item as usize];
            let own = (0..1 + item % 3).map(|i| (31 * item + 7 * i) % 90);
            (0..shared).map(|i| (i * i) % 90).chain(own).collect()
        };
        let requests: Vec<Request> =
            (0..11).map(|item| Request { item: u64::from(item), prompt: prompt(item) }).collect();
        let alone: Vec<Generation> = requests
            .iter()
            .map(|request| run(&decoder, &decoding(), std::slice::from_ref(request), 1).unwrap().remove(0))
            .collect();
        for batch in [1, 4, 64] {
            assert_eq!(run(&decoder, &decoding(), &requests, batch).unwrap(), alone, "{fixture}, {batch}");
        }
    }
}

#[test]
fn the_record_is_what_a_forward_pass_says() {
    let decoder = decoder("llama");
    let truncation = Truncation { top_k: Some(9), ..Truncation::default() };
    let decoding = Decoding { sampling: Sampling { truncation, ..Sampling::default() }, ..decoding() };
    for (request, written) in requests(6).iter().zip(run(&decoder, &decoding, &requests(6), 4).unwrap()) {
        let drawn: Vec<u32> = written.steps.iter().map(|step| step.id).collect();
        let text = [&request.prompt[..], &drawn].concat();
        let hidden = decoder.forward(&Batch::single(&text), None, &mut NoTap).unwrap();
        let logits = decoder.logits(&hidden).unwrap().to_vec2::<f32>().unwrap();
        for (position, step) in written.steps.iter().enumerate() {
            let row = &logits[request.prompt.len() - 1 + position];
            let mut sorted: Vec<f64> = row.iter().map(|logit| f64::from(*logit).exp()).collect();
            let p = sorted[step.id as usize] / sorted.iter().sum::<f64>();
            sorted.sort_by(|a, b| b.total_cmp(a));
            let mass = sorted[..9].iter().sum::<f64>() / sorted.iter().sum::<f64>();
            assert!((step.log_p - p.ln()).abs() < 1e-5 && (step.log_mass - mass.ln()).abs() < 1e-5, "{step:?}");
            assert_eq!(step.kept, 9);
        }
        assert!((written.log_p() - written.log_q() - written.log_weight()).abs() < 1e-12);
    }
}

#[test]
fn rules_that_cut_nothing_leave_every_weight_at_one() {
    let decoder = decoder("llama");
    let whole = run(&decoder, &decoding(), &requests(8), 8).unwrap();
    let all = Truncation { top_k: Some(usize::MAX), top_p: Some(1.0), ..Truncation::default() };
    let cut = Decoding { sampling: Sampling { truncation: all, ..Sampling::default() }, ..decoding() };
    assert_eq!(run(&decoder, &cut, &requests(8), 8).unwrap(), whole);
    assert!(whole.iter().all(|generation| generation.log_weight() == 0.0 && generation.log_p() == generation.log_q()));
}

#[test]
fn strings_end_where_they_should() {
    let decoder = decoder("llama");
    let request = [Request { item: 0, prompt: vec![1] }];
    let free = run(&decoder, &decoding(), &request, 1).unwrap().remove(0);
    assert_eq!((free.ended.clone(), free.steps.len()), (Ended::Length, 12));
    assert!(free.is_censored());
    let ids: Vec<u32> = free.steps.iter().map(|step| step.id).collect();
    let fourth = ids[3];
    assert!(!ids[..3].contains(&fourth), "the draws have changed: choose another seed");

    let with = |stops: Stops, min_tokens| Decoding { stops, min_tokens, ..decoding() };
    let end = Stops { end_tokens: vec![fourth], ..Stops::default() };
    let ended = run(&decoder, &with(end.clone(), 0), &request, 1).unwrap().remove(0);
    assert_eq!((ended.ended, ended.steps.len()), (Ended::EndToken { id: fourth }, 4));
    assert_eq!(ended.text, free.steps[..3].iter().flat_map(|step| step.bytes.clone()).collect::<Vec<_>>());
    let stop = Stops { ids: vec![fourth], ..Stops::default() };
    assert_eq!(run(&decoder, &with(stop, 0), &request, 1).unwrap()[0].ended, Ended::StopId { id: fourth });

    // Before the least length the end token is impossible, in p as well.
    let longer = run(&decoder, &with(end, 6), &request, 1).unwrap().remove(0);
    assert!(longer.steps.len() >= 6 && longer.steps[..6].iter().all(|step| step.id != fourth));
    assert_ne!(longer.steps[0].log_p, free.steps[0].log_p);
}

#[test]
fn a_listener_may_stop_it() {
    let decoder = decoder("llama");
    let (mut steps, mut shown) = (0, Vec::new());
    let writer = Writer { decoder: &decoder, bytes: &bytes, batch: 2 };
    generate(&writer, &decoding(), requests(9), &mut |event| {
        let Event::Step { text, .. } = event else { panic!("nothing is finished by then") };
        steps += 1;
        shown.extend_from_slice(text);
        if steps == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .unwrap();
    assert_eq!(steps, 3);
}

#[test]
fn prompts_that_cannot_be_used_are_refused() {
    let decoder = decoder("llama");
    let context = decoder.spec().context_length;
    let with = |prompt| run(&decoder, &decoding(), &[Request { item: 4, prompt }], 1);
    assert!(matches!(with(vec![]), Err(DecodeError::EmptyPrompt { item: 4 })));
    assert!(matches!(with(vec![1; context]), Err(DecodeError::PromptFillsContext { .. })));
    assert!(matches!(with(vec![u32::MAX]), Err(DecodeError::Model(_))));
    let last = with(vec![1; context - 1]).unwrap().remove(0);
    assert_eq!((last.steps.len(), last.ended), (1, Ended::Length));
    for bad in [
        Decoding { max_tokens: 0, ..decoding() },
        Decoding { min_tokens: 13, ..decoding() },
        Decoding { stops: Stops { strings: vec![String::new()], ..Stops::default() }, ..decoding() },
    ] {
        assert!(run(&decoder, &bad, &requests(1), 1).is_err());
    }
}

#[test]
fn a_population_is_written_with_its_record() {
    let decoder = decoder("llama");
    let truncation = Truncation { top_k: Some(6), ..Truncation::default() };
    let sampling = Sampling { truncation, ..Sampling::default() };
    let stops = Stops { end_tokens: vec![3, 4, 5], ..Stops::default() };
    let decoding = Decoding { sampling, stops, ..decoding() };
    let writer = Writer { decoder: &decoder, bytes: &bytes, batch: 1 };
    let request = Request { item: 0, prompt: vec![1, 2, 3] };
    let population = |particles, resample_below| {
        smc(&writer, &decoding, &request, &Population { particles, resample_below }, &mut |_| ()).unwrap()
    };
    // Never resampled before the end: the particles are the strings of local decoding.
    let run_of: SmcRun = population(16, 0.0);
    let same: Vec<Request> = (0..16).map(|item| Request { item, prompt: vec![1, 2, 3] }).collect();
    assert_eq!(run_of.particles, run(&decoder, &decoding, &same, 16).unwrap());
    assert!(run_of.resampled.is_empty() && run_of.selection.chosen.len() == 16);
    // Z is then the mean weight.
    let mean = run_of.particles.iter().map(|particle| particle.log_weight().exp()).sum::<f64>() / 16.0;
    let log_z = run_of.selection.diagnostics.log_z.value().unwrap();
    assert!((log_z - mean.ln()).abs() < 1e-12);
    // Resampled all the time: the same Z up to chance, and every particle is a possible string.
    let log_z = |share| population(1024, share).selection.diagnostics.log_z.value().unwrap();
    assert!((log_z(1.0) - log_z(0.0)).abs() < 0.5, "{} {}", log_z(1.0), log_z(0.0));
    let often = population(64, 1.0);
    assert!(!often.resampled.is_empty() && often.ancestors < 64);
    for particle in &often.particles {
        let ids: Vec<u32> = particle.steps.iter().map(|step| step.id).collect();
        let text = [&[1, 2, 3][..], &ids].concat();
        let hidden = decoder.forward(&Batch::single(&text[..text.len() - 1]), None, &mut NoTap).unwrap();
        let hidden = hidden.narrow(0, 2, ids.len()).unwrap();
        let nll: f64 = decoder.score(&hidden, &ids).unwrap().iter().map(|score| score.nll).sum();
        assert!((nll + particle.log_p()).abs() < 1e-4, "the cache was copied with its string");
    }
    let one = population(1, 0.5);
    assert_eq!(one.particles, run(&decoder, &decoding, &same[..1], 1).unwrap());
}
