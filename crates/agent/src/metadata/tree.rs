//! What the metadata service says of an instance, as a tree of paths
//! (EC2 User Guide, "Instance metadata categories", "Instance identity documents").
//!
//! Invariant: listings are made from the leaves, so that what a listing names is always answered; what an
//! instance does not have is neither listed nor answered.

use crate::network::Guest;
use agent_api::{EfaOnlyInterface, Interface};
use model::Id;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

/// The versions that EC2 names, each of which answers alike.
pub(crate) const VERSIONS: &[&str] = &[
    "1.0",
    "2007-01-19",
    "2007-03-01",
    "2007-08-29",
    "2007-10-10",
    "2007-12-15",
    "2008-02-01",
    "2008-09-01",
    "2009-04-04",
    "2011-01-01",
    "2011-05-01",
    "2012-01-12",
    "2014-02-25",
    "2014-11-05",
    "2015-10-20",
    "2016-04-19",
    "2016-06-30",
    "2016-09-02",
    "2018-03-28",
    "2018-08-17",
    "2018-09-24",
    "2019-10-01",
    "2020-10-27",
    "2021-01-03",
    "2021-03-23",
    "2021-07-15",
    "2022-09-24",
    "2024-04-11",
    "latest",
];

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Leaf {
    Text(String),
    UserData,
    Identity(IdentityPart),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum IdentityPart {
    Document,
    Signature,
    /// `pkcs7` and `rsa2048`: AWS's differ in the key; ours are both RSA-2048.
    Pkcs7,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Found {
    Leaf(Leaf),
    /// Names, one a line; directories end with a slash.
    Listing(String),
}

/// What is at a path: `/`, `/latest`, `/2021-03-23/meta-data/placement/`. Slashes at the end and doubled ones
/// make no difference.
pub(crate) fn find(guest: &Guest, path: &str) -> Option<Found> {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let Some((version, segments)) = segments.split_first() else {
        return Some(Found::Listing(VERSIONS.join("\n")));
    };
    if !VERSIONS.contains(version) {
        return None;
    }
    let leaves = leaves(guest);
    let wanted = segments.join("/");
    if let Some((_, leaf)) = leaves.iter().find(|(path, _)| *path == wanted) {
        return Some(Found::Leaf(leaf.clone()));
    }
    if segments.is_empty() {
        // The one level where EC2 leaves the slashes out.
        let names: BTreeSet<&str> = leaves.iter().filter_map(|(path, _)| path.split('/').next()).collect();
        return Some(Found::Listing(names.into_iter().collect::<Vec<_>>().join("\n")));
    }
    let below = format!("{wanted}/");
    let names: BTreeSet<&str> = leaves
        .iter()
        .filter_map(|(path, _)| path.strip_prefix(&below))
        .map(|rest| rest.find('/').map_or(rest, |slash| &rest[..=slash]))
        .collect();
    if names.is_empty() {
        return None;
    }
    if wanted == "meta-data/public-keys" {
        let (name, _) = guest.instance.metadata.public_key.as_ref()?;
        return Some(Found::Listing(format!("0={name}")));
    }
    Some(Found::Listing(names.into_iter().collect::<Vec<_>>().join("\n")))
}

/// Every leaf of the instance's tree with its path below the version.
fn leaves(guest: &Guest) -> Vec<(String, Leaf)> {
    let mut tree = Tree(Vec::with_capacity(80));
    instance(&mut tree, guest);
    block_devices(&mut tree, guest);
    placement(&mut tree, guest);
    for interface in &guest.instance.interfaces {
        network_interface(&mut tree, guest, interface);
    }
    for EfaOnlyInterface { interface_id, vpc_id, subnet_id, mac, groups, device_index, network_card } in
        &guest.instance.efa_only
    {
        let attached = Attached {
            interface_id,
            vpc_id,
            subnet_id,
            mac,
            groups,
            device_index: *device_index,
            network_card: *network_card,
        };
        attached.put(&mut tree, guest);
    }
    tags(&mut tree, guest);
    for (name, part) in [
        ("document", IdentityPart::Document),
        ("pkcs7", IdentityPart::Pkcs7),
        ("rsa2048", IdentityPart::Pkcs7),
        ("signature", IdentityPart::Signature),
    ] {
        tree.0.push((format!("dynamic/instance-identity/{name}"), Leaf::Identity(part)));
    }
    tree.0.push(("dynamic/fws/instance-monitoring".into(), Leaf::Text("disabled".into())));
    if guest.instance.metadata.user_data.is_some() {
        tree.0.push(("user-data".into(), Leaf::UserData));
    }
    tree.0
}

struct Tree(Vec<(String, Leaf)>);

impl Tree {
    /// A leaf below `meta-data/`.
    fn put(&mut self, path: &str, value: impl ToString) {
        self.0.push((format!("meta-data/{path}"), Leaf::Text(value.to_string())));
    }

    fn put_some(&mut self, path: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.put(path, value);
        }
    }
}

fn instance(tree: &mut Tree, guest: &Guest) {
    let instance = &guest.instance;
    let metadata = &instance.metadata;
    tree.put("ami-id", &metadata.ami_id);
    tree.put("ami-launch-index", metadata.ami_launch_index);
    tree.put("ami-manifest-path", "(unknown)");
    tree.put("events/maintenance/history", "[]");
    tree.put("events/maintenance/scheduled", "[]");
    tree.put("hibernation/configured", "false");
    tree.put("hostname", &metadata.local_hostname);
    tree.put("instance-action", "none");
    tree.put("instance-id", &instance.instance_id);
    tree.put("instance-life-cycle", "on-demand");
    tree.put("instance-type", &instance.machine.instance_type);
    tree.put("local-hostname", &metadata.local_hostname);
    if let Some(primary) = primary(guest) {
        let own = primary.network.primary();
        tree.put_some("local-ipv4", own.map(|own| own.private_ip));
        tree.put("mac", mac(&primary.network.mac));
        tree.put_some("public-ipv4", own.and_then(|own| own.public_ip));
        tree.put_some("ipv6", primary.network.ipv6_addresses.first());
    }
    tree.put("metrics/vhostmd", "<?xml version=\"1.0\" encoding=\"UTF-8\"?>");
    tree.put("profile", "default-hvm");
    tree.put_some("public-hostname", metadata.public_hostname.as_ref());
    tree.put_some("public-keys/0/openssh-key", metadata.public_key.as_ref().map(|(_, key)| key));
    tree.put("reservation-id", &metadata.reservation_id);
    tree.put("security-groups", metadata.security_group_names.join("\n"));
    tree.put("services/domain", "amazonaws.com");
    tree.put("services/partition", "aws");
    tree.put("system", "nitro");
}

fn block_devices(tree: &mut Tree, guest: &Guest) {
    let (roots, others): (Vec<_>, Vec<_>) = guest.instance.disks.iter().partition(|disk| disk.root);
    if let Some(root) = roots.first() {
        tree.put("block-device-mapping/ami", &root.device_name);
        tree.put("block-device-mapping/root", &root.device_name);
    }
    for (index, disk) in others.iter().enumerate() {
        let name = disk.device_name.strip_prefix("/dev/").unwrap_or(&disk.device_name);
        tree.put(&format!("block-device-mapping/ebs{}", index + 1), name);
    }
}

fn placement(tree: &mut Tree, guest: &Guest) {
    let metadata = &guest.instance.metadata;
    tree.put("placement/availability-zone", &metadata.availability_zone);
    tree.put("placement/availability-zone-id", &metadata.availability_zone_id);
    tree.put_some("placement/group-name", metadata.placement_group.as_ref());
    tree.put_some("placement/host-id", metadata.host_id.as_ref());
    tree.put_some("placement/partition-number", metadata.partition_number);
    tree.put("placement/region", &metadata.region);
}

/// What is said of every interface, by where it is.
struct Attached<'a> {
    interface_id: &'a Id,
    vpc_id: &'a Id,
    subnet_id: &'a Id,
    mac: &'a [u8; 6],
    groups: &'a [Id],
    device_index: u8,
    network_card: u8,
}

