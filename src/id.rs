//! Id of a child.

use std::{borrow::Borrow, fmt, ops::Deref, sync::Arc};

use crate::sync::one_line::{Escaped, OneLine};

/// Id of a child, unique within its supervisor: a cheap clone.
///
/// It compares with and dereferences to `str`. A supervisor accepts ids of any length and in any
/// script, if they are not empty and hold neither a NUL nor a `/`, which separates the ids of a
/// path into [nested](crate::nesting) supervisors. The id is also the name of the child's thread,
/// of which Linux shows the first 15 bytes. Its `Display` escapes control characters, so that an id
/// from outside cannot break a line.
///
/// ```
/// use circuit_breaker_supervisor::ChildId;
///
/// let id = ChildId::from("orders");
/// assert_eq!(id, "orders");
/// assert!(id.starts_with("ord"));
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChildId(Arc<str>);

impl ChildId {
    /// Returns the id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for ChildId {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ChildId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for ChildId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl From<&str> for ChildId {
    fn from(id: &str) -> Self {
        Self(id.into())
    }
}

impl From<String> for ChildId {
    fn from(id: String) -> Self {
        Self(id.into())
    }
}

impl PartialEq<str> for ChildId {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *other
    }
}

impl PartialEq<&str> for ChildId {
    fn eq(&self, other: &&str) -> bool {
        *self.0 == **other
    }
}

impl PartialEq<ChildId> for str {
    fn eq(&self, other: &ChildId) -> bool {
        *self == *other.0
    }
}

impl PartialEq<ChildId> for &str {
    fn eq(&self, other: &ChildId) -> bool {
        **self == *other.0
    }
}

impl fmt::Display for ChildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if OneLine::is(&self.0) { f.pad(&self.0) } else { f.pad(&Escaped(&self.0).to_string()) }
    }
}

impl fmt::Debug for ChildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}
