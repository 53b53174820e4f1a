//! What tells a guest's IPv6 that it has a router, and where to ask for an address (RFC 4861, 6.2).
//!
//! An interface that has addresses of IPv6 is told when it asks, when it gets its first, and now and then. It is told
//! to ask by DHCPv6 and to make no address up; every other address is the router's to find.

use crate::limits::Rate;
use crate::link_socket::{DATAGRAM_BYTES_MAX, LinkSocket};
use crate::network::HostNetwork;
use model::Id;
use std::collections::HashSet;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const ROUTER_ADVERTISEMENT: u8 = 134;
/// Addresses, and all else, are told by DHCPv6.
const MANAGED_AND_OTHER: u8 = 0xc0;
const LIFETIME_SECONDS: u16 = 1800;
/// Well within the lifetime.
const EVERY: Duration = Duration::from_secs(300);
const MTU: u8 = 5;
/// Hops that a guest's packets begin with (IANA, "IP Option Numbers", default TTL).
const HOPS: u8 = 64;

const SOLICITATIONS_PER_SECOND: u32 = 2;
const SOLICITATIONS_BURST: u32 = 10;
/// After a socket error, which is the host's: for it to pass.
const RECEIVE_AGAIN: Duration = Duration::from_millis(100);

pub(crate) struct AdvertisementService {
    solicitations: Rate,
}

impl AdvertisementService {
    pub(crate) fn new() -> Self {
        AdvertisementService { solicitations: Rate::new(SOLICITATIONS_PER_SECOND, SOLICITATIONS_BURST) }
    }
}

/// Serves the VPC until aborted.
pub(crate) async fn serve(
    socket: LinkSocket,
    vpc_id: Id,
    network: Arc<HostNetwork>,
    service: Arc<AdvertisementService>,
) {
    let advertisement = advertisement(network.driver().mtu());
    let advertise = |index: u32| {
        if let Err(error) = socket.send(&advertisement, SocketAddr::new(ALL_NODES.into(), 0), None, index) {
            // The guest asks, or hears the next one.
            tracing::debug!(%vpc_id, error = %error, "advertisement not sent");
        }
    };
    let mut told = HashSet::new();
    let mut applied = network.applied();
    let mut every = tokio::time::interval(EVERY);
    let mut buffer = [0; DATAGRAM_BYTES_MAX];
    loop {
        tokio::select! {
            solicitation = socket.receive(&mut buffer) => match solicitation {
                Ok(solicitation) => {
                    let guest = network.guest_of_index(&vpc_id, solicitation.index);
                    let id = guest.as_ref().map(|guest| &guest.interface().network.interface_id);
                    if id.is_some_and(|id| service.solicitations.allow(id)) {
                        advertise(solicitation.index);
                    }
                }
                Err(error) => {
                    tracing::warn!(%vpc_id, error = %error, "no solicitation received");
                    tokio::time::sleep(RECEIVE_AGAIN).await;
                }
            },
            changed = applied.changed() => {
                if changed.is_err() {
                    return;
                }
                let speaking: HashSet<u32> = network.speakers_of_ipv6(&vpc_id).collect();
                speaking.difference(&told).copied().for_each(advertise);
                told = speaking;
            }
            _ = every.tick() => told.iter().copied().for_each(advertise),
        }
    }
}

/// The kernel fills in the checksum.
fn advertisement(mtu: u16) -> Vec<u8> {
    let mut message = vec![ROUTER_ADVERTISEMENT, 0, 0, 0, HOPS, MANAGED_AND_OTHER];
    message.extend(LIFETIME_SECONDS.to_be_bytes());
    // How long a neighbour is taken to be there, and when it is asked again: the guest's choice.
    message.extend([0; 8]);
    message.extend([MTU, 1, 0, 0]);
    message.extend(u32::from(mtu).to_be_bytes());
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advertisement_says_to_ask_and_how_much_fits() {
        let message = advertisement(9001);
        assert_eq!(message.len(), 24);
        assert_eq!(message[4..8], [64, 0xc0, 0x07, 0x08]);
        assert_eq!(message[16..], [5, 1, 0, 0, 0, 0, 0x23, 0x29]);
    }
}
