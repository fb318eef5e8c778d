//! Directory of the children: their rows, by id and in list order.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::{core::key::Key, id::ChildId, runtime::row::Row};

#[derive(Default)]
pub(super) struct Directory {
    next_key: u64,
    keys: HashMap<ChildId, Key>,
    rows: BTreeMap<Key, Arc<Row>>,
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
        self.rows.insert(key, row.clone());
        Ok(row)
    }

    pub(super) fn forget(&mut self, row: &Row) -> Option<Arc<Row>> {
        self.keys.remove(row.id());
        self.rows.remove(&row.key())
    }

    pub(super) fn find(&self, id: &str) -> Option<&Arc<Row>> {
        self.rows.get(self.keys.get(id)?)
    }

    pub(super) fn get(&self, key: Key) -> Option<&Arc<Row>> {
        self.rows.get(&key)
    }

    /// All rows in list order.
    pub(super) fn rows(&self) -> impl Iterator<Item = &Arc<Row>> {
        self.rows.values()
    }
}
