//! `lathe chat`: a conversation with a model or an ensemble, in its template.

use std::ops::ControlFlow;
use std::path::Path;

use lathe_decode::ensemble::Memory;
use lathe_decode::{Decoding, Event, Request, Stops, Writer, reply};
use lathe_model::PrefixCache;
use lathe_tokenizer::Message;
use serde::{Deserialize, Serialize};

use crate::ensemble::{EnsembleSpec, Members, Writing};
use crate::generate::{DecodingSpec, EndTokens, conversation};
use crate::store::write_lines;
use crate::{Compute, Context, Error, Loaded, load};

/// Whom to talk to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatSpec {
    /// The model, or several as an ensemble; each has to have a chat template.
    pub who: EnsembleSpec,
    /// The system prompt.
    pub system: Option<String>,
    /// How replies are written.
    pub decoding: DecodingSpec,
    /// The arithmetic of the model.
    #[serde(default)]
    pub compute: Compute,
}

/// A conversation with what it needs to go on. Turns that were read stay in the cache.
pub struct Chat {
    spec: ChatSpec,
    voice: Voice,
    messages: Vec<Message>,
    /// Replies so far, which are the items that draws come from.
    replies: u64,
}

/// Who answers.
enum Voice {
    One { loaded: Box<Loaded>, decoding: Decoding, cache: PrefixCache },
    Several { members: Members, writing: Writing, memory: Memory },
}

impl Chat {
    /// Loads the models.
    ///
    /// # Errors
    /// A model cannot be loaded or has no template; an option is out of range.
    pub fn begin(spec: ChatSpec, context: &Context<'_>) -> Result<Self, Error> {
        let voice = match &spec.who.members[..] {
            [model] => {
                let loaded = load(model, &spec.compute.within(context)?)?;
                let eos = &loaded.tokenizer()?.special().eos;
                let of = &spec.decoding;
                let end_tokens = if of.end_tokens == EndTokens::End { eos.clone() } else { Vec::new() };
                let decoding = Decoding {
                    sampling: of.sampling,
                    stops: Stops { end_tokens, ids: of.stop_ids.clone(), strings: of.stop.clone() },
                    min_tokens: of.min_tokens,
                    max_tokens: of.max_tokens,
                    alternatives: 0,
                    seed: of.seed,
                };
                decoding.check()?;
                let cache = PrefixCache::new(loaded.decoder.spec(), 1);
                Voice::One { loaded: Box::new(loaded), decoding, cache }
            }
            models => {
                let writing = Writing::of(&spec.decoding, 0)?;
                spec.who.check(&writing)?;
                let members = Members::load(models, spec.compute, context)?;
                Voice::Several { members, writing, memory: Memory::default() }
            }
        };
        // A template that refuses the system prompt says so before the first turn is typed.
        let messages = system(&spec);
        voice.prompts(&[&messages[..], &[Message::new("user", "?")]].concat())?;
        Ok(Self { spec, voice, messages, replies: 0 })
    }

    /// Answers; `show` gets the bytes of the reply as they come and may stop it. What was said so far then is the reply.
    ///
    /// # Errors
    /// The conversation does not fit a model's context, in which case it is as it was before; a model fails.
    pub fn say(
        &mut self,
        text: &str,
        context: &Context<'_>,
        show: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<&Message, Error> {
        let said = Message::new("user", text);
        let messages = [&self.messages[..], std::slice::from_ref(&said)].concat();
        let mut prompts = self.voice.prompts(&messages)?;
        let mut written = Vec::new();
        let mut hear = |bytes: &[u8]| {
            written.extend_from_slice(bytes);
            show(bytes)
        };
        match &mut self.voice {
            Voice::One { loaded, decoding, cache } => {
                let tokenizer = loaded.tokenizer()?;
                let bytes = |id: u32| tokenizer.token_bytes(id).as_slice().to_vec();
                let writer = Writer { decoder: &loaded.decoder, bytes: &bytes, batch: 1 };
                let request = Request { item: self.replies, prompt: prompts.remove(0) };
                reply(&writer, decoding, request, cache, &mut |event| match event {
                    Event::Step { text, .. } => hear(text),
                    Event::Finished(_) => ControlFlow::Continue(()),
                })?;
            }
            Voice::Several { members, writing, memory } => {
                let plan = self.spec.who.plan(writing);
                members.with_all(context, |ensemble| {
                    ensemble.write(&plan, self.replies, &prompts, memory, &mut |_, bytes| hear(bytes))
                })??;
            }
        }
        self.replies += 1;
        self.messages.push(said);
        self.messages.push(Message::new("assistant", String::from_utf8_lossy(&written).trim()));
        Ok(&self.messages[self.messages.len() - 1])
    }

    /// Forgets everything but the system prompt.
    pub fn reset(&mut self) {
        self.messages = system(&self.spec);
    }

    /// Writes the conversation as JSON lines of role and content, and returns their number.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, file: &Path) -> Result<usize, Error> {
        write_lines(file, &self.messages)?;
        Ok(self.messages.len())
    }
}

impl Voice {
    /// The conversation as the tokens of every model.
    fn prompts(&self, messages: &[Message]) -> Result<Vec<Vec<u32>>, Error> {
        let models = match self {
            Self::One { loaded, .. } => std::slice::from_ref(&**loaded),
            Self::Several { members, .. } => &members.loaded,
        };
        let prompt = |loaded: &Loaded| {
            let prompt = conversation(loaded, messages)?;
            let context = loaded.decoder.spec().context_length;
            if prompt.len() < context {
                return Ok(prompt);
            }
            Err(Error::Spec {
                field: "conversation",
                problem: format!("{} tokens do not fit the context of {}, {context}", prompt.len(), loaded.reference),
                hint: Some("/reset begins a new one".into()),
            })
        };
        models.iter().map(prompt).collect()
    }
}

fn system(spec: &ChatSpec) -> Vec<Message> {
    spec.system.iter().map(|system| Message::new("system", system)).collect()
}
