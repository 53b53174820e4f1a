//! Elastic network interfaces.

use crate::attachment::AttachmentState;
use crate::engine::table::{Record, Values};
use crate::engine::{Tables, Tags, Tx, filter};
use crate::subnet::Subnet;
use crate::{address as elastic, public_address};
use ipnet::{IpNet, Ipv4Net};
use model::{AccountId, Error, Id, Kind, Result, Timestamp};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::net::{IpAddr, Ipv4Addr};

pub mod address;
pub mod attach;
pub mod create;
pub mod describe;
pub mod groups;
pub mod ipv6;
pub mod modify;
pub mod permission;
pub mod public_name;
pub mod queues;
pub mod tracking;
pub mod trunk;

pub use address::Asked;
pub use ipv6::{AskedIpv6, Ipv6};
pub use public_name::PublicNameType;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkInterface {
    pub interface_id: Id,
    pub owner: AccountId,
    pub vpc_id: Id,
    pub subnet_id: Id,
    pub description: Box<str>,
    pub mac: [u8; 6],
    #[serde(default)]
    pub purpose: Purpose,
    /// The primary one, then the secondary ones; none in a subnet of IPv6 alone.
    pub addresses: SmallVec<[PrivateAddress; 1]>,
    /// Of /28, delegated to it.
    #[serde(default)]
    pub prefixes: Box<[Ipv4Net]>,
    #[serde(default)]
    pub ipv6: Ipv6,
    /// Whether a public address shall be assigned at each start.
    pub wants_public_ip: bool,
    #[serde(default)]
    pub public_name_type: PublicNameType,
    pub security_groups: SmallVec<[Id; 1]>,
    pub source_dest_check: bool,
    #[serde(default)]
    pub tracking: datapath::Tracking,
    pub attachment: Option<InterfaceAttachment>,
    pub tags: Tags,
}

/// What an interface is there for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    #[default]
    Instance,
    /// With an Elastic Fabric Adapter beside its Ethernet.
    Efa,
    /// Without Ethernet: it has no addresses.
    EfaOnly,
    /// EC2 keeps it for a NAT gateway.
    NatGateway,
}

