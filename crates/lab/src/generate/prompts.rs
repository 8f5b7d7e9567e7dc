//! Prompts: from text, ids or a file to the tokens that a string goes on from.

use std::path::PathBuf;

use lathe_tokenizer::{BosEos, GenerationPrompt, Markup, Message, TemplateVariables, Tokenizer};
use serde::{Deserialize, Serialize};

use crate::load::sha256_of;
use crate::{DataReference, Error, Loaded, read_documents};

/// What to go on from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prompts {
    /// A text; an empty one is the start token, or the end token of a model without one.
    Text(String),
    /// Token ids, taken as they are.
    Ids(Vec<u32>),
    /// JSON lines, or one plain text.
    File {
        /// The file.
        file: PathBuf,
        /// Field of the records that holds the prompt.
        field: String,
    },
}

/// What a prompt is to the model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Turn {
    /// The beginning of a text.
    #[default]
    Beginning,
    /// What a user says, in the model's chat template.
    User {
        /// A system prompt before it.
        #[serde(default)]
        system: Option<String>,
    },
}

/// Tokens of every prompt.
pub(crate) fn encode_prompts(prompts: &Prompts, turn: &Turn, loaded: &Loaded) -> Result<Vec<Vec<u32>>, Error> {
    let texts: Vec<String> = match prompts {
        Prompts::Ids(ids) => return Ok(vec![ids.clone()]),
        Prompts::Text(text) => vec![text.clone()],
        Prompts::File { file, field } => {
            let documents = read_documents(&[DataReference::File(file.clone())], field)?;
            documents.into_iter().map(|document| document.text).collect()
        }
    };
    texts.iter().map(|text| encode_prompt(text, turn, loaded)).collect()
}

/// Tokens of one prompt.
pub(crate) fn encode_prompt(text: &str, turn: &Turn, loaded: &Loaded) -> Result<Vec<u32>, Error> {
    let tokenizer = loaded.tokenizer()?;
    match rendered(text, turn, loaded)? {
        Some(text) => Ok(tokenizer.encode(&text, BosEos::Omit, Markup::Parse)?),
        None => beginning(tokenizer, text),
    }
}

/// A prompt in the model's chat template, if it is what a user says.
pub(crate) fn rendered(text: &str, turn: &Turn, loaded: &Loaded) -> Result<Option<String>, Error> {
    let Turn::User { system } = turn else { return Ok(None) };
    let system = system.iter().map(|system| Message::new("system", system));
    let messages: Vec<Message> = system.chain([Message::new("user", text)]).collect();
    conversation_text(loaded, &messages).map(Some)
}

/// SHA-256 of the file that prompts come from; none where they are part of a spec.
pub(crate) fn prompts_sha256(prompts: &Prompts) -> Result<Option<String>, Error> {
    match prompts {
        Prompts::File { file, .. } => sha256_of(file, &|_| {}).map(Some),
        Prompts::Text(_) | Prompts::Ids(_) => Ok(None),
    }
}

/// A text with the tokens that the model expects before it, and without those after it.
pub(crate) fn beginning(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, Error> {
    if text.is_empty() {
        let special = tokenizer.special();
        return Ok(special.bos.or(special.eos.first().copied()).into_iter().collect());
    }
    let mut tokens = tokenizer.encode_with_offsets(text, BosEos::Add, Markup::Text)?;
    while tokens.last().is_some_and(|token| token.bytes.is_none()) {
        tokens.pop();
    }
    Ok(tokens.into_iter().map(|token| token.id).collect())
}

/// Tokens of a conversation in the model's template, up to where the assistant answers.
pub(crate) fn conversation(loaded: &Loaded, messages: &[Message]) -> Result<Vec<u32>, Error> {
    let text = conversation_text(loaded, messages)?;
    Ok(loaded.tokenizer()?.encode(&text, BosEos::Omit, Markup::Parse)?)
}

/// The text of a conversation in the model's template, up to where the assistant answers.
fn conversation_text(loaded: &Loaded, messages: &[Message]) -> Result<String, Error> {
    let tokenizer = loaded.tokenizer()?;
    let template = loaded.opened.chat_template()?.ok_or_else(|| Error::Spec {
        field: "MODEL",
        problem: format!("{} has no chat template", loaded.reference),
        hint: Some("a base model goes on from a text: use `lathe generate --prompt`".into()),
    })?;
    Ok(template.render(messages, GenerationPrompt::Add, &TemplateVariables::of(tokenizer))?)
}
