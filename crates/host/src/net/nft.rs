//! Loads packet filters into a namespace.
//!
//! With the rules goes a seal: an empty chain whose name says what the rules are and as which generation of the
//! namespace's they hold. A driver that starts anew leaves alone what is sealed as it would load it: what rules remember
//! (who has how many flows) and the times of flows go when their table goes.

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
    loaded: Option<Loaded>,
}

/// The tables that are loaded, as far as we know.
struct Loaded {
    tables: Vec<Table>,
    /// What loading them made: another one means that somebody touched the rules since.
    generation: u32,
    seal: String,
}

impl Filter {
    pub(super) async fn open(namespace: &Namespace) -> io::Result<Filter> {
        let listener = Arc::new(nfnetlink::listen(namespace).await?);
        Ok(Filter { namespace: namespace.clone(), listener, loaded: None })
    }

    /// Makes the tables hold: all from one moment on, or nothing has changed. Says only what differs from what holds
    /// already, where that is known and can be.
    pub(super) async fn load(&mut self, mut tables: Vec<Table>) -> Result<(), NetError> {
        let failed = io_failed("can't ask netfilter for its generation");
        let generation = self.namespace.run(nfnetlink::generation).await.map_err(failed)?;
        if let Some(loaded) = self.loaded.take()
            && loaded.generation == generation
            && let Some(texts) = since(&tables, &loaded.tables)
        {
            if texts.iter().all(String::is_empty) {
                self.loaded = Some(loaded);
                return Ok(());
            }
            let [ahead, change, after] = texts;
            let change = change + &loaded.tables[0].without_chain(&loaded.seal);
            tables = tables.into_iter().zip(&loaded.tables).map(|(table, old)| table.called(old)).collect();
            match self.run_all([ahead, change, after], &tables, generation).await {
                Ok((generation, seal)) => {
                    self.loaded = Some(Loaded { tables, generation, seal });
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
        let asked = self.namespace.run(|| Ok((nfnetlink::tables_awake()?, nfnetlink::generation()?)));
        let (awake, generation) = asked.await.map_err(&failed)?;
        let holds = |table: &Table| awake.contains(table.name());
        let turned = |table: Table| {
            let other = table.other();
            table.called(&other)
        };
        let there = tables.into_iter().map(|table| if holds(&table.other()) { turned(table) } else { table });
        let there: Vec<Table> = there.collect();
        let seal = seal(&there, generation);
        let (first, name) = (there[0].name().to_owned(), seal.clone());
        if self.namespace.run(move || nfnetlink::has_chain(&first, &name)).await.map_err(&failed)? {
            self.loaded = Some(Loaded { tables: there, generation, seal });
            return Ok(());
        }
        let new = there.into_iter().map(|table| if holds(&table) { turned(table) } else { table });
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
        let (generation, seal) = self.run_all(texts, &new, generation).await?;
        self.loaded = Some(Loaded { tables: new, generation, seal });
        Ok(())
    }

    pub(super) async fn remove(&mut self, table: &Table) -> Result<(), NetError> {
        self.loaded = None;
        self.run(table.gone() + &table.other().gone()).await.map(drop)
    }

    /// All that filters in the namespace, ours and others', as nft writes it.
    pub(super) async fn listing(&self) -> io::Result<String> {
        let list = || Command::new("nft").args(["list", "ruleset"]).output();
        let output = self.namespace.run(list).await?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs the texts that say anything, one after the other, after which the tables hold; the last seals them. The
    /// generation that they make of this one, and the seal.
    async fn run_all(
        &self,
        texts: impl IntoIterator<Item = String>,
        tables: &[Table],
        mut generation: u32,
    ) -> Result<(u32, String), NetError> {
        let mut texts: Vec<String> = texts.into_iter().filter(|text| !text.is_empty()).collect();
        let seal = seal(tables, generation.wrapping_add(texts.len() as u32));
        if let Some(last) = texts.last_mut() {
            last.push_str(&tables[0].with_chain(&seal));
        }
        for text in texts {
            let made = self.run(text).await?;
            generation = generation.wrapping_add(1);
            // Else somebody has changed them beside us, who is heard of, and seen by the generation, still.
            if made == generation {
                self.listener.forget();
            }
        }
        Ok((generation, seal))
    }

    /// Runs the text; the generation of the rules since.
    async fn run(&self, text: String) -> Result<u32, NetError> {
        let ran = self.namespace.run(move || {
            let output = feed("nft", &["-f", "-"], &text)?;
            Ok((output, nfnetlink::generation()?))
        });
        let (output, generation) = ran.await.map_err(io_failed("can't run nft (package nftables)"))?;
        if output.status.success() {
            return Ok(generation);
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        let complaint: String = complaint.chars().take(COMPLAINT_LENGTH_MAX).collect();
        Err(NetError::Failed(format!("nft refused the packet filter: {}", complaint.trim())))
    }
}

/// The name of the chain that seals the tables.
fn seal(tables: &[Table], generation: u32) -> String {
    let mut hash = blake3::Hasher::new();
    for table in tables {
        hash.update(table.content().as_bytes());
    }
    format!("sealed_{generation}_{}", &hash.finalize().to_hex()[..32])
}

/// Texts to run one after the other; None where only the whole does.
fn since(tables: &[Table], loaded: &[Table]) -> Option<[String; 3]> {
    let mut all = [const { String::new() }; 3];
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
