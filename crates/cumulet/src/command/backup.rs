//! `cumulet backup` and `cumulet restore`: the cloud's records, and the key that opens the secrets among them, in one
//! file. Disks are not in it.

use crate::cloud::Cloud;
use crate::query::Client;
use crate::serve::{secret, state_file};
use anyhow::{Context, Result, bail};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Names within the backup.
const STATE: &str = "state.redb";
const KEY: &str = "secret.key";

#[derive(clap::Args)]
pub struct BackupArgs {
    /// The file to make
    file: PathBuf,
    #[command(flatten)]
    of: DataDir,
}

#[derive(clap::Args)]
pub struct RestoreArgs {
    /// The backup
    file: PathBuf,
    #[command(flatten)]
    to: DataDir,
}

#[derive(clap::Args)]
struct DataDir {
    /// The cloud's data directory
    #[arg(long, env = "CUMULET_DATA_DIR", value_name = "DIR", default_value = crate::config::DATA_DIR)]
    data_dir: PathBuf,
}

pub fn backup(args: BackupArgs) -> Result<ExitCode> {
    let file = std::path::absolute(&args.file)?;
    if file.try_exists()? {
        bail!("{} is there already: name another file", file.display());
    }
    let beside = file.parent().context("the backup needs a name")?;
    let scratch = tempfile::Builder::new()
        .prefix(".cumulet-backup-")
        .tempdir_in(beside)
        .with_context(|| format!("cannot write to {}", beside.display()))?;
    let state = scratch.path().join(STATE);
    let path = state.to_str().context("the backup's path is not text")?.to_owned();
    Client::new(Cloud::read(&args.of.data_dir)?)?
        .tell_operator("/backups", &serde_json::json!({ "Path": path }))?;
    let whole = scratch.path().join("backup");
    let mut archive = tar::Builder::new(private(&whole)?);
    archive.append_path_with_name(&state, STATE)?;
    let key = secret::path(&args.of.data_dir);
    // The operator may keep the key elsewhere.
    let with_key = key.try_exists()?;
    if with_key {
        archive.append_path_with_name(&key, KEY).with_context(|| format!("cannot read {}", key.display()))?;
    }
    archive.into_inner()?.sync_all()?;
    std::fs::rename(&whole, &file).with_context(|| format!("cannot write {}", file.display()))?;
    File::open(beside)?.sync_all()?;
    println!("{}", file.display());
    eprintln!(
        "cumulet: the records are saved; disks are not among them: {}/volumes, {0}/snapshots",
        args.of.data_dir.display()
    );
    if with_key {
        eprintln!("cumulet: keep it private: whoever has it has the cloud's keys");
    } else {
        eprintln!("cumulet: keep {} beside it: the secrets in it are encrypted with it", secret::VARIABLE);
    }
    Ok(ExitCode::SUCCESS)
}

pub fn restore(args: RestoreArgs) -> Result<ExitCode> {
    let dir = &args.to.data_dir;
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let (state, key) = (state_file(dir), secret::path(dir));
    if state.try_exists()? {
        bail!("{} is there already: move it away to restore a backup in its place", state.display());
    }
    let scratch = tempfile::Builder::new().prefix(".cumulet-restore-").tempdir_in(dir)?;
    let backup = File::open(&args.file).with_context(|| format!("cannot read {}", args.file.display()))?;
    for entry in tar::Archive::new(backup).entries()? {
        let mut entry = entry.context("this is not a backup of cumulet's")?;
        let name = entry.path()?.into_owned();
        // Nothing else is taken out of it, under whatever name.
        if [Path::new(STATE), Path::new(KEY)].contains(&name.as_path()) {
            let mut file = private(&scratch.path().join(name))?;
            std::io::copy(&mut entry, &mut file)?;
            file.sync_all()?;
        }
    }
    let (saved_state, saved_key) = (scratch.path().join(STATE), scratch.path().join(KEY));
    if !saved_state.try_exists()? {
        bail!("{} is not a backup of cumulet's: it has no {STATE}", args.file.display());
    }
    if saved_key.try_exists()? {
        if key.try_exists()? && std::fs::read(&key)? != std::fs::read(&saved_key)? {
            bail!("{} is another key than the backup's: move it away", key.display());
        }
        std::fs::rename(&saved_key, &key)?;
    }
    store::RedbStore::restore(&saved_state, &state)?;
    let mut out = std::io::stderr().lock();
    writeln!(
        out,
        "cumulet: the records are back in {}; start the cloud with 'cumulet serve'",
        dir.display()
    )?;
    Ok(ExitCode::SUCCESS)
}

fn private(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options.open(path).with_context(|| format!("cannot write {}", path.display()))
}