impl Attached<'_> {
    fn put(&self, tree: &mut Tree, guest: &Guest) {
        let vpc = Some(&guest.vpc).filter(|vpc| vpc.network.vpc_id == *self.vpc_id);
        let subnet = vpc.and_then(|vpc| vpc.network.subnets.iter().find(|s| s.subnet_id == *self.subnet_id));
        let mut put = |name: &str, value: String| tree.put(&of_mac(self.mac, name), value);
        put("device-number", self.device_index.to_string());
        put("interface-id", self.interface_id.to_string());
        put("mac", mac(self.mac));
        put("network-card-index", self.network_card.to_string());
        put("owner-id", guest.instance.metadata.account_id.clone());
        put("security-group-ids", lines(self.groups));
        put("subnet-id", self.subnet_id.to_string());
        if let Some(subnet) = subnet {
            if let Some(cidr) = subnet.cidr {
                put("subnet-ipv4-cidr-block", cidr.to_string());
            }
            if let Some(cidr) = subnet.ipv6_cidr {
                put("subnet-ipv6-cidr-blocks", cidr.to_string());
            }
        }
        put("vpc-id", self.vpc_id.to_string());
        if let Some(vpc) = vpc {
            if let Some(cidr) = vpc.network.cidrs.first() {
                put("vpc-ipv4-cidr-block", cidr.to_string());
            }
            put("vpc-ipv4-cidr-blocks", lines(&vpc.network.cidrs));
            if !vpc.network.ipv6_cidrs.is_empty() {
                put("vpc-ipv6-cidr-blocks", lines(&vpc.network.ipv6_cidrs));
            }
        }
    }
}

