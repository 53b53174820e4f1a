//! Elastic network interfaces.

use crate::engine::table::{Record, Values};
use crate::engine::{Tables, Tags, filter};
use model::{AccountId, Id, Text, Timestamp};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::net::Ipv4Addr;

pub mod describe;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkInterface {
    pub interface_id: Id,
    pub owner: AccountId,
    pub vpc_id: Id,
    pub subnet_id: Id,
    pub zone: Text,
    pub description: Box<str>,
    pub mac: [u8; 6],
    pub private_ip: Ipv4Addr,
    /// Assigned while its instance runs; not an elastic one.
    pub public_ip: Option<Ipv4Addr>,
    /// Whether a public address shall be assigned at each start.
    pub wants_public_ip: bool,
    pub security_groups: SmallVec<[Id; 1]>,
    pub source_dest_check: bool,
    pub attachment: Option<InterfaceAttachment>,
    pub created_at: Timestamp,
    pub tags: Tags,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InterfaceAttachment {
    pub attachment_id: Id,
    pub instance_id: Id,
    pub device_index: u32,
    pub delete_on_termination: bool,
    pub attached_at: Timestamp,
}

impl NetworkInterface {
    /// `ip-172-31-0-4.ec2.internal`.
    pub fn private_dns_name(&self, region: &model::Region) -> String {
        format!("ip-{}.{}", dashed(self.private_ip), region.private_dns_domain())
    }

    /// `ec2-198-18-0-4.compute-1.amazonaws.com`.
    /// None also where its VPC gives no such names.
    pub fn public_dns_name(&self, tables: &Tables, region: &model::Region) -> Option<String> {
        let vpc = tables.vpcs.find(&self.vpc_id).filter(|vpc| vpc.dns_hostnames);
        self.public_ip
            .filter(|_| vpc.is_some())
            .map(|ip| format!("ec2-{}.{}", dashed(ip), region.public_dns_domain()))
    }

    pub fn mac_text(&self) -> String {
        self.mac.map(|byte| format!("{byte:02x}")).join(":")
    }

    /// EC2's `NetworkInterfaceStatus`.
    pub fn status(&self) -> &'static str {
        if self.attachment.is_some() { "in-use" } else { "available" }
    }
}

fn dashed(ip: Ipv4Addr) -> String {
    ip.octets().map(|byte| byte.to_string()).join("-")
}

impl Record for NetworkInterface {
    const TABLE: &'static str = "network-interface";
    const INDEXED: &'static [&'static str] = &[
        "attachment.instance-id",
        "group-id",
        "subnet-id",
        "vpc-id",
        "private-ip-address",
        "association.public-ip",
    ];

    fn id(&self) -> &str {
        &self.interface_id
    }

    fn tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }

    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        let attachment = self.attachment.as_ref();
        match name {
            "addresses.primary" => filter::one(values, "true"),
            "addresses.private-ip-address" | "private-ip-address" => {
                filter::one(values, self.private_ip.to_string())
            }
            "addresses.association.public-ip" | "association.public-ip" => {
                filter::some(values, self.public_ip.map(|ip| ip.to_string()))
            }
            "association.ip-owner-id" => filter::some(values, self.public_ip.map(|_| "amazon")),
            "attachment.attach-time" => filter::some(values, attachment.map(|a| filter::time(a.attached_at))),
            "attachment.attachment-id" => filter::some(values, attachment.map(|a| a.attachment_id.as_str())),
            "attachment.delete-on-termination" => {
                filter::some(values, attachment.map(|a| filter::boolean(a.delete_on_termination)))
            }
            "attachment.device-index" => filter::some(values, attachment.map(|a| a.device_index.to_string())),
            "attachment.instance-id" => filter::some(values, attachment.map(|a| a.instance_id.as_str())),
            "attachment.status" => filter::some(values, attachment.map(|_| "attached")),
            "availability-zone" => filter::one(values, self.zone.as_str()),
            "description" => filter::one(values, &*self.description),
            "group-id" => filter::many(values, self.security_groups.iter().map(|id| id.as_str())),
            "interface-type" => filter::one(values, "interface"),
            "mac-address" => filter::one(values, self.mac_text()),
            "network-interface-id" => filter::one(values, self.interface_id.as_str()),
            "owner-id" => filter::one(values, self.owner.as_str()),
            "requester-managed" => filter::one(values, "false"),
            "source-dest-check" => filter::one(values, filter::boolean(self.source_dest_check)),
            "status" => filter::one(values, self.status()),
            "subnet-id" => filter::one(values, self.subnet_id.as_str()),
            "vpc-id" => filter::one(values, self.vpc_id.as_str()),
            _ => false,
        }
    }
}
