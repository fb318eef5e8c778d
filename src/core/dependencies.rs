//! Dependencies: which children come after which, and which of those are ready.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::Instant,
};

use crate::{
    core::key::{Key, KeyMap},
    id::ChildId,
};

/// A child that another one comes after.
#[derive(Clone, Debug)]
pub(crate) struct Dependency {
    pub(crate) id: ChildId,
    /// Its key, if a child of that id was listed.
    pub(crate) key: Option<Key>,
}

/// Who comes after whom. A child that takes no part in that is not in here.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Dependencies {
    /// The children that come after others.
    dependents: KeyMap<Dependent>,
    /// The children that others come after, by id: one that was removed may be added again.
    awaited: HashMap<ChildId, Awaited>,
    /// The children that may start now and could not before, or the other way round, and since
    /// when. The core decides about one at a time, so that messages are served in between.
    changed: VecDeque<(Instant, Key)>,
    /// Those that were found waiting before the first round was complete. What they wait for may
    /// not have been looked at by then.
    deferred: BTreeSet<Key>,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Dependent {
    after: Vec<ChildId>,
    /// It is in `changed`.
    is_changed: bool,
    /// The end of the wait that its last error, or the want of a thread, demands: a recovery ends
    /// its backoff no sooner. `None` is never.
    earliest: Option<Instant>,
}

#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
struct Awaited {
    /// The child that is listed under the id.
    key: Option<Key>,
    is_ready: bool,
    /// How many children come after it.
    dependents: usize,
    /// Those of them that do not run, in list order. The others need not know whether it is ready.
    down: BTreeSet<Key>,
    /// In a shutdown: the number of dependents for which it has to wait before it stops.
    running: usize,
}

impl Dependencies {
    // ── Who comes after whom ──

    /// Notes that `key`, which does not run, comes after another child. `is_ready` is that one's
    /// present state.
    pub(super) fn add(&mut self, key: Key, other: Dependency, is_ready: bool, now: Instant) {
        let Dependency { id, key: other } = other;
        let awaited = self.awaited.entry(id.clone()).or_insert_with(|| Awaited {
            key: other,
            is_ready,
            ..Awaited::default()
        });
        if awaited.down.insert(key) {
            awaited.dependents += 1;
            let dependent = self.dependents.entry(key).or_insert_with(|| Dependent {
                after: Vec::new(),
                is_changed: false,
                earliest: Some(now),
            });
            dependent.after.push(id);
        }
    }

    /// Notes that a child is listed under this id. Returns whether others come after it.
    pub(super) fn list(&mut self, key: Key, id: &ChildId) -> bool {
        let awaited = self.awaited.get_mut(id);
        awaited.map(|awaited| awaited.key = Some(key)).is_some()
    }

    /// Notes that a child is gone.
    pub(super) fn forget(&mut self, key: Key, id: &ChildId) {
        if let Some(awaited) = self.awaited.get_mut(id) {
            awaited.key = None;
        }
        for id in self.dependents.remove(&key).into_iter().flat_map(|gone| gone.after) {
            if let Some(awaited) = self.awaited.get_mut(&id) {
                awaited.down.remove(&key);
                awaited.dependents -= 1;
                if awaited.dependents == 0 {
                    self.awaited.remove(&id);
                }
            }
        }
    }

    // ── Who is ready ──

    /// Whether all that it comes after is ready.
    pub(super) fn are_ready(&self, key: Key) -> bool {
        let after = self.dependents.get(&key).map(|dependent| &dependent.after);
        let is_ready = |id| self.awaited.get(id).is_some_and(|awaited| awaited.is_ready);
        after.is_none_or(|after| after.iter().all(is_ready))
    }

    /// Notes that a child runs, or does not run any more.
    pub(super) fn set_running(&mut self, key: Key, runs: bool) {
        for id in self.dependents.get(&key).iter().flat_map(|dependent| &dependent.after) {
            if let Some(awaited) = self.awaited.get_mut(id) {
                if runs {
                    awaited.down.remove(&key);
                } else {
                    awaited.down.insert(key);
                }
            }
        }
    }

