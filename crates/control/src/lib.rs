//! The control plane: one file per AWS resource, the mechanisms they share in `engine`, and the reconcilers that
//! keep hosts at what the records say.
//!
//! Invariants: never sees HTTP, never touches the machine; hosts are reached through `agent_api` alone; state is
//! what the store holds, and nothing that matters lives in a task's memory.

mod access_key;
pub mod address;
pub mod attachment;
mod authorization;
mod block_device;
pub mod cidr;
mod context;
pub mod dedicated_host;
mod default_vpc;
mod description;
pub mod dhcp_options;
pub mod ebs_direct;
pub mod egress_only_internet_gateway;
pub mod encryption;
pub mod engine;
pub mod event;
pub mod host_names;
pub mod image;
pub mod instance;
pub mod instance_type;
pub mod internet_gateway;
pub mod key_pair;
pub mod location;
pub mod nat_gateway;
pub mod network_acl;
pub mod network_insights;
pub mod network_interface;
mod operations;
pub mod operator;
pub mod placement;
pub mod placement_group;
pub mod prefix_list;
pub mod public_address;
mod public_pool;
mod reconcile;
pub mod region;
pub mod replace_root_volume_task;
pub mod route_table;
mod sealed;
pub mod security_group;
mod sharing;
pub mod snapshot;
pub mod sts;
pub mod subnet;
mod sweep;
pub mod tag;
mod uefi_data;
pub mod volume;
pub mod vpc;
pub mod vpc_block_public_access;
pub mod vpc_endpoint;
pub mod vpc_peering_connection;
pub mod workflow;

pub use access_key::RootKey;
pub use context::{Caller, Context};

use agent_api::{HostAgent, SnapshotStore};
use async_trait::async_trait;
pub use engine::Quotas;
pub use engine::throttle::Rates;
use ipnet::Ipv4Net;
use model::{AccountId, Environment, Error, Region, Result};
use parking_lot::RwLock;
use region::RegionState;
use std::collections::HashMap;
use std::sync::Arc;
use store::Store;

/// What the operator decided.
#[derive(Clone, Debug)]
pub struct Options {
    pub account: AccountId,
    /// The region that is there from the start; the only one of a real cloud.
    pub region: Region,
    /// Every AWS region exists, each made when it is first asked for.
    pub simulate: bool,
    /// Zones of each region.
    pub zones: usize,
    /// Where public addresses come from.
    pub public_pool: Ipv4Net,
    /// Encrypts secrets at rest.
    pub encryption_key: [u8; 32],
    pub limits: Limits,
}

/// How much callers may have and ask for.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    pub quotas: Quotas,
    pub rates: Rates,
}

/// Where a region's hosts come from.
#[async_trait]
pub trait HostSource: Send + Sync {
    async fn hosts(&self, region: &Region) -> Result<Vec<Arc<dyn HostAgent>>>;
}

pub struct Control {
    pub options: Options,
    pub environment: Environment,
    pub store: Arc<dyn Store>,
    pub snapshots: Arc<dyn SnapshotStore>,
    host_source: Arc<dyn HostSource>,
    access_keys: access_key::AccessKeys,
    regions: RwLock<HashMap<Region, Arc<RegionState>>>,
    /// Held while a region is made, so that two first callers make one.
    opening: tokio::sync::Mutex<()>,
}

impl Control {
    /// Opens the cloud that `store` holds, or makes it; `root_key` is used where there is none yet.
    pub async fn start(
        options: Options,
        environment: Environment,
        store: Arc<dyn Store>,
        snapshots: Arc<dyn SnapshotStore>,
        host_source: Arc<dyn HostSource>,
        root_key: Option<RootKey>,
    ) -> Result<Arc<Control>> {
        let access_keys = access_key::AccessKeys::open(&*store, &options, &environment, root_key).await?;
        let control = Arc::new(Control {
            options,
            environment,
            store,
            snapshots,
            host_source,
            access_keys,
            regions: RwLock::default(),
            opening: tokio::sync::Mutex::new(()),
        });
        control.region(&control.options.region.clone()).await?;
        Ok(control)
    }

    pub fn credentials(&self) -> &dyn iam::Credentials {
        &self.access_keys
    }

    /// The root's access key, for the operator's own file.
    pub fn root_key(&self) -> &RootKey {
        self.access_keys.root()
    }

    pub fn region_exists(&self, region: &Region) -> bool {
        *region == self.options.region || (self.options.simulate && Region::AWS.contains(&region.as_str()))
    }

    /// The region, made with its default VPC when it is first asked for.
    pub async fn region(self: &Arc<Self>, name: &Region) -> Result<Arc<RegionState>> {
        if let Some(region) = self.regions.read().get(name) {
            return Ok(region.clone());
        }
        if !self.region_exists(name) {
            return Err(Error::new(
                "AuthFailure",
                format!("Credential should be scoped to a valid region, not '{name}'."),
            ));
        }
        let _opening = self.opening.lock().await;
        if let Some(region) = self.regions.read().get(name) {
            return Ok(region.clone());
        }
        let hosts = self.host_source.hosts(name).await?;
        let region = region::open(self, name, hosts).await?;
        self.regions.write().insert(name.clone(), region.clone());
        reconcile::start(self, &region);
        sweep::start(self, &region);
        workflow::start(self, &region);
        event::start(self, &region);
        Ok(region)
    }

    /// The regions that somebody has asked for.
    pub fn open_regions(&self) -> Vec<Arc<RegionState>> {
        self.regions.read().values().cloned().collect()
    }

    /// Whether no instance takes up a host.
    pub fn is_idle(&self) -> bool {
        self.open_regions()
            .iter()
            .all(|region| region.view.read().instances.iter().all(|instance| !instance.occupies_host()))
    }

    /// Stops all instances, everywhere, and returns when they have.
    pub async fn stop_all_instances(&self) -> Result<()> {
        for region in self.open_regions() {
            instance::lifecycle::stop_all(self, &region).await?;
        }
        Ok(())
    }
}
