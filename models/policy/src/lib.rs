//! The language of the interleaved policy: operators, hypotheses, transcript, grammar, budgets.
#![forbid(unsafe_code)]
