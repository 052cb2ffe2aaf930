//! The grammar that a turn must follow, in the Lark dialect of `llguidance`.

/// What a turn may name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vocabulary {
    /// The labels of the bundle; empty if a label may be any few words.
    pub labels: Vec<String>,
}

/// The grammar of one turn about a stretch of `stretch_s` seconds. With `must_finish` the only operator
/// left is `final`: the last turn of a budget is a verdict, not a look that nobody would read.
///
/// Every operator that it allows can be carried out: no moment lies outside of the stretch, and no
/// span is empty. Tags are written unquoted: they are special tokens of the tokenizer, and a quoted tag would
/// never match one. Every repetition is bounded: an unbounded one need not end.
pub fn turn_grammar(vocabulary: &Vocabulary, stretch_s: f64, must_finish: bool) -> String {
    let tenths = (stretch_s * 10.0).clamp(1.0, 999_999.0).round() as u32;
    let time = up_to(tenths);
    let operators = if must_finish { "final" } else { "backtrack | expand | sample | final" };
    let label = match vocabulary.labels.as_slice() {
        [] => "/[a-z][a-z ]{0,30}/".to_owned(),
        some => {
            let quoted: Vec<String> =
                some.iter().map(|l| serde_json::Value::from(l.as_str()).to_string()).collect();
            quoted.join(" | ")
        }
    };
    format!(
        r##"start: <think> WORDS "\n" hypothesis </think> "\n" <tool_call> "\n" call "\n" </tool_call>
WORDS: /[A-Za-z0-9 ,.;:?!'()%-]{{1,240}}/
hypothesis: "{{\"clips\":[" (suspect ("," suspect ("," suspect)?)?)? "]}}"
suspect: "{{\"span\":[" TIME "," TIME "],\"label\":\"" label "\",\"evidence\":[" numbers "],\"missing\":\"" PHRASE "\"}}"
call: {operators}
backtrack: "{{\"name\":\"backtrack\",\"arguments\":{{\"anchor\":" TIME ",\"span\":" LENGTH ",\"frames\":" FRAMES "}}}}"
expand: "{{\"name\":\"expand\",\"arguments\":{{\"start\":" TIME ",\"end\":" TIME ",\"factor\":" FACTOR "}}}}"
sample: "{{\"name\":\"sample\",\"arguments\":{{\"start\":" TIME ",\"end\":" TIME ",\"frames\":" FRAMES "}}}}"
final: "{{\"name\":\"final\",\"arguments\":{{\"clips\":[" (clip ("," clip ("," clip)?)?)? "],\"verdict\":\"" ("anomalous" | "normal") "\",\"explanation\":\"" SENTENCE "\"}}}}"
clip: "{{\"start\":" TIME ",\"end\":" TIME ",\"label\":\"" label "\",\"evidence\":[" numbers "]}}"
label: {label}
numbers: NUMBER ("," NUMBER ("," NUMBER ("," NUMBER)?)?)?
TIME: /{time}/
LENGTH: /0\.[1-9]|[1-9][0-9]{{0,3}}\.[0-9]/
FACTOR: /([1-9]|1[0-6])\.[05]/
FRAMES: /2|4|6|8|10|12|14|16/
NUMBER: /[1-9]|1[0-9]/
PHRASE: /[A-Za-z0-9 ,.-]{{0,60}}/
SENTENCE: /[A-Za-z0-9 ,.;:?!'()%-]{{1,240}}/
"##
    )
}

/// A regular expression for the numbers from 0.0 to `tenths` tenths, with one decimal.
fn up_to(tenths: u32) -> String {
    let (whole, tenth) = (tenths / 10, tenths % 10);
    let last = format!(r"{whole}\.[0-{tenth}]");
    match whole {
        0 => last,
        _ => format!(r"({})\.[0-9]|{last}", whole_up_to(whole - 1)),
    }
}

/// A regular expression for the whole numbers from 0 to `most`, without leading zeros.
fn whole_up_to(most: u32) -> String {
    let digits = most.to_string();
    let rest = |count: usize| if count == 0 { String::new() } else { format!("[0-9]{{{count}}}") };
    // All numbers of fewer digits.
    let mut parts: Vec<String> = match digits.len() {
        1 => vec![],
        2 => vec!["[0-9]".into()],
        n => vec!["[0-9]".into(), format!("[1-9][0-9]{{1,{}}}", n - 2)],
    };
    // As many digits: the first so many are those of `most`, the next is less, the rest is free.
    for (at, digit) in digits.bytes().enumerate() {
        let low = if at == 0 && digits.len() > 1 { b'1' } else { b'0' };
        if digit > low {
            let below = format!("[{}-{}]", char::from(low), char::from(digit - 1));
            parts.push(format!("{}{below}{}", &digits[..at], rest(digits.len() - at - 1)));
        }
    }
    parts.push(digits);
    parts.join("|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_lies_within_the_stretch() {
        for tenths in [1, 9, 10, 15, 99, 100, 158, 999, 1000, 2440, 10_203] {
            let regex = regex::Regex::new(&format!("^(?:{})$", up_to(tenths))).unwrap();
            for n in 0..=(tenths + 200).max(3000) {
                let number = format!("{}.{}", n / 10, n % 10);
                assert_eq!(regex.is_match(&number), n <= tenths, "{number} of {tenths}");
            }
            for none in ["", "1", "01.0", "-1.0", "1.00", ".5"] {
                assert!(!regex.is_match(none), "{none}");
            }
        }
    }

    #[test]
    fn the_last_turn_allows_nothing_but_final() {
        let vocabulary = Vocabulary { labels: vec!["fall".into(), "wrong way".into()] };
        assert!(turn_grammar(&vocabulary, 122.0, false).contains("call: backtrack | expand"));
        assert!(turn_grammar(&vocabulary, 122.0, true).contains("call: final\n"));
        assert!(
            turn_grammar(&vocabulary, 122.0, true).contains("label: \"fall\" | \"wrong way\"\n")
        );
    }

    #[test]
    fn a_label_with_quotes_cannot_break_out_of_the_grammar() {
        let vocabulary = Vocabulary { labels: vec!["a\" | /.*/ \"b".into()] };
        assert!(turn_grammar(&vocabulary, 122.0, false).contains(r#"label: "a\" | /.*/ \"b""#));
    }
}
