//! Replacements of a running instance's root volume (EC2 User Guide, "Replace the root volume for an Amazon EC2 instance
//! without stopping it").

use crate::Context;
use crate::engine::describe::{self, Query};
use crate::engine::table::{Record, Values};
use crate::engine::{Tags, filter};
use aws_api::ec2;
use model::{Id, Kind, Result, Timestamp};
use serde::{Deserialize, Serialize};

mod create;

pub use create::{ReplaceRootVolume, create_replace_root_volume_task};

/// Kept as long as the instance: they say what its root volumes were.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplaceRootVolumeTask {
    pub task_id: Id,
    pub instance_id: Id,
    pub state: TaskState,
    /// That the new volume is made of; none where it begins empty.
    pub snapshot_id: Option<Id>,
    /// Whose root it is, where one was asked for.
    pub image_id: Option<Id>,
    pub replaced_volume_id: Id,
    /// That the instance's first root volume was made of.
    pub launch_snapshot_id: Option<Id>,
    pub delete_replaced: bool,
    pub started_at: Timestamp,
    pub completed_at: Option<Timestamp>,
    pub tags: Tags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskState {
    Pending,
    InProgress,
    Succeeded,
    Failed,
}

impl TaskState {
    fn name(self) -> &'static str {
        match self {
            TaskState::Pending => "pending",
            TaskState::InProgress => "in-progress",
            TaskState::Succeeded => "succeeded",
            TaskState::Failed => "failed",
        }
    }
}

/// The index of an instance's tasks.
const INSTANCE_ID: &str = "instance-id";

impl Record for ReplaceRootVolumeTask {
    const TABLE: &'static str = "replace-root-volume-task";
    const INDEXED: &'static [&'static str] = &[INSTANCE_ID];

    fn id(&self) -> &str {
        &self.task_id
    }

    fn tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }

    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        match name {
            INSTANCE_ID => filter::one(values, self.instance_id.as_str()),
            _ => false,
        }
    }
}

pub async fn describe_replace_root_volume_tasks(
    context: &Context,
    input: ec2::DescribeReplaceRootVolumeTasksRequest,
) -> Result<ec2::DescribeReplaceRootVolumeTasksResult> {
    let tables = context.tables();
    let query = Query {
        ids: &input.replace_root_volume_task_ids,
        filters: &input.filters,
        max_results: input.max_results,
        next_token: input.next_token.as_deref(),
        ids_name: "replaceRootVolumeTaskIds",
    };
    let page = describe::select(
        &tables.replace_root_volume_tasks,
        Kind::ReplaceRootVolumeTask,
        &query,
        |_| true,
        |_, _, _| false,
    )?;
    Ok(ec2::DescribeReplaceRootVolumeTasksResult {
        replace_root_volume_tasks: page.records.iter().map(|task| to_api(task)).collect(),
        next_token: page.next_token,
    })
}

fn to_api(task: &ReplaceRootVolumeTask) -> ec2::ReplaceRootVolumeTask {
    ec2::ReplaceRootVolumeTask {
        replace_root_volume_task_id: Some(task.task_id.to_string()),
        instance_id: Some(task.instance_id.to_string()),
        task_state: Some(task.state.name().into()),
        start_time: Some(filter::time(task.started_at)),
        complete_time: task.completed_at.map(filter::time),
        tags: task.tags.to_api(),
        image_id: task.image_id.as_ref().map(|id| id.to_string()),
        snapshot_id: task.snapshot_id.as_ref().map(|id| id.to_string()),
        delete_replaced_root_volume: Some(task.delete_replaced),
    }
}
