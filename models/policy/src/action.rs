//! What the policy says in a turn: a thought, a revised hypothesis, one operator.
//!
//! Decoding is constrained by a grammar, but the text is read here as what it is, untrusted input:
//! nothing that a model can write makes this panic, allocate without bound or name a frame.

use crate::Hypothesis;
use serde::{Deserialize, Serialize};

/// One operator with its arguments; times in seconds within the stretch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", content = "arguments", rename_all = "lowercase", deny_unknown_fields)]
pub enum Action {
    /// Look at `[anchor − span, anchor)`.
    Backtrack {
        /// The moment before which to look.
        anchor: f64,
        /// How far back, in seconds.
        span: f64,
        /// How many frames.
        frames: u32,
    },
    /// Look at the span widened to both sides, at lower density.
    Expand {
        /// Start of the span to widen.
        start: f64,
        /// End of the span to widen.
        end: f64,
        /// New length over old length, at least 1.
        factor: f64,
    },
    /// Look at the same span, denser.
    Sample {
        /// Start of the span.
        start: f64,
        /// End of the span.
        end: f64,
        /// How many frames.
        frames: u32,
    },
    /// End the inquiry.
    Final(Final),
}

/// The arguments of `final`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Final {
    /// The anomalous clips; empty if there is none.
    pub clips: Vec<FinalClip>,
    /// Whether anything was anomalous.
    pub verdict: Verdict,
    /// One sentence for people.
    pub explanation: String,
}

/// An anomalous clip of a `final`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinalClip {
    /// First second.
    pub start: f64,
    /// Second after the last.
    pub end: f64,
    /// What it is, in the words of the bundle.
    pub label: String,
    /// P(anomalous) in 0..1; read by the host from the yes/no distribution, never written by the
    /// policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f32>,
    /// Numbers of the observations that show it, from 1.
    pub evidence: Vec<u32>,
}

/// The policy's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Something is wrong.
    Anomalous,
    /// Nothing is.
    Normal,
}

impl Action {
    /// The operator's name as the policy writes it.
    pub fn name(&self) -> &'static str {
        match self {
            Action::Backtrack { .. } => "backtrack",
            Action::Expand { .. } => "expand",
            Action::Sample { .. } => "sample",
            Action::Final(_) => "final",
        }
    }
}

/// A turn of the policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// The thought in words.
    pub thought: String,
    /// The hypothesis as revised, if one was written.
    pub hypothesis: Option<Hypothesis>,
    /// The operator.
    pub action: Action,
}

/// Why a turn could not be read. The text goes back to the policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// There is no complete `<tool_call>…</tool_call>`.
    #[error("no complete tool call in the turn")]
    NoToolCall,
    /// What is in it is no operator.
    #[error("the tool call is not one of backtrack, expand, sample, final: {0}")]
    NotAnOperator(String),
    /// An argument is no usable number.
    #[error("argument out of range: {0}")]
    OutOfRange(&'static str),
}

/// A turn longer than this is not read at all: no budget allows one.
const LONGEST_TURN: usize = 16 << 10;
/// Seconds beyond this are no time within any stretch.
const FURTHEST_S: f64 = 1e6;
/// No policy has use for more clips.
const MOST_CLIPS: usize = 16;

/// Reads a turn: `<think>thought\nhypothesis</think>\n<tool_call>\n{…}\n</tool_call>`. The think
/// part may be missing, or hold no hypothesis.
///
/// # Errors
/// [`ParseError`] says what is wrong, in words that the policy can be shown.
pub fn parse_turn(text: &str) -> Result<Turn, ParseError> {
    if text.len() > LONGEST_TURN {
        return Err(ParseError::NoToolCall);
    }
    let call = between(text, "<tool_call>", "</tool_call>").ok_or(ParseError::NoToolCall)?;
    let action: Action =
        serde_json::from_str(call.trim()).map_err(|e| ParseError::NotAnOperator(e.to_string()))?;
    check(&action)?;
    let (thought, hypothesis) = match between(text, "<think>", "</think>") {
        Some(inner) => split_thought(inner),
        None => (String::new(), None),
    };
    Ok(Turn { thought, hypothesis, action })
}

