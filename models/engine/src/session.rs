//! A session: one conversation with the policy, fed and continued turn by turn.

use crate::{
    EngineError, Grammar, PairTokens,
    backend::{Chunk, DecoderState},
    engine::{Core, Prefix},
    rotary::Walker,
    sampling::{Choice, Sampling},
};
use llguidance::Matcher;
use std::sync::Arc;

/// Positions of one run of the decoder: bounds the memory of a long prefill. Of 64 to 512, measured
/// on the shape of 2B, this is the fastest: more leave the cache, and memory is asked for anew.
pub(crate) const CHUNK: usize = 256;

/// When no more than one part in so many of the tokens is left, what is being written is brought to an
/// end: half an operator is none.
const CLOSING_SHARE: usize = 2;

/// Something to be fed.
#[derive(Clone, Copy, Debug)]
pub enum Piece<'a> {
    /// Text. Special tokens written out in it are recognised; nothing is added. Each piece is
    /// tokenised by itself.
    Text(&'a str),
    /// A frame pair: `<|vision_start|>`, its visual tokens, `<|vision_end|>`.
    Pair(&'a PairTokens),
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The grammar was complete; the turn was ended with `<|im_end|>`.
    Complete,
    /// `max_tokens` or the context was used up; the text is a true prefix of the grammar, the turn
    /// was not ended.
    TokenLimit,
}

/// What a generation gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// The text, special tokens written out, without the final `<|im_end|>`.
    pub text: String,
    /// The tokens, without the final `<|im_end|>`.
    pub tokens: Vec<u32>,
    /// How many of them the grammar left no choice about.
    pub forced: usize,
    /// Runs of the decoder.
    pub calls: usize,
    /// Why it ended.
    pub stopped: Stopped,
}

/// One conversation with the policy. Its keys and values are kept from turn to turn. A clone goes
/// its own way.
pub struct Session {
    core: Arc<Core>,
    state: Box<dyn DecoderState>,
    /// Every token so far; of these the first `done` went through the decoder. The others are the
    /// end of a generation: they cost no run of their own but go with what is fed next.
    ids: Vec<u32>,
    done: usize,
    walker: Walker,
    /// Logits after token `done`; empty if that is none.
    logits: Vec<f32>,
    choice: Choice,
}

