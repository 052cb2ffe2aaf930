use super::picture::{PictureClip, Thumbnail};
use super::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A fall as the log holds it: glance, a look back, a closer look, the verdict.
pub(crate) fn event() -> Value {
    let frames = |times: &[f64]| -> Vec<Value> {
        times.iter().map(|t| json!({"id": format!("f{t}"), "t_s": t, "hash": "00"})).collect()
    };
    let believed = |span: [f64; 2], missing: &str| {
        json!({"clips": [{"span": span, "label": "fall",
        "p": 0.6, "evidence": [1], "missing": missing}], "video_p": 0.6})
    };
    json!({
        "id": "01hz0000abcdefgh", "kind": "incident", "camera": "platform 2", "level": "alert",
        "start": "2026-11-03T12:34:56.789Z", "clock": "ntp", "label": "fall", "score": 0.93,
        "sentence": "A person tips over near the left edge of the platform and stays on the ground.",
        "bundle": "nano@0.1.0+abcdef012345", "engine": "tract-cpu", "frames_used": 24,
        "stopped_by": "final",
        "trajectory": [
            {"step": 0, "op": "glance", "args": {"start": 0.0, "end": 122.0, "frames": 8,
                "held": [0.0, 122.0], "woken_at": 83.0, "normal": "", "budgets": {}},
             "frames": frames(&[15.0, 15.5, 45.5, 46.0, 76.0, 76.5, 106.5, 107.0]),
             "thought": "", "p": 0.41, "tokens": []},
            {"step": 1, "op": "backtrack", "args": {"anchor": 76.0, "span": 16.0, "frames": 8},
             "frames": frames(&[61.8, 62.3, 65.8, 66.3, 69.8, 70.3, 73.8, 74.3]),
             "thought": "someone lies on the ground at 76.0 and stood at 46.0; whether they lay \
                         down or fell is not seen, so what came right before has to be looked at",
             "hypothesis": believed([76.0, 107.0], "onset"), "p": 0.64, "tokens": [1, 2]},
            {"step": 2, "op": "sample", "args": {"start": 66.0, "end": 70.0, "frames": 8},
             "frames": frames(&[66.2, 66.7, 67.2, 67.7, 68.2, 68.7, 69.2, 69.7]),
             "thought": "standing at 66.3, down at 69.8: look at the seconds between",
             "hypothesis": believed([69.8, 107.0], "speed"), "p": 0.93, "tokens": [3]},
            {"step": 3, "op": "final", "args": {"clips": [{"start": 67.2, "end": 107.0,
                "label": "fall", "evidence": [1, 3]}], "verdict": "anomalous",
                "explanation": "A person tips over."},
             "frames": [], "thought": "tips over within half a second, arms not used: a fall",
             "p": 0.93, "tokens": [4, 5, 6]},
        ],
    })
}

/// Counts elements and checks that they are nested and closed: enough XML to trust the rest.
fn elements(svg: &str) -> Vec<String> {
    let (mut open, mut all) = (Vec::new(), Vec::new());
    for tag in svg.split('<').skip(1) {
        let (tag, text) = tag.split_once('>').expect("a tag ends");
        assert!(!text.contains('>'), "{text}");
        let name = tag.split([' ', '/']).find(|part| !part.is_empty()).expect("a tag has a name");
        if tag.starts_with('/') {
            assert_eq!(open.pop().as_deref(), Some(name));
            continue;
        }
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        all.push(name.to_owned());
        if !tag.ends_with('/') {
            open.push(name.to_owned());
        }
    }
    assert!(open.is_empty(), "{open:?}");
    all
}

fn count(svg: &str, name: &str) -> usize {
    elements(svg).iter().filter(|element| *element == name).count()
}

#[test]
fn an_event_becomes_steps_with_the_spans_that_they_looked_at() {
    let picture = InquiryPicture::from_event(&event()).unwrap();
    let spans: Vec<_> = picture.steps.iter().map(|step| step.span_s).collect();
    assert_eq!(spans, [Some((0.0, 122.0)), Some((60.0, 76.0)), Some((66.0, 70.0)), None]);
    assert_eq!(picture.woken_at_s, Some(83.0));
    assert_eq!(picture.clips.len(), 1);
    assert_eq!((picture.clips[0].span_s, picture.clips[0].score), ((67.2, 107.0), 0.93));
    assert_eq!(picture.place, "platform 2 · 2026-11-03 12:34:56 UTC");
}

