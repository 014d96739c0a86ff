//! Telling a first start from a lost disk, as far as this machine can.
//!
//! A folder that is made is given a [`Life`], and the replica in it is new until its peers say that
//! they never heard of another life of it. A second witness is a small file beside the key: it holds
//! the life of the folder that the key was first used with. Who starts with another folder has lost
//! the first one, and needs nobody to say so. It is written when the folder is there and before the
//! replica says its first word, so that it never tells of a life that did not begin.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use elea_protocol::id::{Digest, Life, ReplicaId, hex, unhex};
use elea_protocol::message::Standing;
use elea_protocol::replica::{Record, Recovered};

use crate::config::RunError;
use crate::store::Store;

/// What each line of the file begins with.
const TAG: &str = "elea-started-1";

/// Looks at the witness, and draws the life of a folder that has none.
pub(crate) fn find_out(
    store: &mut Store,
    recovered: &mut Recovered,
    me: ReplicaId,
    genesis: &Digest,
    mark: Option<&Path>,
) -> Result<(), RunError> {
    let life = match recovered.lives.get(&me) {
        Some(life) => *life,
        None => {
            let life = Life(rand::random());
            recovered.lives.insert(me, life);
            store.commit(&[Record::Lives(recovered.lives.clone())])?;
            life
        }
    };
    let Some(path) = mark else { return Ok(()) };
    let bad = |error: io::Error| RunError::Mark { path: path.into(), reason: error.to_string() };
    let lines = read(path).map_err(bad)?;
    match lines.iter().find(|(of, _)| of == genesis) {
        None => write(path, &lines, (*genesis, life)).map_err(bad),
        Some((_, first)) if *first == life => Ok(()),
        Some(_) => {
            if recovered.standing != Standing::Observer {
                recovered.standing = Standing::Observer;
                store.commit(&[Record::Standing(Standing::Observer)])?;
            }
            Ok(())
        }
    }
}

/// The clusters in which the key was used, with the life that was the first in each.
fn read(path: &Path) -> io::Result<Vec<(Digest, Life)>> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text?,
    };
    let line = |line: &str| {
        let mut words = line.split(' ');
        let tag = words.next()?;
        let genesis = unhex::<32>(words.next()?)?;
        let life = unhex::<16>(words.next()?)?;
        (tag == TAG && words.next().is_none()).then_some((Digest(genesis), Life(life)))
    };
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "a line of it is malformed");
    text.lines().map(|text| line(text).ok_or_else(malformed)).collect()
}

/// Adds a line, whole or not at all, and not before it is on the disk does anything else happen.
fn write(path: &Path, lines: &[(Digest, Life)], new: (Digest, Life)) -> io::Result<()> {
    let text: String = lines
        .iter()
        .chain([&new])
        .map(|(genesis, life)| format!("{TAG} {genesis} {}\n", hex(&life.0)))
        .collect();
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    let mut private = File::options();
    private.write(true).create(true).truncate(true).mode(0o600);
    let mut file = private.open(&part)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&part, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::*;
    use crate::config::Durability;

    const ME: ReplicaId = ReplicaId(2);
    const GENESIS: Digest = Digest([7; 32]);

    fn start(data: &Path, genesis: Digest, mark: Option<&Path>) -> (Standing, Life) {
        let (mut store, mut recovered) =
            Store::open(data, &genesis, ME, Durability::Sync).expect("it opens");
        find_out(&mut store, &mut recovered, ME, &genesis, mark).expect("it is sound");
        (recovered.standing, recovered.lives[&ME])
    }

    fn places() -> (TempDir, PathBuf, PathBuf) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (data, mark) = (folder.path().join("data"), folder.path().join("key.started"));
        (folder, data, mark)
    }

    #[test]
    fn a_folder_keeps_its_life_and_is_new_until_its_peers_have_spoken() {
        let (_folder, data, mark) = places();
        let (standing, life) = start(&data, GENESIS, Some(&mark));
        assert_eq!(standing, Standing::New);
        assert_eq!(start(&data, GENESIS, Some(&mark)), (Standing::New, life));
        let (mut store, _) = Store::open(&data, &GENESIS, ME, Durability::Sync).expect("it opens");
        store.commit(&[Record::Standing(Standing::Voter)]).expect("written");
        drop(store);
        assert_eq!(start(&data, GENESIS, Some(&mark)), (Standing::Voter, life));
    }

    #[test]
    fn an_empty_folder_for_a_key_that_was_used_is_a_lost_disk_for_good() {
        let (_folder, data, mark) = places();
        let (_, first) = start(&data, GENESIS, Some(&mark));
        fs::remove_dir_all(&data).expect("it is there");
        let (standing, second) = start(&data, GENESIS, Some(&mark));
        assert_eq!(standing, Standing::Observer);
        assert_ne!(first, second);
        // It is on the disk: the witness may go.
        fs::remove_file(&mark).expect("it is there");
        assert_eq!(start(&data, GENESIS, Some(&mark)), (Standing::Observer, second));
    }

    #[test]
    fn without_the_witness_an_empty_folder_is_new_and_its_life_another_one() {
        let (_folder, data, _) = places();
        let (_, first) = start(&data, GENESIS, None);
        fs::remove_dir_all(&data).expect("it is there");
        let (standing, second) = start(&data, GENESIS, None);
        assert_eq!(standing, Standing::New);
        assert_ne!(first, second);
    }

    #[test]
    fn one_witness_tells_of_every_cluster_and_a_bad_one_of_none() {
        let (folder, data, mark) = places();
        let other = Digest([8; 32]);
        assert_eq!(start(&data, GENESIS, Some(&mark)).0, Standing::New);
        assert_eq!(start(&folder.path().join("b"), other, Some(&mark)).0, Standing::New);
        assert_eq!(start(&folder.path().join("c"), GENESIS, Some(&mark)).0, Standing::Observer);
        assert_eq!(start(&folder.path().join("d"), other, Some(&mark)).0, Standing::Observer);
        assert_eq!(start(&data, GENESIS, Some(&mark)).0, Standing::New);

        fs::write(&mark, "elea-started-1 00 11\n").expect("written");
        assert!(read(&mark).is_err());
    }
}
