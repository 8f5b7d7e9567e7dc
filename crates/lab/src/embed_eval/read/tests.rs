use lathe_model::Weights;
use lathe_model::reference::Home;

use super::super::task::Every;
use super::*;
use crate::Silent;

fn with_files<T>(files: &[(&str, &[u8])], run: impl FnOnce(&Path, &Context<'_>) -> T) -> T {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content).expect("a file");
    }
    let home = Home::new(folder.path().join("home"), folder.path().join("hub"));
    let context =
        Context { home: &home, progress: &Silent, seconds: &|| 0.0, peak_memory: &|| None, weights: Weights::Frozen };
    run(folder.path(), &context)
}

/// The rows of one file as JSON, or what is wrong with it.
fn read(content: &[u8], source: &Source) -> Result<String, String> {
    let source = Source { file: Some("a.tsv".into()), ..source.clone() };
    with_files(&[("a.tsv", content)], |folder, context| {
        let place = Place { task: "t", folder, data: None };
        match rows(&[source], &place, context) {
            Ok(rows) => {
                let rows: Vec<_> = rows.iter().map(|row| (row.record, &row.fields)).collect();
                Ok(serde_json::to_string(&rows).expect("JSON"))
            }
            Err(error) => Err(error.to_string().replace(&format!("{}/", folder.display()), "")),
        }
    })
}

#[test]
fn tables_with_a_heading_and_without() {
    let plain = Source::default();
    assert_eq!(
        read("\u{feff}a\tb\r\n1\t\"x\"\r\n\r\n2\té\n".as_bytes(), &plain).expect("rows"),
        r#"[[1,{"a":"1","b":"\"x\""}],[2,{"a":"2","b":"é"}]]"#
    );
    let named = Source { columns: vec!["w".into(), "v".into()], comment: Some("#".into()), ..plain.clone() };
    assert_eq!(read(b"# c\na\t1\n", &named).expect("rows"), r#"[[1,{"w":"a","v":"1"}]]"#);
    assert_eq!(read(b"a\tb\n1\n", &plain).expect_err("refused"), "a.tsv, line 2: 1 columns instead of 2");
    assert_eq!(read(b"a\tb\n", &plain).expect_err("refused"), "a.tsv: no record in it");
    assert_eq!(read(b"a\n\xff\n", &plain).expect_err("refused"), "a.tsv, line 2: it is not UTF-8");
}

#[test]
fn lines_labels_and_documents() {
    let of = |layout| Source { layout: Some(layout), encoding: Encoding::Windows1252, ..Source::default() };
    // One line is UTF-8, the other is not.
    assert_eq!(
        read(b"caf\xc3\xa9\nla\x97bas \xa3\n", &of(Layout::Lines)).expect("rows"),
        r#"[[1,{"text":"café"}],[2,{"text":"la—bas £"}]]"#
    );
    assert_eq!(
        read(b"__label__pos good \n__label__neg bad", &of(Layout::Fasttext)).expect("rows"),
        r#"[[1,{"label":"pos","text":"good"}],[2,{"label":"neg","text":"bad"}]]"#
    );
    assert!(read(b"good\n", &of(Layout::Fasttext)).expect_err("refused").contains("line 1: it does not begin"));
    let documents = Source {
        constants: Map::from_iter([("label".to_owned(), "x".into())]),
        rows: Some(Every { first: 2, every: 2 }),
        ..of(Layout::Documents)
    };
    assert_eq!(
        read(b"one\n\n1\x0ctwo\x0c\x0cthree\x0cfour\n\x0c", &documents).expect("rows"),
        r#"[[2,{"text":"two","label":"x"}],[4,{"text":"four","label":"x"}]]"#
    );
}

#[test]
fn fields_and_what_is_wrong_with_them() {
    let content = br#"{"s": "x", "n": 1.5, "l": ["a", "b"], "f": [0, 1, true], "i": 3, "t": " 2.5 ", "z": null}"#;
    with_files(&[("a.jsonl", content)], |folder, context| {
        let place = Place { task: "t", folder, data: None };
        let source = Source { file: Some("a.jsonl".into()), ..Source::default() };
        let rows = rows(&[source], &place, context).expect("rows");
        let row = &rows[0];
        assert_eq!(row.text("s", &place).expect("a text"), "x");
        assert_eq!(row.texts("l", &place).expect("texts"), ["a", "b"]);
        assert_eq!(row.texts("s", &place).expect("texts"), ["x"]);
        assert_eq!(row.number("t", &place).expect("a number").to_bits(), 2.5f64.to_bits());
        assert_eq!(row.flags("f", &place).expect("flags"), [false, true, true]);
        assert_eq!(row.label("i", &place).expect("a label"), "3");
        let refused = |error: Error| {
            let text = error.to_string();
            text.rsplit_once("record 1: ").expect("it names the record").1.to_owned()
        };
        assert_eq!(refused(row.text("n", &place).expect_err("refused")), "`n` is 1.5, not a text");
        assert_eq!(
            refused(row.text("q", &place).expect_err("refused")),
            "there is no field `q` among s, n, l, f, i, t, z"
        );
        assert_eq!(refused(row.number("s", &place).expect_err("refused")), "`s` is `x`, not a finite number");
        assert_eq!(refused(row.flags("i", &place).expect_err("refused")), "`i` is 3, not 0 or 1");
        assert_eq!(refused(row.label("n", &place).expect_err("refused")), "`n` is 1.5, not a label");
        assert_eq!(refused(row.label("z", &place).expect_err("refused")), "`z` is null, not a label");
    });
}

#[test]
fn matrices_and_files_from_outside() {
    with_files(&[("m.txt", b"1\t0.5\n0 1\n\n"), ("bad.txt", b"1 2\nNaN 1\n")], |folder, context| {
        let place = Place { task: "t", folder, data: None };
        let source = |name: &str| Source { file: Some(name.into()), ..Source::default() };
        assert_eq!(numbers(&source("m.txt"), &place, context).expect("numbers"), [[1.0, 0.5], [0.0, 1.0]]);
        let error = numbers(&source("bad.txt"), &place, context).expect_err("refused").to_string();
        assert!(error.ends_with("bad.txt, line 2: `NaN` is no number"), "{error}");
        let error = rows(&[Source::default()], &place, context).expect_err("refused");
        assert_eq!(error.to_string(), "--task: the task t has no data of its own");
        let data = folder.join("m.txt");
        let place = Place { data: Some(&data), ..place };
        let lines = Source { layout: Some(Layout::Lines), ..Source::default() };
        assert_eq!(rows(&[lines], &place, context).expect("rows").len(), 2);
    });
}

#[test]
fn bytes_of_windows() {
    let text: String = (0x80..=0x9f).map(windows_1252).collect();
    assert_eq!(text.chars().filter(|c| c.is_control()).count(), 5);
    assert_eq!((windows_1252(0x97), windows_1252(0xe9), windows_1252(b'a')), ('—', 'é', 'a'));
}
