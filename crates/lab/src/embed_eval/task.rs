//! A task of `lathe eval-embed` as data: where texts are, and what is asked of their vectors.
//!
//! docs/methods/embedding-tasks.md describes every field for the people who write such files.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Error;
use crate::eval::task::{Notation, check_name};

/// A task file, TOML or JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbedTask {
    /// What it is called in tables and file names: lower-case letters, digits and hyphens.
    pub name: String,
    /// One sentence: what is asked.
    pub description: String,
    /// What is asked, and of which texts.
    pub task: Protocol,
}

/// What is asked of vectors. The protocols are those of MTEB.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Protocol {
    /// Whether cosines of pairs rise with how similar people find them.
    Sts(ScoredPairs),
    /// The same, where the similarities of all pairs of a list of texts are a matrix.
    StsMatrix(Matrix),
    /// Whether pairs that mean the same are told from others.
    PairClassification(LabelledPairs),
    /// Whether right candidates are put before wrong ones.
    Reranking(CandidateLists),
    /// Whether relevant documents of a corpus are found.
    Retrieval(Collection),
    /// Whether a classifier finds the label of a text.
    Classification(Labels),
    /// Whether clusters are the classes.
    Clustering(Groups),
    /// Whether summaries that people like are near those that people wrote.
    Summarisation(Summaries),
}

/// Pairs of texts with a score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoredPairs {
    /// The files.
    pub data: Vec<Source>,
    /// Field of one text.
    #[serde(default = "sentence1")]
    pub first: String,
    /// Field of the other.
    #[serde(default = "sentence2")]
    pub second: String,
    /// Field of the score, a number.
    #[serde(default = "score")]
    pub score: String,
}

/// Texts and a table of numbers: row i and column j, j > i, have the similarity of texts i and j.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matrix {
    /// The texts, in the order of rows and columns.
    pub data: Vec<Source>,
    /// Field of the text.
    #[serde(default = "text")]
    pub text: String,
    /// The table: numbers between tabs or blanks, one line for each row. What is on the diagonal and below it is not read.
    pub similarities: Source,
}

/// Pairs of texts that are the same in meaning, or not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelledPairs {
    /// The files.
    pub data: Vec<Source>,
    /// Field of one text.
    #[serde(default = "sentence1")]
    pub first: String,
    /// Field of the other.
    #[serde(default = "sentence2")]
    pub second: String,
    /// Field that is 1 or true where they are the same, 0 or false where not. A field may also be a list of as many
    /// values as the others: then the row is many pairs.
    #[serde(default = "label")]
    pub label: String,
}

/// A query with right and wrong candidates in each row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CandidateLists {
    /// The files.
    pub data: Vec<Source>,
    /// Field of the query: a text, or a list of them, of which the most similar one counts.
    #[serde(default = "query")]
    pub query: String,
    /// Field of the list of right candidates.
    #[serde(default = "positive")]
    pub positive: String,
    /// Field of the list of wrong candidates.
    #[serde(default = "negative")]
    pub negative: String,
}

/// A corpus, queries, and which documents are relevant to which query.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Collection {
    /// Files of the documents.
    pub corpus: Vec<Source>,
    /// Files of the queries.
    pub queries: Vec<Source>,
    /// Files of the judgements: `query-id`, `corpus-id`, `score`.
    pub qrels: Vec<Source>,
    /// Field of the name of a document or query.
    #[serde(default = "id")]
    pub id: String,
    /// Field of the text.
    #[serde(default = "text")]
    pub text: String,
    /// Field of a document's title, which is put before its text where there is one.
    #[serde(default = "title")]
    pub title: String,
}

/// Texts with labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Labels {
    /// Files that classifiers are trained on.
    pub train: Vec<Source>,
    /// Files that are asked.
    pub test: Vec<Source>,
    /// Field of the text.
    #[serde(default = "text")]
    pub text: String,
    /// Where the label is.
    #[serde(default)]
    pub label: LabelField,
    /// Rows of each label in one draw.
    #[serde(default = "eight")]
    pub samples_per_label: usize,
    /// Draws, a classifier each.
    #[serde(default = "ten")]
    pub draws: usize,
    /// What becomes of texts that occur again.
    #[serde(default)]
    pub repeated: Repeated,
}

