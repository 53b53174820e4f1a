//! Snapshots of volumes, several at one moment, also under a machine that writes to them.
//!
//! ```text
//!   begin ─▶ an empty layer for each volume ─▶ journal ─▶ volumes have it on top ─┐
//!                  the machine, where one runs, puts it there in one step ◀───────┘
//!   finish ─▶ what lies below are the snapshots ─▶ journal gone
//! ```
//!
//! Whatever is killed in between, it goes forward. A machine that is gone has left all it wrote in the layer that it
//! knew as the uppermost, and the one above that is empty: so each volume is whole by its head at every point, and
//! what lies below the new layer never changes again once no machine runs that has not put it on top. Only where a
//! machine has surely refused is it undone, and then, once that is begun, whatever is killed in between.

use crate::catalogue::{Disks, Head, to_json};
use crate::layer::{Format, check};
use crate::volumes::{VolumeDisk, whole};
use crate::{Result, VolumeError, durable, qcow2};
use model::Kind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

pub(crate) const JOURNAL: &str = "freeze";

/// Snapshots that are under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Freeze {
    pub key: String,
    /// Whose machine shall put the new layers on top, if it runs.
    pub instance_id: Option<String>,
    pub volumes: Vec<Frozen>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frozen {
    pub volume_id: String,
    /// As it shall be, the new layer on top.
    pub disk: VolumeDisk,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Journal {
    instance_id: Option<String>,
    items: Vec<Item>,
    /// It is being undone: it never goes forward again.
    #[serde(default)]
    is_undone: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Item {
    /// None where it was deleted meanwhile.
    snapshot_id: Option<String>,
    volume_id: String,
    /// The volume with its new layer.
    head: Head,
}

impl Disks {
    /// Begins to make these snapshots, each of its volume, all at one moment. None where they are there already.
    /// Repeated, it answers what was begun. The machine that uses the volumes is the instance's, or there is none.
    pub fn begin_freeze(
        &self,
        snapshots: &[(&str, &str)],
        instance_id: Option<&str>,
    ) -> Result<Option<Freeze>> {
        let volume_ids: BTreeSet<&str> = snapshots.iter().map(|(_, volume_id)| *volume_id).collect();
        let snapshot_ids: BTreeSet<&str> = snapshots.iter().map(|(snapshot_id, _)| *snapshot_id).collect();
        let Some(key) = snapshot_ids.first() else { return Ok(None) };
        if volume_ids.len() != snapshots.len() || snapshot_ids.len() != snapshots.len() {
            return Err(VolumeError::Invalid("A volume has one snapshot at one moment".into()));
        }
        for (snapshot_id, volume_id) in snapshots {
            check(Kind::Snapshot, snapshot_id)?;
            check(Kind::Volume, volume_id)?;
        }
        let _work = self.work_on(&volume_ids.iter().copied().collect::<Vec<_>>());
        if let Some(journal) = self.journal(key) {
            self.apply(&journal)?;
            return self.freeze(key, &journal).map(Some);
        }
        // All of them came to be at once: those that are not there were deleted since.
        if snapshot_ids.iter().any(|id| self.state().has(id)) {
            return Ok(None);
        }
        if let Some(under_way) = self.freezes_of(&volume_ids.iter().copied().collect::<Vec<_>>()).first() {
            return Err(VolumeError::Invalid(format!("{} is still being made", under_way.key)));
        }
        let mut items = Vec::new();
        for (snapshot_id, volume_id) in snapshots {
            let head = self.head(volume_id)?;
            let key = self.key_of(&head)?;
            let mut layers = vec![self.next_layer(volume_id, Format::Qcow2)];
            let path = self.layer_path(&layers[0]);
            whole(&path, || qcow2::create(&path, head.size, key.as_deref()))?;
            layers.extend(head.layers());
            items.push(Item {
                snapshot_id: Some((*snapshot_id).to_owned()),
                volume_id: (*volume_id).to_owned(),
                head: head.of(&layers),
            });
        }
        let journal = Journal { instance_id: instance_id.map(str::to_owned), items, is_undone: false };
        self.write_journal(key, journal.clone())?;
        self.apply(&journal)?;
        self.freeze(key, &journal).map(Some)
    }

    /// What was begun and is neither finished nor undone.
    pub fn freezes(&self) -> Result<Vec<Freeze>> {
        let undone = |(key, journal): (&String, &Journal)| journal.is_undone.then(|| key.clone());
        let undone: Vec<String> = self.state().journals.iter().filter_map(undone).collect();
        undone.iter().try_for_each(|key| self.undo_freeze(key))?;
        let journals = self.state().journals.clone();
        journals.iter().map(|(key, journal)| self.freeze(key, journal)).collect()
    }

    pub(crate) fn freezes_of(&self, volume_ids: &[&str]) -> Vec<Freeze> {
        let journals = self.state().journals.clone();
        let touches = |journal: &Journal| {
            journal.items.iter().any(|item| volume_ids.contains(&item.volume_id.as_str()))
        };
        let touching = journals.iter().filter(|(_, journal)| touches(journal));
        touching.filter_map(|(key, journal)| self.freeze(key, journal).ok()).collect()
    }

    /// No machine writes below the new layers any more: from now on there are the snapshots. No error where they are
    /// there already.
    pub fn finish_freeze(&self, key: &str) -> Result<()> {
        let _work = self.work_on(&[&work(key)]);
        let Some(journal) = self.journal(key) else { return Ok(()) };
        for item in &journal.items {
            if let Some(snapshot_id) = &item.snapshot_id {
                self.put_head(snapshot_id, item.head.of(&item.head.layers()[1..]))?;
            }
        }
        self.remove_journal(key)
    }

    /// The machine has put no new layer on top, and never will: the volumes are as before.
    pub fn undo_freeze(&self, key: &str) -> Result<()> {
        let Some(Journal { items, .. }) = self.journal(key) else { return Ok(()) };
        let work = work(key);
        let ids = items.iter().map(|item| item.volume_id.as_str()).chain([work.as_str()]);
        let _work = self.work_on(&ids.collect::<Vec<_>>());
        let Some(mut journal) = self.journal(key) else { return Ok(()) };
        // As long as there is a journal nobody takes the layer below for one that is no longer written to.
        journal.is_undone = true;
        self.write_journal(key, journal.clone())?;
        for item in &journal.items {
            let head = self.head(&item.volume_id)?;
            if head.layers().first() == item.head.layers().first() {
                self.put_head(&item.volume_id, head.of(&head.layers()[1..]))?;
            }
        }
        self.remove_journal(key)
    }

    /// A snapshot that is under way is no longer wanted.
    pub(crate) fn leave_out(&self, snapshot_id: &str) -> Result<()> {
        let keys: Vec<String> = self.state().journals.keys().cloned().collect();
        for key in keys {
            let _work = self.work_on(&[&work(&key)]);
            let Some(mut journal) = self.journal(&key) else { continue };
            let item = journal.items.iter_mut().find(|item| item.snapshot_id.as_deref() == Some(snapshot_id));
            if let Some(item) = item {
                item.snapshot_id = None;
                self.write_journal(&key, journal)?;
            }
        }
        Ok(())
    }

    /// Volumes that a crash kept from having their new layer have it.
    pub(crate) fn apply(&self, journal: &Journal) -> Result<()> {
        if journal.is_undone {
            return Ok(());
        }
        for item in &journal.items {
            let head = self.head(&item.volume_id)?;
            if head.layers().first() != item.head.layers().first() {
                self.put_head(&item.volume_id, item.head.clone())?;
            }
        }
        Ok(())
    }

    fn journal(&self, key: &str) -> Option<Journal> {
        self.state().journals.get(key).cloned()
    }

    fn write_journal(&self, key: &str, journal: Journal) -> Result<()> {
        durable::write(&self.snapshot_file(key, JOURNAL), &to_json(&journal))?;
        self.state().journals.insert(key.to_owned(), journal);
        Ok(())
    }

    fn remove_journal(&self, key: &str) -> Result<()> {
        durable::remove(&self.snapshot_file(key, JOURNAL))?;
        self.state().journals.remove(key);
        Ok(())
    }

    fn freeze(&self, key: &str, journal: &Journal) -> Result<Freeze> {
        let frozen = |item: &Item| {
            let disk = self.disk(&item.volume_id)?;
            Ok(Frozen { volume_id: item.volume_id.clone(), disk })
        };
        Ok(Freeze {
            key: key.to_owned(),
            instance_id: journal.instance_id.clone(),
            volumes: journal.items.iter().map(frozen).collect::<Result<_>>()?,
        })
    }
}

/// What is worked on by who changes a journal: one that were written after its end would take volumes back to it.
fn work(key: &str) -> String {
    format!("{key}/{JOURNAL}")
}

impl Journal {
    pub(crate) fn heads(&self) -> impl Iterator<Item = &Head> {
        self.items.iter().map(|item| &item.head)
    }
}
