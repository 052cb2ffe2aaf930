//! From a checkpoint to a bundle.

use crate::{checkpoint::Checkpoint, config::Config, progress::Progress};
use anyhow::{Context, Result, ensure};
use bundle::{Bundle, CHAT_TEMPLATE, DECODER, GOLDEN, TOKENIZER, VISION};
use clap::Args;
use engine::{Engine, EngineOptions, Golden, TOWER, packed_tensors, places};
use kernels::{Content, Format, Matrix, ROWS, Writer};
use serde_json::json;
use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    thread,
};

/// What a manifest is filled with where `--manifest` gives nothing.
const DEFAULT: &str = include_str!("../qwen3-vl.toml");

/// Numbers that are quantised at a time: what packing takes of memory does not grow with the
/// checkpoint.
const AT_A_TIME: usize = 4 << 20;

/// How a checkpoint becomes a bundle.
#[derive(Args)]
pub struct Pack {
    /// Folder of a checkpoint as Hugging Face's save_pretrained writes it: config.json, safetensors
    /// whole or in shards, tokenizer.json, and chat_template.jinja or tokenizer_config.json.
    checkpoint: PathBuf,
    /// Folder of the bundle; must not be there yet.
    #[arg(short, long)]
    out: PathBuf,
    /// How the decoder's weights are written: q4_0, q8_0, or plain, as the checkpoint has them, to compare
    /// with.
    #[arg(long, default_value = "q4_0", value_parser = written)]
    format: Written,
    /// How the tower's weights are written: q8_0, or q4_0, which costs it much.
    #[arg(long, default_value = "q8_0", value_parser = format)]
    vision_format: Format,
    /// Width and height to which frames are resized, multiples of 32.
    #[arg(long, default_value = "448x448", value_parser = size)]
    size: (usize, usize),
    /// TOML with what the bundle's manifest should say: name, prompts, budgets, labels. What it does
    /// not say is filled in.
    #[arg(long)]
    manifest: Option<PathBuf>,
    /// The chat template, if the checkpoint's is not the one that the policy was trained with.
    #[arg(long)]
    template: Option<PathBuf>,
}

/// How a decoder's weights are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    /// In panels of few bits.
    Packed(Format),
    /// As the checkpoint has them.
    Plain,
}

impl Pack {
    /// As the command does it that is given nothing but two folders.
    pub fn by_default(checkpoint: PathBuf, out: PathBuf) -> Self {
        Self {
            checkpoint,
            out,
            format: Written::Packed(Format::Q4_0),
            vision_format: Format::Q8_0,
            size: (448, 448),
            manifest: None,
            template: None,
        }
    }
}

fn format(name: &str) -> Result<Format, String> {
    name.parse().map_err(|()| "give q4_0 or q8_0".to_owned())
}

fn written(name: &str) -> Result<Written, String> {
    match name {
        "plain" => Ok(Written::Plain),
        _ => name.parse().map(Written::Packed).map_err(|()| "give q4_0, q8_0 or plain".to_owned()),
    }
}

fn size(text: &str) -> Result<(usize, usize), String> {
    let parsed = text.split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    parsed.filter(|(w, h)| *w > 0 && *h > 0).ok_or_else(|| "give it as 448x448".to_owned())
}

const GOLDEN_FILE: &str = "golden.json";

/// Packs, runs what was packed and keeps what it computes; what was written is opened again and every hash checked.
///
/// # Errors
/// If the checkpoint cannot be packed, in a sentence that names the tensor or file.
pub fn pack(given: &Pack, progress: &Progress) -> Result<Bundle> {
    let Pack { checkpoint, out, .. } = given;
    let config = Config::read(&checkpoint.join("config.json"))?;
    let weights = Checkpoint::open(checkpoint)?;
    ensure!(!out.exists(), "{} is there already: remove it or give another --out", out.display());
    let mut manifest = manifest(given, &config)?;
    let tokenizer = read(&checkpoint.join("tokenizer.json"))?;
    let template = template(given)?;
    fs::create_dir_all(out).with_context(|| format!("{} cannot be made", out.display()))?;
    let written = write_parts(given, &config, &weights, &manifest, progress).and_then(|()| {
        fs::write(out.join("tokenizer.json"), tokenizer)?;
        fs::write(out.join("chat_template.jinja"), template)?;
        fs::write(out.join(bundle::MANIFEST), toml::to_string_pretty(&manifest)?)?;
        progress.says("run");
        let golden = Golden::of(&load(&bundle::seal(out)?)?)?;
        fs::write(out.join(GOLDEN_FILE), serde_json::to_string(&golden)?)?;
        let part = toml::Table::from_iter([("file".to_owned(), GOLDEN_FILE.into())]);
        let parts = manifest["parts"].as_table_mut().expect("it was put there");
        parts.insert(GOLDEN.into(), part.into());
        fs::write(out.join(bundle::MANIFEST), toml::to_string_pretty(&manifest)?)?;
        progress.says("seal");
        Ok(bundle::seal(out)?)
    });
    if written.is_err() {
        // Half a bundle is of no use, and would be in the way of the next try.
        fs::remove_dir_all(out).with_context(|| format!("remove {}", out.display()))?;
    }
    written
}

