//! Tiny models with invented vocabularies that spell the same bytes differently.

use super::*;

fn decoder(fixture: &str) -> Decoder {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/parity").join(fixture);
    open(&folder).unwrap().decoder(Weights::Frozen).unwrap()
}

/// Letters, a space, and in one of two ways longer tokens; the first id ends a text.
fn strings(decoder: &Decoder, step: usize) -> ByteVocabulary {
    let alphabet = b"abcde \n\xC3";
    let bytes = |id: usize| match id {
        0 => Some(b"</s>".to_vec()),
        1 => None,
        _ if id < 10 => Some(vec![alphabet[id - 2]]),
        _ => {
            let n = (id - 10) * step;
            let letter = |n: usize| alphabet[n % 6];
            Some((0..2 + n % 3).map(|at| letter(n / 3 + n / (at + 2) + at * step)).collect())
        }
    };
    // Ids with equal bytes are one string: a model alone would tell them apart.
    let mut seen = std::collections::HashSet::new();
    let bytes = (0..decoder.spec().vocab_size - 3).map(bytes).map(|of| of.filter(|of| seen.insert(of.clone())));
    ByteVocabulary::from_bytes(bytes, &[0])
}

/// Two models, each with its vocabulary.
struct Pair {
    decoders: [Decoder; 2],
    vocabularies: [ByteVocabulary; 2],
}

impl Pair {
    fn of(first: &str, second: &str) -> Self {
        let decoders = [decoder(first), decoder(second)];
        let vocabularies = [strings(&decoders[0], 1), strings(&decoders[1], if first == second { 1 } else { 5 })];
        Self { decoders, vocabularies }
    }

    fn write(&self, members: &[usize], plan: &Plan) -> EnsembleText {
        let spell: Vec<_> = members.iter().map(|at| |bytes: &[u8]| longest(&self.vocabularies[*at], bytes)).collect();
        let of = members.iter().zip(&spell).map(|(at, spell)| Member {
            decoder: &self.decoders[*at],
            vocabulary: &self.vocabularies[*at],
            spell,
        });
        let ensemble = Ensemble::new(of.collect(), &|| 0.0);
        let mut memory = Memory::default();
        let prompts: Vec<Vec<u32>> = members.iter().map(|at| vec![5 + *at as u32 * 3, 9, 4]).collect();
        let mut heard = Vec::new();
        let text = ensemble.write(plan, 3, &prompts, &mut memory, &mut |_, bytes| {
            heard.extend_from_slice(bytes);
            ControlFlow::Continue(())
        });
        let text = text.unwrap_or_else(|error| panic!("{:?}: {error:?}", plan.method)).unwrap();
        assert_eq!(heard, text.text);
        // What was read once does not change what is written next.
        let again =
            ensemble.write(plan, 3, &prompts, &mut memory, &mut |_, _| ControlFlow::Continue(())).unwrap().unwrap();
        assert_eq!(again, text);
        text
    }

    /// The first model alone, token by token.
    fn greedy(&self, max_tokens: usize) -> Vec<u8> {
        let vocabulary = &self.vocabularies[0];
        let bytes = |id: u32| vocabulary.string_of(id).map_or(Vec::new(), |s| vocabulary.string(s).to_vec());
        let writer = Writer { decoder: &self.decoders[0], bytes: &bytes, batch: 1 };
        let without: Vec<u32> =
            (0..self.decoders[0].spec().vocab_size as u32).filter(|id| vocabulary.string_of(*id).is_none()).collect();
        // Ids without bytes are impossible in an ensemble.
        let stops = Stops { end_tokens: Vec::new(), ids: without, strings: Vec::new() };
        let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
        let decoding = Decoding { sampling, stops, min_tokens: max_tokens, max_tokens, ..Decoding::default() };
        let mut text = Vec::new();
        let request = Request { item: 3, prompt: vec![5, 9, 4] };
        generate(&writer, &decoding, [request], &mut |event| {
            if let Event::Finished(generation) = event {
                text = generation.text;
            }
            ControlFlow::Continue(())
        })
        .unwrap();
        text
    }
}

fn methods() -> Vec<Method> {
    let unite = Unite { k: 4, ..Unite::default() };
    let whole = Unite { missing: unite::Missing::WholeString, ..unite };
    let bytes = |mixture| Method::Bytes(Covers { mixture, ..Covers::default() });
    vec![
        Method::Unite(unite),
        Method::Unite(whole),
        Method::Gac,
        bytes(Mixture::Arithmetic),
        bytes(Mixture::Geometric),
        bytes(Mixture::Posterior),
        Method::Chared,
    ]
}

fn plan(method: Method, weights: &[f64]) -> Plan {
    Plan {
        method,
        weights: weights.to_vec(),
        gate: None,
        temperature: 0.0,
        seed: 1,
        stops: Vec::new(),
        ends: EndSymbol::Excluded,
        max_tokens: 12,
        votes: 3,
    }
}

