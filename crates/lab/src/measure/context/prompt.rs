//! How a context and a question become a prompt.

use lathe_tokenizer::{BosEos, Markup, Token};
use serde::{Deserialize, Serialize};

use crate::generate::{Turn, beginning, encode_prompt, rendered};
use crate::{Error, Loaded};

/// How a model is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptForm {
    /// In the model's chat template if it has one, else plain.
    #[default]
    Auto,
    /// As a user's turn in the model's chat template.
    Chat,
    /// As the beginning of a text that ends in `Answer:`.
    Plain,
    /// Under the headings of Alpaca: instruction, input, response.
    Alpaca,
}

impl PromptForm {
    /// The form for a model: never [`PromptForm::Auto`].
    ///
    /// # Errors
    /// A chat template is asked for, and the model has none or one that cannot be read.
    pub(crate) fn for_model(self, loaded: &Loaded) -> Result<Self, Error> {
        match self {
            Self::Auto => Ok(if loaded.opened.chat_template()?.is_some() { Self::Chat } else { Self::Plain }),
            Self::Chat if loaded.opened.chat_template()?.is_none() => Err(Error::Spec {
                field: "--template",
                problem: format!("{} has no chat template", loaded.reference),
                hint: Some("--template plain asks in the form of a text, --template alpaca under headings".into()),
            }),
            form => Ok(form),
        }
    }

    /// Its name in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Chat => "chat",
            Self::Plain => "plain",
            Self::Alpaca => "alpaca",
        }
    }

    /// What a prompt is to the model.
    pub(crate) fn turn(self) -> Turn {
        self.turn_with(None)
    }

    /// The same after a system prompt, which only a chat template has a place for.
    pub(crate) fn turn_with(self, system: Option<String>) -> Turn {
        match self {
            Self::Chat => Turn::User { system },
            Self::Auto | Self::Plain | Self::Alpaca => Turn::Beginning,
        }
    }

    /// What stands between a prompt and an answer.
    pub(crate) fn delimiter(self) -> &'static str {
        match self {
            Self::Plain => " ",
            Self::Auto | Self::Chat | Self::Alpaca => "",
        }
    }

    /// What stands between an instruction and its response.
    pub(crate) fn response_delimiter(self) -> &'static str {
        match self {
            Self::Plain => "\n\n",
            Self::Auto | Self::Chat | Self::Alpaca => "",
        }
    }

    /// A question, with a text before it or without, as a prompt.
    pub(crate) fn prompt(self, instruction: Option<&str>, context: Option<&str>, question: &str) -> String {
        match self {
            Self::Auto | Self::Chat => with_background(instruction, context, question),
            Self::Plain => format!("{}\nAnswer:", with_background(instruction, context, question)),
            Self::Alpaca => {
                let question = instruction.map_or(question.to_owned(), |first| format!("{first} {question}"));
                headed(&question, context)
            }
        }
    }

    /// An instruction as it stands in a data set, with its input or without, as a prompt.
    pub(crate) fn instruction(self, instruction: &str, input: Option<&str>) -> String {
        let joined = || input.map_or(instruction.to_owned(), |input| format!("{instruction}\n\n{input}"));
        match self {
            Self::Auto | Self::Chat | Self::Plain => joined(),
            Self::Alpaca => headed(instruction, input),
        }
    }
}

/// Background first, question second (arXiv 2410.10796, appendix A.4), with an instruction before both.
pub(crate) fn with_background(instruction: Option<&str>, context: Option<&str>, question: &str) -> String {
    let first = instruction.map_or(String::new(), |text| format!("{text}\n"));
    match context {
        Some(context) => format!("{first}Background: {context}\nQuestion: {question}"),
        None => format!("{first}Question: {question}"),
    }
}

fn headed(instruction: &str, input: Option<&str>) -> String {
    let input = input.map_or(String::new(), |input| format!("### Input:\n{input}\n\n"));
    format!("### Instruction:\n{instruction}\n\n{input}### Response:\n")
}

