//! What stands between control and a host: it is slow, says things twice, and breaks with what is under way.
//! As `HostAgent` promises, nothing is lost unless the link breaks, and a new one begins with all there is.

use agent::SimulatedHost;
use agent_api::{Change, Desired, HostAgent, HostDescription, HostError, NewSnapshot, Observation};
use async_trait::async_trait;
use model::{Id, Random};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;

pub struct Link {
    host: SimulatedHost,
    random: Arc<dyn Random>,
    /// The present link, if any; what belongs to an older one is over.
    number: watch::Sender<u64>,
    is_up: watch::Sender<bool>,
}

impl Link {
    pub fn new(host: SimulatedHost, random: Arc<dyn Random>) -> Link {
        Link { host, random, number: watch::Sender::new(0), is_up: watch::Sender::new(false) }
    }

    /// What is on its way either way is lost.
    pub fn cut(&self) {
        self.is_up.send_replace(false);
        self.number.send_modify(|number| *number += 1);
    }

    /// Mostly at once.
    async fn pause(random: &dyn Random) {
        let pause = match random.u64() % 16 {
            0 => 300,
            1 => 20,
            _ => return,
        };
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

#[async_trait]
impl HostAgent for Link {
    fn describe(&self) -> HostDescription {
        self.host.describe()
    }

    async fn replace(&self, desired: Desired) {
        Self::pause(&*self.random).await;
        if *self.is_up.borrow() {
            self.host.replace(desired).await;
        }
    }

    async fn apply(&self, changes: Vec<Change>) {
        Self::pause(&*self.random).await;
        if *self.is_up.borrow() {
            if self.random.u64().is_multiple_of(8) {
                self.host.apply(changes.clone()).await;
            }
            self.host.apply(changes).await;
        }
    }

    fn observe(&self) -> UnboundedReceiver<Observation> {
        self.number.send_modify(|number| *number += 1);
        let (here, mut number) = (*self.number.borrow(), self.number.subscribe());
        let mut told = self.host.observe();
        self.is_up.send_replace(true);
        let (sender, receiver) = unbounded_channel();
        if told.is_closed() {
            return receiver;
        }
        let random = self.random.clone();
        tokio::spawn(async move {
            let forward = async {
                while let Some(observation) = told.recv().await {
                    Self::pause(&*random).await;
                    let twice = random.u64().is_multiple_of(8).then(|| observation.clone());
                    for observation in std::iter::once(observation).chain(twice) {
                        if sender.send(observation).is_err() {
                            return;
                        }
                    }
                }
            };
            tokio::select! {
                biased;
                () = forward => {}
                _ = number.wait_for(|number| *number != here) => {}
            }
        });
        receiver
    }

    async fn create_snapshots(&self, snapshots: Vec<NewSnapshot>) -> Result<(), HostError> {
        let failed = |message: &str| Err(HostError::Failed(message.into()));
        match self.random.u64() % 8 {
            0 => failed("The disk is full"),
            1 => {
                self.host.create_snapshots(snapshots).await?;
                failed("The answer was lost")
            }
            _ => self.host.create_snapshots(snapshots).await,
        }
    }

    async fn console_output(&self, instance_id: &str) -> Result<Vec<u8>, HostError> {
        self.host.console_output(instance_id).await
    }

    async fn console_screenshot(&self, instance_id: &str) -> Result<Vec<u8>, HostError> {
        self.host.console_screenshot(instance_id).await
    }

    async fn unfilled_volumes(&self) -> Result<BTreeMap<Id, agent_api::Unfilled>, HostError> {
        self.host.unfilled_volumes().await
    }

    async fn uefi_variables(&self, instance_id: &str) -> Result<Vec<agent_api::UefiVariable>, HostError> {
        self.host.uefi_variables(instance_id).await
    }
}
