//! Golden outputs: what a policy was seen to compute where it was packed.
//!
//! The inputs are the same for every policy, a drawn pair of frames between the policy's own prompts, so
//! that only outputs have to be kept. A bundle whose hashes are right and whose outputs are others is
//! run by something that is broken.

use crate::{Engine, EngineError, PairInput, PairKey, Piece};
use bundle::{Bundle, GOLDEN, Manifest};
use hal_camera::Luma;
use serde::{Deserialize, Serialize};

/// Numbers that are kept of a tensor.
const KEPT: usize = 64;
/// Tokens that are kept.
const TOKENS: usize = 8;
/// Below this cosine the numbers are others; a sum in another order stays far above.
const ALIKE: f64 = 0.999;
/// What is longer or shorter by more than this share is something else, too, which a cosine does not tell.
const STRETCHED: f64 = 0.05;

/// What a policy computes for the golden inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    /// Of the visual tokens and each DeepStack feature, numbers at equal distances.
    sight: Vec<Vec<f32>>,
    /// Of the logits after the prompts, numbers at equal distances.
    logits: Vec<f32>,
    /// The tokens that follow, the most probable each time.
    tokens: Vec<u32>,
}

impl Golden {
    /// What `engine` computes.
    ///
    /// # Errors
    /// If it fails.
    pub fn of(engine: &Engine) -> Result<Self, EngineError> {
        let manifest = engine.manifest();
        let [earlier, later] = drawn_pair(manifest, 0);
        // A key that no stored frame has.
        let pair = PairInput { key: PairKey(u64::MAX, u64::MAX), frames: [&earlier, &later] };
        let seen = engine.encode(&[pair])?.remove(0);
        let mut session = engine.start("")?;
        let prompts = &manifest.prompts;
        session.feed(&[Piece::Text(&prompts.system), Piece::Pair(&seen)])?;
        session.feed(&[Piece::Text(&prompts.question)])?;
        let logits = kept(session.logits()?);
        let mut tokens = Vec::new();
        for _ in 0..TOKENS {
            let found = session.logits()?.iter().enumerate();
            let best = found.max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(token, _)| token as u32);
            tokens.push(best);
            session.feed_tokens(&[best])?;
        }
        let sight = std::iter::once(&seen.tokens).chain(&seen.deepstack);
        Ok(Self { sight: sight.map(|numbers| kept(numbers)).collect(), logits, tokens })
    }

    /// Holds `engine`, loaded from `bundle`, to what the bundle says that it computes. Returns whether it says
    /// anything.
    ///
    /// # Errors
    /// [`EngineError::Golden`] if it computes something else, [`EngineError::GoldenPart`] if what it should compute
    /// cannot be read.
    pub fn hold(bundle: &Bundle, engine: &Engine) -> Result<bool, EngineError> {
        if !bundle.manifest.parts.contains_key(GOLDEN) {
            return Ok(false);
        }
        let golden: Self = serde_json::from_slice(&bundle.read(GOLDEN)?)
            .map_err(|error| EngineError::GoldenPart { reason: error.to_string() })?;
        golden.check(&Self::of(engine)?).map_err(|reason| EngineError::Golden { reason })?;
        Ok(true)
    }

    /// Compares with what was `found` here.
    ///
    /// # Errors
    /// A clause that says what differs.
    pub fn check(&self, found: &Self) -> Result<(), String> {
        if self.sight.len() != found.sight.len() {
            return Err("it has another number of DeepStack features".into());
        }
        for (number, (then, now)) in self.sight.iter().zip(&found.sight).enumerate() {
            if !alike(then, now) {
                return Err(match number {
                    0 => "its visual tokens are others".into(),
                    n => format!("its DeepStack feature {n} is another"),
                });
            }
        }
        if !alike(&self.logits, &found.logits) {
            return Err("its logits are others".into());
        }
        if self.tokens != found.tokens {
            return Err(format!("it says {:?} where it said {:?}", found.tokens, self.tokens));
        }
        Ok(())
    }
}

/// Two frames of the policy's own size: the golden ones for number 0, others for others.
pub(crate) fn drawn_pair(manifest: &Manifest, number: usize) -> [Luma; 2] {
    let (width, height) = (manifest.geometry.width, manifest.geometry.height);
    [2 * number, 2 * number + 1].map(|frame| {
        let pixel = |i: usize| ((frame * width * height + i) * 7 % 251) as u8;
        Luma { width, height, pixels: (0..width * height).map(pixel).collect() }
    })
}

fn kept(numbers: &[f32]) -> Vec<f32> {
    let count = numbers.len().min(KEPT);
    (0..count).map(|i| numbers[i * numbers.len() / count]).collect()
}

/// Whether two lists of numbers are the same but for rounding.
pub(crate) fn alike(a: &[f32], b: &[f32]) -> bool {
    // Zeros have no cosine. The comparison is false for what is no number.
    a == b || (cosine(a, b) >= ALIKE && (length(a) / length(b) - 1.0).abs() <= STRETCHED)
}

/// Euclidean length of a vector.
pub(crate) fn length(a: &[f32]) -> f64 {
    dot(a, a).sqrt()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// Cosine of the angle between two vectors of one length, -1 to 1; NaN if one is all zeros or the
/// lengths differ.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    if a.len() != b.len() {
        return f64::NAN;
    }
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden() -> Golden {
        Golden {
            sight: vec![vec![1.0, -2.0, 3.0], vec![0.5, 0.25, -1.0]],
            logits: vec![4.0, -4.0, 1.0],
            tokens: vec![7, 8],
        }
    }

    #[test]
    fn rounding_is_no_difference_and_everything_else_is_one_that_is_named() {
        let mut found = golden();
        found.logits[0] += 1e-3;
        assert_eq!(golden().check(&found), Ok(()));
        let differs = |change: &dyn Fn(&mut Golden)| {
            let mut found = golden();
            change(&mut found);
            golden().check(&found).unwrap_err()
        };
        assert!(differs(&|g| g.sight[0][1] = 2.0).contains("visual tokens"));
        assert!(differs(&|g| g.sight[1] = vec![f32::NAN; 3]).contains("feature 1"));
        assert!(differs(&|g| _ = g.sight.pop()).contains("number of DeepStack"));
        assert!(differs(&|g| g.logits[2] = -9.0).contains("logits"));
        assert!(differs(&|g| g.logits = vec![0.0; 3]).contains("logits"));
        assert!(differs(&|g| g.tokens[1] = 9).contains("[7, 9]"));
    }

    #[test]
    fn numbers_are_kept_from_all_over_a_tensor() {
        let all: Vec<f32> = (0..640).map(|i| i as f32).collect();
        let kept = kept(&all);
        assert_eq!((kept.len(), kept[0], kept[63]), (64, 0.0, 630.0));
        assert_eq!(super::kept(&[1.0, 2.0]), [1.0, 2.0]);
    }
}
