//! Many strings at once through one cache.
//!
//! A string that ends leaves its slot to the next one that waits; a step of those that are being written and the prompt of
//! one that begins run in the same packed batch. The model's results don't depend on what else is in a batch and every
//! draw comes from (seed, item, step), so the strings are the same for every batch size.

use std::ops::ControlFlow;

use lathe_model::{Batch, Decoder, KvCache, NoTap, PrefixCache};
use serde::{Deserialize, Serialize};

use crate::choices::depends_on_length;
use crate::sampling::NoToken;
use crate::stop::Text;
use crate::{DecodeError, History, Sampling, Step, Stops, uniform};

/// What writes.
#[derive(Clone, Copy)]
pub struct Writer<'a> {
    /// The model.
    pub decoder: &'a Decoder,
    /// The bytes that a token adds to a text; none for control tokens.
    pub bytes: &'a (dyn Fn(u32) -> Vec<u8> + Sync),
    /// Strings at once, at least 1. No string depends on it.
    pub batch: usize,
}

/// How strings are written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decoding {
    /// How a token is drawn.
    pub sampling: Sampling,
    /// What ends a string.
    pub stops: Stops,
    /// Tokens before which no string ends: end tokens and stop ids are impossible there, in p, q and S alike, and stop
    /// strings are passed over.
    pub min_tokens: usize,
    /// Tokens after which every string ends.
    pub max_tokens: usize,
    /// How many of the most probable tokens to record for each step.
    pub alternatives: usize,
    /// Seed of the draws.
    pub seed: u64,
}

/// A string to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which one it is: its draws come from this number.
    pub item: u64,
    /// Tokens to go on from, at least one.
    pub prompt: Vec<u32>,
}

/// A string with its record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Generation {
    /// Which one it is.
    pub item: u64,
    /// Tokens that it went on from.
    pub prompt_tokens: usize,
    /// Its bytes, without the stop string.
    pub text: Vec<u8>,
    /// Every token that was drawn, the end token included.
    pub steps: Vec<Step>,
    /// Why it ended.
    pub ended: Ended,
}

/// Why a string ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Ended {
    /// An end token of the model.
    EndToken {
        /// Its id.
        id: u32,
    },
    /// A stop id of the caller.
    StopId {
        /// The id.
        id: u32,
    },
    /// A stop string.
    StopString {
        /// The string.
        string: String,
    },
    /// It has as many tokens as it may have, or as the model's context holds: it is censored.
    Length,
}

/// What happens while strings are written.
#[derive(Debug)]
pub enum Event<'a> {
    /// A token was drawn.
    Step {
        /// For which string.
        item: u64,
        /// The token.
        step: &'a Step,
        /// Bytes of the text that have become certain; what may be the start of a stop string waits.
        text: &'a [u8],
    },
    /// A string is complete.
    Finished(Generation),
}

impl Generation {
    /// Σ log p, nats.
    #[must_use]
    pub fn log_p(&self) -> f64 {
        self.steps.iter().map(|step| step.log_p).sum()
    }

    /// Σ log q, nats.
    #[must_use]
    pub fn log_q(&self) -> f64 {
        self.steps.iter().map(|step| step.log_q).sum()
    }

    /// log w = Σ log m, nats: what the string's probability under local decoding falls short of.
    #[must_use]
    pub fn log_weight(&self) -> f64 {
        self.steps.iter().map(|step| step.log_mass).sum()
    }

    /// Whether it was cut by its length.
    #[must_use]
    pub fn is_censored(&self) -> bool {
        self.ended == Ended::Length
    }
}

impl Decoding {
    /// Checks the options.
    ///
    /// # Errors
    /// One is out of its range.
    pub fn check(&self) -> Result<(), DecodeError> {
        self.sampling.check()?;
        let bad = |field, problem: String, hint| Err(DecodeError::Option { field, problem, hint });
        if self.max_tokens == 0 {
            return bad("--max-tokens", "0 tokens are no text".into(), Some("at least 1"));
        }
        if self.min_tokens > self.max_tokens {
            let problem = format!("{} is more than the {} of --max-tokens", self.min_tokens, self.max_tokens);
            return bad("--min-tokens", problem, None);
        }
        if self.stops.strings.iter().any(String::is_empty) {
            return bad("--stop", "an empty string ends every text".into(), None);
        }
        Ok(())
    }
}

