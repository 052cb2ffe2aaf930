//! The table of `bench`, on a tiny policy. The peers' part is tried by hand: building llama.cpp takes
//! longer than all other tests.

use serde_json::Value;
use std::process::{Command, Output};
use tempfile::TempDir;

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lookback-models"))
        .args(["bench", "--shape", "tiny", "--rounds", "1"])
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn everything_is_measured_for_each_number_of_threads_and_kept_for_the_next_time() {
    let scratch = TempDir::new().unwrap();
    let scratch = scratch.path().to_str().unwrap();
    let output = bench(&["--scratch", scratch, "--threads", "1,2", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = said["rows"].as_array().unwrap();
    for threads in [1, 2] {
        for (what, context) in [
            ("decode", Some(0)),
            ("decode", Some(1024)),
            ("prefill", Some(512)),
            ("vision", None),
            ("rss", Some(2048)),
            ("load", None),
            ("bandwidth_share", Some(0)),
            ("adapter", Some(0)),
        ] {
            let mut of = rows.iter().filter(|row| {
                row["what"] == what
                    && row["threads"] == threads
                    && row["context"] == Value::from(context)
            });
            let row = of.next().unwrap_or_else(|| panic!("{what} with {threads}"));
            assert!(row["ours"].as_f64().unwrap() > 0.0 && row["unit"].is_string(), "{row}");
            assert!(row["peer"].is_null() && row["ratio"].is_null() && of.next().is_none());
        }
    }
    let made = std::fs::metadata(format!("{scratch}/tiny/bundle")).unwrap().modified().unwrap();
    let output = bench(&["--scratch", scratch, "--threads", "1"]);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("decode") && table.contains("--install-peers"), "{table}");
    let still = std::fs::metadata(format!("{scratch}/tiny/bundle")).unwrap().modified().unwrap();
    assert_eq!(made, still);
}

#[test]
fn what_cannot_be_measured_is_refused_in_a_sentence() {
    let output = bench(&["--threads", "0"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("--threads"), "{said}");
    let output = Command::new(env!("CARGO_BIN_EXE_lookback-models"))
        .args(["bench", "no-such-bundle"])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("no-such-bundle"), "{said}");
}
