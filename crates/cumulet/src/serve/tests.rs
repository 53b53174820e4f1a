//! What a call leaves in the log, from the edge to the host.

use super::{Edge, metrics::Metrics, simulated};
use crate::cloud::Cloud;
use crate::config::Simulated;
use crate::query::Client;
use control::{Control, Limits, Options};
use model::Environment;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Write;
use std::sync::{Arc, Mutex};
use store::MemoryStore;

/// Takes in the lines of a log.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// The crates that have told of a request, and what: from the lines that bear its id, in a field or a span.
    fn of(&self, request_id: &str) -> BTreeSet<(String, String)> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let bears = |line: &Value| {
            let spans = line["spans"].as_array().into_iter().flatten();
            spans.chain([&line["fields"]]).any(|fields| fields["request_id"] == request_id)
        };
        let told = |line: Value| {
            let target = line["target"].as_str().unwrap().split("::").next().unwrap().to_owned();
            (target, line["fields"]["message"].as_str().unwrap_or_default().to_owned())
        };
        lines.filter(bears).map(told).collect()
    }
}

async fn serve() -> (Arc<Control>, Arc<Client>) {
    let snapshots = Arc::new(agent::MemorySnapshots::new());
    let simulated = Simulated { hosts: Some(1), racks: 1, zones: 1 };
    let hosts = Arc::new(simulated::Hosts::new(simulated, snapshots.clone()));
    let options = Options {
        account: "123456789012".parse().unwrap(),
        region: "us-east-1".parse().unwrap(),
        simulate: true,
        zones: 1,
        public_pool: crate::config::PUBLIC_POOL,
        encryption_key: [7; 32],
        limits: Limits::default(),
    };
    let store = Arc::new(MemoryStore::new());
    let control =
        Control::start(options, Environment::system(), store, snapshots, hosts, None).await.unwrap();
    let edge = Edge { control: control.clone(), metrics: Metrics::install().unwrap() };
    let listen = "127.0.0.1:0".parse().unwrap();
    let server = server::Server::bind(listen, server::Options::default(), Arc::new(edge)).await.unwrap();
    let key = control.root_key();
    let cloud = Cloud {
        endpoint: format!("http://{}", server.local_addr().unwrap()),
        region: "us-east-1".into(),
        access_key_id: key.access_key_id.clone(),
        secret_access_key: key.secret_access_key.clone(),
    };
    tokio::spawn(server.serve(std::future::pending()));
    (control, Arc::new(Client::new(cloud).unwrap()))
}

/// What stands between the first tags of a name in the answer to an EC2 call.
async fn call(client: &Arc<Client>, body: &str, tag: &str) -> (String, String) {
    let (client, body) = (client.clone(), format!("{body}&Version=2016-11-15"));
    let headers = [("content-type", "application/x-www-form-urlencoded; charset=utf-8")];
    let answer = tokio::task::spawn_blocking(move || {
        client.send("ec2", "POST", "/", "", &headers, body.as_bytes()).unwrap()
    });
    let answer = String::from_utf8(answer.await.unwrap().body).unwrap();
    let value = |tag: &str| {
        let rest = answer.split_once(&format!("<{tag}>")).unwrap_or_else(|| panic!("{answer}")).1;
        rest.split_once('<').unwrap().0.to_owned()
    };
    (value("requestId"), value(tag))
}

#[tokio::test]
async fn the_id_that_a_caller_is_given_is_in_the_lines_of_edge_control_and_host() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_max_level(tracing::Level::DEBUG)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let (control, client) = serve().await;
    let images = "Action=DescribeImages&Filter.1.Name=architecture&Filter.1.Value.1=x86_64";
    let (described, image_id) = call(&client, images, "imageId").await;
    let run = format!("Action=RunInstances&MinCount=1&MaxCount=1&InstanceType=t3.micro&ImageId={image_id}");
    let (ran, instance_id) = call(&client, &run, "instanceId").await;
    let region = control.region(&control.options.region).await.unwrap();
    let until = async |state: &str| {
        let mut number = 0;
        loop {
            let events = region.events.after(number, 1, std::time::Duration::from_secs(60)).await;
            let event = events.into_iter().next().expect("it never came so far");
            number = event.number;
            if event.id == instance_id && event.message.contains(&format!("→ {state}")) {
                return event;
            }
        }
    };
    assert_eq!(until("running").await.request_id.as_deref(), Some(ran.as_str()));
    let (stopped, _) =
        call(&client, &format!("Action=StopInstances&InstanceId.1={instance_id}"), "name").await;
    assert_eq!(until("stopped").await.request_id.as_deref(), Some(stopped.as_str()));
    let terminate = format!("Action=TerminateInstances&InstanceId.1={instance_id}");
    let (terminated, _) = call(&client, &terminate, "name").await;
    assert_eq!(until("terminated").await.request_id.as_deref(), Some(terminated.as_str()));

    for (request_id, event) in [
        (&ran, "pending → running"),
        (&stopped, "stopping → stopped"),
        (&terminated, "shutting-down → terminated"),
    ] {
        let told = lines.of(request_id);
        let has = |by: &str, what: &str| told.iter().any(|(of, said)| of == by && said.starts_with(what));
        let expected = [
            ("server", "request"),
            ("control", "committed"),
            ("control", event),
            ("agent", "simulated step"),
            ("agent", "simulated"),
        ];
        assert!(expected.iter().all(|(by, what)| has(by, what)), "{told:?}");
    }
    let told: BTreeSet<String> = lines.of(&described).into_iter().map(|(target, _)| target).collect();
    assert_eq!(told, BTreeSet::from(["server".to_owned()]), "reading changes nothing anywhere");

    // A workflow bears the id of the call that began it.
    let (deleted, _) = delete_snapshot(&client).await;
    let mut number = 0;
    loop {
        let events = region.events.after(number, 1, std::time::Duration::from_secs(60)).await;
        let event = events.into_iter().next().expect("the workflow never ended");
        number = event.number;
        if event.kind == "workflow" && event.message == "ended" {
            assert_eq!(event.request_id.as_deref(), Some(deleted.as_str()));
            break;
        }
    }
    assert!(lines.of(&deleted).contains(&("control".into(), "a step is done".into())));
}

/// Makes a snapshot by the EBS direct API and deletes it again.
async fn delete_snapshot(client: &Arc<Client>) -> (String, String) {
    let making = client.clone();
    let started = tokio::task::spawn_blocking(move || {
        let headers = [("content-type", "application/json")];
        making.send("ebs", "POST", "/snapshots", "", &headers, br#"{"VolumeSize": 1}"#).unwrap()
    });
    let started: Value = serde_json::from_slice(&started.await.unwrap().body).unwrap();
    let snapshot_id = started["SnapshotId"].as_str().unwrap_or_else(|| panic!("{started}"));
    call(client, &format!("Action=DeleteSnapshot&SnapshotId={snapshot_id}"), "requestId").await
}
