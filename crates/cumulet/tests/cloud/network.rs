//! VPCs and what is in them, made, changed and deleted at once and across crashes.

use crate::actions::Run;
use crate::call::Call;
use control::engine::Tables;
use control::route_table::Target;
use ipnet::{IpNet, Ipv4Net};
use std::collections::BTreeMap;

const BLOCKS: [&str; 3] = ["10.0.0.0/16", "10.0.0.0/24", "10.1.0.0/16"];
const PARTS: [&str; 6] =
    ["10.0.0.0/24", "10.0.0.0/25", "10.0.1.0/24", "10.0.0.128/26", "10.1.0.0/24", "172.31.96.0/20"];

impl Run {
    /// An id of one that is there, mostly.
    pub fn of<'t>(&self, ids: impl Iterator<Item = &'t model::Id>, otherwise: &str) -> String {
        let ids: Vec<String> = ids.map(|id| id.to_string()).collect();
        self.one_of(&ids, otherwise)
    }

    pub fn a_subnet(&self) -> String {
        let tables = self.world.region().view.read();
        self.of(tables.subnets.iter().map(|one| &one.subnet_id), "subnet-0123456789abcdef0")
    }

    pub fn connect(&mut self) -> Call {
        let call = self.network_call();
        call.ended().map(|id| self.kept.remove(id));
        call
    }

    fn network_call(&self) -> Call {
        let subnet = self.a_subnet();
        let tables = self.world.region().view.read();
        let vpc = self.of(tables.vpcs.iter().map(|one| &one.vpc_id), "vpc-0123456789abcdef0");
        let table =
            self.of(tables.route_tables.iter().map(|one| &one.route_table_id), "rtb-0123456789abcdef0");
        let acl = self.of(tables.network_acls.iter().map(|one| &one.network_acl_id), "acl-0123456789abcdef0");
        let options =
            self.of(tables.dhcp_options.iter().map(|one| &one.dhcp_options_id), "dopt-0123456789abcdef0");
        let gateways = tables.internet_gateways.iter().map(|one| &one.internet_gateway_id);
        let gateway = self.of(gateways, "igw-0123456789abcdef0");
        let egress = tables.egress_only_internet_gateways.iter().map(|one| &one.gateway_id);
        let egress = self.of(egress, "eigw-0123456789abcdef0");
        let blocks = tables.vpcs.iter().flat_map(|one| one.cidrs().map(|(id, _)| id));
        let blocks = blocks.chain(
            tables.vpcs.iter().flat_map(|one| one.ipv6_cidrs.iter().map(|block| &block.association_id)),
        );
        let block = self.of(blocks, "vpc-cidr-assoc-0123456789abcdef0");
        // The first or the second part of the block of the subnet's VPC.
        let vpc_of = tables.subnets.find(&subnet).and_then(|one| tables.vpcs.find(&one.vpc_id));
        let ipv6_of = vpc_of.and_then(|vpc| vpc.ipv6_cidrs().next()?.subnets(64).ok()?.nth(self.draw(2)));
        let ipv6_of = ipv6_of.map_or("fd00::/64".into(), |part| part.to_string());
        let ipv6_parts = tables.subnets.iter().filter_map(|one| Some(&one.ipv6.as_ref()?.association_id));
        let ipv6_part = self.of(ipv6_parts, "subnet-cidr-assoc-0123456789abcdef0");
        let routing = tables.route_tables.iter().flat_map(|one| {
            one.associations.iter().map(|of| &of.association_id).chain(&one.main_association_id)
        });
        let routing = self.of(routing, "rtbassoc-0123456789abcdef0");
        let listing = tables.network_acls.iter().flat_map(|one| one.associations.iter().map(|(id, _)| id));
        let listing = self.of(listing, "aclassoc-0123456789abcdef0");
        let peer = self.of(tables.vpcs.iter().map(|one| &one.vpc_id), "vpc-0123456789abcdef0");
        let peerings = tables.vpc_peering_connections.iter().map(|one| &one.peering_id);
        let peering = self.of(peerings, "pcx-0123456789abcdef0");
        let endpoints = tables.vpc_endpoints.iter().map(|one| &one.endpoint_id);
        let endpoint = self.of(endpoints, "vpce-0123456789abcdef0");
        let exclusions = tables.vpc_block_public_access_exclusions.iter().map(|one| &one.exclusion_id);
        let exclusion = self.of(exclusions, "vpcbpa-exclude-0123456789abcdef0");
        let vpc_of = vpc_of.map_or(vpc.clone(), |one| one.vpc_id.to_string());
        drop(tables);
        let peering = ("VpcPeeringConnectionId", peering.as_str());
        let vpc = ("VpcId", vpc.as_str());
        let subnet = ("SubnetId", subnet.as_str());
        let table = ("RouteTableId", table.as_str());
        let acl = ("NetworkAclId", acl.as_str());
        let gateway = ("InternetGatewayId", gateway.as_str());
        let options = ("DhcpOptionsId", options.as_str());
        let cidr = ("CidrBlock", BLOCKS[self.draw(BLOCKS.len())]);
        let ipv6 = ("AmazonProvidedIpv6CidrBlock", "true");
        let exclusion = ("ExclusionId", exclusion.as_str());
        let mode = ("InternetGatewayExclusionMode", ["allow-egress", "allow-bidirectional"][self.draw(2)]);
        match self.draw(43) {
            38..=39 => Call::new("AssociateRouteTable", vec![table, ("GatewayId", gateway.1)]),
            40 => {
                let modes = ["off", "block-ingress", "block-bidirectional"];
                let mode = ("InternetGatewayBlockMode", modes[self.draw(3)]);
                Call::new("ModifyVpcBlockPublicAccessOptions", vec![mode])
            }
            41 => Call::new("CreateVpcBlockPublicAccessExclusion", vec![[vpc, subnet][self.draw(2)], mode]),
            42 => match self.draw(2) {
                0 => Call::new("ModifyVpcBlockPublicAccessExclusion", vec![exclusion, mode]),
                _ => Call::new("DeleteVpcBlockPublicAccessExclusion", vec![exclusion]),
            },
            33..=34 => Call::new("AssociateSubnetCidrBlock", vec![subnet, ("Ipv6CidrBlock", &ipv6_of)]),
            35 => {
                let (vpc, block) = (("VpcId", vpc_of.as_str()), ("Ipv6CidrBlock", ipv6_of.as_str()));
                Call::new("CreateSubnet", vec![vpc, block, ("Ipv6Native", "true")])
            }
            36 => Call::new("DisassociateSubnetCidrBlock", vec![("AssociationId", &ipv6_part)]),
            37 => {
                let value = ("AssignIpv6AddressOnCreation.Value", ["true", "false"][self.draw(2)]);
                Call::new("ModifySubnetAttribute", vec![subnet, value])
            }
            30 => {
                let service =
                    ["com.amazonaws.us-east-1.s3", "com.amazonaws.us-east-1.dynamodb"][self.draw(2)];
                let table = ("RouteTableId.1", table.1);
                Call::new("CreateVpcEndpoint", vec![vpc, table, ("ServiceName", service)])
            }
            31 => {
                let change = ["AddRouteTableId.1", "RemoveRouteTableId.1"][self.draw(2)];
                Call::new("ModifyVpcEndpoint", vec![("VpcEndpointId", &endpoint), (change, table.1)])
            }
            32 => Call::new("DeleteVpcEndpoints", vec![("VpcEndpointId.1", &endpoint)]),
            26 => Call::new("CreateVpcPeeringConnection", vec![vpc, ("PeerVpcId", &peer)]),
            27 => Call::new("AcceptVpcPeeringConnection", vec![peering]),
            28 => {
                let destination = ("DestinationCidrBlock", BLOCKS[self.draw(BLOCKS.len())]);
                Call::new("CreateRoute", vec![table, destination, peering])
            }
            29 => match self.draw(2) {
                0 => Call::new("RejectVpcPeeringConnection", vec![peering]),
                _ => Call::new("DeleteVpcPeeringConnection", vec![peering]),
            },
            0 => Call::new("CreateVpc", vec![cidr]),
            1 => Call::new("CreateVpc", vec![cidr, ipv6]),
            2 => Call::new("DeleteVpc", vec![vpc]),
            3..=6 => Call::new("CreateSubnet", vec![vpc, ("CidrBlock", PARTS[self.draw(PARTS.len())])]),
            7 => Call::new("DeleteSubnet", vec![subnet]),
            8 => Call::new("AssociateVpcCidrBlock", vec![vpc, cidr]),
            9 => Call::new("AssociateVpcCidrBlock", vec![vpc, ipv6]),
            10 => Call::new("DisassociateVpcCidrBlock", vec![("AssociationId", &block)]),
            11 => Call::new("CreateInternetGateway", vec![]),
            12 => Call::new("AttachInternetGateway", vec![gateway, vpc]),
            13 => Call::new("DetachInternetGateway", vec![gateway, vpc]),
            14 => Call::new("DeleteInternetGateway", vec![gateway]),
            15 => Call::new("CreateRouteTable", vec![vpc]),
            16 => Call::new("DeleteRouteTable", vec![table]),
            17 => Call::new("AssociateRouteTable", vec![table, subnet]),
            18 => Call::new("ReplaceRouteTableAssociation", vec![table, ("AssociationId", &routing)]),
            19 => Call::new("DisassociateRouteTable", vec![("AssociationId", &routing)]),
            20 => {
                let destination = ("DestinationCidrBlock", ["0.0.0.0/0", "192.0.2.0/24"][self.draw(2)]);
                Call::new("CreateRoute", vec![table, destination, ("GatewayId", gateway.1)])
            }
            21 => Call::new("CreateNetworkAcl", vec![vpc]),
            22 => match self.draw(2) {
                0 => Call::new("DeleteNetworkAcl", vec![acl]),
                _ => Call::new("ReplaceNetworkAclAssociation", vec![acl, ("AssociationId", &listing)]),
            },
            23 => {
                let name =
                    [("DhcpConfiguration.1.Key", "domain-name"), ("DhcpConfiguration.1.Value.1", "a.b")];
                Call::new("CreateDhcpOptions", name.into())
            }
            24 => match self.draw(2) {
                0 => Call::new("AssociateDhcpOptions", vec![options, vpc]),
                _ => Call::new("DeleteDhcpOptions", vec![options]),
            },
            _ => match self.draw(3) {
                0 => Call::new("CreateEgressOnlyInternetGateway", vec![vpc]),
                1 => Call::new(
                    "DeleteEgressOnlyInternetGateway",
                    vec![("EgressOnlyInternetGatewayId", egress.as_str())],
                ),
                _ => Call::new("CreateDefaultVpc", vec![]),
            },
        }
    }
}

