//! The software of an edge camera that looks back before it speaks.
fn main() {}
