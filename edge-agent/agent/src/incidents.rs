//! From verdicts to incidents: several inquiries about one happening are one event. Pure.

use event_log::{Level, Phase};
use hal_camera::{CameraId, MediaTime, Span};

/// Scores at which a verdict becomes an event, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// From here it is a notice.
    pub notice: f32,
    /// From here it is an alert.
    pub alert: f32,
}

impl Thresholds {
    /// The level of a score; `None` below the lowest threshold.
    pub fn level(&self, score: f32) -> Option<Level> {
        match score {
            s if s >= self.alert => Some(Level::Alert),
            s if s >= self.notice => Some(Level::Notice),
            _ => None,
        }
    }
}

/// One finding of an inquiry, on the camera's media clock.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Whose.
    pub camera: CameraId,
    /// What it is.
    pub label: String,
    /// When.
    pub span: Span,
    /// P(anomalous), 0 to 1.
    pub score: f32,
}

/// An incident that may still go on, known to the log as `event`.
#[derive(Clone, Debug)]
struct Open<E> {
    finding: Finding,
    event: E,
}

/// What to do with a finding.
#[derive(Clone, Debug, PartialEq)]
pub enum Step<E> {
    /// Record a new event.
    New,
    /// Extend this event.
    Update {
        /// The event.
        event: E,
        /// The incident with the finding merged in.
        merged: Finding,
        /// Whether the new inquiry is the better one to show: it is surer.
        surer: bool,
    },
}

/// Incidents that may still go on.
#[derive(Debug)]
pub struct Incidents<E> {
    merge_gap_s: f64,
    open: Vec<Open<E>>,
}

impl<E: Clone> Incidents<E> {
    /// None yet. Findings of one label nearer than `merge_gap_s` are one incident.
    pub fn new(merge_gap_s: f64) -> Self {
        Self { merge_gap_s, open: vec![] }
    }

    /// What `finding` means.
    pub fn meet(&self, finding: &Finding) -> Step<E> {
        match self.matching(finding) {
            None => Step::New,
            Some(at) => {
                let open = &self.open[at];
                let (old, new) = (&open.finding, finding);
                let merged = Finding {
                    span: Span::new(
                        old.span.start.min(new.span.start),
                        old.span.end.max(new.span.end),
                    ),
                    score: old.score.max(new.score),
                    ..old.clone()
                };
                Step::Update { event: open.event.clone(), merged, surer: new.score > old.score }
            }
        }
    }

    /// The log has committed what [`Self::meet`] asked for.
    pub fn committed(&mut self, finding: Finding, event: E) {
        match self.matching(&finding) {
            Some(at) => self.open[at] = Open { finding, event },
            None => self.open.push(Open { finding, event }),
        }
    }

    /// Incidents of `camera` that nothing was seen of after `since`, from when on the newest look could
    /// reach; they are closed.
    pub fn ended(&mut self, camera: CameraId, since: MediaTime) -> Vec<(E, Finding)> {
        let over = |o: &Open<E>| o.finding.camera == camera && o.finding.span.end < since;
        let (ended, open) = self.open.drain(..).partition(over);
        self.open = open;
        Vec::into_iter(ended).map(|o: Open<E>| (o.event, o.finding)).collect()
    }

    /// Closes everything.
    pub fn end_all(&mut self) -> Vec<(E, Finding)> {
        self.open.drain(..).map(|o| (o.event, o.finding)).collect()
    }

    fn matching(&self, finding: &Finding) -> Option<usize> {
        self.open.iter().position(|o| {
            o.finding.camera == finding.camera
                && o.finding.label == finding.label
                && finding.span.start.since_s(o.finding.span.end) <= self.merge_gap_s
                && o.finding.span.start.since_s(finding.span.end) <= self.merge_gap_s
        })
    }
}

/// The phase word for people.
pub fn phase_word(phase: Phase) -> &'static str {
    match phase {
        Phase::New => "new",
        Phase::Update => "goes on",
        Phase::End => "ended",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(label: &str, start: f64, end: f64, score: f32) -> Finding {
        let span = Span::new(MediaTime::from_s(start), MediaTime::from_s(end));
        Finding { camera: CameraId(0), label: label.into(), span, score }
    }

    #[test]
    fn two_inquiries_about_one_fall_are_one_event() {
        let mut incidents = Incidents::new(10.0);
        let first = finding("fall", 60.0, 80.0, 0.7);
        assert_eq!(incidents.meet(&first), Step::New);
        incidents.committed(first, 1);
        let second = finding("fall", 62.0, 100.0, 0.9);
        let Step::Update { event, merged, surer } = incidents.meet(&second) else {
            panic!("not merged")
        };
        assert_eq!((event, surer), (1, true));
        assert_eq!(merged, finding("fall", 60.0, 100.0, 0.9));
        // What was committed last is what the next update starts from: an event that went back to
        // its first state would cite evidence that is no longer kept.
        incidents.committed(merged, 2);
        let Step::Update { event, .. } = incidents.meet(&finding("fall", 90.0, 101.0, 0.1)) else {
            panic!("not merged")
        };
        assert_eq!(event, 2);
    }

    #[test]
    fn another_label_another_camera_or_a_later_time_is_another_event() {
        let mut incidents = Incidents::new(10.0);
        incidents.committed(finding("fall", 60.0, 80.0, 0.7), 1);
        assert_eq!(incidents.meet(&finding("fight", 60.0, 80.0, 0.7)), Step::New);
        assert_eq!(incidents.meet(&finding("fall", 95.0, 99.0, 0.7)), Step::New);
        let elsewhere = Finding { camera: CameraId(1), ..finding("fall", 60.0, 80.0, 0.7) };
        assert_eq!(incidents.meet(&elsewhere), Step::New);
    }

    #[test]
    fn an_incident_ends_when_nothing_was_seen_of_it_since() {
        let mut incidents = Incidents::new(10.0);
        incidents.committed(finding("fall", 60.0, 80.0, 0.7), 1);
        assert!(incidents.ended(CameraId(0), MediaTime::from_s(79.0)).is_empty());
        assert!(incidents.ended(CameraId(1), MediaTime::from_s(81.0)).is_empty());
        assert_eq!(incidents.ended(CameraId(0), MediaTime::from_s(81.0)).len(), 1);
        assert!(incidents.end_all().is_empty());
    }

    #[test]
    fn levels_follow_the_thresholds() {
        let thresholds = Thresholds { notice: 0.5, alert: 0.8 };
        assert_eq!(thresholds.level(0.49), None);
        assert_eq!(thresholds.level(0.5), Some(Level::Notice));
        assert_eq!(thresholds.level(0.8), Some(Level::Alert));
    }
}
