//! What hosts are told of a VPC: whatever its user sets is what packets meet.

use crate::cloud::Cloud;
use datapath::{Protocol, Target};

/// The first id in what an operation answers.
async fn made(cloud: &Cloud, operation: &str, parameters: &[(&str, &str)], tag: &str) -> String {
    cloud.ok(operation, parameters).await.all(tag)[0].to_owned()
}

fn route(vpc: &agent_api::Vpc, table: &str, destination: &str) -> Option<Target> {
    let destination = destination.parse().unwrap();
    let routes = &vpc.network.route_tables.get(table)?.routes;
    Some(routes.iter().find(|route| route.destination == destination)?.target.clone())
}

#[tokio::test]
async fn a_host_is_told_every_subnets_routes_and_rules() {
    let cloud = Cloud::start().await;
    let id = made(&cloud, "CreateVpc", &[("CidrBlock", "10.1.0.0/16")], "vpcId").await;
    let vpc = ("VpcId", id.as_str());
    cloud.ok("AssociateVpcCidrBlock", &[vpc, ("CidrBlock", "10.2.0.0/16")]).await;
    cloud.ok("AssociateVpcCidrBlock", &[vpc, ("AmazonProvidedIpv6CidrBlock", "true")]).await;
    let front = made(&cloud, "CreateSubnet", &[vpc, ("CidrBlock", "10.1.1.0/24")], "subnetId").await;
    let back = made(&cloud, "CreateSubnet", &[vpc, ("CidrBlock", "10.2.1.0/24")], "subnetId").await;
    let gateway = made(&cloud, "CreateInternetGateway", &[], "internetGatewayId").await;
    let attachment = [("InternetGatewayId", gateway.as_str()), vpc];
    cloud.ok("AttachInternetGateway", &attachment).await;

    let table = made(&cloud, "CreateRouteTable", &[vpc], "routeTableId").await;
    let to_gateway = [("DestinationCidrBlock", "0.0.0.0/0"), ("GatewayId", gateway.as_str())];
    cloud.ok("CreateRoute", &[("RouteTableId", table.as_str()), to_gateway[0], to_gateway[1]]).await;
    cloud.ok("AssociateRouteTable", &[("RouteTableId", &table), ("SubnetId", &front)]).await;

    let acl = made(&cloud, "CreateNetworkAcl", &[vpc], "networkAclId").await;
    let entry = [
        ("NetworkAclId", acl.as_str()),
        ("RuleNumber", "100"),
        ("Egress", "false"),
        ("RuleAction", "allow"),
        ("Protocol", "6"),
        ("CidrBlock", "192.0.2.0/24"),
        ("PortRange.From", "22"),
        ("PortRange.To", "80"),
    ];
    cloud.ok("CreateNetworkAclEntry", &entry).await;
    let of_front = [("Filter.1.Name", "association.subnet-id"), ("Filter.1.Value.1", front.as_str())];
    let found = cloud.ok("DescribeNetworkAcls", &of_front).await;
    let association = found.all("networkAclAssociationId")[0].to_owned();
    cloud
        .ok("ReplaceNetworkAclAssociation", &[("NetworkAclId", &acl), ("AssociationId", &association)])
        .await;
    let options = [
        ("DhcpConfiguration.1.Key", "domain-name-servers"),
        ("DhcpConfiguration.1.Value.1", "10.1.1.53,AmazonProvidedDNS"),
    ];
    let options = made(&cloud, "CreateDhcpOptions", &options, "dhcpOptionsId").await;
    cloud.ok("AssociateDhcpOptions", &[("DhcpOptionsId", &options), vpc]).await;

    let servers: [std::net::IpAddr; 2] = ["10.1.1.53".parse().unwrap(), "10.1.0.2".parse().unwrap()];
    let told = cloud
        .told_of_vpc(&id, |vpc| vpc.is_some_and(|vpc| vpc.dhcp_options.domain_name_servers == servers))
        .await
        .unwrap();
    let network = &told.network;
    assert_eq!(
        network.cidrs.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["10.1.0.0/16", "10.2.0.0/16"]
    );
    assert_eq!(network.ipv6_cidrs.len(), 1);
    assert!(network.internet_gateway);
    let subnet = |id: &str| network.subnets.iter().find(|subnet| *subnet.subnet_id == *id).unwrap();
    assert_eq!(*subnet(&front).route_table_id, *table);
    assert_eq!(*subnet(&front).network_acl_id, *acl);
    assert_eq!(route(&told, &table, "0.0.0.0/0"), Some(Target::InternetGateway));
    // The other one is under the main table and the default list.
    assert_eq!(network.route_tables[&subnet(&back).route_table_id].routes, []);
    let rules = |acl: &str| &network.network_acls[acl];
    let (first, last) = (&rules(&acl).ingress[0], rules(&acl).ingress.last().unwrap());
    assert_eq!((first.protocol, first.allow), (Protocol::Tcp { from: 22, to: 80 }, true));
    assert_eq!((last.protocol, last.allow), (Protocol::All, false));
    assert!(rules(&subnet(&back).network_acl_id).ingress[0].allow);

    cloud.ok("DetachInternetGateway", &attachment).await;
    let is_dead = |vpc: Option<&agent_api::Vpc>| {
        vpc.is_some_and(|vpc| route(vpc, &table, "0.0.0.0/0") == Some(Target::Blackhole))
    };
    assert!(!cloud.told_of_vpc(&id, is_dead).await.unwrap().network.internet_gateway);
}

