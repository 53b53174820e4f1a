//! Bounds on what one guest may ask of the services, so that none takes them from the others.

use model::Id;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::time::Instant;

/// Above this many guests those are forgotten that have asked nothing lately.
const PRUNE_ABOVE: usize = 1024;

/// A token bucket per guest.
pub(crate) struct Rate {
    per_second: f64,
    burst: f64,
    buckets: Mutex<HashMap<Id, Bucket>>,
}

struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Rate {
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        Rate { per_second: per_second.into(), burst: burst.into(), buckets: Mutex::default() }
    }

    /// Whether the guest may ask once more now.
    pub(crate) fn allow(&self, guest: &Id) -> bool {
        let now = Instant::now();
        let mut buckets = self.buckets.lock();
        let refilled = |bucket: &Bucket| {
            (bucket.tokens + now.duration_since(bucket.at).as_secs_f64() * self.per_second).min(self.burst)
        };
        if buckets.len() > PRUNE_ABOVE {
            buckets.retain(|_, bucket| refilled(bucket) < self.burst);
        }
        let bucket = buckets.entry(guest.clone()).or_insert(Bucket { tokens: self.burst, at: now });
        let tokens = refilled(bucket);
        let is_allowed = tokens >= 1.0;
        *bucket = Bucket { tokens: if is_allowed { tokens - 1.0 } else { tokens }, at: now };
        is_allowed
    }
}

/// So many things of each guest at a time, and so many of all together.
pub(crate) struct Slots {
    each_max: usize,
    all_max: usize,
    taken: Mutex<HashMap<Id, usize>>,
}

/// Given back when dropped.
pub(crate) struct Slot {
    slots: Arc<Slots>,
    guest: Id,
}

impl Slots {
    pub(crate) fn new(each_max: usize, all_max: usize) -> Arc<Self> {
        Arc::new(Slots { each_max, all_max, taken: Mutex::default() })
    }

    pub(crate) fn take(self: &Arc<Self>, guest: &Id) -> Option<Slot> {
        let mut taken = self.taken.lock();
        if taken.values().sum::<usize>() >= self.all_max {
            return None;
        }
        let count = taken.entry(guest.clone()).or_default();
        if *count >= self.each_max {
            return None;
        }
        *count += 1;
        Some(Slot { slots: self.clone(), guest: guest.clone() })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken.lock();
        if let Some(count) = taken.get_mut(&self.guest) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.guest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples;
    use std::time::Duration;

    fn guests() -> (Id, Id) {
        (examples::instance(1).instance_id, examples::instance(2).instance_id)
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_lets_a_burst_through_and_refills() {
        let (loud, quiet) = guests();
        let rate = Rate::new(10, 3);
        assert_eq!((0..5).filter(|_| rate.allow(&loud)).count(), 3);
        assert!(rate.allow(&quiet));
        tokio::time::advance(Duration::from_millis(200)).await;
        assert_eq!((0..5).filter(|_| rate.allow(&loud)).count(), 2);
    }

    #[test]
    fn slots_come_back_and_are_bounded_both_ways() {
        let (one, other) = guests();
        let slots = Slots::new(2, 3);
        let held: Vec<Slot> = (0..3).filter_map(|_| slots.take(&one)).collect();
        assert_eq!(held.len(), 2);
        let third = slots.take(&other);
        assert!(third.is_some() && slots.take(&other).is_none());
        drop(held);
        assert!(slots.take(&one).is_some());
        drop(third);
        assert!(slots.taken.lock().is_empty());
    }
}
