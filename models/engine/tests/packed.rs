//! Packed decoders against the plain one, on the policy that the repository carries.

use bundle::{Bundle, DECODER, Manifest};
use engine::{EngineError, EngineOptions, Text, TextDecoder, cosine, packed_tensors};
use half::{bf16, f16};
use kernels::{Aligned, Content, Format, Matrix, Writer};
use safetensors::{Dtype, SafeTensors};
use std::{path::Path, sync::Arc};

fn nano() -> Bundle {
    Bundle::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../nano")).unwrap()
}

fn aligned(bytes: &[u8]) -> Arc<Aligned> {
    let mut aligned = Aligned::zeroed(bytes.len());
    aligned.as_mut_slice().copy_from_slice(bytes);
    Arc::new(aligned)
}

/// The decoder of nano, packed, but for the tensor `without`.
fn packed(bundle: &Bundle, format: Format, without: &str) -> Arc<Aligned> {
    let bytes = bundle.read(DECODER).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let numbers = |name: &str| -> Vec<f32> {
        let tensor = file.tensor(name).unwrap();
        let (halves, words) = (tensor.data().as_chunks::<2>().0, tensor.data().as_chunks::<4>().0);
        match tensor.dtype() {
            Dtype::BF16 => halves.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
            Dtype::F16 => halves.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
            _ => words.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        }
    };
    let mut tensors = packed_tensors(&bundle.manifest.decoder, format);
    tensors.retain(|(name, _)| name != without);
    let mut writer = Writer::new(Vec::new(), tensors.clone(), &[]).unwrap();
    for (name, content) in tensors {
        match content {
            Content::Matrix { format, columns, .. } => {
                let matrix = Matrix::quantise(format, &numbers(&name), columns).unwrap();
                writer.matrix(&name, &matrix).unwrap();
            }
            Content::Numbers(_) => writer.numbers(&name, &numbers(&name)).unwrap(),
        }
    }
    aligned(&writer.finish())
}

fn load(manifest: &Manifest, bytes: &Arc<Aligned>, threads: usize) -> TextDecoder {
    TextDecoder::load(manifest, bytes, None, EngineOptions { threads, ..EngineOptions::default() })
        .unwrap()
}

/// Tokens that nano knows, in no order.
fn tokens(n: u32) -> Vec<u32> {
    (0..n).map(|i| i * 37 % 1000).collect()
}

/// Reads in chunks and gives the logits after each.
fn read(text: &mut Text<'_>, chunks: &[usize]) -> Vec<Vec<f32>> {
    let tokens = tokens(200);
    let mut at = 0;
    let mut next = |n: usize| {
        at += n;
        text.read(&tokens[at - n..at]).unwrap()
    };
    chunks.iter().map(|n| next(*n)).collect()
}

#[test]
fn a_packed_decoder_says_what_the_plain_one_says() {
    let bundle = nano();
    let plain = load(&bundle.manifest, &aligned(&bundle.read(DECODER).unwrap()), 1);
    let chunks = [100, 1, 1, 30, 1];
    let truth = read(&mut plain.start().unwrap(), &chunks);
    for (format, bound) in [(Format::Q8_0, 0.9995), (Format::Q4_0, 0.97)] {
        let decoder = load(&bundle.manifest, &packed(&bundle, format, ""), 1);
        let found = read(&mut decoder.start().unwrap(), &chunks);
        for (found, truth) in found.iter().zip(&truth) {
            let cosine = cosine(found, truth);
            assert!(cosine > bound, "{format}: {cosine}");
        }
    }
}

#[test]
fn threads_and_chunks_do_not_change_a_bit_of_what_a_packed_decoder_says() {
    let bundle = nano();
    let bytes = packed(&bundle, Format::Q4_0, "");
    let one = load(&bundle.manifest, &bytes, 1);
    let three = load(&bundle.manifest, &bytes, 3);
    let whole = read(&mut one.start().unwrap(), &[120, 1]);
    assert_eq!(whole, read(&mut three.start().unwrap(), &[120, 1]));
    assert_eq!(whole[1], read(&mut three.start().unwrap(), &[60, 1, 59, 1])[3]);
}

#[test]
fn a_copy_of_a_text_goes_its_own_way() {
    let bundle = nano();
    let decoder = load(&bundle.manifest, &packed(&bundle, Format::Q8_0, ""), 2);
    let mut text = decoder.start().unwrap();
    text.read(&tokens(90)).unwrap();
    let mut aside = text.clone();
    let expected = text.clone().read(&[5, 6, 7]).unwrap();
    aside.read(&[9; 20]).unwrap();
    assert_eq!(text.read(&[5, 6, 7]).unwrap(), expected);
}

#[test]
fn a_packed_decoder_that_lacks_a_tensor_or_has_another_shape_is_refused_by_its_name() {
    let bundle = nano();
    let refused = |manifest: &Manifest, bytes: &Arc<Aligned>| -> EngineError {
        TextDecoder::load(
            manifest,
            bytes,
            None,
            EngineOptions { threads: 1, ..EngineOptions::default() },
        )
        .err()
        .unwrap()
    };
    for without in
        ["model.language_model.layers.2.mlp.up_proj.weight", "model.language_model.norm.weight"]
    {
        let error = refused(&bundle.manifest, &packed(&bundle, Format::Q4_0, without)).to_string();
        assert!(error.contains(without), "{error}");
    }
    let mut other = bundle.manifest.clone();
    other.decoder.intermediate *= 2;
    let error = refused(&other, &packed(&bundle, Format::Q4_0, "")).to_string();
    assert!(
        error.contains("layers.0.mlp.gate_proj.weight") && error.contains("[512, 128]"),
        "{error}"
    );
}