#[tokio::test]
async fn a_route_to_an_instance_dies_with_it_and_the_vpc_goes_with_its_last_thing() {
    let cloud = Cloud::start().await;
    let id = made(&cloud, "CreateVpc", &[("CidrBlock", "10.1.0.0/16")], "vpcId").await;
    let vpc = ("VpcId", id.as_str());
    let zone = ("AvailabilityZone", "us-east-1a");
    let subnet = made(&cloud, "CreateSubnet", &[vpc, zone, ("CidrBlock", "10.1.1.0/24")], "subnetId").await;
    let instance = cloud.run(&[("SubnetId", &subnet)]).await;
    let of_vpc = [("Filter.1.Name", "vpc-id"), ("Filter.1.Value.1", id.as_str())];
    let table = made(&cloud, "DescribeRouteTables", &of_vpc, "routeTableId").await;
    let interface = made(&cloud, "DescribeNetworkInterfaces", &of_vpc, "networkInterfaceId").await;
    let to_instance = [("DestinationCidrBlock", "0.0.0.0/0"), ("InstanceId", instance.as_str())];
    cloud.ok("CreateRoute", &[("RouteTableId", table.as_str()), to_instance[0], to_instance[1]]).await;
    let leads = |wanted: Target| {
        let table = &table;
        move |vpc: Option<&agent_api::Vpc>| {
            vpc.is_some_and(|vpc| route(vpc, table, "0.0.0.0/0").as_ref() == Some(&wanted))
        }
    };
    let interface = model::Id::parse(model::Kind::NetworkInterface, &interface).unwrap();
    cloud.told_of_vpc(&id, leads(Target::Interface(interface))).await;
    cloud.ok("TerminateInstances", &[("InstanceId.1", &instance)]).await;
    cloud.told_of_vpc(&id, leads(Target::Blackhole)).await;
    cloud.ok("DeleteSubnet", &[("SubnetId", &subnet)]).await;
    cloud.ok("DeleteVpc", &[vpc]).await;
    cloud.told_of_vpc(&id, |vpc| vpc.is_none()).await;
}

#[tokio::test]
async fn prefix_lists_are_written_out_for_hosts_and_followed() {
    let cloud = Cloud::start().await;
    let id = made(&cloud, "CreateVpc", &[("CidrBlock", "10.1.0.0/16")], "vpcId").await;
    let vpc = ("VpcId", id.as_str());
    cloud.ok("CreateSubnet", &[vpc, ("CidrBlock", "10.1.1.0/24")]).await;
    let gateway = made(&cloud, "CreateInternetGateway", &[], "internetGatewayId").await;
    cloud.ok("AttachInternetGateway", &[("InternetGatewayId", gateway.as_str()), vpc]).await;
    let list = [
        ("PrefixListName", "partners"),
        ("AddressFamily", "IPv4"),
        ("MaxEntries", "10"),
        ("Entry.1.Cidr", "192.0.2.0/24"),
        ("Entry.2.Cidr", "10.1.7.0/24"),
    ];
    let list = made(&cloud, "CreateManagedPrefixList", &list, "prefixListId").await;
    let of_vpc = [("Filter.1.Name", "vpc-id"), ("Filter.1.Value.1", id.as_str())];
    let table = made(&cloud, "DescribeRouteTables", &of_vpc, "routeTableId").await;
    let to_list = [("DestinationPrefixListId", list.as_str()), ("GatewayId", gateway.as_str())];
    cloud.ok("CreateRoute", &[("RouteTableId", table.as_str()), to_list[0], to_list[1]]).await;
    let leads = |destination: &'static str| {
        let table = &table;
        move |vpc: Option<&agent_api::Vpc>| vpc.is_some_and(|vpc| route(vpc, table, destination).is_some())
    };
    let told = cloud.told_of_vpc(&id, leads("192.0.2.0/24")).await.unwrap();
    assert_eq!(route(&told, &table, "192.0.2.0/24"), Some(Target::InternetGateway));
    assert_eq!(route(&told, &table, "10.1.7.0/24"), None, "what is within the VPC stays there");
    let added = [
        ("PrefixListId", list.as_str()),
        ("CurrentVersion", "1"),
        ("AddEntry.1.Cidr", "203.0.113.0/24"),
        ("RemoveEntry.1.Cidr", "192.0.2.0/24"),
    ];
    cloud.ok("ModifyManagedPrefixList", &added).await;
    let told = cloud.told_of_vpc(&id, leads("203.0.113.0/24")).await.unwrap();
    assert_eq!(route(&told, &table, "192.0.2.0/24"), None);
}

