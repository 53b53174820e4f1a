//! Where an instance goes: a pure function of the hosts, what they hold, and what is asked.
//!
//! Among the hosts that may take it the least loaded is chosen, the lower id on a tie, so that the same cloud
//! always decides the same. Placement groups are rules, not wishes
//! (EC2 User Guide, "Placement groups"):
//! - cluster: one rack;
//! - partition: instances of different partitions never share a rack; balanced where no partition is named;
//! - spread: no two on one rack (or, at host level, on one host), seven a zone.
//!
//! So are tenancies ("Dedicated Instances", "Dedicated Hosts"):
//! - default: never with a dedicated instance, never on a host that is allocated as a Dedicated Host;
//! - dedicated: only with its like, on a host that is not allocated;
//! - host: only on an allocated one, the named one or one with auto-placement, that takes the instance's type.

use crate::instance::placement::Tenancy;
use crate::placement_group::{SpreadLevel, Strategy};
use agent_api::Architecture;
use std::collections::{BTreeMap, BTreeSet};

/// Most running instances of a spread group in one zone.
pub const SPREAD_PER_ZONE_MAX: usize = 7;

/// vCPUs that are promised for each core that is there. Memory is never promised twice.
pub const VCPU_OVERCOMMIT: u64 = 4;

/// What is taken of a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub vcpus: u64,
    pub memory_mib: u64,
}

impl std::ops::AddAssign for Load {
    fn add_assign(&mut self, other: Load) {
        self.vcpus += other.vcpus;
        self.memory_mib += other.memory_mib;
    }
}

impl std::ops::SubAssign for Load {
    fn sub_assign(&mut self, other: Load) {
        self.vcpus = self.vcpus.saturating_sub(other.vcpus);
        self.memory_mib = self.memory_mib.saturating_sub(other.memory_mib);
    }
}

/// How many instances of each tenancy are on a host that is not allocated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tenants {
    pub default: u32,
    pub dedicated: u32,
}

impl Tenants {
    pub fn add(&mut self, tenancy: Tenancy) {
        if let Some(count) = self.of(tenancy) {
            *count += 1;
        }
    }

    pub fn remove(&mut self, tenancy: Tenancy) {
        if let Some(count) = self.of(tenancy) {
            *count = count.saturating_sub(1);
        }
    }

    fn of(&mut self, tenancy: Tenancy) -> Option<&mut u32> {
        match tenancy {
            Tenancy::Default => Some(&mut self.default),
            Tenancy::Dedicated => Some(&mut self.dedicated),
            Tenancy::Host => None,
        }
    }
}

/// The Dedicated Host that a host is allocated as.
#[derive(Clone, Debug)]
pub struct Allocation<'a> {
    pub dedicated_host_id: &'a str,
    /// Whether it takes instances that do not name it.
    pub auto_placement: bool,
    /// The one type that it takes; None is every type of the family.
    pub instance_type: Option<&'a str>,
    pub instance_family: &'a str,
}

impl Allocation<'_> {
    pub fn takes(&self, instance_type: &str) -> bool {
        match self.instance_type {
            Some(only) => only == instance_type,
            None => family(instance_type) == self.instance_family,
        }
    }
}

/// `m5` of `m5.large`.
pub fn family(instance_type: &str) -> &str {
    instance_type.split_once('.').map_or(instance_type, |(family, _)| family)
}

/// A host as the scheduler sees it.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    pub host_id: &'a str,
    pub zone: &'a str,
    pub rack: &'a str,
    pub architecture: Architecture,
    /// Not heard from.
    pub away: bool,
    pub capacity: Load,
    pub load: Load,
    pub tenants: Tenants,
    pub allocation: Option<Allocation<'a>>,
}

impl Candidate<'_> {
    fn has_room_for(&self, wanted: Load) -> bool {
        self.load.vcpus + wanted.vcpus <= self.capacity.vcpus
            && self.load.memory_mib + wanted.memory_mib <= self.capacity.memory_mib
    }

    /// Taken memory in thousandths.
    fn fullness(&self) -> u64 {
        self.load.memory_mib.saturating_mul(1000) / self.capacity.memory_mib.max(1)
    }
}

