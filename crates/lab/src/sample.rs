//! The built-in sample: public-domain text in many languages and scripts, law, prose and code, committed with the
//! source and compiled into the binary (origins and licences: `crates/lab/sample/README.md`).

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::report::{Extent, TextKind};

/// Name of the sample in reports.
pub const NAME: &str = "lathe sample 1";

/// A text of the sample.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SampleText {
    /// Its name, such as `french`.
    pub name: String,
    /// File below the sample's folder.
    pub file: String,
    /// What it is.
    pub kind: TextKind,
    /// Language, or programming language.
    pub language: String,
    /// Language tag; none for code.
    pub bcp47: Option<String>,
    /// Script that it is written in.
    pub script: String,
    /// Where it is from.
    pub source: String,
    /// Its licence.
    pub licence: String,
    /// Bytes of the whole text.
    pub bytes: usize,
    /// Bytes that a default report reads, from the start.
    pub default_bytes: usize,
    /// SHA-256 of the whole text.
    pub sha256: String,
    /// The text itself.
    #[serde(skip)]
    pub text: &'static str,
}

impl SampleText {
    /// The part of the text that `extent` reads.
    #[must_use]
    pub fn part(&self, extent: Extent) -> &'static str {
        match extent {
            Extent::Full => self.text,
            Extent::Default => self.text.get(..self.default_bytes).unwrap_or(self.text),
        }
    }
}

#[derive(Deserialize)]
struct Manifest {
    texts: Vec<SampleText>,
}

/// File name and content of every text, in the order of the manifest.
macro_rules! files {
    ($($file:literal),* $(,)?) => { &[$(($file, include_str!(concat!("../sample/", $file)))),*] };
}

const FILES: &[(&str, &str)] = files![
    "languages/english.txt",
    "languages/french.txt",
    "languages/german.txt",
    "languages/spanish.txt",
    "languages/portuguese.txt",
    "languages/turkish.txt",
    "languages/vietnamese.txt",
    "languages/swahili.txt",
    "languages/russian.txt",
    "languages/greek.txt",
    "languages/arabic.txt",
    "languages/hebrew.txt",
    "languages/hindi.txt",
    "languages/thai.txt",
    "languages/chinese.txt",
    "languages/japanese.txt",
    "languages/korean.txt",
    "legal/declaration_of_independence.txt",
    "legal/us_constitution.txt",
    "prose/pride_and_prejudice.txt",
    "prose/persuasion.txt",
    "code/build_order.rs",
    "code/access_log.py",
    "code/todo_store.js",
    "code/frame_ring.c",
];

/// All texts.
#[must_use]
pub fn texts() -> &'static [SampleText] {
    static TEXTS: OnceLock<Vec<SampleText>> = OnceLock::new();
    TEXTS.get_or_init(|| {
        // The manifest is part of the program; a test reads every field of it.
        let manifest: Manifest =
            serde_json::from_str(include_str!("../sample/manifest.json")).unwrap_or(Manifest { texts: Vec::new() });
        let text = |file: &str| FILES.iter().find(|(name, _)| *name == file).map_or("", |(_, text)| *text);
        manifest.texts.into_iter().map(|entry| SampleText { text: text(&entry.file), ..entry }).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    #[test]
    fn the_manifest_describes_the_files() {
        assert_eq!(texts().len(), FILES.len());
        for text in texts() {
            let hash: String = Sha256::digest(text.text).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hash, text.sha256, "{}", text.name);
            assert_eq!(text.text.len(), text.bytes, "{}", text.name);
            assert_eq!(text.part(Extent::Default).len(), text.default_bytes, "{}: a cut within a character", text.name);
        }
    }

    #[test]
    fn it_spans_languages_scripts_and_kinds() {
        let count =
            |f: &dyn Fn(&SampleText) -> String| texts().iter().map(f).collect::<std::collections::BTreeSet<_>>().len();
        assert!(count(&|t| t.language.clone()) >= 14);
        assert!(count(&|t| t.script.clone()) >= 8);
        assert_eq!(count(&|t| format!("{:?}", t.kind)), 4);
    }
}
