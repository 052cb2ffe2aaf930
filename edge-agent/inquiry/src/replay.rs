//! Running a recorded inquiry again from its pinned evidence.

use crate::{Evidence, Inquirer};
use frame_store::{FrameId, StoredFrame};
use hal_camera::MediaTime;
use policy::{Outcome, Setup, Step};

/// What a replay found.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Replay {
    /// Whether every step reached the same tokens.
    pub same: bool,
    /// The first step that differs.
    pub differs_at: Option<u32>,
    /// Steps replayed.
    pub steps: usize,
    /// Tokens compared.
    pub tokens: usize,
    /// P(anomalous) then and now.
    pub p: [f32; 2],
    /// The outcome now.
    pub outcome: Outcome,
}

/// Why an inquiry could not be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The trajectory is not one that this agent wrote.
    #[error("the recorded trajectory cannot be read: {0}")]
    Trajectory(String),
    /// A frame that the trajectory cites is not in the evidence.
    #[error("the evidence lacks frame {0}")]
    MissingFrame(String),
    /// A frame of the evidence is not the one that was seen.
    #[error("evidence frame {id} has hash {now}, the trajectory cites {then}: it was changed")]
    Changed {
        /// The frame.
        id: String,
        /// Hash in the trajectory.
        then: String,
        /// Hash of the evidence.
        now: String,
    },
    /// The trajectory was made by another policy.
    #[error("the event was decided by bundle {then}, loaded is {now}: give that bundle")]
    OtherBundle {
        /// Bundle of the event.
        then: String,
        /// Bundle loaded.
        now: String,
    },
}

/// Runs the inquiry of `steps` again on `evidence` and compares every token.
///
/// # Errors
/// [`ReplayError`] if evidence or trajectory are not what they were.
pub fn replay(
    inquirer: &mut Inquirer,
    steps: &[Step],
    bundle: &str,
    evidence: Vec<StoredFrame>,
) -> Result<Replay, ReplayError> {
    if bundle != inquirer.bundle_id() {
        let (then, now) = (bundle.to_owned(), inquirer.bundle_id().to_owned());
        return Err(ReplayError::OtherBundle { then, now });
    }
    let evidence = Evidence::new(evidence);
    let origin = check(steps, &evidence)?;
    let setup = recorded_setup(inquirer.setup().clone(), steps)?;
    let again = inquirer.run(&evidence, setup, origin).outcome;
    let differs_at = steps
        .iter()
        .zip(&again.trajectory)
        .find(|(then, now)| then.tokens != now.tokens || then.op != now.op)
        .map(|(then, _)| then.step)
        .or_else(|| (steps.len() != again.trajectory.len()).then_some(steps.len() as u32));
    Ok(Replay {
        same: differs_at.is_none(),
        differs_at,
        steps: again.trajectory.len(),
        tokens: again.trajectory.iter().map(|s| s.tokens.len()).sum(),
        p: [steps.last().map_or(0.5, |s| s.p), again.p],
        outcome: again,
    })
}

/// Every cited frame must be there with its hash. Returns where second 0 of the stretch lies.
fn check(steps: &[Step], evidence: &Evidence) -> Result<MediaTime, ReplayError> {
    let mut origin = None;
    for seen in steps.iter().flat_map(|s| &s.frames) {
        let missing = || ReplayError::MissingFrame(seen.id.clone());
        let id: FrameId = seen.id.parse().map_err(|_| missing())?;
        let stored = evidence.frame(id).ok_or_else(missing)?;
        let (then, now) = (seen.hash.clone(), stored.hash.to_string());
        if then != now {
            return Err(ReplayError::Changed { id: seen.id.clone(), then, now });
        }
        origin.get_or_insert(stored.frame.media_time.plus_s(-seen.t_s));
    }
    origin.ok_or_else(|| ReplayError::Trajectory("it cites no frames".into()))
}

fn recorded_setup(setup: Setup, steps: &[Step]) -> Result<Setup, ReplayError> {
    let first = steps.first().ok_or_else(|| ReplayError::Trajectory("it is empty".into()))?;
    #[derive(serde::Deserialize)]
    struct Glance {
        start: f64,
        end: f64,
        frames: u32,
        held: (f64, f64),
        woken_at: Option<f64>,
        normal: String,
        budgets: policy::Budgets,
    }
    let glance: Glance = serde_json::from_value(first.args.clone())
        .map_err(|e| ReplayError::Trajectory(format!("its glance says {}: {e}", first.args)))?;
    Ok(Setup {
        window: (glance.start, glance.end),
        held: glance.held,
        woken_at: glance.woken_at,
        normal: glance.normal,
        glance_frames: glance.frames,
        // Time must not end a replay on a slower machine.
        budgets: policy::Budgets { wall_ms: u64::MAX, ..glance.budgets },
        ..setup
    })
}