#[derive(Clone, Debug)]
pub struct Request<'a> {
    pub instance_type: &'a str,
    pub architecture: Architecture,
    pub wanted: Load,
    /// Only these zones have a subnet for it.
    pub zones: &'a [String],
    /// The host that its volumes are on, where they cannot be anywhere else.
    pub bound_to: Option<&'a str>,
    pub tenancy: Tenancy,
    /// The Dedicated Host that it names.
    pub dedicated_host_id: Option<&'a str>,
    pub group: Option<Group>,
}

/// The placement group that an instance joins, and who is in it already.
#[derive(Clone, Debug)]
pub struct Group {
    pub strategy: Strategy,
    pub partition_count: u32,
    pub spread_level: SpreadLevel,
    /// Named by the user, from 1.
    pub partition: Option<u32>,
    pub members: Vec<Member>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub host_id: String,
    pub partition: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub host_id: String,
    pub partition: Option<u32>,
    pub dedicated_host_id: Option<String>,
}

/// Why a host cannot take an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    Zone,
    Architecture,
    Away,
    /// The instance's volumes are elsewhere.
    Volumes,
    /// It is a Dedicated Host, for instances of host tenancy alone.
    Allocated,
    /// Instances of default tenancy are on it.
    DefaultTenants,
    /// Dedicated instances are on it.
    DedicatedTenants,
    NotAllocated,
    /// Another Dedicated Host than the one that is named.
    OtherDedicatedHost,
    /// It takes only instances that name it.
    AutoPlacementOff,
    /// The Dedicated Host takes other types.
    InstanceType,
    Capacity,
    /// The rules of its placement group.
    Group,
    /// The spread group has its seven instances in the zone.
    SpreadLimit,
}

impl Refusal {
    pub fn reason(self) -> &'static str {
        match self {
            Refusal::Zone => "in another Availability Zone",
            Refusal::Architecture => "of another architecture",
            Refusal::Away => "not heard from",
            Refusal::Volumes => "the instance's volumes are on another host",
            Refusal::Allocated => "allocated as a Dedicated Host",
            Refusal::DefaultTenants => "holds instances of default tenancy",
            Refusal::DedicatedTenants => "holds dedicated instances",
            Refusal::NotAllocated => "not allocated as a Dedicated Host",
            Refusal::OtherDedicatedHost => "not the Dedicated Host that the instance names",
            Refusal::AutoPlacementOff => "a Dedicated Host without auto-placement",
            Refusal::InstanceType => "a Dedicated Host for other instance types",
            Refusal::Capacity => "not enough room",
            Refusal::Group => "the placement group's rules",
            Refusal::SpreadLimit => "the spread group is full in this Availability Zone",
        }
    }
}

