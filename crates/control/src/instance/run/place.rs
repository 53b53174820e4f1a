//! Choosing hosts for launches, starts and Dedicated Hosts, so that two at once never count on the same room.

use crate::dedicated_host::DedicatedHost;
use crate::engine::Tables;
use crate::instance::{Instance, ON_HOST, Tenancy};
use crate::instance_type::MachineShape;
use crate::placement::{self, Candidate, Choice, Group, Load, Member, Refusal, WholeRequest};
use crate::placement_group::{PlacementGroup, Strategy};
use crate::region::{Placing, RegionState};
use model::{Error, Result};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub struct PlaceRequest<'a> {
    pub shape: &'a MachineShape,
    pub instance_type: &'a str,
    /// Zones that have a subnet for it, in the order of preference.
    pub zones: Vec<String>,
    pub group: Option<Arc<PlacementGroup>>,
    pub partition: Option<u32>,
    pub tenancy: Tenancy,
    pub dedicated_host: Option<Arc<DedicatedHost>>,
}

pub struct Places {
    /// All instances of a request go to one zone.
    pub zone: String,
    pub chosen: Vec<Choice>,
}

impl PlaceRequest<'_> {
    fn asked(&self) -> Asked<'_> {
        Asked {
            instance_type: self.instance_type,
            zones: &self.zones,
            tenancy: self.tenancy,
            dedicated_host: self.dedicated_host.as_deref(),
        }
    }
}

/// Holds the room of instances between the choice of their hosts and their records being seen. Dropped once the
/// view shows them, or when the launch fails.
pub struct PlacingGuard {
    region: Arc<RegionState>,
    attempt: u64,
}

impl PlacingGuard {
    pub fn new(region: Arc<RegionState>, attempt: u64) -> Self {
        PlacingGuard { region, attempt }
    }

    /// Places between `min` and `max` instances. What an earlier try of the same launch held is let go first.
    pub fn place(
        &self,
        tables: &Tables,
        request: &PlaceRequest<'_>,
        min: usize,
        max: usize,
    ) -> Result<Places> {
        let mut placing = self.region.placing.lock();
        placing.retain(|held| held.attempt != self.attempt);
        let mut best: Option<(String, Vec<Choice>)> = None;
        let mut refused = BTreeMap::new();
        for zone in &request.zones {
            let chosen = self.fill_zone(tables, &placing, request, zone, max, &mut refused);
            let enough = chosen.len() == max;
            if best.as_ref().is_none_or(|(_, before)| before.len() < chosen.len()) {
                best = Some((zone.clone(), chosen));
            }
            if enough {
                break;
            }
        }
        let (zone, chosen) = best
            .filter(|(_, chosen)| chosen.len() >= min)
            .ok_or_else(|| request.asked().no_room(&refused))?;
        placing.extend(chosen.iter().map(|choice| Placing {
            attempt: self.attempt,
            instance_id: None,
            load: request.shape.load(),
            tenancy: Some(request.tenancy),
            group_name: request.group.as_ref().map(|group| group.name.clone()),
            member: Member { host_id: choice.host_id.clone(), partition: choice.partition },
        }));
        self.check_vcpus(tables, &placing)?;
        Ok(Places { zone, chosen })
    }

