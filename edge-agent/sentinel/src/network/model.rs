//! The network in its `.tflite` file, trusted only once it has answered as it should.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};
use tract_core::prelude::*;

/// Sides of what it sees, in pixels, and values of each pixel.
pub(crate) const WIDTH: usize = 96;
pub(crate) const HEIGHT: usize = 64;
pub(crate) const CHANNELS: usize = 9;
/// What it answers: for each of 12 by 8 cells the logit of each kind's harmful transition, then of
/// each kind's harmless one.
const CELLS: usize = 12 * 8;
const KINDS: usize = 10;
const ANSWER: usize = CELLS * 2 * KINDS;

/// The file and its golden answers, written by `lookback-train sentinel`.
static MODEL: &[u8] = include_bytes!("../../model/gate.tflite");
static GOLDEN: &[u8] = include_bytes!("../../model/golden.f32");
/// Sides, in pixels, of the squares of one value in each golden input: fine grain, and what is as
/// large as a person.
const GOLDEN_SQUARES: [usize; 3] = [1, 4, 16];
/// How far an answer may be from its golden one. Orders of summation differ by 1e-4 at most, and a
/// hundredth of a logit changes no wake; a wrong operator is off by whole logits.
const TOLERANCE: f32 = 0.01;

/// Why a network must not decide.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The file is damaged, or holds what tract cannot run.
    #[error("the sentinel's network cannot be read ({reason})")]
    Unreadable {
        /// tract's words.
        reason: String,
    },
    /// It takes or gives something else than the gate was written for.
    #[error("the sentinel's network has an answer of {found} values instead of {ANSWER}")]
    Shape {
        /// The number of values.
        found: usize,
    },
    /// The stored answers are cut or damaged.
    #[error("the golden answers of the sentinel's network are damaged")]
    Golden,
    /// It computes something else than where it was trained.
    #[error(
        "the sentinel's network answers golden input {number} wrongly by {off}: this processor or \
         this build computes something else"
    )]
    Wrong {
        /// Of the golden input.
        number: usize,
        /// The first difference that is too large, in logits.
        off: f32,
    },
}

/// The network, ready to run; shared by the gates of all cameras.
#[derive(Debug)]
pub struct Network {
    plan: Arc<TypedSimplePlan>,
}

impl Network {
    /// The network that the agent carries.
    ///
    /// # Errors
    /// If it is damaged, or does not answer on this machine as it did where it was trained.
    pub fn built_in() -> Result<Arc<Self>, NetworkError> {
        Self::load(MODEL, GOLDEN).map(Arc::new)
    }

    /// The network in a `.tflite` file, and the answers that it must give to the golden inputs.
    fn load(file: &[u8], golden: &[u8]) -> Result<Self, NetworkError> {
        let network = Self::read(file)?;
        let golden: Vec<f32> =
            golden.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        if golden.len() != ANSWER * GOLDEN_SQUARES.len() {
            return Err(NetworkError::Golden);
        }
        for (number, expected) in golden.chunks_exact(ANSWER).enumerate() {
            let found = network.answer(&golden_input(number))?;
            let mut off = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
            // What is no number is off, too.
            if let Some(off) = off.find(|off| off.is_nan() || *off > TOLERANCE) {
                return Err(NetworkError::Wrong { number, off });
            }
        }
        Ok(network)
    }

    fn read(file: &[u8]) -> Result<Self, NetworkError> {
        let read = || {
            tract_tflite::tflite()
                .model_for_read(&mut &*file)?
                .into_optimized()
                .and_then(TypedSimplePlan::new)
        };
        // The tables of a damaged file can be sound and their numbers not: tract asserts some.
        let plan = catch_unwind(AssertUnwindSafe(read))
            .map_err(|_| NetworkError::Unreadable { reason: "its numbers are damaged".into() })?
            .map_err(unreadable)?;
        Ok(Self { plan })
    }

