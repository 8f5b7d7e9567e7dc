use lathe_model::Weights;
use lathe_model::reference::Home;

use super::*;
use crate::Silent;
use crate::eval::task::Notation;

/// Reads a task whose `[task]` section is `section` from files beside it.
fn read(section: &str, files: &[(&str, &str)], limit: Option<usize>) -> Result<Asked, String> {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content).expect("a file");
    }
    let text = format!("name = \"t\"\ndescription = \"d\"\n[task]\n{section}\n");
    let task = EmbedTask::parse(&text, Notation::Toml, "t.toml").expect("a task");
    let home = Home::new(folder.path().join("home"), folder.path().join("hub"));
    let context =
        Context { home: &home, progress: &Silent, seconds: &|| 0.0, peak_memory: &|| None, weights: Weights::Frozen };
    let extent = Extent { folder: folder.path(), data: None, limit, seed: 0 };
    asked(task, &extent, &context)
        .map_err(|error| error.to_string().replace(&format!("{}/", folder.path().display()), ""))
}

fn lines(rows: &[serde_json::Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

#[test]
fn draws_are_those_of_the_protocol() {
    // The page's vector: the list of ten after one shuffle is 8 1 5 0 7 2 9 4 3 6, and after two 3 1 2 8 4 5 6 7 0 9.
    let labels: Vec<usize> = (0..10).map(|index| index % 2).collect();
    assert_eq!(drawn(&labels, 2, 2, 2), [vec![8, 1, 5, 0], vec![3, 1, 2, 8]]);
    // A label with fewer rows gives what it has.
    let labels = [0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    assert_eq!(drawn(&labels, 2, 2, 1), [vec![8, 1, 9]]);
}

#[test]
fn every_text_is_read_once() {
    let rows = [
        serde_json::json!({"sentence1": "a", "sentence2": "b", "score": 1}),
        serde_json::json!({"sentence1": "b", "sentence2": "", "score": "2.5"}),
        serde_json::json!({"sentence1": ["c", "a"], "sentence2": ["a", "b"], "score": [0, 5]}),
    ];
    let file = lines(&rows);
    let section = "type = \"sts\"\ndata = [{ file = \"p.jsonl\" }]";
    let asked = read(section, &[("p.jsonl", &file)], None).expect("pairs");
    assert_eq!(asked.texts, ["a", "b", "", "c"]);
    let What::Pairs(pairs) = &asked.what else { panic!("another task") };
    let found: Vec<_> = pairs.iter().map(|pair| (pair.record, pair.texts, pair.score)).collect();
    assert_eq!(found, [(1, [0, 1], 1.0), (2, [1, 2], 2.5), (3, [3, 0], 0.0), (3, [0, 1], 5.0)]);

    let part = read(section, &[("p.jsonl", &file)], Some(2)).expect("pairs");
    assert_eq!((part.what.units(), part.available), (2, 4));
    assert!(part.texts.len() < 4 && part.sha256 != asked.sha256, "texts beyond the limit are not read");

    let uneven = lines(&[serde_json::json!({"sentence1": ["c", "a"], "sentence2": ["a"], "score": [0]})]);
    let error = read(section, &[("p.jsonl", &uneven)], None).expect_err("refused");
    assert_eq!(error, "t: p.jsonl, record 1: `sentence2` has 1 values where 2 are needed");
}

#[test]
fn a_matrix_is_all_pairs() {
    let section = "type = \"sts_matrix\"\ndata = [{ file = \"a.txt\", layout = \"lines\" }]\n\
                   similarities = { file = \"m.txt\" }";
    let asked = read(section, &[("a.txt", "a\nb\nc\n"), ("m.txt", "1 .2 .3\n0 1 .4\n0 0 1\n")], None).expect("pairs");
    let What::Pairs(pairs) = &asked.what else { panic!("another task") };
    let found: Vec<_> = pairs.iter().map(|pair| (pair.texts, pair.score)).collect();
    assert_eq!(found, [([0, 1], 0.2), ([0, 2], 0.3), ([1, 2], 0.4)]);
    let error = read(section, &[("a.txt", "a\nb\n"), ("m.txt", "1 .2 .3\n0 1 .4\n")], None).expect_err("refused");
    assert_eq!(error, "--task: t: 2 texts, and a matrix of similarities of 2 x 3");
}

#[test]
fn a_corpus_and_its_queries() {
    let corpus = lines(&[
        serde_json::json!({"_id": "d1", "title": "", "text": "one"}),
        serde_json::json!({"_id": "d2", "title": "T", "text": "two"}),
    ]);
    let queries = lines(&[
        serde_json::json!({"_id": "q1", "text": "first"}),
        serde_json::json!({"_id": "q2", "text": "second"}),
        serde_json::json!({"_id": "q3", "text": "third"}),
    ]);
    let qrels = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t1\nq2\td1\t0\nq3\tgone\t1\n";
    let section = "type = \"retrieval\"\ncorpus = [{ file = \"c.jsonl\" }]\nqueries = [{ file = \"q.jsonl\" }]\n\
                   qrels = [{ file = \"r.tsv\" }]";
    let files = [("c.jsonl", corpus.as_str()), ("q.jsonl", &queries), ("r.tsv", qrels)];
    let asked = read(section, &files, None).expect("a search");
    let What::Search(search) = &asked.what else { panic!("another task") };
    let documents: Vec<_> =
        search.documents.iter().map(|document| (document.id.as_str(), asked.texts[document.text].as_str())).collect();
    assert_eq!(documents, [("d2", "T two"), ("d1", "one")]);
    assert_eq!(search.queries.len(), 1, "a query without a relevant document is not asked");
    assert_eq!(search.queries[0].gains, [(1, 2.0), (0, 1.0)]);
    let why: Vec<_> = asked.left_out.iter().map(|left| (left.rows, left.why.as_str())).collect();
    assert_eq!(
        why,
        [(1, "judgements of documents that are not in the corpus"), (2, "queries without a relevant document")]
    );
    let twice = corpus.replace("d2", "d1");
    let error = read(section, &[("c.jsonl", &twice), files[1], files[2]], None).expect_err("refused");
    assert!(error.contains("another document has the same name"), "{error}");
}

#[test]
fn labels_by_sign_and_texts_that_come_again() {
    let table =
        "id\tmean\ttext\n1\t2.0\tgood\n2\t-1.5\tbad\n3\t0.1\tso so\n4\t0.9\tgood\n5\t-2\tawful\n6\t0\tnothing\n";
    let section = |more: &str| {
        format!(
            "type = \"classification\"\ntrain = [{{ file = \"a.tsv\", rows = {{ first = 1, every = 1 }} }}]\n\
             test = [{{ file = \"b.tsv\" }}]\nlabel = {{ sign_of = {{ field = \"mean\", at_least = 0.5 }} }}\n{more}"
        )
    };
    let test = "mean\ttext\n1\tbad\n1\tfine\n";
    let files = [("a.tsv", table), ("b.tsv", test)];
    let asked = read(&section("samples_per_label = 1\ndraws = 3"), &files, None).expect("classes");
    let What::Classes(of) = &asked.what else { panic!("another task") };
    assert_eq!(of.names, ["negative", "positive"]);
    assert_eq!(of.draws.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 2]);
    assert_eq!(of.test.iter().map(|text| text.label).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(asked.left_out, [LeftOut { why: "neither positive nor negative".into(), rows: 2 }]);

    let asked = read(&section("repeated = \"leave_out\""), &files, None).expect("classes");
    let What::Classes(of) = &asked.what else { panic!("another task") };
    // `good` is there twice, and `bad` was trained on.
    assert_eq!((of.draws[0].len(), of.test.len()), (3, 1));
}

#[test]
fn a_label_that_was_not_trained_is_no_class() {
    let files = [("a.tsv", "label\ttext\nx\ta\ny\tb\n"), ("b.tsv", "label\ttext\nz\tc\n")];
    let section = "type = \"classification\"\ntrain = [{ file = \"a.tsv\" }]\ntest = [{ file = \"b.tsv\" }]";
    let asked = read(section, &files, None).expect("classes");
    let What::Classes(of) = &asked.what else { panic!("another task") };
    assert_eq!((of.names.len(), of.test[0].label), (2, 2));
    let error = read(section, &[("a.tsv", "label\ttext\nx\ta\n"), files[1]], None).expect_err("refused");
    assert_eq!(error, "--task: t: 1 labels in the rows to train on: at least 2");
}

#[test]
fn sets_lists_and_summaries() {
    let rows = lines(&[
        serde_json::json!({"sentences": ["a", "b", "c"], "labels": [1, 2, 1]}),
        serde_json::json!({"sentences": ["d", "e"], "labels": ["x", "x"]}),
    ]);
    let asked =
        read("type = \"clustering\"\ndata = [{ file = \"s.jsonl\" }]", &[("s.jsonl", &rows)], None).expect("sets");
    let What::Sets(sets) = &asked.what else { panic!("another task") };
    assert_eq!(sets.iter().map(|set| (set.names.len(), set.texts.len())).collect::<Vec<_>>(), [(2, 3), (1, 2)]);
    assert_eq!((asked.what.unit(), asked.what.units()), ("sets", 2));

    let rows = lines(&[
        serde_json::json!({"query": ["q", "r"], "positive": ["a"], "negative": ["b", "c"]}),
        serde_json::json!({"query": "q", "positive": [], "negative": ["b"]}),
    ]);
    let asked =
        read("type = \"reranking\"\ndata = [{ file = \"s.jsonl\" }]", &[("s.jsonl", &rows)], None).expect("lists");
    let What::Lists(lists_) = &asked.what else { panic!("another task") };
    assert_eq!((lists_.len(), lists_[0].queries.len(), asked.left_out[0].rows), (1, 2, 1));

    let rows = lines(&[serde_json::json!({
        "human_summaries": ["h"], "machine_summaries": ["m", "n"], "relevance": [1.0, 2.0]
    })]);
    let section = "type = \"summarisation\"\ndata = [{ file = \"s.jsonl\" }]";
    let asked = read(section, &[("s.jsonl", &rows)], None).expect("summaries");
    let What::Summaries(all) = &asked.what else { panic!("another task") };
    assert_eq!((&all[0].human, &all[0].machine), (&vec![0], &vec![1, 2]));
    let error = read(section, &[("s.jsonl", &rows.replace("[1.0,2.0]", "[1.0]"))], None).expect_err("refused");
    assert!(error.ends_with("`relevance` has 1 values where 2 are needed"), "{error}");
}
