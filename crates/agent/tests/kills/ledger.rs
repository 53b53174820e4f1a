//! What was acknowledged, and so what must be there.
//!
//! A disk is looked at in units of 4 KiB, each of which holds one byte all over: what it may hold is a short list.

use model::Id;
use std::collections::{BTreeMap, BTreeSet};

pub const UNIT: u64 = 4096;
pub const UNITS_OF_PLACE: u64 = 8;
const MIB: u64 = 1 << 20;
/// Where a guest writes: beside each other in one cluster and over two, in one block of a snapshot and over two, at
/// both ends of what one table tells of, and behind that, where the disk has grown so far.
pub const PLACES: [u64; 7] = [
    0,
    MIB - 4 * UNIT,
    2 * MIB,
    2 * MIB + 16 * UNIT,
    600 * MIB,
    1024 * MIB - UNITS_OF_PLACE * UNIT,
    1025 * MIB - 4 * UNIT,
];

/// By offset.
pub type Content = BTreeMap<u64, u8>;

/// What a guest does to units beside each other.
#[derive(Clone, Debug)]
pub struct Action {
    pub volume_id: Id,
    pub offset: u64,
    pub units: u64,
    pub what: What,
}

#[derive(Clone, Copy, Debug)]
pub enum What {
    /// Zeros, too.
    Write(u8),
    /// They hold what they did, or zeros.
    Discard,
}

#[derive(Clone, Debug)]
struct Unit {
    /// One of these it holds now.
    now: Vec<u8>,
    /// One of these it held at the last flush.
    flushed: Vec<u8>,
    /// What may have come to the disk since.
    since: Vec<u8>,
}

#[derive(Clone, Debug)]
pub struct Disk {
    pub size_gib: u32,
    units: BTreeMap<u64, Unit>,
}

#[derive(Default)]
pub struct Ledger {
    pub disks: BTreeMap<Id, Disk>,
    /// Asked for and not answered yet.
    under_way: Option<Action>,
    /// Since QEMU was killed nobody has looked.
    was_killed: bool,
    /// What shares volumes was killed, and the guest has not rested since.
    was_cut: bool,
    window: Option<Window>,
}

/// The time in which a snapshot is made: it holds what the disks did at one moment of it.
struct Window {
    before: BTreeMap<Id, Disk>,
    actions: Vec<Action>,
    /// QEMU was killed before or meanwhile: of what was not flushed, some is gone.
    was_killed: bool,
    /// Who shares volumes was: a write that was under way may be there in part, before it is done once more.
    was_cut: bool,
}

/// All units of a disk of this size.
pub fn offsets(size_gib: u32) -> impl Iterator<Item = u64> {
    let of_place = |place| (0..UNITS_OF_PLACE).map(move |unit| place + unit * UNIT);
    PLACES.into_iter().flat_map(of_place).filter(move |offset| *offset < u64::from(size_gib) << 30)
}

impl Unit {
    fn of(content: u8) -> Unit {
        Unit { now: vec![content], flushed: vec![content], since: Vec::new() }
    }

    fn after(&self, what: What) -> Vec<u8> {
        match what {
            What::Write(content) => vec![content],
            What::Discard => self.now.iter().copied().chain([0]).collect(),
        }
    }
}

impl Disk {
    /// Behind what is known of its content there are zeros.
    pub fn new(size_gib: u32, content: &Content) -> Disk {
        let unit = |offset| (offset, Unit::of(content.get(&offset).copied().unwrap_or(0)));
        Disk { size_gib, units: offsets(size_gib).map(unit).collect() }
    }

    pub fn grow(&mut self, size_gib: u32) {
        self.size_gib = size_gib;
        for offset in offsets(size_gib) {
            self.units.entry(offset).or_insert(Unit::of(0));
        }
    }

    fn now(&self) -> impl Iterator<Item = (u64, Vec<u8>)> {
        self.units.iter().map(|(offset, unit)| (*offset, unit.now.clone()))
    }

    /// What each unit may hold, the likeliest first.
    pub fn expected(&self) -> impl Iterator<Item = (u64, Vec<u8>)> {
        self.units.iter().map(|(offset, unit)| {
            let all = unit.now.iter().chain(&unit.since).chain(&unit.flushed);
            (*offset, all.copied().collect())
        })
    }

    fn of(&mut self, action: &Action) -> impl Iterator<Item = &mut Unit> {
        self.units.range_mut(action.offset..action.offset + action.units * UNIT).map(|(_, unit)| unit)
    }

    fn holds(&self, content: &Content) -> bool {
        self.units.iter().all(|(offset, unit)| unit.now.contains(&content[offset]))
    }
}

