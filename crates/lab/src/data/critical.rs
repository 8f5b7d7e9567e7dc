//! `lathe data context-critical`: records of instructions whose responses need their context.
//!
//! Of the records with a context, those whose response is likeliest without it are left out (arXiv 2410.10796, §4.3): the mean
//! negative log-likelihood of the response's tokens, given the instruction alone, is lowest. The variant by the gap
//! leaves out those that the context helps least; it is another selection.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use lathe_decode::{DecodeError, Fork, Likelihood};
use lathe_measure::context::lowest;
use lathe_measure::{Number, Reason};
use lathe_model::reference::ModelReference;
use lathe_tokenizer::{BosEos, Markup};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::eval::subject::{Manner, Overlong, Subject};
use crate::load::{fingerprint, sha256_of};
use crate::measure::{PromptForm, continued, fit};
use crate::records::read_records;
use crate::store::{Store, write_lines};
use crate::{Context, Error, Loaded, load};

/// What to choose from, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CriticalSpec {
    /// The model that says how likely responses are: the one that is to be tuned, before it is.
    pub model: ModelReference,
    /// Records: `instruction`, `input`, `output`; or `prompt`, `context`, `completion`; or `messages` and the part of the user's
    /// message that is the `context`.
    pub data: PathBuf,
    /// Share of the records with a context that is left out, rounded down.
    #[serde(default = "quarter")]
    pub drop: f64,
    /// What the order is of.
    #[serde(default)]
    pub by: CriticalBy,
    /// How the model is asked.
    #[serde(default)]
    pub template: PromptForm,
    /// Texts at once; none chooses by memory. No score depends on it.
    #[serde(default)]
    pub batch: Option<usize>,
    /// The file to write: the records that are kept.
    #[serde(default)]
    pub out: PathBuf,
    /// A file for the scores of every record with a context.
    #[serde(default)]
    pub scores: Option<PathBuf>,
}

/// A quarter, as the paper has it.
fn quarter() -> f64 {
    0.25
}

/// What records are put in order by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CriticalBy {
    /// Negative log-likelihood per token of the response without the context.
    #[default]
    NoContext,
    /// The same less that with the context.
    Gap,
}

/// What the model says of a record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordScore {
    /// The record, from 1.
    pub record: usize,
    /// Tokens of the response.
    pub response_tokens: usize,
    /// Mean negative log-likelihood of the response without the context, nats per token.
    pub nll_without_context: f64,
    /// The same with the context.
    pub nll_with_context: f64,
    /// Without less with: what the context is worth, nats per token.
    pub gap: f64,
    /// exp of the first: the paper's perplexity.
    pub perplexity_without_context: f64,
    /// Whether the context was cut to fit the model's window.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_cut: bool,
}

/// What was chosen.
#[derive(Clone, Debug, Serialize)]
pub struct CriticalResult {
    /// The model.
    pub model: String,
    /// How it was asked.
    pub template: PromptForm,
    /// What the order is of.
    pub by: CriticalBy,
    /// Records of the file.
    pub records: usize,
    /// Records without a context, which are left out.
    pub without_context: usize,
    /// Records that are kept.
    pub kept: usize,
    /// Records with a context that are left out.
    pub dropped: usize,
    /// How many of these the other order would have left out as well.
    pub dropped_by_both: usize,
    /// The largest number by which a record was left out, nats per token.
    pub threshold: Number,
    /// Contexts that were cut to fit the model's window.
    pub cut: usize,
    /// Records that an earlier run had scored.
    pub resumed: usize,
    /// Mean scores of the records kept and of those left out: without a context, with it, the gap; nats per token.
    pub kept_means: [Number; 3],
    /// The same of the records left out.
    pub dropped_means: [Number; 3],
    /// The file of records.
    pub out: PathBuf,
    /// The file of scores.
    pub scores: Option<PathBuf>,
}

/// What scores depend on: the first line of their partial file.
#[derive(Serialize)]
struct Head {
    lathe: &'static str,
    model_sha256: String,
    data_sha256: String,
    template: PromptForm,
}

