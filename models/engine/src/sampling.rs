//! Choosing the next token among those that the grammar allows.

use llguidance::toktrie::SimpleVob;

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Sampling {
    /// The most probable one; of equals the lowest.
    #[default]
    Greedy,
    /// By probability, after the logits were divided by `t`. The same seed gives the same tokens.
    Temperature {
        /// Above 0; 1 leaves the probabilities as they are.
        t: f32,
        /// Seed of the generator.
        seed: u64,
    },
}

/// A [`Sampling`] at work: remembers where its generator stands.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    sampling: Sampling,
    state: u64,
}

impl Choice {
    pub fn new(sampling: Sampling) -> Self {
        let state = if let Sampling::Temperature { seed, .. } = sampling { seed } else { 0 };
        Self { sampling, state }
    }

    /// One of the tokens in `allowed`, which must not be empty.
    pub fn choose(&mut self, logits: &[f32], allowed: &SimpleVob) -> u32 {
        let best = allowed
            .iter()
            .reduce(|a, b| if logits[b as usize] > logits[a as usize] { b } else { a })
            .unwrap_or_default();
        let Sampling::Temperature { t, .. } = self.sampling else { return best };
        let highest = logits[best as usize];
        let weight = |token: u32| f64::from((logits[token as usize] - highest) / t).exp();
        let mut left = self.uniform() * allowed.iter().map(weight).sum::<f64>();
        for token in allowed.iter() {
            left -= weight(token);
            if left < 0.0 {
                return token;
            }
        }
        best
    }

    /// The next number in [0, 1), by SplitMix64.
    fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(tokens: &[u32]) -> SimpleVob {
        let mut mask = SimpleVob::alloc(8);
        tokens.iter().for_each(|&token| mask.allow_token(token));
        mask
    }

    #[test]
    fn greedy_takes_the_best_allowed_token_and_of_equals_the_lowest() {
        let logits = [9.0, 1.0, 3.0, 3.0, -5.0, 0.0, 0.0, 0.0];
        let mut greedy = Choice::new(Sampling::Greedy);
        assert_eq!(greedy.choose(&logits, &allowed(&[1, 2, 3, 4])), 2);
        assert_eq!(greedy.choose(&logits, &allowed(&[4])), 4);
    }

    #[test]
    fn temperature_follows_the_probabilities_and_the_seed() {
        let logits = [0.0, (3f32).ln(), 50.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        let draw = |seed| {
            let mut choice = Choice::new(Sampling::Temperature { t: 1.0, seed });
            let mask = allowed(&[0, 1]);
            (0..4000).map(|_| choice.choose(&logits, &mask)).collect::<Vec<_>>()
        };
        let ones = draw(1).iter().filter(|&&token| token == 1).count();
        assert!((2850..3150).contains(&ones), "{ones} of 4000 where 3000 are expected");
        assert!(draw(1).iter().all(|&token| token < 2));
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
