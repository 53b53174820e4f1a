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

use crate::dhcp_options::DhcpOptions;
use crate::engine::table::Table;
use crate::engine::view::Has;
use crate::engine::{Record, Tables, Tx, transaction};
use crate::instance_type::OwnType;
use crate::placement_group::PlacementGroup;
use crate::prefix_list::PrefixList;
use crate::public_pool::PublicPool;
use crate::region::RegionState;
use crate::security_group::{self, SecurityGroup};
use crate::subnet::{self, Subnet};
use crate::vpc::Vpc;
use crate::{Context, Control};
use model::{Error, Result};
use std::sync::Arc;

/// Lets all be used again whose deletion a crash has cut short: nothing of it was acknowledged. Every kind of `Retire`
/// is named here.
pub(crate) async fn undo_all(control: &Control, region: &RegionState) -> Result<()> {
    transaction::transact(&*control.store, &region.view, &control.environment, |tx| {
        undo::<Vpc>(tx);
        undo::<Subnet>(tx);
        undo::<DhcpOptions>(tx);
        undo::<PrefixList>(tx);
        undo::<SecurityGroup>(tx);
        undo::<PlacementGroup>(tx);
        undo::<OwnType>(tx);
        undo::<PublicPool>(tx);
        subnet::ipv6::keep_all(tx);
        security_group::association::keep_all(tx);
        Ok(())
    })
    .await
}

fn undo<T: Retire>(tx: &mut Tx<'_>)
where
    Tables: Has<T>,
{
    let table: &Table<T> = tx.tables().table();
    let retired: Vec<String> =
        table.iter().filter(|record| record.is_retired()).map(|record| record.id().to_owned()).collect();
    for id in retired {
        let Some(record) = tx.get::<T>(&id) else { continue };
        let mut record = (*record).clone();
        *record.retired() = false;
        tx.put(&record);
    }
}

pub trait Retire: Record + Clone {
    /// Whether it is about to be deleted.
    fn retired(&mut self) -> &mut bool;
    fn is_retired(&self) -> bool;
}

/// A record that another comes to depend on: none that is about to be deleted.
pub fn depend<T: Retire>(tx: &mut Tx<'_>, id: &str) -> Option<Arc<T>>
where
    Tables: Has<T>,
{
    tx.get::<T>(id).filter(|record| !record.is_retired())
}

/// Deletes a record that nothing uses. `in_use` says what stands against it, `gone` what goes with it.
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
