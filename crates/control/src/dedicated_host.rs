//! Dedicated Hosts: whole machines behind the cloud that take instances of host tenancy alone
//! (EC2 User Guide, "Amazon EC2 Dedicated Hosts").
//!
//! A host is available from its allocation to its release. That a machine has failed is not noticed yet, so that
//! there is no recovery and no other state, but where a cloud was started without the machine.

use crate::Context;
use crate::engine::table::{Record, Values};
use crate::engine::tags::Specified;
use crate::engine::{Tables, Tags, filter};
use crate::instance::run::PlacingGuard;
use crate::instance_type;
use crate::placement::{Allocation, Load, WholeRequest};
use crate::region::{RegionState, Zone};
use agent_api::Architecture;
use aws_api::ec2;
use model::{AccountId, Error, Id, Kind, Result, Timestamp};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

mod describe;
mod modify;

pub use describe::describe_hosts;
pub use modify::modify_hosts;

/// Most hosts of one request, and most ids in one.
const HOSTS_MAX: usize = 100;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DedicatedHost {
    pub host_id: Id,
    pub owner: AccountId,
    /// The machine behind the cloud that it is.
    pub machine_id: String,
    pub zone: String,
    pub zone_id: String,
    /// The one type that it takes; None is every type of the family.
    pub instance_type: Option<String>,
    pub instance_family: String,
    pub auto_placement: bool,
    pub host_recovery: bool,
    pub host_maintenance: bool,
    pub client_token: Option<String>,
    pub allocated_at: Timestamp,
    pub released_at: Option<Timestamp>,
    pub tags: Tags,
}

impl DedicatedHost {
    pub fn allocation(&self) -> Allocation<'_> {
        Allocation {
            dedicated_host_id: &self.host_id,
            auto_placement: self.auto_placement,
            instance_type: self.instance_type.as_deref(),
            instance_family: &self.instance_family,
        }
    }

    pub fn is_released(&self) -> bool {
        self.released_at.is_some()
    }

    pub(crate) fn in_another_zone(&self) -> Error {
        Error::invalid_parameter_combination(format!(
            "The Dedicated Host '{}' is in the Availability Zone {}, where the instance cannot be.",
            self.host_id, self.zone
        ))
    }

    pub(crate) fn does_not_take(&self, instance_type: &str) -> Error {
        Error::new(
            "InvalidHostConfiguration",
            format!(
                "The Dedicated Host '{}' does not take the instance type '{instance_type}'.",
                self.host_id
            ),
        )
    }

    fn state(&self, region: &RegionState) -> &'static str {
        match (self.is_released(), region.host(&self.machine_id)) {
            (true, _) => "released",
            (false, Some(_)) => "available",
            (false, None) => "under-assessment",
        }
    }
}

fn on_or_off(value: bool) -> &'static str {
    if value { "on" } else { "off" }
}

impl Record for DedicatedHost {
    const TABLE: &'static str = "dedicated-host";
    const INDEXED: &'static [&'static str] = &[];

    fn id(&self) -> &str {
        &self.host_id
    }

    fn tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }

    /// `state` depends on the region and is in `describe`.
    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        match name {
            "auto-placement" => filter::one(values, on_or_off(self.auto_placement)),
            "availability-zone" => filter::one(values, self.zone.as_str()),
            "availability-zone-id" => filter::one(values, self.zone_id.as_str()),
            "client-token" => filter::some(values, self.client_token.as_deref()),
            "host-reservation-id" => true,
            "instance-type" => filter::some(values, self.instance_type.as_deref()),
            _ => false,
        }
    }
}

/// The host that an instance names, as far as it can be named.
pub fn find(tables: &Tables, id: &str) -> Result<Arc<DedicatedHost>> {
    Id::parse(Kind::Host, id)?;
    let host = tables.dedicated_hosts.find(id).ok_or_else(|| Id::not_found(Kind::Host, id))?;
    if host.is_released() {
        return Err(not_available(id));
    }
    Ok(host.clone())
}

fn not_available(id: &str) -> Error {
    Error::new("InvalidHostState", format!("The Dedicated Host '{id}' is not in the 'available' state."))
}

/// What instances a host is for, checked: one type or a family.
struct Supported {
    instance_type: Option<String>,
    instance_family: String,
    architecture: Architecture,
    /// What instances of these types take.
    loads: Vec<Load>,
}

