//! VPC peering connections (VPC Peering Guide).
//!
//! ```text
//!   create ─┬─ pending-acceptance ─┬─ accept ─▶ active ── delete ──▶ deleted
//!           │                      ├─ reject ─▶ rejected               ▲
//!           │                      ├─ seven days ─▶ expired            │
//!           │                      └─ delete ──────────────────────────┘
//!           └─ failed (the blocks of the two overlap, or there is no such peer)
//! ```
//!
//! Only an active one carries packets, and only for routes that lead to it. What is over stays visible for a while.

use crate::Context;
use crate::engine::describe::{self, Query};
use crate::engine::filter;
use crate::engine::table::{Record, Values};
use crate::engine::{Tables, Tags};
use crate::vpc::Vpc;
use aws_api::ec2;
use model::{AccountId, Id, Kind, Result, Timestamp};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

pub mod change;

/// How long a request waits to be accepted (EC2 API Reference, CreateVpcPeeringConnection).
const PENDING_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VpcPeeringConnection {
    pub peering_id: Id,
    pub owner: AccountId,
    pub requester: Id,
    pub accepter: Id,
    pub status: Status,
    pub requested_at: Timestamp,
    /// When it came to be over.
    pub ended_at: Option<Timestamp>,
    /// Whether the requester's public names lead the accepter's instances inward, and the other way.
    #[serde(default)]
    pub requester_names: bool,
    #[serde(default)]
    pub accepter_names: bool,
    pub tags: Tags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    Pending,
    Active,
    Rejected,
    Failed,
    Deleted,
}

impl VpcPeeringConnection {
    fn expires_at(&self) -> Timestamp {
        self.requested_at.saturating_add(PENDING_FOR).unwrap_or(Timestamp::MAX)
    }

    fn is_expired(&self, now: Timestamp) -> bool {
        self.status == Status::Pending && now >= self.expires_at()
    }

    /// Whether it connects the two, or may yet.
    pub fn is_live(&self, now: Timestamp) -> bool {
        matches!(self.status, Status::Pending | Status::Active) && !self.is_expired(now)
    }

    pub fn is_active(&self) -> bool {
        self.status == Status::Active
    }

    /// From when on it is over; None where it is not.
    pub fn over_since(&self, now: Timestamp) -> Option<Timestamp> {
        if self.is_expired(now) { Some(self.expires_at()) } else { self.ended_at }
    }

    /// The VPC at the other end.
    pub fn peer_of(&self, vpc_id: &str) -> &Id {
        if *self.requester == *vpc_id { &self.accepter } else { &self.requester }
    }

    /// Whether public names of the other VPC lead the instances of this one inward.
    pub fn resolves_names_for(&self, vpc_id: &str) -> bool {
        if *self.requester == *vpc_id { self.accepter_names } else { self.requester_names }
    }

    /// EC2's code and message.
    fn shown(&self, now: Timestamp) -> (&'static str, &'static str) {
        match self.status {
            Status::Pending if self.is_expired(now) => ("expired", "Expired"),
            Status::Pending => ("pending-acceptance", "Pending Acceptance"),
            Status::Active => ("active", "Active"),
            Status::Rejected => ("rejected", "Inactive"),
            Status::Failed => {
                ("failed", "Failed due to incorrect VPC-ID, Account ID, or overlapping CIDR range")
            }
            Status::Deleted => ("deleted", "Deleted"),
        }
    }
}

/// The field with both VPCs. Ours: EC2 has one for each side.
const BY_VPC: &str = "cumulet:vpc-id";

/// All that are or were between a VPC and another.
pub fn of_vpc<'t>(tables: &'t Tables, vpc_id: &str) -> impl Iterator<Item = &'t Arc<VpcPeeringConnection>> {
    tables.vpc_peering_connections.with(BY_VPC, vpc_id)
}

