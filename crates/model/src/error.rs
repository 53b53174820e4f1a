//! One transport-free error for everything a caller may see. The wire form is made at the edge.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An AWS error: the code and message are for the caller, the source is for our log alone.
#[derive(Clone, Debug)]
pub struct Error {
    /// AWS's error code, as `InvalidInstanceID.NotFound`.
    pub code: Cow<'static, str>,
    /// Said to the caller; names the value at fault, never a secret or a cause inside the cloud.
    pub message: String,
    /// HTTP status: 400 unless the code implies another.
    pub status: u16,
    /// The cause, for the log.
    pub source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    pub fn new(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        let code = code.into();
        let status = default_status(&code);
        Error { code, message: message.into(), status, source: None }
    }

    /// A fault of ours: the caller learns only that it happened, the log learns why.
    pub fn internal(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Error {
            source: Some(Arc::from(source.into())),
            ..Error::new("InternalError", "An internal error has occurred")
        }
    }

    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    // The codes that many operations share, so that their messages are alike.

    pub fn missing_parameter(name: &str) -> Self {
        Error::new("MissingParameter", format!("The request must contain the parameter {name}"))
    }

    pub fn unknown_parameter(name: &str) -> Self {
        Error::new("UnknownParameter", format!("The parameter {name} is not recognized"))
    }

    pub fn invalid_parameter_value(message: impl Into<String>) -> Self {
        Error::new("InvalidParameterValue", message)
    }

    pub fn invalid_parameter_combination(message: impl Into<String>) -> Self {
        Error::new("InvalidParameterCombination", message)
    }

    pub fn dry_run() -> Self {
        Error::new("DryRunOperation", "Request would have succeeded, but DryRun flag is set.")
    }

    pub fn is_internal(&self) -> bool {
        self.status >= 500
    }
}

/// The HTTP status EC2 gives with a code (Amazon EC2 API Reference, "Error codes").
fn default_status(code: &str) -> u16 {
    match code {
        "AuthFailure" => 401,
        "DryRunOperation" => 412,
        "UnauthorizedOperation"
        | "SignatureDoesNotMatch"
        | "AccessDenied"
        | "InvalidClientTokenId"
        | "MissingAuthenticationToken"
        | "ExpiredToken"
        | "RequestExpired"
        | "OptInRequired"
        | "AccessDeniedException" => 403,
        "ResourceNotFoundException" => 404,
        "InternalError" | "InternalFailure" | "InternalServerException" => 500,
        "InsufficientInstanceCapacity" | "InsufficientHostCapacity" => 500,
        "RequestLimitExceeded" | "Unavailable" | "ServiceUnavailable" => 503,
        _ => 400,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
