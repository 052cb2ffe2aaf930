//! The simulated camera: procedural surveillance scenes with ground truth, any moment at random.
//!
//! A [`Scene`] is an endless world decided by a seed. Ten kinds of incident happen in it, each with
//! a harmless twin that leaves the same state behind ([`IncidentKind`]): a person lying on the
//! ground fell, or lay down; only the second or two before tell. A [`SimCamera`] delivers a scene as
//! frames at a pace.
//!
//! From what is decided once to what is made for each frame:
//! `split` (family of a seed) → `layout`, `backdrop`, `lens` (the place) → `plan` (which story in
//! which minute) → `stories`, `traffic` (scripts for actors) → `draw`, `raster` (pixels) → `lens`,
//! `dct` (light, noise, compression); `truth` reads the same scripts.
#![forbid(unsafe_code)]

mod actor;
mod backdrop;
mod camera;
mod dct;
mod draw;
mod incident;
mod layout;
mod lens;
mod pace;
mod plan;
mod raster;
mod rng;
mod scene;
mod spec;
mod split;
mod stories;
mod traffic;
mod truth;

pub use camera::SimCamera;
pub use incident::{Class, FrameTruth, IncidentKind, Seen, Story};
pub use scene::{Incidents, Scene, SceneSpec};
pub use split::{Family, Split, split_of};

/// Width of a scene's picture in pixels.
pub const WIDTH: usize = 192;
/// Height of a scene's picture in pixels.
pub const HEIGHT: usize = 128;
