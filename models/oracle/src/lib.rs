//! Oracle traces: what a policy that knew the truth would have looked at, as training data.
#![forbid(unsafe_code)]
