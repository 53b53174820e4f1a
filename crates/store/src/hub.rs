//! Who watches what: recent history and live delivery under one lock, so that a watch has no gap and no repetition.

use crate::{Batch, Event, Revision, StoreError, Watch};
use parking_lot::Mutex;
use std::collections::VecDeque;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// Batches that a watch may still begin with: minutes of a busy cloud.
const HISTORY_BATCHES_MAX: usize = 65_536;

pub struct Hub(Mutex<State>);

struct State {
    /// In the order of their revisions, without gaps.
    history: VecDeque<Batch>,
    /// The revision before the oldest of the history.
    compacted: Revision,
    last: Revision,
    watchers: Vec<Watcher>,
}

struct Watcher {
    prefix: String,
    sender: UnboundedSender<Batch>,
}

impl Hub {
    /// `revision` is where the store stands: what came before is history that nobody remembers.
    pub fn new(revision: Revision) -> Hub {
        Hub(Mutex::new(State {
            history: VecDeque::new(),
            compacted: revision,
            last: revision,
            watchers: Vec::new(),
        }))
    }

    pub fn last(&self) -> Revision {
        self.0.lock().last
    }

    /// Called in the order of the revisions, once each is durable.
    pub fn publish(&self, batch: Batch) {
        let mut state = self.0.lock();
        state.last = batch.revision;
        state.watchers.retain(|watcher| watcher.sender.send(under(&watcher.prefix, &batch)).is_ok());
        state.history.push_back(batch);
        if state.history.len() > HISTORY_BATCHES_MAX
            && let Some(oldest) = state.history.pop_front()
        {
            state.compacted = oldest.revision;
        }
    }

    pub fn watch(&self, prefix: &str, from: Revision) -> Result<Watch, StoreError> {
        let mut state = self.0.lock();
        if from <= state.compacted {
            return Err(StoreError::Compacted { oldest: state.compacted + 1 });
        }
        let (sender, receiver) = unbounded_channel();
        for batch in state.history.iter().filter(|batch| batch.revision >= from) {
            // The receiver is still here.
            let _ = sender.send(under(prefix, batch));
        }
        state.watchers.push(Watcher { prefix: prefix.to_owned(), sender });
        Ok(Watch(receiver))
    }
}

fn under(prefix: &str, batch: &Batch) -> Batch {
    let matches = |event: &&Event| match event {
        Event::Put(entry) => entry.key.starts_with(prefix),
        Event::Delete { key, .. } => key.starts_with(prefix),
    };
    Batch { revision: batch.revision, events: batch.events.iter().filter(matches).cloned().collect() }
}
