//! What a policy costs, step by step and for one whole inquiry from glance to last turn.
//!
//!     cargo run --release -p engine --example decode_speed -- [BUNDLE [THREADS]]
//!
//! Without a bundle it measures the tests' fixture, which is smaller than any real policy. Times are
//! the best of several rounds, since other work on the machine only ever adds to them.
#![allow(clippy::print_stdout)]

use bundle::Bundle;
use engine::{Engine, EngineOptions, Grammar, PairInput, PairKey, Piece, Session};
use hal_camera::Luma;
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

const ROUNDS: usize = 25;
const TURNS: usize = 5;
const PAIRS: usize = 16;
const PREFIX: &str = "<|im_start|>system\nyou watch a camera and say what happens<|im_end|>\n";

/// A turn of the usual length: a thought of some choices, a call most of which is forced.
const TURN: &str = r#"
start: <think> THINK </think> "\n" <tool_call> "\n" call "\n" </tool_call>
THINK: /[a-z ]{6}/
call: "{\"name\":\"sample\",\"arguments\":{\"start\":" NUMBER ",\"end\":" NUMBER ",\"frames\":" /[1-8]/ "}}"
NUMBER: /[1-9][0-9]\.[0-9]/
"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let fixture = || format!("{}/tests/fixture", env!("CARGO_MANIFEST_DIR"));
    let dir: PathBuf = arguments.next().unwrap_or_else(fixture).into();
    let threads = arguments.next().map_or(Ok(1), |n| n.parse())?;
    let (verify, bundle) = best(3, || Bundle::open(&dir));
    let bundle = bundle?;
    let (load, engine) =
        best(3, || Engine::load(&bundle, EngineOptions { threads, ..EngineOptions::default() }));
    let engine = engine?;
    println!("{} on {}, {threads} thread(s)", bundle.id(), engine.id());
    row("verify the bundle", verify);
    row("load the engine", load);
    let (compile, grammar) = best(3, || Grammar::new(&engine, TURN));
    let grammar = grammar?;
    row("compile a grammar", compile);

    drop(engine.start(PREFIX)?);
    let (start, _) = best(ROUNDS, || engine.start(PREFIX));
    row("start a session after a known prefix", start);
    for n in [1, 16, 64, 350] {
        let mut sessions: Vec<_> = (0..ROUNDS).map(|_| engine.start(PREFIX)).collect();
        let (time, _) = best(ROUNDS, || match sessions.pop() {
            Some(Ok(mut session)) => session.feed_tokens(&vec![270; n]),
            _ => Ok(()),
        });
        row(&format!("prefill {n} tokens"), time);
    }
    let mut long = engine.start(PREFIX)?;
    long.feed_tokens(&vec![270; 350])?;
    let (clone, _) = best(ROUNDS, || long.clone());
    row("clone a session of 350 tokens", clone);
    let (steps, _) = best(ROUNDS, || {
        let mut session = long.clone();
        (0..32).try_for_each(|_| session.feed_tokens(&[270]))
    });
    row("decode one token at 350", (steps - clone) / 32);
    let (turn, generated) = best(ROUNDS, || long.clone().generate(&grammar, 100));
    let generated = generated?;
    let calls = generated.calls as u32;
    row(&format!("a turn at 350: {calls} calls, {} tokens", generated.tokens.len()), turn - clone);
    row("  each call, mask included", (turn - clone) / calls);

    let geometry = &engine.manifest().geometry;
    let (width, height) = (geometry.width, geometry.height);
    let frame = |seed: usize| -> Luma {
        let pixels = (0..width * height).map(|i| (i * seed % 251) as u8).collect();
        Luma { width, height, pixels }
    };
    let frames: Vec<Luma> = (1..=PAIRS + 1).map(frame).collect();
    let mut key = 0;
    let mut pairs = || -> Vec<PairInput<'_>> {
        key += 1000;
        let id = |i: usize| PairKey(key + i as u64, key + i as u64 + 1);
        (0..PAIRS).map(|i| PairInput { key: id(i), frames: [&frames[i], &frames[i + 1]] }).collect()
    };
    let (vision, _) = best(ROUNDS, || engine.encode(&pairs()));
    row(&format!("encode {PAIRS} new pairs"), vision);
    let (whole, outcome) = best(ROUNDS, || inquiry(&engine, &grammar, &pairs()));
    let (session, calls) = outcome?;
    row(&format!("an inquiry: {PAIRS} pairs, {calls} calls, {} tokens", session.len()), whole);
    Ok(())
}

/// A glance, then turns that each bring a few pairs and end in a reading of the verdict.
fn inquiry(
    engine: &Engine,
    grammar: &Grammar,
    pairs: &[PairInput<'_>],
) -> Result<(Session, usize), engine::EngineError> {
    let mut session = engine.start(PREFIX)?;
    let mut calls = 0;
    for looks in pairs.chunks(PAIRS.div_ceil(TURNS)) {
        let seen = engine.encode(looks)?;
        let mut pieces = vec![Piece::Text("<|im_start|>user\n<tool_response>\n")];
        for pair in &seen {
            pieces.extend([Piece::Text("<12.5 seconds>"), Piece::Pair(pair)]);
        }
        pieces.push(Piece::Text("</tool_response><|im_end|>\n<|im_start|>assistant\n"));
        session.feed(&pieces)?;
        session.yes_no("")?;
        calls += session.generate(grammar, 100)?.calls;
    }
    Ok((session, calls))
}

/// The shortest of `rounds` runs, and what the last one gave.
fn best<T>(rounds: usize, mut run: impl FnMut() -> T) -> (Duration, T) {
    let mut timed = || {
        let start = Instant::now();
        let result = run();
        (start.elapsed(), result)
    };
    let (mut shortest, mut last) = timed();
    for _ in 1..rounds {
        let (time, result) = timed();
        (shortest, last) = (shortest.min(time), result);
    }
    (shortest, last)
}

fn row(what: &str, time: Duration) {
    println!("  {what:<44} {:>9.3} ms", time.as_secs_f64() * 1e3);
}
