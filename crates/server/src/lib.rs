//! The HTTP edge: bytes in, an authenticated call of an operation, bytes out.
//!
//! ```text
//!   socket ─▶ listener ─▶ head ─▶ service ─▶ body ─▶ signature ─▶ region ─▶ parameters ─▶ Api::call
//!             (bounded     └── pages for people     (bounded)                                  │
//!              in number                                                                       │
//!              and time)      answer ◀── AWS's encoding, request id, log line ◀────────────────┘
//! ```
//!
//! Invariants:
//! - Nothing of a request is interpreted before its signature over the raw bytes was found good, but for what
//!   says how to refuse it: which service it is for.
//! - Every input is bounded in size, count and time ([`limits`]), before it is held in memory.
//! - Every answer has a request id, and every request one line in the log; neither has a secret, a signature
//!   or the cause of a fault of ours in what the caller sees.
//! - A call once begun runs to its end, whether its caller still listens or not.

mod answer;
mod api;
mod body;
mod exchange;
pub mod limits;
mod listener;
mod pages;
mod parameters;
mod routing;
mod stall;

pub use api::{Api, Caller};
pub use limits::Options;
pub use listener::Server;
