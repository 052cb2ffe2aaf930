//! Tiles frames of stories around their transitions, so that a person can look at them.
//!
//! `cargo run --release -p hal-sim --example contact_sheet KIND OUT.pgm [FIRST_SEED]`
//!
//! KIND is a label such as `fall` or `abandoned bag`. Three rows of the incident, then three of its
//! harmless twin; each row from three seconds before the transition to the middle of the state.
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use hal_sim::{HEIGHT, IncidentKind, Incidents, Scene, SceneSpec, Story, WIDTH};
use std::io::Write;

const COLUMNS: usize = 8;
const ROWS_EACH: usize = 3;
const GAP: usize = 2;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(label), Some(path)) = (arguments.next(), arguments.next()) else {
        return Err("usage: contact_sheet KIND OUT.pgm [FIRST_SEED]".into());
    };
    let first_seed: u64 = arguments.next().map_or(Ok(1000), |seed| seed.parse())?;
    let kind = IncidentKind::ALL.into_iter().find(|kind| kind.label() == label);
    let kind = kind.ok_or_else(|| {
        let labels = IncidentKind::ALL.map(IncidentKind::label).join(", ");
        format!("'{label}' is no kind of incident: {labels}")
    })?;

    let (width, height) = (COLUMNS * (WIDTH + GAP), 2 * ROWS_EACH * (HEIGHT + GAP));
    let mut sheet = vec![255; width * height];
    let mut picture = vec![0; WIDTH * HEIGHT];
    let found = [true, false].into_iter().flat_map(|harmful| find(kind, harmful, first_seed));
    for (row, (scene, story)) in found.enumerate() {
        println!(
            "row {row}: seed {}, {:?}, {:.1} to {:.1} to {:.1} s: {}",
            scene.spec().seed,
            scene.family(),
            story.transition_s.0,
            story.state_s.0,
            story.state_s.1,
            story.text
        );
        for (column, t) in times(&story).into_iter().enumerate() {
            scene.render(t, &mut picture);
            let corner = row * (HEIGHT + GAP) * width + column * (WIDTH + GAP);
            for (y, line) in picture.chunks(WIDTH).enumerate() {
                sheet[corner + y * width..][..WIDTH].copy_from_slice(line);
            }
        }
    }
    let mut file = std::fs::File::create(path)?;
    write!(file, "P5\n{width} {height}\n255\n")?;
    file.write_all(&sheet)?;
    Ok(())
}

/// One story of each of the next few seeds.
fn find(kind: IncidentKind, harmful: bool, first_seed: u64) -> Vec<(Scene, Story)> {
    (first_seed..)
        .filter_map(|seed| {
            let scene = Scene::new(SceneSpec { seed, incidents: Incidents::Often });
            let stories = scene.stories(100.0, 3000.0);
            let story = stories.into_iter().find(|s| s.kind == kind && s.harmful == harmful)?;
            Some((scene, story))
        })
        .take(ROWS_EACH)
        .collect()
}

/// Before, five within the transition and at its end, and the middle of the state.
fn times(story: &Story) -> [f64; COLUMNS] {
    let (start, end) = story.transition_s;
    let within = |share: f64| start + (end - start) * share;
    let state = (story.state_s.0 + story.state_s.1) / 2.0;
    [start - 3.0, start, within(0.25), within(0.5), within(0.75), end, end + 1.0, state]
}
