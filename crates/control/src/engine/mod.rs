//! The mechanisms that every operation shares, one of each: typed records in the store and the in-memory view of
//! them, transactions, describe (ids, filters, pages), tags, client tokens.
//!
//! ```text
//!   handler ──▶ transact(closure over the view) ──▶ store (compare-and-swap, durable)
//!      ▲                                               │ watch
//!      └──────── reads ◀──── view (indexed tables) ◀───┘──▶ changes ──▶ reconcilers
//! ```
//!
//! Invariants: the view changes only by what the store's watch delivers; a handler answers only after the view
//! shows its own write; a request for one resource costs lookups, never a scan.

mod by_id;
mod claim;
pub mod describe;
pub mod filter;
pub mod quota;
pub mod retire;
pub mod settings;
pub mod table;
pub mod tags;
pub mod throttle;
pub mod token;
pub mod transaction;
pub mod unsupported;
pub mod view;

pub use claim::Claim;
pub use quota::Quotas;
pub use table::{Record, Table};
pub use tags::Tags;
pub use transaction::Tx;
pub use view::{Change, Tables, View, Was};
