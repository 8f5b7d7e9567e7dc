//! Records to examples: `messages`, `prompt` and `completion`, `text`, or ready `input_ids`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lathe_tokenizer::{BosEos, ChatTemplate, Markup, Message, Tokenizer};
use lathe_tune::Example;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::chat::ChatWriter;
use super::spec::{BadRecords, LossOn};
use crate::records::{json_object, read_records};
use crate::{DataReference, Error, read_documents};

/// What a record should be.
pub(super) const EXPECTED: &str =
    "a record has `messages`, `prompt` and `completion`, `text`, or `input_ids`; --skip-bad leaves bad ones out";

/// A record that was left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadRecord {
    /// Its file.
    pub file: PathBuf,
    /// Line or row, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: String,
}

/// What was read.
#[derive(Default)]
pub(super) struct Records {
    pub(super) examples: Vec<Example>,
    /// Records that were read, bad ones included.
    pub(super) count: usize,
    /// How many are of each kind.
    pub(super) kinds: BTreeMap<&'static str, usize>,
    pub(super) bad: Vec<BadRecord>,
    /// Prompts and completions of which a token holds parts of both.
    pub(super) joined: usize,
}

/// What turns records into examples.
pub(super) struct Encoder<'a> {
    pub(super) tokenizer: Option<&'a Tokenizer>,
    pub(super) template: Option<&'a ChatTemplate>,
    pub(super) vocab_size: usize,
    pub(super) loss_on: LossOn,
    pub(super) markup: Markup,
}

/// A record's example.
struct Encoded {
    kind: &'static str,
    example: Example,
    is_joined: bool,
}

/// Reads files of records, or plain texts, which are a record each.
pub(super) fn read(files: &[PathBuf], encoder: &Encoder<'_>, bad_records: BadRecords) -> Result<Records, Error> {
    let mut all = Records::default();
    for file in files {
        let records = read_file(file)?;
        let is_rows = is_of(file, &["parquet"]);
        let encode = |(line, record): Line| (line, record.and_then(|record| encoder.encode(&record)));
        let encoded: Vec<_> = records.into_par_iter().map(encode).collect();
        for (line, encoded) in encoded {
            all.count += 1;
            match encoded {
                Ok(Encoded { kind, example, is_joined }) => {
                    *all.kinds.entry(kind).or_default() += 1;
                    all.joined += usize::from(is_joined);
                    all.examples.push(example);
                }
                Err(problem) if bad_records == BadRecords::Skip => {
                    all.bad.push(BadRecord { file: file.clone(), line, problem });
                }
                Err(problem) if is_rows => {
                    return Err(Error::Row { file: file.clone(), row: line, problem, expected: EXPECTED });
                }
                Err(problem) => return Err(Error::Record { file: file.clone(), line, problem, expected: EXPECTED }),
            }
        }
    }
    Ok(all)
}

fn is_of(file: &Path, extensions: &[&str]) -> bool {
    let extension = file.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
    extensions.contains(&extension.as_str())
}

/// A record with its line or row, or what is wrong with that line.
type Line = (usize, Result<Map<String, Value>, String>);

/// The records of a file; of one without records, its text.
fn read_file(file: &Path) -> Result<Vec<Line>, Error> {
    if is_of(file, &["jsonl", "ndjson"]) {
        let text = std::fs::read_to_string(file).map_err(|source| Error::Read { file: file.into(), source })?;
        let lines = text.strip_prefix('\u{feff}').unwrap_or(&text).lines().enumerate();
        let lines = lines.filter(|(_, line)| !line.trim().is_empty());
        let records: Vec<_> = lines.map(|(index, line)| (index + 1, json_object(line))).collect();
        return if records.is_empty() { Err(Error::NoRecord { file: file.into() }) } else { Ok(records) };
    }
    if is_of(file, &["parquet"]) {
        let rows = read_records(file)?.into_iter().enumerate();
        return Ok(rows.map(|(index, row)| (index + 1, Ok(row))).collect());
    }
    if is_of(file, &["json"]) {
        return Err(Error::UnknownRecords { file: file.into(), extension: "json".into() });
    }
    let texts = read_documents(&[DataReference::File(file.into())], "text")?.into_iter();
    Ok(texts.map(|text| (1, Ok(Map::from_iter([("text".to_owned(), Value::from(text.text))])))).collect())
}

