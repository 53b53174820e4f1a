//! Loads packet filter text into a namespace.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use super::NetError;
use super::namespace::Namespace;

/// How much of nft's complaint is passed on: it repeats the line at fault, which may be a long set.
const COMPLAINT_BYTES_MAX: usize = 2000;

/// One transaction: all of the text holds from now on, or nothing has changed.
pub(super) async fn load(namespace: &Namespace, text: String) -> Result<(), NetError> {
    let output = namespace
        .run(move || {
            // A child gets the namespace of the thread that starts it.
            let mut child = Command::new("nft")
                .args(["-f", "-"])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                // nft reads all before it says anything; where it ended early its own words matter more.
                match stdin.write_all(text.as_bytes()) {
                    Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
                    _ => {}
                }
            }
            child.wait_with_output()
        })
        .await
        .map_err(|source| NetError::Io { what: "can't run nft (package nftables)".to_owned(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let complaint: String = complaint.chars().take(COMPLAINT_BYTES_MAX).collect();
    Err(NetError::Failed(format!("nft refused the packet filter: {}", complaint.trim())))
}
