//! StartNetworkInsightsAnalysis, DescribeNetworkInsightsAnalyses, DeleteNetworkInsightsAnalysis.

use super::flow::{Flow, component};
use super::ground::Records;
use super::{Finding, NetworkInsightsAnalysis, NetworkInsightsPath, shown};
use crate::Context;
use crate::engine::Tables;
use crate::engine::describe::{self, Query};
use crate::engine::tags::Specified;
use crate::engine::unsupported::refuse;
use aws_api::ec2;
use datapath::trace::Trace;
use model::{Error, Id, Kind, Result, Text};

/// Components that one analysis may be asked to go by, or to avoid.
const FILTER_ARNS_MAX: usize = 100;

/// The answer is there at once: what is asked for is a walk over records.
pub async fn start_network_insights_analysis(
    context: &Context,
    input: ec2::StartNetworkInsightsAnalysisRequest,
) -> Result<ec2::StartNetworkInsightsAnalysisResult> {
    refuse([(!input.additional_accounts.is_empty(), "Analyses over several accounts are")])?;
    let [by_way_of, past] = [input.filter_in_arns, input.filter_out_arns].map(arns);
    let (by_way_of, past) = (by_way_of?, past?);
    let path_id = input.network_insights_path_id.as_deref().unwrap_or_default();
    let path_id = Id::parse(Kind::NetworkInsightsPath, path_id)?;
    let tags = Specified::from_api(&input.tag_specifications, &[Kind::NetworkInsightsAnalysis])?;
    let idempotent = context.idempotent()?;
    let region = &context.region.view.region;
    let id = context
        .transact(|tx| {
            if let Some(made) = idempotent.made_before(tx)? {
                return Ok(made.concat());
            }
            let path = tx.get::<NetworkInsightsPath>(&path_id);
            let path = path.ok_or_else(|| Id::not_found(Kind::NetworkInsightsPath, &path_id))?;
            let tables = tx.tables();
            let finding = match Flow::of(tables, &path) {
                Ok(flow) => {
                    let (trace, arrives) = flow.follow(&Records { tables, region });
                    found(tables, trace, arrives, &by_way_of, &past)
                }
                Err(_) => Finding::NoSourceOrDestination,
            };
            let analysis = NetworkInsightsAnalysis {
                analysis_id: tx.new_id(Kind::NetworkInsightsAnalysis),
                owner: context.account().clone(),
                path_id: path_id.clone(),
                started_at: tx.now(),
                by_way_of: by_way_of.clone(),
                past: past.clone(),
                finding,
                tags: tags.of(Kind::NetworkInsightsAnalysis),
            };
            tx.create(&analysis);
            idempotent.remember(tx, vec![analysis.analysis_id.to_string()]);
            Ok(analysis.analysis_id.to_string())
        })
        .await?;
    let tables = context.tables();
    let made = tables.network_insights_analyses.find(&id);
    let made = made.ok_or_else(|| Id::not_found(Kind::NetworkInsightsAnalysis, &id))?;
    // As EC2 says of one that it has just begun.
    let begun = ec2::NetworkInsightsAnalysis {
        status: Some("running".into()),
        network_path_found: None,
        forward_path_components: Vec::new(),
        return_path_components: Vec::new(),
        explanations: Vec::new(),
        ..to_api(context, made)
    };
    Ok(ec2::StartNetworkInsightsAnalysisResult { network_insights_analysis: Some(begun) })
}

/// Of components that a path is to go by or to avoid.
fn arns(arns: Vec<String>) -> Result<Vec<Text>> {
    let parse = |arn: String| match Id::kind_of(component(&arn)) {
        Some(_) if arn.starts_with("arn:") => Ok(arn.as_str().into()),
        _ => Err(Error::invalid_parameter_value(format!(
            "Value ({arn}) is invalid. It must be the ARN of a component of a path."
        ))),
    };
    if arns.len() > FILTER_ARNS_MAX {
        return Err(Error::invalid_parameter_value(format!(
            "A path is filtered by {FILTER_ARNS_MAX} components at most."
        )));
    }
    arns.into_iter().map(parse).collect()
}

/// There is one way for a packet: it is the one that is wanted, or there is none.
fn found(tables: &Tables, trace: Trace, arrives: bool, by_way_of: &[Text], past: &[Text]) -> Finding {
    let followed = Finding::Followed { trace: trace.into(), arrives };
    let Finding::Followed { trace, .. } = &followed else { return followed };
    if !followed.is_found() {
        return followed;
    }
    let components = shown::component_ids(tables, &trace.forward);
    let goes_by = |arn: &&Text| components.iter().any(|id| id.as_str() == component(arn));
    let missed = by_way_of.iter().find(|arn| !goes_by(arn));
    match missed.or_else(|| past.iter().find(goes_by)) {
        Some(component) => Finding::OtherWay { trace: trace.clone(), component: component.clone() },
        None => followed,
    }
}

