//! cumulet: your own EC2. One binary: the cloud (`serve`) and the commands of those who use it.

mod allocator;
mod cloud;
mod command;
mod config;
mod query;
mod serve;
mod table;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cumulet", version, about = "A self-hosted Amazon EC2", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the cloud
    Serve(config::ServeArgs),
    /// Print what AWS clients need in their environment: eval "$(cumulet env)"
    Env(command::env::Args),
    /// Say what this host can do, and what to do about what it cannot
    Doctor(command::doctor::Args),
    /// Build images from Debian's packages, or import disks
    Image(command::image::Args),
    /// List instances
    Ps(command::ps::Args),
    /// List the hosts and what runs on each
    Hosts(command::hosts::Args),
    /// Make, delete and list instance types of your own
    InstanceType(command::instance_type::Args),
    /// List long operations that are under way
    Workflows(command::workflows::Args),
    /// Show what happened lately
    Events(command::events::Args),
    /// Save the cloud's records to a file, while it runs
    Backup(command::backup::BackupArgs),
    /// Bring the cloud's records back from a backup, while it does not run
    Restore(command::backup::RestoreArgs),
    /// Take from this host what a cloud has made on it
    Uninstall(command::uninstall::Args),
    /// Say why something is as it is
    Explain(command::explain::Args),
    /// Draw VPCs, and say why packets pass or do not
    #[command(visible_alias = "network")]
    Net(command::net::Args),
    /// Open a shell on an instance
    Ssh(command::ssh::Args),
    /// Show an instance's serial console
    Console(command::console::Args),
}

fn main() -> ExitCode {
    allocator::keep_little();
    let done = match Cli::parse().command {
        Command::Serve(args) => serve::run(args),
        Command::Env(args) => command::env::run(args),
        Command::Doctor(args) => command::doctor::run(args),
        Command::Image(args) => command::image::run(args),
        Command::Ps(args) => command::ps::run(args),
        Command::Hosts(args) => command::hosts::run(args),
        Command::InstanceType(args) => command::instance_type::run(args),
        Command::Workflows(args) => command::workflows::run(args),
        Command::Events(args) => command::events::run(args),
        Command::Backup(args) => command::backup::backup(args),
        Command::Restore(args) => command::backup::restore(args),
        Command::Uninstall(args) => command::uninstall::run(args),
        Command::Net(args) => command::net::run(args),
        Command::Explain(args) => command::explain::run(args),
        Command::Ssh(args) => command::ssh::run(args),
        Command::Console(args) => command::console::run(args),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cumulet: {error:#}");
            ExitCode::FAILURE
        }
    }
}
