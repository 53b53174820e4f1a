//! Every bound of the edge, with its reason.

use aws_api::Service;
use iam::SkewPolicy;
use std::time::Duration;

/// Request line and headers. A presigned query may carry user data (22 KiB in base64, more once escaped);
/// nothing longer is known to be sent, and an address longer than 64 KiB can't be represented.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;

/// No client sends more than some thirty.
pub const HEADERS_MAX: usize = 100;

/// The form of a query operation: 10,000 parameters of 100 bytes.
pub const FORM_BODY_BYTES_MAX: usize = 1024 * 1024;

/// PutSnapshotBlock carries one block of 512 KiB; the slack is for what a client may put around it.
pub const BLOCK_BODY_BYTES_MAX: usize = (512 + 64) * 1024;

/// What of a body too large is read and thrown away, so that a caller who sends all before he reads gets to
/// see the error. Beyond it the connection is cut.
pub const DISCARDED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Terminating a thousand instances with ten filters each is far below.
pub const PARAMETERS_MAX: usize = 10_000;

/// Together with the body's bound this bounds the memory that callers can hold: 1 GiB, if all send the most.
pub const CONNECTIONS_MAX: usize = 1024;

/// For the whole head, and so also for how long an unused connection stays open: longer than clients' own
/// pools keep theirs between polls, short enough that callers who dribble free their places.
pub const HEAD_READ_TIMEOUT: Duration = Duration::from_secs(60);

/// For the whole body: the largest at 35 KB/s.
pub const BODY_READ_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a caller may leave his answer unread before his place is given to another.
pub const WRITE_STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// What requests under way have to finish once the server is told to stop; operations themselves are stored
/// workflows and go on with the next start.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// What a test or an operator may want otherwise.
#[derive(Clone, Debug)]
pub struct Options {
    pub connections_max: usize,
    pub head_read_timeout: Duration,
    pub body_read_timeout: Duration,
    pub write_stall_timeout: Duration,
    pub shutdown_grace: Duration,
    pub skew: SkewPolicy,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            connections_max: CONNECTIONS_MAX,
            head_read_timeout: HEAD_READ_TIMEOUT,
            body_read_timeout: BODY_READ_TIMEOUT,
            write_stall_timeout: WRITE_STALL_TIMEOUT,
            shutdown_grace: SHUTDOWN_GRACE,
            skew: SkewPolicy::default(),
        }
    }
}

pub(crate) fn body_bytes_max(service: Option<Service>) -> usize {
    match service {
        Some(Service::Ebs) => BLOCK_BODY_BYTES_MAX,
        _ => FORM_BODY_BYTES_MAX,
    }
}
