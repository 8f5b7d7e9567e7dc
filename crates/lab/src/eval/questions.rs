//! The questions of a task: every row checked, every text written out, before a model is loaded.

use std::path::{Path, PathBuf};

use lathe_measure::statistics::item_generator;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::row::{Answered, Layout, Read, environment};
use super::task::{DataFile, Examples, Score, Task};
use crate::records::read_records;
use crate::{Context, Error};

/// A question as text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Question {
    /// Number of its row in the data file, from 1.
    pub record: usize,
    /// What is asked.
    #[serde(flatten)]
    pub ask: Ask,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Which option is likeliest.
    Choose {
        /// The options, at least two.
        options: Vec<Choice>,
        /// Which one is right.
        right: usize,
    },
    /// What the model writes.
    Write {
        /// Text to go on from.
        prompt: String,
        /// Right answers, at least one.
        answers: Vec<String>,
        /// Options that a guess chooses from; 0 where the answer is a text.
        options: usize,
    },
}

/// An option as text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Choice {
    /// What stands before it: of most tasks the same for all options.
    pub context: String,
    /// What stands between the two.
    pub delimiter: String,
    /// The text whose probability is asked.
    pub target: String,
}

/// Rows that are not asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Why.
    pub why: String,
    /// How many.
    pub rows: usize,
}

/// The questions of a task.
#[derive(Clone, Debug)]
pub struct Questions {
    /// The data file.
    pub file: PathBuf,
    /// In the order of the file.
    pub questions: Vec<Question>,
    /// Rows that are not asked.
    pub left_out: Vec<LeftOut>,
    /// Rows that could be asked.
    pub available: usize,
}

/// Which questions are asked, and where their data is.
#[derive(Clone, Debug)]
pub struct Extent<'a> {
    /// Takes the place of the task's data.
    pub data: Option<&'a Path>,
    /// The folder that a task's files are named from.
    pub folder: &'a Path,
    /// So many questions at most.
    pub limit: Option<usize>,
    /// Draws them with this seed; none takes the first. Without a limit all are asked.
    pub seed: Option<u64>,
    /// Whether the text between prompt and target is left out: a chat template has its own.
    pub delimiter: Delimiter,
}

/// What stands between prompt and target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delimiter {
    /// What the task says.
    #[default]
    OfTask,
    /// Nothing.
    Nothing,
}

