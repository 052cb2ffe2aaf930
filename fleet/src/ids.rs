//! Names on the wire. Each is parsed once, at the rim, and can then be trusted to be well formed.

use serde::Serialize;
use std::fmt;

/// Makes a type for a text of a fixed length and alphabet.
macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $length:literal, $alphabet:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        pub struct $type(String);

        impl $type {
            /// The name in `text`, if it is one.
            pub fn parse(text: &str) -> Option<Self> {
                let alphabet: fn(u8) -> bool = $alphabet;
                (text.len() == $length && text.bytes().all(alphabet)).then(|| Self(text.to_owned()))
            }

            /// As text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A device: 16 of `0-9a-z`, drawn at its enrolment.
    DeviceId, 16, |b| b.is_ascii_digit() || b.is_ascii_lowercase()
);
name!(
    /// One life of a camera's event log: 16 lower-case hex digits.
    Epoch, 16, is_lower_hex
);
name!(
    /// An event as its camera names it: 16 of `0-9a-z`.
    EventId, 16, |b| b.is_ascii_digit() || b.is_ascii_lowercase()
);
name!(
    /// The BLAKE3 hash of an object: 64 lower-case hex digits.
    ContentHash, 64, is_lower_hex
);

fn is_lower_hex(b: u8) -> bool {
    b.is_ascii_digit() || (b'a'..=b'f').contains(&b)
}

/// SHA-256 of a certificate's DER: how a connection's device is known.
pub type CertificatePrint = [u8; 32];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_form_is_a_name() {
        assert!(DeviceId::parse("0123456789abcxyz").is_some());
        for wrong in
            ["", "0123456789abcxy", "0123456789abcxyZ", "0123456789abcxy/", "0123456789abcxé"]
        {
            assert_eq!(DeviceId::parse(wrong), None, "{wrong}");
        }
        assert!(Epoch::parse("0123456789abcdef").is_some());
        assert_eq!(Epoch::parse("0123456789abcdeg"), None);
        assert!(ContentHash::parse(&"a".repeat(64)).is_some());
        assert_eq!(ContentHash::parse(&"A".repeat(64)), None);
        assert_eq!(ContentHash::parse("../../etc/passwd"), None);
    }
}
