//! The in-memory view of one region: a table for every kind of record, fed by the store's watch and by nothing
//! else.

use crate::engine::quota::Quotas;
use crate::engine::table::{Record, Table};
use crate::instance::Instance;
use crate::placement::{Load, Tenants};
use model::{Id, Region};
use parking_lot::{RwLock, RwLockReadGuard};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use store::{Batch, Event, Revision};
use tokio::sync::{broadcast, watch};

/// Declares the tables of a region once: storage, typed lookup, decoding and change notice follow from it.
macro_rules! tables {
    ($($field:ident: $record:ty as $variant:ident),+ $(,)?) => {
        #[derive(Default)]
        pub struct Tables {
            $(pub $field: Table<$record>,)+
            /// What instances take of each host.
            pub loads: Loads,
        }

        /// What became of one record. `old` is None for a new one, `new` for a deleted one.
        #[derive(Clone)]
        pub enum Change {
            $($variant { old: Option<Arc<$record>>, new: Option<Arc<$record>> }),+
        }

        impl Change {
            /// The record's table and id, and whether it is new or gone.
            pub fn of(&self) -> (&'static str, &str, Was) {
                match self {
                    $(Change::$variant { old, new } => {
                        let id = new.as_ref().or(old.as_ref()).map_or("", |record| record.id());
                        let was = match (old, new) {
                            (None, _) => Was::Created,
                            (_, None) => Was::Deleted,
                            _ => Was::Changed,
                        };
                        (<$record>::TABLE, id, was)
                    })+
                }
            }
        }

        $(impl Has<$record> for Tables {
            fn table(&self) -> &Table<$record> { &self.$field }
        })+

        impl Tables {
            /// None where this build knows no such table (written by a newer one) or the bytes do not decode.
            fn put(&mut self, table: &str, value: &[u8], revision: Revision) -> Option<Change> {
                match table {
                    $(<$record>::TABLE => {
                        let record: $record = serde_json::from_slice(value)
                            .inspect_err(|error| tracing::error!(table, %error, "a stored record does not decode"))
                            .ok()?;
                        let (old, new) = self.$field.put(record, revision);
                        Some(Change::$variant { old, new: Some(new) })
                    })+
                    _ => None,
                }
            }

            /// How many records a table has.
            pub(crate) fn len_of(&self, table: &str) -> usize {
                match table {
                    $(<$record>::TABLE => self.$field.len(),)+
                    _ => 0,
                }
            }

            fn delete(&mut self, table: &str, id: &str) -> Option<Change> {
                match table {
                    $(<$record>::TABLE => {
                        let old = self.$field.delete(id)?;
                        Some(Change::$variant { old: Some(old), new: None })
                    })+
                    _ => None,
                }
            }
        }
    };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Was {
    Created,
    Changed,
    Deleted,
}

/// Typed access to a region's tables.
pub trait Has<T: Record> {
    fn table(&self) -> &Table<T>;
}

tables! {
    claims: crate::engine::Claim as Claim,
    client_tokens: crate::engine::token::ClientToken as ClientToken,
    instances: crate::instance::Instance as Instance,
    volumes: crate::volume::Volume as Volume,
    encryption_settings: crate::encryption::EncryptionSettings as EncryptionSettings,
    snapshot_settings: crate::snapshot::public_access::SnapshotSettings as SnapshotSettings,
    fast_snapshot_restores: crate::snapshot::fast_restore::FastSnapshotRestore as FastSnapshotRestore,
    replace_root_volume_tasks: crate::replace_root_volume_task::ReplaceRootVolumeTask as ReplaceRootVolumeTask,
    snapshots: crate::snapshot::Snapshot as Snapshot,
    images: crate::image::Image as Image,
    image_usage_reports: crate::image::usage_report::ImageUsageReport as ImageUsageReport,
    image_settings: crate::image::public_access::ImageSettings as ImageSettings,
    key_pairs: crate::key_pair::KeyPair as KeyPair,
    vpcs: crate::vpc::Vpc as Vpc,
    subnets: crate::subnet::Subnet as Subnet,
    subnet_cidr_reservations: crate::subnet::reservation::SubnetCidrReservation as SubnetCidrReservation,
    ipv6_blocks: crate::subnet::ipv6_block::Ipv6Block as Ipv6Block,
    security_groups: crate::security_group::SecurityGroup as SecurityGroup,
    addresses: crate::address::Address as Address,
    public_pools: crate::public_pool::PublicPool as PublicPool,
    released_addresses: crate::public_address::ReleasedAddress as ReleasedAddress,
    nat_gateways: crate::nat_gateway::NatGateway as NatGateway,
    network_interfaces: crate::network_interface::NetworkInterface as NetworkInterface,
    network_interface_permissions: crate::network_interface::permission::NetworkInterfacePermission as NetworkInterfacePermission,
    route_tables: crate::route_table::RouteTable as RouteTable,
    egress_only_internet_gateways: crate::egress_only_internet_gateway::EgressOnlyInternetGateway as EgressOnlyInternetGateway,
    internet_gateways: crate::internet_gateway::InternetGateway as InternetGateway,
    vpc_peering_connections: crate::vpc_peering_connection::VpcPeeringConnection as VpcPeeringConnection,
    vpc_block_public_access_options: crate::vpc_block_public_access::VpcBlockPublicAccessOptions
        as VpcBlockPublicAccessOptions,
    vpc_block_public_access_exclusions: crate::vpc_block_public_access::VpcBlockPublicAccessExclusion
        as VpcBlockPublicAccessExclusion,
    vpc_endpoints: crate::vpc_endpoint::VpcEndpoint as VpcEndpoint,
    network_insights_paths: crate::network_insights::NetworkInsightsPath as NetworkInsightsPath,
    network_insights_analyses: crate::network_insights::NetworkInsightsAnalysis as NetworkInsightsAnalysis,
    network_insights_access_scopes: crate::network_insights::NetworkInsightsAccessScope
        as NetworkInsightsAccessScope,
    network_insights_access_scope_analyses: crate::network_insights::NetworkInsightsAccessScopeAnalysis
        as NetworkInsightsAccessScopeAnalysis,
    prefix_lists: crate::prefix_list::PrefixList as PrefixList,
    prefix_list_versions: crate::prefix_list::PrefixListVersion as PrefixListVersion,
    network_acls: crate::network_acl::NetworkAcl as NetworkAcl,
    dhcp_options: crate::dhcp_options::DhcpOptions as DhcpOptions,
    placement_groups: crate::placement_group::PlacementGroup as PlacementGroup,
    dedicated_hosts: crate::dedicated_host::DedicatedHost as DedicatedHost,
    instance_types: crate::instance_type::OwnType as OwnType,
    workflows: crate::workflow::Workflow as Workflow,
}

/// How many batches of changes a slow listener may lag behind before it must look at the whole view again.
const CHANGES_LAG_MAX: usize = 65_536;

/// One region's view.
pub struct View {
    pub region: Region,
    pub quotas: Quotas,
    tables: RwLock<Tables>,
    applied: watch::Sender<Revision>,
    changes: broadcast::Sender<Arc<Vec<Change>>>,
}

impl View {
    pub fn new(region: Region, quotas: Quotas) -> Self {
        View {
            region,
            quotas,
            tables: RwLock::default(),
            applied: watch::Sender::new(0),
            changes: broadcast::Sender::new(CHANGES_LAG_MAX),
        }
    }

    pub fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read()
    }

    pub fn record<T: Record>(&self, id: &str) -> Option<Arc<T>>
    where
        Tables: Has<T>,
    {
        self.tables.read().table().find(id).cloned()
    }

    /// Every change from now on, a message a transaction. `Lagged` means: look at the whole view.
    pub fn changes(&self) -> broadcast::Receiver<Arc<Vec<Change>>> {
        self.changes.subscribe()
    }

    /// Returns once the view shows everything up to `revision`.
    pub async fn wait_for(&self, revision: Revision) {
        // The sender lives as long as the view: there is nothing to fail.
        let _ = self.applied.subscribe().wait_for(|applied| *applied >= revision).await;
    }

    pub fn applied(&self) -> Revision {
        *self.applied.borrow()
    }

    /// Takes in what one transaction changed. Keys are `region/table/id`.
    pub(crate) fn apply(&self, batch: Batch) {
        let changes: Vec<Change> = if batch.events.is_empty() {
            Vec::new()
        } else {
            let mut tables = self.tables.write();
            batch.events.into_iter().filter_map(|event| apply_event(&mut tables, event)).collect()
        };
        if !changes.is_empty() {
            // No listener is no error.
            let _ = self.changes.send(Arc::new(changes));
        }
        self.applied.send_replace(batch.revision);
    }
}

