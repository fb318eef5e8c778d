//! Display of any text as one line of bounded length.

use std::fmt::{self, Write as _};

/// Escapes control characters, and others that break or turn a line.
pub(crate) struct Escaped<'a>(pub(crate) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| write_escaped(f, c))
    }
}

fn write_escaped(f: &mut fmt::Formatter<'_>, c: char) -> fmt::Result {
    if is_plain(c) { f.write_char(c) } else { write!(f, "{}", c.escape_default()) }
}

/// Whether a character is part of a line of text: not a control character, a line or paragraph
/// separator, or one that changes the direction of what follows.
fn is_plain(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// As [`Escaped`], and cuts the text after [`LONGEST`](OneLine::LONGEST) characters.
pub(crate) struct OneLine<'a>(pub(crate) &'a str);

impl OneLine<'_> {
    const LONGEST: usize = 300;

    /// Whether a text is shown as it is.
    pub(crate) fn is(text: &str) -> bool {
        let mut characters = text.chars().enumerate();
        characters.all(|(position, c)| position < Self::LONGEST && is_plain(c))
    }
}

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, character) in self.0.chars().enumerate() {
            if position == Self::LONGEST {
                return f.write_char('…');
            }
            write_escaped(f, character)?;
        }
        Ok(())
    }
}
