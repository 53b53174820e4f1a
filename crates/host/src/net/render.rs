//! The packet filter of a VPC's namespace, and of the host. Pure.

use datapath::{PublicPool, SecurityGroup, nat64};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::Id;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::Ipv4Addr;

use super::edge;
use super::family::{Family, elements};
use super::flows;
use super::fragments;
use super::hosts::{self, LINK as HOSTS, PORT};
use super::network_acl;
use super::public_access::{self, Barred};
use super::security_group::{self, Direction};
use super::table::Table;
use super::vpc::{
    self, DHCP_SERVERS, GATEWAY, METADATA, METADATA6, NAT_GATEWAY, NUMBER_MASK, Nic, OTHER_HOST, PEER,
    RESOLVER6, ROUTER_MAC, TIME, TIME6, Vpc, nat_link, peering_link,
};

/// Our tables in a namespace of ours.
pub(super) const TABLE: &str = "inet cumulet";
const ARP_TABLE: &str = "arp cumulet";

/// A set of who asks its router as somebody it is not known as, and what tells whether one does so too often.
const ASKING: &str = "iface_index; size 65535; flags dynamic,timeout; timeout 1m";
const TOO_OFTEN: &str = "update @asking { iif limit rate over 20/second burst 40 packets }";

/// The dummy address of RFC 7600, which is nobody's.
const STRANGER: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);

/// The rules of one VPC. Links are matched by name, taps by the index that they will have, so they need not be there
/// yet: what has no rule is dropped. `tracked` is how many flows the namespace can track.
pub(super) fn vpc(vpc: &Vpc, groups: &BTreeMap<&Id, &SecurityGroup>, tracked: u32) -> Vec<Table> {
    let mut table = Table::new(TABLE);
    for family in Family::BOTH {
        let elsewhere = vpc.elsewhere.iter().flat_map(|elsewhere| elsewhere.interface.networks());
        let sets =
            [("inside", elements(vpc.plan.ranges(), family)), ("elsewhere", elements(elsewhere, family))];
        for (name, elements) in sets {
            let types = format!("{}; flags interval", family.address());
            table.set(family.named(name), &types, &elements);
        }
    }
    egress_only(vpc, &mut table);
    interfaces(vpc, &mut table);
    addresses(vpc, &mut table);
    let membership = group_sets(vpc, groups, &mut table);
    verdicts(vpc, &membership, &mut table);
    let has_acls = network_acl::render(vpc, &mut table);
    fragments::render(&mut table);
    sources(vpc, &mut table);
    edge::render(vpc, &mut table);
    flows::render(vpc, tracked, &mut table);
    services(vpc, tracked, &mut table);
    own_words(&mut table);
    forward(vpc, has_acls, &mut table);
    translation(vpc, &mut table);
    vec![table, senders(vpc)]
}

/// What the host's rules depend on.
pub(super) struct Host<'a> {
    pub table: &'a str,
    /// The pattern of the names of our ends of the gateways.
    pub links: &'a str,
    pub pool: Ipv4Net,
    /// What the network around the host knows of as well.
    pub pools: &'a [PublicPool],
    /// The one interface that guests reach the outside by; any where None.
    pub uplink: Option<&'a str>,
    /// The public addresses in use.
    pub public: &'a BTreeSet<Ipv4Addr>,
    /// The networks of the VPCs that are here.
    pub cidrs: &'a BTreeSet<Ipv4Net>,
    pub ipv6_cidrs: &'a [Ipv6Net],
    /// The other hosts, which alone may send what guests of theirs do.
    pub hosts: &'a BTreeSet<Ipv4Addr>,
    /// What guests may begin to speak to on the host itself: the cloud's own API, where it listens to more than the host.
    pub api_port: Option<u16>,
}