impl Purpose {
    /// EC2's `NetworkInterfaceType`.
    pub fn name(self) -> &'static str {
        match self {
            Purpose::Instance => "interface",
            Purpose::Efa => "efa",
            Purpose::EfaOnly => "efa-only",
            Purpose::NatGateway => "nat_gateway",
        }
    }

    /// What a user may ask for.
    pub fn asked(name: Option<&str>) -> Result<Purpose> {
        match name.unwrap_or("interface") {
            "interface" => Ok(Purpose::Instance),
            "efa" => Ok(Purpose::Efa),
            "efa-only" => Ok(Purpose::EfaOnly),
            "trunk" => Err(trunk::unsupported()),
            other => Err(Error::invalid_parameter_value(format!(
                "Value ({other}) for parameter interfaceType is invalid. Valid values are interface, efa and efa-only."
            ))),
        }
    }

    pub fn has_efa(self) -> bool {
        matches!(self, Purpose::Efa | Purpose::EfaOnly)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrivateAddress {
    pub private_ip: Ipv4Addr,
    #[serde(default)]
    pub public: Option<PublicAddress>,
}

/// What the internet gateway translates a private address to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PublicAddress {
    pub ip: Ipv4Addr,
    /// Of an elastic one; None is one that was assigned for as long as the instance runs.
    #[serde(default)]
    pub elastic: Option<Box<Elastic>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Elastic {
    pub allocation_id: Id,
    pub association_id: Id,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InterfaceAttachment {
    pub attachment_id: Id,
    pub instance_id: Id,
    pub device_index: u8,
    #[serde(default)]
    pub network_card: u8,
    #[serde(default)]
    pub state: AttachmentState,
    pub delete_on_termination: bool,
    /// As many as the type gives where None.
    #[serde(default)]
    pub ena_queues: Option<u16>,
    pub attached_at: Timestamp,
}

impl InterfaceAttachment {
    /// EC2's `AttachmentStatus`, which tells nothing of a guest that does not let go.
    pub fn state_name(&self) -> &'static str {
        match self.state {
            AttachmentState::Detaching { .. } => "detaching",
            state => state.name(),
        }
    }
}

impl PrivateAddress {
    pub fn public_ip(&self) -> Option<Ipv4Addr> {
        self.public.as_ref().map(|public| public.ip)
    }

    /// `ip-172-31-0-4.ec2.internal`.
    pub fn private_dns_name(&self, region: &model::Region) -> String {
        format!("ip-{}.{}", dashed(self.private_ip), region.private_dns_domain())
    }

    /// Its elastic address.
    pub fn elastic(&self) -> Option<&Elastic> {
        self.public.as_ref().and_then(|public| public.elastic.as_deref())
    }
}

impl NetworkInterface {
    /// A new one of a subnet, which has its addresses from now on.
    pub fn new(tx: &mut Tx<'_>, subnet: &Subnet, asked: &Asked) -> Result<NetworkInterface> {
        let interface_id = tx.new_id(Kind::NetworkInterface);
        let (addresses, prefixes, ipv6) = asked.claim(tx, subnet, &interface_id)?;
        Ok(NetworkInterface {
            mac: NetworkInterface::mac_of(&interface_id),
            owner: subnet.owner.clone(),
            vpc_id: subnet.vpc_id.clone(),
            subnet_id: subnet.subnet_id.clone(),
            description: Box::default(),
            purpose: Purpose::Instance,
            addresses,
            prefixes,
            ipv6,
            wants_public_ip: false,
            public_name_type: PublicNameType::default(),
            security_groups: SmallVec::new(),
            source_dest_check: true,
            tracking: datapath::Tracking::default(),
            attachment: None,
            tags: Tags::default(),
            interface_id,
        })
    }

    /// Its subnet's.
    pub fn zone<'t>(&self, tables: &'t Tables) -> &'t str {
        tables.subnets.find(&self.subnet_id).map_or("", |subnet| &subnet.zone)
    }

    /// Its first, which every interface of Ethernet has in a subnet with IPv4.
    pub fn primary(&self) -> Option<&PrivateAddress> {
        self.addresses.first()
    }

    /// The primary one.
    pub fn private_ip(&self) -> Option<Ipv4Addr> {
        self.primary().map(|primary| primary.private_ip)
    }

    /// Of the primary private address.
    pub fn public_ip(&self) -> Option<Ipv4Addr> {
        self.primary().and_then(PrivateAddress::public_ip)
    }

    pub fn private_dns_name(&self, region: &model::Region) -> String {
        self.primary().map(|primary| primary.private_dns_name(region)).unwrap_or_default()
    }

    /// How many of its subnet's IPv4 addresses it takes up.
    pub fn used_addresses(&self) -> usize {
        let prefixes = self.prefixes.iter().map(|prefix| 1 << (32 - prefix.prefix_len()));
        self.addresses.len() + prefixes.sum::<usize>()
    }

    /// All that is delegated to it.
    pub fn all_prefixes(&self) -> impl Iterator<Item = IpNet> {
        let ipv6 = self.ipv6.prefixes.iter().copied().map(IpNet::from);
        self.prefixes.iter().copied().map(IpNet::from).chain(ipv6)
    }

    /// All that is its own: addresses and prefixes.
    pub fn networks(&self) -> impl Iterator<Item = IpNet> {
        let ipv4 = self.addresses.iter().map(|own| IpAddr::V4(own.private_ip));
        let ipv6 = self.ipv6.addresses.iter().copied().map(IpAddr::V6);
        ipv4.chain(ipv6).map(IpNet::from).chain(self.all_prefixes())
    }

    /// Its IPv4 addresses as hosts are told them.
    pub fn to_desired(&self) -> Vec<datapath::Address> {
        let own = |own: &PrivateAddress| datapath::Address {
            private_ip: own.private_ip,
            public_ip: own.public_ip(),
        };
        self.addresses.iter().map(own).collect()
    }

    /// Deletes the record and lets go of its addresses; elastic ones are the owner's still.
    pub fn delete(&self, tx: &mut Tx<'_>) {
        for address in &self.addresses {
            tx.release(&Subnet::claim_scope(&self.subnet_id), &address.private_ip.to_string());
            self.let_go(tx, address);
        }
        for prefix in &self.prefixes {
            address::release_prefix(tx, &self.subnet_id, *prefix);
        }
        self.ipv6.release(tx, &self.subnet_id);
        permission::revoke_all(tx, &self.interface_id);
        tx.delete::<NetworkInterface>(&self.interface_id);
    }

    /// What becomes of the public address of one that goes.
    fn let_go(&self, tx: &mut Tx<'_>, address: &PrivateAddress) {
        match &address.public {
            Some(PublicAddress { elastic: Some(elastic), .. }) => elastic::disassociated(tx, elastic),
            Some(public) => public_address::release(tx, public.ip, None),
            None => {}
        }
    }

    /// It is on no instance any more.
    pub fn detached(&mut self) {
        self.attachment = None;
        self.ipv6.has_primary = false;
    }

    /// Gives back the addresses that are assigned only while an instance runs; whether there were any.
    pub fn release_assigned(&mut self, tx: &mut Tx<'_>) -> bool {
        let mut any = false;
        for address in &mut self.addresses {
            if let Some(public) = address.public.take_if(|public| public.elastic.is_none()) {
                public_address::release(tx, public.ip, None);
                any = true;
            }
        }
        any
    }

    /// Assigns a public address to the primary one where it shall have one and has none.
    pub fn assign(&mut self, tx: &mut Tx<'_>, pool: Ipv4Net) -> Result<()> {
        let id = self.interface_id.clone();
        let wanted = self.wants_public_ip;
        if let Some(primary) = self.addresses.first_mut().filter(|primary| wanted && primary.public.is_none())
        {
            primary.public = Some(PublicAddress { ip: public_address::claim(tx, pool, &id)?, elastic: None });
        }
        Ok(())
    }

    /// Whether EC2 keeps it for something of its own.
    pub fn is_managed(&self) -> bool {
        self.purpose == Purpose::NatGateway
    }

    /// Who made it, where nobody asked for it by itself.
    pub fn requester(&self) -> Option<&str> {
        self.is_managed().then_some(self.owner.as_str())
    }

    /// Whose a public address is: the owner's where it is elastic.
    pub fn ip_owner(&self, address: &PrivateAddress) -> Option<&str> {
        match &address.public {
            Some(PublicAddress { elastic: Some(_), .. }) => Some(self.owner.as_str()),
            Some(PublicAddress { elastic: None, .. }) => Some("amazon"),
            None => None,
        }
    }

    /// Stable for the interface's life: locally administered, unicast, from the id's own randomness.
    pub fn mac_of(interface_id: &Id) -> [u8; 6] {
        let digits = interface_id.rsplit('-').next().unwrap_or_default();
        let mut mac = [0x02; 6];
        for (at, byte) in mac.iter_mut().enumerate().skip(1) {
            let from = digits.len().saturating_sub(2 * (6 - at));
            *byte =
                digits.get(from..from + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()).unwrap_or(0);
        }
        mac
    }

    pub fn mac_text(&self) -> String {
        self.mac.map(|byte| format!("{byte:02x}")).join(":")
    }

    /// EC2's `NetworkInterfaceStatus`.
    pub fn status(&self) -> &'static str {
        if self.attachment.is_some() || self.is_managed() { "in-use" } else { "available" }
    }
}

