//! Loads packet filters into a namespace.

use std::io::{self, Write};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use super::namespace::Namespace;
use super::netlink::Listener;
use super::table::Table;
use super::{NetError, io_failed, nfnetlink};

/// How much of nft's complaint is passed on: it repeats the line at fault, which may be a long set.
const COMPLAINT_LENGTH_MAX: usize = 2000;

/// The packet filter of a namespace.
pub(super) struct Filter {
    namespace: Namespace,
    pub listener: Arc<Listener>,
    /// The tables that are loaded, as far as we know, with the generation that loading it made: another one means that
    /// somebody touched the rules since.
    loaded: Option<(Vec<Table>, u32)>,
}

impl Filter {
    pub(super) async fn open(namespace: &Namespace) -> io::Result<Filter> {
        let listener = Arc::new(nfnetlink::listen(namespace).await?);
        Ok(Filter { namespace: namespace.clone(), listener, loaded: None })
    }

    /// Makes the tables hold: all from one moment on, or nothing has changed. Says only what differs from what holds
    /// already, where that is known and can be.
    pub(super) async fn load(&mut self, tables: Vec<Table>) -> Result<(), NetError> {
        let failed = io_failed("can't run nft (package nftables)");
        if let Some((loaded, generation)) = self.loaded.take()
            && self.namespace.run(nfnetlink::generation).await.map_err(&failed)? == generation
            && let Some(change) = since(&tables, &loaded)
        {
            match self.run_all(change, generation).await {
                Ok(generation) => {
                    let tables = tables.into_iter().zip(&loaded).map(|(table, old)| table.called(old));
                    self.loaded = Some((tables.collect(), generation));
                    return Ok(());
                }
                // The whole is always right.
                Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "rules not changed"),
            }
        }
        self.replace(tables).await
    }

    /// Makes the whole of the tables hold, in place of what is there of them, known or not.
    async fn replace(&mut self, tables: Vec<Table>) -> Result<(), NetError> {
        let failed = io_failed("can't ask netfilter for its tables");
        let awake = self.namespace.run(nfnetlink::tables_awake).await.map_err(failed)?;
        let holds = |table: &Table| awake.contains(table.name());
        let new = tables.into_iter().map(|table| match holds(&table) {
            true => {
                let other = table.other();
                table.called(&other)
            }
            false => table,
        });
        let new: Vec<Table> = new.collect();
        let old: Vec<Table> = new.iter().map(Table::other).collect();
        let all = |tables: &[Table], text: fn(&Table) -> String| tables.iter().map(text).collect::<String>();
        let texts = match old.iter().any(holds) {
            false => vec![all(&new, Table::whole) + &all(&old, Table::gone)],
            true => vec![
                all(&new, Table::whole_asleep),
                all(&new, Table::awake) + &all(&old, Table::asleep),
                all(&old, Table::gone),
            ],
        };
        let generation = self.run_all(texts, 0).await?;
        self.loaded = Some((new, generation));
        Ok(())
    }

    pub(super) async fn remove(&mut self, table: &Table) -> Result<(), NetError> {
        self.loaded = None;
        self.run(table.gone() + &table.other().gone()).await.map(drop)
    }

    /// Runs the texts that say anything, one after the other; the generation that they made of this one.
    async fn run_all(
        &self,
        texts: impl IntoIterator<Item = String>,
        mut generation: u32,
    ) -> Result<u32, NetError> {
        for text in texts.into_iter().filter(|text| !text.is_empty()) {
            generation = self.run(text).await?;
        }
        Ok(generation)
    }

    /// Runs the text; the generation that it made.
    async fn run(&self, text: String) -> Result<u32, NetError> {
        let ran = self.namespace.run(move || {
            let output = feed("nft", &["-f", "-"], &text)?;
            Ok((output, nfnetlink::generation()?))
        });
        let (output, generation) = ran.await.map_err(io_failed("can't run nft (package nftables)"))?;
        if output.status.success() {
            self.listener.forget();
            return Ok(generation);
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        let complaint: String = complaint.chars().take(COMPLAINT_LENGTH_MAX).collect();
        Err(NetError::Failed(format!("nft refused the packet filter: {}", complaint.trim())))
    }
}

/// Texts to run one after the other; None where only the whole does.
fn since(tables: &[Table], loaded: &[Table]) -> Option<[String; 2]> {
    let mut all = [String::new(), String::new()];
    for (table, loaded) in tables.iter().zip(loaded) {
        for (text, more) in all.iter_mut().zip(table.since(loaded)?) {
            text.push_str(&more);
        }
    }
    (tables.len() == loaded.len()).then_some(all)
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
