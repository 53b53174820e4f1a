//! Route tables.

use ipnet::IpNet;
use model::Id;
use serde::{Deserialize, Serialize};

/// The longest destination that holds an address decides. What the VPC's own ranges hold stays in it, unless a route as
/// long or longer says otherwise; what none holds is dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTable {
    /// Without the local ones, which every table has.
    pub routes: Vec<Route>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Route {
    pub destination: IpNet,
    pub target: Target,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Target {
    InternetGateway,
    /// IPv6 out, and answers to it.
    EgressOnlyInternetGateway,
    NatGateway(Id),
    /// A network interface of the VPC, whose guest forwards.
    Interface(Id),
    Peering(Id),
    /// A gateway endpoint.
    Endpoint(Id),
    /// What it was is gone.
    Blackhole,
}
