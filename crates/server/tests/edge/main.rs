//! The edge over real loopback sockets, with a fake cloud behind it and a client that sends exact bytes.

mod authentication;
mod bounds;
mod cloud;
mod connections;
mod requests;
mod wire;
