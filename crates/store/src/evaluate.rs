//! What a transaction comes to, the same for every backend.

use crate::api::{KEY_LEN_MAX, OPS_MAX, VALUE_LEN_MAX};
use crate::{Compare, Op, Revision, StoreError, Transaction};

/// Whether everything that the transaction relies on holds; `modified` tells a key's last revision.
pub fn holds<E>(
    transaction: &Transaction,
    mut modified: impl FnMut(&str) -> Result<Option<Revision>, E>,
) -> Result<bool, E> {
    for compare in &transaction.compares {
        let held = match compare {
            Compare::Absent(key) => modified(key)?.is_none(),
            Compare::Modified(key, revision) => modified(key)? == Some(*revision),
        };
        if !held {
            return Ok(false);
        }
    }
    Ok(true)
}

pub fn check_bounds(transaction: &Transaction) -> Result<(), StoreError> {
    if transaction.ops.len() > OPS_MAX {
        return Err(StoreError::TooLarge("the number of changes in one transaction"));
    }
    for op in &transaction.ops {
        let (key, value_len) = match op {
            Op::Put { key, value, .. } => (key, value.len()),
            Op::Delete { key } => (key, 0),
        };
        if key.len() > KEY_LEN_MAX {
            return Err(StoreError::TooLarge("a key"));
        }
        if value_len > VALUE_LEN_MAX {
            return Err(StoreError::TooLarge("a value"));
        }
    }
    Ok(())
}
