//! From a manifest to what the inquiry's state machine needs.

use crate::Manifest;
use policy::{Budgets, Limits, Setup, Vocabulary};

/// No bundle may ask for more frames in one look, whatever its manifest says.
const FRAMES_PER_LOOK: u32 = 16;

impl Manifest {
    /// The inquiry of this policy about `[0, look_back_s]` seconds, not woken; the caller sets the
    /// window, what the store holds, and what is normal here.
    pub fn setup(&self) -> Setup {
        let window = (0.0, self.inquiry.look_back_s);
        let usual = Budgets::default();
        Setup {
            window,
            held: window,
            woken_at: None,
            system: self.prompts.system.clone(),
            question: self.prompts.question.clone(),
            normal: String::new(),
            tell_budget: self.inquiry.tell_budget,
            glance_frames: self.inquiry.glance_frames as u32,
            limits: Limits {
                frames_per_look: FRAMES_PER_LOOK,
                frames_default: self.inquiry.frames_per_operator as u32,
                pair_lag_s: self.geometry.pair_lag_s,
                pair_step_s: self.geometry.pair_step_s,
            },
            budgets: Budgets {
                turns: self.inquiry.max_turns as u32,
                frames: self.inquiry.max_frames as u32,
                tokens: (self.inquiry.max_tokens * self.inquiry.max_turns) as u32,
                wall_ms: self.inquiry.max_wall_s.map_or(usual.wall_ms, |s| (s * 1e3) as u64),
            },
        }
    }

    /// What a turn of this policy may name.
    pub fn vocabulary(&self) -> Vocabulary {
        Vocabulary { labels: self.labels.iter().map(|l| l.name.clone()).collect() }
    }
}
