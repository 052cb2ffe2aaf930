//! Text inside an SVG: escaped, shortened, wrapped; bytes as base64; the numbers of an axis.

/// `text` as it may stand in an SVG element or attribute. Characters that XML cannot hold become
/// spaces: thoughts and labels are a model's words.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\u{fffe}' | '\u{ffff}' => safe.push(' '),
            c if c.is_control() => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

/// `text` in at most `lines` lines of at most `width` characters; what does not fit ends in "…".
pub(super) fn wrapped(text: &str, width: usize, lines: usize) -> Vec<String> {
    let mut done: Vec<String> = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let word = shortened(word, width);
        let used = line.chars().count();
        if used > 0 && used + 1 + word.chars().count() > width {
            done.push(std::mem::take(&mut line));
            if done.len() == lines {
                if let Some(last) = done.last_mut() {
                    *last = shortened(&format!("{last} …"), width);
                }
                return done;
            }
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&word);
    }
    if !line.is_empty() {
        done.push(line);
    }
    done
}

/// The first `width` characters of `text`, the last of them "…" if there are more.
pub(super) fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end_matches([' ', '…']))
}

/// Round numbers within `[from, to]`, about `wanted` of them, and how many decimals they need.
pub(super) fn ticks(from: f64, to: f64, wanted: f64) -> (Vec<f64>, usize) {
    let rough = ((to - from) / wanted).max(1e-3);
    let decade = 10f64.powf(rough.log10().floor());
    // Seconds are read in tens, or in sixties where minutes are near.
    let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * decade).into_iter().find(|s| *s >= rough);
    let step = match step.unwrap_or(rough) {
        s if s >= 50.0 => [60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0]
            .into_iter()
            .find(|m| *m >= rough)
            .unwrap_or(s),
        s => s,
    };
    let first = (from / step - 1e-9).ceil() as i64;
    let last = (to / step + 1e-9).floor() as i64;
    let decimals = if step < 1.0 { (-step.log10()).ceil() as usize } else { 0 };
    ((first..=last.min(first + 100)).map(|i| i as f64 * step).collect(), decimals)
}

/// Base64 with padding (RFC 4648).
pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            // A chunk of n bytes fills n + 1 digits.
            text.push(match i <= chunk.len() {
                true => DIGITS[(bits >> (18 - 6 * i)) as usize & 63] as char,
                false => '=',
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xff, 0xff, 0xfe]), "///+");
    }

    #[test]
    fn text_is_wrapped_at_words_and_what_is_too_much_ends_in_an_ellipsis() {
        assert_eq!(wrapped("one two three", 7, 3), ["one two", "three"]);
        assert_eq!(wrapped("one two three four five", 7, 2), ["one two", "three …"]);
        assert_eq!(wrapped("incomprehensibilities", 6, 2), ["incom…"]);
        assert_eq!(wrapped(" \n", 6, 2), [""; 0]);
    }

    #[test]
    fn an_axis_has_round_numbers() {
        assert_eq!(ticks(0.0, 122.0, 8.0), ((0..=6).map(|i| f64::from(i) * 20.0).collect(), 0));
        let (fine, decimals) = ticks(1.0, 2.0, 5.0);
        let fine: Vec<String> = fine.iter().map(|mark| format!("{mark:.decimals$}")).collect();
        assert_eq!(fine, ["1.0", "1.2", "1.4", "1.6", "1.8", "2.0"]);
        assert_eq!(ticks(0.0, 600.0, 8.0).0[1], 120.0);
        assert!(ticks(3.0, 3.0, 8.0).0.len() <= 101);
    }

    #[test]
    fn what_xml_cannot_hold_never_gets_into_it() {
        assert_eq!(
            escaped("<a b=\"c\">&'\u{0}\u{ffff}é"),
            "&lt;a b=&quot;c&quot;&gt;&amp;&#39;  é"
        );
    }
}