/// The host's rules, in a table of our own beside whatever else filters there. Outsiders whose address is one of
/// a VPC's own could not be answered there: they appear as `STRANGER`. Nobody outside has a route to the pool of IPv4,
/// nor to unique local addresses (RFC 4193).
pub(super) fn host(host: Host) -> Table {
    let Host { table, links, pool, pools, uplink, public, cidrs, ipv6_cidrs, hosts, api_port } = host;
    let mut table = Table::new(table);
    let public: Vec<String> = public.iter().map(Ipv4Addr::to_string).collect();
    table.set("public", "ipv4_addr", &public);
    let vpcs = cidrs.iter().copied().map(IpNet::from).chain(ipv6_cidrs.iter().copied().map(IpNet::from));
    for family in Family::BOTH {
        let vpcs = elements(vpcs.clone(), family);
        table.set(family.named("vpcs"), &format!("{}; flags interval", family.address()), &vpcs);
    }
    let hosts: Vec<String> = hosts.iter().map(Ipv4Addr::to_string).collect();
    table.set("hosts", "ipv4_addr", &hosts);
    let outward = match uplink {
        Some(uplink) => format!("oifname \"{uplink}\""),
        None => format!("oifname != \"{links}\""),
    };
    table.chain(
        "guests",
        "",
        format!(
            "ip saddr != @public drop
            ip6 saddr != @vpcs6 drop
            udp dport {PORT} ip daddr @hosts drop"
        ),
    );
    table.chain(
        "antispoof",
        "type filter hook prerouting priority raw; policy accept;",
        format!("iifname \"{links}\" jump guests"),
    );
    let api = api_port.map_or(String::new(), |port| format!("tcp dport {port} accept\n"));
    table.chain("services", "", format!("ct state established,related accept\n{api}drop"));
    table.chain(
        "for_the_host",
        "type filter hook input priority filter; policy accept;",
        format!("iifname \"{links}\" goto services\nudp dport {PORT} ip saddr != @hosts drop"),
    );
    table.chain(
        "forward",
        "type filter hook forward priority mangle; policy accept;",
        format!(
            "{}iifname \"{links}\" tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu",
            unassigned(pools)
        ),
    );
    table.chain(
        "outward",
        "type nat hook postrouting priority srcnat; policy accept;",
        format!(
            "{outward} ip saddr {pool} ip daddr != {pool} masquerade
{}            {outward} ip6 saddr @vpcs6 ip6 saddr fc00::/7 ip6 daddr != @vpcs6 masquerade
            oifname \"{links}\" ip saddr @vpcs snat to {STRANGER}",
            elsewhere(pools, links)
        ),
    );
    table
}

/// Refuses what is for an address of a pool that nobody has: who leads the pool here would get it back.
fn unassigned(pools: &[PublicPool]) -> String {
    if pools.is_empty() {
        return String::new();
    }
    let cidrs: Vec<String> = pools.iter().map(|pool| pool.cidr.to_string()).collect();
    format!(
        "ip daddr {{ {} }} ip daddr != @public reject with icmp type host-unreachable\n\t\t",
        cidrs.join(", ")
    )
}

/// Lends the host's address where a pool's is not known: on other interfaces than the pool's.
fn elsewhere(pools: &[PublicPool], links: &str) -> String {
    let mut out = String::new();
    for PublicPool { cidr, interface } in pools {
        if let Some(interface) = interface {
            let _ =
                writeln!(out, "\t\toifname != {{ \"{links}\", \"{interface}\" }} ip saddr {cidr} masquerade");
        }
    }
    out
}

/// Who may send what: every interface by its tap and MAC, and by its address where the source is checked.
fn interfaces(vpc: &Vpc, table: &mut Table) {
    let key = |nic: &Nic| format!("{} . {}", nic.number, mac(nic.plan.mac));
    let checked = vpc.nics.iter().filter(|nic| nic.plan.source_dest_check);
    let owned: Vec<(&Nic, IpNet)> =
        checked.flat_map(|nic| nic.plan.networks().map(move |net| (nic, net))).collect();
    let is_one = |net: &IpNet| net.prefix_len() == net.max_prefix_len();
    for family in Family::BOTH {
        let owned = owned.iter().copied().filter(|(_, net)| Family::of(net.addr()) == family);
        let (single, delegated): (Vec<_>, Vec<_>) = owned.partition(|(_, net)| is_one(net));
        let element = |nic: &Nic, net: String| format!("{} . {net} : {:#010x}", key(nic), vpc.mark(nic));
        let single: Vec<String> =
            single.into_iter().map(|(nic, net)| element(nic, net.addr().to_string())).collect();
        let delegated: Vec<String> =
            delegated.into_iter().map(|(nic, net)| element(nic, net.to_string())).collect();
        let types = format!("iface_index . ether_addr . {} : mark", family.address());
        table.map(family.named("sources"), &types, &single);
        table.map(family.named("delegated"), &format!("{types}; flags interval"), &delegated);
    }
    let taps = |nics: &mut dyn Iterator<Item = &Nic>| -> Vec<String> {
        nics.map(|nic| format!("{} : {:#010x}", key(nic), vpc.mark(nic))).collect()
    };
    let all = taps(&mut vpc.nics.iter());
    table.map("taps", "iface_index . ether_addr : mark", &all);
    let speaking = taps(&mut vpc.nics.iter().filter(|nic| nic.plan.speaks_ipv6()));
    table.map("taps6", "iface_index . ether_addr : mark", &speaking);
    let unchecked = vpc.nics.iter().filter(|nic| !nic.plan.source_dest_check);
    let unchecked: Vec<String> = unchecked.map(|nic| nic.number.to_string()).collect();
    table.set("unchecked", "iface_index", &unchecked);
}