/// A record in the words of this filter.
struct Parts {
    /// Number of the record, from 1.
    record: usize,
    /// A system prompt.
    system: Option<String>,
    /// What is asked with the context and without it.
    ask: Ask,
    context: String,
    response: String,
}

enum Ask {
    /// An instruction to which the context is the input.
    Instruction(String),
    /// A message that holds the context: what comes before and after it.
    Message(String, String),
}

impl Parts {
    fn prompt(&self, form: PromptForm, context: Option<&str>) -> String {
        match (&self.ask, context) {
            (Ask::Instruction(text), context) => form.instruction(text, context),
            (Ask::Message(before, after), Some(context)) => {
                form.instruction(&format!("{before}{context}{after}"), None)
            }
            (Ask::Message(before, after), None) => form.instruction(&without_label(before, after), None),
        }
    }
}

/// Texts scored together, and on disk before the next ones.
const CHUNK: usize = 32;

/// Chooses records.
///
/// # Errors
/// A record, the model or an option cannot be used; a response does not fit the model; a file cannot be written, or belongs
/// to another run.
pub fn context_critical(spec: &CriticalSpec, context: &Context<'_>) -> Result<CriticalResult, Error> {
    if !(0.0..1.0).contains(&spec.drop) {
        let problem = format!("{} is no share of records to leave out", spec.drop);
        return Err(Error::Spec { field: "--drop", problem, hint: Some("a number from 0 to below 1".into()) });
    }
    if spec.batch == Some(0) {
        let hint = Some("at least 1".into());
        return Err(Error::Spec { field: "--batch", problem: "0 texts at once never end".into(), hint });
    }
    let rows = read_records(&spec.data)?;
    let mut with_context = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let parts = parts(index + 1, row).map_err(|problem| bad_record(&spec.data, index + 1, problem))?;
        with_context.extend(parts);
    }
    if with_context.is_empty() {
        return Err(Error::Spec {
            field: "--data",
            problem: format!("{}: none of {} records has a context", spec.data.display(), rows.len()),
            hint: Some("a context is the field `input` of Alpaca's records, else the field `context`".into()),
        });
    }
    let mut store: Store<RecordScore> = Store::open(Some(&spec.out), || {
        Ok(Head {
            lathe: env!("CARGO_PKG_VERSION"),
            model_sha256: fingerprint(&spec.model, context)?,
            data_sha256: sha256_of(&spec.data, &|_| {})?,
            template: spec.template,
        })
    })?;
    let missing: Vec<&Parts> = with_context.iter().filter(|parts| store.get(parts.record as u64).is_none()).collect();
    let resumed = with_context.len() - missing.len();
    let loaded = load(&spec.model, context)?;
    let form = spec.template.for_model(&loaded)?;
    context.stage(&format!("{}: responses", loaded.reference), missing.len() as u64, "records", || {
        for chunk in missing.chunks(CHUNK) {
            for score in scores(chunk, &loaded, form, spec)? {
                store.put(score.record as u64, score)?;
            }
            context.progress.advance(chunk.len() as u64);
        }
        Ok::<_, Error>(())
    })?;
    let all: Vec<RecordScore> = with_context
        .iter()
        .map(|parts| store.get(parts.record as u64).cloned().ok_or(Error::Interrupted))
        .collect::<Result<_, _>>()?;
    let order = |by: CriticalBy| -> Vec<f64> {
        all.iter().map(|score| if by == CriticalBy::Gap { score.gap } else { score.nll_without_context }).collect()
    };
    let other = if spec.by == CriticalBy::Gap { CriticalBy::NoContext } else { CriticalBy::Gap };
    let values = order(spec.by);
    let dropped: BTreeSet<usize> = lowest(&values, spec.drop)?.into_iter().collect();
    let by_other: BTreeSet<usize> = lowest(&order(other), spec.drop)?.into_iter().collect();
    let threshold = dropped.iter().map(|index| values[*index]).reduce(f64::max);
    let kept: Vec<Map<String, Value>> = all
        .iter()
        .enumerate()
        .filter(|(index, _)| !dropped.contains(index))
        .map(|(_, score)| scored(&rows[score.record - 1], score))
        .collect::<Result<_, _>>()?;
    if let Some(file) = &spec.scores {
        let lines = all.iter().enumerate().map(|(index, score)| {
            let mut line = serde_json::to_value(score)?;
            line["is_kept"] = (!dropped.contains(&index)).into();
            Ok(line)
        });
        write_lines(file, &lines.collect::<Result<Vec<Value>, Error>>()?)?;
    }
    let result = CriticalResult {
        model: spec.model.to_string(),
        template: form,
        by: spec.by,
        records: rows.len(),
        without_context: rows.len() - with_context.len(),
        kept: kept.len(),
        dropped: dropped.len(),
        dropped_by_both: dropped.intersection(&by_other).count(),
        threshold: threshold.map_or(Number::Undefined(Reason::Empty), Number::from),
        cut: all.iter().filter(|score| score.is_cut).count(),
        resumed,
        kept_means: means(&all, |index| !dropped.contains(&index)),
        dropped_means: means(&all, |index| dropped.contains(&index)),
        out: spec.out.clone(),
        scores: spec.scores.clone(),
    };
    store.finish_by(|target| write_lines(target, &kept))?;
    Ok(result)
}

