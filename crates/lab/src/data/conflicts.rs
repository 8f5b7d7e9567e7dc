//! Contexts that contradict what is generally known, by exchanging the answers of facts of one relation (entity substitution).

use std::collections::BTreeSet;
use std::path::PathBuf;

use lathe_measure::context::{Trap, normalised, relative_position, traps};
use lathe_measure::statistics::item_generator;
use rand::Rng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use super::facts::{Relation, Split, filled, relations};
use crate::Error;
use crate::store::write_lines;

/// What to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConflictsSpec {
    /// A table of facts; none for the built-in one.
    #[serde(default)]
    pub facts: Option<PathBuf>,
    /// Which relations.
    #[serde(default = "test")]
    pub split: Split,
    /// Only relations of these names; all of the side where empty.
    #[serde(default)]
    pub relations: Vec<String>,
    /// Contexts for each fact, each with another answer.
    #[serde(default = "one")]
    pub variants: usize,
    /// At most so many facts, drawn with the seed and kept in their order.
    #[serde(default)]
    pub limit: Option<usize>,
    /// Seed of the answers that are put in.
    #[serde(default)]
    pub seed: u64,
    /// The file to write.
    #[serde(default)]
    pub out: PathBuf,
}

fn test() -> Split {
    Split::Test
}

fn one() -> usize {
    1
}

/// A context that contradicts a fact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConflictRecord {
    /// Relation of the fact.
    pub relation: String,
    /// Its subject.
    pub subject: String,
    /// The text.
    pub context: String,
    /// The question.
    pub question: String,
    /// The answer that follows from the text.
    pub answer: String,
    /// The answer that is generally known.
    pub memorised: String,
    /// Where the answer begins in the context (0 to 1).
    pub position: f64,
}

/// What was made.
#[derive(Clone, Debug, Serialize)]
pub struct ConflictsResult {
    /// Records written.
    pub records: usize,
    /// Different questions.
    pub questions: usize,
    /// Of each relation, in the order of the table.
    pub relations: Vec<RelationCount>,
    /// Records by the fifth of the context in which the answer begins.
    pub positions: [usize; 5],
    /// Facts for which not as many answers were found as were asked for, all others being traps.
    pub short: usize,
    /// Seed of the answers.
    pub seed: u64,
    /// The file.
    pub out: PathBuf,
}

/// Records of a relation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RelationCount {
    /// The relation.
    pub name: String,
    /// Its facts.
    pub facts: usize,
    /// Records made of them.
    pub records: usize,
}

/// Makes a conflict set and writes it.
///
/// # Errors
/// The table of facts or an option cannot be used; every exchange is a trap; the file cannot be written.
pub fn conflicts(spec: &ConflictsSpec) -> Result<ConflictsResult, Error> {
    let refuse =
        |field, problem: &str, hint: &str| Err(Error::Spec { field, problem: problem.into(), hint: Some(hint.into()) });
    if spec.variants == 0 {
        return refuse("--variants", "0 contexts for each fact are nothing", "at least 1");
    }
    if spec.limit == Some(0) {
        return refuse("--limit", "0 facts say nothing", "at least 1");
    }
    let relations = relations(spec.facts.as_deref(), spec.split, &spec.relations)?;
    let (records, short) = records(&relations, spec.variants, spec.limit, spec.seed);
    if records.is_empty() {
        return refuse(
            "--facts",
            "no answer can take the place of another without a trap",
            "answers have 3 letters or more, are no parts of each other, and are not in questions or contexts",
        );
    }
    write_lines(&spec.out, &records)?;
    let mut positions = [0; 5];
    records.iter().for_each(|record| positions[((record.position * 5.0) as usize).min(4)] += 1);
    let count = |relation: &Relation| RelationCount {
        name: relation.name.clone(),
        facts: relation.facts.len(),
        records: records.iter().filter(|record| record.relation == relation.name).count(),
    };
    let questions: BTreeSet<&str> = records.iter().map(|record| record.question.as_str()).collect();
    Ok(ConflictsResult {
        records: records.len(),
        questions: questions.len(),
        relations: relations.iter().map(count).collect(),
        positions,
        short,
        seed: spec.seed,
        out: spec.out.clone(),
    })
}

/// The records in the order of the facts, and the number of facts that gave fewer than were wanted.
pub(super) fn records(
    relations: &[Relation],
    variants: usize,
    limit: Option<usize>,
    seed: u64,
) -> (Vec<ConflictRecord>, usize) {
    let mut facts: Vec<(usize, usize)> = relations
        .iter()
        .enumerate()
        .flat_map(|(at, relation)| (0..relation.facts.len()).map(move |fact| (at, fact)))
        .collect();
    if let Some(limit) = limit.filter(|limit| *limit < facts.len()) {
        let (drawn, _) = facts.partial_shuffle(&mut item_generator(seed, u64::MAX), limit);
        facts = drawn.to_vec();
        facts.sort_unstable();
    }
    let (mut all, mut short) = (Vec::new(), 0);
    for (at, fact) in facts {
        let relation = &relations[at];
        // Of the names alone, so that a limit, or another relation in the table, changes no record.
        let item = stream(&relation.name, &relation.facts[fact][0]);
        let made = of_fact(relation, fact, variants, seed, item);
        short += usize::from(made.len() < variants);
        all.extend(made);
    }
    (all, short)
}

/// The number of a fact's stream of draws: the first bytes of the hash of its names (FNV-1a).
fn stream(relation: &str, subject: &str) -> u64 {
    let bytes = relation.bytes().chain([0]).chain(subject.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Contexts for one fact, each with another answer, in turn from each template.
fn of_fact(relation: &Relation, fact: usize, variants: usize, seed: u64, item: u64) -> Vec<ConflictRecord> {
    let [subject, memorised] = &relation.facts[fact];
    let mut draws = item_generator(seed, item);
    let question = &relation.questions[draws.random_range(0..relation.questions.len() as u64) as usize];
    let question = filled(question, subject, "");
    // Neighbouring facts have neighbouring templates, so that all are used equally often.
    let first = fact + (seed % relation.contexts.len() as u64) as usize;
    let mut others: Vec<&String> = Vec::new();
    let mut known = BTreeSet::from([normalised(memorised)]);
    for [_, answer] in &relation.facts {
        if known.insert(normalised(answer)) {
            others.push(answer);
        }
    }
    others.shuffle(&mut draws);
    let mut made = Vec::new();
    for answer in others {
        if made.len() == variants {
            break;
        }
        let template = &relation.contexts[(first + made.len()) % relation.contexts.len()];
        let context = filled(template, subject, answer);
        // A sentence that begins with the answer begins with a capital letter, which some answers have not.
        let found: Vec<Trap> = traps(&context, &question, answer, memorised);
        if !found.is_empty() {
            continue;
        }
        let Some(position) = relative_position(&context, answer) else { continue };
        made.push(ConflictRecord {
            relation: relation.name.clone(),
            subject: subject.clone(),
            context,
            question: question.clone(),
            answer: answer.clone(),
            memorised: memorised.clone(),
            position,
        });
    }
    made
}