/// Whom nobody outside may begin to speak to over IPv6: what a route leads to an egress-only gateway for (VPC User
/// Guide, "Egress-only internet gateways").
fn egress_only(vpc: &Vpc, table: &mut Table) {
    let led = vpc.plan.subnets.iter().flat_map(|subnet| vpc::egress_only(vpc.plan, subnet));
    let nets: Vec<String> = led.map(|(own, net)| format!("{own} . {net}")).collect();
    table.set("egress_only", "ipv6_addr . ipv6_addr; flags interval", &nets);
}

/// The internet gateway's translation, both ways.
fn addresses(vpc: &Vpc, table: &mut Table) {
    let pairs: Vec<(Ipv4Addr, Ipv4Addr)> = vpc.translated().collect();
    let public: Vec<String> = pairs.iter().map(|(private, public)| format!("{private} : {public}")).collect();
    table.map("public", "ipv4_addr : ipv4_addr", &public);
    let private: Vec<String> =
        pairs.iter().map(|(private, public)| format!("{public} : {private}")).collect();
    table.map("private", "ipv4_addr : ipv4_addr", &private);
    let translated: Vec<String> = pairs.iter().map(|(private, _)| private.to_string()).collect();
    table.set("translated", "ipv4_addr", &translated);
}

/// Renders the groups that this VPC's interfaces are in, and returns for each list of groups the name of what an
/// interface with it jumps to, less the direction.
fn group_sets<'a>(
    vpc: &Vpc<'a>,
    groups: &BTreeMap<&Id, &SecurityGroup>,
    table: &mut Table,
) -> BTreeMap<&'a [Id], String> {
    let used: BTreeSet<&Id> = vpc.nics.iter().flat_map(|nic| &nic.plan.groups).collect();
    let rendered: Vec<&SecurityGroup> = used.iter().filter_map(|id| groups.get(id).copied()).collect();
    let peers: BTreeSet<&Id> = rendered.iter().flat_map(|group| group.peers()).collect();
    for peer in peers {
        security_group::render_members(peer, groups.get(peer).copied(), vpc.plan, table);
    }
    for group in &rendered {
        security_group::render(group, table);
    }

    let lists: BTreeSet<&[Id]> = vpc.nics.iter().map(|nic| nic.plan.groups.as_slice()).collect();
    let mut membership = BTreeMap::new();
    for list in lists {
        let name = list_name(list);
        for direction in Direction::BOTH {
            let known = list.iter().filter(|id| groups.contains_key(id));
            let jumps = known.map(|id| format!("jump {}\n", security_group::chain_name(id, direction)));
            table.chain(format!("{name}_{}", direction.name()), "", jumps.collect::<String>());
        }
        membership.insert(list, name);
    }
    membership
}

/// The same for the same groups, so that those of others may come and go.
fn list_name(groups: &[Id]) -> String {
    let mut hash = blake3::Hasher::new();
    for id in groups {
        hash.update(id.as_bytes()).update(b" ");
    }
    format!("groups_{}", &hash.finalize().to_hex()[..32])
}

