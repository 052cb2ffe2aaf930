//! From verdicts to events: level, pinned evidence, the log, and whoever listens.

use crate::incidents::{Finding, Incidents, Step as Meeting, Thresholds};
use crate::installed::{Ledger, Record};
use crate::line::{Delivered, EVIDENCE_SENT};
use crate::mirror::MIRRORED;
use anyhow::Context;
use event_log::{
    Bound, EventId, EventLog, EventRow, EvidenceItem, Incident, Level, LogError, Phase,
};
use frame_store::{FrameId, FrameStore, PinId, StoreError};
use hal_camera::{CameraId, ClockQuality, MediaTime, Span, WallTime};
use inquiry::Report;
use policy::{Outcome, SeenFrame, StoppedBy};
use serde_json::json;
use std::collections::HashSet;

/// What the threads of the path report to the log.
pub enum Conclusion {
    /// An inquiry has ended.
    Verdict {
        /// The camera asked about.
        camera: CameraId,
        /// The window asked about.
        window: Span,
        /// What came of it.
        report: Box<Report>,
    },
    /// Something about the device itself.
    Trouble(Trouble),
    /// The server, or a broker, has got something.
    Delivered(Delivered),
    /// An update got on, and this is not to be forgotten of it.
    Updated {
        /// What is told of it.
        told: Option<(String, serde_json::Value)>,
        /// All of it.
        record: Box<Record>,
    },
    /// Nothing more will be seen: what is open has ended.
    Over,
}

/// Something about the device that a person should know.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// A camera gave an error.
    Camera {
        /// Which.
        camera: CameraId,
        /// What it said.
        sentence: String,
    },
    /// A camera gives frames, and something about it falls short.
    Remark {
        /// Which.
        camera: CameraId,
        /// What; each is sent once.
        sentence: String,
    },
    /// A camera had made frames that could not be taken from it.
    Lost {
        /// Which.
        camera: CameraId,
        /// How many since it was last told.
        frames: u64,
    },
    /// A frame could not be stored.
    Store {
        /// What the store said.
        sentence: String,
    },
    /// An inquiry could not begin.
    Inquiry {
        /// Why.
        sentence: String,
    },
    /// What was to see in the processor's place does not.
    Accelerator {
        /// Why.
        sentence: String,
    },
    /// More inquiries were due than could be done.
    Behind {
        /// How many were given up.
        given_up: u64,
    },
    /// Something happened on the board.
    Board {
        /// The event's kind.
        kind: &'static str,
        /// What.
        sentence: String,
        /// The same for programs.
        fields: serde_json::Value,
    },
}

/// Who hears of events as they are committed.
pub trait Listener {
    /// An inquiry has ended, whether or not it became an event.
    fn looked(&mut self, camera: &str, window: Span, report: &Report);
    /// An event was committed.
    fn event(&mut self, row: &EventRow, phase: Phase);
    /// The device has something to say.
    fn trouble(&mut self, sentence: &str);
}

/// Turns conclusions into events.
pub struct Concluder<'a> {
    store: &'a FrameStore,
    log: EventLog,
    thresholds: Thresholds,
    cameras: Vec<String>,
    report_normal: bool,
    rows_max: u64,
    bundle: String,
    incidents: Incidents<Known>,
    listener: Box<dyn Listener + 'a>,
    clock: fn() -> WallTime,
    events: u64,
    /// The sentence last said of each camera: an error that repeats is said once.
    said: Vec<Option<String>>,
}

/// An event that may still change.
#[derive(Clone, Debug)]
struct Known {
    id: EventId,
    incident: Incident,
}

/// What a [`Concluder`] needs to know.
pub struct Terms {
    /// Scores at which a verdict becomes an event.
    pub thresholds: Thresholds,
    /// Names of the cameras, by number.
    pub cameras: Vec<String>,
    /// Whether inquiries that found nothing are events of level `info`.
    pub report_normal: bool,
    /// Most events that the log may hold.
    pub rows_max: u64,
    /// Findings of one label nearer than this are one incident, in seconds.
    pub merge_gap_s: f64,
    /// The policy's id.
    pub bundle: String,
    /// The engine's id.
    pub engine: String,
    /// The wall clock.
    pub clock: fn() -> WallTime,
}

impl<'a> Concluder<'a> {
    /// A concluder that owns the log.
    pub fn new(
        store: &'a FrameStore,
        log: EventLog,
        terms: Terms,
        listener: Box<dyn Listener + 'a>,
    ) -> Self {
        let Terms { thresholds, cameras, report_normal, rows_max, .. } = terms;
        let Terms { merge_gap_s, bundle, clock, .. } = terms;
        let (incidents, said) = (Incidents::new(merge_gap_s), vec![None; cameras.len()]);
        Self {
            store,
            log,
            thresholds,
            cameras,
            report_normal,
            rows_max,
            bundle,
            incidents,
            listener,
            clock,
            events: 0,
            said,
        }
    }