    /// The host for a stopped instance: the one that it is on where nothing speaks against it, else another where
    /// its volumes can be made anew.
    pub fn place_again(&self, tables: &Tables, instance: &Instance, volumes_move: bool) -> Result<Choice> {
        let mut placing = self.region.placing.lock();
        let id = &instance.instance_id;
        placing.retain(|held| held.attempt != self.attempt || held.instance_id.as_ref() != Some(id));
        let hosts = candidates(&self.region, tables, &placing, None);
        let zones = [instance.placement.zone.to_string()];
        let named = instance.placement.named_host();
        let named = named.map(|id| crate::dedicated_host::find(tables, id)).transpose()?;
        let home = at_home(tables, &placing, instance, &zones);
        // Its host's partition need not be the emptiest.
        let needs_partition = home
            .group
            .as_ref()
            .is_some_and(|group| group.strategy == Strategy::Partition && group.partition.is_none());
        let mut choice = placement::choose(&hosts, &home);
        if volumes_move && (choice.is_err() || needs_partition) {
            let dedicated_host_id = named.as_ref().map(|host| host.host_id.as_str());
            let anywhere = placement::Request { bound_to: None, dedicated_host_id, ..home };
            choice = placement::choose(&hosts, &anywhere);
        }
        let choice = choice.map_err(|refused| {
            let instance_type = &instance.instance_type;
            let tenancy = instance.placement.tenancy;
            Asked { instance_type, zones: &zones, tenancy, dedicated_host: named.as_deref() }
                .no_room(&refused)
        })?;
        placing.push(Placing {
            attempt: self.attempt,
            instance_id: Some(id.clone()),
            load: instance.load(),
            tenancy: Some(instance.placement.tenancy),
            group_name: instance.placement.group_name().map(Into::into),
            member: Member { host_id: choice.host_id.clone(), partition: choice.partition },
        });
        self.check_vcpus(tables, &placing)?;
        Ok(choice)
    }

    fn check_vcpus(&self, tables: &Tables, placing: &[Placing]) -> Result<()> {
        let being_placed: u64 = placing.iter().map(|held| held.load.vcpus).sum();
        self.region.view.quotas.check_vcpus(tables.loads.vcpus() + being_placed)
    }

    /// As many of `max` as the zone takes.
    fn fill_zone(
        &self,
        tables: &Tables,
        placing: &[Placing],
        request: &PlaceRequest<'_>,
        zone: &str,
        max: usize,
        refused: &mut BTreeMap<String, Refusal>,
    ) -> Vec<Choice> {
        let mut hosts = candidates(&self.region, tables, placing, None);
        let zones = [zone.to_owned()];
        let wanted = request.shape.load();
        let group = request.group.as_deref();
        let mut scheduled = placement::Request {
            instance_type: request.instance_type,
            architecture: request.shape.architecture,
            wanted,
            zones: &zones,
            bound_to: None,
            tenancy: request.tenancy,
            dedicated_host_id: request.dedicated_host.as_ref().map(|host| host.host_id.as_str()),
            group: group.map(|group| rules(tables, placing, group, request.partition, None)),
        };
        let mut chosen = Vec::new();
        while chosen.len() < max {
            let choice = match placement::choose(&hosts, &scheduled) {
                Ok(choice) => choice,
                Err(refusals) => {
                    refused.extend(refusals);
                    break;
                }
            };
            if let Some(host) = hosts.iter_mut().find(|host| host.host_id == choice.host_id) {
                host.load += wanted;
                host.tenants.add(request.tenancy);
            }
            if let Some(group) = &mut scheduled.group {
                group.members.push(Member { host_id: choice.host_id.clone(), partition: choice.partition });
            }
            chosen.push(choice);
        }
        chosen
    }

    /// Empty hosts to allocate; None where there are too few. Where volumes cannot be made anew elsewhere, a host
    /// with those of a stopped instance is not empty.
    pub fn hold_whole(
        &self,
        tables: &Tables,
        request: &WholeRequest<'_>,
        volumes_move: bool,
    ) -> Option<Vec<String>> {
        let mut placing = self.region.placing.lock();
        placing.retain(|held| held.attempt != self.attempt);
        let mut hosts = candidates(&self.region, tables, &placing, None);
        let has_volumes =
            |host_id| tables.instances.with(ON_HOST, host_id).any(|instance| !instance.is_terminated());
        hosts.retain(|host| volumes_move || !has_volumes(host.host_id));
        let chosen = placement::choose_whole(&hosts, request)?;
        placing.extend(chosen.iter().map(|host_id| Placing {
            attempt: self.attempt,
            instance_id: None,
            load: Load::default(),
            tenancy: None,
            group_name: None,
            member: Member { host_id: (*host_id).to_owned(), partition: None },
        }));
        Some(chosen.into_iter().map(str::to_owned).collect())
    }
}

impl Drop for PlacingGuard {
    fn drop(&mut self) {
        self.region.placing.lock().retain(|held| held.attempt != self.attempt);
    }
}