/// What the instances on each host take, kept as they come and go.
#[derive(Default)]
pub struct Loads {
    hosts: HashMap<String, HostLoad>,
    vcpus: u64,
}

#[derive(Default)]
struct HostLoad {
    sum: Load,
    tenants: Tenants,
    instances: BTreeSet<Id>,
}

impl Loads {
    pub fn of(&self, host_id: &str) -> Load {
        self.hosts.get(host_id).map(|host| host.sum).unwrap_or_default()
    }

    /// What is taken of a host, and by whom.
    pub fn on(&self, host_id: &str) -> (Load, Tenants) {
        self.hosts.get(host_id).map(|host| (host.sum, host.tenants)).unwrap_or_default()
    }

    /// What all instances take.
    pub fn vcpus(&self) -> u64 {
        self.vcpus
    }

    /// Ids of the instances that take up a host, in order.
    pub fn instances_on(&self, host_id: &str) -> impl Iterator<Item = &Id> {
        self.hosts.get(host_id).into_iter().flat_map(|host| &host.instances)
    }

    fn account(&mut self, old: Option<&Instance>, new: Option<&Instance>) {
        if let Some(old) = old.filter(|old| old.occupies_host()) {
            let host = self.hosts.entry(old.placement.host_id.clone().into()).or_default();
            host.sum -= old.load();
            host.tenants.remove(old.placement.tenancy);
            self.vcpus = self.vcpus.saturating_sub(old.load().vcpus);
            host.instances.remove(&old.instance_id);
        }
        if let Some(new) = new.filter(|new| new.occupies_host()) {
            let host = self.hosts.entry(new.placement.host_id.clone().into()).or_default();
            host.sum += new.load();
            host.tenants.add(new.placement.tenancy);
            self.vcpus += new.load().vcpus;
            host.instances.insert(new.instance_id.clone());
        }
    }
}

fn apply_event(tables: &mut Tables, event: Event) -> Option<Change> {
    let change = match event {
        Event::Put(entry) => {
            let (table, _) = table_and_id(&entry.key)?;
            tables.put(table, &entry.value, entry.modified)
        }
        Event::Delete { key, .. } => {
            let (table, id) = table_and_id(&key)?;
            tables.delete(table, id)
        }
    };
    if let Some(Change::Instance { old, new }) = &change {
        tables.loads.account(old.as_deref(), new.as_deref());
    }
    change
}

fn table_and_id(key: &str) -> Option<(&str, &str)> {
    key.split_once('/')?.1.split_once('/')
}

/// The store's key of a record.
pub fn key(region: &Region, table: &str, id: &str) -> String {
    format!("{region}/{table}/{id}")
}
