//! How fast this node's index records become visible at all their replicas, as `hie status` shows it.

use hie_node_federation::owner::visible::Visibility;
use hie_protocol::registry::Registry;
use serde_json::{Value, json};

/// The figures in words, one line for them and one for each holder that is behind.
pub(super) fn words(visibility: &Visibility, registry: &Registry) -> String {
    if visibility.measured == 0 && visibility.holders.is_empty() {
        return String::new();
    }
    let mut words = format!(
        "\nPublished records visible at all replicas: half within {} ms, 95 of 100 within {} ms, all within {} ms (last {}); {} not yet",
        visibility.p50_ms, visibility.p95_ms, visibility.most_ms, visibility.measured, visibility.open,
    );
    for holder in visibility.holders.iter().filter(|holder| holder.behind) {
        let name = registry
            .member(&holder.org)
            .map_or_else(|| holder.org.to_string(), |member| member.name.clone());
        let waits = holder.waits_ms.map_or_else(
            || "since before the start".to_owned(),
            |ms| format!("for {} s", ms / 1000),
        );
        words.push_str(&format!("\n! {name} has not confirmed everything {waits}"));
    }
    words
}

/// The figures as data.
pub(super) fn value(visibility: &Visibility) -> Value {
    let holders: Vec<Value> = visibility
        .holders
        .iter()
        .map(|holder| {
            json!({
                "organisation": holder.org.as_str(), "open": holder.open, "waits_ms": holder.waits_ms,
                "behind": holder.behind,
            })
        })
        .collect();
    json!({
        "measured": visibility.measured, "p50_ms": visibility.p50_ms, "p95_ms": visibility.p95_ms,
        "max_ms": visibility.most_ms, "open": visibility.open, "holders": holders,
    })
}
