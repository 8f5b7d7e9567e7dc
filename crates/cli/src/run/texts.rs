//! What standard output gets while texts are written, whoever writes them.

use std::io::{self, Stdout, Write};
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::Result;
use lathe_lab::ensemble::EnsembleString;
use lathe_lab::generate::{GeneratedString, Heard};
use serde::Serialize;

use super::print;
use crate::stream::TextStream;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Output {
    /// The one text, piece by piece.
    Stream,
    /// Every text when it is complete.
    Texts,
    /// Every record as a line.
    Lines,
    /// Nothing: the file gets them.
    Nothing,
}

/// Writes what it hears.
pub(super) struct Listener {
    output: Output,
    stream: TextStream<Stdout>,
    failed: Option<io::Error>,
}

/// A record of a text.
pub(super) trait Text: Serialize {
    /// Its prompt, which text of the prompt it is, and its text.
    fn parts(&self) -> (usize, usize, &str);
}

impl Text for GeneratedString {
    fn parts(&self) -> (usize, usize, &str) {
        (self.prompt, self.sample, &self.text)
    }
}

impl Text for EnsembleString {
    fn parts(&self) -> (usize, usize, &str) {
        (self.prompt, self.sample, &self.text)
    }
}

impl Listener {
    /// `out` gets the texts if there is one; `one` says that there is a single text, which can be shown as it comes.
    pub(super) fn new(out: Option<&Path>, json: bool, one: bool) -> Self {
        let output = match (out, json, one) {
            (Some(_), ..) => Output::Nothing,
            (None, true, _) => Output::Lines,
            (None, false, true) => Output::Stream,
            (None, false, false) => Output::Texts,
        };
        Self { output, stream: TextStream::new(io::stdout()), failed: None }
    }

    pub(super) fn hear<T: Text>(&mut self, heard: Heard<'_, T>) -> ControlFlow<()> {
        let written = match (self.output, heard) {
            (Output::Stream, Heard::Text { bytes, .. }) => self.stream.write(bytes),
            (Output::Texts, Heard::String(string)) => {
                let (prompt, sample, text) = string.parts();
                self.stream.write(format!("--- prompt {prompt}, text {sample}\n{text}\n").as_bytes())
            }
            (Output::Lines, Heard::String(string)) => {
                serde_json::to_string(string).map_err(io::Error::from).and_then(|line| writeln!(io::stdout(), "{line}"))
            }
            _ => Ok(()),
        };
        match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.failed = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    /// The task's result, unless the output could not be written.
    pub(super) fn finish<R>(mut self, result: Result<R, lathe_lab::Error>) -> Result<R> {
        if let Some(error) = self.failed {
            return Err(error.into());
        }
        let result = result?;
        if self.output == Output::Stream {
            self.stream.finish()?;
            print("\n")?;
        }
        Ok(result)
    }
}
