// SPDX-License-Identifier: LGPL-2.1-or-later
//! The output of a command, coloured on a terminal.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use savevm_stream::inspect::is_layout;
use savevm_stream::replace::Access;

use crate::args::ColourChoice;
use crate::failure::Result;
use crate::replace::{NewFile, named};

/// Whether a path stands for standard output.
pub fn is_stdout(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Buffered output of a command. A file is replaced by `finish`.
pub struct Output {
    to: BufWriter<To>,
    coloured: bool,
}

enum To {
    Stdout(io::Stdout),
    File(PathBuf, NewFile),
}

impl Write for To {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(stdout) => stdout.write(bytes),
            Self::File(path, new) => new.file().and_then(|mut file| file.write(bytes)).map_err(|err| named(path, err)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(stdout) => stdout.flush(),
            Self::File(..) => Ok(()),
        }
    }
}

impl Output {
    /// Returns an output to standard output.
    pub fn stdout(colour: ColourChoice) -> Self {
        let stdout = io::stdout();
        let coloured = match colour {
            ColourChoice::Always => true,
            ColourChoice::Never => false,
            ColourChoice::Auto => {
                let off = |name, value: &str| std::env::var_os(name).is_some_and(|is| value.is_empty() || is == value);
                stdout.is_terminal() && !off("NO_COLOR", "") && !off("TERM", "dumb")
            }
        };
        Self { to: BufWriter::with_capacity(1 << 16, To::Stdout(stdout)), coloured }
    }

    /// Returns an output to a file, or to standard output if there is no path or the path is `-`.
    pub fn create(path: Option<&Path>, colour: ColourChoice) -> Result<Self> {
        match path.filter(|path| !is_stdout(path)) {
            Some(path) => {
                let new = NewFile::begin(path, Access::Mask).map_err(|error| named(path, error))?;
                Ok(Self { to: BufWriter::new(To::File(path.to_owned(), new)), coloured: false })
            }
            None => Ok(Self::stdout(colour)),
        }
    }

    /// Ends a complete output.
    pub fn finish(self) -> Result<()> {
        let to = self.to.into_inner().map_err(io::IntoInnerError::into_error)?;
        match to {
            To::Stdout(mut stdout) => stdout.flush()?,
            To::File(path, new) => new.commit().map_err(|error| named(&path, error))?,
        }
        Ok(())
    }

    /// Returns text in a style, if colours are on.
    pub fn paint<T: fmt::Display>(&self, style: Style, text: T) -> Painted<T> {
        Painted { style: if self.coloured { Some(style) } else { None }, text }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    /// Escapes characters that would control the terminal.
    fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> io::Result<()> {
        self.to.write_all(escape_controls(&text.to_string(), self.coloured).as_bytes())
    }
}

/// Escapes characters that change the layout, except line ends and, with `coloured`, colours. Names from a stream pass
/// `printable` first, which also escapes line ends.
pub fn escape_controls(text: &str, coloured: bool) -> Cow<'_, str> {
    let is_wild = |c: char| is_layout(c) && c != '\n';
    if !text.contains(is_wild) {
        return text.into();
    }
    let mut tame = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        if is_wild(c) && !(coloured && is_colour(&text[at..])) {
            tame.extend(c.escape_default());
        } else {
            tame.push(c);
        }
    }
    tame.into()
}

/// Returns whether text starts with a sequence that sets a colour.
fn is_colour(text: &str) -> bool {
    let numbers = text.strip_prefix("\x1b[").and_then(|rest| rest.split_once('m'));
    numbers.is_some_and(|(numbers, _)| numbers.len() < 8 && numbers.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A style of text on a terminal.
#[derive(Clone, Copy, Debug)]
pub enum Style {
    /// Headings.
    Heading,
    /// Names.
    Name,
    /// Less important text.
    Faint,
    /// Errors, and removed parts.
    Bad,
    /// Success, and added parts.
    Good,
    /// Text that needs attention.
    Notable,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Heading => "1",
            Self::Name => "36",
            Self::Faint => "2",
            Self::Bad => "31",
            Self::Good => "32",
            Self::Notable => "33",
        }
    }
}

/// Text with its style. Widths apply to the text alone.
pub struct Painted<T> {
    style: Option<Style>,
    text: T,
}

impl<T: fmt::Display> fmt::Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.style {
            Some(style) => {
                write!(f, "\x1b[{}m", style.code())?;
                self.text.fmt(f)?;
                f.write_str("\x1b[0m")
            }
            None => self.text.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_colour_sequences_are_not_escaped() {
        assert_eq!(escape_controls("plain\n", false), "plain\n");
        let wild = "\x1b[1mname\x1b[0m \x1b[2J\x1b]0;t\x07\u{9b}\r";
        assert_eq!(escape_controls(wild, true), "\x1b[1mname\x1b[0m \\u{1b}[2J\\u{1b}]0;t\\u{7}\\u{9b}\\r");
        assert!(!escape_controls(wild, false).contains(char::is_control));
    }
}
