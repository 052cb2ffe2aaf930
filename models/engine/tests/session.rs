//! What a session promises: constrained speech, probes without trace, budgets, the same again.

mod common;

use common::{Expected, engine, fixture_dir};
use engine::{
    Engine, EngineError, Generated, Grammar, PairInput, PairKey, PairTokens, Piece, Sampling,
    Session, Stopped,
};
use hal_camera::Luma;
use std::sync::Arc;

const TOOL_CALL: &str = r#"
start: <think> THINK </think> "\n" <tool_call> "\n" call "\n" </tool_call>
THINK: /[a-z ]{1,30}/
call: backtrack | final
backtrack: "{\"name\":\"backtrack\",\"arguments\":{\"anchor\":" NUMBER ",\"frames\":" /[1-8]/ "}}"
final: "{\"name\":\"final\",\"arguments\":{\"label\":\"" ("fall"|"fight"|"none") "\"}}"
NUMBER: /(0|[1-9][0-9]{0,2})\.[0-9]/
"#;

fn fed(engine: &Engine) -> Session {
    let expected = Expected::read();
    let pairs = expected.encode(engine);
    let mut session = engine.start("").unwrap();
    session.feed(&expected.pieces(&pairs)).unwrap();
    session
}

fn frame(seed: u8) -> Luma {
    let pixels = (0..96 * 64).map(|i| (i as u8).wrapping_mul(seed)).collect();
    Luma { width: 96, height: 64, pixels }
}

#[test]
fn whatever_the_weights_say_the_call_is_json_of_the_grammar() {
    let engine = engine();
    let grammar = Grammar::new(&engine, TOOL_CALL).unwrap();
    let start = fed(&engine);
    let mut names = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let mut session = start.clone();
        session.set_sampling(Sampling::Temperature { t: 1.5, seed });
        let Generated { text, tokens, forced, calls, stopped } =
            session.generate(&grammar, 120).unwrap();
        assert_eq!(stopped, Stopped::Complete, "{text}");
        let (_, call) = text.split_once("<tool_call>\n").expect("a call");
        let call = call.strip_suffix("\n</tool_call>").expect("an end");
        let call: serde_json::Value = serde_json::from_str(call).expect(call);
        names.insert(call["name"].as_str().unwrap().to_owned());
        assert!(forced > 20 && calls + forced <= tokens.len(), "{forced} {calls} {}", tokens.len());
    }
    assert_eq!(names.len(), 2, "50 seeds chose {names:?} only");
}

#[test]
fn a_complete_turn_is_ended_in_the_transcript() {
    let engine = engine();
    let grammar = Grammar::new(&engine, "start: \"yes\" | \"no\"").unwrap();
    let mut session = fed(&engine);
    let before = session.len();
    let generated = session.generate(&grammar, 10).unwrap();
    assert_eq!(session.len(), before + generated.tokens.len() + 1);
    // The turn's end is in the state too: what follows is as if everything had been fed.
    let mut retold = fed(&engine);
    retold.feed_tokens(&generated.tokens).unwrap();
    retold.feed(&[Piece::Text("<|im_end|>")]).unwrap();
    assert_eq!(session.transcript_tokens(), retold.transcript_tokens());
    common::assert_alike("logits", session.logits().unwrap(), retold.logits().unwrap());
}

