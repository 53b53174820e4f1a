//! What a burstable instance has and may use: pure functions of what it earns and what it has used.
//!
//! ```text
//!   standard    earned ◀─ so much an hour, a day's worth at most ─▶ spent; at nothing: the baseline, no more
//!   unlimited   the same; at nothing: surplus, which later earnings pay for, a day's worth at most
//! ```
//!
//! EC2 User Guide, "Standard mode for burstable performance instances" and "Unlimited mode". Other than there an
//! instance is not brought down to its baseline over minutes, but has all that it has saved until it has nothing.

use agent_api::CpuCredits;
use model::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Seconds of one processor in a credit.
const CREDIT_SECONDS: f64 = 60.0;
const HOUR_SECONDS: f64 = 3600.0;
/// What can be saved: what so many hours earn.
const SAVED_HOURS: f64 = 24.0;
/// What a standard instance may have overdrawn between two looks at it, in credits a processor: what is above was
/// nobody's fault but ours.
const OVERDRAFT_MAX: f64 = 0.1;
/// What credits that outlive a stop do not outlive.
const KEPT_DAYS: i64 = 7;

/// In credits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Balance {
    /// Below zero by what was overdrawn.
    pub(super) earned: f64,
    /// Given at the start, spent first.
    pub(super) launch: f64,
    /// Spent without having it.
    pub(super) surplus: f64,
}

/// By what an instance earns and spends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Terms {
    pub(super) credits: CpuCredits,
    pub(super) vcpus: u32,
}

/// What is known of an instance after a restart of ours, or its own.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Saved {
    pub(super) balance: Balance,
    pub(super) at: Timestamp,
    pub(super) boot: u64,
    /// Seconds of processor time that the boot had used by then.
    pub(super) used: f64,
    /// It was stopped, rather than still running or about to run again.
    pub(super) stopped: bool,
}

impl Terms {
    /// Processors that it may use all the time.
    fn baseline(&self) -> f64 {
        self.credits.per_hour * CREDIT_SECONDS / HOUR_SECONDS
    }

    fn saved_max(&self) -> f64 {
        self.credits.per_hour * SAVED_HOURS
    }
}

impl Balance {
    pub(super) fn at_start(terms: &Terms) -> Balance {
        let launch = if terms.credits.unlimited { 0.0 } else { terms.credits.at_launch };
        Balance { launch, ..Balance::default() }
    }

    /// After it has run for some time and used so much of its processors' time.
    pub(super) fn after(self, terms: &Terms, elapsed: Duration, used: Duration) -> Balance {
        let earned = terms.credits.per_hour * elapsed.as_secs_f64() / HOUR_SECONDS;
        let spent = used.as_secs_f64() / CREDIT_SECONDS;
        if terms.credits.unlimited {
            // Launch credits are for standard instances only.
            let balance = self.earned - self.surplus + earned - spent;
            let balance = balance.clamp(-terms.saved_max(), terms.saved_max());
            return Balance { earned: balance.max(0.0), launch: 0.0, surplus: (-balance).max(0.0) };
        }
        // Surplus from before it was made standard is charged, and so forgotten here.
        let of_launch = self.launch.min(spent);
        let overdraft_max = OVERDRAFT_MAX * f64::from(terms.vcpus);
        let balance = (self.earned + earned - (spent - of_launch)).clamp(-overdraft_max, terms.saved_max());
        Balance { earned: balance, launch: self.launch - of_launch, surplus: 0.0 }
    }

    /// Thousandths of a processor that it may use until it is looked at again; None where it need not be held.
    pub(super) fn share_milli(&self, terms: &Terms, until_next: Duration) -> Option<u32> {
        if terms.credits.unlimited {
            return None;
        }
        let has = (self.earned + self.launch).max(0.0) * CREDIT_SECONDS;
        let share = terms.baseline() + has / until_next.as_secs_f64();
        (share < f64::from(terms.vcpus)).then_some((share * 1000.0).round() as u32)
    }
}

