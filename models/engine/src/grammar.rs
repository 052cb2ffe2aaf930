//! Grammars that a generation keeps to.

use crate::{Engine, EngineError};
use llguidance::{Matcher, ParserFactory, api::TopLevelGrammar};

/// A compiled grammar. Cheap to clone; every generation works on a clone of its own.
#[derive(Clone)]
pub struct Grammar {
    matcher: Matcher,
}

impl Grammar {
    /// Compiles a grammar in llguidance's Lark dialect for the tokenizer of `engine`.
    ///
    /// Special tokens are written without quotes (`<tool_call>`), everything else in quotes or as a
    /// regular expression. Bound every regular expression: one that can go on for ever does.
    ///
    /// # Errors
    /// [`EngineError::Grammar`] if it does not compile.
    pub fn new(engine: &Engine, lark: &str) -> Result<Self, EngineError> {
        Self::compile(engine.grammars(), lark)
    }

    pub(crate) fn compile(factory: &ParserFactory, lark: &str) -> Result<Self, EngineError> {
        let matcher =
            Matcher::new(factory.create_parser(TopLevelGrammar::from_lark(lark.to_owned())));
        match matcher.get_error() {
            None => Ok(Self { matcher }),
            Some(reason) => Err(EngineError::Grammar { reason }),
        }
    }

    /// A matcher at the beginning of the grammar. All of them share the lexer's automaton, which is
    /// built as it is used and cannot outgrow the grammar, so that only the first turns are slow.
    pub(crate) fn begin(&self) -> Matcher {
        self.matcher.clone()
    }
}
