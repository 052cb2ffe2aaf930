//! The simulated camera: procedural surveillance scenes with ground truth, any moment at random.
#![forbid(unsafe_code)]
