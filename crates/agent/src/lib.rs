//! One host of the cloud: makes real what control desires and says what it observes.
//!
//! ```text
//!   Desired ──▶ Agent ──▶ instance tasks ──▶ host::machine     (processes)
//!                 │   └─▶ volumes        ──▶ Disks             (files)
//!                 └─────▶ network        ──▶ host::net         (namespaces, taps, filters)
//!                            └─▶ per VPC: metadata · DHCP · DNS, for the guests
//! ```
//!
//! Invariants: nothing here knows of the store or of HTTP towards users; the machine is touched through `host`
//! and `Disks` only; nothing is removed before control has said what shall be (`HostAgent::replace`); what shall
//! happen next to an instance is decided in one pure function (`lifecycle`) for the real and the simulated host.

mod agent;
mod backend;
mod credits;
mod dhcp;
mod dhcp6;
mod dns;
#[cfg(test)]
mod doubles;
#[cfg(test)]
mod examples;
mod filling;
mod freeze;
mod instance;
mod lifecycle;
mod limits;
mod link_socket;
mod local_disks;
mod metadata;
mod network;
mod observations;
mod plug;
mod router_advertisement;
mod scratch;
mod services;
mod sharing;
mod simulated;
mod snapshots;
mod status;
mod tasks;
#[cfg(test)]
mod tests;
mod time;
mod volumes;

pub use agent::{Agent, AgentOptions, StartError};
pub use backend::{Backend, Tidied};
pub use filling::{Fill, ServedLayer};
pub use freeze::Freeze;
pub use local_disks::LocalDisks;
pub use simulated::{SimulatedHost, SimulatedOptions};
pub use snapshots::MemorySnapshots;
pub use volumes::{DiskError, DiskFile, Disks};
