//! What the seed decides about a run: how many members, and everything that will go wrong.

use super::rng::Rng;

/// Shortest life of a record that is drawn, in milliseconds.
const RECORD_LIFE_MS_MIN: u64 = 120_000;
/// Simulated time of a usual run, in minutes.
pub const MINUTES: u64 = 10;
/// Time without faults at the end of a run, in milliseconds.
pub const CALM_MS: u64 = 60_000;
/// When, after the last fault, everything must have healed, in milliseconds.
pub const HEALED_AFTER_MS: u64 = 45_000;

/// How a lying member lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// It forges owners and re-targets records of others.
    Forge,
    /// It answers lookups that others were asked, by guessing their numbers.
    Guess,
    /// As an owner it signs two contents with one sequence.
    Equivocate,
    /// As a holder it says that it keeps everything and leaves records out of its answers.
    Omit,
    /// As a holder it answers with what it had long ago.
    Stale,
}

/// How wrong the clocks of members are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clocks {
    /// Within two seconds, with steps to at most seven.
    Near,
    /// Within two seconds, and up to 200 ppm too fast or too slow.
    Drift,
    /// As `Near`, and one member's clock is off by ten minutes, for a while.
    Minutes,
    /// As `Near`, and one member's clock is off by a year, for a while.
    Year,
}

/// The climate of a run.
#[derive(Clone, Debug)]
pub struct Climate {
    /// Members at the start.
    pub members: usize,
    /// Organisations that may join later.
    pub spare: usize,
    /// Members at the start that hold no index, in permille.
    pub no_holder: u64,
    /// Index keys in use.
    pub keys: usize,
    /// Datagrams lost, in permille.
    pub loss: u64,
    /// Datagrams that arrive twice, in permille.
    pub duplicate: u64,
    /// Datagrams that are late by seconds, in permille.
    pub slow: u64,
    /// Longest time of a sync, in milliseconds.
    pub sync_ms: u64,
    /// Mean time between two faults, in milliseconds.
    pub fault_every_ms: u64,
    /// Whether the registry changes.
    pub changes_members: bool,
    /// Who lies, and how.
    pub liar: Option<(usize, Lie)>,
    /// How wrong clocks are.
    pub clocks: Clocks,
    /// Constant by which clocks are shifted, so that two runs differ in nothing else.
    pub shift_ms: i64,
    /// Life of a record, in milliseconds; a tombstone lives twice as long.
    pub record_life_ms: u64,
    /// Records of one owner that a holder keeps; a greedy member tries for more.
    pub quota: Option<u64>,
    /// Whether disks are lost.
    pub wipes: bool,
    /// Whether a node comes back from an old backup.
    pub backups: bool,
    /// Whether nodes of the version before take part, and are upgraded one after another.
    pub mixed: bool,
    /// Simulated time of the run, in milliseconds.
    pub run_ms: u64,
    /// Mean times between publishes and between questions, in milliseconds.
    pub pace_ms: (u64, u64),
}

impl Climate {
    /// The climate of a seed.
    #[must_use]
    pub const fn of(rng: &mut Rng, minutes: u64) -> Self {
        let members = rng.index(4) + 4;
        let lies = [Lie::Forge, Lie::Guess, Lie::Equivocate, Lie::Omit, Lie::Stale];
        let lie = lies[rng.index(lies.len())];
        let changes_members = rng.chance(600);
        let clocks = [Clocks::Near, Clocks::Near, Clocks::Drift];
        Self {
            members,
            spare: 2,
            no_holder: 100,
            keys: 12,
            loss: [0, 20, 50, 150][rng.index(4)],
            duplicate: [0, 20, 100][rng.index(3)],
            slow: [0, 20, 100][rng.index(3)],
            sync_ms: [3, 20, 200][rng.index(3)],
            fault_every_ms: [8_000, 15_000, 40_000][rng.index(3)],
            changes_members,
            liar: if rng.chance(600) {
                Some((members - 1, lie))
            } else {
                None
            },
            clocks: clocks[rng.index(clocks.len())],
            shift_ms: 0,
            record_life_ms: [RECORD_LIFE_MS_MIN, 400_000, 1_800_000][rng.index(3)],
            // An owner over its quota cannot announce a registry version, so holders would not settle.
            quota: if !changes_members && rng.chance(400) {
                Some(60)
            } else {
                None
            },
            wipes: false,
            backups: false,
            mixed: false,
            run_ms: minutes * 60_000,
            pace_ms: (1000, 1500),
        }
    }

    /// A region in which nothing goes wrong, of this many members that all hold the index.
    #[must_use]
    pub const fn calm(members: usize, keys: usize, run_ms: u64) -> Self {
        Self {
            members,
            spare: 0,
            no_holder: 0,
            keys,
            loss: 0,
            duplicate: 0,
            slow: 0,
            sync_ms: 3,
            fault_every_ms: 0,
            changes_members: false,
            liar: None,
            clocks: Clocks::Near,
            shift_ms: 0,
            record_life_ms: 1_800_000,
            quota: None,
            wipes: false,
            backups: false,
            mixed: false,
            run_ms,
            pace_ms: (1000, 1500),
        }
    }

    /// When the faults end, in milliseconds.
    #[must_use]
    pub const fn faulty_ms(&self) -> u64 {
        self.run_ms.saturating_sub(CALM_MS)
    }
}
