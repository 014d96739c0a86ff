//! `elea key`: a key alone, and what a cluster file says of it.

use elea_client::{PublicKey, SecretKey};
use elea_protocol::id::hex;
use elea_protocol::signature::Signer as _;

use crate::cli::{KeyAction, KeyCommand, KeyFile, KeyShow};
use crate::failure::Outcome;
use crate::files::{self, key_text};
use crate::output;

/// Makes a key, or reads one, and prints its part of a cluster file.
pub fn run(args: &KeyCommand) -> Outcome {
    let (key, file) = match &args.action {
        KeyAction::New(file) => {
            let key = SecretKey::from_bytes(&rand::random());
            files::write_new(&file.file, &key_text(&key), 0o600)?;
            (key, file)
        }
        KeyAction::Show(KeyShow { file, group_key }) => {
            let readers = files::readers(&file.file, *group_key);
            (files::load_key(&file.file, readers)?, file)
        }
    };
    output::bytes(entry(&key.public_key(), file).as_bytes());
    Ok(())
}

/// What a cluster file says of this key.
fn entry(key: &PublicKey, file: &KeyFile) -> String {
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let key = format!("public_key = \"{}\"\n", hex(&key.0));
    match (&file.replica, &file.address) {
        (Some(id), Some(address)) => {
            format!("[[replica]]\nid = {id}\n{key}address = {}\n", quoted(address))
        }
        _ => {
            let name = file.name.as_ref().map(|name| format!("name = {}\n", quoted(name)));
            format!("[[client]]\n{}{key}", name.unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use elea_protocol::cluster_file::ClusterFile;

    use super::*;
    use crate::cli::{Cli, Command};

    fn file(words: &[&str]) -> KeyFile {
        let words = ["elea", "key", "show", "a.key"].iter().chain(words);
        match Cli::try_parse_from(words).expect("it can be said").command {
            Command::Key(KeyCommand { action: KeyAction::Show(show) }) => show.file,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_printed_is_what_a_cluster_file_is_made_of() {
        let keys: Vec<_> = (1..=4).map(|n| SecretKey::from_bytes(&[n; 32]).public_key()).collect();
        let mut text = String::from("name = \"town\"\nf = 1\n");
        for (n, key) in keys.iter().enumerate() {
            let (id, address) = (n.to_string(), format!("r{n}.town:7100"));
            text += &entry(key, &file(&["--replica", &id, "--address", &address]));
        }
        text += &entry(&keys[0], &file(&["--name", "a \"quoted\" name"]));
        text += &entry(&keys[1], &file(&[]));
        let read = ClusterFile::parse(&text).expect("it is one");
        assert_eq!(read.addresses[3], "r3.town:7100");
        let clients = read.clients.expect("they are listed");
        let names: Vec<_> = clients.iter().map(|client| client.name.as_deref()).collect();
        assert_eq!(names, [Some("a \"quoted\" name"), None]);
        assert_eq!(clients[1].id.0, keys[1].0);
    }

    #[test]
    fn a_replica_has_a_number_and_an_address_and_no_name() {
        let parse =
            |words: &[&str]| Cli::try_parse_from(["elea", "key", "show", "a"].iter().chain(words));
        assert!(parse(&["--replica", "1"]).is_err());
        assert!(parse(&["--address", "a:1"]).is_err());
        assert!(parse(&["--replica", "1", "--address", "a:1", "--name", "a"]).is_err());
    }
}
