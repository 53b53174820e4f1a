//! What the edge needs of the cloud behind it.

use async_trait::async_trait;
use aws_api::Service;
use iam::{Credentials, Identity};
use model::{Region, Result, Timestamp};
use std::net::IpAddr;

#[async_trait]
pub trait Api: Send + Sync {
    fn credentials(&self) -> &dyn Credentials;

    fn now(&self) -> Timestamp;

    /// In the form of a UUID version 4, as AWS's are.
    fn new_request_id(&self) -> String;

    /// Where requests to a global service are at home.
    fn default_region(&self) -> Region;

    fn region_exists(&self, region: &Region) -> bool;

    /// What is counted and measured, in Prometheus's text format.
    fn metrics(&self) -> String;

    /// Runs an operation for a caller whose signature was found good; whether he may is for the callee to say.
    async fn call(
        &self,
        caller: Caller,
        service: Service,
        operation: &str,
        request: aws_api::Request,
    ) -> Result<aws_api::Response>;
}

/// Who calls, where to, and from where.
#[derive(Clone, Debug)]
pub struct Caller {
    pub identity: Identity,
    /// One that exists: for a global service, the default one.
    pub region: Region,
    pub request_id: String,
    pub source_ip: IpAddr,
}
