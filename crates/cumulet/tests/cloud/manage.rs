//! What instances are placed by, filtered by and reached at: groups, Dedicated Hosts, tags.

use crate::actions::Run;
use crate::call::Call;
use control::engine::{Claim, Tables};
use control::security_group::Peer;
use std::collections::BTreeSet;

/// Placement groups that come and go.
pub const NAMES: [&str; 3] = ["x", "y", "z"];

/// Ids of what there is.
pub struct Manageable {
    pub groups: Vec<String>,
    pub hosts: Vec<String>,
    addresses: Vec<String>,
    public_ips: Vec<String>,
}

impl Run {
    pub fn manageable(&self) -> Manageable {
        let tables = self.world.region().view.read();
        let hosts = tables.dedicated_hosts.iter().filter(|host| !host.is_released());
        Manageable {
            groups: tables.security_groups.iter().map(|one| one.group_id.to_string()).collect(),
            hosts: hosts.map(|one| one.host_id.to_string()).collect(),
            addresses: tables.addresses.iter().map(|one| one.allocation_id.to_string()).collect(),
            public_ips: tables.addresses.iter().map(|one| one.public_ip.to_string()).collect(),
        }
    }

    pub fn manage(&mut self) -> Call {
        let there = self.manageable();
        let group = self.one_of(&there.groups, "sg-0123456789abcdef0");
        let other = self.one_of(&there.groups, "sg-0123456789abcdef0");
        let vpc = {
            let tables = self.world.region().view.read();
            self.of(tables.vpcs.iter().map(|one| &one.vpc_id), "vpc-0123456789abcdef0")
        };
        let host = self.one_of(&there.hosts, "h-0123456789abcdef0");
        let address = self.one_of(&there.addresses, "eipalloc-0123456789abcdef0");
        let public_ip = self.one_of(&there.public_ips, "198.18.0.9");
        let name = NAMES[self.draw(NAMES.len())];
        let strategy = ["cluster", "partition", "spread"][self.draw(3)];
        let instance = self.an_instance();
        let (instance, zone) =
            (("InstanceId", instance.as_str()), ["us-east-1a", "us-east-1b"][self.draw(2)]);
        let fresh = format!("group-{}-{}", self.trace.len(), self.draw(1000));
        let call = match self.draw(20) {
            16 => {
                let described = ("GroupDescription", "of a seed");
                Call::new("CreateSecurityGroup", vec![("GroupName", &fresh), described, ("VpcId", &vpc)])
            }
            17 | 18 => {
                let named = ("IpPermissions.1.Groups.1.GroupId", other.as_str());
                let all = ("IpPermissions.1.IpProtocol", "-1");
                let way = ["AuthorizeSecurityGroupIngress", "RevokeSecurityGroupIngress"][self.draw(2)];
                Call::new(way, vec![("GroupId", &group), all, named])
            }
            0 => Call::new("CreatePlacementGroup", vec![("GroupName", name), ("Strategy", strategy)]),
            1 => Call::new("DeletePlacementGroup", vec![("GroupName", name)]),
            2 => Call::new("ModifyInstancePlacement", vec![instance, ("GroupName", name)]),
            3 => Call::new("ModifyInstancePlacement", vec![instance, ("GroupName", "")]),
            4 => {
                let tenancy = ["default", "dedicated", "host"][self.draw(3)];
                Call::new("ModifyInstancePlacement", vec![instance, ("Tenancy", tenancy)])
            }
            5 => Call::new("ModifyInstancePlacement", vec![instance, ("Tenancy", "host"), ("HostId", &host)]),
            6 => {
                let quantity = ("Quantity", ["1", "2"][self.draw(2)]);
                let family = ("InstanceFamily", "t3");
                Call::new("AllocateHosts", vec![("AvailabilityZone", zone), quantity, family])
            }
            7 => Call::new("ReleaseHosts", vec![("HostId.1", &host)]),
            8 => {
                let described = ("GroupDescription", "of a seed");
                Call::new("CreateSecurityGroup", vec![("GroupName", &fresh), described])
            }
            9 => Call::new("DeleteSecurityGroup", vec![("GroupId", &group)]),
            10 | 11 => Call::new("AllocateAddress", vec![("Domain", "vpc")]),
            12 | 13 => Call::new("AssociateAddress", vec![instance, ("AllocationId", &address)]),
            14 => Call::new("DisassociateAddress", vec![("PublicIp", &public_ip)]),
            15 => Call::new("ReleaseAddress", vec![("AllocationId", &address)]),
            _ => {
                let tag = [("Tag.1.Key", "of"), ("Tag.1.Value", fresh.as_str())];
                Call::new("CreateTags", vec![("ResourceId.1", instance.1), tag[0], tag[1]])
            }
        };
        call.ended().map(|id| self.kept.remove(id));
        call
    }
}