/// A context that fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fitted {
    /// The prompt.
    pub(crate) prompt: String,
    /// What is left of the context.
    pub(crate) context: String,
    /// Whether its end was cut off.
    pub(crate) is_cut: bool,
}

/// Makes a prompt with as much of the context, from its beginning, as leaves room for `after` tokens in the model's window. Nothing
/// else is shortened.
///
/// # Errors
/// Without any context it does not fit; the text cannot be tokenised. The first is a problem with the record.
pub(crate) fn fit(
    loaded: &Loaded,
    turn: &Turn,
    context: &str,
    after: usize,
    build: &dyn Fn(&str) -> String,
) -> Result<Result<Fitted, String>, Error> {
    let window = loaded.decoder.spec().context_length;
    let room = window.saturating_sub(after);
    let length = |prompt: &str| Ok::<_, Error>(encode_prompt(prompt, turn, loaded)?.len());
    let prompt = build(context);
    let mut over = length(&prompt)?.saturating_sub(room);
    if over == 0 {
        return Ok(Ok(Fitted { prompt, context: context.to_owned(), is_cut: false }));
    }
    let tokens = loaded.tokenizer()?.encode_with_offsets(context, BosEos::Omit, Markup::Text)?;
    let mut keep = tokens.len();
    while keep > 0 {
        keep = keep.saturating_sub(over.max(1));
        let end = keep.checked_sub(1).and_then(|last| tokens[last].bytes.clone()).map_or(0, |bytes| bytes.end);
        let end = (0..=end).rev().find(|end| context.is_char_boundary(*end)).unwrap_or(0);
        let left = context[..end].trim_end();
        let prompt = build(left);
        over = length(&prompt)?.saturating_sub(room);
        if over == 0 {
            return Ok(Ok(Fitted { prompt, context: left.to_owned(), is_cut: true }));
        }
    }
    let tokens = length(&build(""))? + after;
    Ok(Err(format!("without any context it needs {tokens} tokens, and {} has room for {window}", loaded.reference)))
}

/// Tokens of a prompt as the model reads it before it writes, and of a text that goes on from there. Unlike in `lathe eval`, white
/// space at the end of a prompt is the prompt's: a template ends in a line break, and the next token is the answer's first.
pub(crate) fn continued(loaded: &Loaded, turn: &Turn, prompt: &str, text: &str) -> Result<(Vec<u32>, Vec<u32>), Error> {
    let tokenizer = loaded.tokenizer()?;
    let before = encode_prompt(prompt, turn, loaded)?;
    let alone = tokenizer.encode(text, BosEos::Omit, Markup::Text)?;
    let whole = match rendered(prompt, turn, loaded)? {
        // The name of a control token in an answer is text.
        Some(_) if tokenizer.encode(text, BosEos::Omit, Markup::Parse)? != alone => return Ok((before, alone)),
        Some(prompt) => tokenizer.encode(&(prompt + text), BosEos::Omit, Markup::Parse)?,
        None => beginning(tokenizer, &format!("{prompt}{text}"))?,
    };
    // Where a token would hold parts of both, the model has read the prompt's own.
    let after = whole.strip_prefix(&before[..]).map_or(alone, <[u32]>::to_vec);
    Ok((before, after))
}

/// A prompt as the model reads it: the text, its tokens with their bytes, those that are put around a text included.
pub(crate) fn located(loaded: &Loaded, turn: &Turn, prompt: &str) -> Result<(String, Vec<Token>), Error> {
    let tokenizer = loaded.tokenizer()?;
    Ok(match rendered(prompt, turn, loaded)? {
        Some(text) => {
            let tokens = tokenizer.encode_with_offsets(&text, BosEos::Omit, Markup::Parse)?;
            (text, tokens)
        }
        None => {
            let mut tokens = tokenizer.encode_with_offsets(prompt, BosEos::Add, Markup::Text)?;
            // As `beginning` does it: what the tokenizer puts after a text would end it.
            while tokens.last().is_some_and(|token| token.bytes.is_none()) {
                tokens.pop();
            }
            (prompt.to_owned(), tokens)
        }
    })
}
