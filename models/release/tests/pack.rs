//! Files are packed, and come back from their packs.

use proptest::prelude::*;
use release::{CHUNK_BYTES_MAX, ChunkError, Index, PACK_BYTES_MAX, pack, pack_path};
use std::{collections::BTreeSet, fs, path::Path};
use tempfile::tempdir;

/// Bytes that do not compress.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut noise);
    noise
}

fn packed(folder: &Path, contents: &[&[u8]], known: &[Index]) -> Vec<Index> {
    let temp = tempdir().unwrap();
    let paths = contents.iter().enumerate().map(|(n, bytes)| {
        let path = temp.path().join(n.to_string());
        fs::write(&path, bytes).unwrap();
        path
    });
    let (paths, mut seen) = (paths.collect::<Vec<_>>(), 0);
    let indexes = pack(folder, &paths, known, |bytes| seen += bytes).unwrap();
    assert_eq!(seen, contents.iter().map(|bytes| bytes.len() as u64).sum::<u64>());
    indexes
}

fn unpacked(folder: &Path, index: &Index) -> Vec<u8> {
    let piece = |chunk: &release::Chunk| {
        let pack = fs::read(folder.join(pack_path(&chunk.pack))).unwrap();
        chunk.open(&pack[chunk.offset as usize..chunk.end() as usize]).unwrap()
    };
    index.chunks.iter().flat_map(piece).collect()
}

fn bytes_in(folder: &Path) -> u64 {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

#[test]
fn files_come_back_as_they_were_and_what_is_there_is_not_packed_again() {
    let packs = tempdir().unwrap();
    let (weights, words) = (noise(1, 40 << 20), b"twelve words ".repeat(100_000));
    let first = packed(packs.path(), &[&weights, &words, b"", &weights], &[]);
    for (index, file) in first.iter().zip([&weights[..], &words, b"", &weights]) {
        assert_eq!(unpacked(packs.path(), index), file);
        assert_eq!(index.blake3, blake3::hash(file));
        assert_eq!(Index::parse(&index.target(), &index.to_json()).unwrap(), *index);
    }
    let names: BTreeSet<_> =
        first.iter().flat_map(|i| &i.chunks).map(|c| c.pack.to_hex()).collect();
    assert_eq!(names.len(), 2, "40 MiB are two packs");
    for pack in fs::read_dir(packs.path()).unwrap().map(Result::unwrap) {
        assert!(pack.metadata().unwrap().len() <= PACK_BYTES_MAX);
    }
    let before = bytes_in(packs.path());
    assert!(before < (40 << 20) + (64 << 10), "words compress, and the same file counts once");
    // A header that grew shifts all that follows it.
    let mut second = noise(2, 1000);
    second.extend_from_slice(&weights);
    let indexes = packed(packs.path(), &[&second], &first);
    assert_eq!(unpacked(packs.path(), &indexes[0]), second);
    let grown = bytes_in(packs.path()) - before;
    assert!(grown <= 2 * u64::from(CHUNK_BYTES_MAX), "{grown} bytes for 1,000 new ones");
}

#[test]
fn other_bytes_are_never_taken_for_a_chunk() {
    let packs = tempdir().unwrap();
    let files = [noise(3, 300_000), b"again and again ".repeat(20_000)];
    for index in packed(packs.path(), &[&files[0], &files[1]], &[]) {
        for chunk in &index.chunks {
            let pack = fs::read(packs.path().join(pack_path(&chunk.pack))).unwrap();
            let stored = &pack[chunk.offset as usize..chunk.end() as usize];
            let mut other = stored.to_vec();
            other[stored.len() / 2] ^= 1;
            assert_eq!(chunk.open(&other), Err(ChunkError::Altered));
            assert_eq!(chunk.open(&stored[1..]), Err(ChunkError::Altered));
            // A key that signs nonsense still cannot make a camera take more than it was told of.
            let bomb = zstd::bulk::compress(&vec![0; 9 << 20], 1).unwrap();
            let stored = bomb.len() as u32;
            let signed = release::Chunk { stored, seal: blake3::hash(&bomb), ..*chunk };
            assert_eq!(signed.open(&bomb), Err(ChunkError::Wrong));
        }
    }
}

#[test]
fn an_index_that_cannot_be_is_refused() {
    let packs = tempdir().unwrap();
    let index = &packed(packs.path(), &[&noise(4, 3 << 20)], &[])[0];
    let json = String::from_utf8(index.to_json()).unwrap();
    let (name, id) = (index.target(), index.chunks[0].id.to_hex());
    let bytes = index.chunks[0].bytes;
    for (from, to) in [
        (format!("\"{id}\",{bytes}"), format!("\"{id}\",{}", bytes - 1)),
        (format!("\"{id}\",{bytes}"), format!("\"{id}\",0")),
        (format!("\"{id}\",{bytes},0"), format!("\"{id}\",{bytes},9")),
        (format!("\"{id}\",{bytes},0,0"), format!("\"{id}\",{bytes},0,{}", u64::MAX)),
        (format!("\"{id}\""), "\"../../../etc/passwd\"".to_owned()),
        ("\"schema\":1".to_owned(), "\"schema\":2".to_owned()),
        ("\"schema\":1".to_owned(), "\"schema\":1,\"more\":1".to_owned()),
    ] {
        let changed = json.replacen(&from, &to, 1);
        assert_ne!(changed, json, "{from}");
        let refusal = Index::parse(&name, changed.as_bytes()).unwrap_err().to_string();
        assert!(refusal.contains(&name), "{refusal}");
    }
    assert!(Index::parse("part-0.json", json.as_bytes()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_an_index_says_it_is_read_or_refused(
        cut in 0_usize..2000, put in prop::collection::vec(any::<u8>(), 0..20), at in 0_usize..2000,
    ) {
        let packs = tempdir().unwrap();
        let index = &packed(packs.path(), &[&noise(5, 900_000)], &[])[0];
        let mut json = index.to_json();
        let at = at % json.len();
        json.splice(at..(at + cut % 9).min(json.len()), put);
        if let Ok(read) = Index::parse(&index.target(), &json) {
            prop_assert_eq!(read.bytes, read.chunks.iter().map(|c| u64::from(c.bytes)).sum::<u64>());
        }
    }
}
