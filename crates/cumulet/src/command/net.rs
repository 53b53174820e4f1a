//! `cumulet net`: what a VPC is made of, why a packet passes or does not, and where public addresses come from.

mod pool;

use crate::cloud::Locate;
use crate::query::{Client, Node, RESERVED};
use crate::table;
use anyhow::{Result, bail};
use aws_api::cumulet::{Hop, TraceNetworkResponse};
use clap::Subcommand;
use percent_encoding::utf8_percent_encode;
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Why packets get from one place to another, or what stops them: hop by hop, there and back
    Trace {
        #[command(flatten)]
        locate: Locate,
        /// An instance, a network interface, an address, or `internet`
        source: String,
        /// An instance, a network interface, an internet gateway, an address, or `internet`
        destination: String,
        #[command(flatten)]
        packet: Packet,
    },
    /// Draw a VPC: its gateways, subnets, routes and interfaces
    Show {
        #[command(flatten)]
        locate: Locate,
        vpc_id: String,
    },
    /// Where public addresses come from
    #[command(subcommand)]
    Pool(pool::Pool),
}

/// The first packet of what is asked about.
#[derive(clap::Args)]
struct Packet {
    #[arg(short, long)]
    port: Option<u16>,
    /// tcp, udp or icmp
    #[arg(long, default_value = "tcp")]
    protocol: String,
    /// The type of a control message; that of an echo request where it is not given
    #[arg(long = "type", value_name = "NUMBER")]
    kind: Option<u8>,
    /// The code of a control message
    #[arg(long, value_name = "NUMBER", requires = "kind")]
    code: Option<u8>,
    /// By the addresses of IPv6, where none of the ends is an address
    #[arg(short = '6', long)]
    ipv6: bool,
}

pub fn run(args: Args) -> Result<ExitCode> {
    match args.what {
        What::Trace { locate, source, destination, packet } => {
            trace(&Client::new(locate.cloud()?)?, &source, &destination, &packet)
        }
        What::Show { locate, vpc_id } => {
            print!("{}", show(&Client::new(locate.cloud()?)?, &vpc_id)?);
            Ok(ExitCode::SUCCESS)
        }
        What::Pool(pool) => pool::run(pool).map(|()| ExitCode::SUCCESS),
    }
}

