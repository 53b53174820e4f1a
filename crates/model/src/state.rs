//! The states of an instance and the moves between them.
//!
//! ```text
//!            ┌─────────┐  guest runs   ┌─────────┐  StopInstances   ┌──────────┐
//!  Run ────▶ │ pending ├──────────────▶│ running ├─────────────────▶│ stopping │
//!            └──┬───▲──┘               └──┬──▲───┘  guest powers off└────┬─────┘
//!    launch     │   │ StartInstances      │  └─ RebootInstances          │ host done
//!    fails      │   │                     │ TerminateInstances           ▼
//!               │   └─────────────────────│───────────────────────┬─────────┐
//!               ▼                         ▼     TerminateInstances│ stopped │
//!         ┌───────────────┐  host done  ┌────────────┐            └────┬────┘
//!         │ shutting-down ├────────────▶│ terminated │◀── (through shutting-down)
//!         └───────────────┘             └────────────┘
//! ```
//! (Amazon EC2 User Guide, "Amazon EC2 instance state changes".)

use serde::{Deserialize, Serialize};
use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceState {
    Pending,
    Running,
    Stopping,
    Stopped,
    ShuttingDown,
    Terminated,
}

/// What may happen to an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transition {
    /// StartInstances.
    Start,
    /// StopInstances, or the guest powered itself off.
    Stop,
    /// RebootInstances.
    Reboot,
    /// TerminateInstances, or a launch that failed.
    Terminate,
    /// The host reports the guest running.
    HostRunning,
    /// The host reports the guest stopped, its disks released.
    HostStopped,
    /// The host reports nothing of the instance left.
    HostRemoved,
}

impl InstanceState {
    pub const ALL: [InstanceState; 6] = [
        InstanceState::Pending,
        InstanceState::Running,
        InstanceState::Stopping,
        InstanceState::Stopped,
        InstanceState::ShuttingDown,
        InstanceState::Terminated,
    ];

    /// The state after `transition`; None where EC2 answers `IncorrectInstanceState`.
    pub fn after(self, transition: Transition) -> Option<InstanceState> {
        use InstanceState::*;
        match (self, transition) {
            (Stopped, Transition::Start) => Some(Pending),
            (Pending | Running, Transition::Start) => Some(self),
            (Stopping | ShuttingDown | Terminated, Transition::Start) => None,

            (Running | Pending | Stopping, Transition::Stop) => Some(Stopping),
            (Stopped, Transition::Stop) => Some(Stopped),
            (ShuttingDown | Terminated, Transition::Stop) => None,

            (Running | Pending, Transition::Reboot) => Some(self),
            (Stopping | Stopped | ShuttingDown | Terminated, Transition::Reboot) => None,

            (Terminated, Transition::Terminate) => Some(Terminated),
            (Pending | Running | Stopping | Stopped | ShuttingDown, Transition::Terminate) => {
                Some(ShuttingDown)
            }

            (Pending | Running, Transition::HostRunning) => Some(Running),
            (Stopping | Stopped | ShuttingDown | Terminated, Transition::HostRunning) => None,

            (Stopping, Transition::HostStopped) => Some(Stopped),
            (Stopped, Transition::HostStopped) => Some(Stopped),
            (Pending | Running, Transition::HostStopped) => Some(Stopped),
            (ShuttingDown | Terminated, Transition::HostStopped) => None,

            (ShuttingDown | Terminated, Transition::HostRemoved) => Some(Terminated),
            (Pending | Running | Stopping | Stopped, Transition::HostRemoved) => None,
        }
    }

    /// The low byte of the API's state code.
    pub const fn code(self) -> i32 {
        match self {
            InstanceState::Pending => 0,
            InstanceState::Running => 16,
            InstanceState::ShuttingDown => 32,
            InstanceState::Terminated => 48,
            InstanceState::Stopping => 64,
            InstanceState::Stopped => 80,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            InstanceState::Pending => "pending",
            InstanceState::Running => "running",
            InstanceState::ShuttingDown => "shutting-down",
            InstanceState::Terminated => "terminated",
            InstanceState::Stopping => "stopping",
            InstanceState::Stopped => "stopped",
        }
    }
}

impl fmt::Display for InstanceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_terminated() {
        for transition in [
            Transition::Start,
            Transition::Stop,
            Transition::Reboot,
            Transition::Terminate,
            Transition::HostRunning,
            Transition::HostStopped,
            Transition::HostRemoved,
        ] {
            let after = InstanceState::Terminated.after(transition);
            assert!(matches!(after, None | Some(InstanceState::Terminated)), "{transition:?}");
        }
    }

    #[test]
    fn terminate_is_legal_from_everywhere() {
        for state in InstanceState::ALL {
            assert!(state.after(Transition::Terminate).is_some());
        }
    }
}
