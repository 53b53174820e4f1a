//! An instance's placement: where it is, what was asked of where it may be, and how a stopped one's is modified.
//!
//! A modification says where the instance may be from then on; the next start finds a host for it and takes its
//! volumes along. Where volumes cannot be made anew elsewhere, only what its own host allows can be asked for.

use super::Instance;
use super::run::{PlacingGuard, place};
use crate::Context;
use crate::dedicated_host::{self, DedicatedHost};
use crate::engine::Tx;
use crate::placement::family;
use crate::placement_group::PlacementGroup;
use crate::volume::Volume;
use aws_api::ec2;
use model::{Error, Id, InstanceState, Kind, Result, Text};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Placement {
    pub zone: Text,
    /// The machine behind the cloud; EC2's own host id is that of a Dedicated Host.
    pub host_id: Text,
    /// Its placement group.
    #[serde(default)]
    pub group: Option<Box<InGroup>>,
    #[serde(default)]
    pub tenancy: Tenancy,
    #[serde(default)]
    pub affinity: Affinity,
    /// The Dedicated Host that it is on; of a stopped instance the last one, or the one that it was given since.
    #[serde(default)]
    pub dedicated_host_id: Option<Box<str>>,
    /// Whether the next start is to be on that Dedicated Host, whatever the affinity.
    #[serde(default)]
    pub targeted: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InGroup {
    pub name: Text,
    pub group_id: Id,
    /// None too while the next start is to find one.
    pub partition_number: Option<u32>,
}

impl Placement {
    pub fn group_name(&self) -> Option<&str> {
        self.group.as_ref().map(|group| group.name.as_str())
    }

    pub fn group_id(&self) -> Option<&Id> {
        self.group.as_ref().map(|group| &group.group_id)
    }

    pub fn partition_number(&self) -> Option<u32> {
        self.group.as_ref().and_then(|group| group.partition_number)
    }

    /// The Dedicated Host that it must start on.
    pub fn named_host(&self) -> Option<&str> {
        let bound = self.targeted || self.affinity == Affinity::Host;
        self.dedicated_host_id.as_deref().filter(|_| bound)
    }
}

impl InGroup {
    pub fn new(group: &PlacementGroup, partition_number: Option<u32>) -> InGroup {
        InGroup { name: group.name.as_str().into(), group_id: group.group_id.clone(), partition_number }
    }
}

/// With whom an instance shares its host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tenancy {
    #[default]
    Default,
    Dedicated,
    /// On a Dedicated Host.
    Host,
}

impl Tenancy {
    pub fn name(self) -> &'static str {
        match self {
            Tenancy::Default => "default",
            Tenancy::Dedicated => "dedicated",
            Tenancy::Host => "host",
        }
    }

    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "default" => Ok(Tenancy::Default),
            "dedicated" => Ok(Tenancy::Dedicated),
            "host" => Ok(Tenancy::Host),
            other => Err(Error::new(
                "InvalidTenancy",
                format!("Value ({other}) for parameter tenancy is invalid."),
            )),
        }
    }
}

/// Whether an instance of host tenancy goes back to its Dedicated Host whenever it is started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Affinity {
    #[default]
    Default,
    Host,
}

impl Affinity {
    pub fn name(self) -> &'static str {
        match self {
            Affinity::Default => "default",
            Affinity::Host => "host",
        }
    }

    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "default" => Ok(Affinity::Default),
            "host" => Ok(Affinity::Host),
            other => Err(Error::new(
                "InvalidAffinity",
                format!("Value ({other}) for parameter affinity is invalid."),
            )),
        }
    }
}

/// The tenancy and affinity that a launch asks for. To name a Dedicated Host is to ask for one.
pub(crate) fn asked(placement: Option<&ec2::Placement>) -> Result<(Tenancy, Affinity)> {
    let given = |text: fn(&ec2::Placement) -> &Option<String>| {
        placement.and_then(|placement| text(placement).as_deref()).filter(|text| !text.is_empty())
    };
    if given(|placement| &placement.host_resource_group_arn).is_some() {
        return Err(Error::new(
            "UnsupportedOperation",
            "Host resource groups are not supported by this cloud.",
        ));
    }
    let names_host = given(|placement| &placement.host_id).is_some();
    let tenancy = match given(|placement| &placement.tenancy) {
        Some(text) => Tenancy::parse(text)?,
        None if names_host => Tenancy::Host,
        None => Tenancy::Default,
    };
    let affinity = given(|placement| &placement.affinity).map(Affinity::parse).transpose()?;
    match (tenancy, names_host, affinity) {
        (Tenancy::Host, ..) | (_, false, None) => Ok((tenancy, affinity.unwrap_or_default())),
        (_, true, _) => Err(only_with_host_tenancy("hostId")),
        (_, false, Some(_)) => Err(only_with_host_tenancy("affinity")),
    }
}