#[test]
fn the_clips_of_an_inquiry_cut_short_are_those_last_believed_in() {
    let mut event = event();
    event["trajectory"].as_array_mut().unwrap().pop();
    let picture = InquiryPicture::from_event(&event).unwrap();
    assert_eq!(picture.clips[0].span_s, (69.8, 107.0));
}

#[test]
fn an_event_without_a_readable_trajectory_is_refused_in_a_sentence() {
    let say = |event: Value| InquiryPicture::from_event(&event).unwrap_err().to_string();
    let health = say(json!({"id": "x1", "kind": "health", "trajectory": null}));
    assert!(health.starts_with("event x1 is about the device itself"), "{health}");
    let other = say(json!({"id": "x1", "trajectory": [{"step": "one"}]}));
    assert!(other.starts_with("the trajectory of event x1 cannot be read ("), "{other}");
}

#[test]
fn the_picture_has_a_bar_for_every_look_and_a_tick_for_every_frame() {
    let picture = InquiryPicture::from_event(&event()).unwrap();
    let svg = inquiry_svg(&picture);
    elements(&svg);
    let bars = svg.lines().filter(|line| line.contains("fill-opacity=\"0.22\""));
    let ticks: Vec<usize> = bars.map(|bar| bar.matches('M').count()).collect();
    assert_eq!(ticks, [8, 8, 8]);
    assert_eq!(count(&svg, "circle"), 4);
    // Half of the axis of 122 s, from 136 to 668, is second 61.
    assert_eq!(TimeAxis::of(&picture).x(61.0), 402.0);
    assert!(svg.contains(">fall 0.93</text>"), "{svg}");
    assert!(!svg.contains("http") || svg.matches("http").count() == 1, "it refers to nothing");
}

#[test]
fn the_score_is_the_highest_of_the_clips_and_the_floor_elsewhere() {
    let mut picture = InquiryPicture { window_s: (0.0, 100.0), floor: 0.1, ..Default::default() };
    for (span_s, score) in [((10.0, 50.0), 0.4), ((40.0, 60.0), 0.8)] {
        picture.clips.push(PictureClip { span_s, label: "x".into(), score });
    }
    let time = TimeAxis::of(&picture);
    let curve: Vec<(f64, f32)> = score_steps(&picture, &time)
        .into_iter()
        .map(|(x, score)| (((x - 136.0) / 5.32).round(), score))
        .collect();
    assert_eq!(curve, [(10.0, 0.4), (40.0, 0.8), (50.0, 0.8), (60.0, 0.1)]);
}

#[test]
fn labels_of_clips_that_lie_together_do_not_cover_each_other() {
    let mut picture = InquiryPicture { window_s: (0.0, 100.0), ..Default::default() };
    for start in [50.0, 50.5, 51.0, 90.0] {
        let span_s = (start, start + 0.5);
        picture.clips.push(PictureClip { span_s, label: "abandoned bag".into(), score: 0.5 });
    }
    let rows: Vec<usize> =
        chips(&picture, &TimeAxis::of(&picture)).iter().map(|chip| chip.row).collect();
    assert_eq!(rows, [0, 1, 2, 0]);
}

