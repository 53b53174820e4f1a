//! StartNetworkInsightsAccessScopeAnalysis, DescribeNetworkInsightsAccessScopeAnalyses,
//! DeleteNetworkInsightsAccessScopeAnalysis, GetNetworkInsightsAccessScopeAnalysisFindings.

use super::super::ground::Records;
use super::super::shown;
use super::search::search;
use super::{NetworkInsightsAccessScope, NetworkInsightsAccessScopeAnalysis};
use crate::Context;
use crate::engine::describe::{self, Query};
use crate::engine::tags::Specified;
use aws_api::ec2;
use model::{Error, Id, Kind, Result};

/// The findings of a page.
const PAGE_MAX: i32 = 1_000;

/// The answer is there at once: what is asked for is a bounded search through records.
pub async fn start_network_insights_access_scope_analysis(
    context: &Context,
    input: ec2::StartNetworkInsightsAccessScopeAnalysisRequest,
) -> Result<ec2::StartNetworkInsightsAccessScopeAnalysisResult> {
    let (of, kind) = (Kind::NetworkInsightsAccessScope, Kind::NetworkInsightsAccessScopeAnalysis);
    let scope_id = Id::parse(of, input.network_insights_access_scope_id.as_deref().unwrap_or_default())?;
    let tags = Specified::from_api(&input.tag_specifications, &[kind])?;
    let idempotent = context.idempotent()?;
    let region = &context.region.view.region;
    let id = context
        .transact(|tx| {
            if let Some(made) = idempotent.made_before(tx)? {
                return Ok(made.concat());
            }
            let scope = tx.get::<NetworkInsightsAccessScope>(&scope_id);
            let scope = scope.ok_or_else(|| Id::not_found(of, &scope_id))?;
            let found = search(&Records { tables: tx.tables(), region }, &scope);
            let analysis = NetworkInsightsAccessScopeAnalysis {
                analysis_id: tx.new_id(kind),
                owner: context.account().clone(),
                scope_id: scope_id.clone(),
                started_at: tx.now(),
                findings: found.findings,
                warning: found.warning,
                interfaces: found.interfaces,
                tags: tags.of(kind),
            };
            tx.create(&analysis);
            idempotent.remember(tx, vec![analysis.analysis_id.to_string()]);
            Ok(analysis.analysis_id.to_string())
        })
        .await?;
    let tables = context.tables();
    let made = tables.network_insights_access_scope_analyses.find(&id);
    let made = made.ok_or_else(|| Id::not_found(kind, &id))?;
    // As EC2 says of one that it has just begun.
    let begun = ec2::NetworkInsightsAccessScopeAnalysis {
        status: Some("running".into()),
        warning_message: None,
        end_date: None,
        findings_found: None,
        analyzed_eni_count: None,
        ..to_api(context, made)
    };
    Ok(ec2::StartNetworkInsightsAccessScopeAnalysisResult {
        network_insights_access_scope_analysis: Some(begun),
    })
}

pub async fn describe_network_insights_access_scope_analyses(
    context: &Context,
    input: ec2::DescribeNetworkInsightsAccessScopeAnalysesRequest,
) -> Result<ec2::DescribeNetworkInsightsAccessScopeAnalysesResult> {
    let tables = context.tables();
    let query = Query {
        ids: &input.network_insights_access_scope_analysis_ids,
        filters: &input.filters,
        max_results: input.max_results,
        next_token: input.next_token.as_deref(),
        ids_name: "networkInsightsAccessScopeAnalysisIds",
    };
    let scope_id = input.network_insights_access_scope_id.as_deref();
    let scope_id = scope_id.map(|id| Id::parse(Kind::NetworkInsightsAccessScope, id)).transpose()?;
    let is_meant = |analysis: &NetworkInsightsAccessScopeAnalysis| {
        scope_id.as_ref().is_none_or(|id| analysis.scope_id == *id)
            && input.analysis_start_time_begin.is_none_or(|from| analysis.started_at >= from)
            && input.analysis_start_time_end.is_none_or(|to| analysis.started_at <= to)
    };
    let page = describe::select(
        &tables.network_insights_access_scope_analyses,
        Kind::NetworkInsightsAccessScopeAnalysis,
        &query,
        is_meant,
        |_, _, _| false,
    )?;
    let analyses = page.records.iter().map(|analysis| to_api(context, analysis));
    Ok(ec2::DescribeNetworkInsightsAccessScopeAnalysesResult {
        network_insights_access_scope_analyses: analyses.collect(),
        next_token: page.next_token,
    })
}

