//! Tensors of a safetensors file, by name, with the shape that the manifest implies.

use crate::EngineError;
use bundle::DECODER;
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};

/// The `decoder` part.
pub(super) struct Weights<'a>(SafeTensors<'a>);

impl<'a> Weights<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Self, EngineError> {
        SafeTensors::deserialize(bytes)
            .map(Self)
            .map_err(|e| EngineError::Weights { reason: e.to_string() })
    }

    /// The tensor `name` as f32, whatever floating-point type it is stored in.
    pub fn f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, EngineError> {
        let tensor = self
            .0
            .tensor(name)
            .map_err(|_| EngineError::TensorMissing { part: DECODER, tensor: name.to_owned() })?;
        if tensor.shape() != shape {
            return Err(EngineError::TensorShape {
                part: DECODER,
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
                tensor: name.to_owned(),
                found: format!("{other:?}"),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::TensorView;

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
            assert_eq!(Weights::parse(&file).unwrap().f32("x", &[2]).unwrap(), numbers);
        }
    }

    #[test]
    fn a_wrong_tensor_is_named_with_what_is_wrong() {
        let file = file(Dtype::I16, &[0; 4]);
        let weights = Weights::parse(&file).unwrap();
        let sentence = |name, shape: &[usize]| weights.f32(name, shape).unwrap_err().to_string();
        assert!(sentence("y", &[2]).contains("has no tensor 'y'"));
        assert!(sentence("x", &[3]).contains("'x' of part 'decoder' has shape [2]"));
        assert!(sentence("x", &[2]).contains("'x' of part 'decoder' holds I16 elements"));
        assert!(Weights::parse(&file[..20]).is_err());
    }
}
