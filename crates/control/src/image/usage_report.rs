//! Reports of how an image is used: which accounts' resources refer to it, and how many, when the report was made
//! (EC2 User Guide, "View your AMI usage").

use super::usage::{ABSENT, INSTANCE, invalid};
use super::{Image, attribute};
use crate::Context;
use crate::engine::describe::{self, Query, page_of};
use crate::engine::filter;
use crate::engine::table::{Record, Values};
use crate::engine::tags::{Specified, Tags};
use aws_api::ec2;
use model::{AccountId, Error, Id, Kind, Result, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a report is kept.
pub const KEPT_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// (EC2 API Reference, CreateImageUsageReport.)
const ACCOUNTS_MAX: usize = 200;
/// How many versions of launch templates are looked at.
const VERSION_DEPTH: &str = "version-depth";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageUsageReport {
    pub report_id: Id,
    pub image_id: Id,
    pub resource_types: Vec<ReportedType>,
    /// Of these accounts only; of all where it is empty.
    pub account_ids: Vec<AccountId>,
    pub entries: Vec<Entry>,
    pub created_at: Timestamp,
    pub tags: Tags,
}

/// As it was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReportedType {
    name: String,
    /// Names and values.
    options: Vec<(String, Vec<String>)>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    account: AccountId,
    resource_type: String,
    count: u32,
}

impl Record for ImageUsageReport {
    const TABLE: &'static str = "image-usage-report";
    const INDEXED: &'static [&'static str] = &[];

    fn id(&self) -> &str {
        &self.report_id
    }

    fn tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }

    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        match name {
            "creation-time" => filter::one(values, filter::time(self.created_at)),
            "state" => filter::one(values, "available"),
            _ => false,
        }
    }
}

pub async fn create_image_usage_report(
    context: &Context,
    input: ec2::CreateImageUsageReportRequest,
) -> Result<ec2::CreateImageUsageReportResult> {
    let image_id = Id::parse(Kind::Image, input.image_id.as_deref().unwrap_or_default())?;
    let resource_types = resource_types(&input.resource_types)?;
    if input.account_ids.len() > ACCOUNTS_MAX {
        return Err(Error::invalid_parameter_value(format!(
            "At most {ACCOUNTS_MAX} accounts can be reported on."
        )));
    }
    let account = |id: &String| id.parse::<AccountId>().map_err(|_| invalid("accountId", id));
    let account_ids: Vec<AccountId> = input.account_ids.iter().map(account).collect::<Result<_>>()?;
    let tags = Specified::from_api(&input.tag_specifications, &[Kind::ImageUsageReport])?;
    let idempotent = context.idempotent()?;
    let report_id = context
        .transact(|tx| {
            if let Some(made) = idempotent.made_before(tx)? {
                return Ok(made.concat());
            }
            let image = tx.get::<Image>(&image_id).ok_or_else(|| Id::not_found(Kind::Image, &image_id))?;
            attribute::check_owner(context, &image)?;
            let mut users: BTreeMap<AccountId, u32> = BTreeMap::new();
            if resource_types.iter().any(|reported| reported.name == INSTANCE) {
                for instance in tx.tables().instances.with("image-id", &image_id) {
                    *users.entry(instance.owner.clone()).or_default() += 1;
                }
            }
            users.retain(|account, _| account_ids.is_empty() || account_ids.contains(account));
            let entry = |(account, count)| Entry { account, resource_type: INSTANCE.into(), count };
            let report = ImageUsageReport {
                report_id: tx.new_id(Kind::ImageUsageReport),
                image_id: image_id.clone(),
                resource_types: resource_types.clone(),
                account_ids: account_ids.clone(),
                entries: users.into_iter().map(entry).collect(),
                created_at: tx.now(),
                tags: tags.of(Kind::ImageUsageReport),
            };
            tx.create(&report);
            idempotent.remember(tx, vec![report.report_id.to_string()]);
            Ok(report.report_id.to_string())
        })
        .await?;
    Ok(ec2::CreateImageUsageReportResult { report_id: Some(report_id) })
}

fn resource_types(asked: &[ec2::ImageUsageResourceTypeRequest]) -> Result<Vec<ReportedType>> {
    if asked.is_empty() {
        return Err(Error::missing_parameter("ResourceTypes"));
    }
    let mut types: Vec<ReportedType> = Vec::new();
    for request in asked {
        let name = request.resource_type.as_deref().unwrap_or_default();
        // Parameters of Systems Manager are for DescribeImageReferences alone.
        let is_known = name == INSTANCE || (ABSENT.contains(&name) && !name.starts_with("ssm:"));
        if !is_known || types.iter().any(|reported| reported.name == name) {
            return Err(invalid("resourceType", name));
        }
        let mut options = Vec::new();
        for option in &request.resource_type_options {
            let option_name = option.option_name.as_deref().unwrap_or_default();
            let has_depth = name == "ec2:LaunchTemplate" && option_name == VERSION_DEPTH;
            if !has_depth {
                return Err(invalid("optionName", option_name));
            }
            let is_depth =
                |value: &String| value.parse::<u32>().is_ok_and(|depth| (1..=10_000).contains(&depth));
            if let Some(value) = option.option_values.iter().find(|value| !is_depth(value)) {
                return Err(invalid("optionValue", value));
            }
            options.push((option_name.to_owned(), option.option_values.clone()));
        }
        types.push(ReportedType { name: name.to_owned(), options });
    }
    Ok(types)
}

