//! `lathe chat`: a conversation with a model, in its template.

use std::ops::ControlFlow;
use std::path::Path;

use lathe_decode::{Decoding, Event, Request, Stops, Writer, reply};
use lathe_model::PrefixCache;
use lathe_model::reference::ModelReference;
use lathe_tokenizer::Message;
use serde::{Deserialize, Serialize};

use crate::generate::{DecodingSpec, EndTokens, conversation};
use crate::store::write_lines;
use crate::{Compute, Context, Error, Loaded, load};

/// Whom to talk to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatSpec {
    /// The model; it has to have a chat template.
    pub model: ModelReference,
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
    loaded: Loaded,
    decoding: Decoding,
    cache: PrefixCache,
    messages: Vec<Message>,
    /// Replies so far, which are the items that draws come from.
    replies: u64,
}

impl Chat {
    /// Loads the model.
    ///
    /// # Errors
    /// The model cannot be loaded or has no template; an option is out of range.
    pub fn begin(spec: ChatSpec, context: &Context<'_>) -> Result<Self, Error> {
        let loaded = load(&spec.model, &spec.compute.within(context)?)?;
        let tokenizer = loaded.tokenizer()?;
        let of = &spec.decoding;
        let end_tokens = if of.end_tokens == EndTokens::End { tokenizer.special().eos.clone() } else { Vec::new() };
        let decoding = Decoding {
            sampling: of.sampling,
            stops: Stops { end_tokens, ids: of.stop_ids.clone(), strings: of.stop.clone() },
            min_tokens: of.min_tokens,
            max_tokens: of.max_tokens,
            alternatives: 0,
            seed: of.seed,
        };
        decoding.check()?;
        // A template that refuses the system prompt says so before the first turn is typed.
        let messages = system(&spec);
        conversation(&loaded, &[&messages[..], &[Message::new("user", "?")]].concat())?;
        let cache = PrefixCache::new(loaded.decoder.spec(), 1);
        Ok(Self { spec, loaded, decoding, cache, messages, replies: 0 })
    }

    /// Answers; `show` gets the bytes of the reply as they come and may stop it. What was said so far then is the reply.
    ///
    /// # Errors
    /// The conversation does not fit the model's context, in which case it is as it was before; the model fails.
    pub fn say(&mut self, text: &str, show: &mut dyn FnMut(&[u8]) -> ControlFlow<()>) -> Result<&Message, Error> {
        let said = Message::new("user", text);
        let messages = [&self.messages[..], std::slice::from_ref(&said)].concat();
        let prompt = conversation(&self.loaded, &messages)?;
        let context = self.loaded.decoder.spec().context_length;
        if prompt.len() >= context {
            return Err(Error::Spec {
                field: "conversation",
                problem: format!("{} tokens do not fit the model's context of {context}", prompt.len()),
                hint: Some("/reset begins a new one".into()),
            });
        }
        let tokenizer = self.loaded.tokenizer()?;
        let bytes = |id: u32| tokenizer.token_bytes(id).as_slice().to_vec();
        let writer = Writer { decoder: &self.loaded.decoder, bytes: &bytes, batch: 1 };
        let mut written = Vec::new();
        let request = Request { item: self.replies, prompt };
        reply(&writer, &self.decoding, request, &mut self.cache, &mut |event| match event {
            Event::Step { text, .. } => {
                written.extend_from_slice(text);
                show(text)
            }
            Event::Finished(_) => ControlFlow::Continue(()),
        })?;
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

fn system(spec: &ChatSpec) -> Vec<Message> {
    spec.system.iter().map(|system| Message::new("system", system)).collect()
}
