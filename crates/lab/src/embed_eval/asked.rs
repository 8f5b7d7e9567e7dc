//! From a task's files to texts, each once, and what is asked of their vectors: before a model is loaded.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use lathe_measure::logistic::{LegacyMt19937, legacy_shuffle};
use lathe_measure::statistics::item_generator;
use rand::seq::SliceRandom;
use serde::Serialize;

use super::read::{Place, Row, numbers, rows};
use super::task::{
    CandidateLists, Collection, EmbedTask, Groups, LabelField, LabelledPairs, Labels, Matrix, Protocol, Repeated,
    ScoredPairs, Summaries,
};
use crate::eval::questions::LeftOut;
use crate::load::sha256_of_bytes;
use crate::{Context, Error};

/// MTEB's seed of everything: here of the draws of training rows.
const MTEB_SEED: u32 = 42;

/// A task with its texts.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) task: EmbedTask,
    /// Every text once; numbers elsewhere are indices into this list.
    pub(super) texts: Vec<String>,
    pub(super) what: What,
    /// Units that the data have, those beyond a limit among them.
    pub(super) available: usize,
    pub(super) left_out: Vec<LeftOut>,
    /// SHA-256 of texts and structure.
    pub(super) sha256: String,
}

/// What is asked of the vectors.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum What {
    Pairs(Vec<ScoredPair>),
    SamePairs(Vec<SamePair>),
    Lists(Vec<CandidateList>),
    Search(Search),
    Classes(Classes),
    Sets(Vec<LabelledSet>),
    Summaries(Vec<Summarised>),
}

/// Two texts, and how similar people find them.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ScoredPair {
    pub(super) record: usize,
    pub(super) texts: [usize; 2],
    pub(super) score: f64,
}

/// Two texts, and whether they mean the same.
#[derive(Clone, Debug, Serialize)]
pub(super) struct SamePair {
    pub(super) record: usize,
    pub(super) texts: [usize; 2],
    pub(super) same: bool,
}

/// A query and its candidates; of several queries the most similar one counts.
#[derive(Clone, Debug, Serialize)]
pub(super) struct CandidateList {
    pub(super) record: usize,
    pub(super) queries: Vec<usize>,
    pub(super) positive: Vec<usize>,
    pub(super) negative: Vec<usize>,
}

/// A corpus and what is looked for in it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Search {
    pub(super) documents: Vec<Document>,
    pub(super) queries: Vec<Query>,
}

/// A document; documents come in descending order of their names, which is how ties are broken.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Document {
    pub(super) id: String,
    pub(super) text: usize,
}

/// A query with the relevant documents.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Query {
    pub(super) id: String,
    pub(super) text: usize,
    /// Index of a document and its gain, above 0.
    pub(super) gains: Vec<(usize, f64)>,
}

/// Texts with labels, to train on and to ask.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Classes {
    /// Names of the classes that are trained, in order.
    pub(super) names: Vec<String>,
    /// Of every draw, what is trained on.
    pub(super) draws: Vec<Vec<Labelled>>,
    /// What is asked. A label that no training row has has the number of no class.
    pub(super) test: Vec<Labelled>,
}

/// A text with its label.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Labelled {
    pub(super) record: usize,
    pub(super) text: usize,
    pub(super) label: usize,
}

/// Texts that are clustered together.
#[derive(Clone, Debug, Serialize)]
pub(super) struct LabelledSet {
    /// Names of its labels.
    pub(super) names: Vec<String>,
    pub(super) texts: Vec<Labelled>,
}

/// A text's summaries.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Summarised {
    pub(super) record: usize,
    pub(super) human: Vec<usize>,
    pub(super) machine: Vec<usize>,
    pub(super) relevance: Vec<f64>,
}

/// Which part of a task is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent<'a> {
    /// The folder that files are named from.
    pub(super) folder: &'a Path,
    /// The file of sources that name none.
    pub(super) data: Option<&'a Path>,
    /// Units at most: pairs, queries, texts that are asked, texts of a set.
    pub(super) limit: Option<usize>,
    /// Draws those.
    pub(super) seed: u64,
}

