//! Who asks, where, and what every handler needs of the cloud.

use crate::Control;
use crate::engine::token::Idempotent;
use crate::engine::{Tables, Tx, transaction};
use crate::region::RegionState;
use aws_api::{Request, Service};
use model::{AccountId, Arn, Error, Region, Result};
use parking_lot::RwLockReadGuard;
use sha2::{Digest, Sha256};
use std::ops::Deref;
use std::sync::Arc;

/// An authenticated caller and its request.
#[derive(Clone, Debug)]
pub struct Caller {
    pub account: AccountId,
    /// `arn:aws:iam::…:root`, a user's or a session's.
    pub arn: String,
    pub user_id: String,
    pub region: Region,
    pub request_id: String,
    pub source_ip: std::net::IpAddr,
}

/// What a handler works with.
pub struct Context {
    pub control: Arc<Control>,
    pub caller: Caller,
    pub region: Arc<RegionState>,
    operation: &'static str,
    /// Whether the call shall only tell whether it would succeed.
    pub dry_run: bool,
    idempotent: Option<Idempotent>,
}

impl Context {
    pub async fn new(control: Arc<Control>, caller: Caller, operation: &'static str) -> Result<Context> {
        let region = control.region(&caller.region).await?;
        Ok(Context { control, caller, region, operation, dry_run: false, idempotent: None })
    }

    /// Ties the request's client token, if any, to its operation and parameters.
    pub fn set_client_token(
        &mut self,
        token: Option<&str>,
        service: Service,
        request: &Request,
    ) -> Result<()> {
        let parameters = if token.is_some() { digest(service, request) } else { String::new() };
        self.idempotent = Some(Idempotent::new(self.operation, token, parameters)?);
        Ok(())
    }

    pub fn idempotent(&self) -> Result<Idempotent> {
        match &self.idempotent {
            Some(idempotent) => Ok(idempotent.clone()),
            None => Idempotent::new(self.operation, None, String::new()),
        }
    }

    /// The region's records as they are now. Never hold it over an await.
    pub fn tables(&self) -> RwLockReadGuard<'_, Tables> {
        self.region.view.read()
    }

    /// All that a handler changes goes through here, so that a dry run ends here.
    pub async fn transact<R>(&self, mut attempt: impl FnMut(&mut Tx<'_>) -> Result<R>) -> Result<R> {
        let (store, view) = (&*self.control.store, &self.region.view);
        let request_id = Some(self.caller.request_id.as_str());
        let attempt = |tx: &mut Tx<'_>| match attempt(tx) {
            Ok(_) if self.dry_run => Err(Error::dry_run()),
            done => done,
        };
        transaction::transact_for(request_id, store, view, &self.control.environment, attempt).await
    }

    pub fn account(&self) -> &AccountId {
        &self.caller.account
    }

    pub fn arn(&self, resource_type: &str, id: &str) -> String {
        Arn::ec2(&self.region.view.region, &self.caller.account, resource_type, id).to_string()
    }
}

impl Deref for Context {
    type Target = Control;
    fn deref(&self) -> &Control {
        &self.control
    }
}

/// Parameters that do not say what is wanted: who asks, and the token itself.
fn is_about_the_call(name: &str) -> bool {
    matches!(name, "ClientToken" | "AWSAccessKeyId" | "Timestamp" | "SecurityToken")
        || name.starts_with("X-Amz-")
}

/// The same for every request that wants the same, in whatever order its parameters come.
fn digest(service: Service, request: &Request) -> String {
    let mut parameters: Vec<_> = request.params.iter().filter(|(name, _)| !is_about_the_call(name)).collect();
    parameters.sort();
    let mut hasher = Sha256::new();
    for (name, value) in parameters {
        for part in [name, value] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    }
    // Of the other services a body is a form, and its parameters are among those above.
    if service == Service::Ebs {
        hasher.update(&request.body);
    }
    hex::encode(hasher.finalize())
}
