//! What an account has decided about a region: a record of each kind of settings, there once it decides anything.

use crate::Context;
use crate::engine::table::Table;
use crate::engine::view::Has;
use crate::engine::{Record, Tables, Tx};
use model::{AccountId, Result};

/// The record's id is the account's.
pub trait Settings: Record + Clone + PartialEq {
    /// Of an account that has decided nothing.
    fn new(account: &AccountId) -> Self;
}

/// What EC2 names as who decides: no organization has a policy here.
pub const MANAGED_BY: &str = "account";

pub fn of<S: Settings>(tables: &Tables, account: &AccountId) -> S
where
    Tables: Has<S>,
{
    let table: &Table<S> = tables.table();
    table.find(account.as_str()).map_or_else(|| S::new(account), |settings| (**settings).clone())
}

/// As `of`; the transaction runs again where they change meanwhile.
pub fn depend<S: Settings>(tx: &mut Tx<'_>, account: &AccountId) -> S
where
    Tables: Has<S>,
{
    tx.get::<S>(account.as_str()).map_or_else(|| S::new(account), |settings| (*settings).clone())
}

pub async fn change<S: Settings>(context: &Context, change: impl Fn(&mut S)) -> Result<()>
where
    Tables: Has<S>,
{
    context
        .transact(|tx| {
            let before: S = depend(tx, context.account());
            let mut settings = before.clone();
            change(&mut settings);
            if settings != before {
                tx.put(&settings);
            }
            Ok(())
        })
        .await
}
