//! A tower on ONNX Runtime, beside the CPU's own. Where there is no ONNX Runtime what needs it is skipped.

mod common;

use bundle::Bundle;
use common::{Expected, assert_alike, fixture_dir};
use engine::{Accelerator, Engine, EngineOptions, Golden, Provider};
use std::{env, fs, path::PathBuf};

/// The engine of the fixture with the library in its place, and its cache.
fn load(library: PathBuf, provider: Provider) -> (Engine, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let accelerator = Accelerator { library, provider, cache: dir.path().join("cache") };
    let options = EngineOptions { accelerator: Some(Ok(accelerator)), ..EngineOptions::default() };
    (Engine::load(&Bundle::open(fixture_dir()).unwrap(), options).unwrap(), dir)
}

/// The ONNX Runtime of this machine, such as PyPI's; `None`, with a sentence, if none is named.
fn library() -> Option<PathBuf> {
    let library = env::var_os("LOOKBACK_ONNX_RUNTIME").map(PathBuf::from);
    if library.is_none() {
        eprintln!("skipped: name a libonnxruntime.so in LOOKBACK_ONNX_RUNTIME");
    }
    library
}

#[test]
fn it_sees_and_says_what_the_cpu_does() {
    let Some(library) = library() else { return };
    let (engine, _dir) = load(library, Provider::Cpu);
    assert!(engine.id().contains(", vision onnxruntime-cpu"), "{}", engine.backend_report());
    assert_eq!(engine.quarantined().next(), None);
    let expected = Expected::read();
    let pairs = expected.encode(&engine);
    assert_alike("visual tokens", &pairs[0].tokens, &expected.pair_0_tokens);
    assert_alike("DeepStack", &pairs[0].deepstack[1], &expected.pair_0_deepstack_1);
    let (there, here) = (Golden::of(&common::engine()).unwrap(), Golden::of(&engine).unwrap());
    assert_eq!(there.check(&here), Ok(()));
}

#[test]
fn tensorrt_that_is_not_there_is_a_reason_and_the_cpu_serves() {
    let Some(library) = library() else { return };
    for provider in [Provider::TensorRt, Provider::Cuda] {
        let (engine, _dir) = load(library.clone(), provider);
        let (id, report) = (engine.id(), engine.backend_report());
        assert!(!id.contains("vision"), "{id}");
        assert!(report.contains(&format!("vision: not on onnxruntime-{provider}")), "{report}");
        assert_eq!(engine.quarantined().next(), None);
    }
}

#[test]
fn a_library_that_is_not_there_or_none_is_a_reason_and_the_cpu_serves() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("libonnxruntime.so");
    fs::write(&text, "no library").unwrap();
    for (library, why) in
        [(dir.path().join("nowhere.so"), "absent: there is no"), (text, "broken: ")]
    {
        let (engine, _dir) = load(library, Provider::Cpu);
        let report = engine.backend_report();
        assert!(report.contains(why), "{report}");
        assert!(!engine.id().contains("vision"));
    }
}
