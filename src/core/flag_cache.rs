//! Dense list for rounds: for each child, the answer of its flag that needs no action.

use crate::{core::key::Key, id::ChildId};

/// What a round needs to know about each child, in one vector in list order: over thousands of
/// children, the time of a round is the time of its memory accesses.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct FlagCache {
    children: Vec<(Key, ChildId, Expectation)>,
    gone: usize,
}

/// What the next answer of a child's flag would mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expectation {
    /// The core has to decide about the child, whatever the answer.
    Unknown,
    /// There is nothing to do if the flag gives this answer, or none.
    NothingIf(bool),
    /// The flag is not asked: the child is being removed.
    Unasked,
    /// The child is forgotten, and its place is not reclaimed yet.
    Gone,
}

impl FlagCache {
    pub(crate) fn list(&mut self, key: Key, id: ChildId) {
        self.children.push((key, id, Expectation::Unknown));
    }

    pub(crate) fn set(&mut self, key: Key, expectation: Expectation) {
        if let Ok(place) = self.children.binary_search_by_key(&key, |(key, ..)| *key) {
            self.children[place].2 = expectation;
        }
    }

    /// All entries from this place on, including those whose flags are not asked.
    pub(crate) fn from(&self, place: usize) -> &[(Key, ChildId, Expectation)] {
        &self.children[place..]
    }

    /// Marks a child as gone. When these entries outnumber the others, they are removed, and
    /// `round`, the next place of a round under way, moves along with the entries before it.
    pub(crate) fn forget(&mut self, key: Key, round: Option<&mut usize>) {
        self.set(key, Expectation::Gone);
        self.gone += 1;
        if self.gone * 2 > self.children.len() {
            let stays = |(.., expectation): &&(Key, ChildId, Expectation)| {
                *expectation != Expectation::Gone
            };
            if let Some(place) = round {
                *place = self.children[..*place].iter().filter(stays).count();
            }
            self.children.retain(|child| stays(&child));
            self.gone = 0;
        }
    }

    #[cfg(test)]
    pub(crate) fn get(&self, key: Key) -> Option<Expectation> {
        self.children.iter().find(|(other, ..)| *other == key).map(|(.., expectation)| *expectation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_goes_on_where_it_was_when_the_gone_leave_their_places() {
        let mut asked = FlagCache::default();
        for number in 0..6 {
            asked.list(Key(number), ChildId::from("child"));
        }
        let mut place = 4;
        for number in [0, 2, 5] {
            asked.forget(Key(number), Some(&mut place));
        }
        assert_eq!(
            (place, asked.from(place)[0].0),
            (4, Key(4)),
            "half of them are gone: nobody moves"
        );
        asked.forget(Key(3), Some(&mut place));
        assert_eq!((place, asked.from(place)[0].0), (1, Key(4)));
        assert_eq!(asked.from(0).len(), 2);
        asked.set(Key(4), Expectation::NothingIf(true));
        assert_eq!(
            (asked.get(Key(1)), asked.get(Key(4))),
            (Some(Expectation::Unknown), Some(Expectation::NothingIf(true)))
        );
    }
}
