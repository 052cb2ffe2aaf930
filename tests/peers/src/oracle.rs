//! The judge: what the cameras' logs said against what the database holds. Pure; [`read`] brings it the rows.

use crate::truth::{Change, Truth, digest, hex, level, name, phase};
use crate::watch::connect;
use anyhow::Result;
use futures_util::TryStreamExt;
use serde::Serialize;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use tokio_postgres::types::ToSql;

/// So many examples of a kind of fault are told.
const EXAMPLES: usize = 5;

/// A change as the database holds it.
#[derive(Clone, Debug)]
pub struct Row {
    /// The device.
    pub device: String,
    /// The life of its log.
    pub epoch: String,
    /// Its number.
    pub seq: u64,
    /// The event.
    pub event: String,
    /// What it came to.
    pub phase: String,
    /// How much it asks of people.
    pub level: i16,
    /// The event as it stood.
    pub data: Value,
    /// The hash of the object that holds what `data` lacks.
    pub dataref: Option<String>,
}

/// What of an epoch the server says it has.
#[derive(Clone, Debug)]
pub struct Mark {
    /// The device.
    pub device: String,
    /// The life of its log.
    pub epoch: String,
    /// Every seq up to this one is committed or dropped.
    pub committed: u64,
}

/// What is wrong. All of it is 0 where the contract holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Whether nothing is wrong.
    pub holds: bool,
    /// Epochs judged.
    pub epochs: u64,
    /// Changes that the logs gave out.
    pub changes: u64,
    /// Changes that the database holds.
    pub stored: u64,
    /// Changes that a drop event names instead.
    pub dropped: u64,
    /// Neither there nor dropped, though the log's outbox let them go.
    pub lost: u64,
    /// There more than once.
    pub duplicated: u64,
    /// There, and not as the log has them.
    pub altered: u64,
    /// There, and no log gave them out.
    pub invented: u64,
    /// Acknowledged to a camera, and not committed.
    pub acknowledged_not_committed: u64,
    /// Marks of the server beyond what it holds.
    pub marks_too_high: u64,
    /// Still in an outbox when the time was over.
    pub undelivered: u64,
    /// Seqs that a log left out by itself.
    pub skipped_by_a_log: u64,
    /// Pictures and other objects that a camera believes to be at the server, and are not.
    pub evidence_lost: u64,
    /// Some of each, in words.
    pub examples: Vec<String>,
}

/// The judge, while rows come in.
pub struct Judge {
    truths: Vec<Truth>,
    index: HashMap<(String, String), usize>,
    /// For each epoch, for each seq: how often it was seen.
    seen: Vec<Vec<u8>>,
    drops: Vec<Vec<(u64, u64)>>,
    marks: Vec<u64>,
    objects: HashSet<u64>,
    verdict: Verdict,
}

impl Judge {
    /// A judge who knows what the logs said.
    pub fn new(truths: Vec<Truth>) -> Self {
        let key = |truth: &Truth| (truth.device.clone(), truth.epoch.clone());
        Self {
            index: truths.iter().enumerate().map(|(at, truth)| (key(truth), at)).collect(),
            seen: truths.iter().map(|truth| vec![0; truth.changes.len()]).collect(),
            drops: vec![vec![]; truths.len()],
            marks: vec![0; truths.len()],
            objects: HashSet::new(),
            verdict: Verdict { epochs: truths.len() as u64, ..Verdict::default() },
            truths,
        }
    }

    /// Takes in a row of the table of events.
    pub fn row(&mut self, row: &Row) {
        self.verdict.stored += 1;
        let Row { device, epoch, seq, .. } = row;
        let at = self.index.get(&(device.clone(), epoch.clone())).copied();
        let change = at.and_then(|at| Some((at, *self.truths[at].changes.get(*seq as usize - 1)?)));
        let Some((at, change)) = change else {
            self.verdict.invented += 1;
            return self.example(format!("{device} {epoch} {seq} was never in a log"));
        };
        let seen = &mut self.seen[at][*seq as usize - 1];
        *seen = seen.saturating_add(1);
        if *seen > 1 {
            self.verdict.duplicated += 1;
            self.example(format!(
                "{device} {epoch} {seq} is there {} times",
                self.seen[at][*seq as usize - 1]
            ));
        }
        if let Err(why) = matches(&change, row, &self.truths[at].changes) {
            self.verdict.altered += 1;
            self.example(format!("{device} {epoch} {seq}: {why}"));
        }
        if row.data["label"] == event_log::EVENTS_DROPPED {
            let spans = row.data["fields"]["seqs"].as_array().into_iter().flatten();
            let span = |span: &Value| Some((span[0].as_u64()?, span[1].as_u64()?));
            self.drops[at].extend(spans.filter_map(span));
        }
    }

    /// Takes in what the server says of an epoch.
    pub fn mark(&mut self, mark: &Mark) {
        match self.index.get(&(mark.device.clone(), mark.epoch.clone())) {
            Some(at) => self.marks[*at] = mark.committed,
            None => self.verdict.invented += 1,
        }
    }

