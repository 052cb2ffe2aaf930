//! The engine computes what PyTorch computes.

mod common;

use common::{Expected, assert_alike, engine, engine_of};
use engine::{Engine, Session};

fn argmax(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.unwrap().0 as u32
}

/// A session that was fed the whole conversation at once.
fn fed(engine: &Engine, expected: &Expected) -> Session {
    let pairs = expected.encode(engine);
    let mut session = engine.start("").unwrap();
    session.feed(&expected.pieces(&pairs)).unwrap();
    session
}

/// Decodes token by token as PyTorch did and compares every row.
#[track_caller]
fn assert_decodes(session: &mut Session, expected: &Expected) {
    for (step, (&token, row)) in expected.greedy.iter().zip(&expected.greedy_logits).enumerate() {
        let logits = session.logits().unwrap();
        assert_alike(&format!("logits of step {step}"), logits, row);
        assert_eq!(argmax(logits), token, "step {step}");
        session.feed_tokens(&[token]).unwrap();
    }
}

#[test]
fn visual_tokens_and_deepstack_features_are_those_of_the_tower() {
    let (engine, expected) = (engine(), Expected::read());
    let pairs = expected.encode(&engine);
    assert_alike("tokens", &pairs[0].tokens, &expected.pair_0_tokens);
    assert_alike("deepstack_1", &pairs[0].deepstack[1], &expected.pair_0_deepstack_1);
}

#[test]
fn one_prefill_and_sixteen_greedy_steps_are_those_of_the_reference() {
    let (engine, expected) = (engine(), Expected::read());
    let mut session = fed(&engine, &expected);
    assert_eq!(session.transcript_tokens(), expected.ids);
    assert_decodes(&mut session, &expected);
}

#[test]
fn a_prefill_in_pieces_is_that_of_the_reference_after_every_piece() {
    let (engine, expected) = (engine(), Expected::read());
    let pairs = expected.encode(&engine);
    let mut session = engine.start("").unwrap();
    for (i, (piece, row)) in expected.pieces(&pairs).iter().zip(&expected.step_logits).enumerate() {
        session.feed(&[*piece]).unwrap();
        assert_alike(&format!("piece {i}"), session.logits().unwrap(), row);
    }
    assert_eq!(session.transcript_tokens(), expected.ids);
    assert_decodes(&mut session, &expected);
}

#[test]
fn a_cached_prefix_gives_what_the_reference_gives() {
    let (engine, expected) = (engine(), Expected::read());
    let pairs = expected.encode(&engine);
    let pieces = expected.pieces(&pairs);
    let engine::Piece::Text(prefix) = pieces[0] else { panic!("the first piece is text") };
    for _ in 0..2 {
        let mut session = engine.start(prefix).unwrap();
        session.feed(&pieces[1..]).unwrap();
        assert_decodes(&mut session, &expected);
    }
    let stats = engine.stats();
    assert_eq!((stats.prefixes_computed, stats.prefixes_cached), (1, 1));
}

#[test]
fn a_clone_goes_its_own_way_and_leaves_the_original_alone() {
    let (engine, expected) = (engine(), Expected::read());
    let mut original = fed(&engine, &expected);
    let mut astray = original.clone();
    let mut twin = original.clone();
    astray.feed_tokens(&[300, 301, 302]).unwrap();
    assert_decodes(&mut original, &expected);
    assert_decodes(&mut twin, &expected);
    assert_eq!(astray.len(), expected.ids.len() + 3);
}

#[test]
fn two_threads_compute_the_same_bits_as_one() {
    // Products this small stay on one thread unless told otherwise.
    tract_linalg::multithread::set_threading_panel_threshold(0);
    tract_linalg::multithread::set_threading_element_threshold(0);
    let expected = Expected::read();
    let logits = |threads| {
        let engine = engine_of(threads);
        fed(&engine, &expected).logits().unwrap().to_vec()
    };
    assert_eq!(logits(1), logits(2));
}