impl What {
    /// What intervals resample.
    pub(super) fn unit(&self) -> &'static str {
        match self {
            Self::Pairs(_) | Self::SamePairs(_) => "pairs",
            Self::Lists(_) | Self::Search(_) => "queries",
            Self::Classes(_) => "test texts",
            Self::Sets(sets) if sets.len() == 1 => "texts",
            Self::Sets(_) => "sets",
            Self::Summaries(_) => "summarised texts",
        }
    }

    /// How many of them.
    pub(super) fn units(&self) -> usize {
        match self {
            Self::Pairs(of) => of.len(),
            Self::SamePairs(of) => of.len(),
            Self::Lists(of) => of.len(),
            Self::Search(of) => of.queries.len(),
            Self::Classes(of) => of.test.len(),
            Self::Sets(sets) if sets.len() == 1 => sets[0].texts.len(),
            Self::Sets(sets) => sets.len(),
            Self::Summaries(of) => of.len(),
        }
    }
}

/// Reads a task's files.
///
/// # Errors
/// A file cannot be read; a row does not have what the task needs; nothing is left to ask.
pub(super) fn asked(task: EmbedTask, extent: &Extent<'_>, context: &Context<'_>) -> Result<Asked, Error> {
    let mut reading = Reading { texts: Texts::default(), left_out: Vec::new(), available: 0 };
    let name = task.name.clone();
    let place = Place { task: &name, folder: extent.folder, data: extent.data };
    let from = From { place, extent, context };
    let what = match &task.task {
        Protocol::Sts(of) => reading.scored(of, &from)?,
        Protocol::StsMatrix(of) => reading.matrix(of, &from)?,
        Protocol::PairClassification(of) => reading.same(of, &from)?,
        Protocol::Reranking(of) => reading.lists(of, &from)?,
        Protocol::Retrieval(of) => reading.search(of, &from)?,
        Protocol::Classification(of) => reading.classes(of, &from)?,
        Protocol::Clustering(of) => reading.sets(of, &from)?,
        Protocol::Summarisation(of) => reading.summaries(of, &from)?,
    };
    if what.units() == 0 {
        return Err(from.bad("nothing is left to ask".into()));
    }
    let texts = reading.texts.list;
    let sha256 = sha256_of_bytes(&serde_json::to_vec(&(&texts, &what))?);
    Ok(Asked { task, texts, what, available: reading.available, left_out: reading.left_out, sha256 })
}

/// Where a task is read from.
#[derive(Clone, Copy)]
struct From<'a> {
    place: Place<'a>,
    extent: &'a Extent<'a>,
    context: &'a Context<'a>,
}

impl From<'_> {
    fn rows(&self, sources: &[super::task::Source]) -> Result<Vec<Row>, Error> {
        rows(sources, &self.place, self.context)
    }

    fn bad(&self, problem: String) -> Error {
        let hint = Some("docs/methods/embedding-tasks.md describes the fields of a task file".into());
        Error::Spec { field: "--task", problem: format!("{}: {problem}", self.place.task), hint }
    }

    /// Keeps the units that are asked, in their order.
    fn limited<T>(&self, all: Vec<T>) -> Vec<T> {
        let Some(limit) = self.extent.limit.filter(|limit| *limit < all.len()) else { return all };
        let mut order: Vec<usize> = (0..all.len()).collect();
        order.shuffle(&mut item_generator(self.extent.seed, 0));
        let kept: BTreeSet<usize> = order[..limit].iter().copied().collect();
        all.into_iter().enumerate().filter(|(index, _)| kept.contains(index)).map(|(_, one)| one).collect()
    }
}

/// Every text once.
#[derive(Default)]
struct Texts {
    list: Vec<String>,
    known: HashMap<String, usize>,
}

impl Texts {
    fn number(&mut self, text: String) -> usize {
        if let Some(number) = self.known.get(&text) {
            return *number;
        }
        let number = self.list.len();
        self.list.push(text.clone());
        self.known.insert(text, number);
        number
    }

    fn numbers(&mut self, texts: Vec<String>) -> Vec<usize> {
        texts.into_iter().map(|text| self.number(text)).collect()
    }
}

/// What has been read of a task.
struct Reading {
    texts: Texts,
    left_out: Vec<LeftOut>,
    available: usize,
}

impl Reading {
    fn leave_out(&mut self, rows: usize, why: &str) {
        match self.left_out.iter_mut().find(|left| left.why == why) {
            // Training part and what is asked are read one after the other.
            Some(left) => left.rows += rows,
            None if rows > 0 => self.left_out.push(LeftOut { why: why.to_owned(), rows }),
            None => {}
        }
    }

    /// Takes a pair's texts as they are asked only: those beyond a limit need no vector.
    fn pair([first, second]: [String; 2], texts: &mut Texts) -> [usize; 2] {
        [texts.number(first), texts.number(second)]
    }

