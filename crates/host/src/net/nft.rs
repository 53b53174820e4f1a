//! Loads packet filter text into a namespace.

use std::io::{self, Write};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use super::namespace::Namespace;
use super::netlink::Listener;
use super::{NetError, io_failed, nfnetlink};

/// How much of nft's complaint is passed on: it repeats the line at fault, which may be a long set.
const COMPLAINT_LENGTH_MAX: usize = 2000;

/// The packet filter of a namespace.
pub(super) struct Filter {
    namespace: Namespace,
    pub listener: Arc<Listener>,
    /// The text that is loaded, as far as we know.
    /// With the generation that loading it made: another one means that somebody touched the rules since.
    loaded: Option<(String, u32)>,
}

impl Filter {
    pub(super) async fn open(namespace: &Namespace) -> io::Result<Filter> {
        let listener = Arc::new(nfnetlink::listen(namespace).await?);
        Ok(Filter { namespace: namespace.clone(), listener, loaded: None })
    }

    /// Makes the text hold, by one transaction: all of it from now on, or nothing has changed. Does nothing where it
    /// holds already.
    pub(super) async fn load(&mut self, text: String) -> Result<(), NetError> {
        let failed = io_failed("can't run nft (package nftables)");
        let namespace = &self.namespace;
        if let Some((_, generation)) = self.loaded.take().filter(|(loaded, _)| *loaded == text)
            && namespace.run(nfnetlink::generation).await.map_err(&failed)? == generation
        {
            self.loaded = Some((text, generation));
            return Ok(());
        }
        let (text, output, generation) = namespace
            .run(move || {
                let output = run_nft(&text)?;
                Ok((text, output, nfnetlink::generation()?))
            })
            .await
            .map_err(&failed)?;
        if output.status.success() {
            self.listener.forget();
            self.loaded = Some((text, generation));
            return Ok(());
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        let complaint: String = complaint.chars().take(COMPLAINT_LENGTH_MAX).collect();
        Err(NetError::Failed(format!("nft refused the packet filter: {}", complaint.trim())))
    }
}

fn run_nft(text: &str) -> io::Result<Output> {
    feed("nft", &["-f", "-"], text)
}

/// Runs a program that reads a text. A child gets the namespace of the thread that starts it.
pub(super) fn feed(program: &str, arguments: &[&str], text: &str) -> io::Result<Output> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // It says nothing before it has read all; where it ended early its own words matter more.
        match stdin.write_all(text.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
    }
    child.wait_with_output()
}