pub async fn describe_image_usage_reports(
    context: &Context,
    input: ec2::DescribeImageUsageReportsRequest,
) -> Result<ec2::DescribeImageUsageReportsResult> {
    let tables = context.tables();
    let query = Query {
        ids: &input.report_ids,
        filters: &input.filters,
        max_results: input.max_results,
        next_token: input.next_token.as_deref(),
        ids_name: "reportIds",
    };
    check_images(&input.image_ids)?;
    let page = describe::select(
        &tables.image_usage_reports,
        Kind::ImageUsageReport,
        &query,
        |report| is_about(report, &input.image_ids),
        |_, _, _| false,
    )?;
    Ok(ec2::DescribeImageUsageReportsResult {
        image_usage_reports: page.records.iter().map(|report| to_api(report)).collect(),
        next_token: page.next_token,
    })
}

fn check_images(image_ids: &[String]) -> Result<()> {
    image_ids.iter().try_for_each(|id| Id::parse(Kind::Image, id).map(drop))
}

fn is_about(report: &ImageUsageReport, image_ids: &[String]) -> bool {
    image_ids.is_empty() || image_ids.iter().any(|id| *id == *report.image_id)
}

fn to_api(report: &ImageUsageReport) -> ec2::ImageUsageReport {
    let option = |(name, values): &(String, Vec<String>)| ec2::ImageUsageResourceTypeOption {
        option_name: Some(name.clone()),
        option_values: values.clone(),
    };
    let reported = |reported: &ReportedType| ec2::ImageUsageResourceType {
        resource_type: Some(reported.name.clone()),
        resource_type_options: reported.options.iter().map(option).collect(),
    };
    ec2::ImageUsageReport {
        image_id: Some(report.image_id.to_string()),
        report_id: Some(report.report_id.to_string()),
        resource_types: report.resource_types.iter().map(reported).collect(),
        account_ids: report.account_ids.iter().map(|id| id.to_string()).collect(),
        state: Some("available".into()),
        creation_time: Some(report.created_at),
        expiration_time: report.created_at.checked_add(KEPT_FOR).ok(),
        tags: report.tags.to_api(),
        ..Default::default()
    }
}

pub async fn describe_image_usage_report_entries(
    context: &Context,
    input: ec2::DescribeImageUsageReportEntriesRequest,
) -> Result<ec2::DescribeImageUsageReportEntriesResult> {
    check_images(&input.image_ids)?;
    let tables = context.tables();
    let reports = describe::select_all(
        &tables.image_usage_reports,
        Kind::ImageUsageReport,
        &input.report_ids,
        &[],
        |_, _, _| false,
    )?;
    let filters = filter::parse(&input.filters)?;
    let mut found = Vec::new();
    for report in reports.iter().filter(|report| is_about(report, &input.image_ids)) {
        for entry in &report.entries {
            let passes = filter::passes(&filters, |name, values| match name {
                "account-id" => filter::one(values, entry.account.as_str()),
                "creation-time" => filter::one(values, filter::time(report.created_at)),
                "resource-type" => filter::one(values, entry.resource_type.as_str()),
                _ => false,
            })?;
            if passes {
                found.push((&**report, entry));
            }
        }
    }
    let key = |(report, entry): &(&ImageUsageReport, &Entry)| {
        format!("{}/{}/{}", report.report_id, entry.account, entry.resource_type)
    };
    let (page, next_token) =
        page_of(&found, key, &input.filters, input.max_results, input.next_token.as_deref())?;
    let to_api = |(report, entry): &(&ImageUsageReport, &Entry)| ec2::ImageUsageReportEntry {
        resource_type: Some(entry.resource_type.clone()),
        report_id: Some(report.report_id.to_string()),
        usage_count: Some(entry.count.into()),
        account_id: Some(entry.account.to_string()),
        image_id: Some(report.image_id.to_string()),
        report_creation_time: Some(report.created_at),
    };
    Ok(ec2::DescribeImageUsageReportEntriesResult {
        image_usage_report_entries: page.iter().map(to_api).collect(),
        next_token,
    })
}

pub async fn delete_image_usage_report(
    context: &Context,
    input: ec2::DeleteImageUsageReportRequest,
) -> Result<ec2::DeleteImageUsageReportResult> {
    let id = Id::parse(Kind::ImageUsageReport, input.report_id.as_deref().unwrap_or_default())?;
    context
        .transact(|tx| {
            tx.get::<ImageUsageReport>(&id).ok_or_else(|| Id::not_found(Kind::ImageUsageReport, &id))?;
            tx.delete::<ImageUsageReport>(&id);
            Ok(())
        })
        .await?;
    Ok(ec2::DeleteImageUsageReportResult { r#return: Some(true) })
}