/// Which groups decide for which interface: by number where a packet comes from, by tap where it goes to. NAT gateways
/// are in none; those of peers and of other hosts have decided there, or will.
fn verdicts(vpc: &Vpc, membership: &BTreeMap<&[Id], String>, table: &mut Table) {
    let jump = |nic: &Nic, direction: Direction| {
        let name = membership.get(nic.plan.groups.as_slice())?;
        Some(format!("jump {name}_{}", direction.name()))
    };
    let nics = vpc.nics.iter();
    let mut egress: Vec<String> = nics
        .filter_map(|nic| Some(format!("{:#x} : {}", nic.number, jump(nic, Direction::Egress)?)))
        .collect();
    let passes =
        [NAT_GATEWAY, PEER, OTHER_HOST].map(|from| format!("{from:#x} : goto {}", security_group::INGRESS));
    egress.extend(passes);
    table.map("egress_of", "mark : verdict", &egress);
    let nics = vpc.nics.iter();
    let mut ingress: Vec<String> = nics
        .filter_map(|nic| Some(format!("\"{}\" : {}", nic.tap, jump(nic, Direction::Ingress)?)))
        .collect();
    let elsewhere = vpc.exits().into_iter().chain([hosts::LINK.to_owned()]);
    ingress.extend(elsewhere.map(|link| format!("\"{link}\" : goto {}", flows::ADMIT)));
    table.map("ingress_of", "ifname : verdict", &ingress);
}

/// Who sent it: marks what may pass on. A guest that is not known by an address yet speaks to its router alone, and so
/// seldom that its neighbour table can't be filled. What guests send as themselves is told first: it is most. Who asks
/// for DHCPv6 servers asks the router: it joins no group of them, which the kernel would not leave with a tap that goes.
fn sources(vpc: &Vpc, table: &mut Table) {
    table.set("asking", ASKING, &[]);
    let [peers, peers6] = Family::BOTH.map(|family| peer_sources(vpc, family));
    let [nats, nats6] = Family::BOTH.map(|family| nat_sources(vpc, family));
    let from_hosts = hosts::received();
    table.chain(
        "antispoof",
        "type filter hook prerouting priority raw; policy drop;",
        format!(
            "meta mark set iif . ether saddr . ip saddr map @sources accept
            meta nfproto ipv6 goto antispoof6
            iifname \"{GATEWAY}\" goto outsiders
            iifname \"lo\" accept
            {from_hosts}
{nats}{peers}            meta mark set iif . ether saddr . ip saddr map @delegated accept
            iif @unchecked meta mark set iif . ether saddr map @taps accept
            ip saddr 0.0.0.0 udp sport 68 udp dport 67 meta mark set iif . ether saddr map @taps accept"
        ),
    );
    let entering = match vpc.gateway_mark() {
        0 => String::new(),
        mark => format!("meta mark set {mark:#010x} "),
    };
    table.chain(
        "outsiders",
        "",
        format!(
            "icmp type redirect drop
            icmpv6 type nd-redirect drop
            ip saddr @inside drop
            ip6 saddr @inside6 drop
            ip6 saddr fe80::/10 drop
            {entering}accept"
        ),
    );
    let router = vpc::link_local(ROUTER_MAC);
    table.chain(
        "antispoof6",
        "",
        format!(
            "meta mark set iif . ether saddr . ip6 saddr map @sources6 accept
            iifname \"{GATEWAY}\" goto outsiders
            iifname \"lo\" accept
            icmpv6 type nd-redirect drop
            {from_hosts}
{nats6}{peers6}            meta mark set iif . ether saddr . ip6 saddr map @delegated6 accept
            icmpv6 type {{ nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert }} goto link6
            ip6 saddr fe80::/10 ip6 daddr {DHCP_SERVERS} udp dport 547 ip6 daddr set {router} goto link6
            ip6 saddr fe80::/10 drop
            iif @unchecked meta mark set iif . ether saddr map @taps6 accept
            drop"
        ),
    );
    table.chain(
        "link6",
        "",
        format!("{TOO_OFTEN} drop\nmeta mark set iif . ether saddr map @taps6 accept\ndrop"),
    );
}

