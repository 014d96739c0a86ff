//! The state as an operation sees it: reads and changes, what they cost, and since when what was read is so.

use std::cell::Cell;
use std::ops::Bound;

use bytes::Bytes;
use elea_protocol::id::{Digest, Slot};

use super::{
    Base, Change, Entry, Held, INTEGER_TEXT, KEY, Log, State, integer, key_row, leaf, name,
};
use crate::cost::Spent;
use crate::limits::Limits;
use crate::outcome::{Found, Item, Reason, Version};
use crate::set::Set;

/// The state as an operation sees it.
pub(crate) struct Desk<'a> {
    pub(crate) base: &'a Base,
    pub(crate) state: &'a mut State,
    pub(crate) log: &'a mut Log,
    pub(crate) limits: &'a Limits,
    pub(crate) spent: &'a mut Spent,
    /// Where nothing is changed: since when everything is so that was looked at.
    pub(crate) since: Option<&'a Since>,
}

/// A slot since which everything is so that was looked at.
pub(crate) struct Since {
    /// The slot of the state on disk. What was changed up to it is not known any more.
    stored: Slot,
    latest: Cell<Slot>,
}

impl Since {
    /// Nothing was looked at.
    pub(crate) fn stored(stored: Slot) -> Self {
        Self { stored, latest: Cell::new(Slot::GENESIS) }
    }

    pub(crate) fn slot(&self) -> Slot {
        self.latest.get()
    }

    fn note(&self, slot: Slot) {
        self.latest.set(self.latest.get().max(slot));
    }
}