pub async fn describe_network_insights_analyses(
    context: &Context,
    input: ec2::DescribeNetworkInsightsAnalysesRequest,
) -> Result<ec2::DescribeNetworkInsightsAnalysesResult> {
    let tables = context.tables();
    let query = Query {
        ids: &input.network_insights_analysis_ids,
        filters: &input.filters,
        max_results: input.max_results,
        next_token: input.next_token.as_deref(),
        ids_name: "networkInsightsAnalysisIds",
    };
    let path_id = input.network_insights_path_id.as_deref();
    let path_id = path_id.map(|id| Id::parse(Kind::NetworkInsightsPath, id)).transpose()?;
    let is_meant = |analysis: &NetworkInsightsAnalysis| {
        path_id.as_ref().is_none_or(|id| analysis.path_id == *id)
            && input.analysis_start_time.is_none_or(|from| analysis.started_at >= from)
            && input.analysis_end_time.is_none_or(|to| analysis.started_at <= to)
    };
    let page = describe::select(
        &tables.network_insights_analyses,
        Kind::NetworkInsightsAnalysis,
        &query,
        is_meant,
        |_, _, _| false,
    )?;
    Ok(ec2::DescribeNetworkInsightsAnalysesResult {
        network_insights_analyses: page.records.iter().map(|analysis| to_api(context, analysis)).collect(),
        next_token: page.next_token,
    })
}

fn to_api(context: &Context, analysis: &NetworkInsightsAnalysis) -> ec2::NetworkInsightsAnalysis {
    let id = &analysis.analysis_id;
    let found = ec2::NetworkInsightsAnalysis {
        network_insights_analysis_id: Some(id.to_string()),
        network_insights_analysis_arn: Some(context.arn("network-insights-analysis", id)),
        network_insights_path_id: Some(analysis.path_id.to_string()),
        start_date: Some(analysis.started_at),
        status: Some("succeeded".into()),
        network_path_found: Some(analysis.finding.is_found()),
        filter_in_arns: analysis.by_way_of.iter().map(ToString::to_string).collect(),
        filter_out_arns: analysis.past.iter().map(ToString::to_string).collect(),
        tags: analysis.tags.to_api(),
        ..Default::default()
    };
    match &analysis.finding {
        Finding::Followed { trace, .. } => ec2::NetworkInsightsAnalysis {
            forward_path_components: shown::components(context, &trace.forward),
            return_path_components: trace
                .back
                .as_ref()
                .map(|back| shown::components(context, back))
                .unwrap_or_default(),
            explanations: match analysis.finding.is_found() {
                true => Vec::new(),
                false => vec![shown::explanation(context, trace)],
            },
            ..found
        },
        Finding::OtherWay { trace, component } => ec2::NetworkInsightsAnalysis {
            forward_path_components: shown::components(context, &trace.forward),
            explanations: vec![shown::filter_restriction(component)],
            ..found
        },
        Finding::NoSourceOrDestination => ec2::NetworkInsightsAnalysis {
            explanations: vec![ec2::Explanation {
                explanation_code: Some("NO_SOURCE_OR_DESTINATION".into()),
                ..Default::default()
            }],
            ..found
        },
    }
}

pub async fn delete_network_insights_analysis(
    context: &Context,
    input: ec2::DeleteNetworkInsightsAnalysisRequest,
) -> Result<ec2::DeleteNetworkInsightsAnalysisResult> {
    let id = input.network_insights_analysis_id.unwrap_or_default();
    let id = Id::parse(Kind::NetworkInsightsAnalysis, &id)?;
    context
        .transact(|tx| {
            let found = tx.get::<NetworkInsightsAnalysis>(&id);
            found.ok_or_else(|| Id::not_found(Kind::NetworkInsightsAnalysis, &id))?;
            tx.delete::<NetworkInsightsAnalysis>(&id);
            Ok(())
        })
        .await?;
    Ok(ec2::DeleteNetworkInsightsAnalysisResult { network_insights_analysis_id: Some(id.to_string()) })
}

pub async fn enable_reachability_analyzer_organization_sharing(
    _: &Context,
    _: ec2::EnableReachabilityAnalyzerOrganizationSharingRequest,
) -> Result<ec2::EnableReachabilityAnalyzerOrganizationSharingResult> {
    refuse([(true, "Organizations are")]).map(|()| Default::default())
}