/// What guests may ask of the router by ARP: as themselves, or as nobody yet; as others where they may send for others,
/// but seldom, since the router remembers who asked.
fn senders(vpc: &Vpc) -> Table {
    let mut table = Table::new(ARP_TABLE);
    let key = |nic: &Nic| format!("{} . {}", nic.number, mac(nic.plan.mac));
    let own = vpc.nics.iter().flat_map(|nic| {
        nic.plan.addresses.iter().map(move |own| format!("{} . {}", key(nic), own.private_ip))
    });
    table.set("own", "iface_index . ether_addr . ipv4_addr", &own.collect::<Vec<_>>());
    table.set("cards", "iface_index . ether_addr", &vpc.nics.iter().map(key).collect::<Vec<_>>());
    let others = vpc.nics.iter().filter(|nic| !nic.plan.source_dest_check || !nic.plan.prefixes.is_empty());
    table.set("others", "iface_index . ether_addr", &others.map(key).collect::<Vec<_>>());
    table.set("asking", ASKING, &[]);
    table.chain(
        "senders",
        "type filter hook input priority filter; policy drop;",
        format!(
            "iif . arp saddr ether . arp saddr ip @own accept
            arp saddr ip 0.0.0.0 iif . arp saddr ether @cards accept
            {TOO_OFTEN} drop
            iif . arp saddr ether @others accept"
        ),
    );
    table
}

