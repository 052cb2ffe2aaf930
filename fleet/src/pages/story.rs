//! One event, told step by step: what was looked at, what was thought, how probable it then was.
//!
//! The steps are read leniently. They come from cameras of every version, and one field that cannot be
//! read must not hide the others.

use super::layout;
use crate::ids::ContentHash;
use crate::search::Found;
use maud::{Markup, html};
use serde_json::Value;
use std::collections::BTreeSet;

/// The most steps and pictures of a page; an inquiry has some tens.
const STEPS_MAX: usize = 200;
const PICTURES_MAX: usize = 200;

/// What an event is, in short.
pub(super) fn head(event: &Found) -> Markup {
    let text = |key: &str| event.data[key].as_str();
    html! {
        p class="sentence" { (event.sentence) }
        p {
            (layout::level(event.level)) " "
            @if event.score.is_some() { "p " (layout::score(event.score)) ", " }
            (event.kind) ", " (event.phase)
            @if let Some(camera) = &event.camera { ", camera " strong { (camera) } }
            ", device " a href={ "/devices/" (event.device) } { (event.device_name.as_deref().unwrap_or(&event.device)) }
        }
        p {
            (layout::time(event.began)) " – " (layout::time(event.ended)) " UTC"
            @if event.clock != "ntp" { ", " span class="wrong" { "by a clock that was not set" } }
        }
        @if let Some(bundle) = text("bundle") {
            p { "Decided by " (bundle) @if let Some(engine) = text("engine") { " on " (engine) } }
        }
        @if let Some(end) = text("stopped_by") {
            p { "Ended by " (end) @if let Some(n) = event.data["frames_used"].as_u64() { ", after " (n) " frames" } }
        }
    }
}

/// The hashes of all frames that an event names, its evidence and those of its steps.
pub(super) fn frames(data: &Value, trajectory: &Value) -> BTreeSet<ContentHash> {
    let of_steps = items(trajectory).iter().flat_map(|step| items(&step["frames"]));
    items(&data["evidence"]).iter().chain(of_steps).filter_map(hash).take(PICTURES_MAX).collect()
}

/// The evidence, the steps, or the facts of an event of health. `pictures` are the hashes of those frames
/// that were uploaded.
pub(super) fn told(event: &Found, trajectory: &Value, pictures: &BTreeSet<ContentHash>) -> Markup {
    let evidence = items(&event.data["evidence"]);
    let steps = items(trajectory);
    html! {
        @if let Some(facts) = event.data["fields"].as_object().filter(|facts| !facts.is_empty()) {
            h2 { "Facts" }
            table { @for (key, value) in facts { tr { th { (key) } td { code { (plain(value)) } } } } }
        }
        @if !evidence.is_empty() {
            h2 { "Evidence" }
            (shown(evidence, pictures))
        }
        @if event.kind == "incident" {
            h2 { "How it was decided" }
            @if steps.is_empty() {
                p {
                    @if event.dataref.is_some() { "The steps have not been uploaded yet, or are too many to show." }
                    @else { "No steps came with it." }
                }
            } @else {
                p class="quiet" { "p is how probable it was after each step; seconds count from the beginning of the stretch." }
                ol class="steps" start="0" { @for step in steps.iter().take(STEPS_MAX) { (told_step(step, pictures)) } }
            }
        }
    }
}

fn told_step(step: &Value, pictures: &BTreeSet<ContentHash>) -> Markup {
    let op = step["op"].as_str().unwrap_or("unknown");
    let args = &step["args"];
    let frames = items(&step["frames"]);
    html! {
        li {
            @if let Some(thought) = step["thought"].as_str().filter(|t| !t.is_empty()) {
                p class="thought" { "“" (thought) "”" }
            }
            @for clip in items(&step["hypothesis"]["clips"]) {
                p class="quiet" {
                    "suspects " (plain(&clip["label"])) " at " (seconds(&clip["span"][0])) " – " (seconds(&clip["span"][1])) " s"
                    @if let Some(missing) = clip["missing"].as_str().filter(|m| !m.is_empty()) { ", still to see: " (missing) }
                }
            }
            strong { (op) } " "
            @if let Some(p) = step["p"].as_f64() { "p " (format!("{p:.2}")) " " }
            @match op {
                "final" => (verdict(args)),
                "invalid" => { "refused: " (args["error"].as_str().unwrap_or("no operator")) }
                _ => (looked(args, frames)),
            }
            @if !frames.is_empty() { (shown(frames, pictures)) }
        }
    }
}