/// What is wrong at any moment.
pub fn violations(tables: &Tables) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut parts: BTreeMap<&str, Vec<(IpNet, &str)>> = BTreeMap::new();
    for subnet in tables.subnets.iter() {
        let id = subnet.subnet_id.as_str();
        let others = parts.entry(&subnet.vpc_id).or_default();
        let blocks: Vec<IpNet> = tables.vpcs.find(&subnet.vpc_id).map_or(Vec::new(), |vpc| {
            let ipv4 = vpc.cidrs().map(|(_, cidr)| IpNet::V4(cidr));
            ipv4.chain(vpc.ipv6_cidrs().map(IpNet::V6)).collect()
        });
        wrong.extend(subnet.networks().next().is_none().then(|| format!("{id} has no block")));
        for own in subnet.networks() {
            for (cidr, other) in others.iter() {
                if cidr.contains(&own) || own.contains(cidr) {
                    wrong.push(format!("{id} and {other} overlap"));
                }
            }
            others.push((own, id));
            if !blocks.iter().any(|block| block.contains(&own)) {
                wrong.push(format!("{own} of {id} is in no block of {}", subnet.vpc_id));
            }
        }
        let lists =
            tables.network_acls.iter().filter(|acl| acl.associations.iter().any(|(_, of)| **of == *id));
        wrong.extend((lists.count() != 1).then(|| format!("{id} has not one network ACL")));
        let uses = tables.route_tables.iter().flat_map(|table| &table.associations);
        let count = uses.filter(|of| *of.user_id == *id).count();
        wrong.extend((count > 1).then(|| format!("{id} has {count} route tables")));
    }
    for interface in tables.network_interfaces.iter().filter(|one| !tables.subnets.contains(&one.subnet_id)) {
        wrong.push(format!("{} is in {}, which is not there", interface.interface_id, interface.subnet_id));
    }
    for vpc in tables.vpcs.iter() {
        let id = vpc.vpc_id.as_str();
        let main =
            tables.route_tables.iter().filter(|one| *one.vpc_id == *id && one.main_association_id.is_some());
        let lists = tables.network_acls.iter().filter(|one| *one.vpc_id == *id && one.is_default);
        let groups = tables.security_groups.iter().filter(|one| *one.vpc_id == *id && one.name == "default");
        let own = [main.count(), lists.count(), groups.count()];
        if own != [1, 1, 1] {
            wrong.push(format!("{id} has {own:?} main tables, default lists and default groups"));
        }
        if vpc.dhcp_options_id.as_ref().is_some_and(|id| !tables.dhcp_options.contains(id)) {
            wrong.push(format!("{id} has {:?}, which are not there", vpc.dhcp_options_id));
        }
    }
    let default = tables.vpcs.iter().filter(|vpc| vpc.is_default).count();
    wrong.extend((default > 1).then(|| format!("there are {default} default VPCs")));
    wrong.extend(stray(tables));
    wrong.extend(astray(tables));
    wrong
}