/// The policy, on all cores.
pub fn load(bundle: &Bundle) -> Result<Engine> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    Ok(Engine::load(bundle, EngineOptions { threads, ..EngineOptions::default() })?)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("{} cannot be read", path.display()))
}

/// The chat template: given, or a file of its own, or in tokenizer_config.json.
fn template(given: &Pack) -> Result<String> {
    let own = given.checkpoint.join("chat_template.jinja");
    if let Some(path) = given.template.as_ref().or(own.exists().then_some(&own)) {
        return Ok(String::from_utf8(read(path)?)?);
    }
    for name in ["chat_template.json", "tokenizer_config.json"] {
        let path = given.checkpoint.join(name);
        if path.exists() {
            let json: serde_json::Value = serde_json::from_slice(&read(&path)?)
                .with_context(|| format!("{} is no JSON", path.display()))?;
            if let Some(template) = json["chat_template"].as_str() {
                return Ok(template.to_owned());
            }
        }
    }
    anyhow::bail!("{} has no chat template: give --template", given.checkpoint.display())
}

/// The manifest without lengths and hashes.
fn manifest(given: &Pack, config: &Config) -> Result<toml::Table> {
    let mut manifest: toml::Table = toml::from_str(DEFAULT).expect("it comes with the program");
    if let Some(path) = &given.manifest {
        let text = String::from_utf8(read(path)?)?;
        let own: toml::Table =
            toml::from_str(&text).with_context(|| format!("{} is no TOML", path.display()))?;
        merge(&mut manifest, own);
    }
    let context_max = manifest["decoder"].get("context_max").and_then(toml::Value::as_integer);
    let context_max = context_max.context("decoder.context_max is no whole number")?;
    let decoder = toml::Table::try_from(config.decoder(usize::try_from(context_max)?)?)?;
    let vision = config.tower();
    let cell = 2 * vision.patch;
    let (width, height) = given.size;
    ensure!(
        width.is_multiple_of(cell) && height.is_multiple_of(cell),
        "--size {width}x{height}: both must be multiples of {cell}"
    );
    let grid = [height / cell, width / cell];
    let number = |n: usize| toml::Value::Integer(n as i64);
    let geometry = [
        ("width", number(width)),
        ("height", number(height)),
        ("channels", number(vision.channels)),
        ("tokens_per_pair", number(grid[0] * grid[1])),
        ("grid", grid.map(number).to_vec().into()),
        ("deepstack", number(vision.taps.len())),
    ];
    let geometry = geometry.map(|(key, value)| (key.to_owned(), value)).into_iter().collect();
    let part = |file: &str| -> toml::Value {
        toml::Table::from_iter([("file".to_owned(), file.into())]).into()
    };
    let parts = [
        (DECODER, "decoder.safetensors"),
        (VISION, "vision.safetensors"),
        (TOKENIZER, "tokenizer.json"),
        (CHAT_TEMPLATE, "chat_template.jinja"),
    ];
    let parts: toml::Table =
        parts.into_iter().map(|(name, file)| (name.to_owned(), part(file))).collect();
    let filled = [
        ("schema".to_owned(), number(bundle::SCHEMA as usize)),
        ("architecture".to_owned(), bundle::QWEN3_VL.into()),
        ("decoder".to_owned(), decoder.into()),
        ("geometry".to_owned(), toml::Value::Table(geometry)),
        ("parts".to_owned(), parts.into()),
    ];
    merge(&mut manifest, filled.into_iter().collect());
    Ok(manifest)
}

/// What `from` says replaces what `into` says, table by table.
fn merge(into: &mut toml::Table, from: toml::Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(into)), toml::Value::Table(from)) => merge(into, from),
            (_, value) => _ = into.insert(key, value),
        }
    }
}