impl Ledger {
    pub fn new(disks: BTreeMap<Id, Disk>) -> Ledger {
        Ledger { disks, ..Ledger::default() }
    }

    /// Said before the guest does it.
    pub fn begin(&mut self, action: &Action) {
        for unit in self.disks.get_mut(&action.volume_id).unwrap().of(action) {
            let after = unit.after(action.what);
            unit.since.extend(after);
        }
        self.under_way = Some(action.clone());
        if let Some(window) = &mut self.window {
            window.actions.push(action.clone());
        }
    }

    /// It is done.
    pub fn end(&mut self, action: &Action) {
        for unit in self.disks.get_mut(&action.volume_id).unwrap().of(action) {
            unit.now = unit.after(action.what);
        }
        self.under_way = None;
    }

    pub fn flushed(&mut self, volume_id: &Id) {
        for unit in self.disks.get_mut(volume_id).unwrap().units.values_mut() {
            unit.flushed = unit.now.clone();
            unit.since.clear();
        }
    }

    /// Nobody writes: this is what is there, and from now on must be.
    pub fn found(&mut self, volume_id: &Id, content: &Content) {
        (self.under_way, self.was_killed) = (None, false);
        let disk = self.disks.get_mut(volume_id).unwrap();
        *disk = Disk::new(disk.size_gib, content);
    }

    /// A snapshot may be made from now on.
    pub fn open_window(&mut self, volume_ids: &[Id]) {
        let of_window = |id: &Id| (id.clone(), self.disks[id].clone());
        let before = volume_ids.iter().map(of_window).collect();
        let actions = self.under_way.iter().cloned().collect();
        self.window = Some(Window { before, actions, was_killed: self.was_killed, was_cut: self.was_cut });
    }

    /// Said before it is.
    pub fn killed(&mut self) {
        self.was_killed = true;
        if let Some(window) = &mut self.window {
            window.was_killed = true;
        }
    }

    /// The same of what shares volumes.
    pub fn cut(&mut self) {
        self.was_cut = true;
        if let Some(window) = &mut self.window {
            window.was_cut = true;
        }
    }

    /// Nothing is under way.
    pub fn rests(&mut self) {
        self.was_cut = false;
    }

    /// It is made; judges it. Those of each group are of one moment: a guest that pauses is asked for nothing here, so that
    /// those of several machines are not.
    pub fn close_window(
        &mut self,
        held: &BTreeMap<Id, Content>,
        groups: &[BTreeSet<Id>],
    ) -> Result<(), String> {
        let Window { before, actions, was_killed, was_cut } = self.window.take().unwrap();
        if was_killed || was_cut {
            return before.iter().try_for_each(|(volume_id, disk)| {
                let expected = if was_killed { disk.expected().collect() } else { disk.now().collect() };
                unit_by_unit(volume_id, expected, &actions, &held[volume_id])
            });
        }
        groups.iter().try_for_each(|group| {
            let before = before.iter().filter(|(volume_id, _)| group.contains(*volume_id));
            of_one_moment(before.map(|(id, disk)| (id.clone(), disk.clone())).collect(), &actions, held)
        })
    }

    /// Nothing came of it.
    pub fn drop_window(&mut self) {
        self.window = None;
    }
}

fn of_one_moment(
    mut before: BTreeMap<Id, Disk>,
    actions: &[Action],
    held: &BTreeMap<Id, Content>,
) -> Result<(), String> {
    for step in 0..=actions.len() {
        if before.iter().all(|(volume_id, disk)| disk.holds(&held[volume_id])) {
            return Ok(());
        }
        let Some(action) = actions.get(step) else { break };
        for unit in before.get_mut(&action.volume_id).into_iter().flat_map(|disk| disk.of(action)) {
            unit.now = unit.after(action.what);
        }
    }
    Err(format!("It is of no moment: {held:?}\nbefore it: {before:?}\nmeanwhile: {actions:?}"))
}

fn unit_by_unit(
    volume_id: &Id,
    expected: Vec<(u64, Vec<u8>)>,
    actions: &[Action],
    held: &Content,
) -> Result<(), String> {
    for (offset, mut expected) in expected {
        let of_unit = actions.iter().filter(|action| {
            action.volume_id == *volume_id
                && (action.offset..action.offset + action.units * UNIT).contains(&offset)
        });
        expected.extend(of_unit.map(|action| match action.what {
            What::Write(content) => content,
            What::Discard => 0,
        }));
        let content = held[&offset];
        if !expected.contains(&content) {
            return Err(format!("{volume_id} at {offset} holds {content}, not one of {expected:?}"));
        }
    }
    Ok(())
}
