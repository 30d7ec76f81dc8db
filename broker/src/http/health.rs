//! Starting, serving, draining: what the health checks answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crate::server::Broker;

/// See the module. A broker is ready between [`Health::serve`] and [`Health::drain`], unless its storage failed.
#[derive(Debug, Default)]
pub struct Health {
    broker: OnceLock<Arc<Broker>>,
    draining: AtomicBool,
}

impl Health {
    /// The broker serves from now on.
    pub fn serve(&self, broker: Arc<Broker>) {
        // A broker serves once; a second call would name the same one.
        let _ = self.broker.set(broker);
    }

    /// The broker takes no new requests from now on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// The broker, once it serves.
    pub fn broker(&self) -> Option<&Arc<Broker>> {
        self.broker.get()
    }

    /// Why the broker is not ready.
    pub fn not_ready(&self) -> Option<String> {
        if self.draining.load(Ordering::Acquire) {
            return Some("draining".to_owned());
        }
        match self.broker.get() {
            None => Some("starting".to_owned()),
            Some(broker) => broker
                .logs
                .failure()
                .map(|reason| format!("storage failed: {reason}")),
        }
    }
}
