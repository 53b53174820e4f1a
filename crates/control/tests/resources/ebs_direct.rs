use crate::cloud::{Blocks, Cloud};
use agent_api::BLOCK_BYTES;
use aws_api::Request;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;
use store::MemoryStore;

type Outcome = Result<Value, (String, u16)>;

fn block(content: u8) -> Vec<u8> {
    vec![content; BLOCK_BYTES]
}

fn checksum(data: &[u8]) -> String {
    STANDARD.encode(Sha256::digest(data))
}

async fn call(cloud: &Cloud, operation: &str, request: Request) -> Outcome {
    let answer = cloud.ebs(operation, request).await?;
    Ok(serde_json::from_slice(&answer.body).unwrap_or(Value::Null))
}

async fn start(cloud: &Cloud, body: Value) -> Outcome {
    let request = Request {
        method: "POST".into(),
        path: "/snapshots".into(),
        body: body.to_string().into(),
        ..Default::default()
    };
    call(cloud, "StartSnapshot", request).await
}

async fn put(cloud: &Cloud, id: &str, index: u32, data: Vec<u8>, checksum: &str) -> Outcome {
    let header = |name: &str, value: String| (name.to_owned(), value);
    let headers = vec![
        header("x-amz-data-length", data.len().to_string()),
        header("x-amz-checksum", checksum.to_owned()),
        header("x-amz-checksum-algorithm", "SHA256".into()),
    ];
    let path = format!("/snapshots/{id}/blocks/{index}");
    call(
        cloud,
        "PutSnapshotBlock",
        Request { method: "PUT".into(), path, headers, body: data.into(), ..Default::default() },
    )
    .await
}

async fn complete(cloud: &Cloud, id: &str, blocks: usize, checksum: Option<&str>) -> Outcome {
    let mut headers = vec![("x-amz-changedblockscount".to_owned(), blocks.to_string())];
    if let Some(checksum) = checksum {
        headers.push(("x-amz-checksum".into(), checksum.into()));
        headers.push(("x-amz-checksum-algorithm".into(), "SHA256".into()));
        headers.push(("x-amz-checksum-aggregation-method".into(), "LINEAR".into()));
    }
    let path = format!("/snapshots/completion/{id}");
    call(cloud, "CompleteSnapshot", Request { method: "POST".into(), path, headers, ..Default::default() })
        .await
}

async fn get(cloud: &Cloud, operation: &str, path: String, params: &[(&str, &str)]) -> Outcome {
    let params = params.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    call(cloud, operation, Request { method: "GET".into(), path, params, ..Default::default() }).await
}

/// A completed snapshot of 1 GiB; returns its id.
pub async fn snapshot(cloud: &Cloud, blocks: &[(u32, u8)]) -> String {
    let started = start(cloud, json!({ "VolumeSize": 1 })).await.unwrap();
    let id = started["SnapshotId"].as_str().unwrap().to_owned();
    for (index, content) in blocks {
        let data = block(*content);
        let sum = checksum(&data);
        put(cloud, &id, *index, data, &sum).await.unwrap();
    }
    assert_eq!(complete(cloud, &id, blocks.len(), None).await.unwrap()["Status"], "completed");
    id
}

#[tokio::test]
async fn what_was_put_is_listed_and_read() {
    let cloud = Cloud::start().await;
    let id = snapshot(&cloud, &[(7, 1), (2047, 2)]).await;
    let listed = get(&cloud, "ListSnapshotBlocks", format!("/snapshots/{id}/blocks"), &[]).await.unwrap();
    assert_eq!((&listed["BlockSize"], &listed["VolumeSize"]), (&json!(BLOCK_BYTES), &json!(1)));
    let indexes: Vec<_> =
        listed["Blocks"].as_array().unwrap().iter().map(|block| block["BlockIndex"].clone()).collect();
    assert_eq!(indexes, [7, 2047]);
    let token = listed["Blocks"][0]["BlockToken"].as_str().unwrap();
    let read = Request {
        method: "GET".into(),
        path: format!("/snapshots/{id}/blocks/7"),
        params: vec![("blockToken".into(), token.into())],
        ..Default::default()
    };
    let read = cloud.ebs("GetSnapshotBlock", read).await.unwrap();
    assert_eq!(read.body, block(1));
    assert!(read.headers.contains(&("x-amz-checksum".into(), checksum(&block(1)))));
    let wrong =
        get(&cloud, "GetSnapshotBlock", format!("/snapshots/{id}/blocks/2047"), &[("blockToken", token)])
            .await;
    assert_eq!(wrong.unwrap_err(), ("ValidationException".into(), 400));
}

