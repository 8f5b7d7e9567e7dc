//! A small set of instructions, made by rules: what instruction tuning looks like at a size that trains in minutes.
//!
//! Five kinds of record, in fixed shares ([`KINDS`]): contexts that agree with what is generally known, so that a model may answer
//! from memory and be right; the same questions without a context; contexts about invented people, which nothing but the context
//! answers; tasks on lists of words, with and without the list as a context. Counterfactual records can be added: contexts that
//! contradict a fact, answered from the context (arXiv 2410.10796, §6). Facts are those of the table's side `train`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use lathe_measure::statistics::item_generator;
use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::conflicts::records;
use super::facts::{Relation, Split, filled, relations};
use crate::Error;
use crate::measure::with_background;
use crate::store::write_lines;

/// What to make.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstructionsSpec {
    /// A table of facts; none for the built-in one.
    #[serde(default)]
    pub facts: Option<PathBuf>,
    /// Which relations.
    #[serde(default = "train")]
    pub split: Split,
    /// Records, before counterfactual ones are added.
    #[serde(default = "usual_records")]
    pub records: usize,
    /// Counterfactual records to add, as a share of the others (0.1 adds a tenth). The others stay the same.
    #[serde(default)]
    pub counterfactual: f64,
    /// Seed of all draws.
    #[serde(default)]
    pub seed: u64,
    /// The file to write.
    #[serde(default)]
    pub out: PathBuf,
}

fn train() -> Split {
    Split::Train
}

fn usual_records() -> usize {
    800
}

/// What was made.
#[derive(Clone, Debug, Serialize)]
pub struct InstructionsResult {
    /// Records written.
    pub records: usize,
    /// Of each kind.
    pub kinds: Vec<KindCount>,
    /// Records with a context.
    pub with_context: usize,
    /// Seed of all draws.
    pub seed: u64,
    /// The file.
    pub out: PathBuf,
}

/// Records of a kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KindCount {
    /// The kind.
    pub name: &'static str,
    /// Its records.
    pub records: usize,
}

/// A record: a conversation of two turns, and the part of the first that is the context.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Record {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<String>,
    messages: [Turn; 2],
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Turn {
    role: &'static str,
    content: String,
}

impl Record {
    fn new(kind: &'static str, context: Option<String>, instruction: &str, response: &str) -> Self {
        let content = with_background(None, context.as_deref(), instruction);
        let response = Turn { role: "assistant", content: response.to_owned() };
        Self { kind, context, messages: [Turn { role: "user", content }, response] }
    }
}

const AGREES: &str = "context agrees with memory";
const RECALL: &str = "no context, from memory";
const INVENTED: &str = "context about invented people";
const LIST: &str = "list as context";
const WORDS: &str = "task without context";
const COUNTERFACTUAL: &str = "counterfactual context";

/// Kinds and their shares in hundredths.
const KINDS: [(&str, usize); 5] = [(AGREES, 45), (RECALL, 20), (INVENTED, 15), (LIST, 10), (WORDS, 10)];

/// Makes instructions and writes them.
///
/// # Errors
/// The table of facts or an option cannot be used; the table has too few facts for so many records; the file cannot be written.
pub fn instructions(spec: &InstructionsSpec) -> Result<InstructionsResult, Error> {
    let refuse = |field, problem: String, hint: &str| Err(Error::Spec { field, problem, hint: Some(hint.into()) });
    if spec.records < 20 {
        return refuse("--records", format!("{} records do not hold every kind", spec.records), "at least 20");
    }
    if !(0.0..=1.0).contains(&spec.counterfactual) {
        return refuse("--counterfactual", format!("{} is no share", spec.counterfactual), "a number from 0 to 1");
    }
    let relations = relations(spec.facts.as_deref(), spec.split, &[])?;
    let mut all: Vec<Record> = Vec::with_capacity(spec.records);
    // What the shares leave over after rounding down goes to the last kind.
    let counts = KINDS.map(|(_, share)| spec.records * share / 100);
    let left = spec.records - counts.iter().sum::<usize>();
    for (at, ((kind, _), count)) in KINDS.into_iter().zip(counts).enumerate() {
        let count = if at + 1 == KINDS.len() { count + left } else { count };
        let made = of_kind(kind, count, &relations, spec.seed, at as u64);
        if made.len() < count {
            let problem =
                format!("{} records need {count} of the kind `{kind}`, and {} differ", spec.records, made.len());
            return refuse("--records", problem, "ask for fewer, or give a larger table of facts");
        }
        all.extend(made);
    }
    all.shuffle(&mut item_generator(spec.seed, 100));
    let added = (spec.counterfactual * spec.records as f64).round() as usize;
    if added > 0 {
        let made = counterfactual(&relations, added, spec.seed);
        if made.len() < added {
            let problem = format!("{added} counterfactual records are wanted, and the facts give {}", made.len());
            return refuse("--counterfactual", problem, "ask for fewer, or give a larger table of facts");
        }
        spread(&mut all, made);
    }
    write_lines(&spec.out, &all)?;
    let count = |name| KindCount { name, records: all.iter().filter(|record| record.kind == name).count() };
    let kinds = KINDS.iter().map(|(name, _)| *name).chain([COUNTERFACTUAL]).map(count);
    Ok(InstructionsResult {
        records: all.len(),
        kinds: kinds.filter(|kind| kind.records > 0).collect(),
        with_context: all.iter().filter(|record| record.context.is_some()).count(),
        seed: spec.seed,
        out: spec.out.clone(),
    })
}

