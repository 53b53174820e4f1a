//! A cloud whose operations do what a test of the edge needs.

use async_trait::async_trait;
use aws_api::{Request, Response, Service};
use iam::{Credential, Credentials, Principal, Secret};
use model::{Error, Region, Result, Timestamp};
use server::{Api, Caller, Options, Server};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

pub const ACCESS_KEY_ID: &str = "AKIDEXAMPLE";
pub const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
pub const ARN: &str = "arn:aws:iam::123456789012:root";
pub const LARGE_BYTES: usize = 64 * 1024 * 1024;
pub const CAUSE: &str = "the disk of host seven is full";

/// Nothing here takes long: what does has failed.
pub async fn within<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), wait).await.expect("took too long")
}

/// Waits until an operation has come to the point that the semaphore counts.
pub async fn reached(point: &Semaphore) {
    within(point.acquire()).await.unwrap().forget();
}

pub fn now() -> Timestamp {
    "2024-05-01T12:00:00Z".parse().unwrap()
}

/// One region, `eu-home-1`, and one access key.
pub struct Cloud {
    requests: AtomicU64,
    /// Operations that wait: those begun, those let go on, those that ended.
    pub begun: Semaphore,
    pub released: Semaphore,
    pub ended: Semaphore,
}

impl Credentials for Cloud {
    fn find(&self, access_key_id: &str) -> Option<Credential> {
        (access_key_id == ACCESS_KEY_ID).then(|| Credential {
            secret: Secret::new(SECRET),
            principal: Principal {
                account: "123456789012".parse().unwrap(),
                arn: ARN.into(),
                user_id: "123456789012".into(),
            },
            active: true,
        })
    }
}

#[async_trait]
impl Api for Cloud {
    fn credentials(&self) -> &dyn Credentials {
        self
    }

    fn now(&self) -> Timestamp {
        now()
    }

    fn new_request_id(&self) -> String {
        format!("00000000-0000-4000-8000-{:012}", self.requests.fetch_add(1, Ordering::Relaxed))
    }

    fn default_region(&self) -> Region {
        "eu-home-1".parse().unwrap()
    }

    fn metrics(&self) -> String {
        "cumulet_up 1\n".into()
    }

    fn region_exists(&self, region: &Region) -> bool {
        *region == self.default_region()
    }

    async fn call(
        &self,
        caller: Caller,
        service: Service,
        operation: &str,
        request: Request,
    ) -> Result<Response> {
        match operation {
            "StartInstances" => panic!("the handler fell over"),
            "StopInstances" => Err(Error::internal(CAUSE)),
            "RunInstances" => {
                self.begun.add_permits(1);
                self.released.acquire().await.unwrap().forget();
                self.ended.add_permits(1);
                Ok(answer("ran".into()))
            }
            "DescribeImages" => Ok(answer("x".repeat(LARGE_BYTES))),
            _ => {
                let mut told = format!(
                    "{} {operation} {} {} {} {}\n",
                    service.signing_name(),
                    caller.region,
                    caller.identity.principal.arn,
                    caller.source_ip,
                    request.path,
                );
                for (name, value) in &request.params {
                    told += &format!("{name}={value}\n");
                }
                assert!(request.headers.iter().all(|(name, _)| name != "authorization"));
                Ok(answer(told))
            }
        }
    }
}

fn answer(text: String) -> Response {
    let headers = vec![("x-test".to_owned(), "yes".to_owned())];
    Response { status: 200, content_type: "text/xml;charset=UTF-8", headers, body: text.into() }
}

/// A server that runs until the test ends or stops it.
pub struct Running {
    pub cloud: Arc<Cloud>,
    pub address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

pub async fn start(options: Options) -> Running {
    let none = || Semaphore::new(0);
    let cloud =
        Arc::new(Cloud { requests: AtomicU64::new(0), begun: none(), released: none(), ended: none() });
    let server = Server::bind((Ipv4Addr::LOCALHOST, 0).into(), options, cloud.clone()).await.unwrap();
    let address = server.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let serving = tokio::spawn(server.serve(async {
        let _ = stopped.await;
    }));
    Running { cloud, address, stop, serving }
}

impl Running {
    /// Asks the server to stop; what it answers is over when the task is.
    pub fn stop(self) -> JoinHandle<()> {
        self.stop.send(()).unwrap();
        self.serving
    }
}
