//! The closed loop: policy and frame store, within budgets, until a verdict.
#![forbid(unsafe_code)]