/// Writes a string for each request, in the order of requests as slots become free, and tells `on` what happens. Where
/// `on` breaks, nothing more is written.
///
/// # Errors
/// An option or a prompt cannot be used; the model fails.
pub fn generate(
    writer: &Writer<'_>,
    decoding: &Decoding,
    requests: impl IntoIterator<Item = Request>,
    on: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> Result<(), DecodeError> {
    decoding.check()?;
    let slots = writer.batch.max(1);
    // One more for what several prompts begin with.
    let mut cache = KvCache::new(writer.decoder.spec(), slots + 1);
    let mut engine = Engine::new(writer, decoding, &mut cache);
    let unending = engine.unending();
    let mut free: Vec<usize> = (0..slots).rev().collect();
    let mut live: Vec<Live> = Vec::new();
    let mut requests = requests.into_iter().peekable();
    loop {
        let mut prompts = 0;
        while prompts < PROMPT_TOKENS
            && let Some(slot) = free.pop()
        {
            let Some(request) = requests.next() else {
                free.push(slot);
                break;
            };
            let known = engine.begin(&request, slot, requests.peek().map(|next| next.prompt.as_slice()))?;
            prompts += request.prompt.len() - known;
            live.push(Live::new(request, slot, known, decoding, engine.context()));
        }
        if live.is_empty() {
            return Ok(());
        }
        let turns: Vec<Turn<'_>> = live.iter().map(|one| one.turn(&unending)).collect();
        let steps = engine.next(&turns)?;
        let mut going = Vec::with_capacity(live.len());
        for (mut one, step) in live.into_iter().zip(steps) {
            let (ended, flow) = one.take(step, decoding, on);
            if flow.is_break() {
                return Ok(());
            }
            match ended {
                None => going.push(one),
                Some(ended) => {
                    free.push(one.slot);
                    engine.cache.clear(one.slot);
                    if on(Event::Finished(one.finish(ended))).is_break() {
                        return Ok(());
                    }
                }
            }
        }
        live = going;
    }
}

/// Writes one string and keeps its cache: a conversation whose next prompt begins like the last one reads only what is
/// new. Where `on` breaks, the string ends there, and is none.
///
/// # Errors
/// As [`generate`].
pub fn reply(
    writer: &Writer<'_>,
    decoding: &Decoding,
    request: Request,
    prefixes: &mut PrefixCache,
    on: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> Result<Option<Generation>, DecodeError> {
    decoding.check()?;
    let spec = writer.decoder.spec();
    check_prompt(request.item, &request.prompt, spec.context_length)?;
    let begun = prefixes.begin(&request.prompt, spec);
    let mut engine = Engine::new(writer, decoding, prefixes.cache());
    let unending = engine.unending();
    let mut one = Live::new(request, begun.slot, begun.reused, decoding, spec.context_length);
    loop {
        let step = engine.next(&[one.turn(&unending)])?.remove(0);
        match one.take(step, decoding, on) {
            (_, ControlFlow::Break(())) => return Ok(None),
            (Some(ended), _) => return Ok(Some(one.finish(ended))),
            (None, _) => {}
        }
    }
}

/// Tokens of prompts that enter a batch together; one prompt may have more.
const PROMPT_TOKENS: usize = 1024;

/// Tokens that several prompts must have in common, or more than before, to be run by themselves.
const SHARED_TOKENS: usize = 16;

/// A string that is being written.
struct Live {
    request: Request,
    slot: usize,
    /// Tokens that the cache has.
    known: usize,
    /// Prompt and drawn tokens.
    ids: Vec<u32>,
    steps: Vec<Step>,
    text: Text,
    max_tokens: usize,
}

impl Live {
    fn new(request: Request, slot: usize, known: usize, decoding: &Decoding, context: usize) -> Self {
        let max_tokens = decoding.max_tokens.min(context - request.prompt.len());
        let ids = request.prompt.clone();
        Self { request, slot, known, ids, steps: Vec::new(), text: Text::default(), max_tokens }
    }

    fn turn<'a>(&'a self, unending: &'a [u32]) -> Turn<'a> {
        let (prompt, drawn) = self.ids.split_at(self.request.prompt.len());
        Turn {
            item: self.request.item,
            slot: self.slot,
            position: self.known,
            ids: &self.ids[self.known..],
            history: History { prompt, drawn, forbidden: unending },
        }
    }

    /// Takes the next token and shows it; whether it ends the string, and what the listener says.
    fn take(
        &mut self,
        step: Step,
        decoding: &Decoding,
        on: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> (Option<Ended>, ControlFlow<()>) {
        self.known = self.ids.len();
        self.ids.push(step.id);
        let drawn = self.steps.len() + 1;
        let ended = ended(&mut self.text, step.id, &step.bytes, drawn, self.max_tokens, decoding);
        let text = if ended.is_some() { self.text.rest() } else { self.text.newly_certain(&decoding.stops) };
        let flow = on(Event::Step { item: self.request.item, step: &step, text });
        self.steps.push(step);
        (ended, flow)
    }

    fn finish(self, ended: Ended) -> Generation {
        Generation {
            item: self.request.item,
            prompt_tokens: self.request.prompt.len(),
            text: self.text.into_bytes(),
            steps: self.steps,
            ended,
        }
    }
}

/// Adds a drawn token, the `drawn`-th, to a text; whether and why the string ends with it.
pub(crate) fn ended(
    text: &mut Text,
    id: u32,
    bytes: &[u8],
    drawn: usize,
    max_tokens: usize,
    decoding: &Decoding,
) -> Option<Ended> {
    let stops = &decoding.stops;
    if stops.end_tokens.contains(&id) {
        return Some(Ended::EndToken { id });
    }
    if stops.ids.contains(&id) {
        return Some(Ended::StopId { id });
    }
    let none = Stops::default();
    let found = text.push(bytes, if drawn < decoding.min_tokens { &none } else { stops });
    match found {
        Some(index) => Some(Ended::StopString { string: stops.strings[index].clone() }),
        None => (drawn >= max_tokens).then_some(Ended::Length),
    }
}

/// The model, its cache, and what one step of several strings needs.
pub(crate) struct Engine<'a> {
    writer: Writer<'a>,
    decoding: &'a Decoding,
    pub(crate) cache: &'a mut KvCache,
    /// The last slot: what several prompts begin with.
    shared: usize,
    shared_ids: Vec<u32>,
    /// Tokens that cannot come before the least length.
    unending: Vec<u32>,
}

/// How many tokens two texts begin with alike.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Whether a prompt of an item leaves room for a token.
pub(crate) fn check_prompt(item: u64, prompt: &[u32], context: usize) -> Result<(), DecodeError> {
    let tokens = prompt.len();
    match tokens {
        0 => Err(DecodeError::EmptyPrompt { item }),
        _ if tokens >= context => Err(DecodeError::PromptFillsContext { item, tokens, context }),
        _ => Ok(()),
    }
}

/// One string's part of a step.
pub(crate) struct Turn<'a> {
    pub(crate) item: u64,
    pub(crate) slot: usize,
    /// Tokens that the cache has.
    pub(crate) position: usize,
    /// Tokens that it lacks, at least one.
    pub(crate) ids: &'a [u32],
    pub(crate) history: History<'a>,
}

impl<'a> Engine<'a> {
    pub(crate) fn new(writer: &Writer<'a>, decoding: &'a Decoding, cache: &'a mut KvCache) -> Self {
        let slots = cache.slots();
        Self {
            writer: *writer,
            decoding,
            cache,
            shared: slots - 1,
            shared_ids: Vec::new(),
            unending: [&decoding.stops.end_tokens[..], &decoding.stops.ids].concat(),
        }
    }

    fn context(&self) -> usize {
        self.writer.decoder.spec().context_length
    }

    pub(crate) fn unending(&self) -> Vec<u32> {
        self.unending.clone()
    }

    /// Prepares a slot for a string, and says how many tokens of its prompt are in the cache already. What its prompt and
    /// the `next` one begin with is run once, for all strings that begin with it.
    pub(crate) fn begin(&mut self, request: &Request, slot: usize, next: Option<&[u32]>) -> Result<usize, DecodeError> {
        check_prompt(request.item, &request.prompt, self.context())?;
        // The last token is always run: its hidden state is wanted.
        let before = &request.prompt[..request.prompt.len() - 1];
        let decoder = self.writer.decoder;
        let whole_only = depends_on_length(decoder.spec());
        let wanted = next.map_or(0, |next| match common(before, next) {
            _ if next == request.prompt => before.len(),
            tokens if tokens >= SHARED_TOKENS && !whole_only => tokens,
            _ => 0,
        });
        let mut held = common(before, &self.shared_ids);
        if held < self.shared_ids.len() || whole_only && held < before.len() {
            // A window may have dropped what the shorter beginning sees.
            let is_kept = held >= SHARED_TOKENS && !whole_only && self.rolled_back(held);
            held = if is_kept { held } else { 0 };
        }
        if wanted > 0 && (held == 0 || wanted >= held + SHARED_TOKENS) {
            if held == 0 {
                self.cache.clear(self.shared);
            }
            // Not known any more should the model fail.
            self.shared_ids.clear();
            let mut batch = Batch::default();
            batch.push(&before[held..wanted], self.shared, held);
            decoder.forward(&batch, Some(self.cache), &mut NoTap)?;
            self.shared_ids = before[..wanted].to_vec();
            held = wanted;
        }
        if held > 0 {
            self.cache.copy(self.shared, slot);
        }
        Ok(held)
    }

    /// Shortens what is shared to so many tokens, if that can be.
    fn rolled_back(&mut self, tokens: usize) -> bool {
        let is_done = self.cache.rollback(self.shared, tokens, self.writer.decoder.spec()).is_ok();
        if is_done {
            self.shared_ids.truncate(tokens);
        }
        is_done
    }

    /// Runs the tokens that the cache lacks and draws the next one of every string.
    pub(crate) fn next(&mut self, turns: &[Turn<'_>]) -> Result<Vec<Step>, DecodeError> {
        let mut batch = Batch::default();
        let mut last = Vec::with_capacity(turns.len());
        for turn in turns {
            batch.push(turn.ids, turn.slot, turn.position);
            #[expect(clippy::cast_possible_truncation, reason = "rows of a batch")]
            last.push(batch.ids().len() as u32 - 1);
        }
        let decoder = self.writer.decoder;
        let mut hidden = decoder.forward(&batch, Some(self.cache), &mut NoTap)?;
        if batch.ids().len() > turns.len() {
            let rows = candle_core::Tensor::new(&last[..], hidden.device()).map_err(lathe_model::Error::from)?;
            hidden = hidden.index_select(&rows, 0).map_err(lathe_model::Error::from)?;
        }
        let mut drawn = Vec::with_capacity(turns.len());
        let draw = |row: usize, logits: &mut [f32]| self.draw(&turns[row], logits);
        decoder.for_logits(&hidden, draw, &mut drawn)?;
        drawn.into_iter().collect()
    }

    fn draw(&self, turn: &Turn<'_>, logits: &mut [f32]) -> Result<Step, DecodeError> {
        let (item, step) = (turn.item, turn.history.drawn.len());
        let forbidden = if step < self.decoding.min_tokens { turn.history.forbidden } else { &[] };
        let history = History { forbidden, ..turn.history };
        let at = uniform(self.decoding.seed, item, step as u64);
        let drawn = self.decoding.sampling.draw(logits, &history, at, self.decoding.alternatives);
        let mut drawn = drawn.map_err(|why| match why {
            NoToken::NotFinite => DecodeError::NotFinite { item, step },
            NoToken::NothingPossible => DecodeError::NothingPossible { item, step },
        })?;
        drawn.bytes = (self.writer.bytes)(drawn.id);
        for alternative in &mut drawn.alternatives {
            alternative.bytes = (self.writer.bytes)(alternative.id);
        }
        Ok(drawn)
    }
}
