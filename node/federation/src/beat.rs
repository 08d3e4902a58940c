//! Beats: how the members of a region know, without a coordinator, which holder may lack something.
//!
//! An owner acknowledges a publish when a write quorum has it **and** every other holder of its key either has it
//! too or is *struck*: known to the region as behind. Every member broadcasts a beat each period: its number, the
//! holders that are behind with its own records, the owners that name it as behind, and the last beat it heard of
//! everybody. With it an asker finds out whether a read quorum of whole answers is enough.
//!
//! ```text
//! owner O       beat b: behind {h}      beat b+1: behind {h}          (q members have seen b+1)  ...  struck
//!                    |                       |                                    |   strike_ms    |
//! members            '--- seen O: b          '--- seen O: b+1 --------------------'               publish is
//! holder h           '--- lacking {O}                                                             acknowledged
//! ```
//!
//! **An answer is complete** for a key when all its holders answered whole, or a read quorum did and no active owner
//! is *unconfirmed* at any of those that answered (SPEC F-CONFIRMED). Owner O is confirmed at holder h when
//!
//! - a beat of O is fresh here and does not name h; or
//! - no beat of O is fresh here, but fresh beats of q members are, h has seen O's beats up to the one before the
//!   highest that any of them has seen, and h's own beat does not list O among those it lacks.
//!
//! **Why no false complete with one lying holder.** Let O acknowledge record r at time T, and let honest holder h lack
//! it when a question is put after T. Then h was struck at T: O has named h in every beat since b, and q members have
//! said, in beats sent before `T - strike_ms`, that they have seen b+1. If a beat of O is fresh at the asker it was sent
//! after `T - fresh_ms - datagram_ms`, hence is b or later, and names h. If none is, the asker has fresh beats of
//! q members, itself included; two sets of q members share two, so one that does not lie; its fresh beat is that
//! in which it reported b+1 to O, or a later one, since an earlier one would not be fresh any more. So the highest
//! beat seen is b+1 or more. Either h has not seen b: then it is more than one short and unconfirmed. Or it has, was
//! named in it, and says so. A liar that overstates what it has seen makes answers partial, never complete: it can do
//! that by keeping silent as well. A beat that names h stays in force until O has delivered everything to h.
//!
//! An owner whose highest beat has not grown for a record life is confirmed everywhere: what it acknowledged before
//! has expired, and since then it cannot have struck anybody.
//!
//! With three members or fewer q is a majority: two sets share one member, which may be the liar. There a member cut
//! off from everybody but the liar and the holder that is behind can be misled; no rule prevents it with so few.
//! Members that speak version 1 send no beats: as owners they are confirmed everywhere, and as holders nothing
//! shows what they have seen, so that the read quorum alone counts for them, as it did before.
//!
//! Ages are measured by two clocks of the machine that no step of the calendar moves back: one runs too fast when in
//! doubt (for freshness), one too slow (for the wait of an owner). Numbers and what was heard are durable before a beat leaves, so a restart takes nothing back.

use std::collections::{BTreeMap, BTreeSet};

use hie_protocol::cbor;
use hie_protocol::id::{Millis, OrgId};
use hie_protocol::message::{BEAT_ORGS_MAX, IndexMessage, Seen};
use hie_protocol::version::{ProtocolVersion, V2};
use serde::{Deserialize, Serialize};

use crate::config::{CLOCK_SKEW_MS_MAX, Planted};
use crate::machine::{CLOCKS_START, Federation, Turn};
use crate::port::Effect;
use crate::table::{After, Kept, Table};

const BEATS_KEY: &[u8] = b"beats";
const BEATS_BYTES_MAX: usize = 1024 * 1024;

/// What is kept: the own number, and what was heard of everybody.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct KeptBeats {
    number: u64,
    heard: Vec<(OrgId, u64, bool)>,
}

