//! The EBS direct APIs, by which disks are uploaded and downloaded.

use crate::query::{Client, RESERVED};
use anyhow::{Context, Result, anyhow, bail};
use aws_api::ebs::{ListSnapshotBlocksResponse, StartSnapshotResponse};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::{Block, Download, Page, Upload};
use percent_encoding::utf8_percent_encode;
use sha2::{Digest, Sha256};
use std::time::Duration;

/// Between looks at a snapshot that is being stored.
const LOOK_PAUSE: Duration = Duration::from_millis(500);

pub(super) struct Direct<'c>(pub &'c Client);

impl Direct<'_> {
    /// The body of the answer; what is refused is an error.
    fn send(
        &self,
        method: &str,
        path: &str,
        query: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Vec<u8>> {
        let answer = self.0.send("ebs", method, path, query, headers, body)?;
        if answer.status >= 300 {
            let value: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let said = value.get("Message").or(value.get("message")).and_then(|text| text.as_str());
            bail!("it was refused: {}", said.unwrap_or("the answer does not say why"));
        }
        Ok(answer.body)
    }
}

impl Upload for Direct<'_> {
    fn start(&self, size_gib: u32, description: &str) -> Result<String> {
        let body = serde_json::json!({ "VolumeSize": size_gib, "Description": description });
        let headers = [("content-type", "application/json")];
        let body = self.send("POST", "/snapshots", "", &headers, body.to_string().as_bytes())?;
        let started: StartSnapshotResponse =
            serde_json::from_slice(&body).context("the answer to StartSnapshot can't be read")?;
        started.snapshot_id.ok_or_else(|| anyhow!("StartSnapshot answered without a snapshot's id"))
    }

    fn put(&self, snapshot: &str, index: u32, data: &[u8]) -> Result<()> {
        let checksum = STANDARD.encode(Sha256::digest(data));
        let length = data.len().to_string();
        let headers = [
            ("content-type", "application/octet-stream"),
            ("x-amz-data-length", length.as_str()),
            ("x-amz-checksum", checksum.as_str()),
            ("x-amz-checksum-algorithm", "SHA256"),
        ];
        self.send("PUT", &format!("/snapshots/{snapshot}/blocks/{index}"), "", &headers, data).map(drop)
    }

    fn complete(&self, snapshot: &str, changed_blocks: u32) -> Result<()> {
        let count = changed_blocks.to_string();
        let headers = [("x-amz-changedblockscount", count.as_str())];
        self.send("POST", &format!("/snapshots/completion/{snapshot}"), "", &headers, b"")?;
        loop {
            let answer = self.0.ec2("DescribeSnapshots", &[("SnapshotId.1", snapshot)])?;
            let Some(found) = answer.find("item") else { bail!("the snapshot {snapshot} is no more") };
            match found.text_of("status") {
                "completed" => return Ok(()),
                "pending" => std::thread::sleep(LOOK_PAUSE),
                _ => bail!("the snapshot failed: {}", found.text_of("statusMessage")),
            }
        }
    }
}

impl Download for Direct<'_> {
    fn list(&self, snapshot: &str, page: Option<&str>) -> Result<Page> {
        let query = page.map(|token| format!("pageToken={}", utf8_percent_encode(token, RESERVED)));
        let body =
            self.send("GET", &format!("/snapshots/{snapshot}/blocks"), &query.unwrap_or_default(), &[], b"")?;
        let listed: ListSnapshotBlocksResponse =
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
        self.send("GET", &format!("/snapshots/{snapshot}/blocks/{}", block.index), &query, &[], b"")
    }
}
