//! Frame pairs and their visual tokens.

use bundle::Geometry;
use hal_camera::Luma;
use std::{collections::HashMap, sync::Arc};

/// What names a frame pair: the ids of its two frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PairKey(pub u64, pub u64);

/// A frame pair to be encoded.
#[derive(Clone, Copy, Debug)]
pub struct PairInput<'a> {
    /// The ids of the two frames; the same key must always mean the same pixels.
    pub key: PairKey,
    /// The earlier and the later frame, of any size.
    pub frames: [&'a Luma; 2],
}

/// What the policy sees of a frame pair.
#[derive(Clone, Debug, PartialEq)]
pub struct PairTokens {
    /// `[tokens_per_pair, hidden]`.
    pub tokens: Vec<f32>,
    /// What is added after the first decoder layers, `[tokens_per_pair, hidden]` each.
    pub deepstack: Vec<Vec<f32>>,
}

/// Writes a pair into `out` as the vision part takes it, `[2, channels, height, width]` in [-1, 1].
pub(crate) fn write_frames(pair: &PairInput<'_>, geometry: &Geometry, out: &mut Vec<f32>) {
    for frame in pair.frames {
        let frame = frame.resized(geometry.width, geometry.height);
        for _ in 0..geometry.channels {
            out.extend(frame.pixels.iter().map(|&p| f32::from(p) / 127.5 - 1.0));
        }
    }
}

/// The pairs looked at last. At the bound the one not used for longest goes.
pub(crate) struct PairCache {
    pairs: HashMap<PairKey, (u64, Arc<PairTokens>)>,
    capacity: usize,
    now: u64,
}

impl PairCache {
    pub fn new(capacity: usize) -> Self {
        Self { pairs: HashMap::new(), capacity: capacity.max(1), now: 0 }
    }

    pub fn clear(&mut self) {
        self.pairs.clear();
    }

    pub fn get(&mut self, key: PairKey) -> Option<Arc<PairTokens>> {
        self.now += 1;
        let (used, tokens) = self.pairs.get_mut(&key)?;
        *used = self.now;
        Some(tokens.clone())
    }

    pub fn insert(&mut self, key: PairKey, tokens: Arc<PairTokens>) {
        self.now += 1;
        self.pairs.insert(key, (self.now, tokens));
        while self.pairs.len() > self.capacity {
            let oldest = self.pairs.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| *key);
            oldest.and_then(|key| self.pairs.remove(&key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_the_bound_the_pair_not_used_for_longest_goes() {
        let tokens = Arc::new(PairTokens { tokens: vec![], deepstack: vec![] });
        let mut cache = PairCache::new(2);
        cache.insert(PairKey(1, 2), tokens.clone());
        cache.insert(PairKey(2, 3), tokens.clone());
        assert!(cache.get(PairKey(1, 2)).is_some());
        cache.insert(PairKey(3, 4), tokens);
        assert!(cache.get(PairKey(2, 3)).is_none());
        assert!(cache.get(PairKey(1, 2)).is_some() && cache.get(PairKey(3, 4)).is_some());
    }

    #[test]
    fn pixels_become_numbers_from_minus_one_to_one_in_every_channel() {
        let frame = Luma { width: 2, height: 1, pixels: vec![0, 255] };
        let pair = PairInput { key: PairKey(0, 0), frames: [&frame, &frame] };
        let geometry = Geometry {
            width: 2,
            height: 1,
            channels: 3,
            pair_lag_s: 0.5,
            pair_step_s: f64::INFINITY,
            tokens_per_pair: 1,
            grid: [1, 1],
            deepstack: 0,
        };
        let mut out = Vec::new();
        write_frames(&pair, &geometry, &mut out);
        assert_eq!(out, [-1.0, 1.0].repeat(6));
    }
}