    fn scored(&mut self, of: &ScoredPairs, from: &From<'_>) -> Result<What, Error> {
        let mut pairs = Vec::new();
        for row in from.rows(&of.data)? {
            let (texts, count) = both(&row, &of.first, &of.second, &from.place)?;
            let scores = row.numbers(&of.score, &from.place)?;
            if scores.len() != count {
                return Err(uneven(&row, &of.score, scores.len(), count, &from.place));
            }
            pairs.extend(texts.zip(scores).map(|(texts, score)| (row.record, texts, score)));
        }
        self.available = pairs.len();
        let pairs = from.limited(pairs).into_iter().map(|(record, texts, score)| ScoredPair {
            record,
            texts: Self::pair(texts, &mut self.texts),
            score,
        });
        Ok(What::Pairs(pairs.collect()))
    }

    fn matrix(&mut self, of: &Matrix, from: &From<'_>) -> Result<What, Error> {
        let texts = from.rows(&of.data)?;
        let texts = texts.iter().map(|row| row.text(&of.text, &from.place)).collect::<Result<Vec<_>, _>>()?;
        let matrix = numbers(&of.similarities, &from.place, from.context)?;
        if matrix.len() != texts.len() || matrix.iter().any(|row| row.len() != texts.len()) {
            let widths = matrix.iter().map(Vec::len).max().unwrap_or(0);
            let problem = format!("{} texts, and a matrix of similarities of {} x {widths}", texts.len(), matrix.len());
            return Err(from.bad(problem));
        }
        let above = (0..texts.len()).flat_map(|i| (i + 1..texts.len()).map(move |j| (i, j)));
        let pairs: Vec<(usize, usize)> = above.collect();
        self.available = pairs.len();
        let pairs = from.limited(pairs).into_iter().map(|(i, j)| ScoredPair {
            record: i + 1,
            texts: Self::pair([texts[i].clone(), texts[j].clone()], &mut self.texts),
            score: matrix[i][j],
        });
        Ok(What::Pairs(pairs.collect()))
    }

    fn same(&mut self, of: &LabelledPairs, from: &From<'_>) -> Result<What, Error> {
        let mut pairs = Vec::new();
        for row in from.rows(&of.data)? {
            let (texts, count) = both(&row, &of.first, &of.second, &from.place)?;
            let flags = row.flags(&of.label, &from.place)?;
            if flags.len() != count {
                return Err(uneven(&row, &of.label, flags.len(), count, &from.place));
            }
            pairs.extend(texts.zip(flags).map(|(texts, same)| (row.record, texts, same)));
        }
        self.available = pairs.len();
        let pairs = from.limited(pairs).into_iter().map(|(record, texts, same)| SamePair {
            record,
            texts: Self::pair(texts, &mut self.texts),
            same,
        });
        Ok(What::SamePairs(pairs.collect()))
    }

    fn lists(&mut self, of: &CandidateLists, from: &From<'_>) -> Result<What, Error> {
        let mut lists = Vec::new();
        let mut without = 0;
        for row in from.rows(&of.data)? {
            let list = |key: &str| row.texts(key, &from.place);
            let (queries, positive, negative) = (list(&of.query)?, list(&of.positive)?, list(&of.negative)?);
            if queries.is_empty() || positive.is_empty() || negative.is_empty() {
                without += 1;
            } else {
                lists.push((row.record, queries, positive, negative));
            }
        }
        self.leave_out(without, "without a query, a right or a wrong candidate");
        self.available = lists.len();
        let lists = from.limited(lists).into_iter().map(|(record, queries, positive, negative)| CandidateList {
            record,
            queries: self.texts.numbers(queries),
            positive: self.texts.numbers(positive),
            negative: self.texts.numbers(negative),
        });
        Ok(What::Lists(lists.collect()))
    }