#[test]
fn forced_tokens_cost_no_run_of_the_decoder() {
    let engine = engine();
    let grammar = Grammar::new(&engine, r#"start: "a person walks and falls " ("yes"|"no") "#);
    let mut session = fed(&engine);
    let calls_before = engine.stats().decoder_calls;
    let generated = session.generate(&grammar.unwrap(), 60).unwrap();
    assert!(generated.tokens.len() > 3, "{generated:?}");
    assert_eq!((generated.calls, engine.stats().decoder_calls - calls_before), (1, 1));
    assert_eq!(generated.forced, generated.tokens.len() - 1);
}

#[test]
fn a_generation_ends_at_its_token_limit_and_can_be_gone_on_from() {
    let engine = engine();
    let grammar = Grammar::new(&engine, TOOL_CALL).unwrap();
    for limit in 0..12 {
        let mut session = fed(&engine);
        let before = session.len();
        let generated = session.generate(&grammar, limit).unwrap();
        assert_eq!(generated.stopped, Stopped::TokenLimit);
        assert_eq!((generated.tokens.len(), session.len()), (limit, before + limit));
        session.feed(&[Piece::Text("<|im_end|>")]).unwrap();
    }
}

#[test]
fn a_full_context_refuses_pieces_and_cuts_speech_short() {
    let engine = engine();
    let max = engine.manifest().decoder.context_max;
    let grammar = Grammar::new(&engine, "start: /[a-z ]{200}/").unwrap();
    let mut session = engine.start("").unwrap();
    session.feed_tokens(&vec![65; max - 20]).unwrap();
    let error = session.feed(&[Piece::Text("!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!")]).unwrap_err();
    assert!(matches!(error, EngineError::ContextFull { .. }), "{error}");
    assert_eq!(session.len(), max - 20);
    let generated = session.generate(&grammar, 150).unwrap();
    assert_eq!((generated.stopped, generated.tokens.len()), (Stopped::TokenLimit, 19));
    assert_eq!(session.generate(&grammar, 150).unwrap().tokens.len(), 0);
}

#[test]
fn a_policy_that_rambles_is_brought_to_an_end() {
    let engine = engine();
    let rambling = r#"start: "{\"words\":\"" /[a-z ]{1,400}/ "\",\"at\":[" NUMBER ("," NUMBER)* "]}"
NUMBER: /[0-9]{1,300}\.[0-9]/
"#;
    let grammar = Grammar::new(&engine, rambling).unwrap();
    for max in [60, 90, 300] {
        let generated = fed(&engine).generate(&grammar, max).unwrap();
        assert_eq!(generated.stopped, Stopped::Complete, "{generated:?}");
        assert!(generated.tokens.len() >= max / 2, "{generated:?}");
        assert!(generated.text.ends_with("]}"));
    }
}

#[test]
fn a_probe_leaves_no_trace_and_reads_the_next_token() {
    let engine = engine();
    let mut session = fed(&engine);
    let before = session.logits().unwrap().to_vec();
    let p = session.yes_no("verdict:\n").unwrap();
    assert_eq!(session.logits().unwrap(), before);
    let mut told = fed(&engine);
    told.feed(&[Piece::Text("verdict:\n")]).unwrap();
    assert_eq!(told.yes_no("").unwrap(), p);
    assert!(p > 0.0 && p < 1.0);
    // By hand, from the logits.
    let mut word = |text| {
        let mut session = engine.start("").unwrap();
        session.feed(&[Piece::Text(text)]).unwrap();
        told.logits().unwrap()[session.transcript_tokens()[0] as usize].exp()
    };
    let (yes, no) = (word("yes"), word("no"));
    assert!((p - yes / (yes + no)).abs() < 1e-6);
}

#[test]
fn the_same_calls_give_the_same_tokens_whatever_ran_before() {
    let run = |engine: &Engine| {
        let grammar = Grammar::new(engine, TOOL_CALL).unwrap();
        let mut session = fed(engine);
        session.set_sampling(Sampling::Temperature { t: 1.0, seed: 7 });
        let first = session.generate(&grammar, 100).unwrap();
        let p = session.yes_no("verdict:\n").unwrap().to_bits();
        session.feed(&[Piece::Text("<|im_start|>assistant\n")]).unwrap();
        let second = session.generate(&grammar, 100).unwrap();
        (first, p, second, session.transcript_tokens().to_vec())
    };
    let busy = engine();
    let first = run(&busy);
    let calm = engine();
    assert_eq!(run(&calm), first);
    assert_eq!(run(&busy), first);
}

#[test]
fn a_pair_has_the_same_tokens_whatever_it_was_encoded_with() {
    let frames: Vec<Luma> = (1..14).map(frame).collect();
    let pairs = |range: std::ops::Range<usize>| -> Vec<PairInput<'_>> {
        let pair = |i: usize| PairInput {
            key: PairKey(i as u64, i as u64 + 1),
            frames: [&frames[i], &frames[i + 1]],
        };
        range.map(pair).collect()
    };
    let together: Vec<Arc<PairTokens>> = engine().encode(&pairs(0..12)).unwrap();
    let alone = engine();
    for (i, tokens) in together.iter().enumerate() {
        assert_eq!(alone.encode(&pairs(i..i + 1)).unwrap()[0], *tokens, "pair {i}");
    }
}

#[test]
fn a_pair_is_encoded_once_and_then_found_by_its_key() {
    let engine = engine();
    let (a, b) = (frame(3), frame(5));
    let pair = PairInput { key: PairKey(1, 2), frames: [&a, &b] };
    let swapped = PairInput { key: PairKey(2, 1), frames: [&b, &a] };
    let first = engine.encode(&[pair, swapped, pair]).unwrap();
    assert!(Arc::ptr_eq(&first[0], &first[2]) && first[0] != first[1]);
    let again = engine.encode(&[pair]).unwrap();
    assert!(Arc::ptr_eq(&first[0], &again[0]));
    let stats = engine.stats();
    assert_eq!((stats.pairs_encoded, stats.pairs_cached), (2, 1));
}

#[test]
fn nothing_is_read_from_an_empty_session_and_no_foreign_pair_is_taken_in() {
    let engine = engine();
    let mut session = engine.start("").unwrap();
    assert!(matches!(session.yes_no(""), Err(EngineError::NothingFed)));
    let grammar = Grammar::new(&engine, "start: \"yes\" | \"no\"").unwrap();
    assert!(matches!(session.generate(&grammar, 5), Err(EngineError::NothingFed)));
    let foreign = PairTokens { tokens: vec![0.0; 7], deepstack: vec![] };
    assert!(matches!(session.feed(&[Piece::Pair(&foreign)]), Err(EngineError::ForeignPair)));
    assert!(session.is_empty());
}

#[test]
fn a_grammar_that_does_not_compile_is_refused_with_its_fault() {
    let error = Grammar::new(&engine(), "start: nowhere").err().unwrap().to_string();
    assert!(error.starts_with("grammar: ") && error.contains("nowhere"), "{error}");
}

#[test]
fn the_report_names_the_backend_of_each_part() {
    let engine = engine();
    let id = engine.id();
    assert_eq!(engine.backend_report(), format!("vision: on {id}\ndecoder: on {id}"));
    assert!(fixture_dir().join("bundle.toml").exists());
}
