//! Proofs of the core's promises, with loom models of the threads around the core.

#[cfg(loom)]
mod interleavings;
mod model;
mod schedules;
mod search;
mod timelines;
mod trial;
mod world;