impl Desk<'_> {
    pub(crate) fn get(&self, key: &[u8]) -> Option<Entry> {
        let name = name(key);
        let change = self.state.changes.get(&name);
        let entry = match change {
            Some(change) => change.entry.clone(),
            None => self.base.entry(&name),
        };
        if let Some(since) = self.since {
            let written = entry.as_ref().map(|entry| entry.version.slot);
            let stored = written.map_or(since.stored, |written| written.min(since.stored));
            since.note(change.map_or(stored, |change| change.slot));
        }
        entry
    }

    /// The keys of this stretch were looked at, as far as they are there or not.
    pub(crate) fn note_stretch(&self, from: &[u8], to: Bound<&[u8]>) {
        let Some(since) = self.since else { return };
        since.note(since.stored);
        let is_empty = match to {
            Bound::Excluded(to) => to <= from,
            Bound::Included(to) => to < from,
            Bound::Unbounded => false,
        };
        if !is_empty {
            let changed = self.state.keys.range::<_, [u8]>((Bound::Included(from), to));
            changed.for_each(|(_, (slot, _))| since.note(*slot));
        }
    }

    /// The plain value of a key, unless it is absent.
    pub(crate) fn read(&mut self, key: &[u8]) -> Result<Option<Found>, Reason> {
        let Some(Entry { held, version }) = self.get(key) else { return Ok(None) };
        let value = self.text(key, &held, usize::MAX)?;
        Ok(Some(Found { value, version }))
    }

    /// The first bytes, so many at most, of the plain value that a key holds.
    pub(crate) fn text(&mut self, key: &[u8], held: &Held, most: usize) -> Result<Bytes, Reason> {
        match held {
            Held::Text(text) => {
                self.spent.read(self.limits, text.len().min(most))?;
                Ok(self.base.hope(text.first(most, &*self.base.rows, &name(key))))
            }
            Held::Integer(value) => {
                let mut text = Bytes::from(value.to_string());
                text.truncate(most);
                Ok(text)
            }
            Held::Set(_) => Err(Reason::HoldsSet),
        }
    }

    /// The integer that a key holds.
    pub(crate) fn integer(&mut self, key: &[u8], held: &Held) -> Result<i64, Reason> {
        if let Held::Integer(value) = held {
            return Ok(*value);
        }
        let text = self.text(key, held, INTEGER_TEXT + 1)?;
        integer(&text).ok_or(Reason::NotAnInteger)
    }

    /// An entry, read as a whole; `None` if it could not be.
    pub(crate) fn item(&mut self, key: &Bytes, entry: &Entry) -> Result<Option<Item>, Reason> {
        match &entry.held {
            Held::Text(text) => self.spent.read(self.limits, text.len())?,
            Held::Integer(_) => {}
            Held::Set(set) => self.spent.members(self.limits, set.len(), set.size())?,
        }
        let item = entry.item(key, &*self.base.rows, &name(key));
        Ok(self.base.hope(item.map(Some)))
    }

    /// The set of a key; `None` where it is absent.
    pub(crate) fn set(&self, key: &[u8]) -> Result<Option<(Set, Version)>, Reason> {
        match self.get(key) {
            None => Ok(None),
            Some(Entry { held: Held::Set(set), version }) => Ok(Some((set, version))),
            Some(_) => Err(Reason::HoldsValue),
        }
    }

    pub(crate) fn contains(&self, key: &[u8], set: &Set, member: &[u8]) -> bool {
        self.base.hope(set.contains(&*self.base.rows, &name(key), member))
    }

    /// The set with a member that is not yet there.
    pub(crate) fn with_member(&self, key: &[u8], mut set: Set, member: Bytes) -> Set {
        self.base.hope(set.insert(&*self.base.rows, &name(key), member));
        set
    }

    /// The set without a member that is there.
    pub(crate) fn without_member(&self, key: &[u8], mut set: Set, member: &[u8]) -> Set {
        self.base.hope(set.remove(&*self.base.rows, &name(key), member));
        set
    }

    pub(crate) fn members(&mut self, key: &[u8], set: &Set) -> Result<Vec<Bytes>, Reason> {
        self.spent.members(self.limits, set.len(), set.size())?;
        Ok(self.base.hope(set.list(&*self.base.rows, &name(key))))
    }

    /// Does all of something, or nothing.
    pub(crate) fn attempt<T, E>(
        &mut self,
        something: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let (outer, trie) = (std::mem::take(self.log), self.state.trie.clone());
        let done = something(self);
        let inner = std::mem::replace(self.log, outer);
        if done.is_ok() {
            self.log.absorb(inner);
        } else {
            self.state.undo(inner);
            self.state.set_trie(trie);
        }
        done
    }

    /// The next keys from one on, in order: so many, or all that are left.
    pub(crate) fn keys_from(&self, from: Bound<&[u8]>, count: usize) -> Vec<Bytes> {
        let (start, skipped) = match from {
            Bound::Included(key) => (key, None),
            Bound::Excluded(key) => (key, Some(key)),
            Bound::Unbounded => (&[][..], None),
        };
        let end = [KEY + 1];
        let rows = self.base.rows.range(&key_row(start), Bound::Excluded(&end));
        let stored = rows.map(|row| row.map(|(key, _)| key.slice(1..)));
        let mut stored = stored
            .filter(|key| key.as_ref().map_or(true, |key| skipped != Some(&key[..])))
            .peekable();
        let changed = self.state.keys.range::<_, [u8]>((from, Bound::Unbounded));
        let mut changed = changed.peekable();
        let mut keys = Vec::new();
        while keys.len() < count {
            let next_stored = match stored.peek() {
                None => None,
                Some(Ok(key)) => Some(key.clone()),
                Some(Err(why)) => {
                    self.base.hope::<()>(Err(why.clone()));
                    break;
                }
            };
            let next_changed = changed.peek().map(|(key, _)| *key);
            match (next_stored, next_changed) {
                (None, None) => break,
                (Some(key), Some(changed)) if key == *changed => drop(stored.next()),
                (Some(key), other) if other.is_none_or(|other| key < *other) => {
                    stored.next();
                    keys.push(key);
                }
                _ => {
                    if let Some((key, (_, true))) = changed.next() {
                        keys.push(key.clone());
                    }
                }
            }
        }
        keys
    }

    pub(crate) fn put(&mut self, key: Bytes, held: Held, version: Version) {
        let entry = Entry { held, version };
        let (name, leaf) = (name(&key), leaf(&key, &entry));
        let replaced = self.state.trie.insert_in(&*self.base.rows, name, leaf);
        let slot = version.slot;
        if self.base.hope(replaced).is_none() {
            self.note_key(key.clone(), slot, true);
        }
        self.note(name, Change { slot, key, entry: Some(entry) });
    }

    fn note(&mut self, name: Digest, change: Change) {
        let before = self.state.changes.insert(name, change);
        self.log.changes.entry(name).or_insert(before);
    }

    fn note_key(&mut self, key: Bytes, slot: Slot, is_there: bool) {
        let before = self.state.keys.insert(key.clone(), (slot, is_there));
        self.log.keys.entry(key).or_insert(before);
    }

    /// Whether the key was there.
    pub(crate) fn remove(&mut self, key: &[u8], version: Version) -> bool {
        let name = name(key);
        let removed = self.state.trie.remove_in(&*self.base.rows, &name);
        let was_there = self.base.hope(removed).is_some();
        if was_there {
            let (key, slot) = (Bytes::copy_from_slice(key), version.slot);
            self.note_key(key.clone(), slot, false);
            self.note(name, Change { slot, key, entry: None });
        }
        was_there
    }
}