impl Supported {
    /// None where the request says nothing of it.
    fn check(
        context: &Context,
        instance_type: Option<&str>,
        instance_family: Option<&str>,
    ) -> Result<Option<Supported>> {
        let given = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
        let (name, family) = match (given(instance_type), given(instance_family)) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => {
                return Err(Error::invalid_parameter_combination(
                    "You cannot specify an instance type and an instance family in the same request",
                ));
            }
            (Some(name), None) => (Some(name.clone()), crate::placement::family(&name).to_owned()),
            (None, Some(family)) => (None, family),
        };
        if let Some(name) = &name {
            instance_type::shape(&context.tables(), name)?;
        }
        let shapes = instance_type::on_dedicated_hosts(&family);
        let wanted: Vec<_> =
            shapes.into_iter().filter(|(other, _)| name.as_ref().is_none_or(|name| name == other)).collect();
        let Some((_, first)) = wanted.first() else {
            return Err(match name {
                Some(_) => Error::new(
                    "UnsupportedHostConfiguration",
                    "The requested configuration is currently not supported. Please check the documentation for supported configurations.",
                ),
                None => Error::new(
                    "InvalidHostConfiguration",
                    format!("The instance family '{family}' is not supported."),
                ),
            });
        };
        Ok(Some(Supported {
            instance_type: name,
            instance_family: family,
            architecture: first.architecture,
            loads: wanted.iter().map(|(_, shape)| shape.load()).collect(),
        }))
    }
}

/// A checked request for hosts.
struct Wanted {
    supported: Supported,
    zone: Zone,
    count: usize,
    auto_placement: bool,
    host_recovery: bool,
    host_maintenance: bool,
    tags: Tags,
}

impl Wanted {
    fn check(context: &Context, input: &ec2::AllocateHostsRequest) -> Result<Wanted> {
        if input.outpost_arn.is_some() || !input.asset_ids.is_empty() {
            return Err(Error::new("UnsupportedOperation", "Outposts are not supported by this cloud."));
        }
        let supported =
            Supported::check(context, input.instance_type.as_deref(), input.instance_family.as_deref())?;
        let quantity = input.quantity.ok_or_else(|| Error::missing_parameter("Quantity"))?;
        let count = usize::try_from(quantity).ok().filter(|count| (1..=HOSTS_MAX).contains(count));
        Ok(Wanted {
            supported: supported.ok_or_else(|| Error::missing_parameter("InstanceType"))?,
            zone: zone(context, input)?,
            count: count.ok_or_else(|| {
                Error::new("InvalidQuantity", format!("The quantity must be between 1 and {HOSTS_MAX}."))
            })?,
            auto_placement: input.auto_placement.as_deref() == Some("on"),
            host_recovery: input.host_recovery.as_deref() == Some("on"),
            host_maintenance: input.host_maintenance.as_deref() == Some("on"),
            tags: Specified::from_api(&input.tag_specifications, &[Kind::Host])?.of(Kind::Host),
        })
    }
}

fn zone(context: &Context, input: &ec2::AllocateHostsRequest) -> Result<Zone> {
    let given = |text: &'_ Option<String>| text.clone().filter(|text| !text.is_empty());
    let (name, id) = (given(&input.availability_zone), given(&input.availability_zone_id));
    if name.is_none() && id.is_none() {
        return Err(Error::missing_parameter("AvailabilityZone"));
    }
    let is_it = |zone: &&Zone| {
        name.as_ref().is_none_or(|name| *name == zone.name) && id.as_ref().is_none_or(|id| *id == zone.id)
    };
    context.region.zones.iter().find(is_it).cloned().ok_or_else(|| {
        let named = name.or(id).unwrap_or_default();
        Error::invalid_parameter_value(format!("Invalid availability zone: [{named}]"))
    })
}

