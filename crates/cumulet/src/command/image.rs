//! `cumulet image`: disks built or imported on this machine become AMIs through the EBS direct APIs, as any
//! client's would: StartSnapshot, PutSnapshotBlock, CompleteSnapshot, RegisterImage. And the other way (`export`).

mod direct;
mod export;

use crate::cloud::Locate;
use crate::query::Client;
use anyhow::{Context, Result};
use direct::Direct;
use image::{Cache, Progress, Recipe, TerminalProgress};
use model::{Clock, SystemClock};
use std::path::PathBuf;
use std::process::ExitCode;

/// Under which Debian's own images boot.
const ROOT_DEVICE: &str = "/dev/xvda";
/// What disks are by unless an image says otherwise.
const VIRTIO: &str = "virtio";

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Build an image from Debian's own packages and register it
    Build {
        /// debian-12 (with cloud-init) or tiny (boots in seconds)
        recipe: Recipe,
        /// Build anew even where the same recipe was built before
        #[arg(long)]
        fresh: bool,
        /// Where built disks are kept for the next time [default: DATA_DIR/images]
        #[arg(long, value_name = "DIR")]
        cache_dir: Option<PathBuf>,
        #[command(flatten)]
        locate: Locate,
    },
    /// Register a disk image: raw, qcow2, vmdk or vhdx, told by its content
    Import {
        file: PathBuf,
        /// The image's name
        #[arg(long)]
        name: String,
        /// x86_64 or arm64
        #[arg(long, default_value = "x86_64")]
        architecture: String,
        /// legacy-bios, uefi or uefi-preferred
        #[arg(long, default_value = "legacy-bios")]
        boot_mode: String,
        /// Its instances have a TPM 2.0; the boot mode must be uefi
        #[arg(long)]
        tpm: bool,
        /// A file with the UEFI variables that its instances begin with, as the AWS CLI's `--uefi-data` takes them
        #[arg(long, value_name = "FILE")]
        uefi_data: Option<PathBuf>,
        /// What its guests have drivers for: virtio, the faster one, or nvme
        #[arg(long, default_value = VIRTIO, value_parser = [VIRTIO, "nvme"])]
        disks: String,
        /// The root device's name
        #[arg(long, default_value = ROOT_DEVICE)]
        root_device: String,
        #[command(flatten)]
        locate: Locate,
    },
    /// Write an image's disk to a file: raw, qcow2, vmdk, vhdx or vhd
    Export(export::Args),
}

/// What an image is registered as.
struct Registration<'a> {
    name: String,
    description: String,
    architecture: &'a str,
    boot_mode: &'a str,
    tpm: bool,
    uefi_data: Option<String>,
    disks: &'a str,
    root_device: &'a str,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let progress = TerminalProgress::new();
    let image_id = match args.action {
        Action::Build { recipe, fresh, cache_dir, locate } => {
            build(recipe, fresh, cache_dir, &locate, &progress)?
        }
        Action::Export(args) => {
            export::run(&args, &progress)?;
            return Ok(ExitCode::SUCCESS);
        }
        Action::Import {
            file,
            name,
            architecture,
            boot_mode,
            tpm,
            uefi_data,
            disks,
            root_device,
            locate,
        } => {
            let read = |path: PathBuf| {
                std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
            };
            let uefi_data = uefi_data.map(read).transpose()?;
            let client = Client::new(locate.cloud()?)?;
            let dir = tempfile::Builder::new().prefix("cumulet-import-").tempdir_in(work_dir(&locate)?)?;
            let raw = dir.path().join("disk.raw");
            image::convert_to_raw(&file, &raw, &progress)?;
            let registration = Registration {
                name,
                description: format!(
                    "Imported from {}",
                    file.file_name().unwrap_or_default().to_string_lossy()
                ),
                architecture: &architecture,
                boot_mode: &boot_mode,
                tpm,
                uefi_data,
                disks: &disks,
                root_device: &root_device,
            };
            register(&client, &raw, &registration, &progress)?
        }
    };
    progress.finish();
    println!("{image_id}");
    Ok(ExitCode::SUCCESS)
}

/// Where disks are built and converted: beside the cloud's data where that is here, else the user's own.
fn work_dir(locate: &Locate) -> Result<PathBuf> {
    let dir = locate.data_dir.clone().unwrap_or_else(|| crate::config::DATA_DIR.into()).join("images");
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

fn build(
    recipe: Recipe,
    fresh: bool,
    cache_dir: Option<PathBuf>,
    locate: &Locate,
    progress: &TerminalProgress,
) -> Result<String> {
    let client = Client::new(locate.cloud()?)?;
    let work = work_dir(locate)?;
    let scratch = tempfile::Builder::new().prefix("build-").tempdir_in(&work)?;
    let cache = if fresh { Cache::Fresh } else { Cache::Reuse };
    let cache_dir = cache_dir.unwrap_or_else(|| work.clone());
    let built = image::build_with(recipe, &scratch.path().join("disk.raw"), &cache_dir, cache, progress)?;
    let registration = Registration {
        // Two builds of one recipe are two images: the time tells them apart.
        name: format!("{recipe}-{}", SystemClock.now().strftime("%Y%m%d-%H%M%S")),
        description: built.description.clone(),
        architecture: built.architecture,
        boot_mode: built.boot_mode,
        tpm: false,
        uefi_data: None,
        disks: VIRTIO,
        root_device: ROOT_DEVICE,
    };
    register(&client, &built.path, &registration, progress)
}

fn register(
    client: &Client,
    disk: &std::path::Path,
    registration: &Registration<'_>,
    progress: &dyn Progress,
) -> Result<String> {
    let snapshot = image::upload(disk, &registration.description, &Direct(client), progress)?;
    progress.step("registering the image");
    let mut parameters: Vec<(&str, &str)> = vec![
        ("Name", &registration.name),
        ("Description", &registration.description),
        ("Architecture", registration.architecture),
        ("BootMode", registration.boot_mode),
        ("VirtualizationType", "hvm"),
        ("EnaSupport", "true"),
        ("RootDeviceName", registration.root_device),
        ("BlockDeviceMapping.1.DeviceName", registration.root_device),
        ("BlockDeviceMapping.1.Ebs.SnapshotId", &snapshot),
        ("BlockDeviceMapping.1.Ebs.VolumeType", "gp3"),
        ("BlockDeviceMapping.1.Ebs.DeleteOnTermination", "true"),
    ];
    if registration.tpm {
        parameters.push(("TpmSupport", "v2.0"));
    }
    if let Some(data) = &registration.uefi_data {
        parameters.push(("UefiData", data.trim()));
    }
    if registration.disks != VIRTIO {
        parameters.extend([
            ("TagSpecification.1.ResourceType", "image"),
            ("TagSpecification.1.Tag.1.Key", "cumulet:disks"),
            ("TagSpecification.1.Tag.1.Value", registration.disks),
        ]);
    }
    let answer = client.ec2("RegisterImage", &parameters)?;
    Ok(answer.text_of("imageId").to_owned())
}