    fn search(&mut self, of: &Collection, from: &From<'_>) -> Result<What, Error> {
        let place = &from.place;
        let mut documents = Vec::new();
        for row in from.rows(&of.corpus)? {
            let text = row.text(&of.text, place)?;
            let title = match row.fields.get(&of.title) {
                Some(serde_json::Value::String(title)) => title.as_str(),
                _ => "",
            };
            let text = if title.is_empty() { text } else { format!("{title} {text}").trim().to_owned() };
            documents.push((row.label(&of.id, place)?, text, row));
        }
        documents.sort_by(|(a, ..), (b, ..)| b.cmp(a));
        if let Some([(_, _, row), _]) = documents.array_windows().find(|[(a, ..), (b, ..)]| a == b) {
            return Err(row.refused(place, "another document has the same name".into()));
        }
        let by_id: HashMap<&str, usize> =
            documents.iter().enumerate().map(|(index, (id, ..))| (id.as_str(), index)).collect();
        let mut gains: HashMap<String, Vec<(usize, f64)>> = HashMap::new();
        let mut unknown = 0;
        for row in from.rows(&of.qrels)? {
            let gain = row.number("score", place)?;
            let document = row.label("corpus-id", place)?;
            match by_id.get(document.as_str()) {
                Some(document) if gain > 0.0 => {
                    gains.entry(row.label("query-id", place)?).or_default().push((*document, gain));
                }
                Some(_) => {}
                None => unknown += 1,
            }
        }
        let mut queries = Vec::new();
        let mut without = 0;
        for row in from.rows(&of.queries)? {
            let id = row.label(&of.id, place)?;
            match gains.remove(&id) {
                Some(gains) => queries.push((id, row.text(&of.text, place)?, gains)),
                None => without += 1,
            }
        }
        self.leave_out(unknown, "judgements of documents that are not in the corpus");
        self.leave_out(without, "queries without a relevant document");
        self.available = queries.len();
        let queries: Vec<Query> = from
            .limited(queries)
            .into_iter()
            .map(|(id, text, gains)| Query { id, text: self.texts.number(text), gains })
            .collect();
        let documents =
            documents.into_iter().map(|(id, text, _)| Document { id, text: self.texts.number(text) }).collect();
        Ok(What::Search(Search { documents, queries }))
    }

    fn classes(&mut self, of: &Labels, from: &From<'_>) -> Result<What, Error> {
        let mut seen = BTreeSet::new();
        let train = self.labelled(&from.rows(&of.train)?, &of.text, &of.label, of.repeated, &mut seen, from)?;
        let test = self.labelled(&from.rows(&of.test)?, &of.text, &of.label, of.repeated, &mut seen, from)?;
        let names: BTreeSet<&str> = train.iter().map(|(_, _, label)| label.as_str()).collect();
        let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        if names.len() < 2 {
            return Err(from.bad(format!("{} labels in the rows to train on: at least 2", names.len())));
        }
        let number = |label: &str| names.iter().position(|name| name == label).unwrap_or(names.len());
        self.available = test.len();
        let test = from.limited(test);
        let mut numbered = |rows: Vec<(usize, String, String)>| -> Vec<Labelled> {
            let row = |(record, text, label): (usize, String, String)| Labelled {
                record,
                text: self.texts.number(text),
                label: number(&label),
            };
            rows.into_iter().map(row).collect()
        };
        let test = numbered(test);
        let labels: Vec<usize> = train.iter().map(|(_, _, label)| number(label)).collect();
        let draws = drawn(&labels, names.len(), of.samples_per_label, of.draws);
        let draws = draws
            .into_iter()
            .map(|draw| numbered(draw.into_iter().map(|index| train[index].clone()).collect()))
            .collect();
        Ok(What::Classes(Classes { names, draws, test }))
    }

    fn sets(&mut self, of: &Groups, from: &From<'_>) -> Result<What, Error> {
        let all = from.rows(&of.data)?;
        let place = &from.place;
        let label = LabelField::Field(of.label.clone());
        let mut sets: Vec<Vec<(usize, String, String)>> = Vec::new();
        if all.iter().any(|row| row.is_list(&of.text)) {
            for row in &all {
                let (texts, labels) = (row.texts(&of.text, place)?, row.labels(&of.label, place)?);
                if texts.len() != labels.len() {
                    return Err(uneven(row, &of.label, labels.len(), texts.len(), place));
                }
                let set = texts.into_iter().zip(labels).map(|(text, label)| (row.record, text, label)).collect();
                sets.push(self.without_repeated(set, of.repeated, &mut BTreeSet::new()));
            }
            self.available = sets.len();
        } else {
            let set = self.labelled(&all, &of.text, &label, of.repeated, &mut BTreeSet::new(), from)?;
            self.available = set.len();
            sets.push(set);
        }
        let mut done = Vec::new();
        for set in sets {
            let set = from.limited(set);
            let names: BTreeSet<String> = set.iter().map(|(_, _, label)| label.clone()).collect();
            let names: Vec<String> = names.into_iter().collect();
            let texts = set.into_iter().map(|(record, text, label)| Labelled {
                record,
                text: self.texts.number(text),
                label: names.iter().position(|name| *name == label).unwrap_or(names.len()),
            });
            done.push(LabelledSet { texts: texts.collect(), names });
        }
        if let Some(set) = done.iter().find(|set| set.texts.len() < 2) {
            return Err(from.bad(format!("a set of {} texts cannot be clustered", set.texts.len())));
        }
        Ok(What::Sets(done))
    }

