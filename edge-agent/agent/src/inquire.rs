//! The command `inquire`: asks the policy about a video file.

use crate::{
    camera,
    conclude::{clips_json, findings, stopped_word},
    config::Config,
    draw, listen, parts,
};
use anyhow::{Context, Result, bail};
use frame_store::{FrameStore, RealFs, StoreOptions};
use hal_camera::{CameraError, CameraId, Capture, MediaTime, Span};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use inquiry::{Report, Request, Stored};
use serde_json::json;
use std::{
    io::{self, Write},
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
};

/// Ask the policy about a video file.
///
/// A video longer than one window is asked about window by window, each overlapping the one before
/// by half; the most suspicious answer is the verdict.
#[derive(clap::Args)]
pub struct InquireArguments {
    /// The video: anything that ffmpeg reads.
    pub file: PathBuf,
    /// Draw the score curve and the trajectory to this file.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// One JSON object.
    #[arg(long)]
    pub json: bool,
    /// What is normal there, in plain words.
    #[arg(long, default_value = "")]
    pub normal: String,
    /// Directory of the policy's bundle, instead of the built-in nano.
    #[arg(long, value_name = "DIR")]
    pub bundle: Option<PathBuf>,
}

/// Asks about the file and says what came of it.
///
/// # Errors
/// If the file cannot be read, or holds no frame.
pub fn run(mut config: Config, arguments: InquireArguments) -> Result<()> {
    if let Some(bundle) = arguments.bundle {
        config.inquiry.bundle = bundle;
    }
    let path = arguments.file.to_str().context("the file's name is not UTF-8; rename it")?;
    // Read first: a wrong file should be said before the policy is loaded.
    let (mut source, _) = camera::open(&format!("file:{path}"), Arc::new(AtomicBool::new(false)))?;
    let scratch = tempfile::tempdir().context("no place for the video's frames")?;
    let options = StoreOptions { bytes_max: 8 << 30, ..StoreOptions::default() };
    let (store, _) = FrameStore::open(scratch.path(), options, Arc::new(RealFs))?;
    let damage = ingest(source.as_mut(), &store, arguments.json)?;
    let camera = CameraId(0);
    let held = store.span(camera).with_context(|| match &damage {
        Some(damage) => damage.clone(),
        None => format!("'{path}' holds no frames"),
    })?;

    let bundle = parts::bundle(&config)?;
    let mut inquirer = parts::inquirer(&bundle, &config)?;
    let window_s = config.inquiry.look_back_s + config.inquiry.settle_s;
    let windows = windows(held, window_s);
    let bar = progress(windows.len() as u64, "inquiries", arguments.json);
    let mut reports = vec![];
    for window in windows {
        let footage = Stored { store: &store, camera };
        let normal = arguments.normal.clone();
        let request =
            Request { window, woken_at: None, normal, budgets: None, glance_frames: None };
        reports.push((window, inquirer.inquire(&footage, &request)?));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let most = |a: &&(Span, Report), b: &&(Span, Report)| a.1.outcome.p.total_cmp(&b.1.outcome.p);
    let Some((window, report)) = reports.iter().max_by(most) else {
        bail!("'{path}' is too short to be asked about");
    };
    if let Some(svg) = &arguments.svg {
        let picture = picture(path, &store, report);
        std::fs::write(svg, draw::inquiry_svg(&picture))
            .with_context(|| format!("cannot write '{}'", svg.display()))?;
    }
    let engine = inquirer.engine().id();
    let answer = Answer {
        path,
        held,
        window: *window,
        report,
        threshold: bundle.manifest.thresholds.notice as f32,
        bundle: inquirer.bundle_id(),
        engine: &engine,
        windows: reports.len(),
        damage,
    };
    let mut out = io::stdout().lock();
    if arguments.json { answer.json(&mut out) } else { answer.readable(&mut out) }
}

/// The inquiry as a picture, with some of the frames that it saw.
fn picture(path: &str, store: &FrameStore, report: &Report) -> draw::InquiryPicture {
    let mut picture = draw::InquiryPicture::from_outcome(&report.outcome);
    picture.place = path.to_owned();
    let jpegs = report.evidence.iter().filter_map(|&id| {
        let stored = store.read(id).ok()?;
        Some((id.to_string(), stored.frame.bytes))
    });
    picture.show_frames(&report.outcome.trajectory, &jpegs.collect());
    picture
}

/// All frames of the file into the store. Returns what is wrong with a file that broke off.
fn ingest(
    source: &mut dyn hal_camera::Camera,
    store: &FrameStore,
    quiet: bool,
) -> Result<Option<String>> {
    let bar = progress(0, "frames read", quiet);
    let mut damage = None;
    loop {
        match source.capture() {
            Ok(Capture::Frame(frame)) => {
                store.append(CameraId(0), &frame)?;
                bar.inc(1);
            }
            Ok(Capture::End) => break,
            Err(error @ CameraError::Damaged { .. }) => damage = Some(error.to_string()),
            Err(error) => return Err(error.into()),
        }
    }
    bar.finish_and_clear();
    Ok(damage)
}

/// Windows of `length_s` that cover `held`, each half over the one before; the last ends with it.
fn windows(held: Span, length_s: f64) -> Vec<Span> {
    let mut windows = vec![];
    let mut start = held.start;
    loop {
        let end = start.plus_s(length_s);
        if end >= held.end {
            windows.push(Span::new(held.end.plus_s(-length_s).max(held.start), held.end));
            return windows;
        }
        windows.push(Span::new(start, end));
        start = start.plus_s(length_s / 2.0);
    }
}

struct Answer<'a> {
    path: &'a str,
    held: Span,
    window: Span,
    report: &'a Report,
    threshold: f32,
    bundle: &'a str,
    engine: &'a str,
    windows: usize,
    damage: Option<String>,
}

