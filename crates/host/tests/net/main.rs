//! The VPC data path with real packets: root, nft, ip and /dev/net/tun are needed, else the tests say so and pass.

mod acls;
mod bandwidth;
mod cloud;
mod costs;
mod edge;
mod gateway;
mod groups;
mod hosts;
mod ipv6;
mod isolation;
mod life;
mod mtu;
mod nat64;
mod peering;
mod probe;
mod public_access;
mod reachability;
mod recovery;
mod restart;
mod routes;
mod services;
mod shortcut;
mod trace;
mod wire;
