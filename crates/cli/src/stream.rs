//! Text that a model writes, on its way to a terminal or a pipe.

use std::io::{self, IsTerminal, Write};

/// Writes bytes as they come. A character that has only begun waits for the rest of it, and bytes that can't become one
/// are replaced. A terminal would obey control characters, so it gets them as escapes; a pipe gets them as they are.
#[derive(Debug)]
pub(crate) struct TextStream<W> {
    out: W,
    control: Control,
    pending: Vec<u8>,
}

/// What happens to control characters other than line breaks and tabs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Control {
    Escaped,
    Kept,
}

impl<W: Write + IsTerminal> TextStream<W> {
    pub(crate) fn new(out: W) -> Self {
        let control = if out.is_terminal() { Control::Escaped } else { Control::Kept };
        Self { out, control, pending: Vec::new() }
    }
}

impl<W: Write> TextStream<W> {
    /// Writes what is complete and flushes it.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.pending.extend_from_slice(bytes);
        let cut_short = self.pending.utf8_chunks().last().map_or(0, |chunk| {
            let rest = chunk.invalid();
            let may_go_on = std::str::from_utf8(rest).is_err_and(|error| error.error_len().is_none());
            if may_go_on { rest.len() } else { 0 }
        });
        let rest = self.pending.split_off(self.pending.len() - cut_short);
        self.flush_pending()?;
        self.pending = rest;
        Ok(())
    }

    /// Writes what still waits.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.flush_pending()
    }

    fn flush_pending(&mut self) -> io::Result<()> {
        let text = String::from_utf8_lossy(&self.pending);
        match self.control {
            Control::Kept => self.out.write_all(text.as_bytes())?,
            Control::Escaped => {
                for c in text.chars() {
                    match c {
                        c if c.is_control() && c != '\n' && c != '\t' => write!(self.out, "{}", c.escape_default())?,
                        c => write!(self.out, "{c}")?,
                    }
                }
            }
        }
        self.out.flush()?;
        self.pending.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn written(control: Control, pieces: &[&[u8]]) -> Vec<String> {
        let mut stream = TextStream { out: Vec::new(), control, pending: Vec::new() };
        let mut shown = Vec::new();
        for piece in pieces {
            stream.write(piece).unwrap();
            shown.push(String::from_utf8(std::mem::take(&mut stream.out)).unwrap());
        }
        stream.finish().unwrap();
        shown.push(String::from_utf8(stream.out).unwrap());
        shown
    }

    #[test]
    fn characters_are_written_whole() {
        assert_eq!(written(Control::Kept, &[b"a\xe6\x97", b"\xa5b"]), ["a", "日b", ""]);
        assert_eq!(written(Control::Kept, &[b"\xff\xe6"]), ["\u{fffd}", "\u{fffd}"]);
    }

    #[test]
    fn a_terminal_is_not_told_what_to_do() {
        assert_eq!(written(Control::Escaped, &[b"a\x1b[2J\n\tb\r"]), ["a\\u{1b}[2J\n\tb\\r", ""]);
        assert_eq!(written(Control::Kept, &[b"\x1b"]), ["\u{1b}", ""]);
    }
}
