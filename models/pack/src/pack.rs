//! From a checkpoint to a bundle.

use crate::{
    adapter::{Adapter, Change},
    checkpoint::{Checkpoint, Tensor},
    config::Config,
    processor::Processor,
    progress::Progress,
};
use anyhow::{Context, Result, ensure};
use bundle::{ADAPTER, Bundle, CHAT_TEMPLATE, DECODER, GOLDEN, TOKENIZER, VISION, VISION_ONNX};
use clap::Args;
use engine::{Engine, EngineOptions, Golden, TOWER, Tower, cosine, packed_tensors, places};
use kernels::{Aligned, Content as Stored, Format, Matrix, ROWS, Writer};
use policy::{ChatTemplate, Content, Message, Role, VIDEO_MARKER, tool_schemas};
use safetensors::Dtype;
use serde_json::json;
use std::{
    collections::HashSet,
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    sync::Arc,
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
    /// Folder of a LoRA adapter as PEFT saves it, to be merged into the weights.
    #[arg(long)]
    adapter: Option<PathBuf>,
    /// Keep the adapter as a part of its own, computed beside the weights: `adapt` can then put another in, and a
    /// camera that has the bundle fetches that alone. A token costs a few hundredths more than with a merged one.
    #[arg(long, requires = "adapter")]
    keep_adapter: bool,
    /// The tower as ONNX besides, for accelerators: what `lookback-train-vlm tower` wrote for the same
    /// checkpoint and size. It is run here and compared with the packed one.
    #[arg(long)]
    onnx: Option<PathBuf>,
    /// How the decoder's weights are written: q4_0, q8_0, or plain, as the checkpoint has them, to compare
    /// with.
    #[arg(long, default_value = "q4_0", value_parser = written)]
    format: Written,
    /// How the tower's weights are written: q8_0, or q4_0, which costs it much.
    #[arg(long, default_value = "q8_0", value_parser = format)]
    vision_format: Format,
    /// Width and height to which frames are resized; other numbers than multiples of 32 are rounded, and
    /// too small or large ones scaled, as the checkpoint's own processor does it.
    #[arg(long, default_value = "448x448", value_parser = size)]
    pub size: (usize, usize),
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
            adapter: None,
            keep_adapter: false,
            onnx: None,
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
const ONNX_FILE: &str = "vision.onnx";
/// Where an adapter is written.
pub const ADAPTER_FILE: &str = "adapter.safetensors";

/// Below this cosine two towers see something else; 8 bits stay above.
const SAME_SIGHT: f64 = 0.98;

/// Packs, runs what was packed and keeps what it computes; what was written is opened again and every hash checked.
///
/// # Errors
/// If the checkpoint cannot be packed, in a sentence that names the tensor or file.
pub fn pack(given: &Pack, progress: &Progress) -> Result<Bundle> {
    let Pack { checkpoint, out, .. } = given;
    let config = Config::read(&checkpoint.join("config.json"))?;
    let adapter = given.adapter.as_deref().map(Adapter::open).transpose()?;
    let (merged, kept) = if given.keep_adapter { (None, adapter) } else { (adapter, None) };
    let weights = Weights { checkpoint: Checkpoint::open(checkpoint)?, adapter: merged };
    ensure!(!out.exists(), "{} is there already: remove it or give another --out", out.display());
    if let Some(onnx) = &given.onnx {
        ensure!(onnx.is_file(), "{} is no file: give --onnx what was exported", onnx.display());
    }
    let patch = config.vision_config.patch_size;
    let size = Processor::read(checkpoint, patch)?.fit(given.size, 2 * patch)?;
    let mut manifest = manifest(given, &config, size)?;
    let tokenizer = read(&checkpoint.join("tokenizer.json"))?;
    let template = template(given)?;
    check_template(&template)?;
    fs::create_dir_all(out).with_context(|| format!("{} cannot be made", out.display()))?;
    let written = write_parts(given, &config, size, &weights, &manifest, progress).and_then(|()| {
        if let Some(adapter) = &kept {
            adapter.write(&config.decoder(1)?, &out.join(ADAPTER_FILE))?;
        }
        fs::write(out.join("tokenizer.json"), tokenizer)?;
        fs::write(out.join("chat_template.jinja"), template)?;
        fs::write(out.join(bundle::MANIFEST), toml::to_string_pretty(&manifest)?)?;
        if let Some(onnx) = &given.onnx {
            fs::copy(onnx, out.join(ONNX_FILE))
                .with_context(|| format!("{} cannot be copied", onnx.display()))?;
        }
        progress.says("run");
        let sealed = bundle::seal(out)?;
        if given.onnx.is_some() {
            compare_towers(&sealed)?;
        }
        let golden = Golden::of(&load(&sealed)?)?;
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

/// Puts what the bundle in `dir` computes here for the golden inputs into it.
///
/// # Errors
/// If the bundle is refused, cannot be run, or not be written.
pub fn with_golden(dir: &Path) -> Result<Bundle> {
    let bundle = Bundle::open(dir)?;
    let golden = serde_json::to_string(&Golden::of(&load(&bundle)?)?)?;
    let known = bundle.manifest.parts.get(GOLDEN).map(|part| part.file.clone());
    let (path, manifest) = (known.as_deref().unwrap_or(GOLDEN_FILE), dir.join(bundle::MANIFEST));
    fs::write(dir.join(path), golden).with_context(|| format!("{path} cannot be written"))?;
    if known.is_none() {
        let mut text = fs::read_to_string(&manifest)?;
        text.push_str(&format!("\n[parts.{GOLDEN}]\nfile = \"{GOLDEN_FILE}\"\n"));
        fs::write(&manifest, text)
            .with_context(|| format!("{} cannot be written", manifest.display()))?;
    }
    Ok(bundle::seal(dir)?)
}

/// The policy, on all cores.
pub fn load(bundle: &Bundle) -> Result<Engine> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    Ok(Engine::load(bundle, EngineOptions { threads, ..EngineOptions::default() })?)
}

/// That the tower's two parts see the same in a drawn pair of frames.
fn compare_towers(bundle: &Bundle) -> Result<()> {
    let geometry = &bundle.manifest.geometry;
    let count = 2 * geometry.channels * geometry.height * geometry.width;
    let frames: Vec<f32> = (0..count).map(|i| (i * 7 % 251) as f32 / 125.5 - 1.0).collect();
    // One after the other: they need not lie in memory both.
    let [packed, onnx] = [VISION, VISION_ONNX].map(|part| -> Result<Vec<Vec<f32>>> {
        let mut bytes = Aligned::zeroed(bundle.length(part)?);
        bundle.read_into(part, bytes.as_mut_slice())?;
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let options = EngineOptions { threads, ..EngineOptions::default() };
        let tower = Tower::load(&bundle.manifest, &Arc::new(bytes), options)?;
        Ok(tower.look(frames.clone(), 1)?)
    });
    for (number, (a, b)) in packed?.iter().zip(&onnx?).enumerate() {
        let cosine = cosine(a, b);
        ensure!(
            cosine >= SAME_SIGHT,
            "the tower in --onnx sees something else than the checkpoint's (output {number}, cosine \
             {cosine:.3}): export it of this checkpoint, with its adapter merged"
        );
    }
    Ok(())
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

/// That inquiries can be rendered with it.
fn check_template(source: &str) -> Result<()> {
    let remedy = "give one that can with --template";
    let template = ChatTemplate::new(source).context(remedy)?;
    let shown = |role| Message {
        role,
        content: vec![Content::Text { text: "Look.\n".to_owned() }, Content::Video],
    };
    let messages = [
        Message::text(Role::System, "Watch."),
        shown(Role::User),
        Message::text(Role::Assistant, "<think>Hm.</think>"),
        shown(Role::Tool),
    ];
    let tools = tool_schemas();
    let asked = template.render(&messages[..2], &tools, true).context(remedy)?;
    let said = format!("{asked}<think>Hm.</think><|im_end|>");
    let added = template.render_after(&said, &messages, &tools).context(remedy)?;
    ensure!(
        [asked, added].iter().all(|text| text.matches(VIDEO_MARKER).count() == 1),
        "the chat template does not write {VIDEO_MARKER} where a video is shown: {remedy}"
    );
    Ok(())
}

/// The manifest without lengths and hashes.
fn manifest(given: &Pack, config: &Config, (width, height): (usize, usize)) -> Result<toml::Table> {
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
    let onnx = given.onnx.is_some().then_some((VISION_ONNX, ONNX_FILE));
    let kept = given.keep_adapter.then_some((ADAPTER, ADAPTER_FILE));
    let all = parts.into_iter().chain(onnx).chain(kept);
    let parts: toml::Table = all.map(|(name, file)| (name.to_owned(), part(file))).collect();
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
    (width, height): (usize, usize),
    weights: &Weights,
    manifest: &toml::Table,
    progress: &Progress,
) -> Result<()> {
    let decoder: bundle::Decoder = manifest["decoder"].clone().try_into()?;
    let format = if let Written::Packed(format) = given.format { format } else { Format::Q8_0 };
    let tensors = packed_tensors(&decoder, format);
    let shape = config.tower();
    let grid = [height / shape.patch, width / shape.patch];
    let note = serde_json::to_string(&shape)?;
    let tower = shape.tensors(grid[0] * grid[1], given.vision_format);
    weights.all_used(tensors.iter().chain(&tower))?;
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
            let table = weights.checkpoint.tensor(name, &[rows, shape.width])?;
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

/// What is packed: a checkpoint, and what an adapter adds to it.
struct Weights {
    checkpoint: Checkpoint,
    adapter: Option<Adapter>,
}

impl Weights {
    /// That nothing is left over of the adapter once the matrices of `packed` are.
    fn all_used<'a>(&self, packed: impl Iterator<Item = &'a (String, Stored)>) -> Result<()> {
        let matrices = packed.filter(|(_, content)| matches!(content, Stored::Matrix { .. }));
        let packed: HashSet<&str> = matrices.map(|(name, _)| name.as_str()).collect();
        let mut changes = self.adapter.iter().flat_map(Adapter::changes);
        if let Some(name) = changes.find(|name| !packed.contains(name)) {
            anyhow::bail!("the adapter changes '{name}', which is no matrix of this checkpoint");
        }
        Ok(())
    }

    /// The matrix `name`, to be read row by row; `stored` is its shape in the checkpoint, if it is
    /// not `[rows, columns]`.
    fn matrix(
        &self,
        name: &str,
        rows: usize,
        columns: usize,
        stored: Option<Vec<usize>>,
    ) -> Result<Rows<'_>> {
        let tensor = self.checkpoint.tensor(name, &stored.unwrap_or(vec![rows, columns]))?;
        let adapter = self.adapter.as_ref();
        let change = adapter.map(|a| a.of(name, rows, columns)).transpose()?.flatten();
        Ok(Rows { tensor, change, columns })
    }
}

/// The rows of a matrix.
struct Rows<'a> {
    tensor: Tensor<'a>,
    change: Option<Change<'a>>,
    columns: usize,
}

impl Rows<'_> {
    /// `count` rows from row `first` on.
    fn numbers(&self, first: usize, count: usize) -> Result<Vec<f32>> {
        let mut numbers = self.tensor.numbers(first * self.columns, count * self.columns)?;
        if let Some(change) = &self.change {
            change.add(first, &mut numbers)?;
        }
        Ok(numbers)
    }
}

/// Writes the tensors as the checkpoint has them; those that an adapter changes in 32 bits.
fn copy(
    mut file: BufWriter<File>,
    weights: &Weights,
    tensors: &[(String, Stored)],
    progress: &Progress,
) -> Result<()> {
    let (mut header, mut found, mut at) = (serde_json::Map::new(), Vec::new(), 0);
    for (name, content) in tensors {
        let (rows, columns, shape) = match *content {
            Stored::Matrix { rows, columns, .. } => (rows, columns, vec![rows, columns]),
            Stored::Numbers(count) => (1, count, vec![count]),
        };
        let matrix = weights.matrix(name, rows, columns, Some(shape.clone()))?;
        let dtype = if matrix.change.is_some() { Dtype::F32 } else { matrix.tensor.dtype() };
        let end = at + rows * columns * dtype.bitsize() / 8;
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [at, end]});
        header.insert(name.clone(), entry);
        at = end;
        found.push((matrix, rows));
    }
    let header = serde_json::Value::Object(header).to_string();
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    for (matrix, rows) in found {
        let together = (AT_A_TIME / matrix.columns).max(1);
        for first in (0..rows).step_by(together) {
            let here = together.min(rows - first);
            let count = here * matrix.columns;
            if matrix.change.is_some() {
                let numbers = matrix.numbers(first, here)?;
                file.write_all(&numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>())?;
            } else {
                file.write_all(&matrix.tensor.raw(first * matrix.columns, count)?)?;
            }
            progress.add(count as u64);
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

fn numbers(content: &Stored) -> u64 {
    match *content {
        Stored::Matrix { rows, columns, .. } => (rows * columns) as u64,
        Stored::Numbers(count) => count as u64,
    }
}

/// Writes the next tensor. `stored` is its shape in the checkpoint, if it is not that of the matrix.
fn put(
    writer: &mut Writer<BufWriter<File>>,
    weights: &Weights,
    name: &str,
    content: &Stored,
    stored: Option<Vec<usize>>,
    progress: &Progress,
) -> Result<()> {
    match *content {
        Stored::Matrix { format, rows, columns } => {
            let source = weights.matrix(name, rows, columns, stored)?;
            let together = (AT_A_TIME / columns).max(1).next_multiple_of(ROWS);
            let parts = (0..rows).step_by(together).map(|first| -> Result<Matrix> {
                let count = together.min(rows - first);
                let numbers = source.numbers(first, count)?;
                let matrix = Matrix::quantise(format, &numbers, columns)
                    .with_context(|| format!("tensor '{name}' cannot be packed"))?;
                progress.add((count * columns) as u64);
                Ok(matrix)
            });
            writer.parts(name, content, parts)
        }
        Stored::Numbers(count) => {
            let numbers = weights.checkpoint.tensor(name, &[count])?.numbers(0, count)?;
            ensure!(numbers.iter().all(|x| x.is_finite()), "tensor '{name}' is not finite");
            progress.add(count as u64);
            Ok(writer.numbers(name, &numbers)?)
        }
    }
}
