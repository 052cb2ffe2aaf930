//! The grammar that a turn must follow, in the Lark dialect of `llguidance`.

/// What a turn may name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vocabulary {
    /// The labels of the bundle; empty if a label may be any few words.
    pub labels: Vec<String>,
}

/// The grammar of one turn. With `must_finish` the only operator left is `final`: the last turn of
/// a budget is a verdict, not a look that nobody would read.
///
/// Tags are written unquoted: they are special tokens of the tokenizer, and a quoted tag would
/// never match one. Every repetition is bounded: an unbounded one need not end.
pub fn turn_grammar(vocabulary: &Vocabulary, must_finish: bool) -> String {
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
TIME: /-?(0|[1-9][0-9]{{0,4}})\.[0-9]/
LENGTH: /(0|[1-9][0-9]{{0,3}})\.[0-9]/
FACTOR: /([1-9]|1[0-6])\.[05]/
FRAMES: /2|4|6|8|10|12|14|16/
NUMBER: /[1-9]|1[0-9]/
PHRASE: /[A-Za-z0-9 ,.-]{{0,60}}/
SENTENCE: /[A-Za-z0-9 ,.;:?!'()%-]{{1,240}}/
"##
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_turn_allows_nothing_but_final() {
        let vocabulary = Vocabulary { labels: vec!["fall".into(), "wrong way".into()] };
        assert!(turn_grammar(&vocabulary, false).contains("call: backtrack | expand"));
        assert!(turn_grammar(&vocabulary, true).contains("call: final\n"));
        assert!(turn_grammar(&vocabulary, true).contains("label: \"fall\" | \"wrong way\"\n"));
    }

    #[test]
    fn a_label_with_quotes_cannot_break_out_of_the_grammar() {
        let vocabulary = Vocabulary { labels: vec!["a\" | /.*/ \"b".into()] };
        assert!(turn_grammar(&vocabulary, false).contains(r#"label: "a\" | /.*/ \"b""#));
    }
}
