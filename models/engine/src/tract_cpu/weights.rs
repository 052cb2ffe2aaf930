//! Tensors of a safetensors file, by name, with the shape that the manifest implies.

use crate::EngineError;
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

/// A part of plain tensors.
pub(super) struct Weights<'a> {
    tensors: SafeTensors<'a>,
    /// Its name, for errors.
    part: &'static str,
}

impl<'a> Weights<'a> {
    pub fn parse(part: &'static str, bytes: &'a [u8]) -> Result<Self, EngineError> {
        SafeTensors::deserialize(bytes)
            .map(|tensors| Self { tensors, part })
            .map_err(|e| EngineError::Weights { part, reason: e.to_string() })
    }

    /// Names and shapes of all tensors.
    pub fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        let shape =
            |(name, tensor): (&str, TensorView<'_>)| (name.to_owned(), tensor.shape().to_vec());
        self.tensors.iter().map(shape).collect()
    }

    /// The tensor `name` as f32, whatever floating-point type it is stored in.
    pub fn f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, EngineError> {
        let part = self.part;
        let tensor = self
            .tensors
            .tensor(name)
            .map_err(|_| EngineError::TensorMissing { part, tensor: name.to_owned() })?;
        if tensor.shape() != shape {
            return Err(EngineError::TensorShape {
                part,
                tensor: name.to_owned(),
                expected: shape.to_vec(),
                found: tensor.shape().to_vec(),
            });
        }
        let (halves, words) = (tensor.data().chunks_exact(2), tensor.data().chunks_exact(4));
        match tensor.dtype() {
            Dtype::F32 => Ok(words.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()),
            Dtype::F16 => Ok(halves.map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()),
            Dtype::BF16 => Ok(halves.map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect()),
            other => Err(EngineError::TensorType {
                part,
                tensor: name.to_owned(),
                found: format!("{other:?}"),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(dtype: Dtype, bytes: &[u8]) -> Vec<u8> {
        let tensor = TensorView::new(dtype, vec![2], bytes).unwrap();
        safetensors::serialize([("x", tensor)], None).unwrap()
    }

    #[test]
    fn every_floating_point_type_reads_as_the_same_numbers() {
        let numbers = [1.5f32, -0.25];
        let f32s: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        let f16s: Vec<u8> = numbers.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect();
        let bf16s: Vec<u8> =
            numbers.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect();
        for (dtype, bytes) in [(Dtype::F32, f32s), (Dtype::F16, f16s), (Dtype::BF16, bf16s)] {
            let file = file(dtype, &bytes);
            assert_eq!(Weights::parse("decoder", &file).unwrap().f32("x", &[2]).unwrap(), numbers);
        }
    }

    #[test]
    fn a_wrong_tensor_is_named_with_what_is_wrong() {
        let file = file(Dtype::I16, &[0; 4]);
        let weights = Weights::parse("decoder", &file).unwrap();
        let sentence = |name, shape: &[usize]| weights.f32(name, shape).unwrap_err().to_string();
        assert!(sentence("y", &[2]).contains("has no tensor 'y'"));
        assert!(sentence("x", &[3]).contains("'x' of part 'decoder' has shape [2]"));
        assert!(sentence("x", &[2]).contains("'x' of part 'decoder' holds I16 elements"));
        assert!(Weights::parse("decoder", &file[..20]).is_err());
    }
}
