//! Disks: snapshot blocks and the volumes made of them.
