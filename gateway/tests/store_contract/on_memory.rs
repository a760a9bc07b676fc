//! The suite's way to the memory store.

use std::sync::Arc;

use roomgate::store::{EventSink, SharedStore, StoreLimits, memory::MemoryStore};

use super::harness::Backend;

/// A store of its own for each test.
pub(crate) struct Memory;

impl Backend for Memory {
    const NODES: usize = 1;
    const HEARS_ALL: bool = true;

    type World = ();

    fn world() -> Self::World {}

    async fn store(_index: usize, limits: StoreLimits, sink: Arc<dyn EventSink>) -> SharedStore {
        MemoryStore::new(limits, sink)
    }

    async fn store_in(
        _world: &Self::World,
        _index: usize,
        limits: StoreLimits,
        sink: Arc<dyn EventSink>,
    ) -> SharedStore {
        MemoryStore::new(limits, sink)
    }
}
