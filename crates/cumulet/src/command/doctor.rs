//! `cumulet doctor`: what this host can do for guests, and what to do about what it cannot.

use crate::serve::machine;
use anyhow::Result;
use host::doctor::{self, Finding, State};
use host::net::LinuxNetwork;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Args {
    /// The cloud's data directory: its disk is looked at, and proofs are kept there
    #[arg(long, env = "CUMULET_DATA_DIR", value_name = "DIR", default_value = crate::config::DATA_DIR)]
    data_dir: PathBuf,
}

/// Succeeds where instances can run.
pub fn run(args: Args) -> Result<ExitCode> {
    let mut findings = doctor::examine(&args.data_dir);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let network = LinuxNetwork::new(machine::network_options(crate::config::PUBLIC_POOL, &args.data_dir))?;
    for diagnosis in runtime.block_on(network.diagnose())? {
        let state = if diagnosis.is_well() { State::Good } else { State::Warning };
        findings.push(Finding {
            what: "network".into(),
            state,
            detail: diagnosis.what,
            advice: diagnosis.remedy,
        });
    }
    for finding in &findings {
        let mark = match finding.state {
            State::Good => "ok      ",
            State::Warning => "warning ",
            State::Bad => "BAD     ",
        };
        println!("{mark} {}: {}", finding.what, finding.detail);
        if let Some(advice) = &finding.advice {
            println!("         → {advice}");
        }
    }
    let usable = findings.iter().all(|finding| finding.state != State::Bad);
    println!("{}", if usable { "Instances can run here." } else { "Instances can't run here yet." });
    Ok(if usable { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
