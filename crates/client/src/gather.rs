//! Many records at once.

use std::sync::Arc;

use crate::client::Handle;

/// Records that gather before the client's task is woken, although a [`Gathering`] is held.
pub(crate) const GATHERED_MAX: u32 = 2048;

/// While it is held, records that are sent gather; they leave together when it is dropped. From [`crate::Client::gather`].
///
/// Nothing is held back beyond that: when the client's task has something else to do, or very many records have gathered,
/// what is there leaves with it. Do not hold it while waiting for something.
#[derive(Debug)]
#[must_use = "records leave at once when nothing is held"]
pub struct Gathering {
    handle: Arc<Handle>,
}

impl Gathering {
    pub(crate) fn new(handle: Arc<Handle>) -> Self {
        handle.shared.lock().gatherings += 1;
        Self { handle }
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        let shared = &self.handle.shared;
        let mut inner = shared.lock();
        inner.gatherings -= 1;
        if inner.gatherings == 0 && 0 < std::mem::take(&mut inner.gathered) {
            let driver = shared.notify_locked(&mut inner);
            drop(inner);
            if let Some(driver) = driver {
                driver.wake();
            }
        }
    }
}
