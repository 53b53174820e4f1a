//! A store that a control plane is cut off from at any commit.

use async_trait::async_trait;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use store::{Entry, LeaseId, MemoryStore, Outcome, Range, Revision, Store, StoreError, Transaction, Watch};

/// Once so many commits are done, nothing is written any more.
pub struct Crashing {
    pub inner: MemoryStore,
    pub left: AtomicI64,
    /// Whether the last commit stands although it is not acknowledged.
    pub stands: bool,
}

#[async_trait]
impl Store for Crashing {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.inner.get(key).await
    }

    async fn range(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Range, StoreError> {
        self.inner.range(prefix, after, limit).await
    }

    async fn transact(&self, transaction: Transaction) -> Result<Outcome, StoreError> {
        match self.left.fetch_sub(1, Ordering::SeqCst) {
            left if left > 0 => self.inner.transact(transaction).await,
            0 if self.stands => {
                self.inner.transact(transaction).await?;
                Err(StoreError::Closed)
            }
            _ => Err(StoreError::Closed),
        }
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch, StoreError> {
        self.inner.watch(prefix, from).await
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.inner.revision().await
    }

    async fn lease_grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.inner.lease_grant(ttl).await
    }

    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.inner.lease_keep_alive(lease).await
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.inner.lease_revoke(lease).await
    }
}
