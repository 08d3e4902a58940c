//! RocksDB as the node's ordered store.
//!
//! - A table is the leading byte of the key ([`Table::tag`]); one column family, one log, one atomic batch.
//! - Every commit waits for the sync of the write-ahead log. Commits that arrive together share one sync: the
//!   engine's write group does it, its leader writes and syncs for all who wait.
//! - The first failed write closes the store for every later one, whatever the engine thinks of it.
//! - The log is read back strictly: a torn end (what a power cut leaves) is dropped, damage before it refuses to open.

use core::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use hie_node_core::catalogue::Table;
use hie_node_core::kv::{Batch, Direction, Kv, KvError, KvRead, Pair, SCAN_LIMIT_MAX, Scan, Write, prefix_end};
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BlockBasedOptions, BottommostLevelCompaction, Cache, CompactOptions, DB, DBAccess, DBCompressionType,
    DBRawIteratorWithThreadMode, DBRecoveryMode, Options, ReadOptions, SnapshotWithThreadMode, WriteBatch,
    WriteOptions,
};

/// Version of the layout on disk, kept in table `meta`.
pub const LAYOUT_VERSION: u8 = 1;
/// Memory for blocks read from disk, in bytes.
pub const BLOCK_CACHE_BYTES: usize = 128 * 1024 * 1024;
/// Memory of one write buffer, in bytes.
pub const WRITE_BUFFER_BYTES: usize = 64 * 1024 * 1024;
/// Log kept on disk before its buffers are flushed, in bytes: the bound of the work of a reopening.
pub const LOG_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Open files of the store.
pub const FILES_MAX: i32 = 512;
/// Most bytes that one scan returns; it ends earlier than its limit of pairs.
pub const SCAN_BYTES_MAX: usize = 32 * 1024 * 1024;

const LAYOUT_KEY: &[u8] = b"layout";

/// Why a store does not open: what happened, why, what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error(
        "the store {} is in use: another node runs on it; stop that one first, or point this one at its own data directory",
        .path.display()
    )]
    Busy {
        /// Directory.
        path: PathBuf,
    },
    /// Not there.
    #[error("there is no store in {}: check the data directory in the configuration, or run `hie init`", .path.display())]
    Missing {
        /// Directory.
        path: PathBuf,
    },
    /// The engine cannot read or write the directory.
    #[error("the store {} cannot be opened: {what}; check that the directory exists, belongs to this user and has space", .path.display())]
    Unusable {
        /// Directory.
        path: PathBuf,
        /// What the engine said.
        what: String,
    },
    /// The files are damaged.
    #[error("the store {} is damaged: {what}; keep the directory, and restore the node from its last backup", .path.display())]
    Damaged {
        /// Directory.
        path: PathBuf,
        /// What the engine said.
        what: String,
    },
    /// Written by another version of the program.
    #[error(
        "the store {} has layout {found}, this program knows {LAYOUT_VERSION}; start the version of the program that wrote it",
        .path.display()
    )]
    Layout {
        /// Directory.
        path: PathBuf,
        /// Layout found.
        found: u8,
    },
}

/// How a store is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Create,
    Existing,
    ReadOnly,
}

/// The store.
pub struct RocksStore {
    db: DB,
    path: PathBuf,
    /// Set by the first failed write and never cleared.
    failed: AtomicBool,
    read_only: bool,
}