fn write_parts(
    given: &Pack,
    config: &Config,
    weights: &Checkpoint,
    manifest: &toml::Table,
    progress: &Progress,
) -> Result<()> {
    let decoder: bundle::Decoder = manifest["decoder"].clone().try_into()?;
    let format = if let Written::Packed(format) = given.format { format } else { Format::Q8_0 };
    let tensors = packed_tensors(&decoder, format);
    let shape = config.tower();
    let (width, height) = given.size;
    let grid = [height / shape.patch, width / shape.patch];
    let note = serde_json::to_string(&shape)?;
    let tower = shape.tensors(grid[0] * grid[1], given.vision_format);
    progress.begin(tensors.iter().chain(&tower).map(|(_, content)| numbers(content)).sum());

    let file = create(&given.out.join("decoder.safetensors"))?;
    if given.format == Written::Plain {
        copy(file, weights, &tensors, progress)?;
    } else {
        let mut writer = Writer::new(file, tensors.clone(), &[])?;
        for (name, content) in &tensors {
            put(&mut writer, weights, name, content, None, progress)?;
        }
        close(writer.finish())?;
    }
    let file = create(&given.out.join("vision.safetensors"))?;
    let mut writer = Writer::new(file, tower.clone(), &[(TOWER, &note)])?;
    for (name, content) in &tower {
        if name.ends_with("pos_embed.weight") {
            let rows = config.vision_config.num_position_embeddings;
            let side = rows.isqrt();
            ensure!(side * side == rows, "config.json: {rows} position embeddings are no square");
            let table = weights.tensor(name, &[rows, shape.width])?;
            let table = table.numbers(0, rows * shape.width)?;
            writer.numbers(name, &places(&table, side, shape.width, grid))?;
            progress.add(numbers(content));
        } else {
            let stored = name
                .ends_with("patch_embed.proj.weight")
                .then(|| vec![shape.width, shape.channels, 2, shape.patch, shape.patch]);
            put(&mut writer, weights, name, content, stored, progress)?;
        }
    }
    close(writer.finish())
}

/// Writes the tensors as the checkpoint has them.
fn copy(
    mut file: BufWriter<File>,
    weights: &Checkpoint,
    tensors: &[(String, Content)],
    progress: &Progress,
) -> Result<()> {
    let (mut header, mut found, mut at) = (serde_json::Map::new(), Vec::new(), 0);
    for (name, content) in tensors {
        let shape = match *content {
            Content::Matrix { rows, columns, .. } => vec![rows, columns],
            Content::Numbers(count) => vec![count],
        };
        let tensor = weights.tensor(name, &shape)?;
        let end = at + tensor.bytes(numbers(content) as usize);
        let entry = json!({"dtype": tensor.dtype(), "shape": shape, "data_offsets": [at, end]});
        header.insert(name.clone(), entry);
        at = end;
        found.push((tensor, numbers(content) as usize));
    }
    let header = serde_json::Value::Object(header).to_string();
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    for (tensor, count) in found {
        for first in (0..count).step_by(AT_A_TIME) {
            let here = AT_A_TIME.min(count - first);
            file.write_all(&tensor.raw(first, here)?)?;
            progress.add(here as u64);
        }
    }
    close(file)
}

fn create(path: &Path) -> Result<BufWriter<File>> {
    let file = File::create(path).with_context(|| format!("{} cannot be made", path.display()))?;
    Ok(BufWriter::with_capacity(1 << 20, file))
}

fn close(mut file: BufWriter<File>) -> Result<()> {
    file.flush()?;
    file.get_ref().sync_all()?;
    Ok(())
}

fn numbers(content: &Content) -> u64 {
    match *content {
        Content::Matrix { rows, columns, .. } => (rows * columns) as u64,
        Content::Numbers(count) => count as u64,
    }
}

/// Writes the next tensor. `stored` is its shape in the checkpoint, if it is not that of the matrix.
fn put(
    writer: &mut Writer<BufWriter<File>>,
    weights: &Checkpoint,
    name: &str,
    content: &Content,
    stored: Option<Vec<usize>>,
    progress: &Progress,
) -> Result<()> {
    match *content {
        Content::Matrix { format, rows, columns } => {
            let tensor = weights.tensor(name, &stored.unwrap_or(vec![rows, columns]))?;
            let together = (AT_A_TIME / columns).max(1).next_multiple_of(ROWS);
            let parts = (0..rows).step_by(together).map(|first| -> Result<Matrix> {
                let count = together.min(rows - first);
                let numbers = tensor.numbers(first * columns, count * columns)?;
                let matrix = Matrix::quantise(format, &numbers, columns)
                    .with_context(|| format!("tensor '{name}' cannot be packed"))?;
                progress.add((count * columns) as u64);
                Ok(matrix)
            });
            writer.parts(name, content, parts)
        }
        Content::Numbers(count) => {
            let numbers = weights.tensor(name, &[count])?.numbers(0, count)?;
            ensure!(numbers.iter().all(|x| x.is_finite()), "tensor '{name}' is not finite");
            progress.add(count as u64);
            Ok(writer.numbers(name, &numbers)?)
        }
    }
}
