//! Whatever fails, in whatever state of an update: the device ends in a defined state, with a policy that works.
//!
//! The program itself goes the whole way of an update, from the signed repository to the commit, with its own log
//! and its own files, and at one of its operations on the disk something fails ([`Fault`]). Then it is looked at as
//! a person would, and the fault being gone it goes again. What came of it is a table, which ARCHITECTURE.md has.

mod crash;
mod device;
mod matrix;
mod world;

use matrix::{Density, Detail, Matrix};
use std::{env, fs, path::Path};

const BEGIN: &str = "<!-- The table of edge-agent/agent/tests/ota begins here. -->\n";
const END: &str = "<!-- It ends here. -->\n";

#[test]
fn whatever_fails_in_whatever_state_a_policy_that_works_is_what_runs() {
    let table = Matrix::fill(Density::Few).table(Detail::Ends);
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ARCHITECTURE.md");
    let text = fs::read_to_string(&document).unwrap();
    let (head, rest) = text.split_once(BEGIN).expect("ARCHITECTURE.md has the table");
    let (there, tail) = rest.split_once(END).expect("ARCHITECTURE.md says where the table ends");
    if env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&document, format!("{head}{BEGIN}{table}{END}{tail}")).unwrap();
        return;
    }
    assert_eq!(
        there, table,
        "ARCHITECTURE.md has another table: UPDATE_EXPECT=1 writes this one into it"
    );
}

#[test]
#[ignore = "some thousand updates, one for each operation: tests/long ota"]
fn whichever_operation_fails_a_policy_that_works_is_what_runs() {
    let matrix = Matrix::fill(Density::All);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../tests/ota-matrix.md");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, matrix.table(Detail::Found)).unwrap();
}