#[tokio::test]
async fn a_block_is_whole_in_its_place_and_what_it_was() {
    let cloud = Cloud::start().await;
    let started = start(&cloud, json!({ "VolumeSize": 1 })).await.unwrap();
    let id = started["SnapshotId"].as_str().unwrap();
    let refused = ("ValidationException".to_owned(), 400);
    let sum = checksum(&block(1));
    assert_eq!(put(&cloud, id, 2048, block(1), &sum).await.unwrap_err(), refused);
    assert_eq!(put(&cloud, id, 0, block(2), &sum).await.unwrap_err(), refused);
    let short = vec![1; BLOCK_BYTES - 1];
    let short_sum = checksum(&short);
    assert_eq!(put(&cloud, id, 0, short, &short_sum).await.unwrap_err(), refused);
    let unknown = put(&cloud, "snap-0123456789abcdef0", 0, block(1), &sum).await;
    assert_eq!(unknown.unwrap_err(), ("ResourceNotFoundException".into(), 404));
    put(&cloud, id, 0, block(1), &sum).await.unwrap();
    let early = get(&cloud, "ListSnapshotBlocks", format!("/snapshots/{id}/blocks"), &[]).await;
    assert_eq!(early.unwrap_err(), refused);
}

#[tokio::test]
async fn a_snapshot_is_sealed_when_count_and_checksum_are_right() {
    let cloud = Cloud::start().await;
    let started = start(&cloud, json!({ "VolumeSize": 1 })).await.unwrap();
    let id = started["SnapshotId"].as_str().unwrap();
    let sums: Vec<[u8; 32]> = [1, 2].map(|content| Sha256::digest(block(content)).into()).into();
    // Put out of order: the aggregate goes by index.
    put(&cloud, id, 9, block(2), &STANDARD.encode(sums[1])).await.unwrap();
    put(&cloud, id, 3, block(1), &STANDARD.encode(sums[0])).await.unwrap();
    let aggregate = checksum(&sums.concat());
    assert!(complete(&cloud, id, 1, None).await.is_err());
    assert!(complete(&cloud, id, 2, Some(&checksum(b"else"))).await.is_err());
    complete(&cloud, id, 2, Some(&aggregate)).await.unwrap();
    complete(&cloud, id, 2, Some(&aggregate)).await.unwrap();
    assert!(put(&cloud, id, 4, block(1), &STANDARD.encode(sums[0])).await.is_err());
    let shown = cloud.ok("DescribeSnapshots", &[("SnapshotId.1", id)]).await;
    assert_eq!((shown.one("status"), shown.one("progress")), ("completed", "100%"));
}

#[tokio::test]
async fn the_difference_of_two_snapshots_is_listed() {
    let cloud = Cloud::start().await;
    let first = snapshot(&cloud, &[(0, 1), (1, 1), (2, 1), (5, 1)]).await;
    let second = snapshot(&cloud, &[(0, 1), (1, 2), (5, 1), (6, 1)]).await;
    let path = format!("/snapshots/{second}/changedblocks");
    let changed =
        get(&cloud, "ListChangedBlocks", path.clone(), &[("firstSnapshotId", &first)]).await.unwrap();
    let shown: Vec<_> = changed["ChangedBlocks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|block| {
            (
                block["BlockIndex"].as_u64().unwrap(),
                !block["FirstBlockToken"].is_null(),
                !block["SecondBlockToken"].is_null(),
            )
        })
        .collect();
    assert_eq!(shown, [(1, true, true), (2, true, false), (6, false, true)]);
    assert_eq!(get(&cloud, "ListChangedBlocks", path, &[]).await.unwrap_err().0, "ValidationException");
}

#[tokio::test]
async fn a_client_token_stands_for_one_snapshot() {
    let cloud = Cloud::start().await;
    let body = json!({ "VolumeSize": 1, "ClientToken": "token-1" });
    let one = start(&cloud, body.clone()).await.unwrap();
    assert_eq!(start(&cloud, body).await.unwrap()["SnapshotId"], one["SnapshotId"]);
    let other = start(&cloud, json!({ "VolumeSize": 2, "ClientToken": "token-1" })).await;
    assert_eq!(other.unwrap_err(), ("ConflictException".into(), 409));
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_rests_for_too_long_ends_in_error() {
    let blocks = Arc::<Blocks>::default();
    let cloud = Cloud::over(Arc::new(MemoryStore::new()), blocks.clone()).await.unwrap();
    let started = start(&cloud, json!({ "VolumeSize": 1, "Timeout": 10 })).await.unwrap();
    let id = started["SnapshotId"].as_str().unwrap();
    let sum = checksum(&block(1));
    let after = async |minutes: u64| {
        tokio::time::sleep(Duration::from_secs(minutes * 60)).await;
        cloud.ok("DescribeSnapshots", &[("SnapshotId.1", id)]).await.one("status").to_owned()
    };
    for index in 0..4 {
        assert_eq!(after(8).await, "pending");
        put(&cloud, id, index, block(1), &sum).await.unwrap();
    }
    assert_eq!(after(9).await, "pending");
    assert_eq!(after(6).await, "error");
    assert_eq!(put(&cloud, id, 4, block(1), &sum).await.unwrap_err(), ("ValidationException".into(), 400));
    assert!(blocks.ids().is_empty(), "its blocks are gone");
    let whole = snapshot(&cloud, &[(0, 1)]).await;
    tokio::time::sleep(Duration::from_secs(24 * 60 * 60)).await;
    let shown = cloud.ok("DescribeSnapshots", &[("SnapshotId.1", &whole)]).await;
    assert_eq!(shown.one("status"), "completed");
}
