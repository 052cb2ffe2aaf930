//! What the sentinel gets to see of a camera's frames, and when it has to be said that it sees little.

use hal_camera::{Frame, Luma, decode_luma, decode_luma_scaled};

/// Looks in a row that may fail before anything is made of it: two seconds at the agent's default. A
/// frame that was cut in transfer is no news, and half of it would look like a change of the place.
const LOST_LOOKS: u32 = 8;

/// The eyes of one camera's sentinel.
#[derive(Debug, Default)]
pub struct Sight {
    lost: u32,
}

impl Sight {
    /// The luma of `frame` at a scale of at least `least` (width, height) pixels, or nothing if it is
    /// damaged; and a sentence, once, when all were damaged for a while. From then on what can be
    /// decoded of a damaged frame is taken for it: a sentinel that sees most is better than a blind one.
    pub fn look(&mut self, frame: &Frame, least: (usize, usize)) -> (Option<Luma>, Option<String>) {
        match decode_luma_scaled(frame, least) {
            Ok(luma) => {
                self.lost = 0;
                (Some(luma), None)
            }
            Err(_) if self.lost + 1 < LOST_LOOKS => {
                self.lost += 1;
                (None, None)
            }
            Err(_) => {
                let rest = decode_luma(frame).ok();
                let said = (self.lost + 1 == LOST_LOOKS).then(|| sentence(rest.is_some()).into());
                self.lost = LOST_LOOKS;
                (rest, said)
            }
        }
    }
}

/// Without numbers: what repeats word by word is said once.
fn sentence(some: bool) -> &'static str {
    match some {
        true => {
            "every frame is damaged, and the sentinel watches what is left of them; check the cable, or \
             ask for a smaller size"
        }
        false => {
            "no frame can be decoded, and only patrols look; check the cable, or ask for another format"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hal_camera::{ClockQuality, Encoding, MediaTime, WallTime, encode_luma_jpeg};

    fn frame(bytes: Vec<u8>) -> Frame {
        let wall_time = WallTime { unix_us: 0, quality: ClockQuality::Unsynced };
        let (width, height, encoding) = (64, 64, Encoding::Jpeg);
        Frame { media_time: MediaTime(0), wall_time, width, height, encoding, bytes }
    }

    fn whole() -> Frame {
        let pixels = (0..64 * 64).map(|i| (i % 64 * 3) as u8).collect();
        frame(encode_luma_jpeg(&Luma { width: 64, height: 64, pixels }, 90))
    }

    /// Its last rows are missing, its end marker is not.
    fn cut() -> Frame {
        let Frame { mut bytes, .. } = whole();
        bytes.truncate(bytes.len() * 3 / 4);
        bytes.extend([0xff, 0xd9]);
        frame(bytes)
    }

    #[test]
    fn a_damaged_frame_is_passed_over_and_damaged_ones_without_end_are_watched_and_told() {
        let mut sight = Sight::default();
        for _ in 0..2 {
            for _ in 1..LOST_LOOKS {
                assert_eq!(sight.look(&cut(), (8, 8)), (None, None));
            }
            let (rest, said) = sight.look(&cut(), (8, 8));
            assert!(rest.is_some() && said.unwrap().contains("what is left"));
            let (rest, said) = sight.look(&cut(), (8, 8));
            assert!(rest.is_some() && said.is_none(), "said once");
            let (luma, said) = sight.look(&whole(), (8, 8));
            assert!(luma.is_some_and(|luma| luma.width == 8) && said.is_none());
        }
    }

    #[test]
    fn frames_of_which_nothing_can_be_decoded_are_told_and_leave_nothing_to_see() {
        let mut sight = Sight::default();
        let all: Vec<_> = (0..20)
            .map(|_| sight.look(&frame(b"\xff\xd8\xffnothing\xff\xd9".into()), (8, 8)))
            .collect();
        assert!(all.iter().all(|(luma, _)| luma.is_none()));
        let said: Vec<&String> = all.iter().filter_map(|(_, said)| said.as_ref()).collect();
        assert!(matches!(said[..], [said] if said.contains("only patrols")), "{said:?}");
    }
}
