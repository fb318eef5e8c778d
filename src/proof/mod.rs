//! Proofs of the core: single timelines, random schedules, and all schedules of a small world.

#[cfg(loom)]
mod interleavings;
mod model;
mod schedules;
mod search;
mod timelines;
mod trial;
mod world;
