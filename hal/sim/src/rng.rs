//! Random numbers that can be asked for in any order.

/// SplitMix64: 64 bits of state, passes the usual batteries, and a stream for every (seed, purpose,
/// index) costs nothing to start. That is what random access in time needs: block 1,000 is drawn
/// without drawing the 999 before it.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    /// The stream of `seed` for one purpose and one index.
    pub fn new(seed: u64, purpose: Purpose, index: i64) -> Self {
        let start = mix(seed ^ mix(purpose as u64 + 1)) ^ mix(index as u64).rotate_left(17);
        Self(start)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Uniform in `[0, 1)`.
    pub fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// Uniform in `[low, high)`.
    pub fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Uniform in `0..n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn chance(&mut self, probability: f32) -> bool {
        self.unit() < probability
    }

    /// `1.0` or `-1.0`.
    pub fn sign(&mut self) -> f32 {
        if self.chance(0.5) { 1.0 } else { -1.0 }
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// What a stream of random numbers is for. Streams of different purposes are independent, so that
/// one more number drawn for the traffic does not change the light.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    Family,
    Layout,
    Lens,
    Plan,
    Cast,
    Traffic,
}

/// A bijection of 64-bit words that scatters neighbours.
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Noise of one lattice point, uniform in `[0, 1]`.
pub(crate) fn lattice(x: i32, y: i32, seed: u32) -> f32 {
    let mut h = (x as u32).wrapping_mul(0x9e37_79b1)
        ^ (y as u32).wrapping_mul(0x85eb_ca6b)
        ^ seed.wrapping_mul(0xc2b2_ae35);
    h = (h ^ (h >> 15)).wrapping_mul(0x2c1b_3c6d);
    h = (h ^ (h >> 12)).wrapping_mul(0x297a_2d39);
    ((h ^ (h >> 15)) & 0xffff) as f32 / 65535.0
}

/// Lattice noise made continuous, in `[0, 1]`; features about one unit wide.
pub(crate) fn smooth_noise(x: f32, y: f32, seed: u32) -> f32 {
    let (x0, y0) = (x.floor(), y.floor());
    let (fx, fy) = (ease(x - x0), ease(y - y0));
    let (i, j) = (x0 as i32, y0 as i32);
    let top = lattice(i, j, seed) * (1.0 - fx) + lattice(i + 1, j, seed) * fx;
    let bottom = lattice(i, j + 1, seed) * (1.0 - fx) + lattice(i + 1, j + 1, seed) * fx;
    top * (1.0 - fy) + bottom * fy
}

fn ease(u: f32) -> f32 {
    u * u * (3.0 - 2.0 * u)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_neighbouring_indices_and_purposes_do_not_repeat_each_other() {
        let first = |purpose, index| Rng::new(9001, purpose, index).next();
        let mut all: Vec<u64> =
            (-50..50).flat_map(|i| [first(Purpose::Plan, i), first(Purpose::Cast, i)]).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 200);
    }

    #[test]
    fn uniform_numbers_fill_their_range() {
        let mut rng = Rng::new(1, Purpose::Layout, 0);
        let drawn: Vec<f32> = (0..4000).map(|_| rng.between(2.0, 4.0)).collect();
        assert!(drawn.iter().all(|v| (2.0..4.0).contains(v)));
        let mean = drawn.iter().sum::<f32>() / 4000.0;
        assert!((mean - 3.0).abs() < 0.05, "{mean}");
    }
}
