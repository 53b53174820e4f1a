//! `cumulet image export`: an image's disk as a file.

use super::work_dir;
use crate::cloud::Locate;
use crate::query::{Client, Node, RESERVED};
use anyhow::{Context, Result, bail};
use image::{Block, Download, Format, Page, Progress};
use percent_encoding::utf8_percent_encode;
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

struct Direct<'c>(&'c Client);

impl Direct<'_> {
    fn get(&self, path: &str, query: &str) -> Result<Vec<u8>> {
        let answer = self.0.send("ebs", "GET", path, query, &[], b"")?;
        if answer.status >= 300 {
            let value: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let said = value.get("Message").or(value.get("message")).and_then(|text| text.as_str());
            bail!("it was refused: {}", said.unwrap_or("the answer does not say why"));
        }
        Ok(answer.body)
    }
}

impl Download for Direct<'_> {
    fn list(&self, snapshot: &str, page: Option<&str>) -> Result<Page> {
        let query = page.map(|token| format!("pageToken={}", utf8_percent_encode(token, RESERVED)));
        let body = self.get(&format!("/snapshots/{snapshot}/blocks"), &query.unwrap_or_default())?;
        let listed: aws_api::ebs::ListSnapshotBlocksResponse =
            serde_json::from_slice(&body).context("the list of its blocks can't be read")?;
        let block = |block: aws_api::ebs::Block| {
            Some(Block { index: u32::try_from(block.block_index?).ok()?, token: block.block_token? })
        };
        Ok(Page {
            size_gib: listed.volume_size.and_then(|size| u32::try_from(size).ok()).unwrap_or(0),
            blocks: listed.blocks.into_iter().filter_map(block).collect(),
            next: listed.next_token,
        })
    }

    fn get(&self, snapshot: &str, block: &Block) -> Result<Vec<u8>> {
        let query = format!("blockToken={}", utf8_percent_encode(&block.token, RESERVED));
        Direct::get(self, &format!("/snapshots/{snapshot}/blocks/{}", block.index), &query)
    }
}
