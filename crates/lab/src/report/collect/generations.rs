//! Texts that a model writes: greedy, each token with its surprisal.

use candle_core::Tensor;
use lathe_kernels::logits;
use lathe_model::{Batch, Decoder, KvCache, NoTap};
use lathe_tokenizer::{
    BosEos, ChatTemplate, ControlTokens, GenerationPrompt, Markup, Message, TemplateVariables, Tokenizer,
};

use super::{Absent, Bench, NO_TOKENIZER};
use crate::report::data::{GeneratedToken, Generation};
use crate::{Error, Loaded};

/// What every model is asked, as the turn of a user and, for a model without a template, as the start of a text.
const PROMPTS: [Prompt; 3] = [
    Prompt { question: "What is the capital of France?", opening: "The capital of France is" },
    Prompt { question: "Write two sentences about a storm at sea.", opening: "That night the storm at sea" },
    Prompt {
        question: "Write a Python function that returns the n-th Fibonacci number.",
        opening: "def fibonacci(n):\n    \"\"\"Return the n-th Fibonacci number.\"\"\"\n",
    },
];

struct Prompt {
    question: &'static str,
    opening: &'static str,
}

pub(super) fn generations(loaded: &Loaded, bench: &Bench<'_>) -> Result<Vec<Generation>, Absent> {
    let Some(tokenizer) = &loaded.tokenizer else {
        return Err(Absent::Data(NO_TOKENIZER.to_owned()));
    };
    let template = loaded.opened.chat_template()?;
    let prompts = PROMPTS.iter().map(|prompt| opened(prompt, tokenizer, template.as_ref()));
    let prompts: Vec<Opened> = prompts.collect::<Result<_, _>>()?;
    let context = loaded.decoder.spec().context_length;
    if let Some(longest) = prompts.iter().map(|prompt| prompt.ids.len()).max().filter(|longest| *longest >= context) {
        return Err(Absent::Data(format!("a prompt of {longest} tokens leaves no room in a context of {context}")));
    }
    let new_tokens = bench.spec.new_tokens;
    let total = (prompts.len() * new_tokens) as u64;
    Ok(bench.stage("sample generations", total, "tokens", |watch| {
        prompts
            .into_iter()
            .map(|prompt| {
                let tokens = write(&loaded.decoder, tokenizer, &prompt.ids, new_tokens, watch.advance)?;
                Ok(Generation { prompt: prompt.shown, decoding: prompt.decoding, tokens })
            })
            .collect::<Result<_, Error>>()
    })?)
}

/// A prompt as one model takes it.
struct Opened {
    shown: String,
    decoding: String,
    ids: Vec<u32>,
}

fn opened(prompt: &Prompt, tokenizer: &Tokenizer, template: Option<&ChatTemplate>) -> Result<Opened, Absent> {
    let Some(template) = template else {
        let mut ids = tokenizer.encode(prompt.opening, BosEos::Add, Markup::Text)?;
        // A text that goes on has no end token.
        if tokenizer.kind().adds_eos {
            ids.pop();
        }
        let decoding = "greedy, continuing the text".to_owned();
        return Ok(Opened { shown: prompt.opening.to_owned(), decoding, ids });
    };
    let turn = Message::new("user", prompt.question);
    let text = template
        .render(&[turn], GenerationPrompt::Add, &TemplateVariables::of(tokenizer))
        // A template is a program of the model's author; the rest of the report does not depend on it.
        .map_err(|error| Absent::Data(format!("its chat template does not take a question: {error}")))?;
    let ids = tokenizer.encode(&text, BosEos::Omit, Markup::Parse)?;
    Ok(Opened { shown: prompt.question.to_owned(), decoding: "greedy, in its chat template".to_owned(), ids })
}

/// Writes up to `new_tokens` tokens after `prompt`; an end token or the end of the context stops it.
fn write(
    decoder: &Decoder,
    tokenizer: &Tokenizer,
    prompt: &[u32],
    new_tokens: usize,
    advance: &(dyn Fn(u64) + Sync),
) -> Result<Vec<GeneratedToken>, Error> {
    let mut cache = KvCache::new(decoder.spec(), 1);
    let mut stream = tokenizer.stream(ControlTokens::Show);
    let mut written: Vec<GeneratedToken> = Vec::with_capacity(new_tokens);
    let room = decoder.spec().context_length.saturating_sub(prompt.len());
    let mut next = if new_tokens == 0 { None } else { Some(read(decoder, &mut cache, prompt)?) };
    while let Some(choice) = next.take().filter(|choice| !tokenizer.special().eos.contains(&choice.id)) {
        written.push(GeneratedToken {
            text: stream.push(choice.id),
            surprisal: Some(choice.nats / std::f64::consts::LN_2),
        });
        advance(1);
        if written.len() < new_tokens.min(room) {
            next = Some(read(decoder, &mut cache, &[choice.id])?);
        }
    }
    let rest = stream.finish();
    if let Some(last) = written.last_mut() {
        last.text += &rest;
    }
    advance((new_tokens - written.len()) as u64);
    Ok(written)
}

/// The most likely next token.
pub(super) struct Choice {
    pub(super) id: u32,
    /// Its negative log-likelihood.
    nats: f64,
}

/// Appends `ids` to the only sequence of `cache` and chooses the token after them.
pub(super) fn read(decoder: &Decoder, cache: &mut KvCache, ids: &[u32]) -> Result<Choice, Error> {
    let mut batch = Batch::default();
    batch.push(ids, 0, cache.len(0));
    let hidden = decoder.forward(&batch, Some(cache), &mut NoTap)?;
    let last: Tensor = hidden.narrow(0, ids.len() - 1, 1)?;
    let mut choices = Vec::with_capacity(1);
    decoder.for_logits(
        &last,
        |_, row| {
            let summary = logits::summarise(row);
            #[expect(clippy::cast_possible_truncation, reason = "token ids are u32")]
            let id = summary.argmax as u32;
            Choice { id, nats: (summary.log_sum_exp - f64::from(row[summary.argmax])).max(0.0) }
        },
        &mut choices,
    )?;
    choices.pop().ok_or_else(|| lathe_model::Error::NoTokens.into())
}