/// Gateways' tables that are not their VPC's or lead out of it, and exclusions of what is not there, or two of one.
fn astray(tables: &Tables) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut gateways = std::collections::BTreeSet::new();
    for table in tables.route_tables.iter() {
        for of in &table.associations {
            let Some(gateway) = tables.internet_gateways.find(&of.user_id) else { continue };
            let (id, gateway_id) = (&table.route_table_id, &gateway.internet_gateway_id);
            let is_apart = gateway.vpc_id.as_ref() != Some(&table.vpc_id);
            wrong.extend(is_apart.then(|| format!("{id} is {gateway_id}'s, which is elsewhere")));
            wrong.extend((!gateways.insert(gateway_id)).then(|| format!("{gateway_id} has two tables")));
            let leads_in =
                |route: &control::route_table::Route| matches!(route.target, Target::NetworkInterface(_));
            let leads_out = !table.routes.iter().all(leads_in);
            wrong.extend(leads_out.then(|| format!("{id} is {gateway_id}'s, and leads out")));
        }
    }
    let mut excluded = std::collections::BTreeSet::new();
    let live = tables.vpc_block_public_access_exclusions.iter().filter(|one| one.deleted_at.is_none());
    for exclusion in live {
        let (id, of) = (&exclusion.exclusion_id, &exclusion.resource_id);
        let is_there = tables.vpcs.contains(of) || tables.subnets.contains(of);
        wrong.extend((!is_there).then(|| format!("{id} is of {of}, which is not there")));
        wrong.extend((!excluded.insert(of)).then(|| format!("{of} is excluded twice")));
    }
    wrong
}

