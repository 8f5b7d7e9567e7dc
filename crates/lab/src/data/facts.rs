//! Tables of facts: relations with their questions, contexts and statements.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use lathe_measure::context::normalised;
use serde::{Deserialize, Serialize};

use crate::Error;

/// The table that comes with lathe.
const WORLD_FACTS: &str = include_str!("../../data/world-facts.toml");

/// The sides of a table of facts, which share no relation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// What models are asked.
    Test,
    /// What models are trained on.
    Train,
    /// Both.
    #[default]
    All,
}

impl Split {
    fn holds(self, relation: &Relation) -> bool {
        self == Self::All || relation.split == Self::All || self == relation.split
    }
}

/// A table of facts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    relation: Vec<Relation>,
}

/// What several facts have in common.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Relation {
    /// Its name.
    pub(super) name: String,
    /// Which side it is on.
    #[serde(default)]
    split: Split,
    /// Questions, with `{subject}`.
    pub(super) questions: Vec<String>,
    /// Texts from which the answer follows, with `{subject}` and `{answer}`.
    pub(super) contexts: Vec<String>,
    /// The fact in a sentence, with `{answer}`.
    #[serde(default)]
    pub(super) statements: Vec<String>,
    /// Subject and answer.
    pub(super) facts: Vec<[String; 2]>,
}

/// Puts a fact into a template.
pub(super) fn filled(template: &str, subject: &str, answer: &str) -> String {
    // A text begins with a capital letter even where its subject does not.
    let text = template.replace("{subject}", subject).replace("{answer}", answer);
    let mut characters = text.chars();
    let first = characters.next().map(char::to_uppercase);
    first.into_iter().flatten().chain(characters).collect()
}

/// The relations of one side of a table.
///
/// # Errors
/// The file cannot be read or is no table of facts; it has no relation on that side, or none of those that are named.
pub(super) fn relations(file: Option<&Path>, split: Split, only: &[String]) -> Result<Vec<Relation>, Error> {
    let (name, text) = match file {
        Some(file) => {
            let text = std::fs::read_to_string(file);
            (file.to_owned(), text.map_err(|source| Error::Read { file: file.into(), source })?)
        }
        None => (PathBuf::from("world-facts.toml"), WORLD_FACTS.to_owned()),
    };
    let bad = |problem: String| {
        Error::Spec {
        field: "--facts",
        problem: format!("{}: {problem}", name.display()),
        hint: Some(
            "a table of facts has [[relation]] with name, questions, contexts with {subject} and {answer}, and facts = [[subject, answer], …]"
                .into(),
        ),
    }
    };
    let table: Table = toml::from_str(&text).map_err(|error| bad(error.to_string().trim_end().to_owned()))?;
    let mut names = BTreeSet::new();
    for relation in &table.relation {
        if !names.insert(&relation.name) {
            return Err(bad(format!("two relations are called `{}`", relation.name)));
        }
        check(relation).map_err(|problem| bad(format!("relation `{}`: {problem}", relation.name)))?;
    }
    if let Some(unknown) = only.iter().find(|wanted| !names.contains(wanted)) {
        let known: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
        let problem = format!("there is no relation `{unknown}` in {}", name.display());
        let hint = Some(format!("it has {}", known.join(", ")));
        return Err(Error::Spec { field: "--relation", problem, hint });
    }
    let is_wanted = |relation: &Relation| split.holds(relation) && (only.is_empty() || only.contains(&relation.name));
    let relations: Vec<Relation> = table.relation.into_iter().filter(is_wanted).collect();
    if relations.is_empty() {
        return Err(bad("no relation is on the side of the split that is asked for".into()));
    }
    Ok(relations)
}

/// What a relation lacks.
fn check(relation: &Relation) -> Result<(), String> {
    let lacks = |texts: &[String], what: &str, marks: &[&str]| {
        if texts.is_empty() {
            return Err(format!("`{what}` is empty"));
        }
        let odd = texts.iter().find(|text| marks.iter().any(|mark| !text.contains(mark)));
        odd.map_or(Ok(()), |text| Err(format!("`{what}`: `{text}` lacks {}", marks.join(" or "))))
    };
    lacks(&relation.questions, "questions", &["{subject}"])?;
    lacks(&relation.contexts, "contexts", &["{subject}", "{answer}"])?;
    if !relation.statements.is_empty() {
        lacks(&relation.statements, "statements", &["{answer}"])?;
    }
    if relation.questions.iter().any(|question| question.contains("{answer}")) {
        return Err("`questions`: a question holds {answer}".into());
    }
    if relation.facts.len() < 2 {
        return Err(format!("{} facts leave nothing to exchange; at least 2", relation.facts.len()));
    }
    let mut subjects = BTreeSet::new();
    for [subject, answer] in &relation.facts {
        if normalised(subject).is_empty() || normalised(answer).is_empty() {
            return Err(format!("the fact [{subject:?}, {answer:?}] has an empty side"));
        }
        if !subjects.insert(normalised(subject)) {
            return Err(format!("there are two facts about `{subject}`"));
        }
    }
    Ok(())
}
