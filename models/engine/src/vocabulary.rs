//! The tokenizer of a bundle, and the tokens that the engine itself writes.

use crate::EngineError;
use bundle::Manifest;
use std::sync::Arc;
use toktrie::{SimpleVob, TokEnv, TokTrie};
use toktrie_hf_tokenizers::{ByteTokenizer, ByteTokenizerEnv};

/// The tokenizer of a bundle.
pub(crate) struct Vocabulary {
    tokenizer: Arc<ByteTokenizerEnv>,
    /// `<|vision_start|>`.
    pub vision_start: u32,
    /// `<|video_pad|>`: stands for a visual token in the ids.
    pub pad: u32,
    /// `<|vision_end|>`.
    pub vision_end: u32,
    /// `<|im_end|>`: ends a turn.
    pub turn_end: u32,
    /// The token that means yes.
    pub yes: u32,
    /// The token that means no.
    pub no: u32,
    /// What ends a text, a list, an object, a line, and the whole part of a number.
    closing: Vec<u32>,
}

impl Vocabulary {
    pub fn parse(manifest: &Manifest, json: &[u8]) -> Result<Self, EngineError> {
        let unusable =
            |e: &dyn std::fmt::Display| EngineError::Tokenizer { reason: format!("{e:#}") };
        let mut tokenizer = ByteTokenizer::from_json_bytes(json).map_err(|e| unusable(&e))?;
        let hf = &tokenizer.hf_tokenizer;
        let special = |token: &str| {
            hf.token_to_id(token).ok_or_else(|| EngineError::TokenMissing {
                token: token.to_owned(),
                needed_for: "every Qwen3-VL policy needs it",
            })
        };
        let answer = |token: &str, needed_for| match hf.encode_fast(token, false) {
            Ok(encoding) if encoding.get_ids().len() == 1 => Ok(encoding.get_ids()[0]),
            _ => Err(EngineError::TokenMissing { token: token.to_owned(), needed_for }),
        };
        let (vision_start, vision_end) = (special("<|vision_start|>")?, special("<|vision_end|>")?);
        let (pad, turn_end) = (special("<|video_pad|>")?, special("<|im_end|>")?);
        let yes = answer(&manifest.prompts.yes, "bundle.toml names it in prompts.yes")?;
        let no = answer(&manifest.prompts.no, "bundle.toml names it in prompts.no")?;
        let closing = ["\"", "]", "}", "\n", "."];
        let closing = closing.iter().filter_map(|end| answer(end, "").ok()).collect();
        let (tokens, rows) = (hf.get_vocab_size(true), manifest.decoder.vocab);
        if tokens > rows {
            let reason = format!("it has {tokens} tokens and the decoder only {rows}");
            return Err(EngineError::Tokenizer { reason });
        }
        // A grammar that is complete may be ended by the turn's end, and by nothing else.
        tokenizer.set_eos_token(turn_end);
        let tokenizer = ByteTokenizerEnv::new(tokenizer, Some(rows)).map_err(|e| unusable(&e))?;
        let tokenizer = Arc::new(tokenizer);
        Ok(Self { tokenizer, vision_start, pad, vision_end, turn_end, yes, no, closing })
    }

    /// Tokens of `text`; special tokens written out in it are recognised, nothing is added.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, EngineError> {
        let encoding = self.tokenizer.tokenizer.hf_tokenizer.encode_fast(text, false);
        let encoding = encoding.map_err(|e| EngineError::Tokenizer { reason: e.to_string() })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of `tokens`, special tokens written out. Bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, tokens: &[u32]) -> String {
        self.trie().decode_str(tokens)
    }

    /// The token among `allowed` that brings what is being written to an end, if there is one.
    pub fn closing(&self, allowed: &SimpleVob) -> Option<u32> {
        self.closing.iter().copied().find(|token| allowed.is_allowed(*token))
    }

    /// As llguidance wants it.
    pub fn token_env(&self) -> TokEnv {
        self.tokenizer.clone()
    }

    fn trie(&self) -> &TokTrie {
        &self.tokenizer.tok_trie
    }
}