impl Answer<'_> {
    fn anomalous(&self) -> bool {
        self.report.outcome.p >= self.threshold
    }

    fn json(&self, out: &mut impl Write) -> Result<()> {
        let outcome = &self.report.outcome;
        let found = findings(CameraId(0), self.report);
        let value = json!({
            "file": self.path,
            "seconds": self.held.len_s(),
            "verdict": if self.anomalous() { "anomalous" } else { "normal" },
            "score": outcome.p,
            "label": self.anomalous().then(|| found[0].label.clone()),
            "sentence": outcome.explanation,
            "clips": clips_json(self.report),
            "trajectory": outcome.trajectory,
            "frames_used": outcome.frames_used,
            "tokens_used": outcome.tokens_used,
            "stopped_by": stopped_word(&outcome.stopped_by),
            "window": [seconds(self.window.start), seconds(self.window.end)],
            "windows": self.windows,
            "timing_ms": self.report.timing,
            "turns": self.report.turns,
            "bundle": self.bundle,
            "engine": self.engine,
            "damage": self.damage,
        });
        Ok(writeln!(out, "{value}")?)
    }

    fn readable(&self, out: &mut impl Write) -> Result<()> {
        let outcome = &self.report.outcome;
        let word = if self.anomalous() { "ANOMALOUS" } else { "normal" };
        writeln!(out, "{}: {word}, p {:.2}", self.path, outcome.p)?;
        writeln!(out, "  {}", outcome.explanation)?;
        for clip in &outcome.clips {
            let at = |s: f64| seconds(self.report.origin.plus_s(s));
            writeln!(out, "  {} from {:.1} to {:.1} s", clip.label, at(clip.start), at(clip.end))?;
        }
        for step in &outcome.trajectory {
            writeln!(out, "  {}", listen::told(step))?;
        }
        writeln!(
            out,
            "  {} frames, {} tokens, {:.0} ms, window {:.1}–{:.1} s of {:.1} s, {} on {}",
            outcome.frames_used,
            outcome.tokens_used,
            self.report.timing.total_ms,
            seconds(self.window.start),
            seconds(self.window.end),
            self.held.len_s(),
            self.bundle,
            self.engine
        )?;
        if let Some(damage) = &self.damage {
            writeln!(out, "  note: {damage}")?;
        }
        Ok(())
    }
}

fn seconds(t: MediaTime) -> f64 {
    policy::tenth(t.as_s())
}

fn progress(length: u64, what: &str, quiet: bool) -> ProgressBar {
    let bar = match length {
        0 => ProgressBar::new_spinner(),
        n => ProgressBar::new(n),
    };
    if quiet {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let template = if length == 0 { "{spinner} {pos} {msg}" } else { "{bar:30} {pos}/{len} {msg}" };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(a: f64, b: f64) -> Span {
        Span::new(MediaTime::from_s(a), MediaTime::from_s(b))
    }

    #[test]
    fn windows_cover_the_file_and_the_last_ends_with_it() {
        assert_eq!(windows(span(0.0, 30.0), 122.0), [span(0.0, 30.0)]);
        let all = windows(span(0.0, 200.0), 122.0);
        assert_eq!(all, [span(0.0, 122.0), span(61.0, 183.0), span(78.0, 200.0)]);
    }
}
