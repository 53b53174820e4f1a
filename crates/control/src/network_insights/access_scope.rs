//! Network access scopes: which ways through the network are looked for, and what was found (Network Access Analyzer
//! Guide).
//!
//! A scope says between what and by what a way leads that is worth telling; its analyses hold the ways as they were when
//! they were asked for.

mod analysis;
mod search;
mod statement;

pub use analysis::{
    delete_network_insights_access_scope_analysis, describe_network_insights_access_scope_analyses,
    get_network_insights_access_scope_analysis_findings, start_network_insights_access_scope_analysis,
};

use crate::Context;
use crate::engine::describe::{self, Query};
use crate::engine::table::{Record, Values};
use crate::engine::tags::Specified;
use crate::engine::{Tags, filter};
use aws_api::ec2;
use datapath::trace::Path;
use model::{AccountId, Error, Id, Kind, Result, Text, Timestamp};
use serde::{Deserialize, Serialize};
use statement::ScopePath;

/// Paths of each kind in a scope.
const PATHS_MAX: usize = 50;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkInsightsAccessScope {
    pub scope_id: Id,
    pub owner: AccountId,
    pub matches: Vec<ScopePath>,
    pub excludes: Vec<ScopePath>,
    pub created_at: Timestamp,
    pub tags: Tags,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkInsightsAccessScopeAnalysis {
    pub analysis_id: Id,
    pub owner: AccountId,
    pub scope_id: Id,
    pub started_at: Timestamp,
    /// The ways that were found.
    pub findings: Vec<Path>,
    /// Why there may be more of them.
    pub warning: Option<Text>,
    /// How many interfaces were looked at.
    pub interfaces: usize,
    pub tags: Tags,
}

impl NetworkInsightsAccessScopeAnalysis {
    fn findings_found(&self) -> &'static str {
        match (self.findings.is_empty(), &self.warning) {
            (false, _) => "true",
            (true, None) => "false",
            (true, Some(_)) => "unknown",
        }
    }
}

impl Record for NetworkInsightsAccessScope {
    const TABLE: &'static str = "network-insights-access-scope";
    const INDEXED: &'static [&'static str] = &[];

    fn id(&self) -> &str {
        &self.scope_id
    }

    fn tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }

    fn field<'a>(&'a self, _: &str, _: &mut Values<'a>) -> bool {
        false
    }
}

impl Record for NetworkInsightsAccessScopeAnalysis {
    const TABLE: &'static str = "network-insights-access-scope-analysis";
    const INDEXED: &'static [&'static str] = &["cumulet:scope-id"];

    fn id(&self) -> &str {
        &self.analysis_id
    }

    fn tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }

    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        match name {
            "cumulet:scope-id" => filter::one(values, self.scope_id.as_str()),
            "findings-found" => filter::one(values, self.findings_found()),
            "status" => filter::one(values, "succeeded"),
            _ => false,
        }
    }
}

pub async fn create_network_insights_access_scope(
    context: &Context,
    input: ec2::CreateNetworkInsightsAccessScopeRequest,
) -> Result<ec2::CreateNetworkInsightsAccessScopeResult> {
    if input.match_paths.is_empty() {
        return Err(Error::missing_parameter("MatchPath"));
    }
    let paths = |asked: Vec<ec2::AccessScopePathRequest>| match asked.len() > PATHS_MAX {
        true => Err(Error::invalid_parameter_value(format!(
            "A scope has at most {PATHS_MAX} paths to match, and as many to exclude."
        ))),
        false => asked.into_iter().map(ScopePath::from_api).collect::<Result<Vec<_>>>(),
    };
    let (matches, excludes) = (paths(input.match_paths)?, paths(input.exclude_paths)?);
    let kind = Kind::NetworkInsightsAccessScope;
    let tags = Specified::from_api(&input.tag_specifications, &[kind])?;
    let idempotent = context.idempotent()?;
    let id = context
        .transact(|tx| {
            if let Some(made) = idempotent.made_before(tx)? {
                return Ok(made.concat());
            }
            let scope = NetworkInsightsAccessScope {
                scope_id: tx.new_id(kind),
                owner: context.account().clone(),
                matches: matches.clone(),
                excludes: excludes.clone(),
                created_at: tx.now(),
                tags: tags.of(kind),
            };
            tx.create(&scope);
            idempotent.remember(tx, vec![scope.scope_id.to_string()]);
            Ok(scope.scope_id.to_string())
        })
        .await?;
    let tables = context.tables();
    let made = tables.network_insights_access_scopes.find(&id);
    let made = made.ok_or_else(|| Id::not_found(kind, &id))?;
    Ok(ec2::CreateNetworkInsightsAccessScopeResult {
        network_insights_access_scope: Some(to_api(context, made)),
        network_insights_access_scope_content: Some(content_to_api(made)),
    })
}