impl Encoder<'_> {
    fn tokenizer(&self) -> Result<&Tokenizer, String> {
        self.tokenizer.ok_or_else(|| "the model has no tokenizer, so records need `input_ids`".to_owned())
    }

    fn encode(&self, record: &Map<String, Value>) -> Result<Encoded, String> {
        let has = |field: &str| record.get(field).is_some_and(|value| !value.is_null());
        let (kind, (example, is_joined)) = if has("messages") {
            let messages = messages(&record["messages"], "messages")?;
            ("messages", (self.conversation(&messages, 0, record.get("tools"))?, false))
        } else if has("prompt") || has("completion") {
            ("prompt and completion", self.completion(record)?)
        } else if has("input_ids") {
            ("input_ids", (self.ready(record)?, false))
        } else if has("text") {
            ("text", (self.text(string(record, "text")?)?, false))
        } else {
            return Err("none of the fields `messages`, `prompt`, `text` and `input_ids` is there".into());
        };
        if example.ids.is_empty() {
            return Err("there is no token in it".into());
        }
        match example.ids.iter().chain(example.labels.iter().flatten()).find(|id| **id as usize >= self.vocab_size) {
            Some(id) => Err(format!("token {id} is outside of the vocabulary of {}", self.vocab_size)),
            None => Ok(Encoded { kind, example, is_joined }),
        }
    }

    fn conversation(&self, messages: &[Message], first: usize, tools: Option<&Value>) -> Result<Example, String> {
        let tokenizer = self.tokenizer()?;
        let template = self.template.ok_or("the model has no chat template, so `messages` cannot be written")?;
        if messages.is_empty() {
            return Err("field `messages` is empty".into());
        }
        let tools = tools.filter(|tools| !tools.is_null());
        ChatWriter { template, tokenizer }.example(messages, first, tools, self.loss_on)
    }

    /// A completion goes on from its prompt, as one text; its end token is to be predicted too. A token that holds parts
    /// of both counts as the completion's.
    fn completion(&self, record: &Map<String, Value>) -> Result<(Example, bool), String> {
        if record.get("prompt").is_some_and(Value::is_array) {
            let prompt = messages(&record["prompt"], "prompt")?;
            let completion = messages(record.get("completion").unwrap_or(&Value::Null), "completion")?;
            let (first, all) = (prompt.len(), [prompt, completion].concat());
            return Ok((self.conversation(&all, first, record.get("tools"))?, false));
        }
        let (prompt, completion) = (string(record, "prompt")?, string(record, "completion")?);
        let tokenizer = self.tokenizer()?;
        let text = format!("{prompt}{completion}");
        let tokens = tokenizer.encode_with_offsets(&text, BosEos::Add, self.markup).map_err(|e| e.to_string())?;
        let mut ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
        let begins = |bytes: &std::ops::Range<usize>| bytes.end > prompt.len() || bytes.start >= prompt.len();
        let first = tokens.iter().position(|token| token.bytes.as_ref().is_some_and(begins)).unwrap_or(
            // Nothing of the completion is a token: what the tokenizer puts after a text is all there is.
            tokens.iter().rposition(|token| token.bytes.is_some()).map_or(ids.len(), |last| last + 1),
        );
        let is_joined = tokens
            .get(first)
            .and_then(|token| token.bytes.as_ref())
            .is_some_and(|bytes| bytes.start < prompt.len() && bytes.end > prompt.len());
        end(&mut ids, tokenizer);
        let first = if self.loss_on == LossOn::All { 0 } else { first };
        Ok((Example::from_position(ids, first), is_joined))
    }

    fn text(&self, text: &str) -> Result<Example, String> {
        if text.is_empty() {
            return Err("field `text` is empty".into());
        }
        let tokenizer = self.tokenizer()?;
        let mut ids = tokenizer.encode(text, BosEos::Add, self.markup).map_err(|error| error.to_string())?;
        end(&mut ids, tokenizer);
        Ok(Example::whole(ids))
    }

    fn ready(&self, record: &Map<String, Value>) -> Result<Example, String> {
        /// Labels that are not to be predicted, as torch has them.
        const IGNORED: i64 = -100;
        let numbers = |field: &'static str| -> Result<Option<Vec<i64>>, String> {
            let list = match record.get(field) {
                None | Some(Value::Null) => return Ok(None),
                Some(Value::Array(list)) => list,
                Some(_) => return Err(format!("field `{field}` is no list")),
            };
            let number = |(i, value): (usize, &Value)| {
                value.as_i64().ok_or_else(|| format!("{field}[{i}] is {value}, expected a whole number"))
            };
            list.iter().enumerate().map(number).collect::<Result<_, _>>().map(Some)
        };
        let id =
            |(i, id): (usize, i64)| u32::try_from(id).map_err(|_| format!("input_ids[{i}] is {id}, expected a token"));
        let ids = numbers("input_ids")?.unwrap_or_default();
        let ids: Vec<u32> = ids.into_iter().enumerate().map(id).collect::<Result<_, _>>()?;
        if numbers("attention_mask")?.is_some_and(|mask| mask.contains(&0)) {
            return Err("attention_mask has zeros: leave padding out, lathe needs none".into());
        }
        let Some(labels) = numbers("labels")? else { return Ok(Example::whole(ids)) };
        if labels.len() != ids.len() {
            return Err(format!("labels has {} entries for {} of input_ids", labels.len(), ids.len()));
        }
        let label = |(i, label): (usize, i64)| match u32::try_from(label) {
            Ok(label) => Ok(Some(label)),
            Err(_) if label == IGNORED => Ok(None),
            Err(_) => Err(format!("labels[{i}] is {label}, expected a token or -100")),
        };
        let labels = labels.into_iter().enumerate().map(label).collect::<Result<_, _>>()?;
        Ok(Example { ids, labels })
    }
}

/// The end token after a text, where the tokenizer put none.
fn end(ids: &mut Vec<u32>, tokenizer: &Tokenizer) {
    let ends = &tokenizer.special().eos;
    if let Some(first) = ends.first()
        && !ids.last().is_some_and(|last| ends.contains(last))
    {
        ids.push(*first);
    }
}

fn string<'a>(record: &'a Map<String, Value>, field: &str) -> Result<&'a str, String> {
    match record.get(field) {
        Some(Value::String(text)) => Ok(text),
        Some(Value::Null) | None => Err(format!("field `{field}` is missing")),
        Some(_) => Err(format!("field `{field}` is not a string")),
    }
}

fn messages(list: &Value, field: &str) -> Result<Vec<Message>, String> {
    let Value::Array(list) = list else { return Err(format!("field `{field}` is no list of messages")) };
    let message =
        |(i, value): (usize, &Value)| Message::deserialize(value).map_err(|error| format!("{field}[{i}]: {error}"));
    list.iter().enumerate().map(message).collect()
}