/// What is wrong at any moment: an instance names only what is there.
pub fn violations(tables: &Tables) -> Vec<String> {
    let mut wrong = Vec::new();
    for interface in tables.network_interfaces.iter() {
        for group in interface.security_groups.iter().filter(|id| !tables.security_groups.contains(id)) {
            wrong.push(format!("{} is in {group}, which is not there", interface.interface_id));
        }
    }
    for (group, rule) in
        tables.security_groups.iter().flat_map(|of| of.rules.iter().map(move |rule| (of, rule)))
    {
        let Peer::Group(named) = &rule.permission.peer else { continue };
        if tables.security_groups.find(named).is_none_or(|named| named.vpc_id != group.vpc_id) {
            wrong.push(format!("{} names {named}, which is not in its VPC", group.group_id));
        }
    }
    for address in tables.addresses.iter() {
        let Some(association) = &address.association else { continue };
        let interface = tables.network_interfaces.find(&association.interface_id);
        let has = interface.is_some_and(|interface| {
            interface.addresses.iter().any(|own| {
                own.private_ip == association.private_ip
                    && own.public_ip() == Some(address.public_ip)
                    && own.elastic().is_some_and(|one| one.association_id == association.association_id)
            })
        });
        if !has {
            wrong.push(format!("{} is of {association:?}, which has it not", address.allocation_id));
        }
    }
    let mut released = BTreeSet::new();
    for address in tables.released_addresses.iter() {
        let ip = address.ip;
        let is_had = tables.claims.contains(&Claim::key("public-address", &ip.to_string()));
        wrong.extend(is_had.then(|| format!("{ip} is released, and somebody's")));
        wrong.extend((!released.insert(ip)).then(|| format!("{ip} is released twice")));
    }
    for interface in tables.network_interfaces.iter() {
        for elastic in interface.addresses.iter().filter_map(|own| own.elastic()) {
            let address = tables.addresses.find(&elastic.allocation_id);
            let knows = address.and_then(|address| address.association.as_ref());
            if knows.is_none_or(|one| one.association_id != elastic.association_id) {
                wrong.push(format!("{} has {elastic:?}, which knows not of it", interface.interface_id));
            }
        }
    }
    for one in tables.instances.iter().filter(|one| one.state.name() != "terminated") {
        let placement = &one.placement;
        if placement.group_id().is_some_and(|id| !tables.placement_groups.contains(id)) {
            wrong.push(format!("{} is in {:?}, which is not there", one.instance_id, placement.group_id()));
        }
        let Some(id) = &placement.dedicated_host_id else { continue };
        let host = tables.dedicated_hosts.find(id).filter(|host| !host.is_released());
        if one.state.name() == "running" && host.is_none_or(|host| host.machine_id != *placement.host_id) {
            wrong.push(format!("{} runs on {}, which is not {id}", one.instance_id, placement.host_id));
        }
    }
    wrong
}

/// What was made, was not asked to be deleted, and is not there.
pub fn missing(tables: &Tables, kept: &BTreeSet<String>) -> Vec<String> {
    let is_there = |id: &&String| {
        tables.volumes.contains(id)
            || tables.snapshots.contains(id)
            || tables.security_groups.contains(id)
            || tables.dedicated_hosts.contains(id)
            || tables.addresses.contains(id)
            || tables.network_interfaces.contains(id)
            || tables.vpcs.contains(id)
            || tables.subnets.contains(id)
            || tables.internet_gateways.contains(id)
            || tables.egress_only_internet_gateways.contains(id)
            || tables.route_tables.contains(id)
            || tables.network_acls.contains(id)
            || tables.dhcp_options.contains(id)
            || tables.vpc_endpoints.contains(id)
            || tables.nat_gateways.contains(id)
    };
    let gone = kept.iter().filter(|id| !is_there(id));
    gone.map(|id| format!("{id} was made and is not there")).collect()
}