    /// Takes one conclusion to the log.
    ///
    /// # Errors
    /// If the log cannot be written: the agent must not go on without its memory.
    pub fn conclude(&mut self, conclusion: Conclusion) -> anyhow::Result<()> {
        match conclusion {
            Conclusion::Trouble(trouble) => self.trouble(trouble),
            Conclusion::Delivered(delivered) => self.delivered(&delivered),
            Conclusion::Updated { told: None, record } => self.log.keep(&record),
            Conclusion::Updated { told: Some((sentence, fields)), record } => {
                self.listener.trouble(&sentence);
                self.log.tell(&sentence, &fields, &record)
            }
            Conclusion::Verdict { camera, window, report } => self.verdict(camera, window, &report),
            Conclusion::Over => self.end_open(),
        }
    }

    /// Records an event of the device itself.
    ///
    /// # Errors
    /// As [`Self::conclude`].
    pub fn health(
        &mut self,
        kind: &str,
        sentence: &str,
        fields: serde_json::Value,
    ) -> anyhow::Result<()> {
        self.listener.trouble(sentence);
        self.log
            .health(kind, sentence, fields, (self.clock)())
            .map(drop)
            .with_context(|| format!("cannot record: {sentence}"))
    }

    /// Ends what is open, if anything is. Returns the number of incidents recorded.
    ///
    /// # Errors
    /// As [`Self::conclude`].
    pub fn finish(&mut self, frames_dropped: u64) -> anyhow::Result<u64> {
        if frames_dropped > 0 {
            let sentence = format!("{frames_dropped} frames came faster than they could be stored");
            self.health("frames-dropped", &sentence, json!({"frames": frames_dropped}))?;
        }
        self.end_open()?;
        Ok(self.events)
    }

    fn end_open(&mut self) -> anyhow::Result<()> {
        self.incidents.end_all().into_iter().try_for_each(|(known, _)| self.end(known))
    }

    fn delivered(&mut self, delivered: &Delivered) -> anyhow::Result<()> {
        match delivered {
            Delivered::UpTo(seq) => self.log.acknowledge(*seq)?,
            Delivered::GivenUp { seqs: (first, last), why } => {
                self.listener.trouble(why);
                self.log.give_up(*first, *last, why, (self.clock)())?;
            }
            Delivered::Evidence(event) => self.log.state_set(EVIDENCE_SENT, event.as_str())?,
            Delivered::Mirrored(told) => self.log.state_set(MIRRORED, told)?,
        }
        Ok(())
    }

    fn trouble(&mut self, trouble: Trouble) -> anyhow::Result<()> {
        match trouble {
            Trouble::Camera { camera, sentence } => {
                let said = self.said.get_mut(usize::from(camera.0));
                if let Some(said) = said {
                    if said.as_deref() == Some(&sentence) {
                        return Ok(());
                    }
                    *said = Some(sentence.clone());
                }
                let name = self.name(camera);
                self.health("camera", &sentence, json!({"camera": name}))
            }
            Trouble::Remark { camera, sentence } => {
                let name = self.name(camera);
                self.health("camera", &sentence, json!({"camera": name}))
            }
            Trouble::Lost { camera, frames } => {
                let name = self.name(camera);
                let word = if frames == 1 { "frame" } else { "frames" };
                let sentence = format!(
                    "camera '{name}' lost {frames} {word} before they could be taken (a bad cable, \
                     an overloaded bus or processor)"
                );
                self.health("frames-lost", &sentence, json!({"camera": name, "frames": frames}))
            }
            Trouble::Store { sentence } => self.health("frame-store", &sentence, json!({})),
            Trouble::Inquiry { sentence } => self.health("inquiry", &sentence, json!({})),
            Trouble::Accelerator { sentence } => self.health("accelerator", &sentence, json!({})),
            Trouble::Behind { given_up } => {
                let sentence = format!(
                    "{given_up} inquiries were due and not made: the policy is too slow for this \
                     load"
                );
                self.health("behind", &sentence, json!({"given_up": given_up}))
            }
            Trouble::Board { kind, sentence, fields } => self.health(kind, &sentence, fields),
        }
    }

