//! AttachNetworkInterface, DetachNetworkInterface, and what a host says of an instance's interfaces.

use super::{InterfaceAttachment, NetworkInterface, Purpose, address, queues};
use crate::Context;
use crate::attachment::{AttachmentState, Outcome};
use crate::engine::unsupported::refuse;
use crate::engine::{Tables, Tx};
use crate::instance::Instance;
use crate::instance_type::{self, InterfaceLimits};
use agent_api::PlugState;
use aws_api::ec2;
use model::{Error, Id, InstanceState, Kind, Result};
use std::sync::Arc;

/// Where on an instance an interface is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub network_card: u8,
    pub device_index: u8,
}

impl Place {
    pub fn is_primary(self) -> bool {
        (self.network_card, self.device_index) == (0, 0)
    }

    pub fn new(card: Option<i32>, index: i32, limits: &InterfaceLimits) -> Result<Place> {
        let within = |value: i32, max: usize, name: &str| {
            let valid = u8::try_from(value).ok().filter(|value| usize::from(*value) < max);
            valid.ok_or_else(|| {
                Error::invalid_parameter_value(format!("Value ({value}) for parameter {name} is invalid."))
            })
        };
        Ok(Place {
            network_card: within(card.unwrap_or(0), limits.network_cards.len(), "networkCardIndex")?,
            device_index: within(index, INDEX_MAX, "deviceIndex")?,
        })
    }
}

/// Above every device index: no type takes more interfaces on one card.
const INDEX_MAX: usize = 32;

pub async fn attach_network_interface(
    context: &Context,
    input: ec2::AttachNetworkInterfaceRequest,
) -> Result<ec2::AttachNetworkInterfaceResult> {
    let interface_id = input.network_interface_id.as_deref().unwrap_or_default();
    let instance_id = Id::parse(Kind::Instance, input.instance_id.as_deref().unwrap_or_default())?;
    let index = input.device_index.ok_or_else(|| Error::missing_parameter("deviceIndex"))?;
    refuse([(
        input.ena_srd_specification.is_some_and(|of| of.ena_srd_enabled == Some(true)),
        "ENA Express is",
    )])?;
    let ena_queues = queues::asked(input.ena_queue_count)?;
    let attached = context
        .transact(|tx| {
            let mut interface = super::own(tx, interface_id)?;
            let instance = tx.get::<Instance>(&instance_id);
            let mut instance =
                (*instance.ok_or_else(|| Id::not_found(Kind::Instance, &instance_id))?).clone();
            if !matches!(instance.state, InstanceState::Running | InstanceState::Stopped) {
                return Err(Error::new(
                    "IncorrectState",
                    format!("Instance '{instance_id}' is not 'running' or 'stopped'."),
                ));
            }
            if interface.zone(tx.tables()) != instance.placement.zone {
                return Err(Error::invalid_parameter_combination(
                    "You may not attach a network interface to an instance if they are not in the same availability zone",
                ));
            }
            let limits = instance_type::performance(tx.tables(), &instance.instance_type).interfaces;
            let place = Place::new(input.network_card_index, index, &limits)?;
            check_room(tx.tables(), &instance, place, interface.purpose, &limits)?;
            let mut asked = queues::of_instance(tx.tables(), &instance);
            asked.push((place, ena_queues));
            queues::check(&asked, &instance.instance_type, &limits)?;
            let attachment = InterfaceAttachment {
                ena_queues,
                state: AttachmentState::begin(instance.state == InstanceState::Running),
                ..InterfaceAttachment::new(tx, &instance_id, place)
            };
            bind(&mut interface, &attachment, &limits)?;
            instance.interfaces.push(interface.interface_id.clone());
            tx.put(&interface);
            tx.put(&instance);
            Ok(attachment)
        })
        .await?;
    Ok(ec2::AttachNetworkInterfaceResult {
        attachment_id: Some(attached.attachment_id.to_string()),
        network_card_index: Some(attached.network_card.into()),
    })
}

