//! History and those who watch it.
//!
//! ```text
//!   commit ─ publish ─▶ recent batches (memory) ◀─ read ─ cursor of a watch, at the revision it wants next
//!                       older ones: `Archive`   ◀─┘
//! ```
//!
//! A watch owns no queue: it is a place in the one history, so that a slow reader costs nothing, and neither a gap
//! nor a repetition can be. A reader that history has left behind ends.

use crate::evaluate::check_key;
use crate::{Batch, Event, Revision, StoreError, Watch};
use futures::stream;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::watch;

/// How much history is remembered; the latest batch always is.
#[derive(Clone, Copy, Debug)]
pub struct HistoryBounds {
    pub batches: usize,
    /// Bytes of keys and values, about.
    pub len: usize,
}

impl HistoryBounds {
    pub(crate) fn exceeded(&self, batches: u64, len: u64) -> bool {
        batches > 1 && (batches > self.batches as u64 || len > self.len as u64)
    }
}

impl Default for HistoryBounds {
    /// Minutes of a busy cloud.
    fn default() -> Self {
        HistoryBounds { batches: 65_536, len: 64 * 1024 * 1024 }
    }
}

/// History that is not in memory. It goes from its oldest revision to the store's last without a gap.
pub trait Archive: Send + Sync {
    /// None when there is no history.
    fn oldest(&self) -> Result<Option<Revision>, StoreError>;
    fn read(&self, revision: Revision) -> Result<Option<Batch>, StoreError>;
}

pub struct Hub {
    recent: Arc<Mutex<Recent>>,
    last: watch::Sender<Revision>,
    archive: Option<Arc<dyn Archive>>,
}

/// Batches of consecutive revisions up to the last.
struct Recent {
    batches: VecDeque<Arc<Batch>>,
    last: Revision,
    len: usize,
    bounds: HistoryBounds,
}

impl Recent {
    fn oldest(&self) -> Revision {
        self.last + 1 - self.batches.len() as u64
    }

    fn get(&self, revision: Revision) -> Option<Arc<Batch>> {
        let index = usize::try_from(revision.checked_sub(self.oldest())?).ok()?;
        self.batches.get(index).cloned()
    }

    fn push(&mut self, batch: Batch) {
        debug_assert_eq!(batch.revision, self.last + 1);
        self.last = batch.revision;
        self.len += len(&batch);
        self.batches.push_back(Arc::new(batch));
        while self.bounds.exceeded(self.batches.len() as u64, self.len as u64) {
            let Some(oldest) = self.batches.pop_front() else { break };
            self.len -= len(&oldest);
        }
    }
}

impl Hub {
    /// `last` is where the store stands: what came before is in the archive, or forgotten.
    pub fn new(last: Revision, bounds: HistoryBounds, archive: Option<Arc<dyn Archive>>) -> Hub {
        let recent = Recent { batches: VecDeque::new(), last, len: 0, bounds };
        Hub { recent: Arc::new(Mutex::new(recent)), last: watch::Sender::new(last), archive }
    }

    pub fn last(&self) -> Revision {
        *self.last.borrow()
    }

    /// Called with consecutive revisions, once they are durable.
    pub fn publish(&self, batches: impl IntoIterator<Item = Batch>) {
        let last = {
            let mut recent = self.recent.lock();
            batches.into_iter().for_each(|batch| recent.push(batch));
            recent.last
        };
        self.last.send_if_modified(|published| std::mem::replace(published, last) != last);
    }

    pub fn watch(&self, prefix: &str, from: Revision) -> Result<Watch, StoreError> {
        check_key(prefix)?;
        let archived = self.archive.as_ref().map(|archive| archive.oldest()).transpose()?.flatten();
        let recent = self.recent.lock().oldest();
        let oldest = archived.map_or(recent, |archived| archived.min(recent));
        // Revisions begin with 1: from 0 is from the beginning.
        let from = from.max(1);
        if from < oldest {
            return Err(StoreError::Compacted { oldest });
        }
        let cursor = Cursor {
            prefix: prefix.to_owned(),
            next: from,
            recent: self.recent.clone(),
            last: self.last.subscribe(),
            archive: self.archive.clone(),
        };
        Ok(Watch::new(stream::unfold(cursor, async |mut cursor| Some((cursor.next().await?, cursor)))))
    }
}

struct Cursor {
    prefix: String,
    /// The revision that is delivered next.
    next: Revision,
    recent: Arc<Mutex<Recent>>,
    /// Ends with the store.
    last: watch::Receiver<Revision>,
    archive: Option<Arc<dyn Archive>>,
}

impl Cursor {
    async fn next(&mut self) -> Option<Batch> {
        while *self.last.borrow_and_update() < self.next {
            self.last.changed().await.ok()?;
        }
        let batch = self.read()?;
        self.next += 1;
        Some(batch)
    }

    fn read(&self) -> Option<Batch> {
        let recent = self.recent.lock().get(self.next);
        if let Some(batch) = recent {
            return Some(under(&self.prefix, &batch));
        }
        match self.archive.as_ref()?.read(self.next) {
            Ok(batch) => Some(under(&self.prefix, &batch?)),
            Err(StoreError::Closed) => None,
            Err(error) => {
                tracing::warn!(%error, revision = self.next, "a watch ends: its history can't be read");
                None
            }
        }
    }
}

fn under(prefix: &str, batch: &Batch) -> Batch {
    let matches = |event: &&Event| event.key().starts_with(prefix);
    Batch { revision: batch.revision, events: batch.events.iter().filter(matches).cloned().collect() }
}

/// What a batch weighs in memory: what it says, and about as much as its structures take.
fn len(batch: &Batch) -> usize {
    let events = batch.events.iter().map(|event| match event {
        Event::Put(entry) => size_of::<Event>() + entry.key.len() + entry.value.len(),
        Event::Delete { key, .. } => size_of::<Event>() + key.len(),
    });
    size_of::<Batch>() + events.sum::<usize>()
}
