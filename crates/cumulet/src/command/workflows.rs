//! `cumulet workflows`: long operations that are under way, their step, age and last error.

use crate::cloud::Locate;
use crate::query::{Client, RESERVED};
use crate::table;
use anyhow::Result;
use aws_api::cumulet::{ListWorkflowsResponse, Workflow};
use model::{Clock, SystemClock, Timestamp};
use percent_encoding::utf8_percent_encode;
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    locate: Locate,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let client = Client::new(args.locate.cloud()?)?;
    let now = SystemClock.now();
    let mut rows = Vec::new();
    let mut query = String::new();
    loop {
        let page: ListWorkflowsResponse = client.operator("/workflows", &query)?;
        rows.extend(page.workflows.into_iter().map(|workflow| row(workflow, now)));
        match page.next_token {
            Some(token) => query = format!("nextToken={}", utf8_percent_encode(&token, RESERVED)),
            None => break,
        }
    }
    let headings = ["KIND", "SUBJECT", "STEP", "AGE", "ATTEMPTS", "REQUEST", "LAST ERROR"];
    print!("{}", table::render(headings, &rows));
    Ok(ExitCode::SUCCESS)
}

fn row(workflow: Workflow, now: Timestamp) -> [String; 7] {
    let age = workflow.begun_at.map(|begun_at| now.duration_since(begun_at).as_secs());
    [
        workflow.kind.unwrap_or_default(),
        workflow.subject.unwrap_or_default(),
        workflow.step.unwrap_or_default(),
        format!("{} s", age.unwrap_or_default()),
        workflow.attempts.unwrap_or_default().to_string(),
        workflow.request_id.unwrap_or_else(|| "-".into()),
        workflow.last_error.unwrap_or_else(|| "-".into()),
    ]
}
