//! Key of a child within its supervisor.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

/// Identifies one generation of one child. Keys rise in list order and are never reused, so that a
/// message for a removed child cannot reach a later child of the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key(pub(crate) u64);

/// A map over keys. The crate counts keys itself and no user can choose them, so that a simple hash
/// without protection against collisions is enough.
pub(crate) type KeyMap<T> = HashMap<Key, T, BuildHasherDefault<KeyHasher>>;

#[derive(Debug, Default)]
pub(crate) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, _: &[u8]) {
        unreachable!("a key is one number");
    }

    fn write_u64(&mut self, number: u64) {
        // 2⁶⁴ divided by the golden ratio: the products of successive keys lie far apart in their
        // high bits.
        self.0 = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        // A hash table uses the low bits. Those of a product depend only on the low bits of the
        // key, which keys of one stride may have in common: so the high bits are mixed in.
        self.0 ^ self.0 >> 32
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, hash::BuildHasher};

    use super::*;

    // A hash table of 10 000 entries uses the low 14 bits.
    #[test]
    fn low_bits_spread_keys_of_any_stride() {
        for stride in [1, 4096, 1 << 20] {
            let hasher = BuildHasherDefault::<KeyHasher>::default();
            let places: HashSet<_> =
                (0..10_000).map(|number| hasher.hash_one(Key(number * stride)) & 0x3fff).collect();
            assert!(places.len() > 6_000, "stride {stride}: {} places", places.len());
        }
    }
}