/// What a stopped instance asks of the host that it is on. It may go back to its last Dedicated Host, whether that
/// takes instances that do not name it or not.
fn at_home<'a>(
    tables: &Tables,
    placing: &[Placing],
    instance: &'a Instance,
    zones: &'a [String],
) -> placement::Request<'a> {
    let placement = &instance.placement;
    let group = placement.group_id().and_then(|id| tables.placement_groups.find(id));
    let rules = |group| rules(tables, placing, group, placement.partition_number(), Some(instance));
    placement::Request {
        instance_type: &instance.instance_type,
        architecture: instance.architecture,
        wanted: instance.load(),
        zones,
        bound_to: Some(&placement.host_id),
        tenancy: placement.tenancy,
        dedicated_host_id: placement.dedicated_host_id.as_deref(),
        group: group.map(|group| rules(group)),
    }
}

/// Whether a stopped instance may be on its host by everything but the room there.
pub(crate) fn may_stay(region: &RegionState, tables: &Tables, instance: &Instance) -> bool {
    let zones = [instance.placement.zone.to_string()];
    let request = placement::Request { wanted: Load::default(), ..at_home(tables, &[], instance, &zones) };
    placement::choose(&candidates(region, tables, &[], None), &request).is_ok()
}

/// The hosts of a region as the scheduler sees them, with what is being placed and as if one instance were not. A
/// host that is being allocated is none of them.
pub(crate) fn candidates<'a>(
    region: &'a RegionState,
    tables: &'a Tables,
    placing: &[Placing],
    without: Option<&Instance>,
) -> Vec<Candidate<'a>> {
    let mut held: HashMap<&str, Vec<&Placing>> = HashMap::new();
    for other in placing {
        held.entry(&other.member.host_id).or_default().push(other);
    }
    let allocated = allocated(tables);
    let without = without.filter(|instance| instance.occupies_host());
    let candidate = |host: &'a crate::region::HostLink| {
        let host_id = host.description.host_id.as_str();
        let (mut load, mut tenants) = tables.loads.on(host_id);
        if let Some(instance) = without.filter(|instance| instance.placement.host_id == host_id) {
            load -= instance.load();
            tenants.remove(instance.placement.tenancy);
        }
        for other in held.get(host_id).into_iter().flatten() {
            load += other.load;
            tenants.add(other.tenancy?);
        }
        Some(Candidate {
            host_id,
            zone: &region.zone_of(&host.description)?.name,
            rack: &host.description.rack,
            architecture: host.description.architecture,
            away: !host.is_heard(),
            capacity: host.capacity(),
            load,
            tenants,
            allocation: allocated.get(host_id).map(|dedicated| dedicated.allocation()),
        })
    };
    region.hosts.iter().filter_map(candidate).collect()
}

/// The Dedicated Host that each machine is, if it is one.
pub(crate) fn allocated(tables: &Tables) -> HashMap<&str, &DedicatedHost> {
    let hosts = tables.dedicated_hosts.iter().filter(|host| !host.is_released());
    hosts.map(|host| (host.machine_id.as_str(), &**host)).collect()
}

/// The group that a request names, by name or by id, with a partition that it has.
pub(crate) fn find_group(
    tables: &Tables,
    name: Option<&str>,
    id: Option<&str>,
    partition: Option<i32>,
) -> Result<Option<Arc<PlacementGroup>>> {
    let group = match (name, id) {
        (None, None) => return Ok(None),
        (Some(name), _) => tables.placement_groups.with("group-name", name).next(),
        (None, Some(id)) => tables.placement_groups.find(id),
    };
    let group = group.filter(|group| !group.retired).cloned().ok_or_else(|| {
        let name = name.or(id).unwrap_or_default();
        Error::new("InvalidPlacementGroup.Unknown", format!("The Placement Group '{name}' is unknown."))
    })?;
    check_partition(&group, partition)?;
    Ok(Some(group))
}

pub(crate) fn check_partition(group: &PlacementGroup, partition: Option<i32>) -> Result<()> {
    let count = group.partition_count.unwrap_or(0);
    match partition {
        Some(partition) if partition < 1 || partition as u32 > count => {
            Err(Error::invalid_parameter_value(format!(
                "The partition number {partition} is not within the partition count {count} of the placement group '{}'.",
                group.name
            )))
        }
        _ => Ok(()),
    }
}

