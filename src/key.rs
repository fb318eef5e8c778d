//! What a child is known by within its supervisor.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

/// One generation of one child. Keys rise in list order and are never used twice, so that what was meant for a removed child
/// cannot reach a later one of the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key(pub(crate) u64);

/// What belongs to keys. They are counted here and nobody can choose them, so that the simplest of hashes spreads them well.
pub(crate) type KeyMap<T> = HashMap<Key, T, BuildHasherDefault<KeyHasher>>;

#[derive(Debug, Default)]
pub(crate) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        // By 2⁶⁴ over the golden ratio: keys that follow one another come to lie far apart in all bits.
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
