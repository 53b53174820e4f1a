//! The nouns everything else is said in: ids, ARNs, regions, states and their transitions, the error type,
//! and the two sources of non-determinism (clock and randomness), injected so that one seed replays a cloud.
//!
//! Invariant: no IO and no async here; every other crate may depend on this one.

mod arn;
mod environment;
mod error;
mod id;
mod ip_name;
mod key;
mod rate;
mod region;
mod state;
mod uefi;

pub use arn::{AccountId, Arn};
pub use environment::{Clock, Environment, ManualClock, Random, SeededRandom, SystemClock, SystemRandom};
pub use error::{Error, Result};
pub use id::{Id, Kind};
pub use ip_name::IpName;
pub use key::{DiskKey, SecretKey};
pub use rate::{Burst, DiskLimits, Rate};
pub use region::Region;
pub use state::{InstanceState, Transition};
pub use uefi::UefiVariable;

/// Re-exported so that the whole project speaks of one timestamp type.
pub use jiff::Timestamp;

/// Text that is mostly short: up to 24 bytes stay where it is, without an allocation. Records are made of it.
pub use compact_str::CompactString as Text;
