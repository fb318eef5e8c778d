//! Directory of the children: their rows, by id and in list order.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    sync::Arc,
};

use crate::{core::key::Key, id::ChildId, runtime::row::Row};

#[derive(Default)]
pub(super) struct Directory {
    next_key: u64,
    keys: HashMap<ChildId, Key>,
    rows: BTreeMap<Key, Arc<Row>>,
    /// How many children come after the child of this id, which need not be listed any more.
    dependents: HashMap<ChildId, usize>,
}

impl Directory {
    /// Lists a child, whose row `make` makes. If the id is taken, gives it back.
    pub(super) fn list(
        &mut self,
        id: ChildId,
        make: impl FnOnce(Key, ChildId) -> Arc<Row>,
    ) -> Result<Arc<Row>, ChildId> {
        if self.keys.contains_key(&id) {
            return Err(id);
        }
        let key = Key(self.next_key);
        self.next_key += 1;
        let row = make(key, id.clone());
        self.keys.insert(id, key);
        for awaited in row.after() {
            *self.dependents.entry(awaited.clone()).or_default() += 1;
        }
        self.rows.insert(key, row.clone());
        Ok(row)
    }

    pub(super) fn forget(&mut self, row: &Row) -> Option<Arc<Row>> {
        self.keys.remove(row.id());
        let gone = self.rows.remove(&row.key())?;
        for awaited in gone.after() {
            if let Entry::Occupied(mut dependents) = self.dependents.entry(awaited.clone()) {
                *dependents.get_mut() -= 1;
                if *dependents.get() == 0 {
                    dependents.remove();
                }
            }
        }
        Some(gone)
    }

    /// A child that comes after the child of this id, if there is one.
    pub(super) fn dependent_of(&self, id: &ChildId) -> Option<&Arc<Row>> {
        self.dependents.get(id)?;
        self.rows().find(|row| row.after().contains(id))
    }

    pub(super) fn find(&self, id: &str) -> Option<&Arc<Row>> {
        self.rows.get(self.keys.get(id)?)
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn get(&self, key: Key) -> Option<&Arc<Row>> {
        self.rows.get(&key)
    }

    /// All rows in list order.
    pub(super) fn rows(&self) -> impl Iterator<Item = &Arc<Row>> {
        self.rows.values()
    }
}
