//! CreateNetworkInsightsPath, DescribeNetworkInsightsPaths, DeleteNetworkInsightsPath.

use super::flow::Stop;
use super::{FlowProtocol, NetworkInsightsPath};
use crate::Context;
use crate::engine::describe::{self, Query};
use crate::engine::tags::Specified;
use crate::engine::unsupported::refuse;
use aws_api::ec2;
use model::{Error, Id, Kind, Result};
use std::net::Ipv4Addr;

pub async fn create_network_insights_path(
    context: &Context,
    input: ec2::CreateNetworkInsightsPathRequest,
) -> Result<ec2::CreateNetworkInsightsPathResult> {
    refuse([(input.filter_at_destination.is_some(), "Filters at the destination of a path are")])?;
    let protocol = input.protocol.as_deref().ok_or_else(|| Error::missing_parameter("protocol"))?;
    let known = FlowProtocol::parse(protocol).filter(|protocol| *protocol != FlowProtocol::Icmp);
    let protocol = known.ok_or_else(|| {
        Error::invalid_parameter_value(format!(
            "Value ({protocol}) for parameter protocol is invalid. Valid values are tcp and udp."
        ))
    })?;
    let source = input.source.ok_or_else(|| Error::missing_parameter("source"))?;
    let filter = input.filter_at_source;
    let by_filter = filter.is_some();
    let filter = filter.unwrap_or_default();
    let source_ip = address(input.source_ip.or(filter.source_address))?;
    let destination_ip = address(input.destination_ip.or(filter.destination_address))?;
    if input.destination.is_none() && destination_ip.is_none() {
        return Err(Error::missing_parameter("destination"));
    }
    let (source_port, filtered_port) = (one(filter.source_port_range)?, one(filter.destination_port_range)?);
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

fn address(text: Option<String>) -> Result<Option<Ipv4Addr>> {
    let parse = |text: String| {
        text.parse().map_err(|_| {
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
    let arn = |id: &str| Id::kind_of(id).map(|kind| context.arn(kind.resource_type(), id));
    let range = |port: Option<u16>| {
        let port = port.map(i32::from);
        port.map(|port| ec2::FilterPortRange { from_port: Some(port), to_port: Some(port) })
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
        filter_at_source: path.by_filter.then(|| ec2::PathFilter {
            source_address: path.source_ip.map(|ip| ip.to_string()),
            source_port_range: range(path.source_port),
            destination_address: path.destination_ip.map(|ip| ip.to_string()),
            destination_port_range: range(path.destination_port),
        }),
        tags: path.tags.to_api(),
        ..Default::default()
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
