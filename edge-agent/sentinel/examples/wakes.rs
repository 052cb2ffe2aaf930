//! How well the sentinel finds what it should and what that costs, on simulated scenes:
//! `cargo run --release -p sentinel --example wakes [FIRST_SEED] [SCENES] [MINUTES]
//! [often|sometimes|rare|none] [REFRACTORY_S]`.
//!
//! A story is found if a wake by saliency falls between the start of its transition and 20 s after
//! the transition's end. Patrols are off, since they find by the clock alone; the last column says
//! what wakes spread evenly, as many as the sentinel's, would have found.
#![allow(clippy::print_stdout)]

use hal_camera::{Luma, MediaTime};
use hal_sim::{HEIGHT, IncidentKind, Incidents, Scene, SceneSpec, Story, WIDTH};
use sentinel::{Sentinel, SentinelOptions};
use std::time::{Duration, Instant};

const FPS: u32 = 8;
const WINDOW_AFTER_S: f64 = 20.0;
/// Stories in which the sentinel still learns the place are not counted.
const WARM_UP_S: f64 = 20.0;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, or: f64| args.get(i).map_or(Ok(or), |a| a.parse());
    let (first, scenes) = (number(0, 300_000.0)? as u64, number(1, 20.0)? as u64);
    let minutes = number(2, 20.0)?;
    let incidents = match args.get(3).map(String::as_str) {
        None | Some("often") => Incidents::Often,
        Some("sometimes") => Incidents::Sometimes,
        Some("rare") => Incidents::Rare,
        Some("none") => Incidents::None,
        Some(other) => return Err(format!("'{other}': often, sometimes, rare or none").into()),
    };
    let defaults = SentinelOptions::default();
    let refractory_s = number(4, defaults.refractory_s)?;
    let options = SentinelOptions { patrol_s: None, refractory_s, ..defaults };

    let mut tally = Tally::default();
    for seed in first..first + scenes {
        let scene = Scene::new(SceneSpec { seed, incidents });
        let wakes = tally.watch(&scene, &options, minutes * 60.0);
        tally.count(&scene.stories(WARM_UP_S, minutes * 60.0), &wakes, minutes * 60.0);
    }
    tally.print(scenes as f64 * minutes / 60.0);
    Ok(())
}

#[derive(Default)]
struct Tally {
    stories: Vec<(Story, bool)>,
    wakes: usize,
    scored: u32,
    scoring: Duration,
}

impl Tally {
    /// The seconds at which the sentinel woke.
    fn watch(&mut self, scene: &Scene, options: &SentinelOptions, seconds: f64) -> Vec<f64> {
        let mut sentinel = Sentinel::new(options.clone());
        let mut luma = Luma { width: WIDTH, height: HEIGHT, pixels: vec![0; WIDTH * HEIGHT] };
        let mut wakes = Vec::new();
        for frame in 0..(seconds * f64::from(FPS)) as u32 {
            let at = MediaTime::from_s(f64::from(frame) / f64::from(FPS));
            let watched = if sentinel.wants_next() {
                scene.render(at.as_s(), &mut luma.pixels);
                let begin = Instant::now();
                let watched = sentinel.watch(&luma, at);
                self.scoring += begin.elapsed();
                self.scored += 1;
                watched
            } else {
                sentinel.pass(at)
            };
            wakes.extend(watched.wake.map(|wake| wake.at.as_s()));
        }
        self.wakes += wakes.len();
        wakes
    }

    fn count(&mut self, stories: &[Story], wakes: &[f64], seconds: f64) {
        for story in stories {
            let (from, to) = (story.transition_s.0, story.transition_s.1 + WINDOW_AFTER_S);
            if from >= WARM_UP_S && to <= seconds {
                let found = wakes.iter().any(|wake| (from..=to).contains(wake));
                self.stories.push((story.clone(), found));
            }
        }
    }

    fn print(&self, hours: f64) {
        let share = |of: &dyn Fn(&Story) -> bool| {
            let counted: Vec<bool> =
                self.stories.iter().filter(|(s, _)| of(s)).map(|(_, found)| *found).collect();
            let found = counted.iter().filter(|found| **found).count();
            (found as f64 / counted.len().max(1) as f64, counted.len())
        };
        for kind in IncidentKind::ALL {
            let (harmful, n) = share(&|s| s.kind == kind && s.harmful);
            let (twin, m) = share(&|s| s.kind == kind && !s.harmful);
            println!(
                "{:<14} {harmful:.2} of {n:3}   {:<14} {twin:.2} of {m:3}",
                kind.label(),
                kind.twin()
            );
        }
        let ((harmful, n), (all, m)) = (share(&|s| s.harmful), share(&|_| true));
        let an_hour = self.wakes as f64 / hours;
        let window = self
            .stories
            .iter()
            .map(|(s, _)| s.transition_s.1 + WINDOW_AFTER_S - s.transition_s.0)
            .sum::<f64>()
            / m.max(1) as f64;
        let evenly = (window * an_hour / 3600.0).min(1.0);
        println!("harmful stories found: {harmful:.3} of {n}; all stories: {all:.3} of {m}");
        println!("wakes an hour: {an_hour:.1}; spread evenly they would find {evenly:.3}");
        println!("a score: {:?}", self.scoring / self.scored.max(1));
    }
}