fn of_mac(of: &[u8; 6], name: &str) -> String {
    format!("network/interfaces/macs/{}/{name}", mac(of))
}

fn network_interface(tree: &mut Tree, guest: &Guest, interface: &Interface) {
    let metadata = &guest.instance.metadata;
    let datapath::Interface { interface_id, vpc_id, subnet_id, mac, groups, .. } = &interface.network;
    let (device_index, network_card) = (interface.device_index, interface.network_card());
    Attached { interface_id, vpc_id, subnet_id, mac, groups, device_index, network_card }.put(tree, guest);
    let mut put = |name: &str, value: String| tree.put(&of_mac(mac, name), value);
    put("local-hostname", local_hostname(guest, interface));
    let addresses = &interface.network.addresses;
    let private: Vec<Ipv4Addr> = addresses.iter().map(|address| address.private_ip).collect();
    if !private.is_empty() {
        put("local-ipv4s", lines(&private));
    }
    let public: Vec<Ipv4Addr> = addresses.iter().filter_map(|address| address.public_ip).collect();
    for address in addresses {
        if let Some(public_ip) = address.public_ip {
            put(&format!("ipv4-associations/{public_ip}"), address.private_ip.to_string());
        }
    }
    if !public.is_empty() {
        put("public-ipv4s", lines(&public));
    }
    if let Some(name) = metadata.public_hostname.as_ref().filter(|_| interface.is_primary()) {
        put("public-hostname", name.clone());
    }
    if !interface.network.ipv6_addresses.is_empty() {
        put("ipv6s", lines(&interface.network.ipv6_addresses));
    }
    for (name, is_ipv4) in [("ipv4-prefix", true), ("ipv6-prefix", false)] {
        let of_family = interface.network.prefixes.iter().filter(|prefix| prefix.addr().is_ipv4() == is_ipv4);
        let prefixes: Vec<_> = of_family.collect();
        if !prefixes.is_empty() {
            put(name, lines(&prefixes));
        }
    }
    if interface.is_primary() {
        put("security-groups", metadata.security_group_names.join("\n"));
    }
}

fn tags(tree: &mut Tree, guest: &Guest) {
    if !guest.instance.metadata_options.instance_tags {
        return;
    }
    for (key, value) in &guest.instance.metadata.tags {
        if is_path_segment(key) {
            tree.put(&format!("tags/instance/{key}"), value);
        }
    }
}

/// EC2 allows these characters in tag keys where instance metadata tags are on; a key with others could not be
/// asked for.
fn is_path_segment(key: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "+-=.,_:@".contains(c);
    !key.is_empty() && key.chars().all(is_allowed) && !matches!(key, "." | ".." | "_index")
}

pub(crate) fn primary(guest: &Guest) -> Option<&Interface> {
    guest.instance.interfaces.iter().find(|interface| interface.is_primary())
}