/// Connections that are one too many, or lead from or to what is not there.
fn mispeered(tables: &Tables) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut pairs = BTreeMap::new();
    for peering in tables.vpc_peering_connections.iter().filter(|peering| peering.is_active()) {
        let id = &peering.peering_id;
        let ends = [&peering.requester, &peering.accepter].map(|end| tables.vpcs.find(end));
        let [Some(one), Some(other)] = ends else {
            wrong.push(format!("{id} connects what is not there"));
            continue;
        };
        let mut ends = [&one.vpc_id, &other.vpc_id];
        ends.sort();
        wrong.extend(pairs.insert(ends, id).map(|twin| format!("{twin} and {id} connect the same")));
        let meet = |(a, b): (Ipv4Net, Ipv4Net)| a.contains(&b) || b.contains(&a);
        let both = one.cidrs().flat_map(|(_, a)| other.cidrs().map(move |(_, b)| (a, b)));
        wrong.extend(both.into_iter().any(meet).then(|| format!("the ends of {id} overlap")));
    }
    wrong
}

/// Routes that are two for one destination, or lead to an endpoint that is not there.
fn misled(tables: &Tables) -> Vec<String> {
    let mut wrong = Vec::new();
    for table in tables.route_tables.iter() {
        let id = &table.route_table_id;
        let mut destinations = std::collections::BTreeSet::new();
        for route in &table.routes {
            let destination = route.destination.to_string();
            let lost = match &route.target {
                Target::VpcEndpoint(id) => {
                    tables.vpc_endpoints.find(id).is_none_or(|endpoint| endpoint.vpc_id != table.vpc_id)
                }
                _ => false,
            };
            wrong.extend(lost.then(|| format!("{id} leads {destination} to an endpoint it has not")));
            wrong.extend((!destinations.insert(destination)).then(|| format!("{id} has a route twice")));
        }
    }
    wrong
}