#[test]
fn hostile_words_and_numbers_stay_text_on_the_page() {
    let evil = "</text><script>alert('\u{1}')</script> & \"\u{ffff}";
    let mut picture = InquiryPicture::from_event(&event()).unwrap();
    for text in [&mut picture.title, &mut picture.sentence, &mut picture.place, &mut picture.footer]
    {
        *text = evil.into();
    }
    picture.level = evil.into();
    picture.clips[0].label = evil.into();
    picture.clips[0].span_s = (f64::NAN, f64::INFINITY);
    picture.clips[0].score = f32::NAN;
    picture.truth_s = vec![(9e99, -9e99)];
    picture.woken_at_s = Some(f64::NAN);
    for step in &mut picture.steps {
        step.thought = evil.repeat(100);
        step.times_s = vec![f64::NEG_INFINITY, 1e300];
        step.p = f32::INFINITY;
    }
    picture.steps = picture.steps.iter().cycle().take(1000).cloned().collect();
    let svg = inquiry_svg(&picture);
    assert!(!elements(&svg).contains(&"script".to_owned()));
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    assert!(svg.contains("and 976 more steps"));
    assert!(svg.len() < 100_000, "{}", svg.len());
    elements(&inquiry_svg(&InquiryPicture::default()));
}

#[test]
fn thumbnails_are_inside_the_picture() {
    let mut picture = InquiryPicture::from_event(&event()).unwrap();
    picture.thumbnails = vec![Thumbnail { t_s: 67.2, jpeg: b"foobar".to_vec() }; 20];
    let svg = inquiry_svg(&picture);
    assert_eq!(count(&svg, "image"), 8);
    assert_eq!(svg.matches("href=\"data:image/jpeg;base64,Zm9vYmFy\"").count(), 8);
}

#[test]
fn the_frames_shown_are_mostly_those_of_the_clips_in_order_of_time() {
    let event = event();
    let mut picture = InquiryPicture::from_event(&event).unwrap();
    let steps = event_steps(&event).unwrap();
    let jpegs = steps.iter().flat_map(|step| &step.frames).filter(|frame| frame.id != "f15");
    let jpegs: BTreeMap<_, _> =
        jpegs.map(|frame| (frame.id.clone(), frame.id.clone().into_bytes())).collect();
    picture.show_frames(&steps, &jpegs);
    let times: Vec<f64> = picture.thumbnails.iter().map(|frame| frame.t_s).collect();
    assert!(times.is_sorted() && times.len() == 8, "{times:?}");
    let inside = times.iter().filter(|t| (67.2..107.0).contains(*t)).count();
    assert_eq!(inside, 6, "{times:?}");
    assert!(picture.thumbnails.iter().all(|f| f.jpeg == format!("f{}", f.t_s).into_bytes()));
    picture.show_frames(&steps, &BTreeMap::new());
    assert!(picture.thumbnails.is_empty());
}

/// `LOOKBACK_DRAW_TO=DIR cargo test` writes the pictures for a person to look at.
#[test]
fn pictures_can_be_looked_at() {
    let Ok(dir) = std::env::var("LOOKBACK_DRAW_TO") else { return };
    let mut picture = InquiryPicture::from_event(&event()).unwrap();
    let write = |name: &str, picture: &InquiryPicture| {
        std::fs::write(format!("{dir}/{name}.svg"), inquiry_svg(picture)).unwrap();
    };
    write("plain", &picture);
    picture.truth_s = vec![(66.9, 105.0)];
    picture.thumbnails = [46.0, 66.2, 67.2, 67.7, 69.8, 106.5]
        .map(|t_s| {
            let pixels = (0..192 * 128).map(|i| ((i % 192) as f64 + t_s) as u8).collect();
            let luma = hal_camera::Luma { width: 192, height: 128, pixels };
            Thumbnail { t_s, jpeg: hal_camera::encode_luma_jpeg(&luma, 80) }
        })
        .to_vec();
    let refused = PictureStep {
        operator: StepOperator::Invalid,
        span_s: None,
        times_s: vec![],
        thought: "the span is empty: start must be before end, and the span longer than \
                  0.1 s"
            .into(),
        p: 0.7,
    };
    let expand = PictureStep {
        operator: StepOperator::Expand,
        span_s: Some((58.0, 74.0)),
        times_s: vec![60.0, 60.5, 64.0, 64.5, 68.0, 68.5, 72.0, 72.5],
        thought: "who else is there?".into(),
        p: 0.2,
    };
    picture.steps.insert(2, refused);
    picture.steps.insert(3, expand);
    let short = PictureClip { span_s: (20.0, 21.5), label: "abandoned bag".into(), score: 0.55 };
    picture.clips.insert(0, short);
    write("full", &picture);
}
