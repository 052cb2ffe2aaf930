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

    // The fastest of five: on a shared machine the others measure the neighbours.
    let frames = scenes.len() * 240;
    let mut best_s = f64::MAX;
    for _ in 0..5 {
        let begun = Instant::now();
        for scene in &scenes {
            for i in 0..240 {
                scene.render(300.0 + f64::from(i) * 0.5, &mut picture);
            }
        }
        best_s = best_s.min(begun.elapsed().as_secs_f64());
    }
    println!(
        "{:.0} frames/s ({:.1} µs a frame); a scene takes {build_ms:.2} ms to build",
        frames as f64 / best_s,
        best_s * 1e6 / frames as f64,
    );
}
