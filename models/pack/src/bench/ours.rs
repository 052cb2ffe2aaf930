//! What one process of ours measures, alone in it.

use anyhow::{Context, Result};
use bundle::{ADAPTER, Bundle, DECODER, VISION};
use clap::{Args, ValueEnum};
use engine::{EngineOptions, LORA_ALPHA, TextDecoder, Tower, projections};
use half::bf16;
use kernels::{Aligned, Threads, stream};
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Map, Value};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

/// Tokens whose times are taken at each context.
const TOKENS: usize = 24;
/// Tokens that are read together, as in an inquiry.
const CHUNK: usize = 256;

/// Rank of an adapter that is drawn: a customary one for a policy of 2B.
const RANK: usize = 32;

/// What to measure.
#[derive(Args)]
pub struct Measure {
    what: What,
    bundle: PathBuf,
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

/// A part of a bundle, and what of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// The decoder's speed.
    Text,
    /// The decoder's memory, at a context of 2048.
    Memory,
    /// The tower's speed.
    Vision,
}

/// Measures; names and figures, as `bench.py` gives them for peers.
///
/// # Errors
/// If the bundle cannot be used.
pub fn measure(given: &Measure) -> Result<Map<String, Value>> {
    match given.what {
        What::Text => text(given),
        What::Memory => memory(given),
        What::Vision => vision(given),
    }
}

/// A part, its contents checked, as the engine reads it.
fn part(bundle: &Bundle, name: &str) -> Result<Arc<Aligned>> {
    let mut bytes = Aligned::zeroed(bundle.length(name)?);
    bundle.read_into(name, bytes.as_mut_slice())?;
    Ok(Arc::new(bytes))
}

fn open(dir: &Path) -> Result<Bundle> {
    Bundle::open(dir).with_context(|| format!("{} cannot be measured", dir.display()))
}

/// Tokens in no order.
fn tokens(from: usize, to: usize, vocabulary: usize) -> Vec<u32> {
    (from..to).map(|i| (i * 37 % vocabulary) as u32).collect()
}

fn text(given: &Measure) -> Result<Map<String, Value>> {
    let begun = Instant::now();
    let bundle = open(&given.bundle)?;
    let weights = part(&bundle, DECODER)?;
    let adapter = bundle.read_optional(ADAPTER)?;
    let options = EngineOptions { threads: given.threads, ..EngineOptions::default() };
    let decoder =
        TextDecoder::load(&bundle.manifest, &weights, adapter.as_deref(), options.clone())?;
    let read = |from, to| tokens(from, to, bundle.manifest.decoder.vocab);
    let mut text = decoder.start()?;
    text.read(&read(0, 1))?;
    let load = begun.elapsed().as_secs_f64();

    // The stream is read in between, as what memory gives changes from moment to moment where it is
    // shared.
    let threads = Threads::new(given.threads);
    let mut streams = Vec::new();
    let mut one_by_one = |text: &mut engine::Text<'_>, from: usize, limit: bool| -> Result<f64> {
        let mut times = Vec::new();
        for (number, token) in read(from, from + TOKENS).into_iter().enumerate() {
            let begun = Instant::now();
            text.read(&[token])?;
            times.push(begun.elapsed().as_secs_f64());
            if limit && number % 2 == 0 {
                let begun = Instant::now();
                std::hint::black_box(stream(&weights, &threads));
                streams.push(begun.elapsed().as_secs_f64());
            }
        }
        Ok(1.0 / super::median(&mut times))
    };
    let decode_0 = one_by_one(&mut text, 1, true)?;
    let mut prefill = Vec::new();
    for _ in 0..2 {
        text = decoder.start()?;
        let begun = Instant::now();
        for at in (0..512).step_by(CHUNK) {
            text.read(&read(at, at + CHUNK))?;
        }
        prefill.push(512.0 / begun.elapsed().as_secs_f64());
    }
    for at in (512..1024).step_by(CHUNK) {
        text.read(&read(at, at + CHUNK))?;
    }
    let decode_1024 = one_by_one(&mut text, 1024, false)?;
    let a_stream = super::median(&mut streams);
    let adapted = beside_an_adapter(&bundle, &weights, adapter, options)?;
    Ok(figures([
        ("load", load),
        ("decode_0", decode_0),
        ("decode_1024", decode_1024),
        // The first pays for memory that the others find.
        ("prefill_512", prefill[1]),
        ("bandwidth_share", decode_0 * a_stream),
        ("adapter", adapted),
        ("stream_gb_s", weights.len() as f64 / a_stream / 1e9),
    ]))
}

