//! Where a string ends: end tokens, stop ids, stop strings.

use serde::{Deserialize, Serialize};

/// What ends a string besides its length.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stops {
    /// The model's own end tokens.
    pub end_tokens: Vec<u32>,
    /// Further ids.
    pub ids: Vec<u32>,
    /// Texts; what comes from the first of them on is not part of the string. They may begin and end inside tokens.
    pub strings: Vec<String>,
}

/// The bytes of a string as they come, kept back as long as they may belong to a stop string.
#[derive(Clone, Debug, Default)]
pub(crate) struct Text {
    bytes: Vec<u8>,
    /// How many of them were shown.
    shown: usize,
}

impl Text {
    /// Appends the bytes of a token. Returns the index of the stop string that they complete, the one that begins first;
    /// the text then ends before it.
    pub(crate) fn push(&mut self, bytes: &[u8], stops: &Stops) -> Option<usize> {
        let before = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        let found = stops.strings.iter().enumerate().filter_map(|(index, stop)| {
            let stop = stop.as_bytes();
            // One that ends before the new bytes would have been found with them.
            let from = before.saturating_sub(stop.len().saturating_sub(1));
            let at = self.bytes[from..].windows(stop.len().max(1)).position(|window| window == stop)?;
            Some((from + at, index))
        });
        let (at, index) = found.min()?;
        self.bytes.truncate(at);
        Some(index)
    }

    /// Bytes that have become certain since the last call.
    pub(crate) fn newly_certain(&mut self, stops: &Stops) -> &[u8] {
        let may_begin = |stop: &String| {
            let stop = stop.as_bytes();
            (1..stop.len()).rev().find(|len| self.bytes.ends_with(&stop[..*len])).unwrap_or(0)
        };
        let held = stops.strings.iter().map(may_begin).max().unwrap_or(0);
        self.show(self.bytes.len() - held)
    }

    /// The rest, at the end of the string.
    pub(crate) fn rest(&mut self) -> &[u8] {
        self.show(self.bytes.len())
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn show(&mut self, to: usize) -> &[u8] {
        let from = self.shown.min(to);
        self.shown = to;
        &self.bytes[from..to]
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use proptest::prelude::*;

    fn stops(strings: &[&str]) -> Stops {
        Stops { strings: strings.iter().map(|s| (*s).to_owned()).collect(), ..Stops::default() }
    }

    /// What is shown piece by piece, and what stopped it.
    fn run(pieces: &[&str], stops: &Stops) -> (Vec<String>, Option<usize>) {
        let mut text = Text::default();
        let mut shown = Vec::new();
        for piece in pieces {
            let stopped = text.push(piece.as_bytes(), stops);
            let bytes = if stopped.is_some() { text.rest() } else { text.newly_certain(stops) };
            shown.push(String::from_utf8(bytes.to_vec()).unwrap());
            if stopped.is_some() {
                return (shown, stopped);
            }
        }
        shown.push(String::from_utf8(text.rest().to_vec()).unwrap());
        (shown, None)
    }

    #[test]
    fn a_stop_string_may_lie_across_tokens() {
        let shown = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>();
        assert_eq!(run(&["one\n", "\ntwo"], &stops(&["\n\n"])), (shown(&["one", ""]), Some(0)));
        assert_eq!(run(&["one\n", "two"], &stops(&["\n\n"])), (shown(&["one", "\ntwo", ""]), None));
        assert_eq!(run(&["a", "bSTO", "Pc"], &stops(&["STOP", "P"])), (shown(&["a", "b", ""]), Some(0)));
        assert_eq!(run(&["ab"], &stops(&["b", "ab"])), (shown(&[""]), Some(1)));
        assert_eq!(run(&["held STO"], &stops(&["STOP"])), (shown(&["held ", "STO"]), None));
        assert_eq!(run(&["any", "thing"], &stops(&[])), (shown(&["any", "thing", ""]), None));
    }

    proptest! {
        #[test]
        fn the_first_occurrence_ends_it_however_it_is_cut(
            text in "[ab]{0,24}",
            stop in "[ab]{1,4}",
            cuts in proptest::collection::vec(1usize..4, 24),
        ) {
            let mut pieces = Vec::new();
            let mut at = 0;
            for cut in cuts {
                let to = text.len().min(at + cut);
                pieces.push(&text[at..to]);
                at = to;
            }
            let (shown, stopped) = run(&pieces, &stops(&[&stop]));
            // A stop is found in the piece that completes it; an occurrence that begins earlier is complete by then.
            let expected = text[..at].find(&stop);
            prop_assert_eq!(stopped.is_some(), expected.is_some());
            prop_assert_eq!(shown.concat(), &text[..expected.unwrap_or(at)]);
        }
    }
}
