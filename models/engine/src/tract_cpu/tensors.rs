//! Tensors of a packed file, by name, with the shape that the manifest implies.

use crate::EngineError;
use kernels::{Matrix, PackedFile};

/// A packed part.
pub(super) struct Tensors<'a> {
    pub file: &'a PackedFile,
    /// Its name, for errors.
    pub part: &'static str,
}

impl Tensors<'_> {
    /// The matrix `tensor`.
    pub fn matrix(&self, tensor: &str, rows: usize, columns: usize) -> Result<Matrix, EngineError> {
        let matrix = self.file.matrix(tensor).ok_or_else(|| self.missing(tensor))?;
        self.check(tensor, &[rows, columns], &[matrix.rows(), matrix.columns()])?;
        Ok(matrix.clone())
    }

    /// The numbers `tensor`.
    pub fn numbers(&self, tensor: &str, count: usize) -> Result<Vec<f32>, EngineError> {
        let numbers = self.file.numbers(tensor).ok_or_else(|| self.missing(tensor))?;
        self.check(tensor, &[count], &[numbers.len()])?;
        Ok(numbers.to_vec())
    }

    fn missing(&self, tensor: &str) -> EngineError {
        EngineError::TensorMissing { part: self.part, tensor: tensor.to_owned() }
    }

    fn check(&self, tensor: &str, expected: &[usize], found: &[usize]) -> Result<(), EngineError> {
        if expected == found {
            return Ok(());
        }
        Err(EngineError::TensorShape {
            part: self.part,
            tensor: tensor.to_owned(),
            expected: expected.to_vec(),
            found: found.to_vec(),
        })
    }
}
