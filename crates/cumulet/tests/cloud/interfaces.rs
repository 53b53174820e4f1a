//! Network interfaces that come and go, and the addresses and instances that they are with.

use crate::actions::Run;
use crate::call::Call;
use control::attachment::AttachmentState;
use control::engine::Tables;
use control::subnet::ipv6_block::Taken;
use std::collections::BTreeSet;

impl Run {
    pub fn interface(&mut self) -> Call {
        let (subnet, instance) = (self.a_subnet(), self.an_instance());
        let tables = self.world.region().view.read();
        let interfaces = || tables.network_interfaces.iter();
        let interface = self.of(interfaces().map(|one| &one.interface_id), "eni-0123456789abcdef0");
        let attachments = interfaces().filter_map(|one| Some(&one.attachment.as_ref()?.attachment_id));
        let attachment = self.of(attachments, "eni-attach-0123456789abcdef0");
        let addresses = tables.network_interfaces.find(&interface).map(|one| &one.addresses);
        let address = addresses.filter(|own| !own.is_empty()).map(|own| own[self.draw(own.len())].private_ip);
        let address = address.map_or("10.0.0.9".into(), |own| own.to_string());
        let prefix = tables.network_interfaces.find(&interface).and_then(|one| one.prefixes.first().copied());
        let ipv6 = tables.network_interfaces.find(&interface).map(|one| one.ipv6.clone()).unwrap_or_default();
        let ipv6_address = ipv6.addresses.last().map_or("fd00::9".into(), |own| own.to_string());
        let ipv6_prefix = ipv6.prefixes.last().map_or("fd00:0:0:0:1::/80".into(), |own| own.to_string());
        let gateway =
            self.of(tables.nat_gateways.iter().map(|one| &one.nat_gateway_id), "nat-0123456789abcdef0");
        let kept = interfaces().filter(|one| one.is_managed()).flat_map(|one| &one.addresses);
        let kept: Vec<String> = kept.map(|own| own.private_ip.to_string()).collect();
        let kept = self.one_of(&kept, "10.0.0.9");
        let elastic = tables.addresses.iter().map(|one| &one.allocation_id);
        let elastic = self.of(elastic, "eipalloc-0123456789abcdef0");
        let associations =
            tables.addresses.iter().filter_map(|one| Some(&one.association.as_ref()?.association_id));
        let association = self.of(associations, "eipassoc-0123456789abcdef0");
        let permissions = tables.network_interface_permissions.iter().map(|one| &one.permission_id);
        let permission = self.of(permissions, "eni-perm-0123456789abcdef0");
        drop(tables);
        let gateway = ("NatGatewayId", gateway.as_str());
        let prefix = prefix.map_or("10.0.0.16/28".into(), |prefix| prefix.to_string());
        let (subnet, interface) = (("SubnetId", subnet.as_str()), ("NetworkInterfaceId", interface.as_str()));
        let one = ("SecondaryPrivateIpAddressCount", "1");
        let call = match self.draw(25) {
            20 => Call::new("CreateNetworkInterface", vec![subnet, ("Ipv6AddressCount", "2")]),
            21 => Call::new("AssignIpv6Addresses", vec![interface, ("Ipv6AddressCount", "2")]),
            22 => Call::new("AssignIpv6Addresses", vec![interface, ("Ipv6PrefixCount", "1")]),
            23 => Call::new("UnassignIpv6Addresses", vec![interface, ("Ipv6Addresses.1", &ipv6_address)]),
            24 => Call::new("UnassignIpv6Addresses", vec![interface, ("Ipv6Prefix.1", &ipv6_prefix)]),
            18 => {
                let whose = ("AwsAccountId", ["210987654321", "210987654322"][self.draw(2)]);
                let what = ("Permission", ["INSTANCE-ATTACH", "EIP-ASSOCIATE"][self.draw(2)]);
                Call::new("CreateNetworkInterfacePermission", vec![interface, whose, what])
            }
            19 => Call::new(
                "DeleteNetworkInterfacePermission",
                vec![("NetworkInterfacePermissionId", permission.as_str())],
            ),
            12 => Call::new("CreateNatGateway", vec![subnet, ("ConnectivityType", "private")]),
            13 => Call::new("CreateNatGateway", vec![subnet, ("AllocationId", &elastic)]),
            14 => Call::new("AssignPrivateNatGatewayAddress", vec![gateway, ("PrivateIpAddressCount", "2")]),
            15 => Call::new("UnassignPrivateNatGatewayAddress", vec![gateway, ("PrivateIpAddress.1", &kept)]),
            16 => match self.draw(2) {
                0 => Call::new("AssociateNatGatewayAddress", vec![gateway, ("AllocationId.1", &elastic)]),
                _ => Call::new(
                    "DisassociateNatGatewayAddress",
                    vec![gateway, ("AssociationId.1", association.as_str())],
                ),
            },
            17 => Call::new("DeleteNatGateway", vec![gateway]),
            0 => Call::new("CreateNetworkInterface", vec![subnet]),
            1 => Call::new("CreateNetworkInterface", vec![subnet, one, ("Ipv4PrefixCount", "1")]),
            2 => Call::new("DeleteNetworkInterface", vec![interface]),
            3..=5 => {
                let index = ("DeviceIndex", ["1", "2"][self.draw(2)]);
                Call::new("AttachNetworkInterface", vec![interface, ("InstanceId", &instance), index])
            }
            6 | 7 => {
                let force = ("Force", ["true", "false"][self.draw(2)]);
                Call::new("DetachNetworkInterface", vec![("AttachmentId", &attachment), force])
            }
            8 => Call::new("AssignPrivateIpAddresses", vec![interface, one]),
            9 => {
                let moved = [("PrivateIpAddress.1", address.as_str()), ("AllowReassignment", "true")];
                Call::new("AssignPrivateIpAddresses", vec![interface, moved[0], moved[1]])
            }
            10 => Call::new("UnassignPrivateIpAddresses", vec![interface, ("PrivateIpAddress.1", &address)]),
            _ => Call::new("UnassignPrivateIpAddresses", vec![interface, ("Ipv4Prefix.1", &prefix)]),
        };
        call.ended().map(|id| self.kept.remove(id));
        call
    }
}

