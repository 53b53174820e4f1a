//! The hosts of a simulated cloud.

use crate::config::Simulated;
use agent::{MemorySnapshots, SimulatedHost, SimulatedOptions};
use agent_api::{Architecture, HostAgent, HostDescription, HostLink, PROTOCOL_VERSION};
use async_trait::async_trait;
use control::HostSource;
use model::{Region, Result};
use std::sync::Arc;

/// Of a host that never fills: far beyond any test, far below where sums overflow.
const UNLIMITED_CORES: u32 = 1 << 24;
const UNLIMITED_MEMORY_MIB: u64 = 1 << 40;
/// Hosts of each zone and architecture that do fill, each in a rack of its own: to allocate as Dedicated Hosts, and for
/// placement groups, which have seven instances or partitions in a zone.
const SPARE: usize = 7;
/// Of one host where their number is given, and of a spare one: a large server.
const CORES: u32 = 64;
const MEMORY_MIB: u64 = 512 * 1024;
const DISK_GIB: u64 = 16 * 1024;

pub struct Hosts(Simulated, Arc<MemorySnapshots>);

impl Hosts {
    /// Hosts that keep their snapshots in the store.
    pub fn new(simulated: Simulated, snapshots: Arc<MemorySnapshots>) -> Hosts {
        Hosts(simulated, snapshots)
    }

    /// One host of each zone and architecture that takes everything, and spare ones, where the number is not given;
    /// else hosts dealt out to racks, racks to zones.
    fn descriptions(&self) -> Vec<HostDescription> {
        let Simulated { hosts, racks, zones } = self.0;
        match hosts {
            None => {
                let kinds = || {
                    let architectures = [Architecture::X86_64, Architecture::Arm64];
                    (0..zones).flat_map(move |zone| architectures.map(|architecture| (zone, architecture)))
                };
                let unlimited = kinds().enumerate().map(|(host, (zone, architecture))| HostDescription {
                    cores: UNLIMITED_CORES,
                    memory_mib: UNLIMITED_MEMORY_MIB,
                    ..describe(host, zone, zone, architecture)
                });
                let spare = (0..SPARE).flat_map(|rack| kinds().map(move |kind| (rack, kind)));
                let spare = spare.enumerate().map(|(host, (rack, (zone, architecture)))| {
                    describe(2 * zones + host, zone, zones * (rack + 1) + zone, architecture)
                });
                unlimited.chain(spare).collect()
            }
            Some(hosts) => (0..hosts)
                .map(|host| {
                    let rack = host % racks;
                    describe(host, rack % zones, rack, Architecture::X86_64)
                })
                .collect(),
        }
    }
}

fn describe(host: usize, zone: usize, rack: usize, architecture: Architecture) -> HostDescription {
    HostDescription {
        host_id: format!("host-{host:05}"),
        protocol_version: PROTOCOL_VERSION,
        architecture,
        cores: CORES,
        memory_mib: MEMORY_MIB,
        disk_gib: DISK_GIB,
        zone: zone as u32,
        rack: format!("rack-{rack:04}"),
        acceleration: "simulated".into(),
        links: vec![HostLink { name: "eth0".into(), addresses: Vec::new() }],
    }
}

#[async_trait]
impl HostSource for Hosts {
    async fn hosts(&self, _: &Region) -> Result<Vec<Arc<dyn HostAgent>>> {
        let host = |description| {
            let (options, snapshots) = (SimulatedOptions::default(), self.1.clone());
            Arc::new(SimulatedHost::with_snapshots(description, options, snapshots)) as Arc<dyn HostAgent>
        };
        Ok(self.descriptions().into_iter().map(host).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn one_host_of_a_kind_takes_everything_and_the_spare_ones_come_after_it() {
        let hosts = Hosts::new(Simulated { hosts: None, racks: 0, zones: 3 }, Arc::default()).descriptions();
        assert_eq!(hosts.len(), 3 * 2 * (1 + SPARE));
        assert!(hosts.windows(2).all(|pair| pair[0].host_id < pair[1].host_id));
        assert!(hosts.iter().enumerate().all(|(at, host)| (host.cores == UNLIMITED_CORES) == (at < 6)));
        let racks: BTreeMap<_, _> = hosts.iter().map(|host| (host.rack.clone(), host.zone)).collect();
        assert_eq!(racks.len(), 3 * (1 + SPARE));
        assert!(hosts.iter().all(|host| racks[&host.rack] == host.zone));
    }

    #[test]
    fn racks_are_whole_and_zones_even() {
        let hosts =
            Hosts::new(Simulated { hosts: Some(24), racks: 8, zones: 2 }, Arc::default()).descriptions();
        let mut zone_of_rack = BTreeMap::new();
        let mut per_zone = BTreeMap::new();
        for host in &hosts {
            assert_eq!(*zone_of_rack.entry(host.rack.clone()).or_insert(host.zone), host.zone);
            *per_zone.entry(host.zone).or_insert(0) += 1;
        }
        assert_eq!(zone_of_rack.len(), 8);
        assert_eq!(per_zone.into_values().collect::<Vec<_>>(), [12, 12]);
    }
}
