//! Positions: where a token stands in time and in the picture, and the rotation that says so.

use bundle::Decoder;

/// Gives every token of a session its position on the three axes (time, height, width), in order.
///
/// Text advances all three axes together. The visual tokens of a frame pair share one time; they
/// spread over rows and columns from there, and the text after them goes on at the furthest
/// position that they reached, so that a pair costs as many positions as its longer side has tokens
/// and not as it has tokens altogether.
#[derive(Clone, Debug, Default)]
pub(crate) struct Walker {
    next: u32,
}

impl Walker {
    /// Position of one token of text.
    pub fn text(&mut self) -> [u32; 3] {
        self.next += 1;
        [self.next - 1; 3]
    }

    /// Positions of a pair's visual tokens, row by row.
    pub fn pair(&mut self, [rows, columns]: [usize; 2]) -> impl Iterator<Item = [u32; 3]> {
        let start = self.next;
        self.next += rows.max(columns) as u32;
        (0..(rows * columns) as u32)
            .map(move |i| [start, start + i / columns as u32, start + i % columns as u32])
    }
}

/// The rotary embedding with interleaved M-RoPE: frequency `i` turns with height if `i % 3 == 1`,
/// with width if `i % 3 == 2` (as far as the sections reach) and with time otherwise.
#[derive(Clone, Debug)]
pub(crate) struct Rotary {
    /// Angular frequency and axis of each half-dimension.
    frequencies: Vec<(f32, usize)>,
}

impl Rotary {
    pub fn new(decoder: &Decoder) -> Self {
        let [_, height, width] = decoder.mrope_section;
        let frequency = |i: usize| {
            let axis = match i % 3 {
                1 if i < 3 * height => 1,
                2 if i < 3 * width => 2,
                _ => 0,
            };
            // In f32 as PyTorch does it, so that long contexts round alike.
            let exponent = (2 * i) as f32 / decoder.head_dim as f32;
            (1.0 / (decoder.rope_theta as f32).powf(exponent), axis)
        };
        Self { frequencies: (0..decoder.head_dim / 2).map(frequency).collect() }
    }

    /// Cosines and sines, `[positions, head_dim / 2]` each.
    pub fn tables(&self, positions: &[[u32; 3]]) -> (Vec<f32>, Vec<f32>) {
        let angles = positions.iter().flat_map(|position| {
            let angle = |&(frequency, axis): &(f32, usize)| position[axis] as f32 * frequency;
            self.frequencies.iter().map(angle)
        });
        angles.map(|angle| (angle.cos(), angle.sin())).unzip()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_after_a_pair_goes_on_at_the_furthest_position_reached() {
        let mut walker = Walker::default();
        assert_eq!(walker.text(), [0; 3]);
        let pair: Vec<_> = walker.pair([2, 3]).collect();
        assert_eq!(pair, [[1, 1, 1], [1, 1, 2], [1, 1, 3], [1, 2, 1], [1, 2, 2], [1, 2, 3]]);
        assert_eq!(walker.text(), [4; 3]);
    }

    #[test]
    fn frequencies_of_the_2b_policy_cycle_through_the_axes_and_end_with_time() {
        let decoder = Decoder {
            hidden: 2048,
            layers: 28,
            heads: 16,
            kv_heads: 8,
            head_dim: 128,
            intermediate: 6144,
            vocab: 151_936,
            rope_theta: 5e6,
            mrope_section: [24, 20, 20],
            rms_eps: 1e-6,
            tied: true,
            context_max: 4096,
        };
        let axes: Vec<usize> = Rotary::new(&decoder).frequencies.iter().map(|f| f.1).collect();
        assert!(axes[..60].iter().enumerate().all(|(i, &axis)| axis == i % 3));
        assert_eq!(axes[60..], [0; 4]);
    }
}
