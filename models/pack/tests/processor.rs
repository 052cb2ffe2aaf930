//! Conversations as the camera feeds them, beside what transformers' Qwen3-VL processor makes of them
//! (`make_processor.py`): the same text, and the same tokens with the same times around every pair.

use bundle::Bundle;
use engine::{Engine, EngineOptions, PairInput, PairKey, Piece, Session};
use hal_camera::Luma;
use policy::{ChatTemplate, Content, Fed, Message, Role, fed_pieces, tool_schemas};
use serde::Deserialize;
use std::{fs, path::Path, process::Command};
use tempfile::TempDir;

/// Of the shape that the conversations' tokenizer is for.
const SIZE: (usize, usize) = (96, 64);

#[derive(Deserialize)]
struct Conversation {
    template: String,
    messages: Vec<Said>,
    /// Times of the frames of each video, in seconds.
    videos: Vec<Vec<f64>>,
    text: String,
    ids: Vec<u32>,
}

#[derive(Deserialize)]
struct Said {
    role: String,
    content: Vec<Item>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Item {
    Text { text: String },
    Video,
}

impl Said {
    fn message(&self) -> Message {
        let role = match self.role.as_str() {
            "system" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            _ => Role::Tool,
        };
        let content = self.content.iter().map(|item| match item {
            Item::Text { text } => Content::Text { text: text.clone() },
            Item::Video => Content::Video,
        });
        Message { role, content: content.collect() }
    }
}

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn conversations() -> Vec<Conversation> {
    serde_json::from_str(&file("processor/conversations.json")).unwrap()
}

fn template(name: &str) -> ChatTemplate {
    let source = match name {
        "nano" => file("../../nano/chat_template.jinja"),
        name => file(&format!("processor/{name}.jinja")),
    };
    ChatTemplate::new(&source).unwrap()
}

fn engine(scratch: &TempDir) -> Engine {
    let path = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
    let shape = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shapes/groups_of_four.json");
    let size = format!("{}x{}", SIZE.0, SIZE.1);
    for arguments in [
        &["make-random", "--config", shape.to_str().unwrap(), "-o", &path("checkpoint")][..],
        &["pack", &path("checkpoint"), "-o", &path("bundle"), "--size", &size],
    ] {
        let output =
            Command::new(env!("CARGO_BIN_EXE_lookback-models")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    Engine::load(&Bundle::open(path("bundle")).unwrap(), EngineOptions::default()).unwrap()
}

/// Feeds what the newest messages add, their video's frames two by two.
fn feed(engine: &mut Engine, session: &mut Session, added: &str, times: &[f64]) {
    let frame = Luma { width: SIZE.0, height: SIZE.1, pixels: vec![90; SIZE.0 * SIZE.1] };
    let pairs: Vec<[f64; 2]> =
        times.chunks(2).map(|pair| [pair[0], pair[pair.len() - 1]]).collect();
    let input = PairInput { key: PairKey(0, 1), frames: [&frame, &frame] };
    let seen = engine.encode(&[input]).unwrap();
    let fed = fed_pieces(added, &pairs);
    let pieces: Vec<Piece<'_>> = fed
        .iter()
        .map(|piece| match piece {
            Fed::Text(text) => Piece::Text(text),
            Fed::Pair(_) => Piece::Pair(&seen[0]),
        })
        .collect();
    session.feed(&pieces).unwrap();
}

#[test]
fn a_conversation_is_rendered_as_transformers_renders_it() {
    for Conversation { template: name, messages, text, .. } in conversations() {
        let messages: Vec<Message> = messages.iter().map(Said::message).collect();
        let found = template(&name).render(&messages, &tool_schemas(), true).unwrap();
        assert_eq!(found, text, "{name}");
    }
}

#[test]
fn a_conversation_is_fed_turn_by_turn_as_the_tokens_that_transformers_makes_of_it() {
    let scratch = TempDir::new().unwrap();
    let mut engine = engine(&scratch);
    for Conversation { template: name, messages, videos, ids, .. } in conversations() {
        let messages: Vec<Message> = messages.iter().map(Said::message).collect();
        let (template, tools) = (template(&name), tool_schemas());
        let (mut session, mut before) = (engine.start("").unwrap(), String::new());
        let mut videos = videos.iter();
        for (number, message) in messages.iter().enumerate() {
            if message.role == Role::Assistant {
                let [Content::Text { text }] = message.content.as_slice() else { panic!() };
                let said = format!("{text}<|im_end|>");
                before.push_str(&said);
                session.feed(&[Piece::Text(&said)]).unwrap();
            } else if message.content.contains(&Content::Video) {
                let added = template.render_after(&before, &messages[..=number], &tools).unwrap();
                feed(&mut engine, &mut session, &added, videos.next().unwrap());
                before.push_str(&added);
            }
        }
        assert_eq!(session.transcript_tokens(), ids, "{name}");
    }
}
