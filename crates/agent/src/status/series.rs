//! What the results of one check say together. Pure.
//!
//! ```text
//!   started ──▶ initializing ──passes──▶ passed ◀──passes── failed
//!                    │                     └──fails twice──▶ │
//!                    └──fails after `START_TIME_MAX`─────────┘
//!   found after a restart of ours: nothing is told before it passes, or fails twice
//! ```

use agent_api::Check;
use model::Timestamp;
use std::time::Duration;

/// How often in a row a check fails before it is told (EC2 User Guide: status checks are made every minute; one lost
/// answer is no impairment).
const FAILURES_TOLD: u32 = 2;
/// What a guest gets to start, before a check that has never passed has failed: an emulated one may need minutes.
pub(super) const START_TIME_MAX: Duration = Duration::from_secs(5 * 60);

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Series {
    /// None where we do not know what it was before us.
    told: Option<Check>,
    failures: u32,
    /// When the first of these failures was.
    failing_since: Option<Timestamp>,
}

impl Series {
    pub(super) const OF_NEW: Series =
        Series { told: Some(Check::Initializing), failures: 0, failing_since: None };
    pub(super) const OF_FOUND: Series = Series { told: None, failures: 0, failing_since: None };

    pub(super) fn told(&self) -> Option<Check> {
        self.told
    }

    /// With one result more. `started` is when the instance was.
    pub(super) fn after(self, passed: bool, now: Timestamp, started: Timestamp) -> Series {
        if passed {
            return Series { told: Some(Check::Passed), failures: 0, failing_since: None };
        }
        let (failures, since) = (self.failures.saturating_add(1), self.failing_since.unwrap_or(now));
        let told = match self.told {
            Some(Check::Initializing) if now.duration_since(started).unsigned_abs() >= START_TIME_MAX => {
                Some(Check::Failed { since: started.into() })
            }
            Some(Check::Passed) | None if failures >= FAILURES_TOLD => {
                Some(Check::Failed { since: since.into() })
            }
            told => told,
        };
        Series { told, failures, failing_since: Some(since) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STARTED: Timestamp = Timestamp::constant(1_700_000_000, 0);

    fn at(seconds: u64) -> Timestamp {
        STARTED.saturating_add(Duration::from_secs(seconds)).unwrap()
    }

    fn told(first: Series, results: &[(u64, bool)]) -> Vec<Option<Check>> {
        let mut series = first;
        let next = |(seconds, passed): &(u64, bool)| {
            series = series.after(*passed, at(*seconds), STARTED);
            series.told()
        };
        results.iter().map(next).collect()
    }

    #[test]
    fn one_failure_is_none_and_the_second_dates_from_the_first() {
        let results =
            [(5, true), (60, false), (120, true), (180, false), (240, false), (300, false), (360, true)];
        let (passed, failed) = (Some(Check::Passed), Some(Check::Failed { since: at(180).into() }));
        let expected = [passed, passed, passed, passed, failed, failed, passed];
        assert_eq!(told(Series::OF_NEW, &results), expected);
    }

    #[test]
    fn what_never_passes_failed_when_it_started() {
        let initializing = Some(Check::Initializing);
        let failed = Some(Check::Failed { since: STARTED.into() });
        let expected = [initializing, initializing, failed, failed];
        let results = [(5, false), (299, false), (300, false), (360, false)];
        assert_eq!(told(Series::OF_NEW, &results), expected);
    }

    #[test]
    fn of_what_was_found_nothing_is_told_before_it_is_known() {
        assert_eq!(told(Series::OF_FOUND, &[(1, true)]), [Some(Check::Passed)]);
        let failed = Some(Check::Failed { since: at(1).into() });
        assert_eq!(told(Series::OF_FOUND, &[(1, false), (61, false)]), [None, failed]);
    }

    proptest! {
        #[test]
        fn the_last_results_decide(results in proptest::collection::vec(any::<bool>(), 2..20)) {
            let timed: Vec<(u64, bool)> = results.iter().zip(1u64..).map(|(p, n)| (n * 600, *p)).collect();
            let last = *told(Series::OF_NEW, &timed).last().unwrap();
            match results[results.len() - 2..] {
                [_, true] => prop_assert_eq!(last, Some(Check::Passed)),
                [false, false] => {
                    let is_failed = matches!(last, Some(Check::Failed { .. }));
                    prop_assert!(is_failed);
                }
                _ => {}
            }
        }
    }
}