/// `The parameter affinity cannot be used without specifying a tenancy of 'host'`.
pub(crate) fn only_with_host_tenancy(parameter: &str) -> Error {
    Error::invalid_parameter_combination(format!(
        "The parameter {parameter} cannot be used without specifying a tenancy of 'host'"
    ))
}

pub async fn modify_instance_placement(
    context: &Context,
    input: ec2::ModifyInstancePlacementRequest,
) -> Result<ec2::ModifyInstancePlacementResult> {
    let id = Id::parse(Kind::Instance, input.instance_id.as_deref().unwrap_or_default())?;
    let modification = Modification::check(&input)?;
    context
        .transact(|tx| {
            let before = tx.get::<Instance>(&id).ok_or_else(|| Id::not_found(Kind::Instance, &id))?;
            modification.check_state(&before)?;
            let mut instance = (*before).clone();
            modification.apply(tx, &mut instance)?;
            if instance == *before {
                return Ok(());
            }
            let moves = !place::may_stay(&context.region, tx.tables(), &instance);
            if instance.state == InstanceState::Stopped && moves && !context.options.simulate {
                return Err(place::volumes_are_elsewhere());
            }
            tx.put(&instance);
            Ok(())
        })
        .await?;
    Ok(ec2::ModifyInstancePlacementResult { r#return: Some(true) })
}

/// What shall be different; what is None stays.
struct Modification {
    tenancy: Option<Tenancy>,
    affinity: Option<Affinity>,
    host_id: Option<Id>,
    group: Option<WantedGroup>,
    partition: Option<i32>,
}

enum WantedGroup {
    None,
    Named(String),
    WithId(String),
}

impl Modification {
    fn check(input: &ec2::ModifyInstancePlacementRequest) -> Result<Modification> {
        if input.host_resource_group_arn.is_some() {
            return Err(Error::new(
                "UnsupportedOperation",
                "Host resource groups are not supported by this cloud.",
            ));
        }
        let group = match (input.group_name.clone(), input.group_id.clone().filter(|id| !id.is_empty())) {
            (Some(_), Some(_)) => {
                return Err(Error::invalid_parameter_combination(
                    "The parameter GroupName cannot be used with the parameter GroupId",
                ));
            }
            (Some(name), None) if name.is_empty() => Some(WantedGroup::None),
            (Some(name), None) => Some(WantedGroup::Named(name)),
            (None, id) => id.map(WantedGroup::WithId),
        };
        let host_id = input.host_id.as_deref().map(|id| Id::parse(Kind::Host, id)).transpose()?;
        let modification = Modification {
            tenancy: input.tenancy.as_deref().map(Tenancy::parse).transpose()?,
            affinity: input.affinity.as_deref().map(Affinity::parse).transpose()?,
            host_id,
            group,
            partition: input.partition_number,
        };
        if modification.affinity.is_none() && !modification.needs_stop() {
            return Err(Error::invalid_parameter_combination(
                "At least one of affinity, host ID, tenancy and placement group must be specified",
            ));
        }
        Ok(modification)
    }

    fn needs_stop(&self) -> bool {
        self.tenancy.is_some() || self.host_id.is_some() || self.group.is_some() || self.partition.is_some()
    }

    fn check_state(&self, instance: &Instance) -> Result<()> {
        let fits = match instance.state {
            InstanceState::Stopped => true,
            InstanceState::ShuttingDown | InstanceState::Terminated => false,
            _ => !self.needs_stop(),
        };
        if fits {
            return Ok(());
        }
        Err(Error::new(
            "InvalidInstanceState",
            format!(
                "The instance '{}' is not in the 'stopped' state: its placement cannot be modified.",
                instance.instance_id
            ),
        ))
    }

    fn apply(&self, tx: &mut Tx<'_>, instance: &mut Instance) -> Result<()> {
        if let Some(tenancy) = self.tenancy {
            change_tenancy(instance, tenancy)?;
        }
        let on_dedicated_host = instance.placement.tenancy == Tenancy::Host;
        if let Some(affinity) = self.affinity {
            if !on_dedicated_host {
                return Err(only_with_host_tenancy("affinity"));
            }
            instance.placement.affinity = affinity;
        }
        if let Some(host_id) = &self.host_id {
            if !on_dedicated_host {
                return Err(only_with_host_tenancy("hostId"));
            }
            tx.get::<DedicatedHost>(host_id);
            let host = dedicated_host::find(tx.tables(), host_id)?;
            if host.zone != instance.placement.zone {
                return Err(host.in_another_zone());
            }
            if !host.allocation().takes(&instance.instance_type) {
                return Err(host.does_not_take(&instance.instance_type));
            }
            instance.placement.dedicated_host_id = Some((**host_id).into());
            instance.placement.targeted = true;
        }
        self.change_group(tx, &mut instance.placement)
    }

    fn change_group(&self, tx: &mut Tx<'_>, placement: &mut Placement) -> Result<()> {
        let (name, id) = match &self.group {
            Some(WantedGroup::None) => (None, None),
            Some(WantedGroup::Named(name)) => (Some(name.clone()), None),
            Some(WantedGroup::WithId(id)) => (None, Some(id.clone())),
            None => (None, placement.group_id().map(ToString::to_string)),
        };
        let group = place::find_group(tx.tables(), name.as_deref(), id.as_deref(), self.partition)?;
        let Some(group) = group else {
            if self.partition.is_some() {
                return Err(Error::invalid_parameter_combination(
                    "A partition can be named only together with a partition placement group",
                ));
            }
            placement.group = None;
            return Ok(());
        };
        place::check_tenancy(&group, placement.tenancy)?;
        // Depended upon: a group that is deleted meanwhile is noticed.
        tx.get::<PlacementGroup>(&group.group_id);
        // The next start finds a partition in a group that is new to it.
        let kept = placement.partition_number().filter(|_| placement.group_id() == Some(&group.group_id));
        let partition_number = self.partition.map(|number| number as u32).or(kept);
        placement.group = Some(InGroup::new(&group, partition_number).into());
        Ok(())
    }
}

fn change_tenancy(instance: &mut Instance, tenancy: Tenancy) -> Result<()> {
    let placement = &mut instance.placement;
    let concerns_host = [placement.tenancy, tenancy].contains(&Tenancy::Host);
    // EC2 API Reference, ModifyInstancePlacement.
    if placement.tenancy != tenancy && concerns_host && family(&instance.instance_type) == "t3" {
        return Err(Error::new(
            "InvalidRequest",
            "The tenancy of a T3 instance cannot be changed to or from 'host'.",
        ));
    }
    placement.tenancy = tenancy;
    if tenancy != Tenancy::Host {
        placement.affinity = Affinity::Default;
        placement.dedicated_host_id = None;
        placement.targeted = false;
    }
    Ok(())
}

/// Gives a stopped instance a host to start on, and takes its volumes there.
pub(super) fn settle(
    tx: &mut Tx<'_>,
    instance: &mut Instance,
    guard: &PlacingGuard,
    volumes_move: bool,
) -> Result<()> {
    // Where others have them, too, they stay.
    let is_alone = |volume: &Volume| volume.attachments.len() <= 1;
    let mut volumes = instance.disks.iter().filter_map(|disk| tx.get::<Volume>(&disk.volume_id));
    let volumes_move = volumes_move && volumes.all(|volume| is_alone(&volume));
    let choice = guard.place_again(tx.tables(), instance, volumes_move)?;
    // Depended upon: what changes meanwhile is noticed.
    if let Some(host_id) = &choice.dedicated_host_id {
        tx.get::<DedicatedHost>(host_id);
    }
    let placement = &mut instance.placement;
    if choice.host_id != placement.host_id {
        for disk in &instance.disks {
            if let Some(volume) = tx.get::<Volume>(&disk.volume_id) {
                tx.put(&Volume { host_id: Some(choice.host_id.as_str().into()), ..(*volume).clone() });
            }
        }
    }
    placement.host_id = choice.host_id.into();
    if let Some(group) = &mut placement.group {
        group.partition_number = choice.partition;
    }
    placement.dedicated_host_id = choice.dedicated_host_id.map(Into::into);
    placement.targeted = false;
    Ok(())
}
