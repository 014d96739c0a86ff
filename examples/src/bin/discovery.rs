//! Who offers a service? Works in every part of a broken network.
//!
//! ```sh
//! discovery cluster.toml client-0.key mail join 10.0.0.7:25
//! discovery cluster.toml client-0.key mail leave 10.0.0.7:25
//! discovery cluster.toml client-0.key mail list
//! ```
//!
//! To find something, a weak answer is enough: it was executed by a correct replica, though in a part of the network it may lack
//! what was said in another one. The set is made to be merged: `add` and `remove` say what to change, so when the network heals
//! all changes are in it.

use std::error::Error;

use elea_client::{Client, Cluster, load_key};
use elea_kv::{Add, Members, Remove};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [cluster, key, service, what @ ..] = &words[..] else {
        return Err("usage: discovery CLUSTER KEY SERVICE join|leave ADDRESS, or list".into());
    };
    let client = Client::connect(&Cluster::load(cluster)?, load_key(key)?).await?;

    let place = format!("service/{service}");
    match what {
        ["join", address] => {
            client.weak(Add::new(place, (*address).to_owned())).await?.result?;
        }
        ["leave", address] => {
            client.weak(Remove::new(place, (*address).to_owned())).await?.result?;
        }
        ["list"] => {
            for member in client.weak(Members::new(place)).await?.result?.members {
                println!("{}", String::from_utf8_lossy(&member));
            }
        }
        _ => return Err("it is `join ADDRESS`, `leave ADDRESS` or `list`".into()),
    }

    client.close().await;
    Ok(())
}
