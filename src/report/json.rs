//! JSON that people can read, `diff` can compare, and a terminal can show.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

use super::Model;
use crate::table::is_harmless;

/// Writes a model, without a line break behind it.
///
/// # Errors
///
/// When `out` takes no more.
pub fn write_json(out: &mut dyn Write, model: &Model) -> io::Result<()> {
    write_json_of(out, model)
}

/// The same for anything else that is written as JSON.
///
/// # Errors
///
/// When `out` takes no more.
pub fn write_json_of(out: &mut dyn Write, model: &impl Serialize) -> io::Result<()> {
    let format = Escaping { pretty: PrettyFormatter::new() };
    model.serialize(&mut Serializer::with_formatter(out, format)).map_err(io::Error::from)
}

/// JSON demands that controls below 0x20 are escaped. A terminal obeys others, too, and names in a
/// dump may hold them; a reader of JSON gets the same text either way.
struct Escaping {
    pretty: PrettyFormatter<'static>,
}

impl Formatter for Escaping {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        text: &str,
    ) -> io::Result<()> {
        for piece in text.split_inclusive(|it| !is_harmless(it)) {
            let last = piece.chars().next_back().filter(|&it| !is_harmless(it));
            let Some(last) = last else {
                out.write_all(piece.as_bytes())?;
                continue;
            };
            let before = piece.strip_suffix(last).unwrap_or_default();
            out.write_all(before.as_bytes())?;
            for unit in last.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }

    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.pretty.begin_array(out)
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.pretty.end_array(out)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.pretty.begin_array_value(out, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.pretty.end_array_value(out)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.pretty.begin_object(out)
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.pretty.end_object(out)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.pretty.begin_object_key(out, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.pretty.begin_object_value(out)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.pretty.end_object_value(out)
    }
}
