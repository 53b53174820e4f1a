//! Debian's packages, through the host's own apt: its mirrors, proxies and credentials are used for the build, and
//! none of them stays in the image.

use crate::command::Log;
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

pub(crate) const SUITE: &str = "bookworm";
/// Debian's own keys, by which the packages are verified whatever mirror they come from.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// What apt knows of each source it reads, one line each.
const TARGET_FORMAT: &str = "$(REPO_URI) $(LABEL)";

/// What mmdebstrap is to make.
pub(crate) struct Tree<'a> {
    /// mmdebstrap's word for how much comes besides the packages: `extract`, `apt`, …
    pub(crate) variant: &'a str,
    pub(crate) packages: &'a [&'a str],
    /// More of mmdebstrap's options, such as hooks.
    pub(crate) options: &'a [String],
}

impl Tree<'_> {
    /// Makes the directory `tree`, with its scratch files in `work`. mmdebstrap gets namespaces of its own, so that
    /// no mount and no process of it is left even if it or we are killed.
    pub(crate) fn make(&self, log: &Log, work: &Path, tree: &Path) -> Result<()> {
        let reach = work.join("apt.conf");
        write_private(&reach, &host_options(log)?)?;
        let run = log
            .program("setpriv", "util-linux")
            .args(["--pdeathsig", "KILL", "unshare", "--mount", "--propagation", propagation()])
            .args(["--pid", "--mount-proc", "--fork", "--kill-child"])
            .args(["mmdebstrap", "--mode=root", "--format=directory", "--architectures=amd64"])
            .arg(format!("--variant={}", self.variant))
            .arg(format!("--include={}", self.packages.join(",")))
            .arg(format!("--aptopt={}", reach.display()))
            .args(self.options)
            .arg(SUITE)
            .arg(tree)
            .advice("Check that `apt-get update` works on this machine: the build uses its apt sources.");
        let sources = sources(&targets(log));
        // Without sources of Debian's on this machine, mmdebstrap's own default applies.
        if sources.is_empty() {
            run.run()?
        } else {
            run.arg("-").input(sources).run()?
        }
        for private in ["etc/apt/apt.conf.d/99mmdebstrap", "etc/apt/sources.list"] {
            remove(&tree.join(private))?;
        }
        Ok(())
    }
}

/// What becomes of mounts inside: nobody else sees them. Within a chroot `/` is no mount, and its propagation can't be
/// changed; mmdebstrap unmounts what it mounted.
fn propagation() -> &'static str {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if mounts.lines().any(|line| line.split(' ').nth(4) == Some("/")) { "private" } else { "unchanged" }
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// A proxy's address may hold a password.
fn write_private(path: &Path, text: &str) -> Result<()> {
    let file = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn targets(log: &Log) -> String {
    let listing = log.program("apt-get", "apt").args([
        "indextargets",
        "--format",
        TARGET_FORMAT,
        "Created-By: Packages",
    ]);
    String::from_utf8_lossy(&listing.stdout().unwrap_or_default()).into_owned()
}

/// The host's mirrors of Debian and of its security updates, for our suite, whatever suite the host itself runs.
fn sources(targets: &str) -> String {
    let signed = format!("[signed-by={KEYRING}]");
    let lines: BTreeSet<String> = targets
        .lines()
        .filter_map(|line| match line.split_once(' ')? {
            (uri, "Debian") => {
                Some(format!("deb {signed} {uri} {SUITE} main\ndeb {signed} {uri} {SUITE}-updates main\n"))
            }
            (uri, "Debian-Security") => Some(format!("deb {signed} {uri} {SUITE}-security main\n")),
            _ => None,
        })
        .collect();
    // Security updates alone don't make a system.
    if lines.iter().any(|line| line.contains("-updates")) {
        lines.into_iter().collect()
    } else {
        String::new()
    }
}

/// How the host reaches its mirrors, in apt's own language.
fn host_options(log: &Log) -> Result<String> {
    let dump = log.program("apt-config", "apt").args(["dump", "--no-empty", "Acquire"]).stdout()?;
    let mut options = reach(&String::from_utf8_lossy(&dump));
    for (option, path) in [("netrc", "/etc/apt/auth.conf"), ("netrcparts", "/etc/apt/auth.conf.d")] {
        if Path::new(path).exists() {
            options += &format!("Dir::Etc::{option} \"{path}\";\n");
        }
    }
    Ok(options)
}

/// Of apt's options, those about getting files: proxies, certificates, time limits. Which indexes the host wants for
/// itself is its own business.
fn reach(dump: &str) -> String {
    let ours =
        |line: &&str| !line.starts_with("Acquire::IndexTargets") && !line.starts_with("Acquire::cdrom");
    dump.lines()
        .filter(|line| line.starts_with("Acquire::"))
        .filter(ours)
        .map(|line| format!("{line}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_mirrors_are_used_for_our_suite() {
        let targets = "http://mirror.lan/debian/ Debian\nhttp://mirror.lan/debian/ Debian\nhttp://x/ Other\n\
                       http://mirror.lan/debian/ Debian Backports\nhttp://mirror.lan/security/ Debian-Security\n";
        let sources = sources(targets);
        assert_eq!(sources.lines().count(), 3, "{sources}");
        assert!(sources.contains("gpg] http://mirror.lan/debian/ bookworm main\n"), "{sources}");
        assert!(sources.contains("gpg] http://mirror.lan/security/ bookworm-security main\n"), "{sources}");
    }

    #[test]
    fn without_debian_there_is_nothing_to_say() {
        assert_eq!(sources("http://archive/ubuntu Ubuntu\n"), "");
        assert_eq!(sources("http://mirror.lan/security/ Debian-Security\n"), "");
    }

    #[test]
    fn proxies_pass_and_index_lists_do_not() {
        let dump = "Acquire::http::Proxy \"http://proxy:3128\";\nAcquire::IndexTargets::deb::Packages::Optional \"0\";\n";
        assert_eq!(reach(dump), "Acquire::http::Proxy \"http://proxy:3128\";\n");
    }
}