#[tokio::test(start_paused = true)]
async fn both_ends_of_a_peering_are_told_once_it_is_accepted_and_a_request_expires() {
    let cloud = Cloud::start().await;
    let one = made(&cloud, "CreateVpc", &[("CidrBlock", "10.1.0.0/16")], "vpcId").await;
    let other = made(&cloud, "CreateVpc", &[("CidrBlock", "10.2.0.0/16")], "vpcId").await;
    let ends = [("VpcId", one.as_str()), ("PeerVpcId", other.as_str())];
    let id = made(&cloud, "CreateVpcPeeringConnection", &ends, "vpcPeeringConnectionId").await;
    let peering = [("VpcPeeringConnectionId", id.as_str())];
    tokio::time::sleep(std::time::Duration::from_secs(7 * 24 * 60 * 60)).await;
    let late = cloud.call("AcceptVpcPeeringConnection", &peering).await;
    assert_eq!(late.unwrap_err(), "InvalidStateTransition");
    let id = made(&cloud, "CreateVpcPeeringConnection", &ends, "vpcPeeringConnectionId").await;
    let peering = [("VpcPeeringConnectionId", id.as_str())];
    cloud.ok("AcceptVpcPeeringConnection", &peering).await;
    let table = [("Filter.1.Name", "vpc-id"), ("Filter.1.Value.1", one.as_str())];
    let table = made(&cloud, "DescribeRouteTables", &table, "routeTableId").await;
    cloud.ok("CreateSubnet", &[ends[0], ("CidrBlock", "10.1.1.0/24")]).await;
    let over = [("DestinationCidrBlock", "10.2.0.0/16"), peering[0]];
    cloud.ok("CreateRoute", &[("RouteTableId", table.as_str()), over[0], over[1]]).await;
    let leads = |wanted: Target| {
        let table = &table;
        move |vpc: Option<&agent_api::Vpc>| {
            vpc.is_some_and(|vpc| route(vpc, table, "10.2.0.0/16").as_ref() == Some(&wanted))
        }
    };
    let peering_id = model::Id::parse(model::Kind::VpcPeeringConnection, &id).unwrap();
    let told = cloud.told_of_vpc(&one, leads(Target::Peering(peering_id))).await.unwrap();
    assert_eq!(*told.network.peerings[0].peer_vpc_id, *other);
    let peers = |count: usize| {
        move |vpc: Option<&agent_api::Vpc>| vpc.is_some_and(|vpc| vpc.network.peerings.len() == count)
    };
    let told = cloud.told_of_vpc(&other, peers(1)).await.unwrap();
    assert_eq!(*told.network.peerings[0].peer_vpc_id, *one);
    cloud.ok("DeleteVpcPeeringConnection", &peering).await;
    cloud.told_of_vpc(&one, leads(Target::Blackhole)).await;
    cloud.told_of_vpc(&other, peers(0)).await;
}

#[tokio::test]
async fn an_endpoint_is_told_as_routes_to_its_services_addresses() {
    let cloud = Cloud::start().await;
    let id = made(&cloud, "CreateVpc", &[("CidrBlock", "10.1.0.0/16")], "vpcId").await;
    let vpc = ("VpcId", id.as_str());
    cloud.ok("CreateSubnet", &[vpc, ("CidrBlock", "10.1.1.0/24")]).await;
    let of_vpc = [("Filter.1.Name", "vpc-id"), ("Filter.1.Value.1", id.as_str())];
    let table = made(&cloud, "DescribeRouteTables", &of_vpc, "routeTableId").await;
    let to_s3 = [vpc, ("ServiceName", "com.amazonaws.us-east-1.s3"), ("RouteTableId.1", table.as_str())];
    let endpoint = made(&cloud, "CreateVpcEndpoint", &to_s3, "vpcEndpointId").await;
    let leads = |wanted: Option<Target>| {
        let table = &table;
        move |vpc: Option<&agent_api::Vpc>| {
            vpc.is_some_and(|vpc| route(vpc, table, "192.0.0.64/28") == wanted)
        }
    };
    let endpoint_id = model::Id::parse(model::Kind::VpcEndpoint, &endpoint).unwrap();
    cloud.told_of_vpc(&id, leads(Some(Target::Endpoint(endpoint_id)))).await;
    cloud.ok("DeleteVpcEndpoints", &[("VpcEndpointId.1", &endpoint)]).await;
    cloud.told_of_vpc(&id, leads(None)).await;
}

