//! Deleting what others may come to depend on at the same moment.
//!
//! ```text
//!   retire: from now on nobody can depend on it ──▶ is it in use? ─ no ─▶ delete
//!                                                        └─ yes ─▶ un-retire, refuse
//! ```
//!
//! A transaction sees only what is in the view: whoever came to depend on the record a moment before would not be
//! seen by one that looks and deletes at once. Whoever depends on a record reads it in its transaction, refuses a
//! retired one, and so runs again where it was retired meanwhile; after that the view shows all that came before.

use crate::Context;
use crate::engine::view::Has;
use crate::engine::{Record, Tables, Tx};
use model::{Error, Result};

pub trait Retire: Record + Clone {
    /// Whether it is about to be deleted.
    fn retired(&mut self) -> &mut bool;
}

/// Deletes a record that nothing uses. `in_use` says what stands against it, `gone` what goes with it. One that a
/// crash left retired is deleted by asking again.
pub async fn delete<T: Retire>(
    context: &Context,
    id: &str,
    not_found: impl Fn() -> Error,
    in_use: impl Fn(&Tables) -> Option<Error>,
    mut gone: impl FnMut(&mut Tx<'_>, &T),
) -> Result<()>
where
    Tables: Has<T>,
{
    let with = |record: &T, retired: bool| {
        let mut record = record.clone();
        *record.retired() = retired;
        record
    };
    context
        .transact(|tx| {
            let record = tx.get::<T>(id).ok_or_else(&not_found)?;
            tx.put(&with(&record, true));
            Ok(())
        })
        .await?;
    let refused = context
        .transact(|tx| {
            let record = tx.get::<T>(id).ok_or_else(&not_found)?;
            let refused = in_use(tx.tables());
            match &refused {
                Some(_) => tx.put(&with(&record, false)),
                None => {
                    tx.delete::<T>(id);
                    gone(tx, &record);
                }
            }
            Ok(refused)
        })
        .await?;
    refused.map_or(Ok(()), Err)
}
