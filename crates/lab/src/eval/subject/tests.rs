//! Log-likelihoods and tokens against transformers by the rules of lm-evaluation-harness
//! (`tests/fixtures/make_likelihoods.py`), on a tiny model with two tokenizers and on a real one where it is fetched.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::path::{Path, PathBuf};

use lathe_model::Weights;
use lathe_model::reference::{Home, ModelReference};
use serde_json::{Value, json};

use super::*;
use crate::{Context, Silent, load};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

fn loaded(reference: &ModelReference, home: &Home) -> Result<Loaded, Error> {
    let context =
        Context { home, progress: &Silent, seconds: &|| 0.0, peak_memory: &|| None, weights: Weights::Frozen };
    load(reference, &context)
}

/// The llama fixture with the tokenizer of a golden file; `start` is what it has for a start token.
fn tiny(golden: &str, start: Option<&str>) -> Loaded {
    let folder = tempfile::tempdir().unwrap();
    let fixture = repository("tests/fixtures/parity/llama");
    let mut config: Value = serde_json::from_slice(&std::fs::read(fixture.join("config.json")).unwrap()).unwrap();
    if start.is_none() {
        config.as_object_mut().unwrap().remove("bos_token_id");
    }
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    std::fs::copy(fixture.join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    let tokenizer = repository(&format!("tests/goldens/likelihoods/{golden}.tokenizer.json"));
    std::fs::copy(tokenizer, folder.path().join("tokenizer.json")).unwrap();
    let names = json!({"unk_token": "<unk>", "bos_token": start, "eos_token": "</s>"});
    std::fs::write(folder.path().join("tokenizer_config.json"), names.to_string()).unwrap();
    let home = Home::new(folder.path().to_owned(), folder.path().to_owned());
    loaded(&ModelReference::Path(folder.path().to_owned()), &home).unwrap()
}

fn choice(context: &str, target: &str) -> Choice {
    Choice { context: context.into(), delimiter: String::new(), target: target.into() }
}

fn ask(subject: &Subject<'_>, questions: &[Vec<Choice>]) -> Result<Vec<Vec<OptionScore>>, Failed> {
    let mut all = Vec::new();
    let asked: Vec<&[Choice]> = questions.iter().map(Vec::as_slice).collect();
    subject.choices(&asked, &mut |index, scores| {
        assert_eq!(index, all.len());
        all.push(scores);
        ControlFlow::Continue(())
    })?;
    Ok(all)
}

/// Compares everything in a golden file: tokens exactly, sums to `tolerance` nats.
fn compare(loaded: &Loaded, golden: &str, tolerance: f64) {
    let file = repository(&format!("tests/goldens/likelihoods/{golden}.json"));
    let golden: Vec<Value> = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let (mut questions, mut expected, mut refused) = (Vec::new(), Vec::new(), 0);
    let manner = Manner::default();
    let subject = Subject { loaded, manner: &manner };
    for row in &golden {
        let context = row["context"].as_str().unwrap();
        let (mut choices, mut sums) = (Vec::new(), Vec::new());
        for option in row["options"].as_array().unwrap() {
            let choice = choice(context, option["continuation"].as_str().unwrap());
            let ids = |name: &str| -> Vec<u32> {
                option[name].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
            };
            let fork = subject.fork(0, &choice);
            if ids("after").is_empty() {
                // The other program fails here; a sum over nothing would always win.
                assert!(matches!(fork, Err(Failed::Question { .. })), "{choice:?}");
                refused += 1;
                continue;
            }
            assert_eq!(fork.unwrap(), (ids("before"), ids("after")), "{choice:?}");
            choices.push(choice);
            sums.push((option["log_p"].as_f64().unwrap(), ids("after").len()));
        }
        questions.push(choices);
        expected.push(sums);
    }
    assert!(refused > 0);
    let scored = ask(&subject, &questions).unwrap();
    for (scores, sums) in scored.iter().zip(&expected) {
        for (score, (sum, tokens)) in scores.iter().zip(sums) {
            assert!((score.log_p - sum).abs() < tolerance, "{} is not {sum}", score.log_p);
            assert_eq!(score.tokens, *tokens);
        }
    }
    // No bit depends on how many are asked at once.
    let manner = Manner { batch: Some(1), ..Manner::default() };
    assert_eq!(ask(&Subject { loaded, manner: &manner }, &questions).unwrap(), scored);
}

#[test]
fn a_tokenizer_that_adds_a_start_token() {
    compare(&tiny("start", Some("<s>")), "start", 2e-4);
}

#[test]
fn a_tokenizer_that_adds_nothing() {
    compare(&tiny("plain", None), "plain", 2e-4);
}

#[test]
fn smollm2() {
    let home = Home::from_environment().unwrap();
    match loaded(&"smollm2".parse().unwrap(), &home) {
        Ok(loaded) => compare(&loaded, "smollm2", 2e-3),
        Err(error) => println!("skipped smollm2: {error}"),
    }
}

#[test]
fn options_behind_different_texts_are_put_together_again() {
    let loaded = tiny("plain", None);
    let manner = Manner::default();
    let subject = Subject { loaded: &loaded, manner: &manner };
    let texts = [("the sea", " is"), ("the sand", " is on"), ("the sea", " in"), ("an", "d")];
    let together: Vec<Choice> = texts.iter().take(3).map(|(context, target)| choice(context, target)).collect();
    let alone: Vec<Vec<Choice>> = together.iter().map(|choice| vec![choice.clone()]).collect();
    let expected: Vec<OptionScore> = ask(&subject, &alone).unwrap().concat();
    let asked = ask(&subject, &[alone[1].clone(), together, alone[0].clone()]).unwrap();
    assert_eq!(asked[1], expected);
    assert_eq!((asked[0][0], asked[2][0]), (expected[1], expected[0]));
}

#[test]
fn what_does_not_fit_is_refused_or_cut_on_the_left() {
    let loaded = tiny("plain", None);
    let context = loaded.decoder.spec().context_length;
    let long = "a ".repeat(context);
    let questions = [vec![choice("the", " sea"), choice(&long, "e")]];
    let manner = Manner::default();
    let error = ask(&Subject { loaded: &loaded, manner: &manner }, &questions).unwrap_err();
    let Failed::Question { index: 0, problem, hint } = error else { panic!("{error:?}") };
    assert!(problem.starts_with("the text needs ") && problem.ends_with(&format!(" is {context}")), "{problem}");
    assert!(hint.contains("--truncate-left"));
    let manner = Manner { overlong: Overlong::TruncateLeft, ..Manner::default() };
    let cut = ask(&Subject { loaded: &loaded, manner: &manner }, &questions).unwrap();
    // What is left is what the end of the text alone gives.
    let subject = Subject { loaded: &loaded, manner: &manner };
    let (before, _) = subject.fork(0, &questions[0][1]).unwrap();
    assert_eq!(before.len() + cut[0][1].tokens - 1, context);

    let writing = Writing { max_tokens: 4, stop: &[] };
    let answer = |manner: &Manner, prompt: &str| {
        let mut written = Vec::new();
        let subject = Subject { loaded: &loaded, manner };
        subject.answers(&[prompt], &writing, &mut |_, answer| {
            written.push(answer);
            ControlFlow::Continue(())
        })?;
        Ok::<_, Failed>(written.remove(0))
    };
    assert!(matches!(answer(&Manner::default(), &long), Err(Failed::Question { .. })));
    assert!(answer(&manner, &long).unwrap().tokens <= 4);
}