/// Fails where the packet does, so that scripts can ask.
fn trace(client: &Client, source: &str, destination: &str, packet: &Packet) -> Result<ExitCode> {
    let text = |number: Option<u16>| number.map(|number| number.to_string());
    // Sorted, as what is signed has to be.
    let parameters = [
        ("destination", Some(destination.to_owned())),
        ("icmp-code", text(packet.code.map(u16::from))),
        ("icmp-type", text(packet.kind.map(u16::from))),
        ("ipv6", packet.ipv6.then(|| "true".to_owned())),
        ("port", text(packet.port)),
        ("protocol", Some(packet.protocol.clone())),
        ("source", Some(source.to_owned())),
    ];
    let given = parameters.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let query: Vec<String> =
        given.map(|(name, value)| format!("{name}={}", utf8_percent_encode(&value, RESERVED))).collect();
    let query = query.join("&");
    let found: TraceNetworkResponse = client.operator("/network/trace", &query)?;
    print!("{}", path("THERE", &found.forward));
    if !found.back.is_empty() {
        print!("\n{}", path("BACK", &found.back));
    }
    println!();
    match found.obstacle {
        None => {
            println!("It passes.");
            Ok(ExitCode::SUCCESS)
        }
        Some(obstacle) => {
            println!("It does not pass: {obstacle}.");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn path(heading: &str, hops: &[Hop]) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let rows: Vec<_> = hops
        .iter()
        .map(|hop| {
            let packet = format!("{} > {}", text(&hop.source), text(&hop.destination));
            [text(&hop.place), text(&hop.because), packet, text(&hop.vpc_id)]
        })
        .collect();
    table::render([heading, "BECAUSE", "PACKET", "VPC"], &rows)
}

/// What the cloud has of a kind in the VPC.
fn all(client: &Client, operation: &str, list: &str, filter: &str, vpc_id: &str) -> Result<Vec<Node>> {
    let mut found = Vec::new();
    let mut next_token = String::new();
    loop {
        let mut parameters = vec![("Filter.1.Name", filter), ("Filter.1.Value.1", vpc_id)];
        if !next_token.is_empty() {
            parameters.push(("NextToken", &next_token));
        }
        let mut answer = client.ec2(operation, &parameters)?;
        next_token = answer.text_of("nextToken").to_owned();
        let list = answer.children.iter_mut().find(|child| child.name == list);
        found.extend(list.map(|list| std::mem::take(&mut list.children)).unwrap_or_default());
        if next_token.is_empty() {
            return Ok(found);
        }
    }
}

/// A line, and what is below it.
#[derive(Default)]
struct Branch {
    line: String,
    below: Vec<Branch>,
}

impl Branch {
    fn new(line: String) -> Branch {
        Branch { line, below: Vec::new() }
    }

    fn draw(&self, before: &str, out: &mut String) {
        for (at, branch) in self.below.iter().enumerate() {
            let is_last = at + 1 == self.below.len();
            let (own, further) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            *out += &format!("{before}{own}{}\n", branch.line);
            branch.draw(&format!("{before}{further}"), out);
        }
    }
}

fn show(client: &Client, vpc_id: &str) -> Result<String> {
    let vpcs = client.ec2("DescribeVpcs", &[("VpcId.1", vpc_id)])?;
    let Some(vpc) = vpcs.items("vpcSet").first() else { bail!("there is no VPC {vpc_id}") };
    let blocks = vpc.items("cidrBlockAssociationSet").iter().map(|block| block.text_of("cidrBlock"));
    let blocks: Vec<&str> = blocks.chain(ipv6_blocks(vpc)).collect();
    let mut root = Branch::new(words([vpc_id, &blocks.join(", "), name(vpc)]));
    let own = |operation, list, filter| all(client, operation, list, filter, vpc_id);
    for gateway in own("DescribeInternetGateways", "internetGatewaySet", "attachment.vpc-id")? {
        root.below.push(Branch::new(words([gateway.text_of("internetGatewayId"), "internet gateway"])));
    }
    let sides =
        [("requester-vpc-info.vpc-id", "accepterVpcInfo"), ("accepter-vpc-info.vpc-id", "requesterVpcInfo")];
    for (filter, other) in sides {
        for peering in own("DescribeVpcPeeringConnections", "vpcPeeringConnectionSet", filter)? {
            let peer = peering.child(other).map(|peer| peer.text_of("vpcId")).unwrap_or_default();
            let state = peering.child("status").map(|status| status.text_of("code")).unwrap_or_default();
            let id = peering.text_of("vpcPeeringConnectionId");
            root.below.push(Branch::new(words([id, "peering with", peer, state])));
        }
    }
    let tables = own("DescribeRouteTables", "routeTableSet", "vpc-id")?;
    let acls = own("DescribeNetworkAcls", "networkAclSet", "vpc-id")?;
    let interfaces = own("DescribeNetworkInterfaces", "networkInterfaceSet", "vpc-id")?;
    for subnet in own("DescribeSubnets", "subnetSet", "vpc-id")? {
        root.below.push(self::subnet(&subnet, &tables, &acls, &interfaces));
    }
    let mut drawn = format!("{}\n", root.line);
    root.draw("", &mut drawn);
    Ok(drawn)
}

fn subnet(subnet: &Node, tables: &[Node], acls: &[Node], interfaces: &[Node]) -> Branch {
    let id = subnet.text_of("subnetId");
    let zone = subnet.text_of("availabilityZone");
    let blocks = [subnet.text_of("cidrBlock")].into_iter().chain(ipv6_blocks(subnet));
    let blocks: Vec<&str> = blocks.filter(|block| !block.is_empty()).collect();
    let mut branch = Branch::new(words([id, &blocks.join(", "), zone, name(subnet)]));
    let is_its = |association: &Node| association.text_of("subnetId") == id;
    let is_main = |association: &Node| association.text_of("main") == "true";
    let has = |table: &&Node, is: &dyn Fn(&Node) -> bool| table.items("associationSet").iter().any(is);
    let table = tables.iter().find(|table| has(table, &is_its));
    if let Some(table) = table.or_else(|| tables.iter().find(|table| has(table, &is_main))) {
        let routes = table.items("routeSet").iter().map(|route| Branch::new(self::route(route)));
        branch
            .below
            .push(Branch { line: words([table.text_of("routeTableId"), "routes"]), below: routes.collect() });
    }
    if let Some(acl) = acls.iter().find(|acl| has(acl, &is_its)) {
        let kind = if acl.text_of("default") == "true" { "default network ACL" } else { "network ACL" };
        branch.below.push(Branch::new(words([acl.text_of("networkAclId"), kind])));
    }
    let own = interfaces.iter().filter(|interface| interface.text_of("subnetId") == id);
    branch.below.extend(own.map(|interface| Branch::new(self::interface(interface))));
    branch
}

fn route(route: &Node) -> String {
    let first = |names: &[&str]| {
        let mut texts = names.iter().map(|name| route.text_of(name));
        texts.find(|text| !text.is_empty()).unwrap_or_default().to_owned()
    };
    let destination = first(&["destinationCidrBlock", "destinationIpv6CidrBlock", "destinationPrefixListId"]);
    let target = first(&[
        "gatewayId",
        "natGatewayId",
        "networkInterfaceId",
        "vpcPeeringConnectionId",
        "egressOnlyInternetGatewayId",
    ]);
    let state = if route.text_of("state") == "blackhole" { "(blackhole)" } else { "" };
    words([destination.as_str(), "by", &target, state])
}

fn interface(interface: &Node) -> String {
    let public = interface.child("association").map(|one| one.text_of("publicIp")).unwrap_or_default();
    let public = if public.is_empty() { String::new() } else { format!("({public})") };
    let instance = interface.child("attachment").map(|one| one.text_of("instanceId")).unwrap_or_default();
    let groups: Vec<&str> =
        interface.items("groupSet").iter().map(|group| group.text_of("groupName")).collect();
    let groups = if groups.is_empty() { String::new() } else { format!("in {}", groups.join(", ")) };
    let kind = interface.text_of("interfaceType");
    let user = if kind == "interface" { instance } else { interface.text_of("description") };
    words([
        interface.text_of("networkInterfaceId"),
        interface.text_of("privateIpAddress"),
        &public,
        interface.text_of("ipv6Address"),
        user,
        &groups,
    ])
}

/// Of a VPC or of a subnet.
fn ipv6_blocks(node: &Node) -> impl Iterator<Item = &str> {
    node.items("ipv6CidrBlockAssociationSet").iter().map(|block| block.text_of("ipv6CidrBlock"))
}

fn name(node: &Node) -> &str {
    super::tag(node, "Name").unwrap_or_default()
}

fn words<const N: usize>(words: [&str; N]) -> String {
    words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}