pub async fn describe_network_insights_access_scopes(
    context: &Context,
    input: ec2::DescribeNetworkInsightsAccessScopesRequest,
) -> Result<ec2::DescribeNetworkInsightsAccessScopesResult> {
    let tables = context.tables();
    let query = Query {
        ids: &input.network_insights_access_scope_ids,
        filters: &input.filters,
        max_results: input.max_results,
        next_token: input.next_token.as_deref(),
        ids_name: "networkInsightsAccessScopeIds",
    };
    let kind = Kind::NetworkInsightsAccessScope;
    let page =
        describe::select(&tables.network_insights_access_scopes, kind, &query, |_| true, |_, _, _| false)?;
    Ok(ec2::DescribeNetworkInsightsAccessScopesResult {
        network_insights_access_scopes: page.records.iter().map(|scope| to_api(context, scope)).collect(),
        next_token: page.next_token,
    })
}

pub async fn get_network_insights_access_scope_content(
    context: &Context,
    input: ec2::GetNetworkInsightsAccessScopeContentRequest,
) -> Result<ec2::GetNetworkInsightsAccessScopeContentResult> {
    let kind = Kind::NetworkInsightsAccessScope;
    let id = Id::parse(kind, input.network_insights_access_scope_id.as_deref().unwrap_or_default())?;
    let tables = context.tables();
    let scope = tables.network_insights_access_scopes.find(&id).ok_or_else(|| Id::not_found(kind, &id))?;
    Ok(ec2::GetNetworkInsightsAccessScopeContentResult {
        network_insights_access_scope_content: Some(content_to_api(scope)),
    })
}

pub async fn delete_network_insights_access_scope(
    context: &Context,
    input: ec2::DeleteNetworkInsightsAccessScopeRequest,
) -> Result<ec2::DeleteNetworkInsightsAccessScopeResult> {
    let kind = Kind::NetworkInsightsAccessScope;
    let id = Id::parse(kind, &input.network_insights_access_scope_id.unwrap_or_default())?;
    context
        .transact(|tx| {
            let scope = tx.get::<NetworkInsightsAccessScope>(&id);
            scope.ok_or_else(|| Id::not_found(kind, &id))?;
            if tx.tables().network_insights_access_scope_analyses.count("cumulet:scope-id", &id) > 0 {
                return Err(Error::new(
                    "AnalysisExistsForNetworkInsightsAccessScope",
                    format!("There are analyses of the scope '{id}', which have to be deleted first."),
                ));
            }
            tx.delete::<NetworkInsightsAccessScope>(&id);
            Ok(())
        })
        .await?;
    Ok(ec2::DeleteNetworkInsightsAccessScopeResult { network_insights_access_scope_id: Some(id.to_string()) })
}

fn to_api(context: &Context, scope: &NetworkInsightsAccessScope) -> ec2::NetworkInsightsAccessScope {
    ec2::NetworkInsightsAccessScope {
        network_insights_access_scope_id: Some(scope.scope_id.to_string()),
        network_insights_access_scope_arn: Some(
            context.arn("network-insights-access-scope", &scope.scope_id),
        ),
        created_date: Some(scope.created_at),
        updated_date: Some(scope.created_at),
        tags: scope.tags.to_api(),
    }
}

fn content_to_api(scope: &NetworkInsightsAccessScope) -> ec2::NetworkInsightsAccessScopeContent {
    ec2::NetworkInsightsAccessScopeContent {
        network_insights_access_scope_id: Some(scope.scope_id.to_string()),
        match_paths: scope.matches.iter().map(ScopePath::to_api).collect(),
        exclude_paths: scope.excludes.iter().map(ScopePath::to_api).collect(),
    }
}