impl InterfaceAttachment {
    pub fn new(tx: &Tx<'_>, instance_id: &Id, place: Place) -> InterfaceAttachment {
        InterfaceAttachment {
            attachment_id: tx.new_id(Kind::NetworkInterfaceAttachment),
            instance_id: instance_id.clone(),
            device_index: place.device_index,
            network_card: place.network_card,
            state: AttachmentState::Attached,
            delete_on_termination: false,
            ena_queues: None,
            attached_at: tx.now(),
        }
    }
}

/// Gives a free interface to an instance of a type with these limits.
pub fn bind(
    interface: &mut NetworkInterface,
    attachment: &InterfaceAttachment,
    limits: &InterfaceLimits,
) -> Result<()> {
    if interface.attachment.is_some() {
        return Err(Error::new(
            "InvalidNetworkInterface.InUse",
            format!("Interface: [{}] in use.", interface.interface_id),
        ));
    }
    check_addresses(interface, limits)?;
    interface.attachment = Some(attachment.clone());
    Ok(())
}

/// Whether an instance of the type may have an interface with so many addresses.
pub fn check_addresses(interface: &NetworkInterface, limits: &InterfaceLimits) -> Result<()> {
    address::check_count(interface.addresses.len() + interface.prefixes.len(), limits.ipv4_addresses)?;
    address::check_count(interface.ipv6.count(), limits.ipv6_addresses)
}

fn check_room(
    tables: &Tables,
    instance: &Instance,
    place: Place,
    purpose: Purpose,
    limits: &InterfaceLimits,
) -> Result<()> {
    if purpose.has_efa() && instance.state != InstanceState::Stopped {
        return Err(efa_of_running());
    }
    let mut all: Vec<_> = attached(tables, instance).collect();
    if all.iter().any(|(taken, _)| *taken == place) {
        return Err(Error::invalid_parameter_value(format!(
            "Instance '{}' already has an interface attached at device index '{}'.",
            instance.instance_id, place.device_index
        )));
    }
    all.push((place, purpose));
    check_interfaces(&all, &instance.instance_type, limits)
}

fn efa_of_running() -> Error {
    Error::new("IncorrectState", "An EFA comes to an instance and leaves it while that is 'stopped' only.")
}

/// What is on an instance, and where.
pub fn attached(tables: &Tables, instance: &Instance) -> impl Iterator<Item = (Place, Purpose)> {
    let interfaces = instance.interfaces.iter().filter_map(|id| tables.network_interfaces.find(id));
    interfaces.filter_map(|one| Some((one.attachment.as_ref()?.place(), one.purpose)))
}

/// Whether an instance of the type takes these interfaces: so many in all and on each network card, and on each card one
/// with an EFA (EC2 User Guide, "Network cards", "Elastic Fabric Adapter").
pub fn check_interfaces(
    interfaces: &[(Place, Purpose)],
    instance_type: &str,
    limits: &InterfaceLimits,
) -> Result<()> {
    let too_many = |what: &str, count: usize| {
        let message = format!("{what} count {count} exceeds the limit for {instance_type}");
        Err(Error::new("AttachmentLimitExceeded", message))
    };
    if interfaces.len() > limits.interfaces {
        return too_many("Interface", interfaces.len());
    }
    for (card, max) in limits.network_cards.iter().enumerate() {
        let on_card = || interfaces.iter().filter(|(place, _)| usize::from(place.network_card) == card);
        let efas = on_card().filter(|(_, purpose)| purpose.has_efa()).count();
        if on_card().count() > *max {
            return too_many(&format!("Network card {card} interface"), on_card().count());
        }
        if efas > 1 {
            return too_many(&format!("Network card {card} EFA interface"), efas);
        }
    }
    let efas = interfaces.iter().filter(|(_, purpose)| purpose.has_efa()).count();
    match efas {
        0 => Ok(()),
        _ if limits.efa_interfaces == 0 => Err(Error::invalid_parameter_combination(format!(
            "{instance_type} instances do not support Elastic Fabric Adapters."
        ))),
        _ if efas > limits.efa_interfaces => too_many("EFA interface", efas),
        _ if interfaces.iter().any(|(place, purpose)| place.is_primary() && *purpose == Purpose::EfaOnly) => {
            Err(Error::invalid_parameter_combination(
                "An EFA-only network interface can't be the primary network interface.",
            ))
        }
        _ => Ok(()),
    }
}