    /// Takes in that the server has an object.
    pub fn object(&mut self, hash: &str) {
        self.objects.extend(hex(hash));
    }

    /// What came of it.
    pub fn verdict(mut self) -> Verdict {
        for at in 0..self.truths.len() {
            self.judge(at);
        }
        let v = &mut self.verdict;
        v.holds = v.changes > 0
            && [
                v.lost,
                v.duplicated,
                v.altered,
                v.invented,
                v.acknowledged_not_committed,
                v.marks_too_high,
                v.undelivered,
                v.skipped_by_a_log,
                v.evidence_lost,
            ] == [0; 9];
        self.verdict
    }

    fn judge(&mut self, at: usize) {
        let truth = std::mem::take(&mut self.truths[at]);
        let newest = truth.changes.len();
        let mut is_dropped = vec![false; newest];
        for (first, last) in std::mem::take(&mut self.drops[at]) {
            let (first, last) = (first.max(1) as usize - 1, (last as usize).min(newest));
            is_dropped.get_mut(first..last).into_iter().flatten().for_each(|seq| *seq = true);
        }
        self.verdict.changes += newest as u64;
        self.verdict.skipped_by_a_log += truth.skipped;
        if !truth.destroyed {
            self.verdict.undelivered += newest as u64 - truth.acknowledged;
        }
        let said = |truth: &Truth| format!("{} {}", truth.device, truth.epoch);
        let mut whole = 0;
        for (seq, dropped) in (1..).zip(&is_dropped) {
            let there = self.seen[at][seq as usize - 1] > 0;
            self.verdict.dropped += u64::from(*dropped && !there);
            if there || *dropped {
                whole += u64::from(whole + 1 == seq);
                continue;
            }
            // What still waits is not lost, and what waited in a log that was destroyed went with it.
            if seq <= truth.acknowledged {
                self.verdict.lost += 1;
                self.example(format!("{} {seq} is neither there nor dropped", said(&truth)));
            }
            if seq <= truth.acknowledged.max(truth.answered) {
                self.verdict.acknowledged_not_committed += 1;
            }
        }
        let highest = truth.acknowledged.max(truth.answered);
        if highest > newest as u64 || highest > self.marks[at] {
            self.verdict.acknowledged_not_committed += 1;
            let mark = self.marks[at];
            self.example(format!("{} was told {highest}, the server has {mark}", said(&truth)));
        }
        if self.marks[at] > whole {
            self.verdict.marks_too_high += 1;
            let mark = self.marks[at];
            self.example(format!("{} is marked up to {mark}, whole up to {whole}", said(&truth)));
        }
        let lost = truth.objects.iter().filter(|object| !self.objects.contains(object)).count();
        self.verdict.evidence_lost += lost as u64;
    }

    fn example(&mut self, sentence: String) {
        if self.verdict.examples.len() < EXAMPLES {
            self.verdict.examples.push(sentence);
        }
    }
}

/// Whether the row is this change, and its data a state that its event was in, then or later.
fn matches(change: &Change, row: &Row, changes: &[Change]) -> Result<(), String> {
    if change.event != name(&row.event) {
        return Err("it is of another event".to_owned());
    }
    if Some(change.phase) != phase(&row.phase) || Some(change.level) != level(row.level) {
        return Err(format!("its phase or level is another: {} {}", row.phase, row.level));
    }
    let state = row.data["seq"].as_u64().filter(|state| *state >= row.seq);
    let state = state.and_then(|state| changes.get(state as usize - 1));
    let Some(state) = state.filter(|state| state.event == change.event) else {
        return Err("its data names a state of another event".to_owned());
    };
    let (expected, object) = match &row.dataref {
        None => (state.whole, None),
        Some(hash) => (state.short, hex(hash)),
    };
    if digest(&row.data, None) != expected {
        return Err("its data is not what the log had".to_owned());
    }
    match object {
        Some(object) if object != state.object => Err("its dataref is another".to_owned()),
        _ => Ok(()),
    }
}

