//! `cumulet events`: what happened lately, and with `--follow` what happens.

use crate::cloud::Locate;
use crate::query::Client;
use anyhow::Result;
use aws_api::cumulet::{Event, ListEventsResponse};
use std::io::Write;
use std::process::ExitCode;

/// How long one request waits for an event.
const PATIENCE_S: u32 = 30;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    locate: Locate,
    /// Go on showing what happens
    #[arg(short, long)]
    follow: bool,
    /// How many of the newest to begin with
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    newest: u32,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let client = Client::new(args.locate.cloud()?)?;
    let mut query = format!("newest={0}&maxResults={0}", args.newest);
    let mut last = 0;
    loop {
        let page: ListEventsResponse = client.operator("/events", &query)?;
        let mut out = std::io::stdout().lock();
        for event in page.events {
            last = event.number.unwrap_or(last);
            writeln!(out, "{}", line(event))?;
        }
        out.flush()?;
        if !args.follow {
            return Ok(ExitCode::SUCCESS);
        }
        query = format!("after={last}&patienceSeconds={PATIENCE_S}");
    }
}

fn line(event: Event) -> String {
    let at = event.at.map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    let request = event.request_id.map(|id| format!("  [{id}]"));
    format!(
        "{}  {:<17} {:<24} {}{}",
        at.unwrap_or_default(),
        event.kind.unwrap_or_default(),
        event.id.unwrap_or_default(),
        event.message.unwrap_or_default(),
        request.unwrap_or_default()
    )
}