/// What is in a VPC that is not there, or has a place that another has.
fn stray(tables: &Tables) -> Vec<String> {
    let mut wrong = mispeered(tables);
    wrong.extend(misled(tables));
    let tables_in = tables.route_tables.iter().map(|one| (&one.route_table_id, &one.vpc_id));
    let lists_in = tables.network_acls.iter().map(|one| (&one.network_acl_id, &one.vpc_id));
    let groups_in = tables.security_groups.iter().map(|one| (&one.group_id, &one.vpc_id));
    let attached = tables.internet_gateways.iter();
    let attached: Vec<_> =
        attached.filter_map(|one| Some((&one.internet_gateway_id, one.vpc_id.as_ref()?))).collect();
    let egress = tables.egress_only_internet_gateways.iter().map(|one| (&one.gateway_id, &one.vpc_id));
    let egress: Vec<_> = egress.collect();
    let endpoints = tables.vpc_endpoints.iter().map(|one| (&one.endpoint_id, &one.vpc_id));
    let all = tables_in.chain(lists_in).chain(groups_in).chain(attached.clone()).chain(egress.clone());
    let all = all.chain(endpoints);
    for (id, vpc_id) in all.filter(|(_, vpc_id)| !tables.vpcs.contains(vpc_id)) {
        wrong.push(format!("{id} is in {vpc_id}, which is not there"));
    }
    for gateways in [attached, egress] {
        let mut of = BTreeMap::new();
        for (id, vpc_id) in gateways {
            wrong.extend(of.insert(vpc_id, id).map(|other| format!("{vpc_id} has {id} and {other}")));
        }
    }
    let mut blocks = BTreeMap::new();
    for (vpc, block) in tables.vpcs.iter().flat_map(|vpc| vpc.ipv6_cidrs().map(move |block| (vpc, block))) {
        let other = blocks.insert(block, &vpc.vpc_id);
        wrong.extend(other.map(|other| format!("{block} is of {other} and of {}", vpc.vpc_id)));
    }
    wrong
}
