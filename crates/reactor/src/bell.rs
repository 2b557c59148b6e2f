//! How a shard that sleeps is woken.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Mutex, PoisonError};
use std::task::Waker;

/// Wakes a parked shard from another thread. A ring costs one atomic exchange while the shard is awake.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    is_parked: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Bell {
    /// Wakes the shard if it is parked. Call it after what it is to see is in its inbox.
    pub(crate) fn ring(&self) {
        // Pairs with the fence in `park`: either the shard sees the inbox filled, or this sees it parked.
        fence(Ordering::SeqCst);
        if self.is_parked.swap(false, Ordering::AcqRel) {
            let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Says that the shard is about to sleep; it must look at its inbox once more afterwards.
    pub(crate) fn park(&self, waker: &Waker) {
        {
            let mut kept = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
            if !kept.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
                *kept = Some(waker.clone());
            }
        }
        self.is_parked.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    /// Says that the shard is awake.
    pub(crate) fn unpark(&self) {
        self.is_parked.store(false, Ordering::Release);
    }

    /// Lets go of the waker at the end of the shard, on its own thread.
    pub(crate) fn silence(&self) {
        self.unpark();
        self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Wakes the shard's round from another task of the same thread.
#[derive(Debug, Default)]
pub(crate) struct LocalBell {
    waker: RefCell<Option<Waker>>,
}

impl LocalBell {
    pub(crate) fn ring(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    pub(crate) fn park(&self, waker: &Waker) {
        let mut kept = self.waker.borrow_mut();
        if !kept.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
            *kept = Some(waker.clone());
        }
    }
}
