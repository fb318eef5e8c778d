//! Display of any text as one line of bounded length.

use std::fmt::{self, Write as _};

/// Escapes control characters, and cuts the text after [`LONGEST`](OneLine::LONGEST) characters.
pub(crate) struct OneLine<'a>(pub(crate) &'a str);

impl OneLine<'_> {
    const LONGEST: usize = 300;

    /// Whether a text is shown as it is.
    pub(crate) fn is(text: &str) -> bool {
        let mut characters = text.chars().enumerate();
        characters.all(|(position, c)| position < Self::LONGEST && !c.is_control())
    }
}

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, character) in self.0.chars().enumerate() {
            if position == Self::LONGEST {
                return f.write_char('…');
            }
            if character.is_control() {
                write!(f, "{}", character.escape_default())?;
            } else {
                f.write_char(character)?;
            }
        }
        Ok(())
    }
}
