//! Packed weights as a file: safetensors, whose bytes are used where they lie.
//!
//! A matrix is a tensor of bytes, its panels; what they mean is in the file's metadata, by the
//! tensor's name: `q4_0 2048x6144`. Norms are plain numbers. The header is filled up with blanks so
//! that every matrix begins on a cache line.

use crate::{Aligned, Format, Matrix, Region};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};
use std::{
    collections::HashMap,
    io::{self, Write},
    sync::Arc,
};

/// In the metadata of every packed file.
const MARK: (&str, &str) = ("lookback", "packed-1");

/// Bytes to which the start of the data is filled up.
const LINE: usize = 64;

/// What a tensor of a packed file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Quantised weights `[rows, columns]`.
    Matrix {
        /// How they are written.
        format: Format,
        /// How many rows.
        rows: usize,
        /// How long a row is.
        columns: usize,
    },
    /// Plain numbers.
    Numbers(usize),
}

impl Content {
    /// Bytes in the file.
    pub fn bytes(&self) -> usize {
        match *self {
            Self::Matrix { format, rows, columns } => format.bytes(rows, columns),
            Self::Numbers(count) => count * size_of::<f32>(),
        }
    }
}

/// Why a file is no packed file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is not safetensors, or damaged.
    #[error("it is no whole safetensors file: {0}")]
    Malformed(String),
    /// A tensor is not what the metadata says.
    #[error("tensor '{tensor}': {reason}")]
    Tensor {
        /// Its name.
        tensor: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// A packed file in memory.
#[derive(Clone, Debug)]
pub struct PackedFile {
    matrices: HashMap<String, Matrix>,
    numbers: HashMap<String, Vec<f32>>,
    notes: HashMap<String, String>,
}

impl PackedFile {
    /// Whether `bytes` begin as a packed file does. Anything else may still be safetensors.
    pub fn is(bytes: &[u8]) -> bool {
        let metadata = SafeTensors::read_metadata(bytes);
        let mark = |found: &HashMap<String, String>| found.get(MARK.0).is_some_and(|v| v == MARK.1);
        metadata.is_ok_and(|(_, m)| m.metadata().as_ref().is_some_and(mark))
    }

    /// Finds the tensors in `bytes`. Matrices stay where they are; they share the memory.
    ///
    /// # Errors
    /// [`FileError`], with the tensor's name.
    pub fn parse(bytes: &Arc<Aligned>) -> Result<Self, FileError> {
        let malformed = |e: safetensors::SafeTensorError| FileError::Malformed(e.to_string());
        let (header, metadata) = SafeTensors::read_metadata(bytes).map_err(malformed)?;
        // Also checks that the data is as long as the header says.
        SafeTensors::deserialize(bytes).map_err(malformed)?;
        let start = header + size_of::<u64>();
        let none = HashMap::new();
        let kinds = metadata.metadata().as_ref().unwrap_or(&none);
        let (matrices, numbers) = (HashMap::new(), HashMap::new());
        let mut file = Self { matrices, numbers, notes: kinds.clone() };
        for (name, info) in metadata.tensors() {
            let wrong = |reason: String| FileError::Tensor { tensor: name.clone(), reason };
            let (from, to) = (start + info.data_offsets.0, start + info.data_offsets.1);
            match (info.dtype, kinds.get(&name).map(|kind| parse_kind(kind))) {
                (Dtype::U8, Some(Some((format, rows, columns)))) => {
                    let region = Region::of(bytes, from, to - from)
                        .ok_or_else(|| wrong("it does not begin on a cache line".into()))?;
                    let matrix = Matrix::new(format, rows, columns, region);
                    let matrix = matrix.map_err(|e| wrong(e.to_string()))?;
                    file.matrices.insert(name, matrix);
                }
                (Dtype::F32, None) => {
                    let numbers = bytes[from..to].as_chunks::<4>().0;
                    let numbers = numbers.iter().map(|b| f32::from_le_bytes(*b)).collect();
                    file.numbers.insert(name, numbers);
                }
                (dtype, _) => {
                    return Err(wrong(format!("{dtype:?} is neither packed weights nor numbers")));
                }
            }
        }
        Ok(file)
    }

    /// The matrix `name`, if there is one.
    pub fn matrix(&self, name: &str) -> Option<&Matrix> {
        self.matrices.get(name)
    }

    /// What was written beside the tensors under `name`, if anything.
    pub fn note(&self, name: &str) -> Option<&str> {
        self.notes.get(name).map(String::as_str)
    }

    /// The numbers `name`, if there are any.
    pub fn numbers(&self, name: &str) -> Option<&[f32]> {
        self.numbers.get(name).map(Vec::as_slice)
    }
}

fn parse_kind(kind: &str) -> Option<(Format, usize, usize)> {
    let (format, shape) = kind.split_once(' ')?;
    let (rows, columns) = shape.split_once('x')?;
    Some((format.parse().ok()?, rows.parse().ok()?, columns.parse().ok()?))
}

/// Writes a packed file, one tensor at a time.
pub struct Writer<W> {
    to: W,
    /// What is to come, in the order of the file.
    expected: std::vec::IntoIter<(String, Content)>,
}

impl<W> Writer<W> {
    /// Matrices first, whose panels are whole cache lines, then numbers; otherwise as given.
    pub fn order(mut tensors: Vec<(String, Content)>) -> Vec<(String, Content)> {
        tensors.sort_by_key(|(_, content)| matches!(content, Content::Numbers(_)));
        tensors
    }
}

impl<W: Write> Writer<W> {
    /// Writes the header, with `notes` beside the tensors. These have to follow in the order that
    /// [`Writer::order`] gives.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn new(
        mut to: W,
        tensors: Vec<(String, Content)>,
        notes: &[(&str, &str)],
    ) -> io::Result<Self> {
        let tensors = Self::order(tensors);
        let mut metadata = Map::new();
        metadata.insert(MARK.0.into(), MARK.1.into());
        metadata.extend(notes.iter().map(|(name, note)| ((*name).into(), (*note).into())));
        let mut header = Map::new();
        header.insert("__metadata__".into(), Value::Null);
        let mut at = 0;
        for (name, content) in &tensors {
            let bytes = content.bytes();
            let (dtype, shape) = match content {
                Content::Matrix { format, rows, columns } => {
                    metadata.insert(name.clone(), format!("{format} {rows}x{columns}").into());
                    ("U8", bytes)
                }
                Content::Numbers(count) => ("F32", *count),
            };
            let offsets = [at, at + bytes];
            let entry = json!({"dtype": dtype, "shape": [shape], "data_offsets": offsets});
            header.insert(name.clone(), entry);
            at += bytes;
        }
        header.insert("__metadata__".into(), metadata.into());
        let mut text = Value::Object(header).to_string();
        let length = (size_of::<u64>() + text.len()).next_multiple_of(LINE) - size_of::<u64>();
        text.extend(std::iter::repeat_n(' ', length - text.len()));
        to.write_all(&(text.len() as u64).to_le_bytes())?;
        to.write_all(text.as_bytes())?;
        Ok(Self { to, expected: tensors.into_iter() })
    }

    /// Writes the next tensor, a matrix.
    ///
    /// # Errors
    /// If it cannot be written.
    ///
    /// # Panics
    /// If something else comes next.
    pub fn matrix(&mut self, name: &str, matrix: &Matrix) -> io::Result<()> {
        let (format, rows, columns) = (matrix.format(), matrix.rows(), matrix.columns());
        self.expect(name, &Content::Matrix { format, rows, columns });
        self.to.write_all(matrix.data())
    }

    /// Writes the next tensor, a matrix that comes in parts of whole panels, so that no more than a
    /// part need be in memory.
    ///
    /// # Errors
    /// If it cannot be written, or a part cannot be had.
    ///
    /// # Panics
    /// If something else comes next, or the parts are not the matrix.
    pub fn parts<E: From<io::Error>>(
        &mut self,
        name: &str,
        content: &Content,
        parts: impl IntoIterator<Item = Result<Matrix, E>>,
    ) -> Result<(), E> {
        self.expect(name, content);
        let mut written = 0;
        for part in parts {
            let part = part?;
            self.to.write_all(part.data())?;
            written += part.data().len();
        }
        assert_eq!(written, content.bytes(), "the parts are the whole");
        Ok(())
    }

    /// Writes the next tensor, numbers.
    ///
    /// # Errors
    /// If they cannot be written.
    ///
    /// # Panics
    /// If something else comes next.
    pub fn numbers(&mut self, name: &str, numbers: &[f32]) -> io::Result<()> {
        self.expect(name, &Content::Numbers(numbers.len()));
        numbers.iter().try_for_each(|number| self.to.write_all(&number.to_le_bytes()))
    }

    /// Gives back what was written to.
    ///
    /// # Panics
    /// If a tensor is missing.
    pub fn finish(mut self) -> W {
        assert_eq!(self.expected.next(), None, "every tensor was written");
        self.to
    }

    fn expect(&mut self, name: &str, content: &Content) {
        let next = self.expected.next();
        let found = next.as_ref().map(|(name, content)| (name.as_str(), content));
        assert_eq!(found, Some((name, content)), "tensors come in the order of the file");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aligned(bytes: &[u8]) -> Arc<Aligned> {
        let mut aligned = Aligned::zeroed(bytes.len());
        aligned.as_mut_slice().copy_from_slice(bytes);
        Arc::new(aligned)
    }

    fn written() -> Vec<u8> {
        let weights: Vec<f32> = (0..20 * 64).map(|i| (i as f32).sin()).collect();
        let small = Matrix::quantise(Format::Q4_0, &weights, 64).unwrap();
        let large = Matrix::quantise(Format::Q8_0, &weights, 32).unwrap();
        let content = |m: &Matrix| Content::Matrix {
            format: m.format(),
            rows: m.rows(),
            columns: m.columns(),
        };
        let tensors = vec![
            ("norm".to_owned(), Content::Numbers(3)),
            ("b".to_owned(), content(&small)),
            ("a".to_owned(), content(&large)),
        ];
        let mut writer = Writer::new(Vec::new(), tensors, &[("tower", "x")]).unwrap();
        writer.matrix("b", &small).unwrap();
        writer.matrix("a", &large).unwrap();
        writer.numbers("norm", &[1.0, 2.0, 3.0]).unwrap();
        writer.finish()
    }

    #[test]
    fn what_was_written_is_read_and_begins_on_cache_lines() {
        let bytes = written();
        assert!(PackedFile::is(&bytes));
        let file = PackedFile::parse(&aligned(&bytes)).unwrap();
        assert_eq!(file.note("tower"), Some("x"));
        assert_eq!(file.numbers("norm"), Some(&[1.0, 2.0, 3.0][..]));
        let matrix = file.matrix("a").unwrap();
        assert_eq!((matrix.rows(), matrix.columns()), (40, 32));
        assert_eq!(matrix.format(), Format::Q8_0);
        let mut row = [0.0; 32];
        matrix.row(1, &mut row);
        assert!((row[0] - 32f32.sin()).abs() < 0.01);
        assert!((file.matrix("b").unwrap().data().as_ptr() as usize).is_multiple_of(64));
        assert!(file.matrix("norm").is_none());
    }

    #[test]
    fn a_file_cut_short_or_garbled_is_refused_and_never_read_beyond_its_end() {
        let bytes = written();
        for len in (0..bytes.len()).step_by(37) {
            assert!(PackedFile::parse(&aligned(&bytes[..len])).is_err());
        }
        let text = String::from_utf8_lossy(&bytes[8..400]).into_owned();
        for (from, to) in [("40x32", "41x320"), ("q8_0", "q9_0"), ("U8", "I8"), ("40x32", "4x031")]
        {
            let at = 8 + text.find(from).unwrap();
            let mut garbled = bytes.clone();
            garbled.splice(at..at + from.len(), to.bytes());
            // The header's length has to stay what it was.
            let blank = 8 + text.rfind('}').unwrap() + 1;
            for _ in from.len()..to.len() {
                garbled.remove(blank + 1);
            }
            let error = PackedFile::parse(&aligned(&garbled)).unwrap_err().to_string();
            assert!(error.contains("tensor '") || error.contains("no whole"), "{error}");
        }
    }
}