/// EC2 API Reference, ModifyInstancePlacement: spread groups are for default tenancy, the others for dedicated too.
pub(crate) fn check_tenancy(group: &PlacementGroup, tenancy: Tenancy) -> Result<()> {
    match (tenancy, group.strategy) {
        (Tenancy::Default, _) | (Tenancy::Dedicated, Strategy::Cluster | Strategy::Partition) => Ok(()),
        (tenancy, _) => Err(Error::invalid_parameter_combination(format!(
            "You cannot launch an instance with a tenancy of '{}' into the placement group '{}'. Either remove the placement group from the request, or specify a different tenancy.",
            tenancy.name(),
            group.name
        ))),
    }
}

/// A group's rules for one more instance, or for one of its own that is placed again. What is stopped has no place.
pub(crate) fn rules(
    tables: &Tables,
    placing: &[Placing],
    group: &PlacementGroup,
    partition: Option<u32>,
    without: Option<&Instance>,
) -> Group {
    let others = tables.instances.with("placement-group-name", &group.name).filter(|other| {
        other.occupies_host() && without.is_none_or(|without| without.instance_id != other.instance_id)
    });
    let placed = others.map(|other| Member {
        host_id: other.placement.host_id.clone().into(),
        partition: other.placement.partition_number(),
    });
    let being_placed = placing.iter().filter(|other| other.group_name.as_deref() == Some(&group.name));
    Group {
        strategy: group.strategy,
        partition_count: group.partition_count.unwrap_or(1),
        spread_level: group.spread_level.unwrap_or_default(),
        partition,
        members: placed.chain(being_placed.map(|other| other.member.clone())).collect(),
    }
}

/// What was asked for, as far as the answer that there is no room must know.
struct Asked<'a> {
    instance_type: &'a str,
    zones: &'a [String],
    tenancy: Tenancy,
    dedicated_host: Option<&'a DedicatedHost>,
}

impl Asked<'_> {
    fn no_room(&self, refused: &BTreeMap<String, Refusal>) -> Error {
        if refused.values().any(|refusal| *refusal == Refusal::SpreadLimit) {
            return Error::new(
                "PlacementGroupInstanceLimitExceeded",
                format!(
                    "A spread placement group holds at most {} running instances in each Availability Zone.",
                    placement::SPREAD_PER_ZONE_MAX
                ),
            );
        }
        if self.tenancy == Tenancy::Host {
            return self.no_dedicated_host(refused);
        }
        let zone = match self.zones {
            [one] => format!("in the Availability Zone you requested ({one})"),
            _ => "in any Availability Zone".to_owned(),
        };
        Error::new(
            "InsufficientInstanceCapacity",
            format!("We currently do not have sufficient {} capacity {zone}.", self.instance_type),
        )
    }

    fn no_dedicated_host(&self, refused: &BTreeMap<String, Refusal>) -> Error {
        let Some(named) = self.dedicated_host else {
            return Error::new(
                "InsufficientHostCapacity",
                "You do not have a host with a matching configuration and sufficient capacity. Allocate a host with auto-placement, or name one, and try again.",
            )
            // The caller's own hosts are too few, not ours.
            .with_status(400);
        };
        if !self.zones.contains(&named.zone) {
            return named.in_another_zone();
        }
        match refused.get(&named.machine_id) {
            Some(Refusal::InstanceType | Refusal::Architecture) => named.does_not_take(self.instance_type),
            Some(Refusal::Volumes) => volumes_are_elsewhere(),
            _ => Error::new(
                "InsufficientCapacityOnHost",
                format!(
                    "Dedicated host {} has insufficient capacity to launch the instances in this request.",
                    named.host_id
                ),
            ),
        }
    }
}

pub(crate) fn volumes_are_elsewhere() -> Error {
    Error::new(
        "UnsupportedOperation",
        "The instance's volumes are on another host, and this cloud does not move volumes between hosts.",
    )
}