fn bad_record(file: &Path, record: usize, problem: String) -> Error {
    Error::Question {
        task: "context-critical".into(),
        file: file.into(),
        record,
        problem,
        hint: "a record has `instruction`, `input`, `output`; or `prompt`, `context`, `completion`; or `messages` and `context`",
    }
}

fn means(all: &[RecordScore], is_in: impl Fn(usize) -> bool) -> [Number; 3] {
    let of: Vec<&RecordScore> = all.iter().enumerate().filter(|(index, _)| is_in(*index)).map(|(_, of)| of).collect();
    let mean = |value: fn(&RecordScore) -> f64| {
        Number::ratio(of.iter().map(|score| value(score)).sum(), of.len() as f64, Reason::Empty)
    };
    [mean(|of| of.nll_without_context), mean(|of| of.nll_with_context), mean(|of| of.gap)]
}

/// A record with its scores in the field `context_critical`.
fn scored(row: &Map<String, Value>, score: &RecordScore) -> Result<Map<String, Value>, Error> {
    let mut row = row.clone();
    row.insert("context_critical".into(), serde_json::to_value(score)?);
    Ok(row)
}

/// Scores of some records, each response without and with its context.
fn scores(of: &[&Parts], loaded: &Loaded, form: PromptForm, spec: &CriticalSpec) -> Result<Vec<RecordScore>, Error> {
    let mut forks = Vec::with_capacity(2 * of.len());
    let mut cut = Vec::with_capacity(of.len());
    for parts in of {
        let bad = |problem| bad_record(&spec.data, parts.record, problem);
        let turn = form.turn_with(parts.system.clone());
        let response = format!("{}{}", form.response_delimiter(), parts.response);
        let after = loaded.tokenizer()?.encode(&response, BosEos::Omit, Markup::Text)?.len() + 1;
        let build = |context: &str| parts.prompt(form, Some(context));
        let fitted = fit(loaded, &turn, &parts.context, after, &build)?.map_err(bad)?;
        for prompt in [parts.prompt(form, None), fitted.prompt] {
            let (context, target) = continued(loaded, &turn, &prompt, &response)?;
            if target.is_empty() || context.is_empty() {
                return Err(bad("the prompt or the response has no token".into()));
            }
            forks.push(Fork { context, targets: vec![target] });
        }
        cut.push(fitted.is_cut);
    }
    let manner = Manner { turn: form.turn(), overlong: Overlong::Refuse, batch: spec.batch };
    let subject = Subject { loaded, manner: &manner };
    let mut found: Vec<Likelihood> = Vec::with_capacity(forks.len());
    let scored = lathe_decode::likelihoods(&loaded.decoder, &forks, subject.room(), &mut |_, likelihoods| {
        found.extend(likelihoods);
        ControlFlow::Continue(())
    });
    scored.map_err(|error| match error {
        DecodeError::NotFinite { item, .. } => Error::NotFinite {
            model: loaded.reference.to_string(),
            task: "context-critical".into(),
            record: of[item as usize / 2].record,
        },
        other => other.into(),
    })?;
    let score = |((parts, of), is_cut): ((&&Parts, &[Likelihood]), bool)| {
        let nll = |of: Likelihood| -of.log_p / of.tokens as f64;
        let (without, with) = (nll(of[0]), nll(of[1]));
        RecordScore {
            record: parts.record,
            response_tokens: of[0].tokens,
            nll_without_context: without,
            nll_with_context: with,
            gap: without - with,
            perplexity_without_context: without.exp(),
            is_cut,
        }
    };
    Ok(of.iter().zip(found.chunks_exact(2)).zip(cut).map(score).collect())
}

