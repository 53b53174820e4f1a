//! What shall be done next about an instance: one pure function of what is desired and what there is.
//!
//! ```text
//!               Start                    Shutdown, End, or it ended by itself
//!   Absent ───────────────▶ Running(b) ──────────────────────────────────────▶ Stopped(b, cause)
//!     ▲         │              ▲                                                  │         │
//!     │         ▼              └──────────────── Start, where a higher boot is ◀──┘         │
//!     │     Failed(b) ────────────────────────── desired                                    │
//!     └────────┴──────────────────────── Forget, where nothing of it shall be ◀─────────────┘
//! ```
//!
//! Invariant: a boot that ran, or failed, is never started a second time; only a higher number is.

use agent_api::{InstanceObservation, Power, StopCause};

/// What there is of an instance on this host.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Actual {
    Absent,
    Running { boot: u64 },
    Stopped { boot: u64, cause: StopCause },
    Failed { boot: u64, message: String },
}

/// What is desired of an instance, as far as its life is concerned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Wanted {
    pub power: Power,
    pub boot: u64,
}

impl Wanted {
    fn is_gone(self) -> bool {
        matches!(self.power, Power::Gone | Power::GoneForced)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Step {
    /// All is as desired.
    Rest,
    Start {
        boot: u64,
    },
    /// Ask the guest to power off, wait, then end it.
    Shutdown(Why),
    /// End it at once.
    End,
    /// Remove what is left of it.
    Forget,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Why {
    Reboot,
    Stop,
}

/// The next step from `actual` towards `wanted` (None: nothing of it shall be here).
pub(crate) fn next_step(wanted: Option<Wanted>, actual: &Actual) -> Step {
    let Some(wanted) = wanted else {
        return match actual {
            Actual::Absent => Step::Rest,
            Actual::Running { .. } => Step::End,
            Actual::Stopped { .. } | Actual::Failed { .. } => Step::Forget,
        };
    };
    match (wanted.power, actual) {
        (Power::On, Actual::Absent) => Step::Start { boot: wanted.boot },
        (Power::On, Actual::Running { boot }) if *boot < wanted.boot => Step::Shutdown(Why::Reboot),
        (Power::On, Actual::Stopped { boot, .. } | Actual::Failed { boot, .. }) if *boot < wanted.boot => {
            Step::Start { boot: wanted.boot }
        }
        (Power::On, _) => Step::Rest,
        (Power::Off | Power::Gone, Actual::Running { .. }) => Step::Shutdown(Why::Stop),
        (Power::OffForced | Power::GoneForced, Actual::Running { .. }) => Step::End,
        (Power::Gone | Power::GoneForced, Actual::Stopped { .. } | Actual::Failed { .. }) => Step::Forget,
        (Power::Off | Power::OffForced | Power::Gone | Power::GoneForced, _) => Step::Rest,
    }
}

/// What is told of an instance that rests, and which boot it is about.
pub(crate) fn observation(wanted: Option<Wanted>, actual: &Actual) -> (u64, InstanceObservation) {
    let called_off = wanted.filter(|wanted| wanted.power != Power::On).map(|wanted| wanted.boot);
    match actual {
        // A boot that was called off before it began is as good as stopped; of the one before all has been told.
        Actual::Stopped { boot, .. } | Actual::Failed { boot, .. } if called_off > Some(*boot) => {
            (called_off.unwrap_or(*boot), InstanceObservation::Stopped(StopCause::Asked))
        }
        Actual::Running { boot } => (*boot, InstanceObservation::Running),
        Actual::Stopped { boot, cause } => (*boot, InstanceObservation::Stopped(cause.clone())),
        Actual::Failed { boot, message } => (*boot, InstanceObservation::Failed { message: message.clone() }),
        Actual::Absent => match wanted {
            // Never started here and not to be: as good as stopped.
            Some(wanted) if !wanted.is_gone() => {
                (wanted.boot, InstanceObservation::Stopped(StopCause::Asked))
            }
            Some(_) | None => (0, InstanceObservation::Removed),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_actual() -> impl Strategy<Value = Actual> {
        prop_oneof![
            Just(Actual::Absent),
            (0u64..4).prop_map(|boot| Actual::Running { boot }),
            (0u64..4).prop_map(|boot| Actual::Stopped { boot, cause: StopCause::Guest }),
            (0u64..4).prop_map(|boot| Actual::Failed { boot, message: String::new() }),
        ]
    }

    fn any_wanted() -> impl Strategy<Value = Option<Wanted>> {
        let power = prop_oneof![
            Just(Power::On),
            Just(Power::Off),
            Just(Power::OffForced),
            Just(Power::Gone),
            Just(Power::GoneForced)
        ];
        proptest::option::of((power, 0u64..4).prop_map(|(power, boot)| Wanted { power, boot }))
    }

    fn carried_out(actual: Actual, step: Step) -> Actual {
        match (step, actual) {
            (Step::Start { boot }, _) => Actual::Running { boot },
            (Step::Shutdown(_) | Step::End, Actual::Running { boot }) => {
                Actual::Stopped { boot, cause: StopCause::Asked }
            }
            (Step::Forget, _) => Actual::Absent,
            (step, actual) => panic!("{step:?} is no step from {actual:?}"),
        }
    }

    /// A start and a stop that the host hears of together: without this control would wait for the stop for ever.
    #[test]
    fn a_boot_that_was_called_off_is_told_to_be_stopped() {
        let ended = Actual::Stopped { boot: 1, cause: StopCause::Guest };
        let failed = Actual::Failed { boot: 1, message: String::new() };
        let stopped = |boot, cause| (boot, InstanceObservation::Stopped(cause));
        for power in [Power::Off, Power::OffForced] {
            let wanted = |boot| Some(Wanted { power, boot });
            assert_eq!(observation(wanted(2), &ended), stopped(2, StopCause::Asked));
            assert_eq!(observation(wanted(2), &failed), stopped(2, StopCause::Asked));
            assert_eq!(observation(wanted(1), &ended), stopped(1, StopCause::Guest));
        }
    }

    proptest! {
        #[test]
        fn every_way_ends_at_rest_and_starts_at_most_once(wanted in any_wanted(), from in any_actual()) {
            let mut actual = from;
            let mut starts = 0;
            for _ in 0..4 {
                let step = next_step(wanted, &actual);
                if step == Step::Rest {
                    break;
                }
                starts += usize::from(matches!(step, Step::Start { .. }));
                actual = carried_out(actual, step);
            }
            prop_assert_eq!(next_step(wanted, &actual), Step::Rest);
            prop_assert!(starts <= 1);
            let runs = matches!(actual, Actual::Running { .. });
            prop_assert!(!runs || wanted.is_some_and(|wanted| wanted.power == Power::On));
            prop_assert!(wanted.is_some_and(|wanted| !wanted.is_gone()) || actual == Actual::Absent);
            let is_removed = observation(wanted, &actual).1 == InstanceObservation::Removed;
            prop_assert_eq!(is_removed, wanted.is_none_or(Wanted::is_gone));
        }

        #[test]
        fn a_boot_that_ended_is_not_started_again(boot in 0u64..4, wanted in any_wanted()) {
            let ended = Actual::Stopped { boot, cause: StopCause::Guest };
            if let Step::Start { boot: started } = next_step(wanted, &ended) {
                prop_assert!(started > boot);
            }
        }
    }
}
