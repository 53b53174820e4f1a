//! CreateNetworkInsightsPath, DescribeNetworkInsightsPaths, DeleteNetworkInsightsPath.

use super::flow::{Stop, component};
use super::{FlowProtocol, Header, NetworkInsightsPath};
use crate::Context;
use crate::engine::describe::{self, Query};
use crate::engine::tags::Specified;
use crate::engine::unsupported::refuse;
use aws_api::ec2;
use model::{Error, Id, Kind, Result};
use std::net::{IpAddr, Ipv4Addr};

pub async fn create_network_insights_path(
    context: &Context,
    input: ec2::CreateNetworkInsightsPathRequest,
) -> Result<ec2::CreateNetworkInsightsPathResult> {
    let protocol = input.protocol.as_deref().ok_or_else(|| Error::missing_parameter("protocol"))?;
    let known = FlowProtocol::parse(protocol).filter(|protocol| *protocol != FlowProtocol::Icmp);
    let protocol = known.ok_or_else(|| {
        Error::invalid_parameter_value(format!(
            "Value ({protocol}) for parameter protocol is invalid. Valid values are tcp and udp."
        ))
    })?;
    let source = input.source.ok_or_else(|| Error::missing_parameter("source"))?;
    let combines = |filter: &Option<_>, plain: bool| filter.is_some() && plain;
    let by_source = input.source_ip.is_some() || input.destination_port.is_some();
    if combines(&input.filter_at_source, by_source)
        || combines(&input.filter_at_destination, input.destination_ip.is_some())
    {
        return Err(Error::new(
            "InvalidParameterCombination",
            "Addresses and ports are given by filters or by themselves, not by both.",
        ));
    }
    let by_filter = input.filter_at_source.is_some();
    let filter = header(input.filter_at_source.unwrap_or_default())?;
    let at_destination = input.filter_at_destination.map(header).transpose()?;
    let source_ip = address(input.source_ip)?.or(filter.source_ip);
    let destination_ip = address(input.destination_ip)?.or(filter.destination_ip);
    let arriving = at_destination.and_then(|header| header.destination_ip);
    if input.destination.is_none() && destination_ip.or(arriving).is_none() {
        return Err(Error::missing_parameter("destination"));
    }
    let (source_port, filtered_port) = (filter.source_port, filter.destination_port);
    let destination_port = input.destination_port.map(port).transpose()?.or(filtered_port);
    let tags = Specified::from_api(&input.tag_specifications, &[Kind::NetworkInsightsPath])?;
    let idempotent = context.idempotent()?;
    let id = context
        .transact(|tx| {
            if let Some(made) = idempotent.made_before(tx)? {
                return Ok(made.concat());
            }
            for named in [Some(&source), input.destination.as_ref()].into_iter().flatten() {
                Stop::find(tx.tables(), named)?;
            }
            let path = NetworkInsightsPath {
                path_id: tx.new_id(Kind::NetworkInsightsPath),
                owner: context.account().clone(),
                source: source.as_str().into(),
                destination: input.destination.as_deref().map(Into::into),
                source_ip,
                destination_ip,
                protocol,
                source_port,
                destination_port,
                by_filter,
                at_destination,
                created_at: tx.now(),
                tags: tags.of(Kind::NetworkInsightsPath),
            };
            tx.create(&path);
            idempotent.remember(tx, vec![path.path_id.to_string()]);
            Ok(path.path_id.to_string())
        })
        .await?;
    let tables = context.tables();
    let made = tables.network_insights_paths.find(&id);
    let made = made.ok_or_else(|| Id::not_found(Kind::NetworkInsightsPath, &id))?;
    Ok(ec2::CreateNetworkInsightsPathResult { network_insights_path: Some(to_api(context, made)) })
}

fn header(filter: ec2::PathRequestFilter) -> Result<Header> {
    Ok(Header {
        source_ip: address(filter.source_address)?,
        destination_ip: address(filter.destination_address)?,
        source_port: one(filter.source_port_range)?,
        destination_port: one(filter.destination_port_range)?,
    })
}

fn address(text: Option<String>) -> Result<Option<IpAddr>> {
    let parse = |text: String| {
        text.parse::<Ipv4Addr>().map(IpAddr::V4).map_err(|_| {
            Error::invalid_parameter_value(format!("Value ({text}) is invalid. It must be an IPv4 address."))
        })
    };
    text.map(parse).transpose()
}