/// The parts of a record; none where it has no context.
fn parts(record: usize, row: &Map<String, Value>) -> Result<Option<Parts>, String> {
    let text = |name: &str| match row.get(name) {
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(Value::Null) | None => Ok(None),
        Some(_) => Err(format!("field `{name}` is not a string")),
    };
    let filled = |name: &str| match text(name)? {
        Some(text) if !text.trim().is_empty() => Ok(text.to_owned()),
        Some(_) => Err(format!("field `{name}` is empty")),
        None => Err(format!("field `{name}` is missing")),
    };
    let (mut system, ask, context, response) = if row.contains_key("messages") {
        let turns = conversation(row)?;
        let context = text("context")?.unwrap_or_default().trim().to_owned();
        let ask = match turns.user.split_once(&context) {
            _ if context.is_empty() => Ask::Instruction(turns.user.clone()),
            Some((before, after)) => Ask::Message(before.to_owned(), after.to_owned()),
            None => return Err("field `context` is not a part of the user's message".into()),
        };
        (turns.system, ask, context, turns.assistant)
    } else if row.contains_key("instruction") {
        (
            None,
            Ask::Instruction(filled("instruction")?),
            text("input")?.unwrap_or_default().trim().to_owned(),
            filled("output")?,
        )
    } else {
        let context = text("context")?.unwrap_or_default().trim().to_owned();
        (None, Ask::Instruction(filled("prompt")?), context, filled("completion")?)
    };
    if context.is_empty() {
        return Ok(None);
    }
    system = system.filter(|system| !system.trim().is_empty());
    Ok(Some(Parts { record, system, ask, context, response }))
}

struct Conversation {
    system: Option<String>,
    user: String,
    assistant: String,
}

/// A conversation of one question and one answer.
fn conversation(row: &Map<String, Value>) -> Result<Conversation, String> {
    let list = row.get("messages").and_then(Value::as_array).ok_or("field `messages` is not a list")?;
    let mut turns = list.iter().map(|turn| {
        let part = |name: &str| turn.get(name).and_then(Value::as_str);
        part("role").zip(part("content")).ok_or("field `messages`: a turn lacks the texts `role` and `content`")
    });
    let turns: Vec<(&str, &str)> = turns.by_ref().collect::<Result<_, _>>()?;
    let (system, rest) = match &turns[..] {
        [("system", system), rest @ ..] => (Some((*system).to_owned()), rest),
        rest => (None, rest),
    };
    match rest {
        [("user", user), ("assistant", assistant)] if !assistant.trim().is_empty() => {
            Ok(Conversation { system, user: (*user).to_owned(), assistant: (*assistant).to_owned() })
        }
        [("user", _), ("assistant", _)] => Err("field `messages`: the assistant says nothing".into()),
        _ => {
            Err("field `messages`: one turn of the user and one of the assistant are read, after a system prompt"
                .into())
        }
    }
}

