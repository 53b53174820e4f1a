//! How fast something may go: said by control, kept to by hosts.

use serde::{Deserialize, Serialize};

/// How fast a disk may be read and written, both together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskLimits {
    pub operations: Rate,
    pub bytes: Rate,
    /// A longer operation counts as several.
    pub operation_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// In the long run.
    pub per_second: u64,
    pub burst: Option<Burst>,
}

/// A higher rate that what was saved lasts for. What lasts so long at this rate can be saved, and is at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Burst {
    pub per_second: u64,
    pub seconds: u64,
}
