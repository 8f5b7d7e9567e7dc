use super::*;

const PAIRS: &str = r#"
    name = "pairs"
    description = "d"
    [task]
    type = "sts"
    data = [{ file = "pairs.jsonl" }]
"#;

fn parse(text: &str) -> Result<EmbedTask, Error> {
    EmbedTask::parse(text, Notation::Toml, "t.toml")
}

fn problem(text: &str) -> String {
    parse(text).expect_err("refused").to_string()
}

#[test]
fn the_least_that_a_file_says() {
    let task = parse(PAIRS).expect("a task");
    let Protocol::Sts(pairs) = &task.task else { panic!("another protocol") };
    assert_eq!([pairs.first.as_str(), &pairs.second, &pairs.score], ["sentence1", "sentence2", "score"]);
    assert_eq!((task.task.name(), task.task.headline()), ("sts", "cosine_spearman"));
    let json = serde_json::to_string(&task).expect("JSON");
    assert_eq!(EmbedTask::parse(&json, Notation::Json, "t.json").expect("the same"), task);

    let classes = r#"
        name = "c"
        description = "d"
        [task]
        type = "classification"
        train = [{ file = "a.tsv", constants = { label = "x" }, rows = { first = 1, every = 2 } }]
        test = [{ encoding = "windows-1252", layout = "fasttext" }]
        label = { sign_of = { field = "mean", at_least = 0.5 } }
    "#;
    let task = parse(classes).expect("a task");
    let Protocol::Classification(of) = &task.task else { panic!("another protocol") };
    assert_eq!((of.samples_per_label, of.draws, of.repeated), (8, 10, Repeated::Keep));
    assert_eq!(of.label, LabelField::SignOf { field: "mean".into(), at_least: 0.5 });
    assert_eq!(of.test[0].layout, Some(Layout::Fasttext));
    let json = serde_json::to_string(&task).expect("JSON");
    assert_eq!(EmbedTask::parse(&json, Notation::Json, "t.json").expect("the same"), task);
}

#[test]
fn what_is_wrong_is_named() {
    let with = |more: &str| problem(&format!("{PAIRS}\n{more}"));
    assert!(with("frist = \"a\"").contains("frist"));
    assert!(problem(&PAIRS.replace("file =", "fil =")).contains("fil"));
    assert!(problem(&PAIRS.replace("\"sts\"", "\"stss\"")).contains("stss"));
    assert!(problem(&PAIRS.replace("\"pairs\"", "\"My pairs\"")).contains("name: `My pairs`"));
    assert!(problem(&PAIRS.replace("{ file = \"pairs.jsonl\" }", "")).contains("data: no file is named"));
    let source = |source: &str| problem(&PAIRS.replace("{ file = \"pairs.jsonl\" }", source));
    assert!(source("{ package = \"gensim\" }").contains("package: which of its files"));
    assert!(source("{ file = \"a\", rows = { first = 0, every = 2 } }").contains("count from 1"));
    assert!(source("{ file = \"a\", layout = \"lines\", columns = [\"a\"] }").contains("columns"));
    let classes = "name = \"c\"\ndescription = \"d\"\n[task]\ntype = \"classification\"\ntrain = [{}]\ntest = [{}]\n";
    assert!(parse(classes).is_ok());
    assert!(problem(&format!("{classes}draws = 0")).contains("draws"));
    assert!(
        problem(&format!("{classes}label = {{ sign_of = {{ field = \"a\", at_least = -1.0 }} }}")).contains("at_least")
    );
}
