//! Choosing hosts for a launch, so that two launches at once never count on the same room.

use crate::engine::Tables;
use crate::instance::Instance;
use crate::instance_type::MachineShape;
use crate::placement::{self, Choice, Group, Load, Member, Refusal};
use crate::placement_group::PlacementGroup;
use crate::region::{Placing, RegionState};
use model::{Error, Result};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub struct PlaceRequest<'a> {
    pub shape: &'a MachineShape,
    pub instance_type: &'a str,
    /// Zones that have a subnet for it, in the order of preference.
    pub zones: Vec<String>,
    pub group_name: Option<&'a str>,
    pub group_id: Option<&'a str>,
    pub partition: Option<i32>,
}

pub struct Places {
    /// All instances of a request go to one zone.
    pub zone: String,
    pub chosen: Vec<Choice>,
    pub group: Option<Arc<PlacementGroup>>,
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
        request: PlaceRequest<'_>,
        min: usize,
        max: usize,
    ) -> Result<Places> {
        let group = find_group(tables, &request)?;
        let mut placing = self.region.placing.lock();
        placing.retain(|held| held.attempt != self.attempt);
        let wanted = Load { vcpus: u64::from(request.shape.vcpus), memory_mib: request.shape.memory_mib };
        let mut best: Option<(String, Vec<Choice>)> = None;
        let mut refused = BTreeMap::new();
        for zone in &request.zones {
            let chosen =
                self.fill_zone(tables, &placing, &request, group.as_deref(), zone, wanted, max, &mut refused);
            let enough = chosen.len() == max;
            if best.as_ref().is_none_or(|(_, before)| before.len() < chosen.len()) {
                best = Some((zone.clone(), chosen));
            }
            if enough {
                break;
            }
        }
        let (zone, chosen) =
            best.filter(|(_, chosen)| chosen.len() >= min).ok_or_else(|| no_room(&request, &refused))?;
        placing.extend(chosen.iter().map(|choice| Placing {
            attempt: self.attempt,
            load: wanted,
            group_name: group.as_ref().map(|group| group.name.clone()),
            member: Member { host_id: choice.host_id.clone(), partition: choice.partition },
        }));
        let being_placed: u64 = placing.iter().map(|held| held.load.vcpus).sum();
        self.region.view.quotas.check_vcpus(tables.loads.vcpus() + being_placed)?;
        Ok(Places { zone, chosen, group })
    }

    /// As many of `max` as the zone takes.
    #[allow(clippy::too_many_arguments)]
    fn fill_zone(
        &self,
        tables: &Tables,
        placing: &[Placing],
        request: &PlaceRequest<'_>,
        group: Option<&PlacementGroup>,
        zone: &str,
        wanted: Load,
        max: usize,
        refused: &mut BTreeMap<String, Refusal>,
    ) -> Vec<Choice> {
        let mut held: HashMap<&str, Load> = HashMap::new();
        for other in placing {
            *held.entry(&other.member.host_id).or_default() += other.load;
        }
        let mut hosts = crate::instance::run::candidates(&self.region, |host_id| {
            let mut load = tables.loads.of(host_id);
            load += held.get(host_id).copied().unwrap_or_default();
            load
        });
        let zones = [zone.to_owned()];
        let mut scheduled = placement::Request {
            architecture: request.shape.architecture,
            wanted,
            zones: &zones,
            group: group.map(|group| group_members(tables, placing, group, request.partition)),
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
            }
            if let Some(group) = &mut scheduled.group {
                group.members.push(Member { host_id: choice.host_id.clone(), partition: choice.partition });
            }
            chosen.push(choice);
        }
        chosen
    }
}

impl Drop for PlacingGuard {
    fn drop(&mut self) {
        self.region.placing.lock().retain(|held| held.attempt != self.attempt);
    }
}

fn find_group(tables: &Tables, request: &PlaceRequest<'_>) -> Result<Option<Arc<PlacementGroup>>> {
    let group = match (request.group_name, request.group_id) {
        (None, None) => return Ok(None),
        (Some(name), _) => tables.placement_groups.with("group-name", name).next(),
        (None, Some(id)) => tables.placement_groups.find(id),
    };
    let group = group.cloned().ok_or_else(|| {
        let name = request.group_name.or(request.group_id).unwrap_or_default();
        Error::new("InvalidPlacementGroup.Unknown", format!("The Placement Group '{name}' is unknown."))
    })?;
    if let Some(partition) = request.partition {
        let count = group.partition_count.unwrap_or(0);
        if partition < 1 || partition as u32 > count {
            return Err(Error::invalid_parameter_value(format!(
                "The partition number {partition} is not within the partition count {count} of the placement group '{}'.",
                group.name
            )));
        }
    }
    Ok(Some(group))
}

fn group_members(
    tables: &Tables,
    placing: &[Placing],
    group: &PlacementGroup,
    partition: Option<i32>,
) -> Group {
    let being_placed = placing
        .iter()
        .filter(|other| other.group_name.as_deref() == Some(&group.name))
        .map(|other| other.member.clone());
    rules(
        group,
        partition.map(|partition| partition as u32),
        placed(tables, group).map(|instance| member(instance)).chain(being_placed).collect(),
    )
}

/// The group as one of its instances, already placed, sees it.
pub(crate) fn group_without(tables: &Tables, group: &PlacementGroup, instance: &Instance) -> Group {
    let others = placed(tables, group).filter(|other| other.instance_id != instance.instance_id);
    rules(group, instance.placement.partition_number, others.map(|other| member(other)).collect())
}

fn placed<'t>(tables: &'t Tables, group: &PlacementGroup) -> impl Iterator<Item = &'t Arc<Instance>> {
    let members = tables.instances.with("placement-group-name", &group.name);
    members.filter(|instance| !instance.is_terminated())
}

fn member(instance: &Instance) -> Member {
    Member { host_id: instance.placement.host_id.clone(), partition: instance.placement.partition_number }
}

fn rules(group: &PlacementGroup, partition: Option<u32>, members: Vec<Member>) -> Group {
    Group {
        strategy: group.strategy,
        partition_count: group.partition_count.unwrap_or(1),
        spread_level: group.spread_level.unwrap_or_default(),
        partition,
        members,
    }
}

fn no_room(request: &PlaceRequest<'_>, refused: &BTreeMap<String, Refusal>) -> Error {
    let zone = match request.zones.as_slice() {
        [one] => format!("in the Availability Zone you requested ({one})"),
        _ => "in any Availability Zone".to_owned(),
    };
    if refused.values().any(|refusal| *refusal == Refusal::SpreadLimit) {
        return Error::new(
            "PlacementGroupInstanceLimitExceeded",
            format!(
                "A spread placement group holds at most {} running instances in each Availability Zone.",
                placement::SPREAD_PER_ZONE_MAX
            ),
        );
    }
    Error::new(
        "InsufficientInstanceCapacity",
        format!("We currently do not have sufficient {} capacity {zone}.", request.instance_type),
    )
}
