//! Whether packets get from one place to another, and what decides it on the way
//! (Reachability Analyzer Guide, "How Reachability Analyzer works").
//!
//! A path is the question, an analysis the answer as it was when it was asked for: what `datapath::trace` says of the
//! records that hosts are told.

use crate::engine::table::{Record, Values};
use crate::engine::{Tags, filter};
use datapath::trace::{Packet, Trace};
use model::{AccountId, Id, Text, Timestamp};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

mod access_scope;
mod analysis;
mod flow;
mod ground;
mod operator;
mod path;
mod shown;

pub use access_scope::{
    NetworkInsightsAccessScope, NetworkInsightsAccessScopeAnalysis, create_network_insights_access_scope,
    delete_network_insights_access_scope, delete_network_insights_access_scope_analysis,
    describe_network_insights_access_scope_analyses, describe_network_insights_access_scopes,
    get_network_insights_access_scope_analysis_findings, get_network_insights_access_scope_content,
    start_network_insights_access_scope_analysis,
};
pub use analysis::{
    delete_network_insights_analysis, describe_network_insights_analyses,
    enable_reachability_analyzer_organization_sharing, start_network_insights_analysis,
};
pub use operator::trace_network;
pub use path::{create_network_insights_path, delete_network_insights_path, describe_network_insights_paths};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkInsightsPath {
    pub path_id: Id,
    pub owner: AccountId,
    /// An instance's, an interface's or an internet gateway's id.
    pub source: Text,
    #[serde(default)]
    pub destination: Option<Text>,
    /// Of IPv4: the API knows no others.
    #[serde(default)]
    pub source_ip: Option<IpAddr>,
    #[serde(default)]
    pub destination_ip: Option<IpAddr>,
    pub protocol: FlowProtocol,
    #[serde(default)]
    pub source_port: Option<u16>,
    #[serde(default)]
    pub destination_port: Option<u16>,
    /// Whether addresses and ports were given by a filter at the source.
    #[serde(default)]
    pub by_filter: bool,
    /// What a filter at the destination wants.
    #[serde(default)]
    pub at_destination: Option<Header>,
    pub created_at: Timestamp,
    pub tags: Tags,
}

/// Of a packet, as far as it is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    #[serde(default)]
    pub source_ip: Option<IpAddr>,
    #[serde(default)]
    pub destination_ip: Option<IpAddr>,
    #[serde(default)]
    pub source_port: Option<u16>,
    #[serde(default)]
    pub destination_port: Option<u16>,
}

impl Header {
    fn is_of(&self, packet: &Packet) -> bool {
        let (source_port, destination_port) = packet.payload.ports().unzip();
        let is = |wanted: Option<IpAddr>, address| wanted.is_none_or(|wanted| wanted == address);
        let is_port = |wanted: Option<u16>, port| wanted.is_none() || wanted == port;
        is(self.source_ip, packet.source)
            && is(self.destination_ip, packet.destination)
            && is_port(self.source_port, source_port)
            && is_port(self.destination_port, destination_port)
    }

    /// By the name of the field after that of the filter.
    fn field(&self, name: &str) -> Option<String> {
        let port = |port: Option<u16>| port.map(|port| port.to_string());
        match name {
            "source-address" => self.source_ip.map(|ip| ip.to_string()),
            "destination-address" => self.destination_ip.map(|ip| ip.to_string()),
            "source-port-range.from-port" | "source-port-range.to-port" => port(self.source_port),
            "destination-port-range.from-port" | "destination-port-range.to-port" => {
                port(self.destination_port)
            }
            _ => None,
        }
    }
}

/// What may follow `filter-at-source.` and `filter-at-destination.` in the name of a filter.
const HEADER_FIELDS: [&str; 6] = [
    "source-address",
    "destination-address",
    "source-port-range.from-port",
    "source-port-range.to-port",
    "destination-port-range.from-port",
    "destination-port-range.to-port",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlowProtocol {
    Tcp,
    Udp,
    /// An echo request.
    Icmp,
}

impl FlowProtocol {
    pub fn name(self) -> &'static str {
        match self {
            FlowProtocol::Tcp => "tcp",
            FlowProtocol::Udp => "udp",
            FlowProtocol::Icmp => "icmp",
        }
    }

    pub fn parse(text: &str) -> Option<FlowProtocol> {
        let all = [FlowProtocol::Tcp, FlowProtocol::Udp, FlowProtocol::Icmp];
        all.into_iter().find(|protocol| protocol.name() == text)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkInsightsAnalysis {
    pub analysis_id: Id,
    pub owner: AccountId,
    pub path_id: Id,
    pub started_at: Timestamp,
    /// ARNs of what the path must go by, and of what it must not.
    #[serde(default)]
    pub by_way_of: Vec<Text>,
    #[serde(default)]
    pub past: Vec<Text>,
    pub finding: Finding,
    pub tags: Tags,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Finding {
    Followed {
        trace: Box<Trace>,
        /// Whether it ends where it was to.
        arrives: bool,
    },
    /// There is a way, but not by what it must go by, or only by what it must not.
    OtherWay {
        trace: Box<Trace>,
        /// The component that decides.
        component: Text,
    },
    /// The question has no answer any more: what it names is gone.
    NoSourceOrDestination,
}

impl Finding {
    pub fn is_found(&self) -> bool {
        matches!(self, Finding::Followed { trace, arrives: true } if trace.passes())
    }
}

impl NetworkInsightsPath {
    /// What is said of the packet as it is sent.
    fn sent(&self) -> Header {
        Header {
            source_ip: self.source_ip,
            destination_ip: self.destination_ip,
            source_port: self.source_port,
            destination_port: self.destination_port,
        }
    }

    /// What a filter at the source wants.
    fn at_source(&self) -> Option<Header> {
        self.by_filter.then_some(self.sent())
    }
}

impl Record for NetworkInsightsPath {
    const TABLE: &'static str = "network-insights-path";
    const INDEXED: &'static [&'static str] = &[];

    fn id(&self) -> &str {
        &self.path_id
    }

    fn tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }

    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        let of_header = |header: Option<Header>, name: &str| header.and_then(|header| header.field(name));
        if let Some((at, name)) = name.split_once('.').filter(|(_, name)| HEADER_FIELDS.contains(name)) {
            return match at {
                "filter-at-source" => filter::some(values, of_header(self.at_source(), name)),
                "filter-at-destination" => filter::some(values, of_header(self.at_destination, name)),
                _ => false,
            };
        }
        match name {
            "destination" => filter::some(values, self.destination.as_deref()),
            "protocol" => filter::one(values, self.protocol.name()),
            "source" => filter::one(values, self.source.as_str()),
            _ => false,
        }
    }
}

impl Record for NetworkInsightsAnalysis {
    const TABLE: &'static str = "network-insights-analysis";
    const INDEXED: &'static [&'static str] = &["cumulet:path-id"];

    fn id(&self) -> &str {
        &self.analysis_id
    }

    fn tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }

    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        match name {
            "cumulet:path-id" => filter::one(values, self.path_id.as_str()),
            "path-found" => filter::one(values, filter::boolean(self.finding.is_found())),
            "status" => filter::one(values, "succeeded"),
            _ => false,
        }
    }
}