impl RocksStore {
    /// Opens the store of a directory; makes it when there is none. Errors: [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::open_as(path, Mode::Create)
    }

    /// Opens a store that must be there. Errors: [`OpenError`].
    pub fn open_existing(path: &Path) -> Result<Self, OpenError> {
        Self::open_as(path, Mode::Existing)
    }

    /// Opens a store for reading alone, as it is now; it may be in use. Every commit is refused. Errors: [`OpenError`].
    pub fn open_read_only(path: &Path) -> Result<Self, OpenError> {
        Self::open_as(path, Mode::ReadOnly)
    }

    fn open_as(path: &Path, mode: Mode) -> Result<Self, OpenError> {
        if mode != Mode::Create && !path.join("CURRENT").is_file() {
            return Err(OpenError::Missing { path: path.to_owned() });
        }
        let options = options(mode);
        let opened = match mode {
            Mode::ReadOnly => DB::open_for_read_only(&options, path, false),
            Mode::Create | Mode::Existing => DB::open(&options, path),
        };
        let db = opened.map_err(|error| open_error(path, &error))?;
        let read_only = mode == Mode::ReadOnly;
        let store = Self {
            db,
            path: path.to_owned(),
            failed: AtomicBool::new(false),
            read_only,
        };
        store.check_layout()?;
        Ok(store)
    }

    fn check_layout(&self) -> Result<(), OpenError> {
        let unusable = |what: String| OpenError::Unusable {
            path: self.path.clone(),
            what,
        };
        let found = self
            .get(Table::Meta, LAYOUT_KEY)
            .map_err(|error| unusable(error.to_string()))?;
        match found.as_deref() {
            Some([LAYOUT_VERSION]) => Ok(()),
            Some(other) => {
                let found = other.first().copied().unwrap_or(0);
                Err(OpenError::Layout {
                    path: self.path.clone(),
                    found,
                })
            }
            None if self.read_only => Err(OpenError::Missing {
                path: self.path.clone(),
            }),
            None => {
                let mut batch = Batch::new();
                batch.put(Table::Meta, LAYOUT_KEY, [LAYOUT_VERSION]);
                self.commit(batch).map_err(|error| unusable(error.to_string()))
            }
        }
    }

    /// Copies the store as it is now to a new directory: files are linked where the disk allows. Everything
    /// in it is sealed; the key-encryption key is not in it. Errors: [`KvError::Unreadable`].
    pub fn backup(&self, to: &Path) -> Result<(), KvError> {
        Checkpoint::new(&self.db)
            .and_then(|checkpoint| checkpoint.create_checkpoint(to))
            .map_err(|error| KvError::Unreadable {
                table: "all",
                what: error.to_string(),
            })
    }

    /// Rewrites the files of a table, so that what was deleted or replaced is gone from them: after an erasure,
    /// on [`Table::Keys`]. Errors: [`KvError::Fatal`].
    pub fn scrub(&self, table: Table) -> Result<(), KvError> {
        self.db.flush().map_err(|error| self.fail(error.as_ref()))?;
        let mut options = CompactOptions::default();
        options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        options.set_exclusive_manual_compaction(false);
        let start = [table.tag()];
        let end = table.tag().checked_add(1).map(|next| [next]);
        self.db.compact_range_opt(Some(start), end, &options);
        Ok(())
    }

    /// Whether a write has failed: the program must stop.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    fn fail(&self, what: &str) -> KvError {
        self.failed.store(true, Ordering::SeqCst);
        KvError::Fatal { what: what.to_owned() }
    }
}

impl KvRead for RocksStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.db
            .get(full_key(table, key))
            .map_err(|error| unreadable(table, &error))
    }

    fn scan(&self, scan: &Scan<'_>) -> Result<Vec<Pair>, KvError> {
        collect(scan, self.db.raw_iterator_opt(bounds(scan)))
    }
}

impl Kv for RocksStore {
    fn snapshot(&self) -> Result<Box<dyn KvRead + '_>, KvError> {
        Ok(Box::new(View(self.db.snapshot())))
    }

    fn commit(&self, batch: Batch) -> Result<(), KvError> {
        batch.check()?;
        if self.read_only {
            return Err(KvError::Fatal {
                what: "the store was opened for reading alone".to_owned(),
            });
        }
        if self.has_failed() {
            return Err(KvError::Fatal {
                what: "an earlier write failed".to_owned(),
            });
        }
        if batch.is_empty() {
            return Ok(());
        }
        let mut writes = WriteBatch::default();
        for write in batch.writes() {
            match write {
                Write::Put { table, key, value } => writes.put(full_key(*table, key), value),
                Write::Delete { table, key } => writes.delete(full_key(*table, key)),
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.db
            .write_opt(writes, &options)
            .map_err(|error| self.fail(error.as_ref()))
    }
}

struct View<'a>(SnapshotWithThreadMode<'a, DB>);

