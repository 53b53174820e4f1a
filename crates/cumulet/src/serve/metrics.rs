//! What Prometheus scrapes at `/metrics`: counted as it happens, or looked up when asked for.

use anyhow::Result;
use control::Control;
use metrics::{Unit, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::time::Duration;

/// From a lookup to a launch of many, in seconds.
const REQUEST_SECONDS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// How often measured times are sorted into their buckets; until then each takes memory.
const UPKEEP_PERIOD: Duration = Duration::from_secs(5);

pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Makes this the place where the whole process counts. Called within the runtime.
    pub fn install() -> Result<Metrics> {
        let buckets = Matcher::Full("cumulet_request_seconds".into());
        let handle =
            PrometheusBuilder::new().set_buckets_for_metric(buckets, &REQUEST_SECONDS)?.install_recorder()?;
        describe_counter!("cumulet_requests_total", "Requests by service, operation and error code");
        describe_histogram!("cumulet_request_seconds", Unit::Seconds, "Time to answer a request");
        describe_gauge!("cumulet_instances", "Instances by region and state");
        describe_gauge!("cumulet_host_vcpus", "vCPUs that a host can give");
        describe_gauge!("cumulet_host_vcpus_taken", "vCPUs that instances take of a host");
        describe_gauge!("cumulet_host_memory_bytes", Unit::Bytes, "Memory that a host can give");
        describe_gauge!(
            "cumulet_host_memory_taken_bytes",
            Unit::Bytes,
            "Memory that instances take of a host"
        );
        describe_gauge!("cumulet_workflows", "Long operations under way");
        describe_gauge!("cumulet_workflows_failing", "Those of them whose last attempt failed");
        let upkeep = handle.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(UPKEEP_PERIOD).await;
                upkeep.run_upkeep();
            }
        });
        Ok(Metrics(handle))
    }

    pub fn render(&self, control: &Control) -> String {
        for region in control.open_regions() {
            let name = region.view.region.to_string();
            let tables = region.view.read();
            for state in model::InstanceState::ALL {
                let count = tables.instances.count("instance-state-name", state.name());
                gauge!("cumulet_instances", "region" => name.clone(), "state" => state.name())
                    .set(count as f64);
            }
            let failing = tables.workflows.iter().filter(|workflow| workflow.attempts > 0).count();
            gauge!("cumulet_workflows", "region" => name.clone()).set(tables.workflows.len() as f64);
            gauge!("cumulet_workflows_failing", "region" => name.clone()).set(failing as f64);
            for host in &region.hosts {
                let labels = [("region", name.clone()), ("host", host.description.host_id.clone())];
                let (capacity, taken) = (host.capacity(), tables.loads.of(&host.description.host_id));
                gauge!("cumulet_host_vcpus", &labels).set(capacity.vcpus as f64);
                gauge!("cumulet_host_vcpus_taken", &labels).set(taken.vcpus as f64);
                let bytes = |mib: u64| mib as f64 * 1024.0 * 1024.0;
                gauge!("cumulet_host_memory_bytes", &labels).set(bytes(capacity.memory_mib));
                gauge!("cumulet_host_memory_taken_bytes", &labels).set(bytes(taken.memory_mib));
            }
        }
        self.0.render()
    }
}