/// What was heard of one member.
#[derive(Debug, Default)]
struct Heard {
    beat: u64,
    /// When, in this life of the machine.
    at: Option<Millis>,
    behind: BTreeSet<OrgId>,
    lacking: BTreeSet<OrgId>,
    seen: BTreeMap<OrgId, u64>,
    /// Whether its last beat named this node as behind.
    names_me: bool,
}

/// The beats of one node and of everybody else.
#[derive(Debug, Default)]
pub(crate) struct Beats {
    number: u64,
    last: Option<IndexMessage>,
    next: Option<Millis>,
    heard: BTreeMap<OrgId, Heard>,
    versions: BTreeMap<OrgId, ProtocolVersion>,
    /// The highest beat that anybody has seen of a member, and when it last grew, by the slow clock.
    grown: BTreeMap<OrgId, (u64, Millis)>,
}

impl Beats {
    /// Reads what was kept.
    pub(crate) fn restore(kept: &dyn Kept) -> Self {
        let known: KeptBeats = kept
            .get(Table::Membership, BEATS_KEY)
            .and_then(|bytes| cbor::decode(&bytes, BEATS_BYTES_MAX).ok())
            .unwrap_or_default();
        // Who has sent a beat speaks version 2.
        let versions = known.heard.iter().map(|(org, _, _)| (org.clone(), V2)).collect();
        let grown = known
            .heard
            .iter()
            .map(|(org, beat, _)| (org.clone(), (*beat, CLOCKS_START)));
        let grown = grown.collect();
        let heard = known.heard.into_iter().map(|(org, beat, names_me)| {
            let heard = Heard {
                beat,
                names_me,
                ..Heard::default()
            };
            (org, heard)
        });
        Self {
            number: known.number,
            heard: heard.collect(),
            versions,
            grown,
            ..Self::default()
        }
    }

    /// When the next beat is due.
    pub(crate) const fn next_timer(&self) -> Option<Millis> {
        self.next
    }

    /// Notes that somebody has seen a beat of a member.
    fn note(&mut self, slow: Millis, org: &OrgId, beat: u64) {
        let (highest, at) = self.grown.entry(org.clone()).or_insert((beat, slow));
        if beat > *highest {
            (*highest, *at) = (beat, slow);
        }
    }

    fn encode(&self) -> Option<Vec<u8>> {
        let heard = self.heard.iter();
        let kept = KeptBeats {
            number: self.number,
            heard: heard
                .map(|(org, heard)| (org.clone(), heard.beat, heard.names_me))
                .collect(),
        };
        cbor::encode(&kept).ok()
    }
}

/// Members that two sets of this size share: two, so that one of them does not lie; one in the smallest regions.
const fn quorum(members: usize) -> usize {
    if members <= 3 {
        members / 2 + 1
    } else {
        members.saturating_add(3) / 2
    }
}

impl Federation {
    /// The version a member speaks.
    pub(crate) fn speaks(&self, org: &OrgId) -> ProtocolVersion {
        self.beats.versions.get(org).copied().unwrap_or(self.config.assumed)
    }

    /// A member has said which version it speaks.
    pub(crate) fn learn_version(&mut self, mono: Millis, org: OrgId, version: ProtocolVersion) {
        // A channel that is not greeted yet speaks the first version; who sends beats speaks the second.
        if version >= V2 || self.fresh(mono, &org).is_none() {
            self.beats.versions.insert(org, version);
        }
    }

    /// A member has said which version it speaks: whoever hears beats need not wait for the next one.
    pub(crate) fn greet(&mut self, turn: &mut Turn<'_>, org: OrgId, version: ProtocolVersion) {
        self.learn_version(turn.mono, org.clone(), version);
        if let Some(last) = self.beats.last.clone().filter(|_| self.speaks(&org) >= V2) {
            let send = Effect::Send { to: org, message: last };
            self.after_sync(turn, After::Emit(Box::new(send)));
        }
    }