/// What speaks against each host, in their order; None where nothing does. A partition group's member must name its
/// partition.
pub fn judge(hosts: &[Candidate<'_>], request: &Request<'_>) -> Vec<Option<Refusal>> {
    let rules = request.group.as_ref().map(|group| (Rules::new(group, hosts), group.partition));
    let by_group = |host| rules.as_ref().and_then(|(rules, partition)| rules.refuse(host, *partition));
    hosts.iter().map(|host| refuse(host, request).or_else(|| by_group(host))).collect()
}

/// The host for one instance, or why each host was refused.
pub fn choose(hosts: &[Candidate<'_>], request: &Request<'_>) -> Result<Choice, BTreeMap<String, Refusal>> {
    let mut refusals = BTreeMap::new();
    let fitting: Vec<&Candidate> = hosts
        .iter()
        .filter(|host| match refuse(host, request) {
            Some(refusal) => {
                refusals.insert(host.host_id.to_owned(), refusal);
                false
            }
            None => true,
        })
        .collect();
    let Some(group) = &request.group else {
        return least_loaded(fitting, request.tenancy).map(|host| choice(host, None)).ok_or(refusals);
    };
    let rules = Rules::new(group, hosts);
    for partition in rules.partitions() {
        let (allowed, refused): (Vec<&Candidate>, Vec<&Candidate>) =
            fitting.iter().partition(|host| rules.refuse(host, partition).is_none());
        if let Some(host) = rules.preferred(allowed, partition, request.tenancy) {
            return Ok(choice(host, partition));
        }
        for host in refused {
            refusals.insert(host.host_id.to_owned(), rules.refuse(host, partition).unwrap_or(Refusal::Group));
        }
    }
    Err(refusals)
}

/// What is wanted of hosts that are to be allocated whole.
#[derive(Clone, Debug)]
pub struct WholeRequest<'a> {
    pub zone: &'a str,
    pub architecture: Architecture,
    /// The instances that such a host is for: one of these at least must fit on it.
    pub any_of: &'a [Load],
    pub count: usize,
}

/// So many empty hosts, the smallest first and the lower id on a tie; None where there are fewer.
pub fn choose_whole<'a>(hosts: &[Candidate<'a>], request: &WholeRequest<'_>) -> Option<Vec<&'a str>> {
    let free = |host: &&Candidate<'a>| {
        host.zone == request.zone
            && host.architecture == request.architecture
            && !host.away
            && host.allocation.is_none()
            && host.load == Load::default()
            && request.any_of.iter().any(|wanted| host.has_room_for(*wanted))
    };
    let mut chosen: Vec<_> =
        hosts.iter().filter(free).map(|host| (host.capacity.memory_mib, host.host_id)).collect();
    chosen.sort_unstable();
    chosen.truncate(request.count);
    (chosen.len() == request.count).then(|| chosen.into_iter().map(|(_, host_id)| host_id).collect())
}

fn choice(host: &Candidate, partition: Option<u32>) -> Choice {
    let dedicated_host_id =
        host.allocation.as_ref().map(|allocation| allocation.dedicated_host_id.to_owned());
    Choice { host_id: host.host_id.to_owned(), partition, dedicated_host_id }
}

fn refuse(host: &Candidate, request: &Request) -> Option<Refusal> {
    if !request.zones.iter().any(|zone| zone == host.zone) {
        Some(Refusal::Zone)
    } else if host.architecture != request.architecture {
        Some(Refusal::Architecture)
    } else if request.bound_to.is_some_and(|host_id| host_id != host.host_id) {
        Some(Refusal::Volumes)
    } else if host.away {
        Some(Refusal::Away)
    } else if let Some(refusal) = refuse_by_tenancy(host, request) {
        Some(refusal)
    } else if !host.has_room_for(request.wanted) {
        Some(Refusal::Capacity)
    } else {
        None
    }
}

fn refuse_by_tenancy(host: &Candidate, request: &Request) -> Option<Refusal> {
    match (request.tenancy, &host.allocation) {
        (Tenancy::Default | Tenancy::Dedicated, Some(_)) => Some(Refusal::Allocated),
        (Tenancy::Default, None) => (host.tenants.dedicated > 0).then_some(Refusal::DedicatedTenants),
        (Tenancy::Dedicated, None) => (host.tenants.default > 0).then_some(Refusal::DefaultTenants),
        (Tenancy::Host, None) => Some(Refusal::NotAllocated),
        (Tenancy::Host, Some(allocation)) => match request.dedicated_host_id {
            Some(named) if named != allocation.dedicated_host_id => Some(Refusal::OtherDedicatedHost),
            None if !allocation.auto_placement => Some(Refusal::AutoPlacementOff),
            _ => (!allocation.takes(request.instance_type)).then_some(Refusal::InstanceType),
        },
    }
}