fn to_api(
    context: &Context,
    analysis: &NetworkInsightsAccessScopeAnalysis,
) -> ec2::NetworkInsightsAccessScopeAnalysis {
    let id = &analysis.analysis_id;
    ec2::NetworkInsightsAccessScopeAnalysis {
        network_insights_access_scope_analysis_id: Some(id.to_string()),
        network_insights_access_scope_analysis_arn: Some(
            context.arn("network-insights-access-scope-analysis", id),
        ),
        network_insights_access_scope_id: Some(analysis.scope_id.to_string()),
        status: Some("succeeded".into()),
        warning_message: analysis.warning.as_ref().map(ToString::to_string),
        start_date: Some(analysis.started_at),
        end_date: Some(analysis.started_at),
        findings_found: Some(analysis.findings_found().into()),
        analyzed_eni_count: i32::try_from(analysis.interfaces).ok(),
        tags: analysis.tags.to_api(),
        ..Default::default()
    }
}

pub async fn get_network_insights_access_scope_analysis_findings(
    context: &Context,
    input: ec2::GetNetworkInsightsAccessScopeAnalysisFindingsRequest,
) -> Result<ec2::GetNetworkInsightsAccessScopeAnalysisFindingsResult> {
    let kind = Kind::NetworkInsightsAccessScopeAnalysis;
    let id = input.network_insights_access_scope_analysis_id.as_deref().unwrap_or_default();
    let id = Id::parse(kind, id)?;
    let limit = input.max_results.unwrap_or(PAGE_MAX);
    let limit = usize::try_from(limit).ok().filter(|_| (1..=PAGE_MAX).contains(&limit));
    let limit = limit.ok_or_else(|| {
        Error::invalid_parameter_value(format!("MaxResults must be between 1 and {PAGE_MAX}."))
    })?;
    // Findings never change, so that a token is how many were shown.
    let shown = input.next_token.as_deref().map(str::parse::<usize>).transpose();
    let shown = shown.map_err(|_| Error::new("InvalidNextToken", "The token is not valid."))?.unwrap_or(0);
    let tables = context.tables();
    let analysis = tables.network_insights_access_scope_analyses.find(&id);
    let analysis = analysis.ok_or_else(|| Id::not_found(kind, &id))?.clone();
    drop(tables);
    let numbered = (1..).zip(&analysis.findings).skip(shown).take(limit);
    let findings = numbered.map(|(number, path): (usize, _)| ec2::AccessScopeAnalysisFinding {
        network_insights_access_scope_analysis_id: Some(id.to_string()),
        network_insights_access_scope_id: Some(analysis.scope_id.to_string()),
        finding_id: Some(format!("AnalysisFinding-{number}")),
        finding_components: shown::components(context, path),
    });
    let findings: Vec<_> = findings.collect();
    let next = shown.saturating_add(findings.len());
    Ok(ec2::GetNetworkInsightsAccessScopeAnalysisFindingsResult {
        network_insights_access_scope_analysis_id: Some(id.to_string()),
        analysis_status: Some("succeeded".into()),
        analysis_findings: findings,
        next_token: (next < analysis.findings.len()).then(|| next.to_string()),
    })
}

pub async fn delete_network_insights_access_scope_analysis(
    context: &Context,
    input: ec2::DeleteNetworkInsightsAccessScopeAnalysisRequest,
) -> Result<ec2::DeleteNetworkInsightsAccessScopeAnalysisResult> {
    let kind = Kind::NetworkInsightsAccessScopeAnalysis;
    let id = Id::parse(kind, &input.network_insights_access_scope_analysis_id.unwrap_or_default())?;
    context
        .transact(|tx| {
            let found = tx.get::<NetworkInsightsAccessScopeAnalysis>(&id);
            found.ok_or_else(|| Id::not_found(kind, &id))?;
            tx.delete::<NetworkInsightsAccessScopeAnalysis>(&id);
            Ok(())
        })
        .await?;
    Ok(ec2::DeleteNetworkInsightsAccessScopeAnalysisResult {
        network_insights_access_scope_analysis_id: Some(id.to_string()),
    })
}