    /// Other active members that send beats.
    fn beating(&self) -> impl Iterator<Item = &OrgId> {
        let active = self.registry.active().map(|member| &member.org);
        active.filter(|org| **org != self.config.me && self.speaks(org) >= V2)
    }

    /// Whether nobody else would hear a beat.
    pub(crate) fn is_alone(&self) -> bool {
        self.beating().next().is_none()
    }

    /// Sends the beat that is due.
    pub(crate) fn pump_beats(&mut self, turn: &mut Turn<'_>) {
        let period = self.config.beat_period_ms;
        let due = self
            .beats
            .next
            .is_none_or(|next| next <= turn.now || next.since(turn.now) > period);
        if due {
            self.beats.next = Some(turn.now.plus(period));
            self.beat(turn);
        }
        self.review_naming(turn);
    }

    fn beat(&mut self, turn: &mut Turn<'_>) {
        let number = self.beats.number.saturating_add(1);
        self.beats.number = number;
        let behind = self.name_behind(turn.mono, number);
        let active: BTreeSet<OrgId> = self.registry.active().map(|member| member.org.clone()).collect();
        self.beats.heard.retain(|org, _| active.contains(org));
        let heard = self.beats.heard.iter();
        let seen = heard.clone().map(|(org, heard)| Seen {
            org: org.clone(),
            beat: heard.beat,
        });
        let message = IndexMessage::Beat {
            beat: number,
            behind: behind.into_iter().take(BEAT_ORGS_MAX).collect(),
            lacking: heard
                .clone()
                .filter(|(_, heard)| heard.names_me)
                .map(|(org, _)| org.clone())
                .take(BEAT_ORGS_MAX)
                .collect(),
            seen: seen.take(BEAT_ORGS_MAX).collect(),
        };
        self.beats.last = Some(message.clone());
        let kept = self.beats.encode();
        self.ledger.write(Table::Membership, BEATS_KEY.to_vec(), kept);
        let to: Vec<OrgId> = self.beating().cloned().collect();
        for org in to {
            let send = Effect::Send {
                to: org,
                message: message.clone(),
            };
            self.after_sync(turn, After::Emit(Box::new(send)));
        }
    }

    /// A beat came in.
    pub(crate) fn hear_beat(&mut self, turn: &mut Turn<'_>, from: &OrgId, message: IndexMessage) {
        let IndexMessage::Beat {
            beat,
            behind,
            lacking,
            seen,
        } = message
        else {
            return;
        };
        self.learn_version(turn.mono, from.clone(), V2);
        let active: BTreeSet<OrgId> = self.registry.active().map(|member| member.org.clone()).collect();
        self.beats.grown.retain(|org, _| active.contains(org));
        for seen in seen.iter().filter(|seen| active.contains(&seen.org)) {
            self.beats.note(turn.slow, &seen.org, seen.beat);
        }
        self.beats.note(turn.slow, from, beat);
        let fresh_ms = self.config.fresh_ms();
        let me = &self.config.me;
        let known = self.beats.heard.entry(from.clone()).or_default();
        let fresh = known.at.is_some_and(|at| turn.mono.since(at) <= fresh_ms);
        // INVARIANT: an older beat that was delayed takes nothing back; the last one may be repeated.
        if beat < known.beat {
            return;
        }
        // A repeated beat is as old as it was when it was first heard here.
        if beat > known.beat || known.at.is_none() {
            known.at = Some(turn.mono);
        }
        known.names_me = behind.contains(me);
        known.beat = beat;
        known.behind = behind.into_iter().collect();
        known.lacking = lacking.into_iter().collect();
        known.seen = seen.into_iter().map(|seen| (seen.org, seen.beat)).collect();
        if !fresh {
            // It has just come, or come back: what it missed need not wait for the next beat.
            let sent = self.ledger.waiting() == 0;
            if let Some(last) = self.beats.last.clone().filter(|_| sent) {
                turn.send(from, last);
            }
        }
    }