fn port(number: i32) -> Result<u16> {
    u16::try_from(number).map_err(|_| {
        Error::invalid_parameter_value(format!("Value ({number}) is invalid. It must be a port."))
    })
}

/// Ranges of one port: a packet has one.
fn one(range: Option<ec2::RequestFilterPortRange>) -> Result<Option<u16>> {
    let Some(range) = range else { return Ok(None) };
    let from = range.from_port.map(port).transpose()?;
    let to = range.to_port.map(port).transpose()?;
    refuse([(from != to, "Ranges of several ports in a path are")])?;
    Ok(from)
}

pub async fn describe_network_insights_paths(
    context: &Context,
    input: ec2::DescribeNetworkInsightsPathsRequest,
) -> Result<ec2::DescribeNetworkInsightsPathsResult> {
    let tables = context.tables();
    let query = Query {
        ids: &input.network_insights_path_ids,
        filters: &input.filters,
        max_results: input.max_results,
        next_token: input.next_token.as_deref(),
        ids_name: "networkInsightsPathIds",
    };
    let page = describe::select(
        &tables.network_insights_paths,
        Kind::NetworkInsightsPath,
        &query,
        |_| true,
        |_, _, _| false,
    )?;
    Ok(ec2::DescribeNetworkInsightsPathsResult {
        network_insights_paths: page.records.iter().map(|path| to_api(context, path)).collect(),
        next_token: page.next_token,
    })
}

fn to_api(context: &Context, path: &NetworkInsightsPath) -> ec2::NetworkInsightsPath {
    let arn = |named: &str| {
        let id = component(named);
        Id::kind_of(id).map(|kind| context.arn(kind.resource_type(), id))
    };
    ec2::NetworkInsightsPath {
        network_insights_path_id: Some(path.path_id.to_string()),
        network_insights_path_arn: arn(&path.path_id),
        created_date: Some(path.created_at),
        source: Some(path.source.to_string()),
        source_arn: arn(&path.source),
        destination: path.destination.as_ref().map(ToString::to_string),
        destination_arn: path.destination.as_deref().and_then(arn),
        source_ip: path.source_ip.filter(|_| !path.by_filter).map(|ip| ip.to_string()),
        destination_ip: path.destination_ip.filter(|_| !path.by_filter).map(|ip| ip.to_string()),
        protocol: Some(path.protocol.name().into()),
        destination_port: path.destination_port.filter(|_| !path.by_filter).map(i32::from),
        filter_at_source: path.at_source().map(filter_to_api),
        filter_at_destination: path.at_destination.map(filter_to_api),
        tags: path.tags.to_api(),
    }
}

fn filter_to_api(header: Header) -> ec2::PathFilter {
    let range = |port: u16| ec2::FilterPortRange { from_port: Some(port.into()), to_port: Some(port.into()) };
    ec2::PathFilter {
        source_address: header.source_ip.map(|ip| ip.to_string()),
        source_port_range: header.source_port.map(range),
        destination_address: header.destination_ip.map(|ip| ip.to_string()),
        destination_port_range: header.destination_port.map(range),
    }
}

pub async fn delete_network_insights_path(
    context: &Context,
    input: ec2::DeleteNetworkInsightsPathRequest,
) -> Result<ec2::DeleteNetworkInsightsPathResult> {
    let id = input.network_insights_path_id.unwrap_or_default();
    let id = Id::parse(Kind::NetworkInsightsPath, &id)?;
    context
        .transact(|tx| {
            let path = tx.get::<NetworkInsightsPath>(&id);
            let path = path.ok_or_else(|| Id::not_found(Kind::NetworkInsightsPath, &id))?;
            if tx.tables().network_insights_analyses.count("cumulet:path-id", &id) > 0 {
                return Err(Error::new(
                    "AnalysisExistsForNetworkInsightsPath",
                    format!("There are analyses of the path '{id}', which have to be deleted first."),
                ));
            }
            tx.delete::<NetworkInsightsPath>(&path.path_id);
            Ok(())
        })
        .await?;
    Ok(ec2::DeleteNetworkInsightsPathResult { network_insights_path_id: Some(id.to_string()) })
}