impl Question {
    /// SHA-256 of everything that is asked, the right answer aside; 16 hexadecimal digits of it.
    #[must_use]
    pub fn hash(&self) -> String {
        let mut all = Sha256::new();
        let mut add = |text: &str| {
            all.update((text.len() as u64).to_le_bytes());
            all.update(text);
        };
        match &self.ask {
            Ask::Choose { options, .. } => options.iter().for_each(|option| {
                add(&option.context);
                add(&option.delimiter);
                add(&option.target);
            }),
            Ask::Write { prompt, .. } => add(prompt),
        }
        all.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Questions {
    /// SHA-256 of all questions and right answers: what results depend on beside the model.
    ///
    /// # Errors
    /// They cannot be written as JSON.
    pub fn sha256(&self) -> Result<String, Error> {
        let digest = Sha256::digest(serde_json::to_vec(&self.questions)?);
        Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The mean share of right answers of a guess; none where there are no options.
    #[must_use]
    pub fn chance(&self) -> Option<f64> {
        let share = |question: &Question| match &question.ask {
            Ask::Choose { options, .. } => Some(1.0 / options.len() as f64),
            Ask::Write { options: 0, .. } => None,
            Ask::Write { options, .. } => Some(1.0 / *options as f64),
        };
        let sum = self.questions.iter().map(share).sum::<Option<f64>>()?;
        Some(sum / self.questions.len().max(1) as f64)
    }
}

/// Reads the data of a task and writes its questions out.
///
/// # Errors
/// A file cannot be read; a row does not have what the task needs; nothing is left to ask.
pub fn questions(task: &Task, extent: &Extent<'_>, context: &Context<'_>) -> Result<Questions, Error> {
    let file = match (extent.data, &task.data) {
        (Some(file), _) => file.to_owned(),
        (None, Some(data)) => locate(data, extent.folder, context)?,
        (None, None) => {
            let problem = format!("the task {} has no data of its own", task.name);
            return Err(Error::Spec { field: "--task", problem, hint: Some("name a file with --data".into()) });
        }
    };
    let bad_task = |problem: String| Error::Spec {
        field: "--task",
        problem: format!("{}: {problem}", task.name),
        hint: Some("docs/tasks.md describes the fields of a task file".into()),
    };
    let environment = environment();
    let layout = Layout::new(task, &environment).map_err(bad_task)?;
    let rows = read_records(&file)?;
    // Numbers of rows are those of the task's own data.
    let is_own = extent.data.is_none();
    if is_own {
        check_records(task, rows.len()).map_err(|problem| bad_task(format!("{problem} of {}", file.display())))?;
    }
    let mut asked: Vec<usize> = Vec::new();
    let mut counts = vec![0; task.leave_out.len()];
    for (index, row) in rows.iter().enumerate() {
        match layout
            .left_out(is_own.then_some(index + 1), row)
            .map_err(|problem| refused(task, &file, index, problem))?
        {
            Some(rule) => counts[rule] += 1,
            None => asked.push(index),
        }
    }
    let mut left_out: Vec<LeftOut> = Vec::new();
    for (rule, rows) in task.leave_out.iter().zip(counts).filter(|(_, rows)| *rows > 0) {
        left_out.push(LeftOut { why: rule.why.clone(), rows });
    }
    let shots = Shots::of(task, &layout, (&file, &rows, &asked), extent, context)?;
    let before = asked.len();
    asked.retain(|index| !shots.rows.contains(&rows[*index]));
    if asked.len() < before {
        left_out.push(LeftOut { why: "shown as an example".into(), rows: before - asked.len() });
    }
    // All rows are checked, also those that a limit leaves out.
    let mut questions = Vec::with_capacity(asked.len());
    for index in asked {
        let ask = question(task, &layout, &rows[index], &shots.text, extent.delimiter)
            .map_err(|problem| refused(task, &file, index, problem))?;
        questions.push(Question { record: index + 1, ask });
    }
    if questions.is_empty() {
        return Err(bad_task(format!("no question is left of the {} rows of {}", rows.len(), file.display())));
    }
    let available = questions.len();
    choose(&mut questions, extent);
    Ok(Questions { file, questions, left_out, available })
}

/// Path of a data file.
fn locate(data: &DataFile, folder: &Path, context: &Context<'_>) -> Result<PathBuf, Error> {
    match &data.package {
        Some(package) => Ok(lathe_model::reference::data_file(package, &data.file.to_string_lossy(), context.home)?),
        None => Ok(folder.join(&data.file)),
    }
}

fn refused(task: &Task, file: &Path, index: usize, problem: String) -> Error {
    Error::Question { task: task.name.clone(), file: file.into(), record: index + 1, problem, hint: BAD_ROW }
}

/// What to do about a row that does not have what a task needs.
const BAD_ROW: &str = "every row is checked before the first question; `leave_out` in the task file names rows that are not \
                       asked, with the reason";

fn check_records(task: &Task, rows: usize) -> Result<(), String> {
    let named = task.leave_out.iter().flat_map(|rule| &rule.records);
    match named.copied().find(|record| !(1..=rows).contains(record)) {
        Some(record) => Err(format!("leave_out: there is no record {record} among the {rows}")),
        None => Ok(()),
    }
}

/// The examples before every question.
#[derive(Default)]
struct Shots {
    text: String,
    rows: Vec<Map<String, Value>>,
}

impl Shots {
    fn of(
        task: &Task,
        layout: &Layout<'_>,
        (file, rows, asked): (&Path, &[Map<String, Value>], &[usize]),
        extent: &Extent<'_>,
        context: &Context<'_>,
    ) -> Result<Self, Error> {
        let mut shots = Self { text: task.preamble.clone(), rows: Vec::new() };
        let Some(examples) = &task.examples else { return Ok(shots) };
        let other = match &examples.data {
            Some(data) => Some(locate(data, extent.folder, context)?),
            None => None,
        };
        let from_other = other.as_deref().map(read_records).transpose()?;
        // Place in the file, for messages, and the row.
        let pool: Vec<(usize, &Map<String, Value>)> = match &from_other {
            _ if !examples.rows.is_empty() => examples.rows.iter().enumerate().collect(),
            Some(rows) => rows.iter().enumerate().collect(),
            None => asked.iter().map(|index| (*index, &rows[*index])).collect(),
        };
        if pool.len() < examples.count {
            let problem = format!("{}: examples: {} rows for a count of {}", task.name, pool.len(), examples.count);
            return Err(Error::Spec { field: "--task", problem, hint: None });
        }
        let file = if examples.rows.is_empty() { other.as_deref().unwrap_or(file) } else { Path::new("examples.rows") };
        for (index, row) in drawn(pool, examples) {
            let shot = || {
                let read = layout.read(row)?;
                let right = read.right();
                let prompt = layout.prompt(&read, is_option(&read).then_some(right))?;
                Ok(prompt + &task.delimiter + &layout.target(&read, right)? + &examples.separator)
            };
            shots.text += &shot().map_err(|problem: String| refused(task, file, index, problem))?;
            shots.rows.push(row.clone());
        }
        Ok(shots)
    }
}

fn is_option(read: &Read) -> bool {
    matches!(read.answer, Answered::Option(_))
}

/// The rows that are shown: the first, or drawn.
fn drawn<'a>(
    mut pool: Vec<(usize, &'a Map<String, Value>)>,
    examples: &Examples,
) -> Vec<(usize, &'a Map<String, Value>)> {
    if let Some(seed) = examples.seed {
        pool.shuffle(&mut item_generator(seed, 0));
    }
    pool.truncate(examples.count);
    pool
}

/// Keeps the questions that are asked, in the order of the file.
fn choose(questions: &mut Vec<Question>, extent: &Extent<'_>) {
    let Some(limit) = extent.limit else { return };
    if let Some(seed) = extent.seed {
        questions.shuffle(&mut item_generator(seed, 0));
    }
    questions.truncate(limit);
    questions.sort_unstable_by_key(|question| question.record);
}

fn question(
    task: &Task,
    layout: &Layout<'_>,
    row: &Map<String, Value>,
    before: &str,
    delimiter: Delimiter,
) -> Result<Ask, String> {
    let read = layout.read(row)?;
    match &task.score {
        Score::Likelihood { .. } => {
            let delimiter = if delimiter == Delimiter::OfTask { task.delimiter.as_str() } else { "" };
            let choice = |index| {
                let context = before.to_owned() + &layout.prompt(&read, Some(index))?;
                Ok(Choice { context, delimiter: delimiter.to_owned(), target: layout.target(&read, index)? })
            };
            let options = (0..read.options.len()).map(choice).collect::<Result<_, String>>()?;
            Ok(Ask::Choose { options, right: read.right() })
        }
        Score::Generation { scorers, .. } => {
            let answers = match &read.answer {
                Answered::Texts(texts) => texts.clone(),
                Answered::Option(right) => vec![layout.target(&read, *right)?],
            };
            for answer in &answers {
                scorers
                    .iter()
                    .try_for_each(|scorer| scorer.check_answer(answer))
                    .map_err(|p| format!("answer: {p}"))?;
            }
            let prompt = before.to_owned() + &layout.prompt(&read, None)?;
            Ok(Ask::Write { prompt, answers, options: read.options.len() })
        }
    }
}
