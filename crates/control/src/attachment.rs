//! How far a guest is with having a volume or a network interface.

use agent_api::{Detach, PlugState};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttachmentState {
    Attaching,
    #[default]
    Attached,
    Detaching {
        forced: bool,
        /// The guest was asked to let go of it, and has not yet.
        busy: bool,
    },
}

/// What becomes of an attachment by what its host says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Goes(AttachmentState),
    /// The guest has it no more, or never had.
    Over,
}

impl AttachmentState {
    /// Of something that is given to an instance: one that does not run has it at once.
    pub fn begin(is_running: bool) -> AttachmentState {
        if is_running { AttachmentState::Attaching } else { AttachmentState::Attached }
    }

    /// Once it was asked for back.
    pub fn detach(self, force: bool) -> AttachmentState {
        match self {
            AttachmentState::Detaching { forced, busy } => {
                AttachmentState::Detaching { forced: forced || force, busy }
            }
            AttachmentState::Attaching | AttachmentState::Attached => {
                AttachmentState::Detaching { forced: force, busy: false }
            }
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            AttachmentState::Attaching => "attaching",
            AttachmentState::Attached => "attached",
            AttachmentState::Detaching { busy: false, .. } => "detaching",
            AttachmentState::Detaching { busy: true, .. } => "busy",
        }
    }

    /// How its host is told that the guest shall let go of it.
    pub fn to_desired(self) -> Option<Detach> {
        match self {
            AttachmentState::Detaching { forced: true, .. } => Some(Detach::Forced),
            AttachmentState::Detaching { forced: false, .. } => Some(Detach::Asked),
            AttachmentState::Attaching | AttachmentState::Attached => None,
        }
    }

    /// None where what the host says is no news.
    pub fn told(self, told: &PlugState) -> Option<Outcome> {
        match (told, self) {
            (PlugState::Attached, AttachmentState::Attaching) => {
                Some(Outcome::Goes(AttachmentState::Attached))
            }
            (PlugState::Busy, AttachmentState::Detaching { forced, busy: false }) => {
                Some(Outcome::Goes(AttachmentState::Detaching { forced, busy: true }))
            }
            (PlugState::Detached, AttachmentState::Detaching { .. })
            | (PlugState::Failed { .. }, AttachmentState::Attaching) => Some(Outcome::Over),
            _ => None,
        }
    }

    /// No guest runs that could have it, or not have it yet: what was under way is over.
    pub fn settled(self) -> Option<Outcome> {
        match self {
            AttachmentState::Attaching => Some(Outcome::Goes(AttachmentState::Attached)),
            AttachmentState::Attached => None,
            AttachmentState::Detaching { .. } => Some(Outcome::Over),
        }
    }
}