pub async fn allocate_hosts(
    context: &Context,
    input: ec2::AllocateHostsRequest,
) -> Result<ec2::AllocateHostsResult> {
    let wanted = Wanted::check(context, &input)?;
    let idempotent = context.idempotent()?;
    let guard = PlacingGuard::new(context.region.clone(), context.environment.random.u64());
    let host_ids = context
        .transact(|tx| {
            if let Some(made) = idempotent.made_before(tx)? {
                return Ok(made);
            }
            let request = WholeRequest {
                zone: &wanted.zone.name,
                architecture: wanted.supported.architecture,
                any_of: &wanted.supported.loads,
                count: wanted.count,
            };
            let machines = guard.hold_whole(tx.tables(), &request, context.options.simulate);
            let mut host_ids = Vec::with_capacity(wanted.count);
            for machine_id in machines.ok_or_else(|| no_hosts(&wanted))? {
                let host = DedicatedHost {
                    host_id: tx.new_id(Kind::Host),
                    owner: context.account().clone(),
                    machine_id,
                    zone: wanted.zone.name.clone(),
                    zone_id: wanted.zone.id.clone(),
                    instance_type: wanted.supported.instance_type.clone(),
                    instance_family: wanted.supported.instance_family.clone(),
                    auto_placement: wanted.auto_placement,
                    host_recovery: wanted.host_recovery,
                    host_maintenance: wanted.host_maintenance,
                    client_token: input.client_token.clone(),
                    allocated_at: tx.now(),
                    released_at: None,
                    tags: wanted.tags.clone(),
                };
                tx.create(&host);
                host_ids.push(host.host_id.to_string());
            }
            idempotent.remember(tx, host_ids.clone());
            Ok(host_ids)
        })
        .await?;
    drop(guard);
    Ok(ec2::AllocateHostsResult { host_ids })
}

fn no_hosts(wanted: &Wanted) -> Error {
    Error::new(
        "InsufficientHostCapacity",
        format!(
            "There are not {} empty hosts for '{}' in the Availability Zone {}.",
            wanted.count,
            wanted.supported.instance_type.as_ref().unwrap_or(&wanted.supported.instance_family),
            wanted.zone.name
        ),
    )
}

pub async fn release_hosts(
    context: &Context,
    input: ec2::ReleaseHostsRequest,
) -> Result<ec2::ReleaseHostsResult> {
    let (successful, unsuccessful) = change_each(context, &input.host_ids, |tables, host, now| {
        let taken = tables.loads.instances_on(&host.machine_id).next().is_some();
        if taken || context.region.is_being_placed_on(&host.machine_id) {
            return Err(Error::new(
                "Client.InvalidHost.Occupied",
                format!("Dedicated host '{}' cannot be released as it is occupied", host.host_id),
            ));
        }
        host.released_at = Some(now);
        Ok(())
    })
    .await?;
    Ok(ec2::ReleaseHostsResult { successful, unsuccessful })
}

/// Changes each host that can be changed, and says of the others why not.
async fn change_each(
    context: &Context,
    ids: &[String],
    change: impl Fn(&Tables, &mut DedicatedHost, Timestamp) -> Result<()>,
) -> Result<(Vec<String>, Vec<ec2::UnsuccessfulItem>)> {
    if ids.is_empty() {
        return Err(Error::missing_parameter("HostId"));
    }
    if ids.len() > HOSTS_MAX {
        return Err(Error::invalid_parameter_value(format!(
            "At most {HOSTS_MAX} Dedicated Hosts can be named in one request"
        )));
    }
    for id in ids {
        Id::parse(Kind::Host, id)?;
    }
    let mut ids = ids.to_vec();
    ids.sort();
    ids.dedup();
    context
        .transact(|tx| {
            let (mut successful, mut unsuccessful) = (Vec::new(), Vec::new());
            for id in &ids {
                let found = tx.get::<DedicatedHost>(id);
                let changed = match found {
                    None => Err(Error::new(
                        "Client.InvalidHostID.NotFound",
                        format!("The Dedicated Host '{id}' does not exist"),
                    )),
                    Some(host) if host.is_released() => {
                        Err(Error::new("Client.InvalidHostState", not_available(id).message))
                    }
                    Some(before) => {
                        let mut host = (*before).clone();
                        change(tx.tables(), &mut host, tx.now()).map(|()| {
                            if host != *before {
                                tx.put(&host);
                            }
                        })
                    }
                };
                match changed {
                    Ok(()) => successful.push(id.clone()),
                    Err(error) => unsuccessful.push(unsuccessful_item(id, error)),
                }
            }
            Ok((successful, unsuccessful))
        })
        .await
}

fn unsuccessful_item(id: &str, error: Error) -> ec2::UnsuccessfulItem {
    ec2::UnsuccessfulItem {
        resource_id: Some(id.to_owned()),
        error: Some(ec2::UnsuccessfulItemError {
            code: Some(error.code.into_owned()),
            message: Some(error.message),
        }),
    }
}