/// Sets of texts with labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Groups {
    /// The files. Where the fields are lists, every row is a set of its own; otherwise all rows are one set.
    pub data: Vec<Source>,
    /// Field of the text or texts.
    #[serde(default = "sentences")]
    pub text: String,
    /// Field of the label or labels.
    #[serde(default = "labels")]
    pub label: String,
    /// What becomes of texts that occur again in a set.
    #[serde(default)]
    pub repeated: Repeated,
}

/// Texts with summaries by people and by machines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summaries {
    /// The files.
    pub data: Vec<Source>,
    /// Field of the list of summaries that people wrote.
    #[serde(default = "human_summaries")]
    pub human: String,
    /// Field of the list of summaries that machines wrote.
    #[serde(default = "machine_summaries")]
    pub machine: String,
    /// Field of the list of scores that people gave to the latter.
    #[serde(default = "relevance")]
    pub relevance: String,
}

/// Where the label of a row is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum LabelField {
    /// A field: a text, a whole number or a flag.
    Field(String),
    /// The sign of a number, as `positive` or `negative`.
    SignOf {
        /// The field.
        field: String,
        /// Rows that are nearer to zero are neither, and left out.
        at_least: f64,
    },
}

impl Default for LabelField {
    fn default() -> Self {
        Self::Field(label())
    }
}

/// What becomes of texts that occur again: a text of the training part that is asked too says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Repeated {
    /// They count again, as in MTEB.
    #[default]
    Keep,
    /// Only the first of them counts.
    LeaveOut,
}

/// A file of rows, and how it is read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Name of the fetched data that it belongs to; none for a file beside the task's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// Path within the package, or from the folder of the task file; none is the file that `--data` names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// How rows lie in it; none goes by its name: `.jsonl`, `.ndjson`, `.parquet`, `.tsv`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
    /// Names of the columns of a table without a heading.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// Lines that begin so are no rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// How bytes are read as text.
    #[serde(default, skip_serializing_if = "Encoding::is_default")]
    pub encoding: Encoding,
    /// Fields that every row has besides: the label of all texts of a file, say.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub constants: Map<String, Value>,
    /// Which rows are read; none reads all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<Every>,
}

/// How rows lie in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// JSON lines or Parquet, by the name of the file.
    Records,
    /// A line for each row, with tabs between columns. The first line has their names, unless `columns` has.
    Tsv,
    /// A line for each text; the field is `text`.
    Lines,
    /// A line for each text, after `__label__NAME` and a blank, as fastText reads them; the fields are `label` and `text`.
    Fasttext,
    /// Texts with a form feed after each; the field is `text`.
    Documents,
}

/// How bytes are read as text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encoding {
    /// UTF-8; what is not is an error.
    #[default]
    #[serde(rename = "utf-8")]
    Utf8,
    /// UTF-8, and a text that is not as Windows-1252: old files mix the two.
    #[serde(rename = "windows-1252")]
    Windows1252,
}

impl Encoding {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Every n-th row of a file, so that one file has a part to train on and one that is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Every {
    /// The first row, from 1.
    pub first: usize,
    /// So many rows further on is the next.
    pub every: usize,
}

impl Protocol {
    /// Its name in files and tables.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sts(_) | Self::StsMatrix(_) => "sts",
            Self::PairClassification(_) => "pair classification",
            Self::Reranking(_) => "reranking",
            Self::Retrieval(_) => "retrieval",
            Self::Classification(_) => "classification",
            Self::Clustering(_) => "clustering",
            Self::Summarisation(_) => "summarisation",
        }
    }

    /// The score that tables show first.
    #[must_use]
    pub fn headline(&self) -> &'static str {
        match self {
            Self::Sts(_) | Self::StsMatrix(_) | Self::Summarisation(_) => "cosine_spearman",
            Self::PairClassification(_) => "cosine_ap",
            Self::Reranking(_) => "map",
            Self::Retrieval(_) => "ndcg_at_10",
            Self::Classification(_) => "accuracy",
            Self::Clustering(_) => "v_measure",
        }
    }

    /// All files that it reads.
    #[must_use]
    pub fn sources(&self) -> Vec<&Source> {
        match self {
            Self::Sts(of) => of.data.iter().collect(),
            Self::StsMatrix(of) => of.data.iter().chain([&of.similarities]).collect(),
            Self::PairClassification(of) => of.data.iter().collect(),
            Self::Reranking(of) => of.data.iter().collect(),
            Self::Retrieval(of) => of.corpus.iter().chain(&of.queries).chain(&of.qrels).collect(),
            Self::Classification(of) => of.train.iter().chain(&of.test).collect(),
            Self::Clustering(of) => of.data.iter().collect(),
            Self::Summarisation(of) => of.data.iter().collect(),
        }
    }
}

