//! How many queues an interface has between the guest and the host (EC2 User Guide, "ENA queues"): as many as its type
//! gives each or, where the type lets one choose, as were asked for when the instance was stopped.

use super::InterfaceAttachment;
use super::attach::Place;
use crate::engine::Tables;
use crate::instance::Instance;
use crate::instance_type::InterfaceLimits;
use model::{Error, Result};

/// A place on an instance, and the count that is asked for there.
pub type Asked = (Place, Option<u16>);

/// What a request asks for.
pub fn asked(count: Option<i32>) -> Result<Option<u16>> {
    count.map(|count| u16::try_from(count).map_err(|_| invalid(count))).transpose()
}

fn invalid(count: impl std::fmt::Display) -> Error {
    Error::invalid_parameter_value(format!("Value ({count}) for parameter enaQueueCount is invalid."))
}

/// What is asked for on an instance.
pub fn of_instance(tables: &Tables, instance: &Instance) -> Vec<Asked> {
    let interfaces = instance.interfaces.iter().filter_map(|id| tables.network_interfaces.find(id));
    let attachments = interfaces.filter_map(|interface| interface.attachment.as_ref());
    attachments.map(|attachment| (attachment.place(), attachment.ena_queues)).collect()
}

/// Whether an instance of the type gives its interfaces so many.
pub fn check(all: &[Asked], instance_type: &str, limits: &InterfaceLimits) -> Result<()> {
    for (place, asked) in all {
        let Some(count) = asked else { continue };
        let card = limits.queues.get(usize::from(place.network_card)).ok_or_else(|| {
            Error::invalid_parameter_combination(format!(
                "The number of ENA queues can't be chosen on {instance_type}."
            ))
        })?;
        if !(1..=card.each_max).contains(count) {
            return Err(invalid(count));
        }
    }
    for (number, card) in limits.queues.iter().enumerate() {
        let on_card = || all.iter().filter(|(place, _)| usize::from(place.network_card) == number);
        let sum: usize = on_card().map(|(_, asked)| usize::from(asked.unwrap_or(card.default))).sum();
        if sum > card.all_max && on_card().any(|(_, asked)| asked.is_some()) {
            return Err(Error::new(
                "AttachmentLimitExceeded",
                format!("ENA queue count {sum} exceeds the limit of {} for {instance_type}", card.all_max),
            ));
        }
    }
    Ok(())
}

/// The count of an attached interface, where its type lets one choose.
pub fn shown(attachment: &InterfaceAttachment, limits: &InterfaceLimits) -> Option<i32> {
    let card = limits.queues.get(usize::from(attachment.network_card))?;
    Some(attachment.ena_queues.unwrap_or(card.default).into())
}
