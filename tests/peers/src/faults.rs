//! What happens to a connection: drawn from a seed, pure.

use crate::dice::Dice;
use clap::ValueEnum;
use serde::Serialize;

/// The kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Everything comes late, by up to half a second each way.
    Delay,
    /// Some bytes at a time, with pauses.
    Drip,
    /// So many bits a second, from 1 kbit/s on.
    Rate,
    /// From some byte on nothing goes on, and nothing is closed.
    Stall,
    /// In the middle of what the client sends both ends get a reset (SO_LINGER 0).
    Reset,
    /// In the middle of what the client sends the server is told that it was the end.
    HalfClose,
    /// The server's answer is thrown away and both ends get a reset: what was asked for is done, and the
    /// client does not know. It sends again, which is how a request comes twice through TLS, where nobody in
    /// between can repeat its bytes.
    CutAnswer,
    /// The client is met with another certificate, self-signed: it must go away.
    Foreign,
}

/// What happens to one connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Everything comes so many ms late.
    Delay { ms: u64 },
    /// `bytes` at a time, with pauses.
    Drip { bytes: usize, pause_ms: u64 },
    /// At most so fast.
    Rate { bits_per_s: u64 },
    /// Nothing goes on after so many bytes from the client.
    Stall { after: u64 },
    /// A reset after so many bytes from the client.
    Reset { after: u64 },
    /// The server is told of an end after so many bytes from the client.
    HalfClose { after: u64 },
    /// So many answers pass, the next one does not.
    CutAnswer { passing: u64 },
    /// Another certificate.
    Foreign,
}

/// What may happen, and how often.
#[derive(Clone, Debug)]
pub struct Menu {
    /// The kinds that may be drawn.
    pub kinds: Vec<Kind>,
    /// The share of connections to which something happens.
    pub share: f64,
}

impl Menu {
    /// What happens to the `n`-th connection under this seed.
    pub fn draw(&self, seed: u64, n: u64) -> Fault {
        let mut dice = Dice::of(seed, n);
        if self.kinds.is_empty() || !dice.happens(self.share) {
            return Fault::None;
        }
        // A TLS handshake is 3 kB, a large batch 300: somewhere in the handshake, in the first request or
        // in a later one.
        let after = dice.spread(500.0, 500_000.0) as u64;
        match dice.one(&self.kinds) {
            Kind::Delay => Fault::Delay { ms: dice.spread(5.0, 500.0) as u64 },
            Kind::Drip => {
                let bytes = dice.spread(1.0, 1024.0) as usize;
                Fault::Drip { bytes, pause_ms: dice.between(1, 20) }
            }
            Kind::Rate => Fault::Rate { bits_per_s: dice.spread(1e3, 1e6) as u64 },
            Kind::Stall => Fault::Stall { after },
            Kind::Reset => Fault::Reset { after },
            Kind::HalfClose => Fault::HalfClose { after },
            Kind::CutAnswer => Fault::CutAnswer { passing: dice.spread(1.0, 20.0) as u64 - 1 },
            Kind::Foreign => Fault::Foreign,
        }
    }
}

impl Fault {
    /// Its kind.
    pub fn kind(self) -> Option<Kind> {
        match self {
            Self::None => None,
            Self::Delay { .. } => Some(Kind::Delay),
            Self::Drip { .. } => Some(Kind::Drip),
            Self::Rate { .. } => Some(Kind::Rate),
            Self::Stall { .. } => Some(Kind::Stall),
            Self::Reset { .. } => Some(Kind::Reset),
            Self::HalfClose { .. } => Some(Kind::HalfClose),
            Self::CutAnswer { .. } => Some(Kind::CutAnswer),
            Self::Foreign => Some(Kind::Foreign),
        }
    }
}

impl Kind {
    /// Its name, as on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_seed_draws_every_kind_at_its_share_and_the_same_again() {
        let menu = Menu { kinds: Kind::value_variants().to_vec(), share: 0.5 };
        let drawn: Vec<Fault> = (0..4000).map(|n| menu.draw(7, n)).collect();
        assert_eq!(drawn, (0..4000).map(|n| menu.draw(7, n)).collect::<Vec<_>>());
        let struck = drawn.iter().filter(|fault| **fault != Fault::None).count();
        assert!((1800..2200).contains(&struck), "{struck}");
        let kinds: BTreeSet<Kind> = drawn.iter().filter_map(|fault| fault.kind()).collect();
        assert_eq!(kinds.len(), Kind::value_variants().len());
        let slowest = drawn.iter().filter_map(|fault| match fault {
            Fault::Rate { bits_per_s } => Some(*bits_per_s),
            _ => None,
        });
        assert!(slowest.min().is_some_and(|bits_per_s| (1000..1100).contains(&bits_per_s)));
    }

    #[test]
    fn an_empty_menu_does_nothing() {
        let menu = Menu { kinds: vec![], share: 1.0 };
        assert_eq!(menu.draw(1, 1), Fault::None);
    }
}
