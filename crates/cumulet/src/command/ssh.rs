//! `cumulet ssh`: a shell on an instance, with the key that the cloud's owner keeps.

use crate::cloud::Locate;
use crate::command;
use crate::query::Client;
use anyhow::{Result, anyhow, bail};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    locate: Locate,
    /// The instance: i-…
    instance: String,
    /// User to log in as
    #[arg(short, long, default_value = "admin")]
    login: String,
    /// Private key [default: DATA_DIR/keys/KEY-PAIR.pem where it is there, else ssh's own choice]
    #[arg(short, long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// Passed on to ssh
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let client = Client::new(args.locate.cloud()?)?;
    let answer = client.ec2("DescribeInstances", &[("InstanceId.1", &args.instance)])?;
    let instance =
        command::instances(&answer).next().ok_or_else(|| anyhow!("{} is not there", args.instance))?;
    // Those of IPv6 are the same outside as in.
    let mut addresses = ["ipAddress", "ipv6Address"].map(|name| instance.text_of(name)).into_iter();
    let Some(address) = addresses.find(|address| !address.is_empty()) else {
        let state = instance.child("instanceState").map(|state| state.text_of("name")).unwrap_or_default();
        bail!("{} is {state} and has no public address", args.instance);
    };
    let mut ssh = Command::new("ssh");
    let data_dir = args.locate.data_dir.clone().unwrap_or_else(|| crate::config::DATA_DIR.into());
    let kept = data_dir.join("keys").join(format!("{}.pem", instance.text_of("keyName")));
    if let Some(identity) = args.identity.or_else(|| kept.exists().then_some(kept)) {
        ssh.arg("-i").arg(identity);
    }
    // Each instance has its own host keys, and addresses come back: known by instance, not by address.
    ssh.arg("-o").arg(format!("HostKeyAlias={}", args.instance));
    ssh.arg("-o").arg("StrictHostKeyChecking=accept-new");
    ssh.arg(format!("{}@{address}", args.login)).args(&args.rest);
    // Returns only where ssh cannot be run.
    Err(anyhow!(ssh.exec()).context("cannot run ssh: is openssh-client installed?"))
}