impl KvRead for View<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.0
            .get(full_key(table, key))
            .map_err(|error| unreadable(table, &error))
    }

    fn scan(&self, scan: &Scan<'_>) -> Result<Vec<Pair>, KvError> {
        collect(scan, self.0.raw_iterator_opt(bounds(scan)))
    }
}

fn options(mode: Mode) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(BLOCK_CACHE_BYTES));
    table.set_bloom_filter(10.0, false);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut options = Options::default();
    options.create_if_missing(mode == Mode::Create);
    options.set_block_based_table_factory(&table);
    options.set_paranoid_checks(true);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_total_wal_size(LOG_BYTES_MAX);
    options.set_max_open_files(FILES_MAX);
    options.set_max_background_jobs(2);
    options.set_bytes_per_sync(1024 * 1024);
    options.set_keep_log_file_num(4);
    options.set_stats_dump_period_sec(0);
    options
}

fn open_error(path: &Path, error: &rocksdb::Error) -> OpenError {
    let (path, what) = (path.to_owned(), error.to_string());
    let lower = what.to_lowercase();
    if lower.contains("lock") && (lower.contains("unavailable") || lower.contains("held") || lower.contains("hold")) {
        return OpenError::Busy { path };
    }
    match error.kind() {
        rocksdb::ErrorKind::Corruption => OpenError::Damaged { path, what },
        _ => OpenError::Unusable { path, what },
    }
}

fn unreadable(table: Table, error: &rocksdb::Error) -> KvError {
    KvError::Unreadable {
        table: table.name(),
        what: error.to_string(),
    }
}

fn full_key(table: Table, key: &[u8]) -> Vec<u8> {
    let mut full = Vec::with_capacity(key.len() + 1);
    full.push(table.tag());
    full.extend_from_slice(key);
    full
}

/// The engine itself keeps an iterator inside the prefix.
fn bounds(scan: &Scan<'_>) -> ReadOptions {
    let prefix = full_key(scan.table, scan.prefix);
    let mut options = ReadOptions::default();
    if let Some(end) = prefix_end(&prefix) {
        options.set_iterate_upper_bound(end);
    }
    options.set_iterate_lower_bound(prefix);
    options
}

fn collect<D: DBAccess>(scan: &Scan<'_>, mut at: DBRawIteratorWithThreadMode<'_, D>) -> Result<Vec<Pair>, KvError> {
    let limit = scan.limit.min(SCAN_LIMIT_MAX);
    let mut pairs = Vec::with_capacity(limit.min(64));
    seek(scan, &mut at);
    let mut bytes = 0_usize;
    while pairs.len() < limit && bytes < SCAN_BYTES_MAX {
        let Some((key, value)) = at.item() else { break };
        let Some((_, key)) = key.split_first() else { break };
        let excluded = matches!(scan.from, Bound::Excluded(from) if from == key);
        if !excluded {
            bytes = bytes.saturating_add(key.len()).saturating_add(value.len());
            pairs.push((key.to_vec(), value.to_vec()));
        }
        match scan.direction {
            Direction::Forward => at.next(),
            Direction::Backward => at.prev(),
        }
    }
    at.status().map_err(|error| unreadable(scan.table, &error))?;
    Ok(pairs)
}

/// Goes to the first pair; a bound outside the prefix means its nearer edge.
fn seek<D: DBAccess>(scan: &Scan<'_>, at: &mut DBRawIteratorWithThreadMode<'_, D>) {
    let from = match scan.from {
        Bound::Included(from) | Bound::Excluded(from) => Some(from),
        Bound::Unbounded => None,
    };
    let beyond = |from: &[u8]| prefix_end(scan.prefix).is_some_and(|end| from >= end.as_slice());
    match (scan.direction, from) {
        (Direction::Forward, Some(from)) if from > scan.prefix => at.seek(full_key(scan.table, from)),
        (Direction::Forward, _) => at.seek_to_first(),
        (Direction::Backward, Some(from)) if !beyond(from) => at.seek_for_prev(full_key(scan.table, from)),
        (Direction::Backward, _) => at.seek_to_last(),
    }
}

#[cfg(test)]
mod tests;
