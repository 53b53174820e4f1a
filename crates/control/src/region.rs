//! A region that is open: its view, its zones, its hosts, and what is being placed at the moment.

use crate::engine::throttle::Throttle;
use crate::engine::{View, retire, transaction};
use crate::event::Events;
use crate::instance::Tenancy;
use crate::placement::{Load, Member, VCPU_OVERCOMMIT};
use crate::{Control, default_vpc, location, prefix_list};
use agent_api::{HostAgent, HostDescription};
use model::{Id, Region, Result, SecretKey};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use store::{Batch, Event, Revision, Store};

/// Records read in one request to the store when a region is opened.
const LOAD_PAGE: usize = 4096;

pub struct RegionState {
    pub view: View,
    pub zones: Vec<Zone>,
    pub hosts: Vec<HostLink>,
    /// Where each is in `hosts`, by its id.
    host_numbers: HashMap<String, usize>,
    pub events: Events,
    /// Opens the secrets among its records.
    pub(crate) secret_key: SecretKey,
    pub(crate) throttle: Throttle,
    /// What was given a host, and whose records are not in the view yet.
    pub(crate) placing: Mutex<Vec<Placing>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// `us-east-1a`.
    pub name: String,
    /// `use1-az1`.
    pub id: String,
}

#[derive(Clone)]
pub struct HostLink {
    pub description: HostDescription,
    pub agent: Arc<dyn HostAgent>,
    /// Whether the host is heard from: kept by `reconcile`.
    heard: Arc<AtomicBool>,
}

impl HostLink {
    pub fn is_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }

    pub(crate) fn set_heard(&self, heard: bool) {
        self.heard.store(heard, Ordering::Relaxed);
    }

    pub fn capacity(&self) -> Load {
        Load {
            vcpus: u64::from(self.description.cores) * VCPU_OVERCOMMIT,
            memory_mib: self.description.memory_mib,
        }
    }
}

/// An instance between the choice of its host and its record, or a host that is being allocated.
#[derive(Clone, Debug)]
pub(crate) struct Placing {
    /// Tells one attempt's entries from another's.
    pub attempt: u64,
    /// Of one that is started; launches have none yet.
    pub instance_id: Option<Id>,
    pub load: Load,
    /// None holds the whole host.
    pub tenancy: Option<Tenancy>,
    pub group_name: Option<String>,
    pub member: Member,
}

impl RegionState {
    pub fn host(&self, host_id: &str) -> Option<&HostLink> {
        self.hosts.get(*self.host_numbers.get(host_id)?)
    }

    /// Whether the host is heard from.
    pub(crate) fn hears(&self, host_id: &str) -> bool {
        self.host(host_id).is_some_and(HostLink::is_heard)
    }

    /// Whether something was given the host whose record is not in the view yet.
    pub(crate) fn is_being_placed_on(&self, host_id: &str) -> bool {
        self.placing.lock().iter().any(|held| held.member.host_id == host_id)
    }

    pub(crate) fn zone_named(&self, name: &str) -> Option<&Zone> {
        self.zones.iter().find(|zone| zone.name == name)
    }

    pub fn zone_of(&self, host: &HostDescription) -> Option<&Zone> {
        self.zones.get(host.zone as usize)
    }
}

/// Reads what the store holds of the region, follows it from there on, and makes the default VPC where the region
/// is new.
pub(crate) async fn open(
    control: &Arc<Control>,
    name: &Region,
    hosts: Vec<Arc<dyn HostAgent>>,
) -> Result<Arc<RegionState>> {
    let zones = (0..control.options.zones)
        .map(|index| Zone { name: name.zone(index), id: location::zone_id(name, index) })
        .collect();
    let link = |agent: Arc<dyn HostAgent>| HostLink {
        description: agent.describe(),
        agent,
        heard: Arc::new(AtomicBool::new(true)),
    };
    let hosts: Vec<HostLink> = hosts.into_iter().map(link).collect();
    let numbered = hosts.iter().enumerate();
    let host_numbers = numbered.map(|(number, host)| (host.description.host_id.clone(), number)).collect();
    let region = Arc::new(RegionState {
        view: View::new(name.clone(), control.options.limits.quotas.clone()),
        zones,
        hosts,
        host_numbers,
        events: Events::default(),
        secret_key: control.options.encryption_key.into(),
        throttle: Throttle::new(control.options.limits.rates),
        placing: Mutex::default(),
    });
    let prefix = format!("{name}/");
    let loaded = load(&*control.store, &region.view, &prefix).await?;
    let mut watch = control.store.watch(&prefix, loaded + 1).await.map_err(transaction::store_error)?;
    let following = Arc::downgrade(&region);
    tokio::spawn(async move {
        while let Some(batch) = watch.next().await {
            let Some(region) = following.upgrade() else { return };
            region.view.apply(batch);
        }
    });
    default_vpc::ensure(control, &region).await?;
    prefix_list::aws::ensure(control, &region).await?;
    retire::undo_all(control, &region).await?;
    Ok(region)
}

/// Takes in all that is stored; returns the revision up to which the view then is.
async fn load(store: &dyn Store, view: &View, prefix: &str) -> Result<Revision> {
    let mut from: Option<Revision> = None;
    let mut after: Option<String> = None;
    loop {
        let page =
            store.range(prefix, after.as_deref(), LOAD_PAGE).await.map_err(transaction::store_error)?;
        // The watch starts at the first page's revision: what changed since comes again, and again is harmless.
        let revision = *from.get_or_insert(page.revision);
        after = page.entries.last().map(|entry| entry.key.clone());
        view.apply(Batch { revision, events: page.entries.into_iter().map(Event::Put).collect() });
        if !page.more {
            return Ok(revision);
        }
    }
}
