//! The tasks of one agent, which end with it.

use parking_lot::Mutex;
use std::future::Future;
use std::time::Duration;
use tokio::task::JoinSet;

#[derive(Default)]
pub(crate) struct Tasks {
    running: Mutex<JoinSet<()>>,
}

impl Tasks {
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut running = self.running.lock();
        // Else what has ended would be kept until the agent ends.
        while running.try_join_next().is_some() {}
        running.spawn(task);
    }

    /// Tasks hold what holds this: without it none would ever end.
    pub(crate) fn abort_all(&self) {
        self.running.lock().abort_all();
    }
}

/// Waits between attempts: doubled each time, up to a bound, so that what stays broken costs next to nothing.
pub(crate) struct Backoff {
    next: Duration,
}

const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);

impl Backoff {
    pub(crate) fn new() -> Self {
        Backoff { next: BACKOFF_MIN }
    }

    pub(crate) fn wait(&mut self) -> impl Future<Output = ()> + Send + 'static {
        let wait = self.next;
        self.next = (wait * 2).min(BACKOFF_MAX);
        tokio::time::sleep(wait)
    }
}
