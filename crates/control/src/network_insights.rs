//! Whether packets get from one place to another, and what decides it on the way
//! (Reachability Analyzer Guide, "How Reachability Analyzer works").
//!
//! A path is the question, an analysis the answer as it was when it was asked for: what `datapath::trace` says of the
//! records that hosts are told.

use crate::engine::table::{Record, Values};
use crate::engine::{Tags, filter};
use datapath::trace::Trace;
use model::{AccountId, Id, Text, Timestamp};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

mod analysis;
mod flow;
mod ground;
mod operator;
mod path;
mod shown;

pub use analysis::{
    delete_network_insights_analysis, describe_network_insights_analyses, start_network_insights_analysis,
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
    #[serde(default)]
    pub source_ip: Option<Ipv4Addr>,
    #[serde(default)]
    pub destination_ip: Option<Ipv4Addr>,
    pub protocol: FlowProtocol,
    #[serde(default)]
    pub source_port: Option<u16>,
    #[serde(default)]
    pub destination_port: Option<u16>,
    /// Whether addresses and ports were given by a filter at the source.
    #[serde(default)]
    pub by_filter: bool,
    pub created_at: Timestamp,
    pub tags: Tags,
}

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
    /// The question has no answer any more: what it names is gone.
    NoSourceOrDestination,
}

impl Finding {
    pub fn is_found(&self) -> bool {
        matches!(self, Finding::Followed { trace, arrives: true } if trace.passes())
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
        let by_filter = |value: Option<String>| value.filter(|_| self.by_filter);
        let address = |address: Option<Ipv4Addr>| by_filter(address.map(|address| address.to_string()));
        let port = |port: Option<u16>| by_filter(port.map(|port| port.to_string()));
        match name {
            "destination" => filter::some(values, self.destination.as_deref()),
            "filter-at-source.source-address" => filter::some(values, address(self.source_ip)),
            "filter-at-source.destination-address" => filter::some(values, address(self.destination_ip)),
            "filter-at-source.source-port-range.from-port" | "filter-at-source.source-port-range.to-port" => {
                filter::some(values, port(self.source_port))
            }
            "filter-at-source.destination-port-range.from-port"
            | "filter-at-source.destination-port-range.to-port" => {
                filter::some(values, port(self.destination_port))
            }
            "filter-at-destination.source-address"
            | "filter-at-destination.destination-address"
            | "filter-at-destination.source-port-range.from-port"
            | "filter-at-destination.source-port-range.to-port"
            | "filter-at-destination.destination-port-range.from-port"
            | "filter-at-destination.destination-port-range.to-port" => true,
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