    /// Whether enough members have shown that they heard the own beat number `beat`.
    pub(crate) fn is_known(&self, beat: u64) -> bool {
        let mut members = 1_usize;
        let mut know = usize::from(self.beats.number >= beat);
        for org in self.beating() {
            members = members.saturating_add(1);
            let seen = self
                .beats
                .heard
                .get(org)
                .and_then(|heard| heard.seen.get(&self.config.me));
            know = know.saturating_add(usize::from(seen.is_some_and(|seen| *seen >= beat)));
        }
        know >= quorum(members)
    }

    fn fresh(&self, mono: Millis, org: &OrgId) -> Option<&Heard> {
        let heard = self.beats.heard.get(org)?;
        let at = heard.at?;
        (mono.since(at) <= self.config.fresh_ms()).then_some(heard)
    }

    /// Whether a fresh beat of `owner` does not name `holder` as behind.
    pub(crate) fn vouches(&self, mono: Millis, owner: &OrgId, holder: &OrgId) -> bool {
        self.fresh(mono, owner)
            .is_some_and(|heard| !heard.behind.contains(holder))
    }

    /// Owners that may have acknowledged something that `holder` lacks.
    pub(crate) fn unconfirmed_at(&self, mono: Millis, holder: &OrgId) -> BTreeSet<OrgId> {
        let mut unconfirmed = BTreeSet::new();
        if self.config.has(Planted::QuorumSuffices) {
            return unconfirmed;
        }
        let me = &self.config.me;
        let members = self.beating().count().saturating_add(1);
        let fresh: Vec<&Heard> = self.beating().filter_map(|org| self.fresh(mono, org)).collect();
        let enough = fresh.len().saturating_add(1) >= quorum(members);
        let blind = self.speaks(holder) < V2 && holder != me;
        if holder != me && self.own_unconfirmed(holder) {
            unconfirmed.insert(me.clone());
        }
        for owner in self.beating() {
            if owner == holder {
                // Its own records are its own word, and nobody else's.
                continue;
            }
            let confirmed = if let Some(heard) = self.fresh(mono, owner) {
                !heard.behind.contains(holder)
            } else if blind {
                true
            } else {
                enough && (self.lapsed(owner) || self.keeps_up(&fresh, owner, holder))
            };
            if !confirmed {
                unconfirmed.insert(owner.clone());
            }
        }
        unconfirmed
    }

    /// Whether all that a silent owner has acknowledged behind a holder's back has expired.
    ///
    /// INVARIANT: an owner acknowledges without a holder only after q members have seen a later beat. When the highest
    /// that anybody has seen did not grow for a record life, whatever it acknowledged since is at all holders, and
    /// whatever it acknowledged before is past its expiry.
    fn lapsed(&self, owner: &OrgId) -> bool {
        let life = self
            .registry
            .policy
            .record_life_ms
            .saturating_add(CLOCK_SKEW_MS_MAX.saturating_mul(2));
        let grown = self.beats.grown.get(owner);
        grown.is_some_and(|(_, at)| self.slow().since(*at) > life)
    }

    /// Whether a holder has heard of a silent owner what anybody has, and is not behind with it.
    fn keeps_up(&self, fresh: &[&Heard], owner: &OrgId, holder: &OrgId) -> bool {
        let own = self.beats.heard.get(owner);
        let said = fresh.iter().filter_map(|heard| heard.seen.get(owner)).copied();
        let highest = said.chain(own.map(|own| own.beat)).max().unwrap_or(0);
        let (seen, lacks) = if *holder == self.config.me {
            (own.map_or(0, |own| own.beat), own.is_some_and(|own| own.names_me))
        } else {
            let heard = self.beats.heard.get(holder);
            let seen = heard.and_then(|heard| heard.seen.get(owner)).copied().unwrap_or(0);
            (seen, heard.is_some_and(|heard| heard.lacking.contains(owner)))
        };
        !lacks && seen.saturating_add(1) >= highest
    }
}