    /// Notes whether the child of this id is ready. Returns those that come after it and do not
    /// run, if that is new.
    pub(super) fn set_ready(&mut self, id: &ChildId, is_ready: bool) -> Vec<Key> {
        let Some(awaited) = self.awaited.get_mut(id) else { return Vec::new() };
        let is_new = std::mem::replace(&mut awaited.is_ready, is_ready) != is_ready;
        if is_new { awaited.down.iter().copied().collect() } else { Vec::new() }
    }

    /// Has the core decide about a child in its turn, once however often this is called by then.
    pub(super) fn note_changed(&mut self, key: Key, now: Instant) {
        if let Some(dependent) = self.dependents.get_mut(&key) {
            if !std::mem::replace(&mut dependent.is_changed, true) {
                self.changed.push_back((now, key));
            }
        }
    }

    /// Has the core decide about a child when the first round is complete.
    pub(super) fn defer(&mut self, key: Key) {
        self.deferred.insert(key);
    }

    /// Has the core decide about those in their turns.
    pub(super) fn resume_deferred(&mut self, now: Instant) {
        for key in std::mem::take(&mut self.deferred) {
            self.note_changed(key, now);
        }
    }

    /// Takes the next child to decide about.
    pub(super) fn take_changed(&mut self) -> Option<Key> {
        let (_, key) = self.changed.pop_front()?;
        if let Some(dependent) = self.dependents.get_mut(&key) {
            dependent.is_changed = false;
        }
        Some(key)
    }

    /// When the core is to decide about the next of them, which is in the past; `None` if there is
    /// none.
    pub(super) fn changed_at(&self) -> Option<Instant> {
        self.changed.front().map(|(at, _)| *at)
    }

    /// Notes that no recovery ends its present backoff sooner than this; `None` is never.
    pub(super) fn set_earliest(&mut self, key: Key, earliest: Option<Instant>) {
        if let Some(dependent) = self.dependents.get_mut(&key) {
            dependent.earliest = earliest;
        }
    }

    /// When a recovery may end its backoff; `None` is never.
    pub(super) fn earliest(&self, key: Key) -> Option<Instant> {
        self.dependents.get(&key)?.earliest
    }

    // ── The shutdown ──

    /// Notes that a shutdown begins in which this child runs: those that it comes after wait for
    /// its end.
    pub(super) fn await_end_of(&mut self, key: Key) {
        for id in self.dependents.get(&key).iter().flat_map(|dependent| &dependent.after) {
            if let Some(awaited) = self.awaited.get_mut(id) {
                awaited.running += 1;
            }
        }
    }

    /// Whether it waits for the end of another one.
    pub(super) fn awaits_ends(&self, id: &ChildId) -> bool {
        self.awaited.get(id).is_some_and(|awaited| awaited.running > 0)
    }

    /// Notes that the run of such a child has ended, or its time to stop is over. Returns those
    /// that waited for no other end, the last in list order first.
    pub(super) fn note_end_of(&mut self, key: Key) -> Vec<Key> {
        let mut released = Vec::new();
        for id in self.dependents.get(&key).iter().flat_map(|dependent| &dependent.after) {
            let Some(awaited) = self.awaited.get_mut(id) else { continue };
            awaited.running -= 1;
            if awaited.running == 0 {
                released.extend(awaited.key);
            }
        }
        released.sort_unstable_by(|one, other| other.cmp(one));
        released
    }
}