    fn verdict(&mut self, camera: CameraId, window: Span, report: &Report) -> anyhow::Result<()> {
        let name = self.name(camera);
        if let Some(said) = self.said.get_mut(usize::from(camera.0)) {
            *said = None;
        }
        self.listener.looked(&name, window, report);
        // What no look can reach any more has ended; sooner, a later one would tell it a second time.
        for (known, _) in self.incidents.ended(camera, report.origin) {
            self.end(known)?;
        }
        if let StoppedBy::Failure(why) = &report.outcome.stopped_by {
            let sentence = format!("an inquiry broke off: {why}");
            self.health("inquiry", &sentence, json!({"camera": name}))?;
        }
        match self.thresholds.level(report.outcome.p) {
            Some(level) => {
                for finding in findings(camera, report) {
                    self.finding(finding, level, report)?;
                }
                Ok(())
            }
            None if self.report_normal => {
                let finding = Finding {
                    camera,
                    label: "normal".to_owned(),
                    span: glanced(report),
                    score: report.outcome.p,
                };
                let known = self.record(&finding, Level::Info, report)?;
                self.listen(&known.id, Phase::New)
            }
            None => Ok(()),
        }
    }

    fn finding(&mut self, finding: Finding, level: Level, report: &Report) -> anyhow::Result<()> {
        match self.incidents.meet(&finding) {
            Meeting::New => {
                let known = self.record(&finding, level, report)?;
                self.events += 1;
                let id = known.id.clone();
                self.incidents.committed(finding, known);
                self.listen(&id, Phase::New)
            }
            Meeting::Update { event: known, merged, surer } => {
                self.update(known, merged, surer.then_some((level, report)))
            }
        }
    }

    /// Pins the evidence, then records the event: in that order, so that an event that exists has
    /// its evidence (invariant I1).
    fn record(
        &mut self,
        finding: &Finding,
        level: Level,
        report: &Report,
    ) -> anyhow::Result<Known> {
        let pin = self.pin(report)?;
        let incident = self.incident(finding, level, report, pin);
        let id = self.log.record(&incident, (self.clock)()).context("cannot record an event")?;
        self.retire(self.rows_max)?;
        Ok(Known { id, incident })
    }

    /// Extends an event. If the new inquiry is the surer one its trajectory takes the place of the
    /// old, whose evidence is then no longer cited and is let go after the commit.
    fn update(
        &mut self,
        known: Known,
        merged: Finding,
        better: Option<(Level, &Report)>,
    ) -> anyhow::Result<()> {
        let Known { id, incident: old } = known;
        let mut incident = old.clone();
        if let Some((level, report)) = better {
            let pin = self.pin(report)?;
            incident = self.incident(&merged, level.max(old.level), report, pin);
        }
        incident.start = moved(old.start, merged.span.start, old.start_media);
        incident.end = moved(old.end, merged.span.end, old.end_media);
        (incident.start_media, incident.end_media) = (merged.span.start, merged.span.end);
        if !self.change(&id, &incident, Phase::Update)? {
            return Ok(());
        }
        if let (Some(pin), true) = (old.pin, old.pin != incident.pin) {
            self.store.unpin(PinId(pin)).unwrap_or_else(|e| self.listener.trouble(&e.to_string()));
        }
        self.incidents.committed(merged, Known { id: id.clone(), incident });
        self.listen(&id, Phase::Update)
    }

    fn end(&mut self, known: Known) -> anyhow::Result<()> {
        if self.change(&known.id, &known.incident, Phase::End)? {
            self.listen(&known.id, Phase::End)?;
        }
        Ok(())
    }

    /// Changes an event; `false` if it was retired meanwhile to make room.
    fn change(&mut self, id: &EventId, incident: &Incident, phase: Phase) -> anyhow::Result<bool> {
        match self.log.update(id, incident, phase) {
            Ok(()) => Ok(true),
            Err(LogError::Unknown { .. }) => Ok(false),
            Err(error) => Err(error).context("cannot change an event"),
        }
    }

    fn listen(&mut self, id: &EventId, phase: Phase) -> anyhow::Result<()> {
        if let Some(row) = self.log.event(id.as_str())? {
            self.listener.event(&row, phase);
        }
        Ok(())
    }

    fn pin(&mut self, report: &Report) -> anyhow::Result<PinId> {
        let frames: Vec<FrameId> = report.evidence.iter().copied().collect();
        let pinned = match self.store.pin(&frames) {
            Err(StoreError::EvidenceFull { .. }) => {
                // A tenth of the events that have evidence make room, and the log says so.
                let with_evidence = self.log.pins()?.len() as u64;
                self.retire((with_evidence - with_evidence / 10).max(1))?;
                self.store.pin(&frames)
            }
            other => other,
        };
        pinned.context("cannot keep the evidence of an event")
    }