/// Puts records among others at even distances; the others keep their order.
fn spread(all: &mut Vec<Record>, more: Vec<Record>) {
    let total = all.len() + more.len();
    let count = more.len();
    let mut more = more.into_iter();
    let mut old = std::mem::take(all).into_iter();
    for at in 0..total {
        // As many as there should be among the first `at + 1` records, less those among the first `at`.
        let is_new = (at + 1) * count / total > at * count / total;
        all.extend(if is_new { more.next() } else { old.next() });
    }
}

/// Different records of a kind, as many as there are up to `count`.
fn of_kind(kind: &'static str, count: usize, relations: &[Relation], seed: u64, stream: u64) -> Vec<Record> {
    let mut draws = item_generator(seed, stream);
    if kind == AGREES || kind == RECALL {
        let mut all = from_facts(kind, relations);
        all.shuffle(&mut draws);
        all.truncate(count);
        return all;
    }
    let mut seen = BTreeSet::new();
    let mut made = Vec::with_capacity(count);
    // Names and words give many thousands of records; repetitions are drawn again.
    for _ in 0..count * 20 {
        if made.len() == count {
            break;
        }
        let record = if kind == INVENTED { invented(&mut draws) } else { on_words(kind, &mut draws) };
        if seen.insert(record.clone()) {
            made.push(record);
        }
    }
    made
}

/// Every true record of a kind.
fn from_facts(kind: &'static str, relations: &[Relation]) -> Vec<Record> {
    let mut all = Vec::new();
    for relation in relations {
        for (at, [subject, answer]) in relation.facts.iter().enumerate() {
            for (number, question) in relation.questions.iter().enumerate() {
                let question = filled(question, subject, "");
                if kind == RECALL {
                    all.push(Record::new(kind, None, &question, &response(relation, subject, answer, at + number)));
                    continue;
                }
                for (template, context) in relation.contexts.iter().enumerate() {
                    let response = response(relation, subject, answer, at + number + template);
                    all.push(Record::new(kind, Some(filled(context, subject, answer)), &question, &response));
                }
            }
        }
    }
    all
}

/// An answer alone, or in a sentence, in turn.
fn response(relation: &Relation, subject: &str, answer: &str, number: usize) -> String {
    match relation.statements.get(number % (relation.statements.len() + 1)) {
        Some(statement) => filled(statement, subject, answer),
        None => filled("{answer}", subject, answer),
    }
}

/// Contexts that contradict facts, answered from the context.
fn counterfactual(relations: &[Relation], count: usize, seed: u64) -> Vec<Record> {
    let facts: usize = relations.iter().map(|relation| relation.facts.len()).sum();
    let (mut conflicts, _) = records(relations, count.div_ceil(facts.max(1)), None, seed);
    conflicts.shuffle(&mut item_generator(seed, 101));
    conflicts.truncate(count);
    let record = |(number, of): (usize, super::ConflictRecord)| {
        let relation = relations.iter().find(|relation| relation.name == of.relation);
        let response =
            relation.map_or(of.answer.clone(), |relation| response(relation, &of.subject, &of.answer, number));
        Record::new(COUNTERFACTUAL, Some(of.context), &of.question, &response)
    };
    conflicts.into_iter().enumerate().map(record).collect()
}

fn pick<'a>(draws: &mut ChaCha8Rng, of: &[&'a str]) -> &'a str {
    of.choose(draws).copied().unwrap_or_default()
}

const FIRST: [&str; 16] = [
    "Mira", "Tobin", "Selda", "Arvid", "Nela", "Joris", "Petra", "Kasimir", "Lotte", "Emre", "Ines", "Rolf", "Daria",
    "Milo", "Hanne", "Otis",
];
const LAST: [&str; 16] = [
    "Holt",
    "Brandel",
    "Osk",
    "Varga",
    "Lindqvist",
    "Tamm",
    "Ferro",
    "Quill",
    "Marsh",
    "Ostrov",
    "Penn",
    "Sattler",
    "Vance",
    "Wick",
    "Yarrow",
    "Zeller",
];
const TOWNS: [&str; 14] = [
    "Westbrook",
    "Altmark",
    "Fernhill",
    "Port Orla",
    "Greyfield",
    "Lowmere",
    "Stonebridge",
    "Hazelby",
    "Marrow Bay",
    "Elmstead",
    "Northwick",
    "Sandal",
    "Rookhaven",
    "Tilbury Cross",
];
const JOBS: [&str; 14] = [
    "baker",
    "carpenter",
    "nurse",
    "gardener",
    "pilot",
    "teacher",
    "plumber",
    "tailor",
    "chemist",
    "librarian",
    "dentist",
    "farmer",
    "locksmith",
    "translator",
];
const THINGS: [&str; 12] = [
    "a red bicycle",
    "an old piano",
    "two goats",
    "a telescope",
    "a sailing boat",
    "a grey parrot",
    "a box of stamps",
    "a green tent",
    "a pair of skis",
    "a brass lamp",
    "a typewriter",
    "a beehive",
];

