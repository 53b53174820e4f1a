//! What a host found or did.

use crate::Architecture;
use model::{Id, Timestamp};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// What a host is and can hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostDescription {
    /// Stable over restarts.
    pub host_id: String,
    pub protocol_version: u32,
    pub architecture: Architecture,
    pub cores: u32,
    /// What instances may use of it.
    pub memory_mib: u64,
    pub disk_gib: u64,
    /// The zone's letter as an index: 0 is `a`.
    pub zone: u32,
    /// Unique within its zone.
    pub rack: String,
    /// `kvm` or `tcg`, as proved by running a guest.
    pub acceleration: String,
    /// Its network interfaces, as they were when it started.
    #[serde(default)]
    pub links: Vec<HostLink>,
}

/// A network interface of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostLink {
    pub name: String,
    pub addresses: Vec<Ipv4Addr>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Observation {
    Instance(ObservedInstance),
    Volume { volume_id: Id, state: VolumeState },
}

/// A volume as its host has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum VolumeState {
    /// Whole, and of this size. Told again once it has grown.
    Ready { size_gib: u32 },
    /// It could not be made, or not be made larger.
    Failed { message: String },
    /// It was whole, and is not here any more.
    Lost,
    /// Nothing of it is left.
    Removed,
}

/// What a volume lacks that is used before all is there that it is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfilled {
    pub bytes_left: u64,
    /// Of what there is to come at all.
    pub bytes: u64,
}

impl Unfilled {
    /// Never a hundred: something is missing.
    pub fn percent_there(self) -> u8 {
        let there = self.bytes.saturating_sub(self.bytes_left);
        (there.saturating_mul(100) / self.bytes.max(1)).min(99) as u8
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObservedInstance {
    pub instance_id: Id,
    /// The start or reboot that this is about.
    pub boot: u64,
    pub state: InstanceObservation,
    /// Of one that runs. None where nothing is known yet: what was told of this boot before still holds.
    #[serde(default)]
    pub checks: Option<StatusChecks>,
    /// What is known of disks and secondary interfaces that are desired of it. Those that a machine starts with are
    /// attached once it runs.
    #[serde(default)]
    pub devices: Vec<ObservedDevice>,
}

/// What the checks of a running instance have found lately (EC2 User Guide, "Status checks for Amazon EC2
/// instances").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusChecks {
    /// The host runs the machine, and its network reaches it.
    pub system: Check,
    /// The guest answers on its network interface.
    pub instance: Check,
    /// Its volumes take reads and writes.
    pub attached_ebs: Check,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Check {
    /// It has not passed yet, and is given time to start.
    Initializing,
    Passed,
    /// Several times in a row. Since the first of them or, where it has never passed, since the start.
    Failed {
        since: Since,
    },
}

/// A moment, to the second: there is one for every check of every instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Since(u32);

impl From<Timestamp> for Since {
    fn from(at: Timestamp) -> Since {
        Since(at.as_second().try_into().unwrap_or(0))
    }
}

impl Since {
    /// So many after 1970 began.
    pub const fn seconds(seconds: u32) -> Since {
        Since(seconds)
    }

    pub fn timestamp(self) -> Timestamp {
        Timestamp::from_second(self.0.into()).unwrap_or_default()
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObservedDevice {
    /// A volume's or an interface's.
    pub device_id: Id,
    pub state: PlugState,
}

/// Of what a running guest may be given and shall let go of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PlugState {
    /// The guest has it.
    Attached,
    /// It could not be given to the guest.
    Failed { message: String },
    /// The guest was asked to let go of it, and has not yet.
    Busy,
    /// The guest has it no more; it may be left out from now on.
    Detached,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum InstanceObservation {
    /// Volumes, interfaces or the machine are being made.
    Preparing,
    /// The machine runs.
    Running,
    /// The machine does not run; its volumes are released and whole.
    Stopped(StopCause),
    /// It could not be started.
    Failed { message: String },
    /// Nothing of it is left but its volumes.
    Removed,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopCause {
    /// Because `power` said so.
    Asked,
    /// The guest powered itself off.
    Guest,
    /// The machine ended without being asked: killed, crashed, or the host lost power.
    Lost { message: String },
}
