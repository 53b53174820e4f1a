//! The only crate that touches the machine: processes, namespaces, packet filters, files. Each driver is a small
//! trait; a fake that keeps the same promises stands beside the real one.
//!
//! Invariants: nothing here knows of control or of the agent's protocol; drivers take plain specifications and
//! are idempotent, so that whoever drives them may repeat any call after a crash.

pub mod doctor;
pub mod machine;
pub mod net;