/// Someone who does not exist, and a question about them.
fn invented(draws: &mut ChaCha8Rng) -> Record {
    let name = format!("{} {}", pick(draws, &FIRST), pick(draws, &LAST));
    let (town, job, thing) = (pick(draws, &TOWNS), pick(draws, &JOBS), pick(draws, &THINGS));
    let context = match draws.random_range(0..3u64) {
        0 => format!("{name} lives in {town} and works there as a {job}. In spring {name} bought {thing}."),
        1 => format!(
            "In spring a {job} from {town} bought {thing} at the market. The name in the receipt is {name}, and it was paid in full."
        ),
        _ => format!("The letter was sent to {town}. It thanks {name}, the {job} of the town, for {thing}."),
    };
    let (question, answer, sentence) = match draws.random_range(0..3u64) {
        0 => (
            format!("Which town does the text connect with {name}?"),
            town,
            format!("The text connects {name} with {town}."),
        ),
        1 => (format!("What is the job of {name}?"), job, format!("{name} is a {job}.")),
        _ => (format!("Which thing does the text connect with {name}?"), thing, format!("It is {thing}.")),
    };
    let response = if draws.random_bool(0.5) { filled("{answer}", "", answer) } else { sentence };
    Record::new(INVENTED, Some(context), &question, &response)
}

const LIST_WORDS: [&str; 40] = [
    "apple", "anchor", "basket", "bridge", "candle", "castle", "desk", "dragon", "engine", "feather", "forest",
    "garden", "glove", "hammer", "harbour", "island", "jacket", "kettle", "ladder", "lantern", "meadow", "mirror",
    "needle", "orange", "paper", "pencil", "pillow", "rabbit", "ribbon", "saddle", "school", "shadow", "table",
    "ticket", "tunnel", "violin", "wagon", "window", "winter", "yellow",
];

/// A task on some words, with the words as the context or in the instruction.
fn on_words(kind: &'static str, draws: &mut ChaCha8Rng) -> Record {
    let count = draws.random_range(3..6u64) as usize;
    let mut words: Vec<&str> = LIST_WORDS.choose_multiple(draws, count).copied().collect();
    words.shuffle(draws);
    let list = words.join(", ");
    let last = words[words.len() - 1];
    let (task, answer) = match draws.random_range(0..6u64) {
        0 => {
            words.sort_unstable();
            ("Put the words into alphabetical order", words.join(", "))
        }
        1 => {
            words.reverse();
            ("Write the words in reverse order", words.join(", "))
        }
        2 => ("Write the words in capital letters", list.to_uppercase()),
        3 => ("Which word comes first", words[0].to_owned()),
        4 => ("Which word comes last", last.to_owned()),
        _ => ("How many words are there", ["three", "four", "five"][count - 3].to_owned()),
    };
    let is_question = task.starts_with("Which") || task.starts_with("How");
    match kind {
        LIST => Record::new(kind, Some(list), &format!("{task}{}", if is_question { "?" } else { "." }), &answer),
        _ if is_question => Record::new(kind, None, &format!("{task} in this list: {list}?"), &answer),
        _ => Record::new(kind, None, &format!("{task}: {list}."), &answer),
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn records_are_spread_evenly() {
        let record = |kind: &'static str, n: usize| Record::new(kind, None, &n.to_string(), "");
        let mut all: Vec<Record> = (0..9).map(|n| record(AGREES, n)).collect();
        spread(&mut all, (0..3).map(|n| record(COUNTERFACTUAL, n)).collect());
        let new: Vec<usize> = (0..12).filter(|at| all[*at].kind == COUNTERFACTUAL).collect();
        assert_eq!((all.len(), new), (12, vec![3, 7, 11]));
        let old: Vec<&str> =
            all.iter().filter(|record| record.kind == AGREES).map(|of| of.messages[0].content.as_str()).collect();
        assert!(old.iter().enumerate().all(|(n, text)| text.ends_with(&n.to_string())), "{old:?}");
        // Draws come from seed and stream alone.
        let once = invented(&mut ChaCha8Rng::seed_from_u64(1));
        assert_eq!(invented(&mut ChaCha8Rng::seed_from_u64(1)), once);
    }
}
