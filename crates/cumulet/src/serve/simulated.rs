//! The hosts of a simulated cloud.

use crate::config::Simulated;
use agent::{SimulatedHost, SimulatedOptions};
use agent_api::{Architecture, HostAgent, HostDescription, PROTOCOL_VERSION};
use async_trait::async_trait;
use control::HostSource;
use model::{Region, Result};
use std::sync::Arc;

/// Of a host that never fills: far beyond any test, far below where sums overflow.
const UNLIMITED_CORES: u32 = 1 << 24;
const UNLIMITED_MEMORY_MIB: u64 = 1 << 40;
/// Of one host where their number is given: a large server.
const CORES: u32 = 64;
const MEMORY_MIB: u64 = 512 * 1024;
const DISK_GIB: u64 = 16 * 1024;

pub struct Hosts(Simulated);

impl Hosts {
    pub fn new(simulated: Simulated) -> Hosts {
        Hosts(simulated)
    }

    /// One host of each architecture where the number is not given; else hosts dealt out to racks, racks to zones.
    fn descriptions(&self) -> Vec<HostDescription> {
        let Simulated { hosts, racks, zones } = self.0;
        match hosts {
            None => (0..zones)
                .flat_map(|zone| {
                    [Architecture::X86_64, Architecture::Arm64].map(|architecture| HostDescription {
                        cores: UNLIMITED_CORES,
                        memory_mib: UNLIMITED_MEMORY_MIB,
                        ..describe(
                            zone * 2 + usize::from(architecture == Architecture::Arm64),
                            zone,
                            zone,
                            architecture,
                        )
                    })
                })
                .collect(),
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
    }
}

#[async_trait]
impl HostSource for Hosts {
    async fn hosts(&self, _: &Region) -> Result<Vec<Arc<dyn HostAgent>>> {
        let host = |description| {
            Arc::new(SimulatedHost::new(description, SimulatedOptions::default())) as Arc<dyn HostAgent>
        };
        Ok(self.descriptions().into_iter().map(host).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn racks_are_whole_and_zones_even() {
        let hosts = Hosts::new(Simulated { hosts: Some(24), racks: 8, zones: 2 }).descriptions();
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
