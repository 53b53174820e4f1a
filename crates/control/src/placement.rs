//! Where an instance goes: a pure function of the hosts, what they hold, and what is asked.
//!
//! Among the hosts that may take it the least loaded is chosen, the lower id on a tie, so that the same cloud
//! always decides the same. Placement groups are rules, not wishes
//! (EC2 User Guide, "Placement groups"):
//! - cluster: one rack;
//! - partition: instances of different partitions never share a rack; balanced where no partition is named;
//! - spread: no two on one rack (or, at host level, on one host), seven a zone.

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

/// A host as the scheduler sees it.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    pub host_id: &'a str,
    pub zone: &'a str,
    pub rack: &'a str,
    pub architecture: Architecture,
    pub capacity: Load,
    pub load: Load,
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
    pub architecture: Architecture,
    pub wanted: Load,
    /// Only these zones have a subnet for it.
    pub zones: &'a [String],
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
}

/// Why a host cannot take an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    Zone,
    Architecture,
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
        return least_loaded(fitting).map(|host| choice(host, None)).ok_or(refusals);
    };
    let rules = Rules::new(group, hosts);
    for partition in rules.partitions() {
        let (allowed, refused): (Vec<&Candidate>, Vec<&Candidate>) =
            fitting.iter().partition(|host| rules.refuse(host, partition).is_none());
        if let Some(host) = rules.preferred(allowed, partition) {
            return Ok(choice(host, partition));
        }
        for host in refused {
            refusals.insert(host.host_id.to_owned(), rules.refuse(host, partition).unwrap_or(Refusal::Group));
        }
    }
    Err(refusals)
}

fn choice(host: &Candidate, partition: Option<u32>) -> Choice {
    Choice { host_id: host.host_id.to_owned(), partition }
}

fn refuse(host: &Candidate, request: &Request) -> Option<Refusal> {
    if !request.zones.iter().any(|zone| zone == host.zone) {
        Some(Refusal::Zone)
    } else if host.architecture != request.architecture {
        Some(Refusal::Architecture)
    } else if !host.has_room_for(request.wanted) {
        Some(Refusal::Capacity)
    } else {
        None
    }
}

