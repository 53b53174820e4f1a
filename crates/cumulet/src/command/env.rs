//! `cumulet env`: the environment that AWS clients need.

use crate::cloud::Locate;
use anyhow::Result;
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    locate: Locate,
}

pub fn run(args: Args) -> Result<ExitCode> {
    print!("{}", args.locate.cloud()?.exports());
    Ok(ExitCode::SUCCESS)
}
