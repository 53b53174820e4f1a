//! Whether a principal may do what it asks.
//!
//! The account's root may do everything; nobody else has an identity yet, so everybody else is refused.

use crate::context::Caller;
use aws_api::Service;
use model::{Error, Result};

pub fn authorize(caller: &Caller, service: Service, operation: &str) -> Result<()> {
    if caller.arn == model::Arn::iam(&caller.account, "root").to_string() {
        return Ok(());
    }
    Err(match service {
        Service::Ec2 => {
            Error::new("UnauthorizedOperation", "You are not authorized to perform this operation.")
        }
        _ => Error::new(
            "AccessDenied",
            format!(
                "User: {} is not authorized to perform: {}:{operation}",
                caller.arn,
                service.signing_name()
            ),
        ),
    })
}
