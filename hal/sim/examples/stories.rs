//! What happens in a scene: `cargo run --release -p hal-sim --example stories -- SEED FROM_S TO_S`
//! prints the stories of that stretch, one a line.

use hal_sim::{Incidents, Scene, SceneSpec};
use std::{
    io::{self, Write},
    process::ExitCode,
};

fn main() -> ExitCode {
    let numbers: Vec<f64> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let [seed, from_s, to_s] = numbers[..] else {
        eprintln!("usage: stories SEED FROM_S TO_S, three numbers");
        return ExitCode::FAILURE;
    };
    let scene = Scene::new(SceneSpec { seed: seed as u64, incidents: Incidents::Often });
    for story in scene.stories(from_s, to_s) {
        let (begins, ends) = story.span_s();
        let word = if story.harmful { "harmful" } else { "harmless" };
        let (label, text) = (story.kind.label(), &story.text);
        let line = format!("{begins:.1}–{ends:.1} s {label} ({word}): {text}");
        if writeln!(io::stdout(), "{line}").is_err() {
            break;
        }
    }
    ExitCode::SUCCESS
}
