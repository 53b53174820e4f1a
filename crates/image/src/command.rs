//! The one place where this crate runs other programs: each run is logged, and each failure says which program
//! failed, what it said last, where the whole output is, and what to do.
//!
//! Invariant: a program's output goes to the log file, never to the user's terminal.

use crate::interrupt;
use anyhow::{Context, Result, bail};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;

/// Debian packages the host needs, and what for.
pub const HOST_PACKAGES: &[(&str, &str)] = &[
    ("mmdebstrap", "unpacks and installs Debian packages into a directory, through the host's apt"),
    ("fdisk", "sfdisk writes the partition table"),
    ("e2fsprogs", "mke2fs makes the root file system straight from a directory, without mounting"),
    ("dosfstools", "mkfs.vfat makes the EFI system partition"),
    ("mtools", "mcopy fills the EFI system partition without mounting"),
    ("qemu-utils", "qemu-img reads qcow2, vmdk and vhdx disks"),
    ("util-linux", "unshare and setpriv keep a build's mounts and processes from outliving it"),
];

/// How much of a failed program's output an error quotes: the cause is nearly always in the last lines.
const LINES_QUOTED: usize = 6;

/// Directories where Debian keeps administrators' programs, which `sudo` and others may leave out of `PATH`.
const ADMINISTRATORS_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where the output of every program of one build goes.
pub(crate) struct Log {
    path: PathBuf,
}

impl Log {
    /// Starts an empty log.
    pub(crate) fn create(path: PathBuf) -> Result<Log> {
        File::create(&path).with_context(|| format!("cannot write the log {}", path.display()))?;
        Ok(Log { path })
    }

    /// A run of `program`, which Debian's `package` ships.
    pub(crate) fn program(&self, program: &'static str, package: &'static str) -> Run<'_> {
        Run { log: self, program, package, arguments: Vec::new(), input: Vec::new(), advice: None }
    }

    fn append(&self) -> Result<File> {
        let file = File::options().append(true).open(&self.path);
        file.with_context(|| format!("cannot write the log {}", self.path.display()))
    }
}

pub(crate) struct Run<'l> {
    log: &'l Log,
    program: &'static str,
    package: &'static str,
    arguments: Vec<OsString>,
    input: Vec<u8>,
    advice: Option<&'static str>,
}

impl Run<'_> {
    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    pub(crate) fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// What the program reads on its standard input.
    pub(crate) fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    /// What the user can do when this fails.
    pub(crate) fn advice(mut self, advice: &'static str) -> Self {
        self.advice = Some(advice);
        self
    }

    pub(crate) fn run(self) -> Result<()> {
        let output = self.log.append()?;
        self.finish(Stdio::from(output)).map(|_| ())
    }

    /// The program's standard output; what it says on standard error is logged.
    pub(crate) fn stdout(self) -> Result<Vec<u8>> {
        self.finish(Stdio::piped())
    }

    fn finish(self, stdout: Stdio) -> Result<Vec<u8>> {
        let words: Vec<_> = self.arguments.iter().map(|argument| argument.to_string_lossy()).collect();
        let mut log = self.log.append()?;
        writeln!(log, "\n$ {} {}", self.program, words.join(" "))?;
        let start = log.metadata()?.len();
        let mut command = std::process::Command::new(self.program);
        command.args(&self.arguments).stdin(Stdio::piped()).stdout(stdout).stderr(log);
        command.env("LC_ALL", "C.UTF-8").env("PATH", ADMINISTRATORS_PATH);
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                bail!("{} is missing on this machine: apt-get install {}", self.program, self.package)
            }
            Err(error) => return Err(error).with_context(|| format!("cannot run {}", self.program)),
        };
        if let Some(mut stdin) = child.stdin.take() {
            // A program that ends without reading its input says why by its exit status.
            let _ = stdin.write_all(&self.input);
        }
        let output = child.wait_with_output().with_context(|| format!("cannot wait for {}", self.program))?;
        interrupt::check()?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let said = self.log.last_lines(start);
        let advice = self.advice.map(|advice| format!("\n{advice}")).unwrap_or_default();
        let log = self.log.path.display();
        bail!("{} failed ({}){said}\nIts whole output is in {log}.{advice}", self.program, output.status)
    }
}

impl Log {
    fn last_lines(&self, start: u64) -> String {
        let text = std::fs::read(&self.path).unwrap_or_default();
        let text = String::from_utf8_lossy(text.get(start as usize..).unwrap_or_default()).into_owned();
        let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let quoted = &lines[lines.len().saturating_sub(LINES_QUOTED)..];
        quoted.iter().map(|line| format!("\n    {line}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> (tempfile::TempDir, Log) {
        let directory = tempfile::tempdir().unwrap();
        let log = Log::create(directory.path().join("log")).unwrap();
        (directory, log)
    }

    #[test]
    fn a_failure_quotes_the_program_and_names_the_log() {
        let (_directory, log) = log();
        let run = log
            .program("sh", "dash")
            .args(["-c", "echo the disk is full >&2; exit 3"])
            .advice("Free some space.");
        let message = format!("{:#}", run.run().unwrap_err());
        assert!(message.starts_with("sh failed (exit status: 3)\n    the disk is full\n"), "{message}");
        assert!(
            message.contains(&log.path.display().to_string()) && message.ends_with("Free some space."),
            "{message}"
        );
    }

    #[test]
    fn a_missing_program_names_its_package() {
        let (_directory, log) = log();
        let message = log.program("no-such-program", "some-package").run().unwrap_err().to_string();
        assert_eq!(message, "no-such-program is missing on this machine: apt-get install some-package");
    }

    #[test]
    fn input_and_output_pass_through() {
        let (_directory, log) = log();
        assert_eq!(log.program("cat", "coreutils").input("words").stdout().unwrap(), b"words");
    }
}