    fn summaries(&mut self, of: &Summaries, from: &From<'_>) -> Result<What, Error> {
        let place = &from.place;
        let mut all = Vec::new();
        for row in from.rows(&of.data)? {
            let (human, machine) = (row.texts(&of.human, place)?, row.texts(&of.machine, place)?);
            let relevance = row.numbers(&of.relevance, place)?;
            if relevance.len() != machine.len() {
                return Err(uneven(&row, &of.relevance, relevance.len(), machine.len(), place));
            }
            if human.is_empty() {
                return Err(row.refused(place, format!("`{}` is an empty list", of.human)));
            }
            all.push((row.record, human, machine, relevance));
        }
        self.available = all.len();
        let all = from.limited(all).into_iter().map(|(record, human, machine, relevance)| Summarised {
            record,
            human: self.texts.numbers(human),
            machine: self.texts.numbers(machine),
            relevance,
        });
        Ok(What::Summaries(all.collect()))
    }

    /// Record, text and label of rows; `seen` are the texts that count as repeated.
    fn labelled(
        &mut self,
        rows: &[Row],
        text: &str,
        label: &LabelField,
        repeated: Repeated,
        seen: &mut BTreeSet<String>,
        from: &From<'_>,
    ) -> Result<Vec<(usize, String, String)>, Error> {
        let mut all = Vec::new();
        let mut neutral = 0;
        for row in rows {
            let label = match label {
                LabelField::Field(key) => row.label(key, &from.place)?,
                LabelField::SignOf { field, at_least } => match row.number(field, &from.place)? {
                    number if number == 0.0 || number.abs() < *at_least => {
                        neutral += 1;
                        continue;
                    }
                    number => if number > 0.0 { "positive" } else { "negative" }.to_owned(),
                },
            };
            all.push((row.record, row.text(text, &from.place)?, label));
        }
        self.leave_out(neutral, "neither positive nor negative");
        Ok(self.without_repeated(all, repeated, seen))
    }

    fn without_repeated(
        &mut self,
        mut rows: Vec<(usize, String, String)>,
        repeated: Repeated,
        seen: &mut BTreeSet<String>,
    ) -> Vec<(usize, String, String)> {
        if repeated == Repeated::LeaveOut {
            let before = rows.len();
            rows.retain(|(_, text, _)| seen.insert(text.clone()));
            self.leave_out(before - rows.len(), "the same text was there before");
        }
        rows
    }
}

/// The pairs of a row: one, or as many as its lists are long.
fn both(
    row: &Row,
    first: &str,
    second: &str,
    place: &Place<'_>,
) -> Result<(impl Iterator<Item = [String; 2]>, usize), Error> {
    let (firsts, seconds) = (row.texts(first, place)?, row.texts(second, place)?);
    if firsts.len() != seconds.len() {
        return Err(uneven(row, second, seconds.len(), firsts.len(), place));
    }
    let count = firsts.len();
    Ok((firsts.into_iter().zip(seconds).map(|(first, second)| [first, second]), count))
}

fn uneven(row: &Row, key: &str, found: usize, expected: usize, place: &Place<'_>) -> Error {
    row.refused(place, format!("`{key}` has {found} values where {expected} are needed"))
}

/// MTEB's draws: one list of indices, shuffled again for every draw by a generator with the same seed; a row is taken while its
/// label has fewer than `samples` rows. A label with fewer rows gives what it has.
fn drawn(labels: &[usize], classes: usize, samples: usize, draws: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..labels.len()).collect();
    let draw = |_| {
        legacy_shuffle(&mut order, &mut LegacyMt19937::new(MTEB_SEED));
        let mut taken = vec![0; classes];
        let take = |index: &usize| {
            let count = &mut taken[labels[*index]];
            *count += 1;
            *count <= samples
        };
        order.iter().copied().filter(take).collect()
    };
    (0..draws).map(draw).collect()
}

#[cfg(test)]
mod tests;
