//! The user's commands. Each speaks to the cloud as any AWS client would.

pub mod backup;
pub mod console;
pub mod doctor;
pub mod env;
pub mod events;
pub mod explain;
pub mod hosts;
pub mod image;
pub mod instance_type;
pub mod net;
pub mod ps;
pub mod ssh;
pub mod uninstall;
pub mod workflows;

use crate::query::Node;

/// Reservations flattened into instances.
pub fn instances(answer: &Node) -> impl Iterator<Item = &Node> {
    answer.items("reservationSet").iter().flat_map(|reservation| reservation.items("instancesSet"))
}

/// The value of an instance's tag.
pub fn tag<'n>(instance: &'n Node, key: &str) -> Option<&'n str> {
    instance.items("tagSet").iter().find(|tag| tag.text_of("key") == key).map(|tag| tag.text_of("value"))
}