/// The balance with which a boot that has used so much begins, or goes on.
pub(super) fn resumed(
    saved: Option<Saved>,
    terms: &Terms,
    boot: u64,
    used: Duration,
    now: Timestamp,
) -> Balance {
    let Some(saved) = saved else { return Balance::at_start(terms) };
    let elapsed = Duration::try_from(now.duration_since(saved.at)).unwrap_or_default();
    if saved.stopped {
        let is_kept =
            terms.credits.kept_when_stopped && elapsed <= Duration::from_hours(24 * KEPT_DAYS.unsigned_abs());
        return match is_kept {
            true => {
                Balance { earned: saved.balance.earned.min(terms.saved_max()), launch: 0.0, surplus: 0.0 }
            }
            false => Balance::at_start(terms),
        };
    }
    let before = Duration::from_secs_f64(saved.used.max(0.0));
    match (saved.boot == boot).then(|| used.checked_sub(before)).flatten() {
        // It has run on without us.
        Some(used) => saved.balance.after(terms, elapsed, used),
        // It was rebooted.
        None => saved.balance,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const SECOND: Duration = Duration::from_secs(1);

    /// A t3.nano or a t2.nano.
    fn terms(family: &str, unlimited: bool) -> Terms {
        let (per_hour, at_launch, vcpus) = if family == "t2" { (3.0, 30.0, 1) } else { (6.0, 0.0, 2) };
        let kept_when_stopped = family != "t2";
        Terms { credits: CpuCredits { per_hour, at_launch, unlimited, kept_when_stopped }, vcpus }
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-6
    }

    /// EC2 User Guide, "Standard mode examples for burstable instances", example 1: a t3.nano over four days.
    #[test]
    fn the_guides_standard_example() {
        let terms = terms("t3", false);
        let percent = |percent: f64, hours: u32| {
            (HOUR * hours, Duration::from_secs_f64(percent / 100.0 * 2.0 * 3600.0 * f64::from(hours)))
        };
        let mut balance = Balance::at_start(&terms);
        for ((elapsed, used), expected) in [
            // Idle for a day: as full as it gets; more is lost.
            (percent(0.0, 24), 144.0),
            (percent(2.5, 12), 144.0),
            // Above the baseline of 5 %: what is spent beyond what is earned.
            (percent(7.0, 24), 86.4),
            (percent(15.0, 7), 2.4),
        ] {
            balance = balance.after(&terms, elapsed, used);
            assert!(near(balance.earned, expected), "{balance:?} {expected}");
        }
    }

    #[test]
    fn a_standard_instance_without_credits_has_its_baseline_and_no_more() {
        let terms = terms("t3", false);
        let nothing = Balance::at_start(&terms);
        assert_eq!(nothing.share_milli(&terms, SECOND), Some(100));
        // Busy as it may be, it stays there.
        let busy = (0..100).fold(nothing, |balance, _| balance.after(&terms, SECOND, SECOND / 10));
        assert!(near(busy.earned, 0.0));
        // What it saves by a rest it may use.
        let rested = busy.after(&terms, SECOND * 10, Duration::ZERO);
        assert_eq!(rested.share_milli(&terms, SECOND), Some(1100));
        assert_eq!(busy.after(&terms, HOUR, Duration::ZERO).share_milli(&terms, SECOND), None);
        // What it took too much of it first pays back.
        let overdrawn = nothing.after(&terms, SECOND, SECOND);
        assert!(overdrawn.earned < 0.0);
        assert_eq!(overdrawn.share_milli(&terms, SECOND), Some(100));
    }

    #[test]
    fn launch_credits_are_spent_first_and_lost_with_standard_mode() {
        let standard = terms("t2", false);
        let start = Balance::at_start(&standard);
        assert_eq!((start.launch, start.earned), (30.0, 0.0));
        assert_eq!(start.share_milli(&standard, SECOND), None);
        let later = start.after(&standard, HOUR, Duration::from_secs(600));
        assert!(near(later.launch, 20.0) && near(later.earned, 3.0), "{later:?}");
        let unlimited = later.after(&terms("t2", true), SECOND, Duration::ZERO);
        assert!(unlimited.launch == 0.0 && unlimited.earned >= 3.0);
        assert_eq!(Balance::at_start(&terms("t2", true)).launch, 0.0);
    }

    #[test]
    fn an_unlimited_instance_is_never_held_and_pays_back_first() {
        let (unlimited, standard) = (terms("t3", true), terms("t3", false));
        let busy = Balance::at_start(&unlimited).after(&unlimited, HOUR, 2 * HOUR);
        assert!(near(busy.surplus, 114.0) && busy.earned == 0.0, "{busy:?}");
        assert_eq!(busy.share_milli(&unlimited, SECOND), None);
        let more = busy.after(&unlimited, HOUR, 2 * HOUR);
        assert!(near(more.surplus, 144.0), "above a day's earnings it is charged: {more:?}");
        let idle = more.after(&unlimited, 25 * HOUR, Duration::ZERO);
        assert!(near(idle.earned, 6.0) && idle.surplus == 0.0, "{idle:?}");
        // Made standard: the surplus is charged, and it begins with what it has.
        let made_standard = busy.after(&standard, SECOND, Duration::ZERO);
        assert!(made_standard.surplus == 0.0 && made_standard.earned >= 0.0);
    }

    #[test]
    fn credits_outlive_our_restarts_reboots_and_some_stops() {
        let start: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let hour = |hours: u64| Duration::from_hours(hours);
        let after = |hours: u64| start + hour(hours);
        let saved = Saved {
            balance: Balance { earned: 10.0, launch: 5.0, surplus: 0.0 },
            at: start,
            boot: 3,
            used: 60.0,
            stopped: false,
        };
        let (t2, t3) = (terms("t2", false), terms("t3", false));
        let seconds = Duration::from_secs;
        let ran_on = resumed(Some(saved), &t3, 3, seconds(60 + 120), after(1));
        assert!(near(ran_on.launch, 3.0) && near(ran_on.earned, 16.0), "{ran_on:?}");
        for (boot, used) in [(4, 0), (4, 500), (3, 10)] {
            assert_eq!(resumed(Some(saved), &t3, boot, seconds(used), after(1)), saved.balance);
        }
        let stopped = Some(Saved { stopped: true, ..saved });
        let of = |terms: &Terms, hours| resumed(stopped, terms, 4, seconds(0), after(hours));
        assert_eq!(of(&t3, 7 * 24), Balance { earned: 10.0, ..Balance::default() });
        assert_eq!(of(&t3, 7 * 24 + 1), Balance::default());
        assert_eq!(of(&t2, 1), Balance { launch: 30.0, ..Balance::default() });
        // A clock that was set back earns nothing.
        assert!(resumed(Some(saved), &t3, 3, seconds(60), start - hour(1)).earned <= 10.0);
    }

    proptest! {
        #[test]
        fn balances_stay_within_their_bounds(
            steps in proptest::collection::vec((0u32..10_000, 0u32..200_000, any::<bool>()), 1..50),
            is_t2 in any::<bool>(),
        ) {
            let family = if is_t2 { "t2" } else { "t3" };
            let mut balance = Balance::at_start(&terms(family, false));
            for (elapsed, used, unlimited) in steps {
                let terms = terms(family, unlimited);
                let (elapsed, used) = (SECOND * elapsed, Duration::from_millis(used.into()));
                balance = balance.after(&terms, elapsed, used);
                prop_assert!(balance.earned <= terms.saved_max() && balance.surplus <= terms.saved_max());
                prop_assert!(balance.launch >= 0.0 && balance.surplus >= 0.0 && balance.earned >= -1.0);
                let share = balance.share_milli(&terms, SECOND);
                prop_assert!(share.is_none_or(|share| !unlimited && (50..2000).contains(&share)));
            }
        }
    }
}
