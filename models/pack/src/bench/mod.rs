//! What a packed policy costs on this machine, beside others with weights of the same shape.
//!
//! Each measurement is a process of its own, ours and the peers' in turn, and each figure the median
//! of all rounds: on a shared machine only figures of one run can be compared.

mod ours;
mod peers;

use crate::{
    pack::{self, Pack},
    progress::Progress,
    random::{self, Shape},
};
use anyhow::{Context, Result, ensure};
use bundle::{Bundle, VISION};
use clap::{Args, ValueEnum};
use engine::{TOWER, TowerShape};
use kernels::{Aligned, PackedFile};
use ours::What;
pub use ours::{Measure, measure};
use peers::Peers;
use serde::Serialize;
use serde_json::{Map, Value};
use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

/// What to compare, and with whom.
#[derive(Args)]
pub struct Bench {
    /// Folder of a packed bundle. Without it, random weights are made in --scratch, once: 4.3 GB while
    /// they are packed, 1.4 GB to stay.
    bundle: Option<PathBuf>,
    /// Shape of the random weights.
    #[arg(long, value_enum, default_value_t = Shape::Qwen3Vl2b, conflicts_with = "bundle")]
    shape: Shape,
    /// First install the peers: llama.cpp built for this CPU (several minutes; needs a C++ compiler)
    /// and ONNX Runtime, from PyPI, with Python's venv and pip.
    #[arg(long)]
    install_peers: bool,
    /// Where peers and random weights are kept [default: lookback/bench in the cache folder].
    #[arg(long)]
    scratch: Option<PathBuf>,
    /// Numbers of threads to measure with.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2])]
    threads: Vec<usize>,
    /// How often all is measured; a figure is the median.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// One line of the table.
#[derive(Debug, Serialize)]
pub struct Row {
    /// `decode`, `prefill`, `vision`, `rss`, `load`, `bandwidth_share` or `adapter`.
    what: &'static str,
    /// Tokens that were read before (decode), or in it (prefill, rss); none for the rest.
    context: Option<u32>,
    threads: usize,
    ours: f64,
    /// The best build of the peer.
    peer: Option<f64>,
    peer_name: Option<String>,
    /// How many times better ours is: more tokens, or less time or memory.
    ratio: Option<f64>,
    unit: &'static str,
}

/// A figure as it is measured, and the row that it becomes.
struct Figure {
    name: &'static str,
    what: &'static str,
    context: Option<u32>,
    unit: &'static str,
    more_is_better: bool,
}

const FIGURES: [Figure; 8] = [
    figure("decode_0", "decode", Some(0), "tokens/s", true),
    figure("decode_1024", "decode", Some(1024), "tokens/s", true),
    figure("prefill_512", "prefill", Some(512), "tokens/s", true),
    figure("vision", "vision", None, "ms/pair", false),
    figure("rss", "rss", Some(2048), "GB", false),
    figure("load", "load", None, "s", false),
    figure("bandwidth_share", "bandwidth_share", Some(0), "of a stream read", true),
    figure("adapter", "adapter", Some(0), "of a token without", false),
];

const fn figure(
    name: &'static str,
    what: &'static str,
    context: Option<u32>,
    unit: &'static str,
    more_is_better: bool,
) -> Figure {
    Figure { name, what, context, unit, more_is_better }
}

/// Measures everything.
///
/// # Errors
/// If nothing can be measured; a peer that fails is left out.
pub fn bench(given: &Bench, progress: &Progress) -> Result<Vec<Row>> {
    let Bench { rounds, threads, .. } = given;
    ensure!(*rounds > 0 && threads.iter().all(|n| *n > 0), "--rounds and --threads begin at 1");
    let scratch = match &given.scratch {
        Some(folder) => folder.clone(),
        None => cache()?.join("bench"),
    };
    let home = scratch.join(match &given.bundle {
        Some(dir) => Bundle::open(dir)?.id(),
        None => {
            given.shape.to_possible_value().expect("no variant is skipped").get_name().to_owned()
        }
    });
    fs::create_dir_all(&home).with_context(|| format!("{} cannot be made", home.display()))?;
    let dir = match &given.bundle {
        Some(dir) => dir.clone(),
        None => random_bundle(&home, given.shape, progress)?,
    };
    if given.install_peers {
        progress.says("install");
        peers::install(&scratch.join("peers"))?;
    }
    let bundle = Bundle::open(&dir)?;
    let peers = Peers::find(&scratch.join("peers"), &home, &shape(&bundle)?, progress)?;

    progress.says("measure");
    progress.begin((rounds * threads.len() * 3) as u64);
    let mut all = Measured::default();
    for round in 0..*rounds {
        for &threads in threads {
            for what in [What::Text, What::Vision, What::Memory] {
                // What a process holds does not depend on chance.
                if what != What::Memory || round == 0 {
                    all.add(threads, None, &in_a_process(what, &dir, threads)?);
                    for (peer, figures) in peers.measure(what, threads) {
                        all.add(threads, Some(&peer), &figures);
                    }
                }
                progress.add(1);
            }
        }
    }
    Ok(threads.iter().flat_map(|n| FIGURES.iter().filter_map(|f| all.row(f, *n))).collect())
}

/// `~/.cache/lookback`, or where XDG_CACHE_HOME says.
fn cache() -> Result<PathBuf> {
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    Ok(cache.context("HOME is not set: give --scratch")?.join("lookback"))
}

/// The random bundle in `home`, made if it is not there.
fn random_bundle(home: &Path, shape: Shape, progress: &Progress) -> Result<PathBuf> {
    let (made, dir) = (home.join("checkpoint"), home.join("bundle"));
    if dir.exists() {
        return Ok(dir);
    }
    if made.exists() {
        fs::remove_dir_all(&made)?;
    }
    progress.says("make");
    random::make(&random::Random::of(shape, made.clone()), progress)?;
    progress.says("pack");
    pack::pack(&Pack::by_default(made.clone(), dir.clone()), progress)?;
    fs::remove_dir_all(&made)?;
    Ok(dir)
}

/// What peers have to know of a policy, as `bench.py` wants it.
fn shape(bundle: &Bundle) -> Result<Value> {
    let mut bytes = Aligned::zeroed(bundle.length(VISION)?);
    bundle.read_into(VISION, bytes.as_mut_slice())?;
    ensure!(PackedFile::is(&bytes), "{}: its vision part is not packed", bundle.id());
    let file = PackedFile::parse(&Arc::new(bytes))?;
    let tower: TowerShape = serde_json::from_str(file.note(TOWER).unwrap_or_default())
        .with_context(|| format!("{}: its vision part has no note '{TOWER}'", bundle.id()))?;
    let patches = 4 * bundle.manifest.geometry.tokens_per_pair;
    let decoder = &bundle.manifest.decoder;
    Ok(serde_json::json!({"decoder": decoder, "tower": tower, "patches": patches}))
}

/// The figures of a process of this program.
fn in_a_process(what: What, bundle: &Path, threads: usize) -> Result<Map<String, Value>> {
    let name = what.to_possible_value().expect("no variant is skipped");
    let output = Command::new(env::current_exe()?)
        .args(["measure", name.get_name()])
        .arg(bundle)
        .args(["--threads", &threads.to_string(), "--json"])
        .output()?;
    let figures: Map<String, Value> =
        serde_json::from_slice(&output.stdout).context("a measurement gave no figures")?;
    if let Some(error) = figures.get("error") {
        anyhow::bail!("{error}");
    }
    Ok(figures)
}

/// The median; reorders.
///
/// # Panics
/// If there are none.
fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    let (low, high) = (figures[(figures.len() - 1) / 2], figures[figures.len() / 2]);
    f64::midpoint(low, high)
}

