//! What sets made by rules must hold, for any seed.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::path::Path;

use lathe_measure::context::{normalised, traps};
use proptest::prelude::*;
use serde_json::Value;

use super::conflicts::records;
use super::facts::{filled, relations};
use super::*;

fn read(file: &Path) -> Vec<Value> {
    std::fs::read_to_string(file).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_sides_of_the_table_share_nothing() {
    let names = |split| {
        let relations = relations(None, split, &[]).unwrap();
        let facts: Vec<[String; 2]> = relations.iter().flat_map(|relation| relation.facts.clone()).collect();
        let names: BTreeSet<String> = facts.iter().flatten().map(|name| normalised(name)).collect();
        (relations.len(), facts.len(), names)
    };
    let (test, train, all) = (names(Split::Test), names(Split::Train), names(Split::All));
    assert_eq!((test.0 + train.0, test.1 + train.1), (all.0, all.1));
    assert!(test.1 >= 120 && train.1 >= 80, "{} {}", test.1, train.1);
    assert_eq!(test.2.intersection(&train.2).collect::<Vec<_>>(), Vec::<&String>::new());
    // No name of one side stands in a template of the other.
    for (side, others) in [(Split::Test, &train.2), (Split::Train, &test.2)] {
        for relation in relations(None, side, &[]).unwrap() {
            for text in relation.contexts.iter().chain(&relation.questions).chain(&relation.statements) {
                let words = format!(" {} ", normalised(text));
                let found = others.iter().find(|name| name.len() > 2 && words.contains(&format!(" {name} ")));
                assert_eq!(found, None, "{text}");
            }
        }
    }
}

#[test]
fn true_contexts_hold_their_answer_and_no_template_gives_it_away() {
    for relation in relations(None, Split::All, &[]).unwrap() {
        for [subject, answer] in &relation.facts {
            for context in &relation.contexts {
                assert!(filled(context, subject, answer).contains(answer), "{subject}: {context}");
            }
            for question in &relation.questions {
                let question = format!(" {} ", normalised(&filled(question, subject, "")));
                assert!(!question.contains(&format!(" {} ", normalised(answer))), "{question}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn no_trap_for_any_seed(seed in any::<u64>(), variants in 1usize..4) {
        let relations = relations(None, Split::All, &[]).unwrap();
        let (made, short) = records(&relations, variants, None, seed);
        let facts: usize = relations.iter().map(|relation| relation.facts.len()).sum();
        prop_assert_eq!((made.len(), short), (facts * variants, 0));
        let mut seen = BTreeSet::new();
        for of in &made {
            prop_assert_eq!(traps(&of.context, &of.question, &of.answer, &of.memorised), vec![]);
            prop_assert!(seen.insert((normalised(&of.context), normalised(&of.question))), "{}", of.context);
            let relation = relations.iter().find(|relation| relation.name == of.relation).unwrap();
            prop_assert!(relation.facts.contains(&[of.subject.clone(), of.memorised.clone()]));
            prop_assert!(relation.facts.iter().any(|[_, answer]| *answer == of.answer));
            prop_assert!(of.answer != of.memorised);
        }
        // A limit takes some of the same records, in their order.
        let (few, _) = records(&relations, variants, Some(7), seed);
        prop_assert_eq!(few.len(), 7 * variants);
        let mut rest = made.iter();
        prop_assert!(few.iter().all(|of| rest.any(|other| other == of)));
        prop_assert_eq!(&few, &records(&relations, variants, Some(7), seed).0);
    }
}

#[test]
fn answers_stand_at_varied_places() {
    let relations = relations(None, Split::Test, &[]).unwrap();
    let (made, _) = records(&relations, 1, None, 0);
    let fifths = made.iter().map(|of| ((of.position * 5.0) as usize).min(4));
    let mut counts = [0; 5];
    fifths.for_each(|fifth| counts[fifth] += 1);
    assert!(counts.iter().all(|count| *count * 20 >= made.len()), "{counts:?}");
}

#[test]
fn instructions_are_the_same_with_and_without_counterfactual_ones() {
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str, counterfactual: f64, seed: u64| {
        let out = folder.path().join(name);
        let spec =
            InstructionsSpec { facts: None, split: Split::Train, records: 400, counterfactual, seed, out: out.clone() };
        (instructions(&spec).unwrap(), read(&out))
    };
    let (plain, without) = make("plain.jsonl", 0.0, 3);
    let (augmented, with) = make("augmented.jsonl", 0.1, 3);
    assert_eq!((plain.records, augmented.records, without.len(), with.len()), (400, 440, 400, 440));
    let counts: Vec<usize> = augmented.kinds.iter().map(|kind| kind.records).collect();
    assert_eq!(counts, [180, 80, 60, 40, 40, 40]);
    let old: Vec<&Value> = with.iter().filter(|of| of["kind"] != "counterfactual context").collect();
    assert_eq!(old, without.iter().collect::<Vec<_>>());
    for of in &with {
        let [user, assistant] = [&of["messages"][0], &of["messages"][1]];
        assert_eq!((&user["role"], &assistant["role"]), (&"user".into(), &"assistant".into()));
        let asked = user["content"].as_str().unwrap();
        assert!(asked.contains("Question: ") && !assistant["content"].as_str().unwrap().is_empty());
        match of["context"].as_str() {
            Some(context) => assert!(asked.starts_with(&format!("Background: {context}\nQuestion: ")), "{asked}"),
            None => assert!(asked.starts_with("Question: "), "{asked}"),
        }
    }
    let different: BTreeSet<String> = with.iter().map(|of| of["messages"].to_string()).collect();
    assert_eq!(different.len(), with.len());
    assert_eq!(make("again.jsonl", 0.1, 3).1, with);
    assert_ne!(make("other.jsonl", 0.1, 4).1, with);
}

#[test]
fn tables_of_facts_that_make_no_sense() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("facts.toml");
    let table = r#"
        [[relation]]
        name = "seat"
        questions = ["Where is {subject}?"]
        contexts = ["{subject} is in {answer}."]
        facts = [["Alpha", "Oran"], ["Beta", "Brest"]]
    "#;
    let out = folder.path().join("out.jsonl");
    let make = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let spec = ConflictsSpec {
            facts: Some(file.clone()),
            split: Split::Test,
            relations: Vec::new(),
            variants: 1,
            limit: None,
            seed: 0,
            out: out.clone(),
        };
        conflicts(&spec).map(|result| result.records).map_err(|error| error.to_string())
    };
    assert_eq!(make(table), Ok(2));
    assert_eq!(read(&out)[0]["context"], "Alpha is in Brest.");
    // The other answer of each is a part of the first.
    let refused = make(&table.replace("Brest", "New Oran")).unwrap_err();
    assert_eq!(refused, "--facts: no answer can take the place of another without a trap");
    for (from, to, problem) in [
        ("[[relation]]", "[[relations]]", "unknown field `relations`"),
        ("questions", "question", "unknown field `question`"),
        (
            "\"{subject} is in {answer}.\"",
            "\"It is in {answer}.\"",
            "relation `seat`: `contexts`: `It is in {answer}.` lacks {subject} or {answer}",
        ),
        ("\"Where is {subject}?\"", "", "relation `seat`: `questions` is empty"),
        ("Where is {subject}?", "Is {subject} in {answer}?", "a question holds {answer}"),
        (", [\"Beta\", \"Brest\"]", "", "1 facts leave nothing to exchange"),
        ("Beta", "alpha", "there are two facts about `alpha`"),
        ("Brest", "?", "has an empty side"),
        ("name = \"seat\"", "name = \"seat\"\nsplit = \"train\"", "no relation is on the side of the split"),
    ] {
        assert!(table.contains(from), "{from}");
        let refused = make(&table.replace(from, to)).unwrap_err();
        assert!(refused.starts_with("--facts: ") && refused.contains(problem), "{refused}");
    }
}
