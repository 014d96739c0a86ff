use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use elea_fault_injection::rng::Rng;

use super::*;

/// How often each input is changed, in a target whose inputs take microseconds and in one whose inputs are worlds.
const CHANGES: u64 = 400;
const CHANGES_OF_A_WORLD: u64 = 6;

/// The same bytes with some of them changed, left out, or doubled.
fn changed(bytes: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..rng.between(1, 4) {
        if bytes.is_empty() {
            bytes.push(rng.bytes::<1>()[0]);
            continue;
        }
        let at = rng.index(bytes.len());
        let end = at + rng.index((bytes.len() - at).min(16) + 1);
        match rng.between(0, 5) {
            0 => bytes[at] ^= 1 << rng.between(0, 7),
            1 => bytes[at] = *rng.pick(&[0, 1, 0x7f, 0x80, 0xff]),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let again = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, again));
            }
            4 => bytes.truncate(at),
            _ => bytes.insert(at, rng.bytes::<1>()[0]),
        }
    }
    bytes
}

fn bear(target: &Target, changes: u64) {
    let inputs = target.inputs().expect("a corpus");
    assert!(!inputs.is_empty(), "{} has nothing to begin with", target.name);
    for (index, (path, bytes)) in inputs.into_iter().enumerate() {
        println!("{}", path.display());
        (target.run)(&bytes);
        let mut rng = Rng::new(index as u64);
        for _ in 0..changes {
            let bytes = changed(&bytes, &mut rng);
            // What fails can be fed to the program.
            let name = std::env::temp_dir().join(format!("elea-fuzz-{}", std::process::id()));
            let outcome = std::panic::catch_unwind(|| (target.run)(&bytes));
            if let Err(panic) = outcome {
                let place = name.with_extension(target.name);
                fs::write(&place, &bytes).expect("a temporary folder");
                println!("elea-fuzz {} {}", target.name, place.display());
                std::panic::resume_unwind(panic);
            }
        }
    }
}

#[test]
fn decoders_bear_their_corpora_and_what_is_like_them() {
    for target in TARGETS.iter().filter(|target| target.name != "world") {
        bear(target, CHANGES);
    }
}

#[test]
fn a_cluster_bears_a_replica_that_does_whatever_bytes_say() {
    bear(&named("world").expect("a target"), CHANGES_OF_A_WORLD);
}

/// A target without its program would never be fuzzed.
#[test]
fn every_target_has_a_corpus_and_a_program() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(folder.join("libfuzzer/Cargo.toml")).expect("a manifest");
    let names = |folder: &Path| -> BTreeSet<String> {
        let entries = fs::read_dir(folder).expect("a folder").filter_map(Result::ok);
        let stem =
            |path: PathBuf| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        entries.map(|entry| stem(entry.path())).collect()
    };
    let targets: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(names(&folder.join("libfuzzer/fuzz_targets")), targets);
    assert_eq!(names(&folder.join("corpus")), targets);
    for name in targets {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is in no manifest");
    }
}
