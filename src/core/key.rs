//! What a child is known by within its supervisor.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

/// One generation of one child. Keys rise in list order and are never used twice, so that what was
/// meant for a removed child cannot reach a later one of the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key(pub(crate) u64);

/// What belongs to keys. They are counted here and nobody can choose them, so that the simplest of
/// hashes spreads them well.
pub(crate) type KeyMap<T> = HashMap<Key, T, BuildHasherDefault<KeyHasher>>;

#[derive(Debug, Default)]
pub(crate) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        // By 2⁶⁴ over the golden ratio: keys that follow one another come to lie far apart in
        // the high bits.
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        // A product's low bits know only the low bits of the key, which keys of one stride have in
        // common. A table takes its places from the low bits.
        self.0 ^ self.0 >> 32
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, hash::BuildHasher};

    use super::*;

    // A table of 10 000 looks for its places by the low 14 bits.
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