fn local_hostname(guest: &Guest, interface: &Interface) -> String {
    match interface.network.primary().map(|own| own.private_ip.octets()) {
        Some([a, b, c, d]) if !interface.is_primary() => {
            format!("ip-{a}-{b}-{c}-{d}.{}", guest.vpc.dns_domain)
        }
        _ => guest.instance.metadata.local_hostname.clone(),
    }
}

fn mac(octets: &[u8; 6]) -> String {
    let mut text = String::with_capacity(17);
    for (index, byte) in octets.iter().enumerate() {
        let _ = write!(text, "{}{byte:02x}", if index == 0 { "" } else { ":" });
    }
    text
}

fn lines<T: ToString>(values: &[T]) -> String {
    values.iter().map(T::to_string).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn guest(change: impl FnOnce(&mut agent_api::Instance)) -> Guest {
        let mut instance = examples::instance(1);
        change(&mut instance);
        Guest::new(Arc::new(instance), Arc::new(examples::vpc()), 0)
    }

    fn text(guest: &Guest, path: &str) -> Option<String> {
        match find(guest, path)? {
            Found::Leaf(Leaf::Text(text)) | Found::Listing(text) => Some(text),
            Found::Leaf(leaf) => Some(format!("{leaf:?}")),
        }
    }

    /// Follows every name of every listing, as cloud-init does.
    fn walk(guest: &Guest, path: &str, out: &mut String) {
        let Some(Found::Listing(listing)) = find(guest, path) else { panic!("{path} is no listing") };
        for name in listing.lines() {
            let key = name.split_once('=').map(|(index, _)| format!("{index}/"));
            let name = key.as_deref().filter(|_| path.ends_with("public-keys/")).unwrap_or(name);
            let below = format!("{path}{name}");
            if name.ends_with('/') {
                walk(guest, &below, out);
            } else {
                let found = text(guest, &below).unwrap_or_else(|| panic!("{below} is listed, not answered"));
                writeln!(out, "{below} {}", found.replace('\n', " | ")).unwrap();
            }
        }
    }

    #[test]
    fn all_that_is_listed_is_answered() {
        let guest = guest(|instance| {
            instance.metadata_options.instance_tags = true;
            instance.metadata.tags.insert("no/path".into(), "x".into());
            instance.metadata.tags.insert("two words".into(), "x".into());
            instance.disks.push(agent_api::Disk {
                volume_id: examples::volume(2).volume_id,
                device_name: "/dev/sdf".into(),
                root: false,
                limits: None,
                detach: None,
            });
        });
        let mut out = String::new();
        walk(&guest, "/2021-03-23/meta-data/", &mut out);
        walk(&guest, "/latest/dynamic/", &mut out);
        insta::assert_snapshot!(out);
    }

    #[test]
    fn an_interface_tells_all_that_is_its_own() {
        let guest = guest(|instance| {
            let network = &mut instance.interfaces[0].network;
            network.ipv6_addresses = ["fd00::5", "fd00::4"].map(|own| own.parse().unwrap()).into();
            network.prefixes =
                ["172.31.16.32/28", "fd00:1:2:3:4::/80"].map(|own| own.parse().unwrap()).into();
        });
        let of_interface = "/latest/meta-data/network/interfaces/macs/02:00:ac:1f:10:0b";
        for (name, value) in [
            ("ipv6s", "fd00::5\nfd00::4"),
            ("ipv4-prefix", "172.31.16.32/28"),
            ("ipv6-prefix", "fd00:1:2:3:4::/80"),
        ] {
            assert_eq!(text(&guest, &format!("{of_interface}/{name}")).unwrap(), value);
        }
        assert_eq!(text(&guest, "/latest/meta-data/ipv6").unwrap(), "fd00::5");
    }

    #[test]
    fn what_has_no_ethernet_has_no_address_either() {
        let guest = guest(|instance| {
            let first = &instance.interfaces[0].network;
            instance.efa_only.push(agent_api::EfaOnlyInterface {
                interface_id: examples::id(model::Kind::NetworkInterface, 9),
                vpc_id: first.vpc_id.clone(),
                subnet_id: first.subnet_id.clone(),
                mac: [2, 0, 0, 0, 0, 9],
                groups: first.groups.clone(),
                device_index: 0,
                network_card: 1,
            });
        });
        let macs = "/latest/meta-data/network/interfaces/macs/";
        let listing = text(&guest, &format!("{macs}02:00:00:00:00:09/")).unwrap();
        assert!(
            listing.contains("security-group-ids") && listing.contains("subnet-ipv4-cidr-block"),
            "{listing}"
        );
        assert!(!listing.contains("local-") && !listing.contains("security-groups"), "{listing}");
        let card = |mac: &str| text(&guest, &format!("{macs}{mac}/network-card-index")).unwrap();
        assert_eq!([card("02:00:00:00:00:09"), card("02:00:ac:1f:10:0b")], ["1", "0"]);
        assert_eq!(text(&guest, "/latest/meta-data/mac").unwrap(), "02:00:ac:1f:10:0b");
    }

    #[test]
    fn nothing_is_told_of_ipv4_where_there_is_none() {
        let (mut instance, mut vpc) = (examples::instance(1), examples::vpc());
        let network = &mut instance.interfaces[0].network;
        network.addresses.clear();
        network.ipv6_addresses = vec!["fd00::5".parse().unwrap()];
        vpc.network.subnets[0].cidr = None;
        let guest = Guest::new(Arc::new(instance), Arc::new(vpc), 0);
        let mut out = String::new();
        walk(&guest, "/latest/meta-data/", &mut out);
        assert!(out.contains("/ipv6 fd00::5\n") && out.contains("/ipv6s fd00::5\n"), "{out}");
        for name in ["local-ipv4", "public-ipv4", "subnet-ipv4", "ipv4-associations"] {
            assert!(!out.contains(name), "{name} in {out}");
        }
    }

    #[test]
    fn listings_are_in_ec2s_form() {
        let guest = guest(|_| {});
        assert_eq!(text(&guest, "/latest").unwrap(), "dynamic\nmeta-data\nuser-data");
        assert_eq!(text(&guest, "/latest/").unwrap(), "dynamic\nmeta-data\nuser-data");
        assert!(text(&guest, "/").unwrap().starts_with("1.0\n2007-01-19\n"));
        assert!(text(&guest, "").unwrap().ends_with("\nlatest"));
        assert_eq!(text(&guest, "/latest/meta-data/public-keys/").unwrap(), "0=my-key");
        assert_eq!(text(&guest, "/latest/meta-data/public-keys/0").unwrap(), "openssh-key");
        assert_eq!(text(&guest, "/latest/meta-data/network").unwrap(), "interfaces/");
        assert_eq!(text(&guest, "//latest//meta-data/mac").unwrap(), "02:00:ac:1f:10:0b");
    }

    #[test]
    fn what_an_instance_has_not_is_not_there() {
        let guest = guest(|instance| {
            instance.metadata.public_key = None;
            instance.metadata.user_data = None;
            instance.interfaces[0].network.addresses[0].public_ip = None;
            instance.metadata.public_hostname = None;
        });
        for path in [
            "/latest/user-data",
            "/latest/meta-data/public-keys/",
            "/latest/meta-data/public-ipv4",
            "/latest/meta-data/tags/",
            "/latest/meta-data/tags/instance/Name",
            "/latest/meta-data/events/recommendations/rebalance",
            "/latest/meta-data/iam/",
            "/latest/meta-data/placement/group-name",
            "/2000-01-01/meta-data/",
            "/latest/meta-dat",
            "/latest/meta-data/inst",
            "/meta-data/instance-id",
        ] {
            assert_eq!(find(&guest, path), None, "{path}");
        }
        assert_eq!(text(&guest, "/latest").unwrap(), "dynamic\nmeta-data");
        let listing = text(&guest, "/latest/meta-data/").unwrap();
        assert!(!listing.contains("public"), "{listing}");
    }

    proptest! {
        #[test]
        fn any_path_is_answered_or_not_without_panic(path in ".{0,200}", tail in "[a-z0-9/:=.-]{0,60}") {
            let guest = guest(|_| {});
            find(&guest, &path);
            find(&guest, &format!("/latest/meta-data/{tail}"));
        }
    }
}
