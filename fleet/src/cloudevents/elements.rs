//! Where the elements of a JSON array begin and end.
//!
//! So the size of each is known as it was sent, and a fault in one is told with its number.

/// The texts of the elements of the array `text`, in order; each may still be no JSON.
pub(super) fn split(text: &str) -> Result<Vec<&str>, String> {
    let text = text.trim_matches(is_space);
    let inner = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .ok_or("it does not begin with [ and end with ]")?;
    let (mut elements, mut begin, mut depth) = (Vec::new(), 0, 0usize);
    let (mut in_text, mut escaped) = (false, false);
    for (at, byte) in inner.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => {
                depth = depth.checked_sub(1).ok_or("a bracket closes that was not opened")?;
            }
            b',' if depth == 0 => {
                elements.push(inner[begin..at].trim_matches(is_space));
                begin = at + 1;
            }
            _ => {}
        }
    }
    if in_text || depth > 0 {
        return Err("it ends within an element".into());
    }
    let last = inner[begin..].trim_matches(is_space);
    if !(elements.is_empty() && last.is_empty()) {
        elements.push(last);
    }
    Ok(elements)
}

/// What JSON allows between values; Unicode has more.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

#[cfg(test)]
mod tests {
    use super::split;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    #[test]
    fn brackets_and_commas_within_texts_do_not_count() {
        assert_eq!(
            split(r#" [ {"a":"],\"}"} , [1,2],3 ] "#),
            Ok(vec![r#"{"a":"],\"}"}"#, "[1,2]", "3"])
        );
        assert_eq!(split("[]"), Ok(vec![]));
        assert_eq!(split("[,]"), Ok(vec!["", ""]));
    }

    #[test]
    fn what_is_no_array_is_refused() {
        for text in ["", "{}", "[", "[1", "[\"]", "[]]", "[{]", "1"] {
            assert!(split(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_elements_are_those_that_a_json_parser_finds(texts in prop::collection::vec("\\PC{0,8}", 0..5)) {
            let values: Vec<Value> = texts.iter().map(|t| json!({t.as_str(): [t, 1], "b": {}})).collect();
            let text = serde_json::to_string(&values).unwrap();
            let found = split(&text).unwrap();
            let read: Vec<Value> = found.iter().map(|t| serde_json::from_str(t).unwrap()).collect();
            prop_assert_eq!(read, values);
        }
    }
}
