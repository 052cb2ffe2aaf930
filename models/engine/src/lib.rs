//! Inference of a policy: frames and tokens in, tokens and probabilities out.
#![forbid(unsafe_code)]