/// Figures of all rounds by number of threads, peer (ours: none) and name.
#[derive(Default)]
struct Measured(BTreeMap<(usize, Option<String>, String), Vec<f64>>);

impl Measured {
    fn add(&mut self, threads: usize, peer: Option<&str>, figures: &Map<String, Value>) {
        for (name, figure) in figures {
            if let Some(figure) = figure.as_f64() {
                let key = (threads, peer.map(str::to_owned), name.clone());
                self.0.entry(key).or_default().push(figure);
            }
        }
    }

    fn row(&self, figure: &Figure, threads: usize) -> Option<Row> {
        let Figure { name, what, context, unit, more_is_better } = *figure;
        let of_all = self.0.iter().filter(|((n, _, of), _)| *n == threads && of == name);
        let (mut ours, mut best) = (None, None::<(String, f64)>);
        for ((_, peer, _), figures) in of_all {
            let found = median(&mut figures.clone());
            match peer {
                None => ours = Some(found),
                Some(peer) => {
                    let better = |(_, old): &(String, f64)| (found > *old) == more_is_better;
                    if best.as_ref().is_none_or(better) {
                        best = Some((peer.clone(), found));
                    }
                }
            }
        }
        let ours = ours?;
        let ratio = |peer: f64| if more_is_better { ours / peer } else { peer / ours };
        Some(Row {
            what,
            context,
            threads,
            ours,
            ratio: best.as_ref().map(|(_, peer)| ratio(*peer)),
            peer: best.as_ref().map(|(_, peer)| *peer),
            peer_name: best.map(|(name, _)| name),
            unit,
        })
    }
}