/// One that is the user's to change; those that EC2 keeps are not.
pub fn own(tx: &mut Tx<'_>, id: &str) -> Result<NetworkInterface> {
    let id = Id::parse(Kind::NetworkInterface, id)?;
    let found = tx.get::<NetworkInterface>(&id).ok_or_else(|| Id::not_found(Kind::NetworkInterface, &id))?;
    match found.is_managed() {
        true => Err(Error::new(
            "OperationNotPermitted",
            format!("You do not have permission to access the specified resource: {id} is managed by EC2."),
        )),
        false => Ok((*found).clone()),
    }
}

/// One of those that may be given addresses.
fn with_addresses(tx: &mut Tx<'_>, id: &str) -> Result<NetworkInterface> {
    let found = own(tx, id)?;
    if found.purpose == Purpose::EfaOnly { Err(address::without_addresses()) } else { Ok(found) }
}

fn dashed(ip: Ipv4Addr) -> String {
    ip.octets().map(|byte| byte.to_string()).join("-")
}

/// The field with the subnet of an interface that has more than one address of it, or none. Ours, not EC2's.
pub(crate) const NOT_ONE_ADDRESS_IN: &str = "cumulet:not-one-address-in";

impl Record for NetworkInterface {
    const TABLE: &'static str = "network-interface";
    const INDEXED: &'static [&'static str] = &[
        "attachment.attachment-id",
        "attachment.instance-id",
        "group-id",
        "subnet-id",
        "vpc-id",
        "private-ip-address",
        "association.public-ip",
        NOT_ONE_ADDRESS_IN,
    ];

    fn id(&self) -> &str {
        &self.interface_id
    }

    fn tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }

    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        let attachment = self.attachment.as_ref();
        let elastic = || self.addresses.iter().filter_map(PrivateAddress::elastic);
        match name {
            NOT_ONE_ADDRESS_IN => {
                filter::some(values, (self.used_addresses() != 1).then_some(self.subnet_id.as_str()))
            }
            "addresses.primary" => filter::many(
                values,
                self.addresses.iter().enumerate().map(|(at, _)| filter::boolean(at == 0)),
            ),
            "ipv6-addresses.ipv6-address" => {
                filter::many(values, self.ipv6.addresses.iter().map(|address| address.to_string()))
            }
            "ipv6-addresses.is-primary-ipv6" => {
                filter::many(values, self.ipv6.addresses().map(|(_, is_primary)| filter::boolean(is_primary)))
            }
            "ipv6-address" => {
                filter::some(values, self.ipv6.addresses.first().map(|address| address.to_string()))
            }
            "ipv4-prefixes.ipv4-prefix" => {
                filter::many(values, self.prefixes.iter().map(|prefix| prefix.to_string()))
            }
            "ipv6-prefixes.ipv6-prefix" => {
                filter::many(values, self.ipv6.prefixes.iter().map(|prefix| prefix.to_string()))
            }
            "addresses.private-ip-address" | "private-ip-address" => {
                filter::many(values, self.addresses.iter().map(|address| address.private_ip.to_string()))
            }
            "addresses.association.public-ip" | "association.public-ip" => filter::many(
                values,
                self.addresses.iter().filter_map(PrivateAddress::public_ip).map(|ip| ip.to_string()),
            ),
            "addresses.association.owner-id"
            | "addresses.association.ip-owner-id"
            | "association.ip-owner-id" => {
                filter::many(values, self.addresses.iter().filter_map(|address| self.ip_owner(address)))
            }
            "addresses.association.allocation-id" | "association.allocation-id" => {
                filter::many(values, elastic().map(|elastic| elastic.allocation_id.as_str()))
            }
            "addresses.association.association-id" | "association.association-id" => {
                filter::many(values, elastic().map(|elastic| elastic.association_id.as_str()))
            }
            "attachment.attach-time" => filter::some(values, attachment.map(|a| filter::time(a.attached_at))),
            "attachment.attachment-id" => filter::some(values, attachment.map(|a| a.attachment_id.as_str())),
            "attachment.delete-on-termination" => {
                filter::some(values, attachment.map(|a| filter::boolean(a.delete_on_termination)))
            }
            "attachment.device-index" => filter::some(values, attachment.map(|a| a.device_index.to_string())),
            "attachment.instance-id" => filter::some(values, attachment.map(|a| a.instance_id.as_str())),
            "attachment.network-card-index" => {
                filter::some(values, attachment.map(|a| a.network_card.to_string()))
            }
            "attachment.status" => filter::some(values, attachment.map(|a| a.state_name())),
            "attachment.instance-owner-id" => filter::some(values, attachment.map(|_| self.owner.as_str())),
            "deny-all-igw-traffic" | "ipv6-native" | "operator.managed" => filter::one(values, "false"),
            "operator.principal"
            | "outpost-arn"
            | "addresses.association.carrier-ip"
            | "addresses.association.customer-owned-ip"
            | "association.carrier-ip"
            | "association.customer-owned-ip" => true,
            "description" => filter::one(values, &*self.description),
            "group-id" => filter::many(values, self.security_groups.iter().map(|id| id.as_str())),
            "interface-type" => filter::one(values, self.purpose.name()),
            "mac-address" => filter::one(values, self.mac_text()),
            "network-interface-id" => filter::one(values, self.interface_id.as_str()),
            "owner-id" => filter::one(values, self.owner.as_str()),
            "requester-id" => filter::some(values, self.requester()),
            "requester-managed" => filter::one(values, filter::boolean(self.is_managed())),
            "source-dest-check" => filter::one(values, filter::boolean(self.source_dest_check)),
            "status" => filter::one(values, self.status()),
            "subnet-id" => filter::one(values, self.subnet_id.as_str()),
            "vpc-id" => filter::one(values, self.vpc_id.as_str()),
            _ => false,
        }
    }
}