fn split_thought(inner: &str) -> (String, Option<Hypothesis>) {
    let (words, json) = match inner.find('{') {
        Some(at) => inner.split_at(at),
        None => (inner, ""),
    };
    let hypothesis = serde_json::from_str::<Hypothesis>(json.trim()).ok().filter(|h| {
        h.clips.len() <= MOST_CLIPS && h.clips.iter().all(|c| c.span.iter().all(|&t| is_time(t)))
    });
    (words.trim().to_owned(), hypothesis)
}

fn check(action: &Action) -> Result<(), ParseError> {
    let ok = |name, good: bool| if good { Ok(()) } else { Err(ParseError::OutOfRange(name)) };
    match action {
        Action::Backtrack { anchor, span, .. } => {
            ok("anchor", is_time(*anchor))?;
            ok("span", is_time(*span) && *span > 0.0)
        }
        Action::Sample { start, end, .. } => {
            ok("start", is_time(*start))?;
            ok("end", is_time(*end))
        }
        Action::Expand { start, end, factor } => {
            ok("start", is_time(*start))?;
            ok("end", is_time(*end))?;
            ok("factor", (1.0..=1000.0).contains(factor))
        }
        Action::Final(last) => {
            ok("clips", last.clips.len() <= MOST_CLIPS)?;
            ok("clips", last.clips.iter().all(|c| is_time(c.start) && is_time(c.end)))
        }
    }
}

fn is_time(seconds: f64) -> bool {
    seconds.is_finite() && seconds.abs() <= FURTHEST_S
}

fn between<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    let start = text.find(open)? + open.len();
    let length = text[start..].find(close)?;
    Some(&text[start..start + length])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TURN: &str = "<think>lying at 63.5, the onset is not seen\n{\"clips\":[{\"span\":[63.5,78.8],\"label\":\"fall\",\"evidence\":[1],\"missing\":\"onset\"}]}</think>\n<tool_call>\n{\"name\":\"backtrack\",\"arguments\":{\"anchor\":63.5,\"span\":16.0,\"frames\":8}}\n</tool_call>";

    #[test]
    fn a_turn_is_a_thought_a_hypothesis_and_an_operator() {
        let turn = parse_turn(TURN).unwrap();
        assert_eq!(turn.thought, "lying at 63.5, the onset is not seen");
        assert_eq!(turn.hypothesis.unwrap().clips[0].label, "fall");
        assert_eq!(turn.action, Action::Backtrack { anchor: 63.5, span: 16.0, frames: 8 });
    }

    #[test]
    fn numbers_that_are_no_times_are_refused_by_name() {
        let say = |args: &str| {
            parse_turn(&format!(
                "<tool_call>{{\"name\":\"sample\",\"arguments\":{args}}}</tool_call>"
            ))
        };
        let far = say(r#"{"start":9.0,"end":1e300,"frames":8}"#);
        assert_eq!(far, Err(ParseError::OutOfRange("end")));
        let far = say(r#"{"start":1e300,"end":3.0,"frames":8}"#);
        assert_eq!(far, Err(ParseError::OutOfRange("start")));
        assert!(matches!(say(r#"{"start":1.0}"#), Err(ParseError::NotAnOperator(_))));
        assert!(matches!(
            say(r#"{"start":1,"end":2,"frames":-8}"#),
            Err(ParseError::NotAnOperator(_))
        ));
        assert_eq!(parse_turn("<tool_call>{"), Err(ParseError::NoToolCall));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,300}") {
            let _ = parse_turn(&text);
        }

        #[test]
        fn no_damage_to_a_real_turn_makes_the_parser_panic(
            at in 0usize..200, cut in 0usize..40, put in "[\\x00-\\x7f]{0,12}",
        ) {
            let mut text = TURN.to_owned();
            let at = at.min(text.len());
            let end = (at + cut).min(text.len());
            text.replace_range(at..end, &put);
            let _ = parse_turn(&text);
        }
    }
}
