//! Network cards as QEMU is told of them.

use super::NicSpec;
use model::Id;
use serde_json::{Value, json};

/// The end of a card that is the tap.
pub(super) fn netdev(interface_id: &Id) -> String {
    format!("net-{interface_id}")
}

/// Without its place. The guest uses as many of the queues as it has processors for; each has an interrupt a way.
pub(super) fn device(nic: &NicSpec, queues: usize) -> Value {
    let mac: Vec<String> = nic.mac.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({
        "driver": "virtio-net-pci", "id": nic.interface_id.as_str(), "netdev": netdev(&nic.interface_id),
        "mac": mac.join(":"), "host_mtu": nic.mtu, "romfile": "", "mq": queues > 1, "vectors": 2 * queues + 2,
    })
}
