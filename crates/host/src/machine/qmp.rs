//! A client of QEMU's monitor protocol (QEMU manual, "QEMU Machine Protocol Specification") over a unix socket.
//!
//! Invariants: no call waits for ever; no line is kept that is longer than `LINE_BYTES_MAX`; an answer reaches the
//! call that it belongs to, by its id, or nobody; of each kind of event only the newest waits to be taken, so that a
//! guest that resets all day fills nothing. QEMU's side speaks to one client at a time: whoever connects while
//! another does gets no greeting.

use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Longer than any answer that we ask for: a piece of the console is the longest, at 88 KiB.
const LINE_BYTES_MAX: u64 = 1024 * 1024;

/// QEMU answers in milliseconds; on a host with more guests than cores, in seconds.
pub(super) const CALL_TIME_MAX: Duration = Duration::from_secs(20);

/// The kinds of event that we listen for; all others are passed over.
const EVENTS: &[&str] = &["SHUTDOWN", "RESET", "GUEST_PANICKED", "BLOCK_IO_ERROR"];

#[derive(Debug, thiserror::Error)]
pub(super) enum QmpError {
    #[error("the monitor's socket")]
    Io(#[from] io::Error),
    #[error("no answer to {0} in time")]
    TimedOut(String),
    #[error("{command}: {description}")]
    Refused { command: String, description: String },
    #[error("the monitor's connection has ended")]
    Closed,
    #[error("the monitor does not speak QMP")]
    NotQmp,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Event {
    pub(super) name: String,
    pub(super) data: Value,
}

pub(super) struct Qmp {
    shared: Arc<Shared>,
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    reader: JoinHandle<()>,
    next_id: AtomicU64,
}

/// What QEMU returned, or why it refused.
type Answer = Result<Value, String>;

#[derive(Default)]
struct Shared {
    /// Who waits for which id; None once the connection has ended.
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>,
    events: Mutex<Vec<Event>>,
    changed: Notify,
}

impl Qmp {
    /// Connects, waits for the greeting, and takes up work. `greeting_time_max` bounds all of it.
    pub(super) async fn connect(path: &Path, greeting_time_max: Duration) -> Result<Qmp, QmpError> {
        let greeted = timeout(greeting_time_max, async {
            let stream = UnixStream::connect(path).await?;
            let (reader, writer) = stream.into_split();
            let mut lines = Lines::new(reader);
            let greeting = lines.next().await?.ok_or(QmpError::Closed)?;
            greeting.get("QMP").ok_or(QmpError::NotQmp)?;
            Ok::<_, QmpError>((lines, writer))
        });
        let (lines, writer) = greeted.await.map_err(|_| QmpError::TimedOut("connect".into()))??;
        let shared = Arc::new(Shared { waiting: Mutex::new(Some(HashMap::new())), ..Shared::default() });
        let reader = tokio::spawn(read(lines, shared.clone()));
        let qmp = Qmp { shared, writer: tokio::sync::Mutex::new(writer), reader, next_id: AtomicU64::new(1) };
        qmp.execute("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    /// Runs a command and returns what it answers.
    pub(super) async fn execute(&self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        self.call(command, arguments, None).await
    }

    /// The same for a command that takes a file descriptor.
    pub(super) async fn execute_with_fd(
        &self,
        command: &str,
        arguments: Value,
        fd: BorrowedFd<'_>,
    ) -> Result<Value, QmpError> {
        self.call(command, arguments, Some(fd)).await
    }

    async fn call(
        &self,
        command: &str,
        arguments: Value,
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<Value, QmpError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.shared.waiting.lock().as_mut().ok_or(QmpError::Closed)?.insert(id, sender);
        let line = format!("{}\n", json!({ "execute": command, "arguments": arguments, "id": id }));
        let answer = timeout(CALL_TIME_MAX, async {
            if let Err(error) = self.send(line.as_bytes(), fd).await {
                // Half a line may have gone out.
                self.shared.close();
                return Err(error.into());
            }
            receiver.await.map_err(|_| QmpError::Closed)
        });
        let answer = answer.await;
        if let Some(waiting) = self.shared.waiting.lock().as_mut() {
            waiting.remove(&id);
        }
        match answer {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(description))) => Err(QmpError::Refused { command: command.to_owned(), description }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(QmpError::TimedOut(command.to_owned())),
        }
    }

    async fn send(&self, line: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let writer = self.writer.lock().await;
        let stream: &UnixStream = writer.as_ref();
        let mut sent = 0;
        while sent < line.len() {
            let rest = [IoSlice::new(&line[sent..])];
            sent += stream
                .async_io(Interest::WRITABLE, || {
                    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                    let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
                    // The descriptor travels with the first byte.
                    let fds = fd.filter(|_| sent == 0);
                    if let Some(fd) = &fds {
                        control.push(rustix::net::SendAncillaryMessage::ScmRights(std::slice::from_ref(fd)));
                    }
                    let flags = rustix::net::SendFlags::NOSIGNAL;
                    Ok(rustix::net::sendmsg(stream.as_fd(), &rest, &mut control, flags)?)
                })
                .await?;
        }
        Ok(())
    }

    /// The next event; None once the connection has ended.
    pub(super) async fn next_event(&self) -> Option<Event> {
        loop {
            let changed = self.shared.changed.notified();
            {
                let mut events = self.shared.events.lock();
                if !events.is_empty() {
                    return Some(events.remove(0));
                }
            }
            if self.is_closed() {
                return None;
            }
            changed.await;
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.shared.waiting.lock().is_none()
    }
}

impl Drop for Qmp {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Shared {
    fn close(&self) {
        // Whoever waits is told by the loss of its sender.
        *self.waiting.lock() = None;
        self.changed.notify_one();
    }

    fn take_in(&self, mut message: Value) {
        if let Some(name) = message.get("event").and_then(Value::as_str) {
            if EVENTS.contains(&name) {
                let event = Event { name: name.to_owned(), data: message["data"].take() };
                let mut events = self.events.lock();
                events.retain(|had| had.name != event.name);
                events.push(event);
                self.changed.notify_one();
            }
            return;
        }
        let Some(id) = message.get("id").and_then(Value::as_u64) else { return };
        let waiting = self.waiting.lock().as_mut().and_then(|waiting| waiting.remove(&id));
        if let Some(waiting) = waiting {
            let answer = match message.get("error") {
                None => Ok(message["return"].take()),
                Some(error) => Err(error["desc"].as_str().unwrap_or("refused without a word").to_owned()),
            };
            // A call that has given up no longer listens.
            let _ = waiting.send(answer);
        }
    }
}

async fn read(mut lines: Lines, shared: Arc<Shared>) {
    loop {
        match lines.next().await {
            Ok(Some(message)) => shared.take_in(message),
            Ok(None) => break,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "monitor not read any further");
                break;
            }
        }
    }
    shared.close();
}

/// One JSON value a line.
struct Lines {
    reader: BufReader<OwnedReadHalf>,
    line: Vec<u8>,
}

impl Lines {
    fn new(reader: OwnedReadHalf) -> Self {
        Lines { reader: BufReader::new(reader), line: Vec::new() }
    }

    async fn next(&mut self) -> Result<Option<Value>, QmpError> {
        self.line.clear();
        let mut limited = (&mut self.reader).take(LINE_BYTES_MAX);
        limited.read_until(b'\n', &mut self.line).await?;
        match self.line.last() {
            None => Ok(None),
            Some(b'\n') => serde_json::from_slice(&self.line).map(Some).map_err(|_| QmpError::NotQmp),
            // Too long, or cut off by the end.
            Some(_) => Err(QmpError::NotQmp),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixListener;

    /// A monitor that plays `script`: what it says after the greeting and the n-th line it hears.
    async fn scripted(script: Vec<String>) -> (tempfile::TempDir, Result<Qmp, QmpError>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qmp");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let (reader, mut writer) = stream.into_split();
            let mut reader = BufReader::new(reader);
            writer.write_all(b"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n").await.unwrap();
            for said in script {
                let mut heard = String::new();
                reader.read_line(&mut heard).await.unwrap();
                writer.write_all(said.as_bytes()).await.unwrap();
            }
            std::future::pending::<()>().await
        });
        let qmp = Qmp::connect(&path, Duration::from_secs(5)).await;
        (dir, qmp)
    }

    const READY: &str = "{\"return\": {}, \"id\": 1}\n";

    #[tokio::test]
    async fn answers_reach_their_call_and_events_pass_between() {
        let answers = concat!(
            "{\"event\": \"RTC_CHANGE\", \"data\": {}}\n",
            "{\"event\": \"RESET\", \"data\": {\"n\": 1}}\n",
            "{\"event\": \"SHUTDOWN\", \"data\": {\"guest\": true}}\n",
            "{\"event\": \"RESET\", \"data\": {\"n\": 2}}\n",
            "{\"return\": \"nobody's\", \"id\": 99}\n",
            "{\"return\": \"second\", \"id\": 3}\n",
            "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such thing\"}, \"id\": 2}\n"
        );
        let (_dir, qmp) = scripted(vec![READY.into(), String::new(), answers.into()]).await;
        let qmp = qmp.unwrap();
        let (first, second) = tokio::join!(qmp.execute("first", json!({})), qmp.execute("second", json!({})));
        assert!(
            matches!(first, Err(QmpError::Refused { description, .. }) if description == "no such thing")
        );
        assert_eq!(second.unwrap(), "second");
        let (shutdown, reset) = (qmp.next_event().await.unwrap(), qmp.next_event().await.unwrap());
        assert_eq!((shutdown.name.as_str(), shutdown.data["guest"].as_bool()), ("SHUTDOWN", Some(true)));
        assert_eq!((reset.name.as_str(), reset.data["n"].as_u64()), ("RESET", Some(2)), "the newest only");
    }

    #[tokio::test]
    async fn a_line_without_end_ends_the_connection_not_the_memory() {
        let endless = "x".repeat(LINE_BYTES_MAX as usize + 1);
        let (_dir, qmp) = scripted(vec![READY.into(), endless]).await;
        let qmp = qmp.unwrap();
        assert!(matches!(qmp.execute("anything", json!({})).await, Err(QmpError::Closed)));
        assert_eq!(qmp.next_event().await, None);
        assert!(matches!(qmp.execute("anything", json!({})).await, Err(QmpError::Closed)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_mute_monitor_costs_a_bounded_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qmp");
        let _listener = UnixListener::bind(&path).unwrap();
        let connected = Qmp::connect(&path, Duration::from_secs(5)).await;
        assert!(matches!(connected, Err(QmpError::TimedOut(_))));
    }
}
