//! The transcript as text: messages rendered by the bundle's own chat template.

use crate::Tools;
use minijinja::{Environment, Error, ErrorKind, Value, value::Kwargs};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter};
use std::io;

/// What the template writes where the frames of an observation go; the host replaces it by one
/// block per frame pair, each after its [`timestamp`].
pub const VIDEO_MARKER: &str = "<|vision_start|><|video_pad|><|vision_end|>";

/// The text before a frame pair: the mean of its two times, as Qwen3-VL writes it.
pub fn timestamp(pair: [f64; 2]) -> String {
    format!("<{:.1} seconds>", (pair[0] + pair[1]) / 2.0)
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The bundle's instructions.
    System,
    /// The camera's question with the glance.
    User,
    /// The policy.
    Assistant,
    /// An observation.
    Tool,
}

/// A piece of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Content {
    /// Words.
    Text {
        /// The words.
        text: String,
    },
    /// The frames of one observation.
    Video,
}

/// A message of the transcript.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said and shown.
    pub content: Vec<Content>,
}

impl Message {
    /// A message of words only.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self { role, content: vec![Content::Text { text: text.into() }] }
    }
}

/// A chat template that does not do what a transcript needs.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// Jinja refused it.
    #[error("chat template: {0:#}")]
    Jinja(#[from] minijinja::Error),
    /// A new message changes what was rendered before, so a kept KV cache would be wrong.
    #[error(
        "chat template: it rewrites earlier messages when a new one comes, so the state of the \
         turns before cannot be kept; use the template of an instruct (non-thinking) checkpoint"
    )]
    RewritesHistory,
}

/// A compiled chat template: Jinja with what Hugging Face's transformers gives to templates besides, so
/// that the one that comes with a checkpoint renders here as it did in training. Only the date is not
/// to be had: what a camera is asked must not change overnight.
pub struct ChatTemplate {
    environment: Environment<'static>,
}

/// Steps that a template may take; Qwen's needs a few thousand for a long transcript.
const FUEL: u64 = 5_000_000;

impl ChatTemplate {
    /// Compiles `source`. Templates come with bundles, so they get no file access and bounded fuel.
    ///
    /// # Errors
    /// [`TemplateError::Jinja`] names the line.
    pub fn new(source: &str) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_fuel(Some(FUEL));
        // Templates call the methods of Python's strings and dictionaries.
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", json);
        environment.add_function("raise_exception", |said: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, said))
        });
        environment.add_template_owned("chat", source.to_owned())?;
        Ok(Self { environment })
    }

    /// The whole transcript, ending with the opening of the assistant's turn if `open_turn`.
    ///
    /// # Errors
    /// [`TemplateError::Jinja`] if the template fails on these messages.
    pub fn render(
        &self,
        messages: &[Message],
        tools: &Tools,
        open_turn: bool,
    ) -> Result<String, TemplateError> {
        let context = minijinja::context! {
            messages => messages,
            tools => tools.0,
            add_generation_prompt => open_turn,
        };
        Ok(self.environment.get_template("chat")?.render(context)?)
    }

    /// What `messages` add to `before`, the text that the model's state already holds.
    ///
    /// # Errors
    /// [`TemplateError::RewritesHistory`] if the rendering does not begin with `before`.
    pub fn render_after(
        &self,
        before: &str,
        messages: &[Message],
        tools: &Tools,
    ) -> Result<String, TemplateError> {
        let whole = self.render(messages, tools, true)?;
        match whole.strip_prefix(before) {
            Some(rest) => Ok(rest.to_owned()),
            None => Err(TemplateError::RewritesHistory),
        }
    }
}

/// `tojson` as transformers defines it, which is Python's `json.dumps`: a space after `,` and `:`, and no
/// letter escaped that need not be.
fn json(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    options.assert_all_used()?;
    let mut text = Vec::new();
    let indent = indent.map(|spaces| " ".repeat(spaces));
    let written = match &indent {
        Some(indent) => dump(value, &mut text, PrettyFormatter::with_indent(indent.as_bytes())),
        None => dump(value, &mut text, Spaced),
    };
    let failed = |e| Error::new(ErrorKind::BadSerialization, "tojson").with_source(e);
    written.map_err(failed)?;
    let text = String::from_utf8(text).expect("JSON is text");
    Ok(Value::from_safe_string(text))
}

fn dump(value: &Value, to: &mut Vec<u8>, formatter: impl Formatter) -> serde_json::Result<()> {
    value.serialize(&mut serde_json::Serializer::with_formatter(to, formatter))
}