#[test]
fn equal_models_write_what_one_would() {
    let pair = Pair::of("llama", "llama");
    let expected = pair.greedy(12);
    for method in [Method::Unite(Unite { k: 4, ..Unite::default() }), Method::Gac] {
        let text = pair.write(&[0, 0], &plan(method, &[0.5, 0.5]));
        assert_eq!((text.text, text.tokens), (expected.clone(), 12), "{method:?}");
        assert_eq!(text.counts.respelt, 0);
    }
    for method in methods() {
        let alone = pair.write(&[0], &plan(method, &[1.0]));
        let both = pair.write(&[0, 0], &plan(method, &[0.3, 0.7]));
        assert_eq!(both.text, alone.text, "{method:?}");
    }
}

#[test]
fn a_weight_of_one_is_that_model() {
    let pair = Pair::of("llama", "qwen2");
    for method in methods() {
        let alone = pair.write(&[0], &plan(method, &[1.0]));
        let weighed = pair.write(&[0, 1], &plan(method, &[1.0, 0.0]));
        assert_eq!(weighed.text, alone.text, "{method:?}");
    }
    let greedy = pair.greedy(12);
    assert_eq!(pair.write(&[0, 1], &plan(Method::Gac, &[2.0, 0.0])).text, greedy);
}

#[test]
fn the_order_of_members_does_not_matter() {
    let pair = Pair::of("llama", "gemma3");
    for method in methods() {
        let [a, b] = [[0, 1], [1, 0]].map(|order| pair.write(&order, &plan(method, &[0.5, 0.5])).text);
        // The first member counts the tokens, so one of them may be longer.
        let common = a.len().min(b.len());
        assert!(common >= 6 && a[..common] == b[..common], "{method:?}");
    }
}

#[test]
fn votes_say_who_wanted_what() {
    let pair = Pair::of("llama", "qwen2");
    for method in methods() {
        let text = pair.write(&[0, 1], &plan(method, &[0.5, 0.5]));
        assert!(!text.steps.is_empty());
        for step in &text.steps {
            assert_eq!(step.symbol, step.votes[0].symbol);
            assert!(step.votes.len() <= 3 && step.votes.is_sorted_by(|a, b| a.p >= b.p));
            assert!(step.votes.iter().all(|vote| vote.members.len() == 2 && vote.p <= 1.0 + 1e-12), "{step:?}");
        }
        let bytes: Vec<u8> = text
            .steps
            .iter()
            .flat_map(|step| if let Symbol::Text(bytes) = &step.symbol { bytes.clone() } else { Vec::new() })
            .collect();
        assert_eq!(bytes, text.text);
    }
}

#[test]
fn behind_the_gate_equal_models_never_vote() {
    let pair = Pair::of("llama", "llama");
    let expected = pair.greedy(12);
    for method in [Method::Unite(Unite::default()), Method::Gac, Method::Bytes(Covers::default()), Method::Chared] {
        let gated = Plan { gate: Some(Safe::default()), ..plan(method, &[0.5, 0.5]) };
        let text = pair.write(&[0, 0], &gated);
        assert_eq!((text.text, text.counts.ensembled), (expected.clone(), 0), "{method:?}");
    }
}

#[test]
fn behind_the_gate_other_models_do() {
    let pair = Pair::of("llama", "qwen2");
    for method in methods() {
        for sharpen in [Sharpen::Nothing, Sharpen::Prefix, Sharpen::Geometric] {
            let gate = Some(Safe { draft: 3, sharpen });
            let text = pair.write(&[0, 1], &Plan { gate, ..plan(method, &[0.5, 0.5]) });
            assert!(text.counts.ensembled > 0 && text.tokens >= 9, "{method:?} {:?}", text.counts);
        }
    }
}

#[test]
fn one_token_is_a_whole_one() {
    let pair = Pair::of("llama", "qwen2");
    for method in methods() {
        let text = pair.write(&[0, 1], &Plan { max_tokens: 1, ..plan(method, &[0.5, 0.5]) });
        let spelt = longest(&pair.vocabularies[0], &text.text).unwrap();
        assert!(!text.text.is_empty() && spelt.len() <= text.text.len());
        if matches!(method, Method::Bytes(_) | Method::Chared) {
            assert_eq!((text.tokens, spelt.len(), text.ended), (1, 1, EnsembleEnd::Length), "{method:?}");
        }
    }
}

#[test]
fn inside_a_token_of_another_model_nobody_votes() {
    let decoder = decoder("llama");
    let vocabulary = vocabulary(&["</s>", "So", "fia", "Sofia", " ", "x"], &[0]);
    let spell = |bytes: &[u8]| longest(&vocabulary, bytes);
    let member = Member { decoder: &decoder, vocabulary: &vocabulary, spell: &spell };
    let mut cache = PrefixCache::new(decoder.spec(), 1);
    let mut view = View::new(&member, &mut cache, &[4]);
    view.read(b"Sofia").unwrap();
    assert!(view.has_boundary(0) && !view.has_boundary(2) && view.has_boundary(5));
    assert_eq!(view.tokens(), 1);
    // What it wrote itself stays as it was written.
    view.truncate(0);
    view.push_own(1, b"So");
    assert!(view.has_boundary(2));
    assert_eq!(view.spell(b"So", b"fia").unwrap(), [2]);
    assert_eq!(view.read(b"Sofia"), Some(true));
    assert!(!view.has_boundary(2));
}

