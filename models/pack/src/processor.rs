//! How a checkpoint wants its videos, from its `video_preprocessor_config.json`.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::{fs, path::Path};

/// As Hugging Face's processors write it, of the newer kind first.
const FILES: [&str; 2] = ["video_preprocessor_config.json", "preprocessor_config.json"];

/// Frames of a pair: it is what is resized as one video.
const FRAMES: f64 = 2.0;

/// What is read of it; what it does not say is as Qwen3-VL's processor has it.
#[derive(Debug, Default, Deserialize)]
pub struct Processor {
    #[serde(default)]
    size: Option<Size>,
    patch_size: Option<usize>,
    merge_size: Option<usize>,
    temporal_patch_size: Option<usize>,
    image_mean: Option<Vec<f64>>,
    image_std: Option<Vec<f64>>,
}

/// Bounds of the pixels of a video, frames × height × width.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct Size {
    shortest_edge: Option<f64>,
    longest_edge: Option<f64>,
}

impl Processor {
    /// Reads that of the checkpoint in `dir`; without a file everything is as the engine does it.
    ///
    /// # Errors
    /// If it cannot be read, or wants frames in a way that the engine does not give them.
    pub fn read(dir: &Path, patch: usize) -> Result<Self> {
        let Some(path) = FILES.map(|name| dir.join(name)).into_iter().find(|path| path.exists())
        else {
            return Ok(Self::default());
        };
        let text = fs::read_to_string(&path)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        let read: Self = serde_json::from_str(&text)
            .with_context(|| format!("{} describes no processor", path.display()))?;
        let whole = [
            ("patch_size", read.patch_size, patch),
            ("merge_size", read.merge_size, 2),
            ("temporal_patch_size", read.temporal_patch_size, 2),
        ];
        for (name, found, expected) in whole {
            ensure!(
                found.is_none_or(|found| found == expected),
                "{}: {name} is not {expected}, as config.json implies",
                path.display()
            );
        }
        let halves = |numbers: &Option<Vec<f64>>| {
            numbers.as_ref().is_none_or(|numbers| numbers.iter().all(|n| *n == 0.5))
        };
        ensure!(
            halves(&read.image_mean) && halves(&read.image_std),
            "{}: image_mean and image_std have to be 0.5, other normalisations are not known",
            path.display()
        );
        Ok(read)
    }

    /// Width and height to which frames of a size are resized: multiples of `cell`, with no more and no
    /// fewer pixels in a pair than the checkpoint was trained for. It is `smart_resize` of
    /// transformers' Qwen3-VL.
    ///
    /// # Errors
    /// If a side is 200 times the other.
    pub fn fit(&self, (width, height): (usize, usize), cell: usize) -> Result<(usize, usize)> {
        let unit = cell as f64;
        let (mut w, mut h) = (width as f64, height as f64);
        if w < unit || h < unit {
            let scale = (unit / h).max(unit / w);
            (w, h) = ((w * scale).trunc(), (h * scale).trunc());
        }
        ensure!(w.max(h) <= 200.0 * w.min(h), "--size {width}x{height}: too long for its width");
        let whole = |side: f64| (side / unit).round_ties_even() * unit;
        let Size { shortest_edge, longest_edge } = self.size.unwrap_or_default();
        let pixels = FRAMES * whole(w) * whole(h);
        let sides = match (shortest_edge, longest_edge) {
            (_, Some(most)) if pixels > most => {
                let by = (FRAMES * w * h / most).sqrt();
                [w, h].map(|side| ((side / by / unit).floor() * unit).max(unit))
            }
            (Some(least), _) if pixels < least => {
                let by = (least / (FRAMES * w * h)).sqrt();
                [w, h].map(|side| (side * by / unit).ceil() * unit)
            }
            _ => [w, h].map(whole),
        };
        let [width, height] = sides.map(|side| side as usize);
        Ok((width, height))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_resized_as_transformers_resizes_them() {
        // Written by make_processor.py: height, width, least and most pixels; height and width.
        let cases: Vec<[f64; 6]> =
            serde_json::from_str(include_str!("../tests/processor/smart_resize.json")).unwrap();
        assert!(cases.len() > 100);
        for [height, width, least, most, tall, wide] in cases {
            let size = Size { shortest_edge: Some(least), longest_edge: Some(most) };
            let processor = Processor { size: Some(size), ..Processor::default() };
            let found = processor.fit((width as usize, height as usize), 32).unwrap();
            assert_eq!(found, (wide as usize, tall as usize), "{width}x{height}");
        }
    }

    #[test]
    fn a_ribbon_is_refused() {
        assert!(Processor::default().fit((32, 32 * 201), 32).is_err());
    }
}