impl EmbedTask {
    /// Reads a task file: JSON when it ends in `.json`, else TOML.
    ///
    /// # Errors
    /// The file cannot be read, has a key that tasks don't have, lacks one that they need, or contradicts itself.
    pub fn read(file: &Path) -> Result<Self, Error> {
        let (text, notation) = Notation::read(file)?;
        Self::parse(&text, notation, &file.display().to_string())
    }

    /// Parses the text of a task file; `name` is what messages call it.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse(text: &str, notation: Notation, name: &str) -> Result<Self, Error> {
        let task = notation.parse(text).and_then(|task: Self| task.check().map(|()| task));
        task.map_err(|problem| Error::Spec {
            field: "--task",
            problem: format!("{name}: {}", problem.trim_end()),
            hint: Some("docs/methods/embedding-tasks.md describes the fields of a task file".into()),
        })
    }

    /// What the types do not say.
    fn check(&self) -> Result<(), String> {
        check_name(&self.name)?;
        for source in self.task.sources() {
            source.check()?;
        }
        match &self.task {
            Protocol::Retrieval(of) => {
                not_empty("corpus", &of.corpus)?;
                not_empty("queries", &of.queries)?;
                not_empty("qrels", &of.qrels)
            }
            Protocol::Classification(of) => {
                not_empty("train", &of.train)?;
                not_empty("test", &of.test)?;
                if of.samples_per_label == 0 || of.draws == 0 {
                    return Err("samples_per_label, draws: at least 1".into());
                }
                match &of.label {
                    LabelField::SignOf { at_least, .. } if !(at_least.is_finite() && *at_least >= 0.0) => {
                        Err(format!("label.sign_of.at_least: {at_least} is no distance from zero"))
                    }
                    _ => Ok(()),
                }
            }
            Protocol::Sts(ScoredPairs { data, .. })
            | Protocol::StsMatrix(Matrix { data, .. })
            | Protocol::PairClassification(LabelledPairs { data, .. })
            | Protocol::Reranking(CandidateLists { data, .. })
            | Protocol::Clustering(Groups { data, .. })
            | Protocol::Summarisation(Summaries { data, .. }) => not_empty("data", data),
        }
    }
}

fn not_empty(name: &str, sources: &[Source]) -> Result<(), String> {
    if sources.is_empty() { Err(format!("{name}: no file is named")) } else { Ok(()) }
}

impl Source {
    fn check(&self) -> Result<(), String> {
        if self.package.is_some() && self.file.is_none() {
            return Err("package: which of its files? `file` says it".into());
        }
        if self.rows.is_some_and(|rows| rows.first == 0 || rows.every == 0) {
            return Err("rows: first and every count from 1".into());
        }
        if !self.columns.is_empty() && self.layout.is_some_and(|layout| layout != Layout::Tsv) {
            return Err("columns: only tables (layout = \"tsv\") have columns without names".into());
        }
        Ok(())
    }
}

fn sentence1() -> String {
    "sentence1".into()
}

fn sentence2() -> String {
    "sentence2".into()
}

fn score() -> String {
    "score".into()
}

fn label() -> String {
    "label".into()
}

fn labels() -> String {
    "labels".into()
}

fn sentences() -> String {
    "sentences".into()
}

fn query() -> String {
    "query".into()
}

fn positive() -> String {
    "positive".into()
}

fn negative() -> String {
    "negative".into()
}

fn id() -> String {
    "_id".into()
}

fn text() -> String {
    "text".into()
}

fn title() -> String {
    "title".into()
}

fn human_summaries() -> String {
    "human_summaries".into()
}

fn machine_summaries() -> String {
    "machine_summaries".into()
}

fn relevance() -> String {
    "relevance".into()
}

fn eight() -> usize {
    8
}

fn ten() -> usize {
    10
}

#[cfg(test)]
mod tests;
