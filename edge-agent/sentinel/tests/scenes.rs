//! The sentinel on simulated scenes: it finds most of what leaves a trace, at a cost far from
//! waking all the time. The figures on many scenes come from the example `wakes`.

use hal_camera::{ClockQuality, Encoding, Frame, MediaTime, WallTime, decode_luma_scaled};
use hal_sim::{HEIGHT, IncidentKind, Incidents, Scene, SceneSpec, WIDTH};
use sentinel::{Sentinel, SentinelOptions, WakeReason};

const SECONDS: f64 = 300.0;

/// Seconds at which the sentinel woke because of what it saw, four frames a second.
fn wakes(scene: &Scene, options: &SentinelOptions) -> Vec<f64> {
    let mut sentinel = Sentinel::new(SentinelOptions { every_nth: 1, ..options.clone() });
    let mut frame = Frame {
        media_time: MediaTime(0),
        wall_time: WallTime { unix_us: 0, quality: ClockQuality::Unsynced },
        width: WIDTH as u16,
        height: HEIGHT as u16,
        encoding: Encoding::Grey,
        bytes: vec![0; WIDTH * HEIGHT],
    };
    (0..(SECONDS * 4.0) as u32)
        .filter_map(|number| {
            let at = MediaTime::from_s(f64::from(number) / 4.0);
            scene.render(at.as_s(), &mut frame.bytes);
            // As the agent does.
            let luma = decode_luma_scaled(&frame, sentinel.least_size()).unwrap();
            sentinel.watch(&luma, at).wake
        })
        .filter(|wake| wake.reason == WakeReason::Saliency)
        .map(|wake| wake.at.as_s())
        .collect()
}

#[test]
fn most_stories_that_leave_a_trace_wake_the_sentinel_soon_after() {
    let (mut found, mut stories, mut woken) = (0, 0, 0);
    for seed in 500_000..500_005 {
        let scene = Scene::new(SceneSpec { seed, incidents: Incidents::Often });
        let wakes = wakes(&scene, &SentinelOptions::default());
        woken += wakes.len();
        for story in scene.stories(20.0, SECONDS - 25.0) {
            let (from, to) = (story.transition_s.0, story.transition_s.1 + 20.0);
            // A bag that is gone is too small a trace: those stories are the patrols'.
            if from >= 20.0 && to <= SECONDS && story.kind != IncidentKind::Theft {
                stories += 1;
                found += usize::from(wakes.iter().any(|wake| (from..=to).contains(wake)));
            }
        }
    }
    assert!(stories >= 12, "{stories} stories are too few to judge by");
    assert!(found * 5 >= stories * 4, "{found} of {stories} found");
    // All the time would be one in ten seconds, the refractory time: 150.
    assert!(woken <= 90, "{woken} wakes in 25 minutes");
}