/// Where a step looked, by its own words.
fn looked(args: &Value, frames: &[Value]) -> Markup {
    html! {
        @if !args["anchor"].is_null() {
            "the " (seconds(&args["span"])) " s before " (seconds(&args["anchor"])) " s"
        } @else if !args["start"].is_null() {
            (seconds(&args["start"])) " – " (seconds(&args["end"])) " s"
            @if !args["factor"].is_null() { ", widened " (seconds(&args["factor"])) " times" }
        }
        @if frames.is_empty() { ": no frames are stored there" }
        @else { ": " (frames.len()) " frames" }
    }
}

fn verdict(args: &Value) -> Markup {
    html! {
        (plain(&args["verdict"]))
        @for clip in items(&args["clips"]) {
            "; " (plain(&clip["label"])) " at " (seconds(&clip["start"])) " – " (seconds(&clip["end"])) " s"
        }
        @if let Some(explanation) = args["explanation"].as_str() { ". " (explanation) }
    }
}

/// Frames: as pictures where they were uploaded, else by their times.
fn shown(frames: &[Value], pictures: &BTreeSet<ContentHash>) -> Markup {
    let there = |frame: &Value| hash(frame).filter(|hash| pictures.contains(hash));
    let absent = frames.iter().filter(|frame| there(frame).is_none()).count();
    html! {
        div class="pictures" {
            @for frame in frames.iter().take(PICTURES_MAX) {
                @if let Some(hash) = there(frame) {
                    figure {
                        a href={ "/evidence/" (hash) } { img src={ "/evidence/" (hash) } alt="frame" loading="lazy"; }
                        figcaption { (taken(frame)) }
                    }
                }
            }
        }
        @if absent > 0 {
            p class="quiet" {
                "Not uploaded: "
                @for frame in frames.iter().filter(|frame| there(frame).is_none()).take(PICTURES_MAX) { (taken(frame)) " " }
            }
        }
    }
}

/// When a frame was taken, in a step's seconds or those of the camera's clock.
fn taken(frame: &Value) -> String {
    let time = ["t_s", "media_time", "time_s"].iter().find_map(|key| frame[*key].as_f64());
    time.map_or_else(|| plain(&frame["frame_id"]), |s| format!("{s:.1} s"))
}

fn hash(frame: &Value) -> Option<ContentHash> {
    ContentHash::parse(frame["hash"].as_str()?)
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn seconds(value: &Value) -> String {
    value.as_f64().map_or_else(|| plain(value), |s| format!("{s:.1}"))
}

/// A value as text, at most a few lines of it; a text without its quotes.
fn plain(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    text.chars().take(2000).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_step_tells_what_was_thought_and_seen() {
        let hash = "ab".repeat(32);
        let step = json!({"step": 1, "op": "backtrack", "args": {"anchor": 9.0, "span": 4.0}, "p": 0.614,
            "thought": "Who left <it>?", "frames": [{"t_s": 5.25, "hash": hash}, {"t_s": 6.0, "hash": "x"}],
            "hypothesis": {"clips": [{"span": [1.0, 2.5], "label": "theft", "missing": "the hand"}]}});
        let told =
            told_step(&step, &BTreeSet::from([ContentHash::parse(&hash).unwrap()])).into_string();
        for part in [
            "Who left &lt;it&gt;?",
            "p 0.61",
            "the 4.0 s before 9.0 s",
            "theft at 1.0 – 2.5 s",
            "still to see: the hand",
            &format!("/evidence/{hash}"),
            "Not uploaded: 6.0 s",
        ] {
            assert!(told.contains(part), "{part} is not in {told}");
        }
    }

    #[test]
    fn a_verdict_and_a_refusal_are_told() {
        let last = json!({"op": "final", "args": {"verdict": "anomalous", "clips": [{"start": 1, "end": 2, "label": "fall"}]}});
        assert!(
            told_step(&last, &BTreeSet::new())
                .into_string()
                .contains("anomalous; fall at 1.0 – 2.0 s")
        );
        let refused = json!({"op": "invalid", "args": {"error": "no such operator"}});
        assert!(
            told_step(&refused, &BTreeSet::new())
                .into_string()
                .contains("refused: no such operator")
        );
    }

    fn anything() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<f64>().prop_map(|n| json!(n)),
            "\\PC{0,9}".prop_map(|t| json!(t))
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            let key = prop::sample::select(vec![
                "op",
                "args",
                "frames",
                "hypothesis",
                "clips",
                "span",
                "p",
                "hash",
            ]);
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::vec((key, inner), 0..4)
                    .prop_map(|pairs| pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
            ]
        })
    }

    proptest! {
        #[test]
        fn no_step_panics(step in anything()) {
            let _ = told_step(&step, &BTreeSet::new());
            let _ = frames(&step, &step);
        }
    }
}