/// Finds a circle among children that come after one another, in all that these lead to. It begins
/// and ends with the same child.
pub(crate) fn find_circle<'a>(
    starts: impl IntoIterator<Item = &'a ChildId>,
    after: impl Fn(&ChildId) -> &'a [ChildId],
) -> Option<Vec<ChildId>> {
    // Whether all that they lead to was looked at; those of which that is not so are on the path.
    let mut seen: HashMap<&ChildId, bool> = HashMap::new();
    for start in starts {
        if seen.contains_key(start) {
            continue;
        }
        seen.insert(start, false);
        // The path that is being followed, with what is left to look at from each of its children.
        let mut path = vec![(start, after(start).iter())];
        while let Some((id, left)) = path.last_mut() {
            let Some(next) = left.next() else {
                seen.insert(*id, true);
                path.pop();
                continue;
            };
            match seen.get(next) {
                None => {
                    seen.insert(next, false);
                    path.push((next, after(next).iter()));
                }
                Some(true) => {}
                Some(false) => {
                    let circle = path.iter().map(|(id, _)| *id).skip_while(|id| *id != next);
                    return Some(circle.chain([next]).cloned().collect());
                }
            }
        }
    }
    None
}

#[cfg(test)]
impl Dependencies {
    /// Checks that it knows who comes after whom, and which of them run; `runs` is `None` for a
    /// child that is gone.
    pub(super) fn check(&self, runs: impl Fn(Key) -> Option<bool>) {
        let known = self.dependents.keys().copied();
        let known = known.chain(self.awaited.values().filter_map(|awaited| awaited.key));
        known.for_each(|key| assert!(runs(key).is_some(), "{key:?} is gone"));
        for (id, awaited) in &self.awaited {
            let after = self.dependents.iter().filter(|(_, child)| child.after.contains(id));
            let keys: BTreeSet<Key> = after.map(|(key, _)| *key).collect();
            assert_eq!(awaited.dependents, keys.len(), "how many come after {id}");
            let down: BTreeSet<Key> =
                keys.into_iter().filter(|key| runs(*key) == Some(false)).collect();
            assert_eq!(awaited.down, down, "who comes after {id} and is down");
        }
    }

    /// All that decides about the future, once nothing has changed.
    pub(super) fn essence(&self, now: Instant) -> impl std::hash::Hash + use<> {
        let Self { dependents, awaited, changed, deferred } = self;
        assert!(changed.is_empty() && deferred.is_empty());
        let mut dependents: Vec<_> = dependents
            .iter()
            .map(|(key, Dependent { after: _, is_changed: _, earliest })| {
                (*key, earliest.map(|at| at.saturating_duration_since(now)))
            })
            .collect();
        let mut awaited: Vec<_> = awaited
            .iter()
            .map(|(id, Awaited { key, is_ready, dependents: _, down: _, running })| {
                (id.clone(), *key, *is_ready, *running)
            })
            .collect();
        dependents.sort_unstable();
        awaited.sort_unstable();
        (dependents, awaited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The circle among children of these names, each with those that it comes after.
    fn circle(children: &[(&str, &[&str])]) -> Option<String> {
        let ids = |names: &[&str]| names.iter().map(|name| ChildId::from(*name)).collect();
        let children: Vec<(ChildId, Vec<ChildId>)> =
            children.iter().map(|(name, after)| ((*name).into(), ids(after))).collect();
        let after = |id: &ChildId| {
            let known = children.iter().find(|(known, _)| known == id);
            known.map_or(&[][..], |(_, after)| after)
        };
        let found = find_circle(children.iter().map(|(id, _)| id), after)?;
        Some(found.iter().map(ChildId::as_str).collect())
    }

    #[test]
    fn circle_is_found_from_wherever_the_search_begins_and_a_diamond_is_none() {
        assert_eq!(circle(&[("a", &["a"])]).as_deref(), Some("aa"));
        let three: &[(&str, &[&str])] =
            &[("x", &["a"]), ("a", &["b"]), ("b", &["y", "c"]), ("c", &["a"])];
        assert_eq!(circle(three).as_deref(), Some("abca"));
        let diamond: &[(&str, &[&str])] =
            &[("a", &["b", "c"]), ("b", &["d"]), ("c", &["d", "gone"]), ("d", &[])];
        assert_eq!(circle(diamond), None);
    }
}
