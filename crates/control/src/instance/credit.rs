//! The credit option of burstable instances: described and modified
//! (EC2 User Guide, "Burstable performance instances").

use super::Instance;
use crate::Context;
use crate::engine::Tables;
use crate::engine::describe::{self, Query};
use crate::engine::filter;
use crate::instance_type::{self, Burstable};
use aws_api::ec2;
use model::{Error, Id, InstanceState, Kind, Result};
use serde::{Deserialize, Serialize};

/// What a burstable instance does that has no credits left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CreditOption {
    Standard,
    Unlimited,
}

impl CreditOption {
    fn name(self) -> &'static str {
        match self {
            CreditOption::Standard => "standard",
            CreditOption::Unlimited => "unlimited",
        }
    }

    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "standard" => Ok(CreditOption::Standard),
            "unlimited" => Ok(CreditOption::Unlimited),
            other => Err(Error::invalid_parameter_value(format!(
                "Value ({other}) for parameter cpuCredits is invalid. Valid values are standard and unlimited."
            ))),
        }
    }
}

/// None where the type is not burstable, whatever was said at launch.
fn option_of(tables: &Tables, instance: &Instance) -> Option<CreditOption> {
    let burstable = instance_type::burstable(tables, &instance.instance_type)?;
    Some(match is_unlimited(instance, burstable) {
        true => CreditOption::Unlimited,
        false => CreditOption::Standard,
    })
}

/// As it was launched or modified, or as its type is without a word.
pub(super) fn is_unlimited(instance: &Instance, burstable: Burstable) -> bool {
    instance.cpu_credits.map_or(burstable.unlimited_by_default, |option| option == CreditOption::Unlimited)
}

/// Of the instances that are named; where none is, of those that are unlimited.
pub async fn describe_instance_credit_specifications(
    context: &Context,
    input: ec2::DescribeInstanceCreditSpecificationsRequest,
) -> Result<ec2::DescribeInstanceCreditSpecificationsResult> {
    let tables = context.tables();
    // Of an instance's own filters there is but this one.
    if let Some(filter) = input.filters.iter().find(|filter| filter.name.as_deref() != Some("instance-id")) {
        let name = filter.name.as_deref().unwrap_or_default();
        return Err(Error::invalid_parameter_value(format!("The filter '{name}' is invalid")));
    }
    let query = Query {
        ids: &input.instance_ids,
        filters: &input.filters,
        max_results: input.max_results,
        next_token: input.next_token.as_deref(),
        ids_name: "instanceIds",
    };
    let named = !input.instance_ids.is_empty();
    let visible = |instance: &Instance| {
        named || !instance.is_terminated() && option_of(&tables, instance) == Some(CreditOption::Unlimited)
    };
    let page =
        describe::select(&tables.instances, Kind::Instance, &query, visible, |instance, name, values| {
            name == "instance-id" && filter::one(values, instance.instance_id.as_str())
        })?;
    let to_api = |instance: &Instance| {
        let option = option_of(&tables, instance).ok_or_else(|| {
            Error::new("UnsupportedOperation", not_burstable(&instance.instance_id, &instance.instance_type))
        })?;
        Ok(ec2::InstanceCreditSpecification {
            instance_id: Some(instance.instance_id.to_string()),
            cpu_credits: Some(option.name().to_owned()),
        })
    };
    Ok(ec2::DescribeInstanceCreditSpecificationsResult {
        instance_credit_specifications: page
            .records
            .iter()
            .map(|instance| to_api(instance))
            .collect::<Result<_>>()?,
        next_token: page.next_token,
    })
}

fn not_burstable(id: &str, instance_type: &str) -> String {
    format!("The instance '{id}' is of the type {instance_type}, which has no CPU credits.")
}

/// Each instance for itself: the answer tells which were changed and why others were not.
pub async fn modify_instance_credit_specification(
    context: &Context,
    input: ec2::ModifyInstanceCreditSpecificationRequest,
) -> Result<ec2::ModifyInstanceCreditSpecificationResult> {
    let mut result = ec2::ModifyInstanceCreditSpecificationResult::default();
    let wanted = input.instance_credit_specifications.into_iter().map(|wanted| {
        let option = CreditOption::parse(wanted.cpu_credits.as_deref().unwrap_or_default())?;
        Ok((wanted.instance_id.unwrap_or_default(), option))
    });
    for (instance_id, option) in wanted.collect::<Result<Vec<_>>>()? {
        match modify(context, &instance_id, option).await {
            Ok(()) => result
                .successful_instance_credit_specifications
                .push(ec2::SuccessfulInstanceCreditSpecificationItem { instance_id: Some(instance_id) }),
            Err(error) if error.is_internal() => return Err(error),
            Err(error) => result.unsuccessful_instance_credit_specifications.push(
                ec2::UnsuccessfulInstanceCreditSpecificationItem {
                    instance_id: Some(instance_id),
                    error: Some(ec2::UnsuccessfulInstanceCreditSpecificationItemError {
                        code: Some(error.code.into_owned()),
                        message: Some(error.message),
                    }),
                },
            ),
        }
    }
    Ok(result)
}

async fn modify(context: &Context, id: &str, option: CreditOption) -> Result<()> {
    Id::parse(Kind::Instance, id)?;
    context
        .transact(|tx| {
            let before = tx.get::<Instance>(id).ok_or_else(|| Id::not_found(Kind::Instance, id))?;
            if option_of(tx.tables(), &before).is_none() {
                let message = not_burstable(id, &before.instance_type);
                return Err(Error::new("InstanceCreditSpecification.NotSupported", message));
            }
            if !matches!(before.state, InstanceState::Running | InstanceState::Stopped) {
                return Err(Error::new(
                    "IncorrectInstanceState",
                    format!("The instance '{id}' is neither running nor stopped."),
                ));
            }
            let mut instance = (*before).clone();
            instance.cpu_credits = Some(option);
            if instance != *before {
                tx.put(&instance);
            }
            Ok(())
        })
        .await
}
