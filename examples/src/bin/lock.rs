//! A lock that is never held twice.
//!
//! ```sh
//! lock cluster.toml client-0.key backup take alice      # "alice holds backup", or who else does
//! lock cluster.toml client-0.key backup release alice
//! ```
//!
//! "Only one of us may" needs strong operations: in a part of the network with fewer than `2f + 1` replicas nobody gets the lock.
//! The version of a lock grows with each holder, so that whatever it protects can turn late writers away (a fencing token). This
//! lock has no lease: who takes it has to release it.

use std::error::Error;

use elea_client::{Client, Cluster, load_key};
use elea_kv::{Cas, Swap};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [cluster, key, name, verb, owner] = &words[..] else {
        return Err("usage: lock CLUSTER KEY NAME take|release OWNER".into());
    };
    let client = Client::connect(&Cluster::load(cluster)?, load_key(key)?).await?;

    let place = format!("lock/{name}");
    let wanted = match verb.as_str() {
        "take" => Cas::create(place, owner.clone()),
        "release" => Cas::delete(place, owner.clone()),
        _ => return Err("it is `take` or `release`".into()),
    };
    match (client.strong(wanted).await?.result?, verb.as_str()) {
        (Swap::Done(Some(version)), "take") => {
            println!("{owner} holds {name}, token {}.{}", version.slot, version.index);
        }
        (Swap::Done(_), _) => println!("{name} is free"),
        (Swap::Mismatch(Some(holder)), _) => {
            println!("{} holds {name}", String::from_utf8_lossy(&holder.value));
        }
        (Swap::Mismatch(None), _) => println!("nobody holds {name}"),
    }

    client.close().await;
    Ok(())
}
