//! `cumulet image export`: an image's disk as a file.

use super::direct::Direct;
use super::work_dir;
use crate::cloud::Locate;
use crate::query::{Client, Node};
use anyhow::{Context, Result, bail};
use image::{Format, Progress};
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    image_id: String,
    /// It must not be there yet
    file: PathBuf,
    /// raw, qcow2, vmdk, vhdx or vhd [default: as the file's extension says]
    #[arg(long)]
    format: Option<Format>,
    /// Another device than the root
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    #[command(flatten)]
    locate: Locate,
}

pub fn run(args: &Args, progress: &dyn Progress) -> Result<()> {
    let format = match args.format {
        Some(format) => format,
        None => {
            let extension = args.file.extension().and_then(|extension| extension.to_str()).unwrap_or("raw");
            extension.parse().context("say which it shall be: --format")?
        }
    };
    if args.file.exists() {
        bail!("{} is there already", args.file.display());
    }
    let client = Client::new(args.locate.cloud()?)?;
    let images = client.ec2("DescribeImages", &[("ImageId.1", &args.image_id)])?;
    let Some(image) = images.items("imagesSet").first() else { bail!("there is no image {}", args.image_id) };
    let snapshot = snapshot(image, args.device.as_deref())?;
    let dir = tempfile::Builder::new().prefix("cumulet-export-").tempdir_in(work_dir(&args.locate)?)?;
    let raw = dir.path().join("disk.raw");
    image::download(&snapshot, &raw, &Direct(&client), progress)?;
    image::convert_from_raw(&raw, &args.file, format, &dir.path().join("log"), progress)
}

fn snapshot(image: &Node, device: Option<&str>) -> Result<String> {
    let device = device.unwrap_or_else(|| image.text_of("rootDeviceName"));
    let mut mappings = image.items("blockDeviceMapping").iter();
    let mapping = mappings.find(|mapping| mapping.text_of("deviceName") == device);
    let Some(mapping) = mapping else { bail!("the image has no device {device}") };
    match mapping.child("ebs").map(|ebs| ebs.text_of("snapshotId")).filter(|id| !id.is_empty()) {
        Some(id) => Ok(id.to_owned()),
        None => bail!("the image's device {device} has no snapshot"),
    }
}
