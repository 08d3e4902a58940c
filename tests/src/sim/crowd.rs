//! Many runs at once, on several processors; the results in the order of the runs.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Runs a job for each number on `workers` threads; the results in the order of the numbers.
pub fn in_parallel<T: Send>(numbers: RangeInclusive<u64>, workers: usize, job: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let next = AtomicU64::new(*numbers.start());
    let mut results: Vec<(u64, T)> = thread::scope(|scope| {
        let work = || {
            let mut done = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number > *numbers.end() {
                    return done;
                }
                done.push((number, job(number)));
            }
        };
        let handles: Vec<_> = (0..workers.max(1)).map(|_| scope.spawn(work)).collect();
        let joined = handles.into_iter().map(|handle| handle.join().expect("a run ends"));
        joined.flatten().collect()
    });
    results.sort_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Processors of this machine.
#[must_use]
pub fn processors() -> usize {
    thread::available_parallelism().map_or(2, usize::from)
}