/// A message without its context. A line that holds nothing else than what introduced the context, such as `Background:`, goes too.
fn without_label(before: &str, after: &str) -> String {
    let (earlier, line) = before.rsplit_once('\n').map_or(("", before), |(earlier, line)| (earlier, line));
    let is_label = line.trim_end().ends_with(':') && (after.is_empty() || after.starts_with('\n'));
    let before = if is_label || line.trim().is_empty() { earlier } else { before };
    let parts = [before.trim_end(), after.trim_start()];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn read(row: Value) -> Result<Option<Parts>, String> {
        parts(1, row.as_object().unwrap())
    }

    #[test]
    fn three_kinds_of_record() {
        let chat = PromptForm::Chat;
        let alpaca = read(serde_json::json!({"instruction": "Sum up.", "input": "A text.", "output": "It is."}))
            .unwrap()
            .unwrap();
        assert_eq!(alpaca.prompt(chat, Some("A text.")), "Sum up.\n\nA text.");
        assert_eq!(alpaca.prompt(chat, None), "Sum up.");
        assert_eq!(alpaca.prompt(PromptForm::Alpaca, None), "### Instruction:\nSum up.\n\n### Response:\n");
        let plain =
            read(serde_json::json!({"prompt": "Why?", "context": "So.", "completion": "Because."})).unwrap().unwrap();
        assert_eq!(plain.prompt(chat, Some("So.")), "Why?\n\nSo.");
        let messages = serde_json::json!([
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "Background: It is Oran.\nQuestion: Which?"},
            {"role": "assistant", "content": "Oran"}
        ]);
        let turns = read(serde_json::json!({"messages": messages, "context": "It is Oran."})).unwrap().unwrap();
        assert_eq!(turns.prompt(chat, Some("It is")), "Background: It is\nQuestion: Which?");
        assert_eq!(turns.prompt(chat, None), "Question: Which?");
        assert_eq!((turns.system.as_deref(), turns.response.as_str()), (Some("Be short."), "Oran"));
        for empty in ["", "  "] {
            let none = read(serde_json::json!({"instruction": "Say hello.", "input": empty, "output": "Hello."}));
            assert!(none.unwrap().is_none());
        }
        assert!(read(serde_json::json!({"messages": messages})).unwrap().is_none());
    }

    #[test]
    fn what_is_left_of_a_message() {
        assert_eq!(without_label("Read this: ", " Then answer."), "Read this:\nThen answer.");
        assert_eq!(without_label("First.\nContext:\n", "\nWhy?"), "First.\nContext:\nWhy?");
        assert_eq!(without_label("First.\nContext: ", "\nWhy?"), "First.\nWhy?");
        assert_eq!(without_label("", "\n\nWhy?"), "Why?");
        assert_eq!(without_label("Why? ", ""), "Why?");
    }

    #[test]
    fn records_that_cannot_be_read() {
        for (row, problem) in [
            (serde_json::json!({"output": "x"}), "field `prompt` is missing"),
            (serde_json::json!({"instruction": "a", "input": "b"}), "field `output` is missing"),
            (serde_json::json!({"instruction": "a", "input": 3, "output": "c"}), "field `input` is not a string"),
            (serde_json::json!({"instruction": "a", "input": "b", "output": " "}), "field `output` is empty"),
            (serde_json::json!({"messages": 3}), "field `messages` is not a list"),
        ] {
            assert_eq!(read(row).err().unwrap(), problem);
        }
        let of = |context: &str, turns: Value| {
            read(serde_json::json!({"messages": turns, "context": context})).err().unwrap()
        };
        let turn = |role: &str, content: &str| serde_json::json!({"role": role, "content": content});
        assert!(of("c", serde_json::json!([turn("user", "a"), turn("assistant", "b")])).contains("not a part"));
        assert!(of("a", serde_json::json!([turn("user", "a")])).contains("one turn"));
        assert!(of("a", serde_json::json!([turn("user", "a"), turn("assistant", " ")])).contains("says nothing"));
        assert!(of("a", serde_json::json!([{"role": "user"}])).contains("a turn lacks"));
    }
}
