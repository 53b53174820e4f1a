//! `cumulet doctor`.

use crate::cloud::Locate;
use anyhow::Result;
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    locate: Locate,
}

pub fn run(_: Args) -> Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
