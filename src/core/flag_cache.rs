//! Dense list for rounds: for each child, the answer of its flag that needs no action.

use crate::core::key::Key;

/// What a round needs to know about each child, one after the other in list order: over thousands
/// of children, the time of a round is the time of its memory accesses.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct FlagCache {
    children: Vec<Cached>,
    /// The ids of all of them, without a gap.
    ids: String,
    gone: usize,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Cached {
    key: Key,
    /// Where its id ends in `ids`. It begins where the one before ends.
    id_end: usize,
    expectation: Expectation,
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
    pub(crate) fn list(&mut self, key: Key, id: &str) {
        self.push(key, id, Expectation::Unknown);
    }

    fn push(&mut self, key: Key, id: &str, expectation: Expectation) {
        self.ids.push_str(id);
        self.children.push(Cached { key, id_end: self.ids.len(), expectation });
    }

    pub(crate) fn set(&mut self, key: Key, expectation: Expectation) {
        if let Ok(place) = self.children.binary_search_by_key(&key, |child| child.key) {
            self.children[place].expectation = expectation;
        }
    }

    /// All entries from this place on, including those whose flags are not asked.
    pub(crate) fn from(&self, place: usize) -> impl Iterator<Item = (Key, &str, Expectation)> {
        let mut at = place.checked_sub(1).map_or(0, |before| self.children[before].id_end);
        let mut ids = &self.ids[at..];
        self.children[place..].iter().map(move |child| {
            let (id, rest) = ids.split_at(child.id_end - at);
            (ids, at) = (rest, child.id_end);
            (child.key, id, child.expectation)
        })
    }

    /// Marks a child as gone. When these entries outnumber the others, they are removed, and
    /// `round`, the next place of a round under way, moves along with the entries before it.
    pub(crate) fn forget(&mut self, key: Key, round: Option<&mut usize>) {
        self.set(key, Expectation::Gone);
        self.gone += 1;
        if self.gone * 2 > self.children.len() {
            let stays = |child: &(Key, &str, Expectation)| child.2 != Expectation::Gone;
            if let Some(place) = round {
                *place = self.from(0).take(*place).filter(stays).count();
            }
            let mut left = Self::default();
            for (key, id, expectation) in self.from(0).filter(stays) {
                left.push(key, id, expectation);
            }
            *self = left;
        }
    }

    #[cfg(test)]
    pub(crate) fn get(&self, key: Key) -> Option<Expectation> {
        self.from(0).find(|(other, ..)| *other == key).map(|(.., expectation)| expectation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_goes_on_where_it_was_when_the_gone_leave_their_places() {
        let mut asked = FlagCache::default();
        for (number, id) in ["", "a", "bb", "ccc", "dddd", "eeeee"].into_iter().enumerate() {
            asked.list(Key(number as u64), id);
        }
        fn first(asked: &FlagCache, place: usize) -> Option<(u64, &str)> {
            asked.from(place).next().map(|(key, id, _)| (key.0, id))
        }
        let mut place = 4;
        for number in [0, 2, 5] {
            asked.forget(Key(number), Some(&mut place));
        }
        assert_eq!(
            (place, first(&asked, place)),
            (4, Some((4, "dddd"))),
            "half of them are gone: nobody moves"
        );
        asked.forget(Key(3), Some(&mut place));
        assert_eq!((place, first(&asked, place)), (1, Some((4, "dddd"))));
        assert_eq!((first(&asked, 0), first(&asked, 2)), (Some((1, "a")), None));
        asked.list(Key(6), "");
        asked.set(Key(4), Expectation::NothingIf(true));
        assert_eq!(
            asked.from(0).collect::<Vec<_>>(),
            [
                (Key(1), "a", Expectation::Unknown),
                (Key(4), "dddd", Expectation::NothingIf(true)),
                (Key(6), "", Expectation::Unknown)
            ]
        );
    }
}