/// What is wrong at any moment.
pub fn violations(tables: &Tables) -> Vec<String> {
    let mut wrong = Vec::new();
    for interface in tables.network_interfaces.iter() {
        let id = &interface.interface_id;
        if let Some(attachment) = &interface.attachment {
            let instance = tables.instances.find(&attachment.instance_id);
            if !instance.is_some_and(|instance| instance.interfaces.contains(id)) {
                wrong.push(format!("{id} is attached to {}, which has it not", attachment.instance_id));
            }
        }
        let claims = tables.claims.iter().filter(|claim| claim.owner == id.as_str());
        let in_subnet = claims.filter(|claim| claim.key.starts_with("address/")).count();
        if in_subnet != interface.used_addresses() {
            wrong.push(format!("{id} has {} addresses and {in_subnet} claims", interface.used_addresses()));
        }
    }
    wrong.extend(ipv6_violations(tables));
    let mut granted = BTreeSet::new();
    for one in tables.network_interface_permissions.iter() {
        let (id, interface) = (&one.permission_id, &one.interface_id);
        let stray = !tables.network_interfaces.contains(interface);
        wrong.extend(stray.then(|| format!("{id} is of {interface}, which is not there")));
        let is_new = granted.insert((interface, one.account.as_str(), one.permission));
        wrong.extend((!is_new).then(|| format!("{id} grants what is granted already")));
    }
    for gateway in tables.nat_gateways.iter() {
        let (id, interface) =
            (&gateway.nat_gateway_id, tables.network_interfaces.find(&gateway.interface_id));
        match interface {
            Some(one) if gateway.deleted_at.is_none() => {
                let bare = one.addresses.iter().any(|own| own.elastic().is_some() != gateway.is_public);
                let wrongly = bare || one.addresses.len() > 8;
                wrong.extend(wrongly.then(|| format!("{id} has {:?}", one.addresses)));
            }
            None if gateway.deleted_at.is_some() => {}
            _ => wrong.push(format!("{id}, ended {:?}, has {interface:?}", gateway.deleted_at)),
        }
    }
    for instance in tables.instances.iter() {
        let mut places = Vec::new();
        for id in &instance.interfaces {
            let interface = tables.network_interfaces.find(id);
            let attachment = interface.and_then(|interface| interface.attachment.as_ref());
            match attachment.filter(|attachment| attachment.instance_id == instance.instance_id) {
                Some(attachment) => places.push((attachment.network_card, attachment.device_index)),
                None => wrong.push(format!("{} has {id}, which is not attached to it", instance.instance_id)),
            }
        }
        places.sort();
        if places.windows(2).any(|two| two[0] == two[1]) {
            wrong.push(format!("{} has two interfaces at one place: {places:?}", instance.instance_id));
        }
        let has_primary = places.first() == Some(&(0, 0));
        if !has_primary && instance.state.name() != "terminated" {
            wrong.push(format!("{} has no primary interface", instance.instance_id));
        }
    }
    wrong
}

/// What interfaces have of IPv6 is what is taken of their subnets, and lies in those.
fn ipv6_violations(tables: &Tables) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut taken = BTreeSet::new();
    for block in tables.ipv6_blocks.iter() {
        let of = |net: String, owner: &model::Id| (block.subnet_id.to_string(), net, owner.to_string());
        match &block.taken {
            Taken::Prefix(owner) => {
                let prefix = block.key.rsplit_once('/').and_then(|(rest, _)| rest.rsplit_once('/'));
                taken.insert(of(prefix.map_or(String::new(), |(_, net)| format!("{net}/80")), owner));
            }
            Taken::Addresses(addresses) => {
                wrong.extend(addresses.is_empty().then(|| format!("{} keeps nothing", block.key)));
                taken.extend(addresses.iter().map(|(address, owner)| of(address.to_string(), owner)));
            }
        }
    }
    for interface in tables.network_interfaces.iter() {
        let subnet = tables.subnets.find(&interface.subnet_id).and_then(|one| one.ipv6.as_ref());
        let nets = interface.networks().filter(|net| net.addr().is_ipv6());
        for net in nets {
            let text = if net.prefix_len() == 128 { net.addr().to_string() } else { net.to_string() };
            let key = (interface.subnet_id.to_string(), text, interface.interface_id.to_string());
            wrong.extend((!taken.remove(&key)).then(|| format!("{key:?} is not taken")));
            let is_inside = subnet.is_some_and(|of| ipnet::IpNet::V6(of.cidr).contains(&net));
            wrong.extend((!is_inside).then(|| format!("{key:?} is outside of its subnet")));
        }
    }
    wrong.extend(taken.into_iter().map(|key| format!("{key:?} is taken by nobody")));
    wrong
}

/// What is under way though nothing happens any more.
pub fn unsettled(tables: &Tables) -> Vec<String> {
    let attached = |interface: &control::network_interface::NetworkInterface| {
        let state = interface.attachment.as_ref().map(|attachment| attachment.state);
        state.is_none_or(|state| state == AttachmentState::Attached)
    };
    let unsettled = tables.network_interfaces.iter().filter(|interface| !attached(interface));
    unsettled.map(|one| format!("{} is {:?} for ever", one.interface_id, one.attachment)).collect()
}