/// On one line, with spaces.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        to: &mut W,
        first: bool,
    ) -> io::Result<()> {
        to.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        to: &mut W,
        first: bool,
    ) -> io::Result<()> {
        to.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, to: &mut W) -> io::Result<()> {
        to.write_all(b": ")
    }
}

/// A piece of what the model is fed: text, or the frame pair of that number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fed {
    /// Text to be tokenised as one.
    Text(String),
    /// The `n`th pair of the observation, counted from 0.
    Pair(usize),
}

/// Replaces the one [`VIDEO_MARKER`] of `rendered` by the pairs of the newest observation, each
/// after its timestamp. Neighbouring text is one piece, so that a trainer and the camera tokenise
/// alike. `pairs` holds the two times of each pair, in seconds; without a marker it must be empty.
pub fn fed_pieces(rendered: &str, pairs: &[[f64; 2]]) -> Vec<Fed> {
    let mut pieces = Vec::with_capacity(2 * pairs.len() + 1);
    let (mut text, after) = match rendered.split_once(VIDEO_MARKER) {
        Some((before, after)) => (before.to_owned(), after),
        None => (rendered.to_owned(), ""),
    };
    for (number, &pair) in pairs.iter().enumerate() {
        text.push_str(&timestamp(pair));
        pieces.push(Fed::Text(std::mem::take(&mut text)));
        pieces.push(Fed::Pair(number));
    }
    text.push_str(after);
    pieces.push(Fed::Text(text));
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    const TEMPLATE: &str = include_str!("../../nano/chat_template.jinja");

    fn messages() -> Vec<Message> {
        vec![
            Message::text(Role::System, "Watch."),
            Message {
                role: Role::User,
                content: vec![Content::Text { text: "Window.\n".into() }, Content::Video],
            },
            Message::text(Role::Assistant, "<think>hm</think>"),
            Message {
                role: Role::Tool,
                content: vec![Content::Text { text: "{\"obs\":2}\n".into() }, Content::Video],
            },
        ]
    }

    #[test]
    fn a_transcript_is_rendered_in_qwens_format() {
        let template = ChatTemplate::new(TEMPLATE).unwrap();
        let text = template.render(&messages(), &Tools::none(), true).unwrap();
        expect![[r#"
            <|im_start|>system
            Watch.<|im_end|>
            <|im_start|>user
            Window.
            <|vision_start|><|video_pad|><|vision_end|><|im_end|>
            <|im_start|>assistant
            <think>hm</think><|im_end|>
            <|im_start|>user
            <tool_response>
            {"obs":2}
            <|vision_start|><|video_pad|><|vision_end|>
            </tool_response><|im_end|>
            <|im_start|>assistant
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn json_is_written_as_python_writes_it() {
        let source = "{{ tools[0].function | tojson }}\n{{ messages[0] | tojson(indent=2) }}";
        let template = ChatTemplate::new(source).unwrap();
        let said = [Message::text(Role::User, "<é> & 'so'")];
        let text = template.render(&said, &crate::tool_schemas(), true).unwrap();
        let (tool, message) = text.split_once('\n').unwrap();
        assert!(tool.starts_with(r#"{"name": "backtrack", "description": "Look at"#), "{tool}");
        assert!(tool.ends_with(r#""required": ["anchor", "span", "frames"]}}"#), "{tool}");
        expect![[r#"
            {
              "role": "user",
              "content": [
                {
                  "type": "text",
                  "text": "<é> & 'so'"
                }
              ]
            }"#]]
        .assert_eq(message);
    }

    #[test]
    fn each_turn_only_adds_text_at_the_end() {
        let template = ChatTemplate::new(TEMPLATE).unwrap();
        let (all, none) = (messages(), Tools::none());
        let first = template.render(&all[..2], &none, true).unwrap();
        let said = format!("{first}<think>hm</think><|im_end|>");
        let added = template.render_after(&said, &all, &none).unwrap();
        assert!(added.starts_with("\n<|im_start|>user\n<tool_response>"), "{added}");
    }

    #[test]
    fn a_template_that_rewrites_history_is_refused() {
        let template = ChatTemplate::new("{{ messages|length }}").unwrap();
        let error = template.render_after("1", &messages(), &Tools::none()).unwrap_err();
        assert!(matches!(error, TemplateError::RewritesHistory));
    }

    #[test]
    fn a_template_that_never_ends_runs_out_of_fuel() {
        let source =
            "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}";
        let template = ChatTemplate::new(source).unwrap();
        assert!(template.render(&[], &Tools::none(), true).is_err());
    }
}