impl InterfaceAttachment {
    pub fn place(&self) -> Place {
        Place { network_card: self.network_card, device_index: self.device_index }
    }
}

/// What the interface may have where it is; None where it is on no instance.
pub fn limits(tables: &Tables, interface: &NetworkInterface) -> Option<InterfaceLimits> {
    let instance = tables.instances.find(&interface.attachment.as_ref()?.instance_id)?;
    Some(instance_type::performance(tables, &instance.instance_type).interfaces)
}

pub async fn detach_network_interface(
    context: &Context,
    input: ec2::DetachNetworkInterfaceRequest,
) -> Result<()> {
    let id = input.attachment_id.as_deref().unwrap_or_default();
    let id = Id::parse(Kind::NetworkInterfaceAttachment, id)?;
    let force = input.force.unwrap_or(false);
    context
        .transact(|tx| {
            let not_found = || Id::not_found(Kind::NetworkInterfaceAttachment, &id);
            let found = tx.tables().network_interfaces.with("attachment.attachment-id", &id).next();
            let interface_id = found.map(|interface| interface.interface_id.clone()).ok_or_else(not_found)?;
            let mut interface = super::own(tx, &interface_id)?;
            let attachment =
                interface.attachment.as_mut().filter(|attachment| attachment.attachment_id == id);
            let attachment = attachment.ok_or_else(not_found)?;
            if attachment.place().is_primary() {
                return Err(Error::new(
                    "OperationNotPermitted",
                    "The network interface at device index 0 cannot be detached.",
                ));
            }
            attachment.state = attachment.state.detach(force);
            let instance = tx.get::<Instance>(&attachment.instance_id);
            let stopped = instance.filter(|instance| instance.state == InstanceState::Stopped);
            if interface.purpose.has_efa() && stopped.is_none() {
                return Err(efa_of_running());
            }
            if let Some(instance) = stopped {
                let mut instance = (*instance).clone();
                instance.interfaces.retain(|own| *own != interface_id);
                tx.put(&instance);
                interface.detached();
            }
            tx.put(&interface);
            Ok(())
        })
        .await
}

/// Takes in what a host says of an interface of an instance.
pub fn observed(tx: &mut Tx<'_>, instance: &mut Instance, interface_id: &Id, told: &PlugState) {
    let Some((interface, state)) = attached_to(tx, instance, interface_id) else { return };
    if let PlugState::Failed { message } = told {
        tracing::error!(instance = %instance.instance_id, interface = %interface_id, message, "an interface was not attached");
    }
    if let Some(outcome) = state.told(told) {
        take(tx, instance, &interface, outcome);
    }
}

/// No guest runs.
pub fn settle(tx: &mut Tx<'_>, instance: &mut Instance) {
    for interface_id in instance.interfaces.clone() {
        let Some((interface, state)) = attached_to(tx, instance, &interface_id) else { continue };
        if let Some(outcome) = state.settled() {
            take(tx, instance, &interface, outcome);
        }
    }
}

fn attached_to(
    tx: &mut Tx<'_>,
    instance: &Instance,
    interface_id: &Id,
) -> Option<(Arc<NetworkInterface>, AttachmentState)> {
    let interface = tx.get::<NetworkInterface>(interface_id)?;
    let attachment = interface.attachment.as_ref()?;
    let state = attachment.state;
    (attachment.instance_id == instance.instance_id).then_some((interface, state))
}

fn take(tx: &mut Tx<'_>, instance: &mut Instance, interface: &NetworkInterface, outcome: Outcome) {
    let mut interface = interface.clone();
    match outcome {
        Outcome::Goes(state) => {
            if let Some(attachment) = &mut interface.attachment {
                attachment.state = state;
            }
        }
        Outcome::Over => {
            instance.interfaces.retain(|own| *own != interface.interface_id);
            interface.detached();
        }
    }
    tx.put(&interface);
}
