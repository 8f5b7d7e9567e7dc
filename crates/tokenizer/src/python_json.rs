use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// JSON as Python's `json.dumps` writes it: a space after each comma and colon, text unescaped beyond ASCII. Templates
/// were written, and models trained, with this spacing.
pub(crate) fn dumps(value: &impl Serialize, layout: Layout) -> Result<String, serde_json::Error> {
    let mut bytes = Vec::new();
    match layout {
        Layout::OneLine => value.serialize(&mut Serializer::with_formatter(&mut bytes, Spaced))?,
        Layout::Compact => value.serialize(&mut Serializer::new(&mut bytes))?,
        Layout::Indented(spaces) => {
            let indent = vec![b' '; spaces];
            value.serialize(&mut Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(&indent)))?;
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// How the value is broken into lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    OneLine,
    /// On one line without spaces: `separators=(',', ':')`.
    Compact,
    /// By so many spaces per level.
    Indented(usize),
}

struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        separate(writer, first)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        separate(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

fn separate<W: ?Sized + Write>(writer: &mut W, first: bool) -> io::Result<()> {
    if first { Ok(()) } else { writer.write_all(b", ") }
}
