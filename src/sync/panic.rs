//! A caught panic: its text and its location.

use std::{
    fmt,
    hash::{Hash, Hasher},
    ops::Deref,
    sync::Arc,
};

use crate::sync::one_line::OneLine;

/// What is known of a panic.
///
/// The message is the panic's text if its payload is a `&'static str` or a `String`, as `panic!`
/// makes them, and `unknown panic` for any other payload.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Panic {
    message: Text,
    location: Option<Arc<str>>,
}

impl Panic {
    pub(crate) fn new(message: Text, location: Option<Arc<str>>) -> Self {
        Self { message, location }
    }

    /// Returns the panic's text.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns where it happened, as `file:line:column`, if the program asked for that with
    /// [`capture_panic_locations`](crate::capture_panic_locations).
    pub fn location(&self) -> Option<&str> {
        self.location.as_deref()
    }
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        OneLine(&self.message).fmt(f)?;
        match &self.location {
            Some(location) => write!(f, " ({location})"),
            None => Ok(()),
        }
    }
}

/// The text of a panic. Most texts are literals, which need no copy.
#[derive(Clone)]
pub(crate) enum Text {
    Literal(&'static str),
    Shared(Arc<str>),
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Literal(text) => text,
            Self::Shared(text) => text,
        }
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Text {}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}