impl Session {
    /// Takes in `pieces`, in one run of the decoder unless they are very long.
    ///
    /// # Errors
    /// [`EngineError::ContextFull`] or [`EngineError::ForeignPair`], before anything was taken in;
    /// or a failure of the decoder, after which the session is of no use.
    pub fn feed(&mut self, pieces: &[Piece<'_>]) -> Result<(), EngineError> {
        let (mut ids, mut pairs) = (Vec::new(), Vec::new());
        for piece in pieces {
            match piece {
                Piece::Text(text) => ids.extend(self.core.vocabulary.encode(text)?),
                Piece::Pair(pair) => {
                    self.check(pair)?;
                    let words = &self.core.vocabulary;
                    ids.push(words.vision_start);
                    pairs.push((self.ids.len() + ids.len(), *pair));
                    ids.resize(ids.len() + self.core.manifest.geometry.tokens_per_pair, words.pad);
                    ids.push(words.vision_end);
                }
            }
        }
        let (needed, max) = (self.ids.len() + ids.len(), self.core.manifest.decoder.context_max);
        if needed > max {
            return Err(EngineError::ContextFull { needed, max });
        }
        self.ids.extend(ids);
        self.run(&pairs)
    }

    /// P(yes) / (P(yes) + P(no)) of the next token after `probe`, which leaves no trace in the
    /// session. Without a probe it is read from where the session stands.
    ///
    /// # Errors
    /// If nothing was ever fed, the probe does not fit into the context, or the decoder fails.
    pub fn yes_no(&mut self, probe: &str) -> Result<f32, EngineError> {
        self.run(&[])?;
        let (yes, no) = (self.core.vocabulary.yes, self.core.vocabulary.no);
        if probe.is_empty() {
            if self.logits.is_empty() {
                return Err(EngineError::NothingFed);
            }
            let difference = self.logits[yes as usize] - self.logits[no as usize];
            return Ok(1.0 / (1.0 + (-difference).exp()));
        }
        let mut aside = self.clone();
        aside.feed(&[Piece::Text(probe)])?;
        aside.yes_no("")
    }

    /// Lets the policy speak, within `grammar` and at most `max_tokens` tokens.
    ///
    /// Tokens that the grammar forces are not asked for: they go through the decoder together with
    /// the chosen token before them, so that there is one run for each choice.
    ///
    /// When half of `max_tokens` is used, texts and lists are closed as soon as the grammar lets
    /// them, so that a policy that rambles ends its turn all the same.
    ///
    /// # Errors
    /// If nothing was ever fed, the grammar leads into a dead end, or the decoder fails.
    pub fn generate(
        &mut self,
        grammar: &Grammar,
        max_tokens: usize,
    ) -> Result<Generated, EngineError> {
        // One position is kept for the end of the turn.
        let room = self.core.manifest.decoder.context_max.saturating_sub(self.ids.len() + 1);
        let limit = max_tokens.min(room);
        let start = self.ids.len();
        let (mut forced, mut calls) = (0, 0);
        let mut matcher = grammar.begin();
        let stopped = loop {
            let mut sure = matcher.consume_ff_tokens();
            let left = limit - (self.ids.len() - start);
            let cut = sure.len() > left;
            sure.truncate(left);
            forced += sure.len();
            self.ids.extend(sure);
            if cut {
                break Stopped::TokenLimit;
            }
            if matcher.is_stopped() {
                check(&matcher)?;
                break Stopped::Complete;
            }
            if self.ids.len() - start >= limit {
                break Stopped::TokenLimit;
            }
            let mask = matcher.compute_mask_or_eos().map_err(dead_end)?;
            let token = match mask.num_set() {
                0 => return Err(dead_end("no token is possible")),
                1 => {
                    forced += 1;
                    mask.first_bit_set().unwrap_or_default() as u32
                }
                _ => {
                    let left = limit - (self.ids.len() - start);
                    let closing = self.core.vocabulary.closing(&mask);
                    match closing.filter(|_| left <= limit / CLOSING_SHARE) {
                        Some(token) => token,
                        None => {
                            calls += usize::from(self.done < self.ids.len());
                            self.run(&[])?;
                            if self.logits.is_empty() {
                                return Err(EngineError::NothingFed);
                            }
                            self.choice.choose(&self.logits, &mask)
                        }
                    }
                }
            };
            if token == self.core.vocabulary.turn_end {
                break Stopped::Complete;
            }
            matcher.consume_token(token).map_err(dead_end)?;
            self.ids.push(token);
        };
        let tokens = self.ids[start..].to_vec();
        if stopped == Stopped::Complete {
            self.ids.push(self.core.vocabulary.turn_end);
        }
        let text = self.core.vocabulary.decode(&tokens);
        Ok(Generated { text, tokens, forced, calls, stopped })
    }

    /// How the next token is chosen; greedily unless this was called.
    pub fn set_sampling(&mut self, sampling: Sampling) {
        self.choice = Choice::new(sampling);
    }

    /// Every token fed or generated so far, the prefix included. A visual token is `<|video_pad|>`.
    pub fn transcript_tokens(&self) -> &[u32] {
        &self.ids
    }

    /// How many tokens that is.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether nothing was fed yet.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Logits of the next token, `[vocab]`; empty if nothing was ever fed.
    ///
    /// # Errors
    /// If the decoder fails.
    pub fn logits(&mut self) -> Result<&[f32], EngineError> {
        self.run(&[])?;
        Ok(&self.logits)
    }

    /// Appends tokens as they are, for a caller that decodes by itself.
    ///
    /// # Errors
    /// As [`Session::feed`].
    ///
    /// # Panics
    /// If a token is not below the bundle's `vocab`.
    pub fn feed_tokens(&mut self, tokens: &[u32]) -> Result<(), EngineError> {
        let (needed, max) = (self.ids.len() + tokens.len(), self.core.manifest.decoder.context_max);
        if needed > max {
            return Err(EngineError::ContextFull { needed, max });
        }
        self.ids.extend(tokens);
        self.run(&[])
    }

    pub(crate) fn empty(core: Arc<Core>) -> Result<Self, EngineError> {
        let state = core.decoder().start()?;
        Ok(Self {
            core,
            state,
            ids: Vec::new(),
            done: 0,
            walker: Walker::default(),
            logits: Vec::new(),
            choice: Choice::new(Sampling::Greedy),
        })
    }

    pub(crate) fn after(core: Arc<Core>, prefix: &Prefix) -> Self {
        Self {
            core,
            state: prefix.state.fork(),
            ids: prefix.ids.clone(),
            done: prefix.ids.len(),
            walker: prefix.walker.clone(),
            logits: prefix.logits.clone(),
            choice: Choice::new(Sampling::Greedy),
        }
    }

    pub(crate) fn as_prefix(&self, text: &str, accelerated: bool) -> Prefix {
        Prefix {
            text: text.to_owned(),
            ids: self.ids.clone(),
            walker: self.walker.clone(),
            logits: self.logits.clone(),
            state: self.state.fork(),
            accelerated,
        }
    }

    /// Runs everything that has not gone through the decoder yet. `pairs` says at which token the
    /// visual tokens of a pair begin; pads elsewhere are text like any other.
    fn run(&mut self, pairs: &[(usize, &PairTokens)]) -> Result<(), EngineError> {
        while self.done < self.ids.len() {
            let end = self.ids.len().min(self.done + CHUNK);
            let chunk = self.chunk(end, pairs);
            self.core.counters.decoder_ran(chunk.positions.len());
            self.done += chunk.positions.len();
            self.logits = self.state.step(chunk)?;
        }
        Ok(())
    }

    /// The tokens from `done` to `end`, or a little further: a pair is never cut.
    fn chunk(&mut self, end: usize, pairs: &[(usize, &PairTokens)]) -> Chunk {
        let geometry = &self.core.manifest.geometry;
        let hidden = self.core.manifest.decoder.hidden;
        let mut positions = Vec::new();
        let mut embeddings = Vec::new();
        let mut deepstack = vec![Vec::new(); geometry.deepstack];
        let mut at = self.done;
        while at < end {
            if let Some((_, pair)) = pairs.iter().find(|(start, _)| *start == at) {
                positions.extend(self.walker.pair(geometry.grid));
                embeddings.extend_from_slice(&pair.tokens);
                for (rows, feature) in deepstack.iter_mut().zip(&pair.deepstack) {
                    // Text before it was left out so far; it gets nothing.
                    rows.resize(embeddings.len() - pair.tokens.len(), 0.0);
                    rows.extend_from_slice(feature);
                }
                at += geometry.tokens_per_pair;
            } else {
                positions.push(self.walker.text());
                let start = embeddings.len();
                embeddings.resize(start + hidden, 0.0);
                self.core.decoder().embed(self.ids[at], &mut embeddings[start..]);
                at += 1;
            }
        }
        for rows in &mut deepstack {
            rows.resize(positions.len() * hidden, 0.0);
        }
        Chunk { positions, embeddings, deepstack }
    }

    /// Whether a pair has the sizes of this bundle.
    fn check(&self, pair: &PairTokens) -> Result<(), EngineError> {
        let geometry = &self.core.manifest.geometry;
        let size = geometry.tokens_per_pair * self.core.manifest.decoder.hidden;
        let sound = pair.tokens.len() == size
            && pair.deepstack.len() == geometry.deepstack
            && pair.deepstack.iter().all(|feature| feature.len() == size);
        if sound { Ok(()) } else { Err(EngineError::ForeignPair) }
    }
}

impl Clone for Session {
    fn clone(&self) -> Self {
        Self {
            core: self.core.clone(),
            state: self.state.fork(),
            ids: self.ids.clone(),
            done: self.done,
            walker: self.walker.clone(),
            logits: self.logits.clone(),
            choice: self.choice.clone(),
        }
    }
}

/// llguidance keeps its errors inside the matcher, which then counts as stopped.
fn check(matcher: &Matcher) -> Result<(), EngineError> {
    matcher.get_error().map_or(Ok(()), |reason| Err(dead_end(reason)))
}

fn dead_end(reason: impl std::fmt::Display) -> EngineError {
    EngineError::Grammar { reason: format!("{reason:#}") }
}
