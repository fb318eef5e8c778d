//! Whom a round over the flags asks, and what the answers would mean.

use crate::{core::key::Key, id::ChildId};

/// What a round needs to know of each child, side by side in list order: over thousands of
/// children, a round is as slow as the memory that it touches.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct FlagCache {
    children: Vec<(Key, ChildId, Answers)>,
    gone: usize,
}

/// What the answer of a child's flag would mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    /// It has to be looked at more closely.
    Unknown,
    /// Nothing, if it is this one or none.
    NothingIf(bool),
    /// It is not asked: the child is going, or gone.
    Unasked,
    Gone,
}

impl FlagCache {
    pub(crate) fn list(&mut self, key: Key, id: ChildId) {
        self.children.push((key, id, Answers::Unknown));
    }

    pub(crate) fn set(&mut self, key: Key, answers: Answers) {
        if let Ok(place) = self.children.binary_search_by_key(&key, |(key, ..)| *key) {
            self.children[place].2 = answers;
        }
    }

    /// All from this place on: those that are to be asked, and others.
    pub(crate) fn from(&self, place: usize) -> &[(Key, ChildId, Answers)] {
        &self.children[place..]
    }

    /// Takes out a child. Those that are gone leave their places when they are more than the
    /// others; then the place at which a round is moves with what it has passed.
    pub(crate) fn forget(&mut self, key: Key, round: Option<&mut usize>) {
        self.set(key, Answers::Gone);
        self.gone += 1;
        if self.gone * 2 > self.children.len() {
            let stays = |(.., answers): &&(Key, ChildId, Answers)| *answers != Answers::Gone;
            if let Some(place) = round {
                *place = self.children[..*place].iter().filter(stays).count();
            }
            self.children.retain(|child| stays(&child));
            self.gone = 0;
        }
    }

    #[cfg(test)]
    pub(crate) fn get(&self, key: Key) -> Option<Answers> {
        self.children.iter().find(|(other, ..)| *other == key).map(|(.., answers)| *answers)
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
        asked.set(Key(4), Answers::NothingIf(true));
        assert_eq!(
            (asked.get(Key(1)), asked.get(Key(4))),
            (Some(Answers::Unknown), Some(Answers::NothingIf(true)))
        );
    }
}