    /// The logit of any harmful transition anywhere in the picture. `planes` are [`CHANNELS`] values
    /// of each pixel, row by row.
    pub(crate) fn harm(&self, planes: &[f32]) -> Result<f32, NetworkError> {
        let answer = self.answer(planes)?;
        let harmful = || answer.chunks_exact(2 * KINDS).flat_map(|cell| &cell[..KINDS]);
        // ln Σ exp, about the largest so that nothing overflows.
        let largest = harmful().copied().fold(f32::MIN, f32::max);
        Ok(largest + harmful().map(|logit| (logit - largest).exp()).sum::<f32>().ln())
    }

    fn answer(&self, planes: &[f32]) -> Result<Vec<f32>, NetworkError> {
        let run = || {
            let planes = Tensor::from_shape(&[1, HEIGHT, WIDTH, CHANNELS], planes)?;
            let answer = self.plan.run(tvec![planes.into_tvalue()])?;
            Ok(answer[0].to_plain_array_view::<f32>()?.iter().copied().collect())
        };
        let answer: Vec<f32> = run().map_err(unreadable)?;
        match answer.len() {
            ANSWER => Ok(answer),
            found => Err(NetworkError::Shape { found }),
        }
    }

    /// What it is, for logs and reports.
    pub(crate) fn describe(&self) -> String {
        format!("network of {WIDTH}x{HEIGHT} pixels over 3 s, golden answers right")
    }
}

fn unreadable(error: TractError) -> NetworkError {
    NetworkError::Unreadable { reason: format!("{error:#}") }
}

/// Golden input `number`: squares of [`GOLDEN_SQUARES`] pixels, each channel of each from -2 to 2 by
/// a linear congruence, the same as in the trainer.
fn golden_input(number: usize) -> Vec<f32> {
    let side = GOLDEN_SQUARES[number];
    let mut x = number as u32 + 1;
    let mut draw = || {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // 24 bits: exact in 32-bit floats.
        (x >> 8) as f32 / (1 << 22) as f32 - 2.0
    };
    let squares: Vec<f32> =
        (0..HEIGHT / side * (WIDTH / side) * CHANNELS).map(|_| draw()).collect();
    let value = |i: usize| {
        let (pixel, channel) = (i / CHANNELS, i % CHANNELS);
        let square = pixel / WIDTH / side * (WIDTH / side) + pixel % WIDTH / side;
        squares[square * CHANNELS + channel]
    };
    (0..HEIGHT * WIDTH * CHANNELS).map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_that_is_built_in_answers_as_where_it_was_trained() {
        Network::built_in().unwrap();
    }

    #[test]
    fn a_cut_file_is_refused_with_a_sentence() {
        for length in [0, 4, 100, MODEL.len() / 2, MODEL.len() - 4] {
            let error = Network::load(&MODEL[..length], GOLDEN).unwrap_err();
            assert!(error.to_string().contains("cannot be read"), "{length}: {error}");
        }
        for golden in [&GOLDEN[..0], &GOLDEN[4..]] {
            let error = Network::load(MODEL, golden).unwrap_err();
            assert!(matches!(error, NetworkError::Golden), "{error}");
        }
    }

    #[test]
    fn weights_that_changed_are_found_by_the_golden_answers() {
        // Weights lie anywhere in the file; an exponent that flips changes what is computed.
        let mut refused = 0;
        for place in (1..20).map(|i| i * MODEL.len() / 20) {
            let mut file = MODEL.to_vec();
            for byte in &mut file[place..][..64] {
                *byte ^= 0x45;
            }
            refused += u32::from(Network::load(&file, GOLDEN).is_err());
        }
        assert_eq!(refused, 19);
    }

    #[test]
    fn golden_answers_of_another_network_or_no_number_refuse_it() {
        let mut other = GOLDEN.to_vec();
        other[ANSWER * 4..][..4].copy_from_slice(&1.5_f32.to_le_bytes());
        let error = Network::load(MODEL, &other).unwrap_err();
        assert!(matches!(error, NetworkError::Wrong { number: 1, .. }), "{error}");
        other[ANSWER * 4..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
        assert!(Network::load(MODEL, &other).is_err());
    }
}