#[test]
fn texts_end_by_symbol_stop_string_length_and_context() {
    let pair = Pair::of("llama", "qwen2");
    for method in methods() {
        let long = pair.write(&[0, 1], &plan(method, &[0.5, 0.5]));
        assert_eq!(long.ended, EnsembleEnd::Length);
        let stop = String::from_utf8_lossy(&long.text[3..4]).into_owned();
        let stopped = pair.write(&[0, 1], &Plan { stops: vec![stop.clone()], ..plan(method, &[0.5, 0.5]) });
        assert_eq!(stopped.ended, EnsembleEnd::StopString { string: stop }, "{method:?}");
        assert!(long.text.starts_with(&stopped.text) && stopped.text.len() <= 3);
        let context = pair.decoders.iter().map(|d| d.spec().context_length).min().unwrap();
        let full = pair.write(&[0, 1], &Plan { max_tokens: 10 * context, votes: 0, ..plan(method, &[0.5, 0.5]) });
        assert!(matches!(full.ended, EnsembleEnd::ContextFull { .. }), "{method:?}");
    }
}

#[test]
fn whole_strings_have_the_probability_of_their_tokens() {
    let decoder = decoder("llama");
    let vocabulary = strings(&decoder, 1);
    let spell = |bytes: &[u8]| longest(&vocabulary, bytes);
    let member = Member { decoder: &decoder, vocabulary: &vocabulary, spell: &spell };
    let mut cache = PrefixCache::new(decoder.spec(), 1);
    let mut view = View::new(&member, &mut cache, &[4, 7]);
    let log_softmax = |logits: &[f32]| -> Vec<f64> {
        let total = unite::log_sum_exp(logits.iter().map(|l| f64::from(*l)));
        logits.iter().map(|l| f64::from(*l) - total).collect()
    };
    let first = log_softmax(&view.logits(1, 0).unwrap()[0]);
    let strings = [vec![5], vec![8, 2, 3], vec![8, 9]];
    let found = view.whole(&strings, &first).unwrap();
    for (ids, found) in strings.iter().zip(found) {
        let all = [&[4, 7][..], ids].concat();
        let hidden = decoder.forward(&Batch::single(&all), None, &mut NoTap).unwrap();
        let logits = decoder.logits(&hidden).unwrap().to_vec2::<f32>().unwrap();
        let expected: f64 = ids.iter().enumerate().map(|(at, id)| log_softmax(&logits[1 + at])[*id as usize]).sum();
        assert!((found - expected).abs() < 1e-5, "{found} for {expected}");
    }
}

#[test]
fn draws_follow_the_combined_distribution_and_their_seed() {
    let pair = Pair::of("llama", "qwen2");
    for method in methods() {
        let drawn = Plan { temperature: 1.0, ..plan(method, &[0.5, 0.5]) };
        let [a, b, other] =
            [drawn.clone(), drawn.clone(), Plan { seed: 2, ..drawn }].map(|plan| pair.write(&[0, 1], &plan).text);
        assert_eq!(a, b);
        assert_ne!(a, other, "{method:?}");
    }
}

#[test]
fn plans_that_cannot_be_are_refused() {
    let unite = Method::Unite(Unite::default());
    let good = plan(unite, &[0.5, 0.5]);
    let bad = [
        Plan { weights: vec![1.0], ..good.clone() },
        Plan { weights: vec![1.0, -1.0], ..good.clone() },
        Plan { weights: vec![0.0, 0.0], ..good.clone() },
        Plan { weights: vec![1.0, f64::NAN], ..good.clone() },
        Plan { temperature: -1.0, ..good.clone() },
        Plan { max_tokens: 0, ..good.clone() },
        Plan { stops: vec![String::new()], ..good.clone() },
        Plan { method: Method::Unite(Unite { k: 0, ..Unite::default() }), ..good.clone() },
        Plan { method: Method::Bytes(Covers { beam: 0, ..Covers::default() }), ..good.clone() },
        Plan { method: Method::Bytes(Covers { prune: 1.0, ..Covers::default() }), ..good.clone() },
        Plan { gate: Some(Safe { draft: 0, ..Safe::default() }), ..good.clone() },
        Plan { gate: Some(Safe::default()), temperature: 1.0, ..good.clone() },
    ];
    good.check(2).unwrap();
    for plan in bad {
        let error = plan.check(2).unwrap_err();
        assert!(matches!(error, DecodeError::Option { .. }), "{plan:?}");
        assert!(error.hint().is_some());
    }
}
