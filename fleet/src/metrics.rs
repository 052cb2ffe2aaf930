//! What Prometheus is told. What each number means stands in METRICS.md, and a test holds the two together.
//! Numbers are of this process since it began.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the histogram of request times, seconds. A batch takes some tens of ms; a search or a
/// slow link takes seconds.
const BUCKETS_S: [f64; 9] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// The counters of a process.
#[derive(Default)]
pub struct Metrics {
    /// Changes of events that were new.
    pub events_stored: AtomicU64,
    /// Changes that had been received before.
    pub events_repeated: AtomicU64,
    /// Batches that broke the contract.
    pub batches_refused: AtomicU64,
    /// Bytes of evidence received.
    pub evidence_bytes: AtomicU64,
    /// Devices enrolled.
    pub enrolled: AtomicU64,
    /// Requests turned away because too many were in work.
    pub overloaded: AtomicU64,
    /// Requests turned away because the database was away.
    pub database_away: AtomicU64,
    /// Requests turned away because the store of evidence was away.
    pub evidence_store_away: AtomicU64,
    /// Connections that are open.
    pub connections: AtomicU64,
    /// TLS handshakes that failed.
    pub handshakes_failed: AtomicU64,
    requests: Mutex<BTreeMap<(&'static str, u16), Requests>>,
}

#[derive(Clone, Copy, Default)]
struct Requests {
    buckets: [u64; BUCKETS_S.len()],
    count: u64,
    seconds: f64,
}

impl Metrics {
    /// Adds to one of the counters.
    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    /// Takes from one of the counters.
    pub fn take(counter: &AtomicU64, n: u64) {
        counter.fetch_sub(n, Ordering::Relaxed);
    }

    /// Counts an answered request.
    pub fn answered(&self, route: &'static str, status: u16, took: Duration) {
        let seconds = took.as_secs_f64();
        let mut requests = self.requests.lock().unwrap_or_else(|e| e.into_inner());
        let entry = requests.entry((route, status)).or_default();
        entry.count += 1;
        entry.seconds += seconds;
        if let Some(bucket) = BUCKETS_S.iter().position(|bound| seconds <= *bound) {
            entry.buckets[bucket] += 1;
        }
    }

    /// All of it, in Prometheus' text format.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for (name, kind, help, counter) in [
            (
                "events_stored_total",
                "counter",
                "Changes of events that were new.",
                &self.events_stored,
            ),
            (
                "events_repeated_total",
                "counter",
                "Changes of events received before.",
                &self.events_repeated,
            ),
            (
                "batches_refused_total",
                "counter",
                "Batches that broke the contract.",
                &self.batches_refused,
            ),
            (
                "evidence_bytes_total",
                "counter",
                "Bytes of evidence received.",
                &self.evidence_bytes,
            ),
            ("devices_enrolled_total", "counter", "Devices enrolled.", &self.enrolled),
            (
                "overloaded_total",
                "counter",
                "Requests turned away: too many in work.",
                &self.overloaded,
            ),
            (
                "database_away_total",
                "counter",
                "Requests turned away: no database.",
                &self.database_away,
            ),
            (
                "evidence_store_away_total",
                "counter",
                "Requests turned away: no store of evidence.",
                &self.evidence_store_away,
            ),
            (
                "handshakes_failed_total",
                "counter",
                "TLS handshakes that failed.",
                &self.handshakes_failed,
            ),
            ("connections", "gauge", "Connections that are open.", &self.connections),
        ] {
            let value = counter.load(Ordering::Relaxed);
            let _ = writeln!(
                out,
                "# HELP lookback_fleet_{name} {help}\n# TYPE lookback_fleet_{name} {kind}\nlookback_fleet_{name} {value}"
            );
        }
        self.write_requests(&mut out);
        out
    }

    fn write_requests(&self, out: &mut String) {
        const NAME: &str = "lookback_fleet_request_seconds";
        let _ = writeln!(
            out,
            "# HELP {NAME} Time from a request to its answer.\n# TYPE {NAME} histogram"
        );
        let requests = self.requests.lock().unwrap_or_else(|e| e.into_inner());
        for ((route, status), seen) in requests.iter() {
            let labels = format!("route=\"{route}\",status=\"{status}\"");
            let mut below = 0;
            for (bound, n) in BUCKETS_S.iter().zip(seen.buckets) {
                below += n;
                let _ = writeln!(out, "{NAME}_bucket{{{labels},le=\"{bound}\"}} {below}");
            }
            let _ = writeln!(out, "{NAME}_bucket{{{labels},le=\"+Inf\"}} {}", seen.count);
            let _ = writeln!(out, "{NAME}_sum{{{labels}}} {}", seen.seconds);
            let _ = writeln!(out, "{NAME}_count{{{labels}}} {}", seen.count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Of each family its kind and its labels.
    fn exported(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
        let mut found: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
        let mut family = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                family = name.to_owned();
                found.insert(family.clone(), (kind.to_owned(), BTreeSet::new()));
            } else if !line.starts_with('#') {
                assert!(line.starts_with(&family), "{line} is not of {family}");
                let labels = line.split_once('{').map_or("", |(_, rest)| rest);
                let names = labels.split(',').filter_map(|label| label.split_once("=\""));
                let names = names.map(|(name, _)| name.to_owned()).filter(|name| name != "le");
                found.get_mut(&family).unwrap().1.extend(names);
            }
        }
        found
    }

    #[test]
    fn every_number_is_in_the_list_and_everything_in_the_list_is_told() {
        let listed: BTreeMap<String, (String, BTreeSet<String>)> = include_str!("../METRICS.md")
            .lines()
            .filter_map(|line| {
                let cells: Vec<&str> = line.split('|').map(str::trim).collect();
                let ["", name, kind, labels, _, "server", ""] = cells[..] else { return None };
                let labels = labels.split([' ', ',']).filter(|label| !label.is_empty());
                let labels = labels.map(|label| label.trim_matches('`').to_owned()).collect();
                Some((name.trim_matches('`').to_owned(), (kind.to_owned(), labels)))
            })
            .collect();
        assert!(!listed.is_empty());
        let metrics = Metrics::default();
        metrics.answered("events", 200, Duration::from_millis(1));
        assert_eq!(exported(&metrics.text()), listed);
    }

    #[test]
    fn a_histogram_counts_everything_below_each_bound() {
        let metrics = Metrics::default();
        for ms in [1, 7, 40, 60_000] {
            metrics.answered("events", 200, Duration::from_millis(ms));
        }
        let text = metrics.text();
        for line in [
            "lookback_fleet_request_seconds_bucket{route=\"events\",status=\"200\",le=\"0.005\"} 1",
            "lookback_fleet_request_seconds_bucket{route=\"events\",status=\"200\",le=\"0.05\"} 3",
            "lookback_fleet_request_seconds_bucket{route=\"events\",status=\"200\",le=\"+Inf\"} 4",
            "lookback_fleet_request_seconds_count{route=\"events\",status=\"200\"} 4",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