impl Record for VpcPeeringConnection {
    const TABLE: &'static str = "vpc-peering-connection";
    const INDEXED: &'static [&'static str] = &[BY_VPC];

    fn id(&self) -> &str {
        &self.peering_id
    }

    fn tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }

    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        match name {
            BY_VPC => filter::many(values, [self.requester.as_str(), self.accepter.as_str()]),
            "accepter-vpc-info.vpc-id" => filter::one(values, self.accepter.as_str()),
            "requester-vpc-info.vpc-id" => filter::one(values, self.requester.as_str()),
            "accepter-vpc-info.owner-id" | "requester-vpc-info.owner-id" => {
                filter::one(values, self.owner.as_str())
            }
            "vpc-peering-connection-id" => filter::one(values, self.peering_id.as_str()),
            _ => false,
        }
    }
}

pub async fn describe_vpc_peering_connections(
    context: &Context,
    input: ec2::DescribeVpcPeeringConnectionsRequest,
) -> Result<ec2::DescribeVpcPeeringConnectionsResult> {
    let tables = context.tables();
    let now = context.environment.clock.now();
    let query = Query {
        ids: &input.vpc_peering_connection_ids,
        filters: &input.filters,
        max_results: input.max_results,
        next_token: input.next_token.as_deref(),
        ids_name: "vpcPeeringConnectionIds",
    };
    let cidrs = |id: &Id, values: &mut Values<'_>| {
        let vpc = tables.vpcs.find(id);
        let all = vpc.into_iter().flat_map(|vpc| vpc.cidrs().map(|(_, cidr)| cidr.to_string()));
        filter::many(values, all.collect::<Vec<_>>())
    };
    let page = describe::select(
        &tables.vpc_peering_connections,
        Kind::VpcPeeringConnection,
        &query,
        |_| true,
        |peering, name, values| match name {
            "accepter-vpc-info.cidr-block" => cidrs(&peering.accepter, values),
            "requester-vpc-info.cidr-block" => cidrs(&peering.requester, values),
            "expiration-time" => filter::some(
                values,
                (peering.status == Status::Pending).then(|| filter::time(peering.expires_at())),
            ),
            "status-code" => filter::one(values, peering.shown(now).0),
            "status-message" => filter::one(values, peering.shown(now).1),
            _ => false,
        },
    )?;
    Ok(ec2::DescribeVpcPeeringConnectionsResult {
        vpc_peering_connections: page
            .records
            .iter()
            .map(|peering| to_api(context, &tables, peering))
            .collect(),
        next_token: page.next_token,
    })
}

fn to_api(context: &Context, tables: &Tables, peering: &VpcPeeringConnection) -> ec2::VpcPeeringConnection {
    let (code, message) = peering.shown(context.environment.clock.now());
    let side = |id: &Id, shows_cidrs: bool, names: bool| {
        let vpc: Option<&Vpc> = tables.vpcs.find(id).map(|vpc| &**vpc).filter(|_| shows_cidrs);
        let ipv4 = vpc.into_iter().flat_map(|vpc| vpc.cidrs());
        let ipv6 = vpc.into_iter().flat_map(|vpc| vpc.ipv6_cidrs());
        ec2::VpcPeeringConnectionVpcInfo {
            vpc_id: Some(id.to_string()),
            owner_id: Some(peering.owner.to_string()),
            region: Some(context.region.view.region.to_string()),
            cidr_block: vpc.map(|vpc| vpc.cidr.to_string()),
            cidr_block_set: ipv4
                .map(|(_, cidr)| ec2::CidrBlock { cidr_block: Some(cidr.to_string()) })
                .collect(),
            ipv6_cidr_block_set: ipv6
                .map(|cidr| ec2::Ipv6CidrBlock { ipv6_cidr_block: Some(cidr.to_string()) })
                .collect(),
            peering_options: peering.is_active().then(|| change::options_to_api(names)),
        }
    };
    ec2::VpcPeeringConnection {
        vpc_peering_connection_id: Some(peering.peering_id.to_string()),
        requester_vpc_info: Some(side(&peering.requester, true, peering.requester_names)),
        // What the other side is made of is its affair until it has accepted.
        accepter_vpc_info: Some(side(&peering.accepter, peering.is_active(), peering.accepter_names)),
        expiration_time: (peering.status == Status::Pending).then(|| peering.expires_at()),
        status: Some(ec2::VpcPeeringConnectionStateReason {
            code: Some(code.into()),
            message: Some(message.into()),
        }),
        tags: peering.tags.to_api(),
    }
}