/// How many times as long a token takes with the bundle's adapter as without, or, if it has none, with a drawn
/// one of all projections. The two read token by token in turn, so that what else runs here slows both.
fn beside_an_adapter(
    bundle: &Bundle,
    weights: &Arc<Aligned>,
    own: Option<Vec<u8>>,
    options: EngineOptions,
) -> Result<f64> {
    let manifest = &bundle.manifest;
    let adapter = own.map_or_else(|| drawn_adapter(&manifest.decoder), Ok)?;
    let plain = TextDecoder::load(manifest, weights, None, options.clone())?;
    let adapted = TextDecoder::load(manifest, weights, Some(&adapter), options)?;
    let (mut plain, mut adapted) = (plain.start()?, adapted.start()?);
    let mut times = [Vec::new(), Vec::new()];
    for token in tokens(0, 2 * TOKENS, manifest.decoder.vocab) {
        for (text, times) in [&mut plain, &mut adapted].into_iter().zip(&mut times) {
            let begun = Instant::now();
            text.read(&[token])?;
            times.push(begun.elapsed().as_secs_f64());
        }
    }
    let [mut plain, mut adapted] = times;
    Ok(super::median(&mut adapted) / super::median(&mut plain))
}

/// An adapter of rank [`RANK`] for every projection, of random numbers.
fn drawn_adapter(decoder: &bundle::Decoder) -> Result<Vec<u8>> {
    let mut state = 1_u64;
    let mut draw = |rows: usize, columns: usize| -> Vec<u8> {
        let number = |_| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            bf16::from_f32((state >> 40) as f32 / (1 << 24) as f32 - 0.5).to_le_bytes()
        };
        (0..rows * columns).flat_map(number).collect()
    };
    let mut factors = Vec::new();
    for (name, [rows, columns]) in projections(decoder) {
        let name = name.trim_end_matches(".weight");
        let rank = RANK.min(rows).min(columns);
        factors.push((format!("{name}.lora_A.weight"), [rank, columns], draw(rank, columns)));
        factors.push((format!("{name}.lora_B.weight"), [rows, rank], draw(rows, rank)));
    }
    let views = factors
        .iter()
        .map(|(name, shape, data)| Ok((name, TensorView::new(Dtype::BF16, shape.to_vec(), data)?)))
        .collect::<Result<Vec<_>>>()?;
    let told = [(LORA_ALPHA.to_owned(), "1".to_owned())].into();
    Ok(safetensors::serialize(views, Some(told))?)
}

fn memory(given: &Measure) -> Result<Map<String, Value>> {
    let bundle = open(&given.bundle)?;
    let weights = part(&bundle, DECODER)?;
    let adapter = bundle.read_optional(ADAPTER)?;
    let options = EngineOptions { threads: given.threads, ..EngineOptions::default() };
    let decoder = TextDecoder::load(&bundle.manifest, &weights, adapter.as_deref(), options)?;
    let mut text = decoder.start()?;
    for at in (0..2048).step_by(CHUNK) {
        text.read(&tokens(at, at + CHUNK, bundle.manifest.decoder.vocab))?;
    }
    let status = fs::read_to_string("/proc/self/status").context("/proc cannot be read")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
    Ok(figures([("rss", kib.context("/proc/self/status does not tell the peak")? * 1024.0 / 1e9)]))
}

fn vision(given: &Measure) -> Result<Map<String, Value>> {
    let bundle = open(&given.bundle)?;
    let options = EngineOptions { threads: given.threads, ..EngineOptions::default() };
    let tower = Tower::load(&bundle.manifest, &part(&bundle, VISION)?, options)?;
    let bundle::Geometry { width, height, channels, .. } = bundle.manifest.geometry;
    let count = 2 * channels * width * height;
    let frames: Vec<f32> = (0..count).map(|i| (i % 251) as f32 / 125.0 - 1.0).collect();
    let mut times = Vec::new();
    for _ in 0..3 {
        let frames = frames.clone();
        let begun = Instant::now();
        tower.look(frames, 1)?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    Ok(figures([("vision", super::median(&mut times[1..]))]))
}

fn figures<const N: usize>(figures: [(&str, f64); N]) -> Map<String, Value> {
    figures.into_iter().map(|(name, figure)| (name.to_owned(), figure.into())).collect()
}
