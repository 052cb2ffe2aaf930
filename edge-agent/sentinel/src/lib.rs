//! The always-on gate: decides when an inquiry is worth its cost.
#![forbid(unsafe_code)]
