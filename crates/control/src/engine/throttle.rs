//! API throttling: a token bucket for each operation of an account in a region
//! (EC2 Developer Guide, "Request throttling for the Amazon EC2 API"), far wider than AWS's.

use model::{Error, Result, Timestamp};
use parking_lot::Mutex;
use std::collections::HashMap;

/// Seconds of its rate that a bucket holds (AWS's hold 5: 100 tokens refilled at 20 a second).
const BURST_SECONDS: f64 = 5.0;

/// Requests a second of one operation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Of those that change nothing.
    pub reading: f64,
    pub writing: f64,
}

impl Default for Rates {
    fn default() -> Self {
        Rates { reading: 100_000.0, writing: 5_000.0 }
    }
}

/// The buckets of a region.
pub struct Throttle {
    rates: Rates,
    /// By account and operation: bounded, for both are known to exist.
    buckets: Mutex<HashMap<(String, &'static str), Bucket>>,
}

struct Bucket {
    tokens: f64,
    at: Timestamp,
}

impl Throttle {
    pub fn new(rates: Rates) -> Self {
        Throttle { rates, buckets: Mutex::default() }
    }

    /// Takes a token, or refuses.
    pub fn take(
        &self,
        account: &str,
        operation: &'static str,
        read_only: bool,
        now: Timestamp,
    ) -> Result<()> {
        let rate = if read_only { self.rates.reading } else { self.rates.writing };
        let most = (rate * BURST_SECONDS).max(1.0);
        let mut buckets = self.buckets.lock();
        let bucket =
            buckets.entry((account.to_owned(), operation)).or_insert(Bucket { tokens: most, at: now });
        // A clock that was set back gives none.
        let passed = now.duration_since(bucket.at).as_secs_f64().max(0.0);
        bucket.tokens = (bucket.tokens + passed * rate).min(most);
        bucket.at = now;
        if bucket.tokens < 1.0 {
            return Err(Error::new("RequestLimitExceeded", "Request limit exceeded.").with_status(503));
        }
        bucket.tokens -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_bucket_empties_and_fills_again() {
        let throttle = Throttle::new(Rates { reading: 1000.0, writing: 2.0 });
        let now = Timestamp::UNIX_EPOCH;
        let take = |operation, at| throttle.take("1", operation, false, at);
        for _ in 0..10 {
            take("RunInstances", now).unwrap();
        }
        let refused = take("RunInstances", now).unwrap_err();
        assert_eq!((&*refused.code, refused.status), ("RequestLimitExceeded", 503));
        // Every operation and account has its own.
        take("StopInstances", now).unwrap();
        throttle.take("2", "RunInstances", false, now).unwrap();
        let later = now + Duration::from_millis(500);
        take("RunInstances", later).unwrap();
        assert!(take("RunInstances", later).is_err());
        // Not more than it holds.
        let much_later = now + Duration::from_secs(3600);
        assert_eq!((0..100).take_while(|_| take("RunInstances", much_later).is_ok()).count(), 10);
    }
}