#[tokio::test]
async fn a_host_is_told_what_is_shut_of_the_region_and_what_is_excluded() {
    use datapath::PublicAccess::{self, Blocked, Open, Outward};
    let cloud = Cloud::start().await;
    let id = made(&cloud, "CreateVpc", &[("CidrBlock", "10.1.0.0/16")], "vpcId").await;
    let vpc = ("VpcId", id.as_str());
    let subnet = made(&cloud, "CreateSubnet", &[vpc, ("CidrBlock", "10.1.1.0/24")], "subnetId").await;
    let is = |wanted: PublicAccess| {
        move |vpc: Option<&agent_api::Vpc>| {
            vpc.is_some_and(|vpc| vpc.network.subnets.iter().all(|subnet| subnet.public_access == wanted))
        }
    };
    let mode = |mode: &'static str| [("InternetGatewayBlockMode", mode)];
    cloud.told_of_vpc(&id, is(Open)).await;
    cloud.ok("ModifyVpcBlockPublicAccessOptions", &mode("block-bidirectional")).await;
    cloud.told_of_vpc(&id, is(Blocked)).await;
    let exclude = [("SubnetId", subnet.as_str()), ("InternetGatewayExclusionMode", "allow-egress")];
    let exclusion = made(&cloud, "CreateVpcBlockPublicAccessExclusion", &exclude, "exclusionId").await;
    cloud.told_of_vpc(&id, is(Outward)).await;
    cloud.ok("DeleteVpcBlockPublicAccessExclusion", &[("ExclusionId", &exclusion)]).await;
    cloud.told_of_vpc(&id, is(Blocked)).await;
    cloud.ok("ModifyVpcBlockPublicAccessOptions", &mode("off")).await;
    cloud.told_of_vpc(&id, is(Open)).await;
}

#[tokio::test]
async fn a_host_is_told_the_gateways_own_routes() {
    let cloud = Cloud::start().await;
    let id = made(&cloud, "CreateVpc", &[("CidrBlock", "10.1.0.0/16")], "vpcId").await;
    let vpc = ("VpcId", id.as_str());
    let zone = ("AvailabilityZone", "us-east-1a");
    let subnet = made(&cloud, "CreateSubnet", &[vpc, zone, ("CidrBlock", "10.1.1.0/24")], "subnetId").await;
    cloud.run(&[("SubnetId", &subnet)]).await;
    let of_vpc = [("Filter.1.Name", "vpc-id"), ("Filter.1.Value.1", id.as_str())];
    let interface = made(&cloud, "DescribeNetworkInterfaces", &of_vpc, "networkInterfaceId").await;
    let gateway = made(&cloud, "CreateInternetGateway", &[], "internetGatewayId").await;
    let gateway = ("GatewayId", gateway.as_str());
    cloud.ok("AttachInternetGateway", &[("InternetGatewayId", gateway.1), vpc]).await;
    let table = made(&cloud, "CreateRouteTable", &[vpc], "routeTableId").await;
    let of_table = ("RouteTableId", table.as_str());
    let to_interface = [("DestinationCidrBlock", "10.1.1.0/24"), ("NetworkInterfaceId", interface.as_str())];
    cloud.ok("CreateRoute", &[of_table, to_interface[0], to_interface[1]]).await;
    let association = made(&cloud, "AssociateRouteTable", &[of_table, gateway], "associationId").await;
    let is_led = |vpc: Option<&agent_api::Vpc>| {
        vpc.is_some_and(|vpc| {
            vpc.network.edge_route_table_id.as_deref() == Some(&*table)
                && matches!(route(vpc, &table, "10.1.1.0/24"), Some(Target::Interface(id)) if *id == *interface)
        })
    };
    cloud.told_of_vpc(&id, is_led).await;
    cloud.ok("DisassociateRouteTable", &[("AssociationId", &association)]).await;
    let is_not = |vpc: Option<&agent_api::Vpc>| {
        vpc.is_some_and(|vpc| {
            vpc.network.edge_route_table_id.is_none() && !vpc.network.route_tables.contains_key(&*table)
        })
    };
    cloud.told_of_vpc(&id, is_not).await;
}