fn least_loaded<'h, 'a>(hosts: impl IntoIterator<Item = &'h Candidate<'a>>) -> Option<&'h Candidate<'a>>
where
    'a: 'h,
{
    hosts.into_iter().min_by_key(|host| (host.fullness(), host.host_id))
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
    ) -> Option<&'h Candidate<'a>> {
        let own = allowed
            .iter()
            .copied()
            .filter(|host| partition.is_some() && self.owners.get(&rack(host)) == partition.as_ref());
        least_loaded(own).or_else(|| least_loaded(allowed.iter().copied()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    // Named, for proptest has a trait of that name.
    use crate::placement_group::Strategy;
    use proptest::prelude::*;

    fn hosts(zones: usize, racks: usize, each: usize) -> Vec<Candidate<'static>> {
        let name = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
        let mut hosts = Vec::new();
        for zone in 0..zones {
            for rack in 0..racks {
                for host in 0..each {
                    hosts.push(Candidate {
                        host_id: name(format!("host-{zone}-{rack}-{host}")),
                        zone: name(format!("zone-{zone}")),
                        rack: name(format!("rack-{rack}")),
                        architecture: Architecture::X86_64,
                        capacity: Load { vcpus: 16, memory_mib: 16 * 1024 },
                        load: Load::default(),
                    });
                }
            }
        }
        hosts
    }

    fn place(hosts: &mut [Candidate<'static>], group: &mut Group, zones: &[String]) -> Option<Choice> {
        let wanted = Load { vcpus: 2, memory_mib: 1024 };
        let request =
            Request { architecture: Architecture::X86_64, wanted, zones, group: Some(group.clone()) };
        let choice = choose(hosts, &request).ok()?;
        let host = hosts.iter_mut().find(|host| host.host_id == choice.host_id)?;
        host.load += wanted;
        group.members.push(Member { host_id: choice.host_id.clone(), partition: choice.partition });
        Some(choice)
    }

    fn group(strategy: Strategy, partition_count: u32, spread_level: SpreadLevel) -> Group {
        Group { strategy, partition_count, spread_level, partition: None, members: Vec::new() }
    }

    fn rack_of<'a>(hosts: &[Candidate<'a>], id: &str) -> Rack<'a> {
        rack(hosts.iter().find(|host| host.host_id == id).unwrap())
    }

    proptest! {
        #[test]
        fn no_rule_is_ever_broken(
            zones in 1usize..3, racks in 1usize..5, each in 1usize..4, partitions in 1u32..8, count in 1usize..40,
            strategy in prop_oneof![Just(Strategy::Cluster), Just(Strategy::Partition), Just(Strategy::Spread)],
            level in prop_oneof![Just(SpreadLevel::Rack), Just(SpreadLevel::Host)],
        ) {
            let mut hosts = hosts(zones, racks, each);
            let names: Vec<String> = (0..zones).map(|zone| format!("zone-{zone}")).collect();
            let mut group = group(strategy, partitions, level);
            for _ in 0..count {
                place(&mut hosts, &mut group, &names);
            }
            for host in &hosts {
                prop_assert!(host.load.vcpus <= host.capacity.vcpus && host.load.memory_mib <= host.capacity.memory_mib);
            }
            for (at, one) in group.members.iter().enumerate() {
                for other in &group.members[..at] {
                    let same_rack = rack_of(&hosts, &one.host_id) == rack_of(&hosts, &other.host_id);
                    match strategy {
                        Strategy::Cluster => prop_assert!(same_rack),
                        Strategy::Partition => prop_assert!(!same_rack || one.partition == other.partition),
                        Strategy::Spread if level == SpreadLevel::Rack => prop_assert!(!same_rack),
                        Strategy::Spread => prop_assert!(one.host_id != other.host_id),
                    }
                }
            }
        }

        /// Without a group a request is refused only where every host lacks the room, as brute force sees it.
        #[test]
        fn room_that_is_there_is_found(loads in proptest::collection::vec(0u64..17, 1..8), wanted in 1u64..17) {
            let mut hosts = hosts(1, 1, loads.len());
            for (host, load) in hosts.iter_mut().zip(&loads) {
                host.load = Load { vcpus: *load, memory_mib: *load * 1024 };
            }
            let zones = ["zone-0".to_owned()];
            let wanted = Load { vcpus: wanted, memory_mib: wanted * 1024 };
            let request = Request { architecture: Architecture::X86_64, wanted, zones: &zones, group: None };
            let fits = loads.iter().any(|load| load + wanted.vcpus <= 16);
            prop_assert_eq!(choose(&hosts, &request).is_ok(), fits);
        }
    }

    #[test]
    fn partitions_are_balanced() {
        let mut hosts = hosts(1, 4, 3);
        let mut group = group(Strategy::Partition, 3, SpreadLevel::Rack);
        let zones = ["zone-0".to_owned()];
        let mut partitions: Vec<_> =
            (0..9).map(|_| place(&mut hosts, &mut group, &zones).unwrap().partition.unwrap()).collect();
        partitions.sort();
        assert_eq!(partitions, [1, 1, 1, 2, 2, 2, 3, 3, 3]);
    }

    #[test]
    fn the_other_architecture_is_refused_with_its_reason() {
        let zones = ["zone-0".to_owned()];
        let wanted = Load { vcpus: 1, memory_mib: 1 };
        let request = Request { architecture: Architecture::Arm64, wanted, zones: &zones, group: None };
        let refusals = choose(&hosts(1, 1, 1), &request).unwrap_err();
        assert_eq!(refusals.values().collect::<Vec<_>>(), [&Refusal::Architecture]);
    }
}
