//! llama.cpp and ONNX Runtime, each in a virtual environment of Python.

use super::ours::What;
use crate::progress::Progress;
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

/// What is run for every peer.
const SCRIPT: &str = include_str!("bench.py");

/// Versions that were tried.
const LLAMA: [&str; 3] = ["llama-cpp-python==0.3.36", "gguf==0.19.0", "numpy==2.4.6"];
const ONNX: [&str; 3] = ["onnxruntime==1.32.0", "onnx==1.22.0", "numpy==2.4.6"];

/// The peers that are installed, with models of the shape to be measured.
pub struct Peers {
    script: PathBuf,
    /// Builds of llama.cpp: their interpreters.
    llama: Vec<PathBuf>,
    onnx: Option<PathBuf>,
    gguf: PathBuf,
    tower: PathBuf,
}

impl Peers {
    /// Those in `folder`; their models are made in `home` if they are not there.
    ///
    /// # Errors
    /// If a peer that is there cannot make its model.
    pub fn find(folder: &Path, home: &Path, shape: &Value, progress: &Progress) -> Result<Self> {
        let interpreter = |name: &str| {
            let path = folder.join(name).join("bin/python");
            folder.join(name).join("ready").exists().then_some(path)
        };
        let script = home.join("bench.py");
        fs::write(&script, SCRIPT).with_context(|| format!("{}", script.display()))?;
        let peers = Self {
            script,
            llama: ["llama", "llama-amx"].iter().filter_map(|name| interpreter(name)).collect(),
            onnx: interpreter("onnx"),
            gguf: home.join("peer.gguf"),
            tower: home.join("peer.onnx"),
        };
        progress.says("peers");
        let models = [
            ("gguf", peers.llama.first(), &peers.gguf),
            ("onnx", peers.onnx.as_ref(), &peers.tower),
        ];
        for (kind, python, file) in models {
            let Some(python) = python.filter(|_| !file.exists()) else { continue };
            let making = home.join(format!("making.{kind}"));
            let mut command = Command::new(python);
            command.arg(&peers.script).arg(kind).arg(&making).arg(shape.to_string());
            ran(&mut command, home)?;
            // An ONNX file names the file of its weights: both stay where they were made.
            if kind == "onnx" {
                fs::hard_link(&making, file)?;
            } else {
                fs::rename(&making, file)?;
            }
        }
        Ok(peers)
    }

    /// Name and figures of each peer that has such figures. A build that crashes has told what came
    /// before.
    pub fn measure(&self, what: What, threads: usize) -> Vec<(String, Map<String, Value>)> {
        let (command, pythons, model) = match what {
            What::Text => ("text", self.llama.iter().collect(), &self.gguf),
            What::Memory => ("memory", self.llama.iter().collect(), &self.gguf),
            What::Vision => ("vision", Vec::from_iter(&self.onnx), &self.tower),
        };
        pythons
            .into_iter()
            .filter_map(|python| {
                let mut run = Command::new(python);
                run.arg(&self.script).arg(command).arg(model).arg(threads.to_string());
                let said = String::from_utf8(run.output().ok()?.stdout).ok()?;
                figures(&said, python)
            })
            .collect()
    }
}

/// From a peer's lines: of what was measured in several ways, the best.
fn figures(said: &str, python: &Path) -> Option<(String, Map<String, Value>)> {
    let mut best: Map<String, Value> = Map::new();
    for line in said.lines() {
        for (name, figure) in serde_json::from_str::<Map<String, Value>>(line).ok()? {
            let less = matches!(name.as_str(), "load" | "rss" | "vision");
            let old = best.get(&name).and_then(Value::as_f64);
            let better = |old: f64| figure.as_f64().is_some_and(|new| (new < old) == less);
            if old.is_none_or(better) {
                best.insert(name, figure);
            }
        }
    }
    let mut name = best.remove("name")?.as_str()?.to_owned();
    if python.ancestors().any(|folder| folder.ends_with("llama-amx")) {
        name.push_str(", AMX");
    }
    Some((name, best))
}

/// Installs all peers that are not in `folder` yet.
///
/// # Errors
/// If one cannot be installed, in a sentence that names its log.
pub fn install(folder: &Path) -> Result<()> {
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let has = |flag: &str| flags.split_whitespace().any(|word| word == flag);
    let build = |more: &[&str]| -> String {
        let known = [
            ("sse4_2", "SSE42"),
            ("avx", "AVX"),
            ("avx2", "AVX2"),
            ("fma", "FMA"),
            ("f16c", "F16C"),
            ("bmi2", "BMI2"),
            ("avx_vnni", "AVX_VNNI"),
            ("avx512bw", "AVX512"),
            ("avx512vbmi", "AVX512_VBMI"),
            ("avx512_vnni", "AVX512_VNNI"),
        ];
        // "Native" would choose by what the compiler knows of the processor, which misses some.
        if !has("sse4_2") {
            return "-DGGML_NATIVE=ON".into();
        }
        let found = known.iter().filter(|(flag, _)| has(flag)).map(|(_, name)| *name);
        let found = found.chain(more.iter().copied()).map(|name| format!(" -DGGML_{name}=ON"));
        format!("-DGGML_NATIVE=OFF{}", found.collect::<String>())
    };
    one(folder, "onnx", &ONNX, None)?;
    one(folder, "llama", &LLAMA, Some(build(&[])))?;
    if has("amx_int8") {
        one(folder, "llama-amx", &LLAMA, Some(build(&["AMX_TILE", "AMX_INT8"])))?;
    }
    Ok(())
}

/// One virtual environment. `build`: how llama.cpp is to be compiled.
fn one(folder: &Path, name: &str, packages: &[&str], build: Option<String>) -> Result<()> {
    let venv = folder.join(name);
    if venv.join("ready").exists() {
        return Ok(());
    }
    fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    ran(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv), folder)?;
    let mut pip = Command::new(venv.join("bin/python"));
    pip.args(["-m", "pip", "install", "--disable-pip-version-check"]);
    if let Some(build) = build {
        // A cached wheel may be another build.
        pip.args(["--no-cache-dir", "--no-binary", "llama-cpp-python"]).env("CMAKE_ARGS", build);
    }
    ran(pip.args(packages), folder)?;
    fs::write(venv.join("ready"), "")?;
    Ok(())
}

/// Runs; what it says goes to `log.txt` in `folder`.
fn ran(command: &mut Command, folder: &Path) -> Result<()> {
    let path = folder.join("log.txt");
    let log = File::options().create(true).append(true).open(&path)?;
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.stdout(log.try_clone()?).stderr(log).status();
    if !status.with_context(|| format!("{program} cannot be run: install Python 3"))?.success() {
        bail!("a peer could not be prepared: {} says why", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_ways_the_best_counts_and_what_came_before_a_crash_too() {
        let said = "{\"name\": \"x\", \"load\": 2.0}\n{\"decode_0\": 5.0}\n\
                    {\"load\": 1.0}\n{\"decode_0\": 4.0}\n";
        let (name, best) = figures(said, Path::new("/s/llama-amx/bin/python")).unwrap();
        assert_eq!(name, "x, AMX");
        assert_eq!((best["load"].as_f64(), best["decode_0"].as_f64()), (Some(1.0), Some(5.0)));
        assert!(figures("", Path::new("p")).is_none());
    }
}
