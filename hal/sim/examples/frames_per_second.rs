//! Measures how fast scenes are rendered on one core, in the order a trainer asks for them.
//!
//! `cargo run --release -p hal-sim --example frames_per_second`
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use hal_sim::{HEIGHT, Incidents, Scene, SceneSpec, WIDTH};
use std::time::Instant;

fn main() {
    let mut picture = vec![0; WIDTH * HEIGHT];
    let spec = |seed| SceneSpec { seed, incidents: Incidents::Often };

    let begun = Instant::now();
    let scenes: Vec<Scene> = (0..40).map(|i| Scene::new(spec(9001 + i * 150_000))).collect();
    let build_ms = begun.elapsed().as_secs_f64() * 1e3 / scenes.len() as f64;

    // Stretches of 30 frames, the fastest of seven each: on a shared machine the others measure the
    // neighbours.
    let (mut frames, mut seconds) = (0, 0.0);
    for scene in &scenes {
        for stretch in 0..8 {
            let once = || {
                let begun = Instant::now();
                for i in 0..30 {
                    scene.render(300.0 + f64::from(stretch * 30 + i) * 0.5, &mut picture);
                }
                begun.elapsed().as_secs_f64()
            };
            seconds += std::iter::repeat_with(once).take(7).fold(f64::MAX, f64::min);
            frames += 30;
        }
    }
    println!(
        "{:.0} frames/s ({:.1} µs a frame); a scene takes {build_ms:.2} ms to build",
        f64::from(frames) / seconds,
        seconds * 1e6 / f64::from(frames),
    );
}