    /// Keeps the log within `rows` events (invariant I7); evidence that no event cites any more goes
    /// after the commit.
    fn retire(&mut self, rows: u64) -> anyhow::Result<()> {
        let bound = Bound { rows: Some(rows), bytes: None };
        let Some((_, pruned)) = self.log.prune(bound, (self.clock)())? else { return Ok(()) };
        tracing::warn!(?pruned, "retired events to make room");
        let cited: HashSet<PinId> = self.log.pins()?.into_iter().map(PinId).collect();
        self.store.orphan_pins(&cited)?;
        Ok(())
    }

    fn incident(&self, finding: &Finding, level: Level, report: &Report, pin: PinId) -> Incident {
        let outcome = &report.outcome;
        let wall = |t: MediaTime| match report.anchor {
            Some((media, wall)) => moved(wall, t, media),
            None => WallTime { unix_us: 0, quality: ClockQuality::Unsynced },
        };
        Incident {
            camera: finding.camera,
            camera_name: self.name(finding.camera),
            start: wall(finding.span.start),
            end: wall(finding.span.end),
            start_media: finding.span.start,
            end_media: finding.span.end,
            level,
            label: finding.label.clone(),
            score: finding.score,
            sentence: outcome.explanation.clone(),
            clips: clips_json(report),
            trajectory: json!(outcome.trajectory),
            frames_used: outcome.frames_used,
            bundle: self.bundle.clone(),
            engine: report.engine.clone(),
            stopped_by: stopped_word(&outcome.stopped_by),
            evidence: evidence(report),
            pin: Some(pin.0),
        }
    }

    fn name(&self, camera: CameraId) -> String {
        self.cameras.get(usize::from(camera.0)).cloned().unwrap_or_else(|| camera.to_string())
    }
}

/// The clips of a report on the camera's media clock. A verdict without clips is one finding over
/// the window, of an unclear kind: the probe is sure, the words are missing.
pub fn findings(camera: CameraId, report: &Report) -> Vec<Finding> {
    let Outcome { p, clips, .. } = &report.outcome;
    let at = |s: f64| report.origin.plus_s(s);
    if clips.is_empty() {
        let (label, span) = ("unclear".to_owned(), glanced(report));
        return vec![Finding { camera, label, span, score: *p }];
    }
    clips
        .iter()
        .map(|c| Finding {
            camera,
            label: c.label.clone(),
            span: Span::new(at(c.start), at(c.end)),
            score: c.score.unwrap_or(*p),
        })
        .collect()
}

/// What the glance covered: the window as far as there was footage of it.
fn glanced(report: &Report) -> Span {
    let args = report.outcome.trajectory.first().map(|s| &s.args);
    let bound = |key: &str| args.and_then(|a| a[key].as_f64()).unwrap_or(0.0);
    Span::new(report.origin.plus_s(bound("start")), report.origin.plus_s(bound("end")))
}

/// Clips with their times on the camera's media clock, in seconds.
pub fn clips_json(report: &Report) -> serde_json::Value {
    let on_media = |s: f64| policy::tenth(report.origin.plus_s(s).as_s());
    let clips = report.outcome.clips.iter().map(|c| {
        json!({
            "start": on_media(c.start),
            "end": on_media(c.end),
            "label": c.label,
            "score": c.score,
            "evidence": c.evidence,
        })
    });
    serde_json::Value::Array(clips.collect())
}

fn evidence(report: &Report) -> Vec<EvidenceItem> {
    let mut items: Vec<EvidenceItem> = vec![];
    for seen in report.outcome.trajectory.iter().flat_map(|s| &s.frames) {
        let SeenFrame { id, t_s, hash } = seen;
        if !items.iter().any(|i| i.frame_id == *id) {
            let media_time = report.origin.plus_s(*t_s);
            items.push(EvidenceItem { frame_id: id.clone(), media_time, hash: hash.clone() });
        }
    }
    items
}

/// The word for why an inquiry ended, as the log keeps it.
pub fn stopped_word(stopped_by: &StoppedBy) -> String {
    match stopped_by {
        StoppedBy::Final => "final".to_owned(),
        StoppedBy::Turns => "turns".to_owned(),
        StoppedBy::Tokens => "tokens".to_owned(),
        StoppedBy::Time => "time".to_owned(),
        StoppedBy::Failure(why) => format!("failure: {why}"),
    }
}

/// `wall`, which belongs to `then`, moved to `now`.
fn moved(wall: WallTime, now: MediaTime, then: MediaTime) -> WallTime {
    WallTime { unix_us: wall.unix_us + (now.0 - then.0), ..wall }
}
