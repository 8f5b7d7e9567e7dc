//! What the assistant says in a conversation that a template wrote: where it is in the text, and which tokens it is.
//!
//! A template is a program, so its output is compared with itself. First way: the conversation up to a turn, with the
//! beginning of the answer written, must begin the conversation up to and with that turn, and that one the whole; the
//! answer is what lies between. Templates that write a turn differently when others follow (thoughts that are left out
//! later) fail that. Second way: the turn's content is replaced by a word, and what surrounds the word in the result must
//! surround the answer in the whole. A template that allows neither is refused for that conversation.

use std::ops::Range;

use lathe_tokenizer::{BosEos, ChatTemplate, GenerationPrompt, Markup, Message, TemplateVariables, Token, Tokenizer};
use lathe_tune::Example;

use super::spec::LossOn;

/// What is needed to write conversations.
pub(super) struct ChatWriter<'a> {
    pub(super) template: &'a ChatTemplate,
    pub(super) tokenizer: &'a Tokenizer,
}

impl ChatWriter<'_> {
    /// A conversation as an example. Of turns from `first` on the assistant's are to be predicted, their end tokens
    /// included; what a template writes after an end token is not.
    pub(super) fn example(
        &self,
        messages: &[Message],
        first: usize,
        tools: Option<&serde_json::Value>,
        loss_on: LossOn,
    ) -> Result<Example, String> {
        let mut variables = TemplateVariables::of(self.tokenizer);
        if let Some(tools) = tools {
            variables.extra.insert("tools".into(), tools.clone());
        }
        let text = self.render(messages, GenerationPrompt::Omit, &variables)?;
        let tokens = self
            .tokenizer
            .encode_with_offsets(&text, BosEos::Omit, Markup::Parse)
            .map_err(|error| error.to_string())?;
        let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
        if loss_on == LossOn::All {
            return Ok(Example::whole(ids));
        }
        let mut labels = vec![None; ids.len()];
        for (turn, message) in messages.iter().enumerate().skip(first) {
            if message.role != "assistant" {
                continue;
            }
            let span = self.span(&text, messages, turn, &variables).ok_or_else(|| {
                format!(
                    "turn {}: the chat template writes the conversation in a way in which the assistant's part cannot be found",
                    turn + 1
                )
            })?;
            for index in self.within(&tokens, &span) {
                labels[index] = Some(ids[index]);
            }
        }
        Ok(Example { ids, labels })
    }

    fn render(
        &self,
        messages: &[Message],
        prompt: GenerationPrompt,
        variables: &TemplateVariables,
    ) -> Result<String, String> {
        self.template.render(messages, prompt, variables).map_err(|error| error.to_string())
    }

    /// Where the answer of a turn is in the whole text.
    fn span(
        &self,
        whole: &str,
        messages: &[Message],
        turn: usize,
        variables: &TemplateVariables,
    ) -> Option<Range<usize>> {
        self.by_prefixes(whole, messages, turn, variables).or_else(|| self.by_a_word(whole, messages, turn, variables))
    }

    fn by_prefixes(
        &self,
        whole: &str,
        messages: &[Message],
        turn: usize,
        variables: &TemplateVariables,
    ) -> Option<Range<usize>> {
        let before = self.render(&messages[..turn], GenerationPrompt::Add, variables).ok()?;
        let with = if turn + 1 == messages.len() {
            whole.to_owned()
        } else {
            self.render(&messages[..=turn], GenerationPrompt::Omit, variables).ok()?
        };
        let is_between = with.starts_with(&before) && whole.starts_with(&with) && before.len() < with.len();
        is_between.then_some(before.len()..with.len())
    }

    fn by_a_word(
        &self,
        whole: &str,
        messages: &[Message],
        turn: usize,
        variables: &TemplateVariables,
    ) -> Option<Range<usize>> {
        const WORD: &str = "zq7answer7qz";
        let mut changed = messages.to_vec();
        changed[turn].content = WORD.to_owned();
        let text = self.render(&changed, GenerationPrompt::Omit, variables).ok()?;
        let (before, after) = text.split_once(WORD)?;
        let fits = !whole.contains(WORD)
            && !after.contains(WORD)
            && whole.starts_with(before)
            && whole.ends_with(after)
            && before.len() + after.len() < whole.len();
        fits.then(|| before.len()..whole.len() - after.len())
    }

    /// Tokens of a part of the text, up to and with its last end token. An end token that follows at once belongs to it.
    fn within(&self, tokens: &[Token], span: &Range<usize>) -> Range<usize> {
        let is_end = |token: &Token| self.tokenizer.special().eos.contains(&token.id);
        let touches =
            |token: &Token| token.bytes.as_ref().is_some_and(|bytes| bytes.start < span.end && bytes.end > span.start);
        let Some(first) = tokens.iter().position(touches) else { return 0..0 };
        let mut last = tokens.iter().rposition(touches).unwrap_or(first) + 1;
        match tokens[first..last].iter().rposition(is_end) {
            Some(end) => last = first + end + 1,
            None => last += usize::from(tokens.get(last).is_some_and(is_end)),
        }
        first..last
    }
}
