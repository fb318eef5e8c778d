//! The proofs of the core: the same laws on drawn timelines, on random schedules, and on all
//! schedules of a small world.

#[cfg(loom)]
mod interleavings;
mod model;
mod schedules;
mod search;
mod timelines;
mod trial;
mod world;
