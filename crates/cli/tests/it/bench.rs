//! A folder to run the program in, and what came of a run.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

/// A temporary folder. The program runs inside it, so relative paths make messages the same everywhere.
pub(crate) struct Bench {
    folder: TempDir,
}

/// What a run left.
pub(crate) struct Outcome {
    /// Exit code.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
}

impl Bench {
    /// An empty folder.
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// A path inside the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file of the folder, with the folders above it.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Runs the program without any model in its cache and without Python.
    pub(crate) fn run(&self, arguments: &[&str]) -> Outcome {
        self.run_with(&self.path("no-such-home"), arguments)
    }

    /// Runs the program with a cache folder.
    pub(crate) fn run_with(&self, home: &Path, arguments: &[&str]) -> Outcome {
        let output = Command::new(env!("CARGO_BIN_EXE_lathe"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .env("LATHE_HOME", home)
            .env("HOME", self.path("no-such-home"))
            // Without it, some systems look for programs in places of their own.
            .env("PATH", self.path("no-such-folder"))
            // The width of help where the output is no terminal.
            .env("COLUMNS", "100")
            // A run that hangs is a failure, not a test that never ends.
            .timeout(Duration::from_secs(300))
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Outcome { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Standard output of a run that succeeds and says nothing on standard error.
    pub(crate) fn succeed(&self, arguments: &[&str]) -> String {
        let outcome = self.run(arguments);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "lathe {}", arguments.join(" "));
        outcome.stdout
    }

    /// Standard output of a run that succeeds, as JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.succeed(arguments)).unwrap()
    }

    /// Runs the program and kills it when a file inside the folder has more than so many lines; a run may end before.
    pub(crate) fn kill_after(&self, arguments: &[&str], file: &str, lines: usize) {
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_lathe"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env("LATHE_HOME", self.path("no-such-home"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let file = self.path(file);
        let begun = || fs::read_to_string(&file).is_ok_and(|text| text.lines().count() > lines);
        while !begun() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Every file and folder inside, relative to the folder.
    pub(crate) fn files(&self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                found.insert(path.strip_prefix(self.folder.path()).unwrap().to_owned());
                if path.is_dir() {
                    folders.push(path);
                }
            }
        }
        found
    }

    /// The command and what it wrote to standard error, after checking that the program called it a wrong input, wrote
    /// nothing to standard output and left no file.
    pub(crate) fn refuse(&self, arguments: &[&str]) -> String {
        let command = format!("lathe {}", arguments.join(" "));
        let before = self.files();
        let outcome = self.run(arguments);
        let after = self.files();
        let left: Vec<_> = after.difference(&before).collect();
        assert_eq!(outcome.code, 2, "exit code of {command}\n{}", outcome.stderr);
        assert_eq!(outcome.stdout, "", "standard output of {command}");
        assert!(left.is_empty(), "{command} left {left:?}");
        assert!(outcome.stderr.starts_with("error: "), "{command} wrote {}", outcome.stderr);
        format!("$ {command}\n{}", outcome.stderr)
    }

    /// [`Bench::refuse`] for each of several commands, as one text.
    pub(crate) fn refuse_all(&self, commands: &[&[&str]]) -> String {
        commands.iter().map(|arguments| self.refuse(arguments)).collect::<Vec<_>>().join("\n")
    }
}

/// Compares a text with the snapshot of that name.
pub(crate) fn assert_same(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}
