//! What measuring programs read and print: percentiles, memory and processor time of a process.

use std::time::Duration;

/// Milliseconds with a fraction.
#[must_use]
pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The value below which `part` (0 to 1) of the figures lie; not a number when there are none.
#[must_use]
pub fn percentile(figures: &[f64], part: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank"
    )]
    let rank = (last as f64 * part).ceil() as usize;
    sorted.get(rank.min(last)).copied().unwrap_or(f64::NAN)
}

/// `p50 .. p95 .. p99 .. max` in milliseconds.
#[must_use]
pub fn spread(figures: &[f64]) -> String {
    format!(
        "p50 {:.0} ms, p95 {:.0} ms, p99 {:.0} ms, max {:.0} ms ({} asked)",
        percentile(figures, 0.5),
        percentile(figures, 0.95),
        percentile(figures, 0.99),
        percentile(figures, 1.0),
        figures.len()
    )
}

/// Memory of a process now, in MiB, by `/proc`; 0 when it has ended.
#[must_use]
pub fn memory_mib(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

/// Processor time that a process has used, by `/proc`, at the usual 100 ticks a second; 0 when it has ended.
#[must_use]
pub fn processor_seconds(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in brackets may hold spaces: count behind it.
    let rest = text.rsplit(')').next().unwrap_or_default();
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}
