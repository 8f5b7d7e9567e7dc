use crate::tokenizer::{ControlTokens, LeadingSpace, Tokenizer};
use crate::vocabulary::TokenBytes;

/// Turns ids into text as they come. Bytes at the end that are the start of a character wait for the rest of it.
#[derive(Debug)]
pub struct StreamDecoder<'t> {
    tokenizer: &'t Tokenizer,
    control: ControlTokens,
    /// The start of a character, at most 3 bytes.
    pending: Vec<u8>,
    leading_space: LeadingSpace,
}

impl<'t> StreamDecoder<'t> {
    pub(crate) fn new(tokenizer: &'t Tokenizer, control: ControlTokens) -> Self {
        Self { tokenizer, control, pending: Vec::new(), leading_space: tokenizer.leading_space }
    }

    /// The text that `id` completes, often the whole token, sometimes nothing yet. Bytes that cannot become a character
    /// are replaced by U+FFFD.
    pub fn push(&mut self, id: u32) -> String {
        let token = self.tokenizer.token_bytes(id);
        if let TokenBytes::Control(name) = &token {
            if self.control == ControlTokens::Hide {
                return String::new();
            }
            let mut text = self.finish();
            text.push_str(name);
            return text;
        }
        let bytes = token.as_slice();
        if bytes.is_empty() {
            return String::new();
        }
        let dropped = match std::mem::replace(&mut self.leading_space, LeadingSpace::Keep) {
            LeadingSpace::Drop => bytes.strip_prefix(b" ").unwrap_or(bytes),
            LeadingSpace::Keep => bytes,
        };
        self.pending.extend_from_slice(dropped);
        let complete = complete_length(&self.pending);
        let rest = self.pending.split_off(complete);
        let text = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending = rest;
        text
    }

    /// The end: what still waits can no longer become a character, and is replaced by U+FFFD.
    pub fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        text
    }
}

/// Length of `bytes` without a character that has only begun.
fn complete_length(bytes: &[u8]) -> usize {
    match bytes.utf8_chunks().last() {
        // A sequence that is cut short may still be completed; one that is wrong may not.
        Some(chunk) if is_cut_short(chunk.invalid()) => bytes.len() - chunk.invalid().len(),
        _ => bytes.len(),
    }
}

fn is_cut_short(invalid: &[u8]) -> bool {
    std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none())
}