/// What is for the router itself: the services.
fn services(vpc: &Vpc, tracked: u32, table: &mut Table) {
    let resolvers: Vec<String> = vpc.resolvers().iter().map(Ipv4Addr::to_string).collect();
    let (resolvers, beyond) = (resolvers.join(", "), flows::beyond_for_services(tracked));
    table.chain(
        "services",
        "type filter hook input priority filter; policy drop;",
        format!(
            "iifname \"lo\" accept
            iifname {{ \"{GATEWAY}\", \"{HOSTS}\" }} drop
            meta mark & {NUMBER_MASK:#x} {{ {NAT_GATEWAY:#x}, {PEER:#x} }} drop
            {beyond} drop
            udp dport 67 accept
            ip daddr {METADATA} tcp dport 80 accept
            ip daddr {TIME} udp dport 123 accept
            ip daddr {{ {resolvers} }} meta l4proto . th dport {{ udp . 53, tcp . 53 }} accept
            icmpv6 type {{ nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert }} accept
            ip6 daddr fe80::/10 udp dport 547 accept
            ip6 daddr {METADATA6} tcp dport 80 accept
            ip6 daddr {TIME6} udp dport 123 accept
            ip6 daddr {RESOLVER6} meta l4proto . th dport {{ udp . 53, tcp . 53 }} accept"
        ),
    );
}

/// What the router says by itself. It shows nobody another one, as the kernel does over IPv6 where a packet leaves by the
/// link that it came by: all are behind it.
fn own_words(table: &mut Table) {
    let hook = "type filter hook output priority filter; policy accept;";
    table.chain("own_words", hook, "icmpv6 type nd-redirect drop");
}

/// What goes on. ACLs are asked for every packet, all else for the first one of a flow: one that has begun is on the
/// kernel's list (confirmed), answered or not. What an instance forwards, here or on another host, is on it since it was
/// led there, and is asked for until it is answered. What neighbours tell each other (ICMPv6 133 to 137) is of one link
/// and goes nowhere.
fn forward(vpc: &Vpc, has_acls: bool, table: &mut Table) {
    let shut = if vpc.plan.internet_gateway { "" } else { "drop\n" };
    let [barred_in, barred_out] = match Barred::new(vpc).render(table) {
        true => [public_access::IN, public_access::OUT].map(|chain| format!("jump {chain}\n")),
        false => Default::default(),
    };
    table.chain(
        "from_gateway",
        "",
        format!(
            "meta nfproto ipv4 ct status ! snat,dnat drop
            ip daddr != @translated drop
            ip6 daddr != @inside6 drop
            ip6 daddr . ip6 saddr @egress_only drop
{barred_in}{shut}            goto ingress"
        ),
    );
    table.chain(
        "to_gateway",
        "",
        format!(
            "{barred_out}ip saddr != @translated drop
            ip daddr {{ 127.0.0.0/8, 224.0.0.0/3 }} drop
            ip6 saddr != @inside6 drop"
        ),
    );
    table.chain(
        "begin",
        "",
        format!(
            "iif != @unchecked iifname != \"{HOSTS}\" ct status confirmed accept
            icmpv6 type 133-137 drop
            iifname \"{GATEWAY}\" goto from_gateway
            oifname \"{GATEWAY}\" jump to_gateway
            iifname \"{HOSTS}\" oifname \"{HOSTS}\" drop
            meta mark & {NUMBER_MASK:#x} vmap @egress_of
            drop"
        ),
    );
    table.chain(
        security_group::INGRESS,
        "",
        format!("oifname \"{GATEWAY}\" goto {}\noifname vmap @ingress_of\ndrop", flows::ADMIT),
    );
    let acls = if has_acls { "jump acls\n" } else { "" };
    table.chain(
        "forward",
        "type filter hook forward priority filter; policy drop;",
        format!(
            "{acls}{}ct state vmap {{ established : accept, related : accept, new : goto begin, untracked : goto begin }}",
            checked_targets(vpc)
        ),
    );
}

/// What is changed on the way: addresses at the gateway, marks towards other hosts. Chains that change nothing would
/// cost every packet.
fn translation(vpc: &Vpc, table: &mut Table) {
    if vpc.plan.number.is_some() {
        table.chain(
            "other_hosts",
            "type filter hook postrouting priority filter; policy accept;",
            hosts::sent(),
        );
    }
    if vpc.translated().next().is_some() {
        table.chain(
            "gateway_in",
            "type nat hook prerouting priority dstnat; policy accept;",
            format!("iifname \"{GATEWAY}\" dnat ip to ip daddr map @private"),
        );
        table.chain(
            "gateway_out",
            "type nat hook postrouting priority srcnat; policy accept;",
            format!("oifname \"{GATEWAY}\" snat ip to ip saddr map @public"),
        );
    }
}

/// What comes from NAT gateways: their own, and what they send back to those that they speak for. Of IPv6 it is from those
/// who have IPv4 alone, and to nobody of them.
fn nat_sources(vpc: &Vpc, family: Family) -> String {
    let mut out = String::new();
    let from = match family {
        Family::V4 => String::new(),
        Family::V6 => format!("ip6 saddr {0} ip6 daddr != {0} ", nat64::PREFIX),
    };
    for nat in &vpc.plan.nat_gateways {
        let (link, mark) = (nat_link(nat), vpc.nat_mark(nat));
        let _ = writeln!(out, "\t\tiifname \"{link}\" {from}meta mark set {mark:#010x} accept");
    }
    out
}

/// What comes from peers: theirs, to ours. Peering leads nowhere else (VPC Peering Guide, "How VPC peering connections
/// work"). What goes on to another host is not tracked: what answers it takes another way.
fn peer_sources(vpc: &Vpc, family: Family) -> String {
    let mut out = String::new();
    let (ip, inside) = (family.ip(), family.named("inside"));
    for (peering, peer) in &vpc.peers {
        let theirs = elements(peer.ranges(), family);
        if theirs.is_empty() {
            continue;
        }
        let from = format!("iifname \"{}\" {ip} saddr {{ {} }}", peering_link(peering), theirs.join(", "));
        let _ = writeln!(out, "\t\t{from} {ip} daddr @{} notrack", family.named("elsewhere"));
        let _ = writeln!(
            out,
            "\t\t{from} {ip} saddr != @{inside} {ip} daddr @{inside} meta mark set {PEER:#x} accept"
        );
    }
    out
}

/// Drops what a route leads to an interface that takes only what is for it.
fn checked_targets(vpc: &Vpc) -> String {
    let mut out = String::new();
    for nic in vpc.checked_targets() {
        for family in Family::BOTH {
            let own = elements(nic.plan.networks(), family);
            let is_others = match own.is_empty() {
                true => format!("meta nfproto {}", family.protocol()),
                false => format!("{} daddr != {{ {} }}", family.ip(), own.join(", ")),
            };
            let _ = writeln!(out, "\t\toifname \"{}\" {is_others} drop", nic.tap);
        }
    }
    out
}

fn mac(octets: [u8; 6]) -> String {
    octets.map(|octet| format!("{octet:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::super::index::Index;
    use super::*;
    use datapath::examples::{self, id, subnet};
    use datapath::{Interface, Peer, Peering, Plan, Protocol, Rule, Target};
    use model::Kind;
    use std::net::IpAddr;

    fn rule(protocol: Protocol, cidr: &str) -> Rule {
        Rule { protocol, peer: Peer::Cidr(cidr.parse().unwrap()) }
    }

    fn from_group(protocol: Protocol, group: u64) -> Rule {
        Rule { protocol, peer: Peer::Group(id(Kind::SecurityGroup, group)) }
    }

    fn group(number: u64, ingress: Vec<Rule>, egress: Vec<Rule>) -> SecurityGroup {
        SecurityGroup {
            group_id: id(Kind::SecurityGroup, number),
            vpc_id: id(Kind::Vpc, 1),
            ingress,
            egress,
            members: [(
                id(Kind::Vpc, 1),
                [[10, 0, 0, 5], [10, 0, 3, 9]].map(|own| IpAddr::from(own).into()).into(),
            )]
            .into(),
        }
    }

    fn interface(number: u64, groups: &[u64]) -> Interface {
        Interface {
            groups: groups.iter().map(|group| id(Kind::SecurityGroup, *group)).collect(),
            ..examples::interface(number)
        }
    }

    fn peering(number: u64, peer: u64) -> Peering {
        let peering_id = id(Kind::VpcPeeringConnection, number);
        Peering { peering_id, peer_vpc_id: id(Kind::Vpc, peer), resolves_names: false }
    }

    fn render(plan: &datapath::Vpc, interfaces: &[Interface], groups: &[SecurityGroup]) -> String {
        let peer = datapath::Vpc {
            cidrs: vec!["10.7.0.0/16".parse().unwrap()],
            peerings: vec![peering(1, 1)],
            ..examples::vpc(7)
        };
        let whole = Plan {
            vpcs: vec![plan.clone(), peer],
            interfaces: interfaces.to_vec(),
            groups: groups.to_vec(),
            elsewhere: Vec::new(),
            public_pools: Vec::new(),
        };
        let index = Index::new(&whole);
        super::vpc(&Vpc::new(plan, &index, &BTreeMap::new()).unwrap(), &index.groups, 262_144)
            .iter()
            .map(Table::whole)
            .collect()
    }

    fn plan() -> datapath::Vpc {
        datapath::Vpc { subnets: vec![subnet(1, "10.0.0.0/24")], ..examples::vpc(1) }
    }

    #[test]
    fn a_peer() {
        // The second one's other VPC is not here.
        let peerings = vec![peering(1, 7), peering(2, 8)];
        insta::assert_snapshot!(render(&datapath::Vpc { peerings, ..plan() }, &[], &[]));
    }

    #[test]
    fn an_empty_vpc() {
        insta::assert_snapshot!(render(&plan(), &[], &[]));
    }

    #[test]
    fn every_kind_of_rule() {
        use Protocol::{All, Icmp, Number, Tcp, Udp};
        let everything_out = || vec![rule(All, "0.0.0.0/0")];
        let web = group(
            1,
            vec![
                rule(Tcp { from: 22, to: 22 }, "203.0.113.7/32"),
                rule(Tcp { from: 80, to: 443 }, "0.0.0.0/0"),
                // Inside another rule, and across one.
                rule(Tcp { from: 443, to: 443 }, "10.0.0.0/8"),
                rule(Tcp { from: 400, to: 500 }, "10.0.0.0/8"),
                rule(Udp { from: 53, to: 53 }, "10.0.0.0/8"),
                rule(Icmp { kind: Some(8), code: None }, "0.0.0.0/0"),
                rule(Icmp { kind: None, code: None }, "10.0.0.0/8"),
                rule(Number(47), "10.1.0.0/16"),
                rule(All, "10.2.0.0/16"),
                from_group(All, 1),
                from_group(Tcp { from: 5432, to: 5432 }, 3),
                from_group(Udp { from: 5000, to: 5999 }, 3),
                // Nobody knows this group here: no member.
                from_group(Number(50), 9),
            ],
            everything_out(),
        );
        let shut = group(2, vec![], vec![rule(Tcp { from: 443, to: 443 }, "10.0.0.0/8")]);
        let database = group(3, vec![], everything_out());
        let unused = group(4, vec![rule(All, "0.0.0.0/0")], everything_out());
        let mut public = interface(5, &[1]);
        public.addresses[0].public_ip = Some(Ipv4Addr::new(198, 18, 0, 5));
        let mut router = interface(6, &[1, 2]);
        router.source_dest_check = false;
        let mut brief = interface(8, &[]);
        brief.tracking.tcp_established = Some(350);
        let interfaces = [public, router, interface(7, &[1]), brief];
        insta::assert_snapshot!(render(&plan(), &interfaces, &[web, shut, database, unused]));
    }

    #[test]
    fn a_gateway_with_routes_of_its_own() {
        let mut vpc = plan();
        let table_id = id(Kind::RouteTable, 9);
        let route = datapath::Route {
            destination: "10.0.0.0/24".parse().unwrap(),
            target: Target::Interface(id(Kind::NetworkInterface, 5)),
        };
        vpc.edge_route_table_id = Some(table_id.clone());
        vpc.route_tables.insert(table_id, datapath::RouteTable { routes: vec![route] });
        let public = |number: u64| {
            let mut interface = interface(number, &[]);
            interface.addresses[0].public_ip = Some(Ipv4Addr::new(198, 18, 0, number as u8));
            interface
        };
        let appliance = Interface { source_dest_check: false, ..public(5) };
        insta::assert_snapshot!(render(&vpc, &[appliance, public(6), interface(7, &[])], &[]));
    }

    #[test]
    fn ipv6() {
        let mut vpc = plan();
        vpc.ipv6_cidrs = vec!["fd12:3456:7800::/56".parse().unwrap()];
        vpc.subnets[0].ipv6_cidr = Some("fd12:3456:7800::/64".parse().unwrap());
        let table = vpc.route_tables.values_mut().next().unwrap();
        table.routes[1].target = Target::EgressOnlyInternetGateway;
        let six = "fd12:3456:7800:1::/64";
        let web = group(
            1,
            vec![
                rule(Protocol::Tcp { from: 80, to: 80 }, six),
                rule(Protocol::Icmpv6 { kind: Some(128), code: None }, "::/0"),
                rule(Protocol::Tcp { from: 80, to: 80 }, "10.0.0.0/8"),
                from_group(Protocol::All, 1),
            ],
            vec![rule(Protocol::All, "0.0.0.0/0"), rule(Protocol::All, "::/0")],
        );
        let shut = group(2, vec![rule(Protocol::All, "::/0")], vec![rule(Protocol::All, "0.0.0.0/0")]);
        let mut speaks = interface(5, &[1]);
        speaks.ipv6_addresses = vec!["fd12:3456:7800::a".parse().unwrap()];
        speaks.prefixes = vec!["fd12:3456:7800:0:1::/80".parse().unwrap()];
        insta::assert_snapshot!(render(&vpc, &[speaks, interface(6, &[2])], &[web, shut]));
    }

    #[test]
    fn the_host() {
        let pool = "198.18.0.0/24".parse().unwrap();
        let public = [Ipv4Addr::new(198, 18, 0, 5)].into();
        let cidrs = ["10.0.0.0/16", "10.0.0.0/8", "172.31.0.0/16"].map(|cidr| cidr.parse().unwrap()).into();
        let hosts = [Ipv4Addr::new(203, 0, 113, 9)].into();
        let pools = [("192.168.50.0/24", Some("eth0")), ("203.0.113.128/25", None)];
        let pools = pools.map(|(cidr, interface)| PublicPool {
            cidr: cidr.parse().unwrap(),
            interface: interface.map(str::to_owned),
        });
        let host = |uplink, api_port, pools: &[PublicPool]| {
            super::host(Host {
                table: "inet cumulet_a",
                links: "cg12ab*",
                pool,
                pools,
                uplink,
                public: &public,
                cidrs: &cidrs,
                ipv6_cidrs: &["fd12:3400::/56".parse().unwrap()],
                hosts: &hosts,
                api_port,
            })
            .whole()
        };
        insta::assert_snapshot!(host(None, None, &pools));
        let other = host(Some("eth7"), Some(8773), &[]);
        assert!(other.contains("oifname \"eth7\" ip saddr 198.18.0.0/24"));
        assert!(other.contains("\t\ttcp dport 8773 accept\n\t\tdrop"));
    }
}