/// Judges what the database at `url` holds. `each` is called for every row.
///
/// # Errors
/// If it cannot be read.
pub async fn read(url: &str, truths: Vec<Truth>, mut each: impl FnMut()) -> Result<Verdict> {
    let mut judge = Judge::new(truths);
    let client = connect(url).await?;
    let none: [&(dyn ToSql + Sync); 0] = [];
    let statement = "SELECT device, epoch, seq, event, phase, level, data, dataref FROM event";
    let rows = client.query_raw(statement, none).await?;
    tokio::pin!(rows);
    while let Some(row) = rows.try_next().await? {
        judge.row(&Row {
            device: row.get(0),
            epoch: row.get(1),
            seq: row.get::<_, i64>(2).cast_unsigned(),
            event: row.get(3),
            phase: row.get(4),
            level: row.get(5),
            data: row.get(6),
            dataref: row.get(7),
        });
        each();
    }
    for row in client.query("SELECT device, epoch, committed FROM ledger", &none).await? {
        let committed = row.get::<_, i64>(2).cast_unsigned();
        judge.mark(&Mark { device: row.get(0), epoch: row.get(1), committed });
    }
    for row in client.query("SELECT hash FROM evidence", &none).await? {
        judge.object(row.get(0));
    }
    Ok(judge.verdict())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn data(seq: u64) -> Value {
        json!({"id": format!("event{seq}"), "seq": seq, "label": "fall", "sentence": "Someone fell."})
    }

    fn drop_event(seq: u64, spans: Value) -> Value {
        let mut data = data(seq);
        data["label"] = event_log::EVENTS_DROPPED.into();
        data["fields"] = json!({"seqs": spans});
        data
    }

    /// A log of five changes, the last of which drops the fourth.
    fn truth() -> Truth {
        let state = |data: Value| Change {
            event: name(data["id"].as_str().unwrap()),
            phase: 0,
            level: 2,
            whole: digest(&data, None),
            ..Change::default()
        };
        let mut changes: Vec<Change> = (1..=4).map(|seq| state(data(seq))).collect();
        changes.push(state(drop_event(5, json!([[4, 4]]))));
        let (device, epoch) = ("d".to_owned(), "e".to_owned());
        Truth { device, epoch, changes, acknowledged: 5, answered: 5, ..Truth::default() }
    }

    fn row(data: Value) -> Row {
        let seq = data["seq"].as_u64().unwrap();
        let event = data["id"].as_str().unwrap().to_owned();
        let (device, epoch, phase) = ("d".to_owned(), "e".to_owned(), "new".to_owned());
        Row { device, epoch, seq, event, phase, level: 2, data, dataref: None }
    }

    fn stored() -> Vec<Row> {
        (1..=3).map(data).chain([drop_event(5, json!([[4, 4]]))]).map(row).collect()
    }

    fn judged(truth: Truth, rows: &[Row], committed: u64) -> Verdict {
        let mut judge = Judge::new(vec![truth]);
        rows.iter().for_each(|row| judge.row(row));
        judge.mark(&Mark { device: "d".to_owned(), epoch: "e".to_owned(), committed });
        judge.verdict()
    }

    #[test]
    fn a_fleet_that_lost_nothing_is_found_to_hold() {
        let verdict = judged(truth(), &stored(), 5);
        assert_eq!(
            verdict,
            Verdict {
                holds: true,
                epochs: 1,
                changes: 5,
                stored: 4,
                dropped: 1,
                ..Verdict::default()
            }
        );
    }

    #[test]
    fn every_kind_of_fault_is_found_and_named() {
        let found = |rows: Vec<Row>, committed| judged(truth(), &rows, committed);
        let without = |n: usize| {
            let mut rows = stored();
            rows.remove(n);
            rows
        };
        let lost = found(without(1), 5);
        assert_eq!((lost.lost, lost.acknowledged_not_committed, lost.marks_too_high), (1, 1, 1));
        assert_eq!(found(without(3), 5).lost, 2, "the drop event, and what it dropped");
        let twice = [stored(), vec![row(data(2))]].concat();
        assert_eq!(found(twice, 5).duplicated, 1);
        let invented = [stored(), vec![row(data(9))]].concat();
        assert_eq!(found(invented, 5).invented, 1);
        for change in [
            |row: &mut Row| row.data["sentence"] = "Nobody fell.".into(),
            |row: &mut Row| row.event = "event9".to_owned(),
            |row: &mut Row| row.level = 0,
            |row: &mut Row| row.phase = "end".to_owned(),
            |row: &mut Row| row.data["seq"] = 1.into(),
        ] {
            let mut rows = stored();
            change(&mut rows[1]);
            let verdict = found(rows, 5);
            assert_eq!((verdict.altered, verdict.holds), (1, false));
            assert!(verdict.examples[0].starts_with("d e 2"), "{:?}", verdict.examples);
        }
        assert_eq!(found(stored(), 4).acknowledged_not_committed, 1, "told 5, has 4");
        let waiting = judged(Truth { acknowledged: 3, ..truth() }, &stored(), 5);
        assert_eq!((waiting.undelivered, waiting.holds), (2, false));
        let pictures = judged(Truth { objects: vec![7], ..truth() }, &stored(), 5);
        assert_eq!(pictures.evidence_lost, 1);
    }

    #[test]
    fn of_a_log_that_was_destroyed_only_what_was_acknowledged_is_missed() {
        let destroyed = Truth { destroyed: true, acknowledged: 1, answered: 1, ..truth() };
        assert!(judged(destroyed.clone(), &stored()[..1], 1).holds);
        assert_eq!(judged(destroyed, &[], 0).lost, 1);
    }

    #[test]
    fn nothing_at_all_does_not_hold() {
        assert!(!Judge::new(vec![]).verdict().holds);
    }
}
