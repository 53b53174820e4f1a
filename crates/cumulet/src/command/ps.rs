//! `cumulet ps`: instances at a glance.

use crate::cloud::Locate;
use crate::query::Client;
use crate::{command, table};
use anyhow::Result;
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    locate: Locate,
    /// Terminated instances too
    #[arg(short, long)]
    all: bool,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let client = Client::new(args.locate.cloud()?)?;
    let mut rows = Vec::new();
    let mut next_token = String::new();
    loop {
        let mut parameters = vec![("MaxResults", "1000")];
        if !next_token.is_empty() {
            parameters.push(("NextToken", &next_token));
        }
        let answer = client.ec2("DescribeInstances", &parameters)?;
        for instance in command::instances(&answer) {
            let state =
                instance.child("instanceState").map(|state| state.text_of("name")).unwrap_or_default();
            if state == "terminated" && !args.all {
                continue;
            }
            let zone = instance.child("placement").map(|placement| placement.text_of("availabilityZone"));
            rows.push([
                instance.text_of("instanceId").to_owned(),
                command::tag(instance, "Name").unwrap_or("-").to_owned(),
                state.to_owned(),
                instance.text_of("instanceType").to_owned(),
                or_dash(match instance.text_of("privateIpAddress") {
                    "" => instance.text_of("ipv6Address"),
                    address => address,
                }),
                or_dash(instance.text_of("ipAddress")),
                or_dash(zone.unwrap_or_default()),
                instance.text_of("launchTime").get(..19).unwrap_or_default().replace('T', " "),
            ]);
        }
        next_token = answer.text_of("nextToken").to_owned();
        if next_token.is_empty() {
            break;
        }
    }
    let headings = ["INSTANCE", "NAME", "STATE", "TYPE", "PRIVATE IP", "PUBLIC IP", "ZONE", "LAUNCHED (UTC)"];
    print!("{}", table::render(headings, &rows));
    Ok(ExitCode::SUCCESS)
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".into() } else { text.to_owned() }
}