/// Dedicated instances share the hosts that they have before they take another from everybody else, a small one then.
fn least_loaded<'h, 'a>(
    hosts: impl IntoIterator<Item = &'h Candidate<'a>>,
    tenancy: Tenancy,
) -> Option<&'h Candidate<'a>>
where
    'a: 'h,
{
    let taken_away = |host: &Candidate| match (tenancy, host.tenants.dedicated) {
        (Tenancy::Dedicated, 0) => host.capacity.memory_mib,
        _ => 0,
    };
    hosts.into_iter().min_by_key(|host| (taken_away(host), host.fullness(), host.host_id))
}

/// A rack is known by its zone too.
type Rack<'a> = (&'a str, &'a str);

fn rack<'a>(host: &Candidate<'a>) -> Rack<'a> {
    (host.zone, host.rack)
}

/// A group's rules in the face of where its members are.
struct Rules<'g, 'a> {
    group: &'g Group,
    hosts: BTreeSet<&'g str>,
    racks: BTreeSet<Rack<'a>>,
    /// Which partition has each rack.
    owners: BTreeMap<Rack<'a>, u32>,
    per_partition: BTreeMap<u32, usize>,
    per_zone: BTreeMap<&'a str, usize>,
}

impl<'g, 'a> Rules<'g, 'a> {
    fn new(group: &'g Group, hosts: &[Candidate<'a>]) -> Self {
        let mut rules = Rules {
            group,
            hosts: group.members.iter().map(|member| member.host_id.as_str()).collect(),
            racks: BTreeSet::new(),
            owners: BTreeMap::new(),
            per_partition: BTreeMap::new(),
            per_zone: BTreeMap::new(),
        };
        let by_id: BTreeMap<&str, &Candidate<'a>> = hosts.iter().map(|host| (host.host_id, host)).collect();
        for member in &group.members {
            let Some(host) = by_id.get(member.host_id.as_str()) else { continue };
            rules.racks.insert(rack(host));
            *rules.per_zone.entry(host.zone).or_default() += 1;
            if let Some(partition) = member.partition {
                rules.owners.insert(rack(host), partition);
                *rules.per_partition.entry(partition).or_default() += 1;
            }
        }
        rules
    }

    /// The partitions to try, emptiest first; one None for the other strategies.
    fn partitions(&self) -> Vec<Option<u32>> {
        if self.group.strategy != Strategy::Partition {
            return vec![None];
        }
        if let Some(named) = self.group.partition {
            return vec![Some(named)];
        }
        let mut partitions: Vec<u32> = (1..=self.group.partition_count).collect();
        partitions
            .sort_by_key(|partition| (self.per_partition.get(partition).copied().unwrap_or(0), *partition));
        partitions.into_iter().map(Some).collect()
    }

    fn refuse(&self, host: &Candidate<'a>, partition: Option<u32>) -> Option<Refusal> {
        let allowed = match self.group.strategy {
            Strategy::Cluster => self.racks.is_empty() || self.racks.contains(&rack(host)),
            Strategy::Partition => self.owners.get(&rack(host)).is_none_or(|owner| Some(*owner) == partition),
            Strategy::Spread => {
                if self.per_zone.get(host.zone).copied().unwrap_or(0) >= SPREAD_PER_ZONE_MAX {
                    return Some(Refusal::SpreadLimit);
                }
                match self.group.spread_level {
                    SpreadLevel::Rack => !self.racks.contains(&rack(host)),
                    SpreadLevel::Host => !self.hosts.contains(host.host_id),
                }
            }
        };
        (!allowed).then_some(Refusal::Group)
    }

    /// A partition fills the racks it has before it takes another, so that the others find some.
    fn preferred<'h>(
        &self,
        allowed: Vec<&'h Candidate<'a>>,
        partition: Option<u32>,
        tenancy: Tenancy,
    ) -> Option<&'h Candidate<'a>> {
        let own = allowed
            .iter()
            .copied()
            .filter(|host| partition.is_some() && self.owners.get(&rack(host)) == partition.as_ref());
        least_loaded(own, tenancy).or_else(|| least_loaded(allowed.iter().copied(), tenancy))
    }
}

#[cfg(test)]
mod tests;