/// The rows for people.
pub fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<16} {:>7} {:>7} {:>9} {:>9} {:>7}  {}",
        "", "context", "threads", "ours", "peer", "ratio", "unit"
    );
    for row in rows {
        let context = row.context.map_or(String::new(), |n| n.to_string());
        let number = |figure: f64| match figure {
            x if x.abs() >= 100.0 => format!("{x:.0}"),
            x => format!("{x:.2}"),
        };
        let peer = row.peer.map_or("-".into(), number);
        let ratio = row.ratio.map_or("-".into(), |x| format!("{x:.2}x"));
        let of = row.peer_name.as_ref().map_or(String::new(), |name| format!("  {name}"));
        let line = format!(
            "\n{:<16} {context:>7} {:>7} {:>9} {peer:>9} {ratio:>7}  {}{of}",
            row.what,
            row.threads,
            number(row.ours),
            row.unit
        );
        text.push_str(&line);
    }
    if rows.iter().all(|row| row.peer.is_none()) {
        text.push_str("\nno peer is installed: --install-peers does it");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn figures(json: Value) -> Map<String, Value> {
        json.as_object().unwrap().clone()
    }

    #[test]
    fn a_row_is_the_median_of_ours_beside_the_best_peer_and_a_ratio_above_one_is_ours() {
        let mut all = Measured::default();
        for (ours, peer) in [(10.0, 4.0), (30.0, 6.0), (20.0, 5.0)] {
            all.add(2, None, &figures(json!({"decode_0": ours, "load": 0.5})));
            all.add(2, Some("a"), &figures(json!({"decode_0": peer, "load": 2.0})));
            all.add(2, Some("b"), &figures(json!({"decode_0": peer / 2.0, "load": 1.0})));
        }
        let row = all.row(&FIGURES[0], 2).unwrap();
        assert_eq!((row.ours, row.peer, row.ratio), (20.0, Some(5.0), Some(4.0)));
        assert_eq!(row.peer_name.as_deref(), Some("a"));
        let load = FIGURES.iter().find(|f| f.name == "load").unwrap();
        let row = all.row(load, 2).unwrap();
        assert_eq!((row.peer_name.as_deref(), row.ratio), (Some("b"), Some(2.0)));
        assert!(all.row(&FIGURES[0], 1).is_none());
    }
}
