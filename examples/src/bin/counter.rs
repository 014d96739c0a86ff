//! Adds to the number that replicas which run [`elea_examples::counter::Counter`] share.
//!
//! ```sh
//! counter cluster.toml client-0.key 5      # "5 as far as f + 1 replicas know", then "that is final"
//! ```

use std::error::Error;

use elea_client::{Client, Cluster, Done, load_key};
use elea_examples::counter::AddToCounter;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [cluster, key, number] = &words[..] else {
        return Err("usage: counter CLUSTER KEY NUMBER".into());
    };
    let client = Client::connect(&Cluster::load(cluster)?, load_key(key)?).await?;

    let weak = client.weak(AddToCounter(number.parse()?)).await?;
    let sum = weak.result.ok_or("the sum would not fit, and nothing was added")?;
    println!("{sum} as far as f + 1 replicas know");
    match weak.finality().await? {
        Done::Same { .. } => println!("that is final"),
        // Another part of the cluster has added something meanwhile.
        Done::Reordered { result: Some(sum), .. } => println!("{sum}, and that is final"),
        Done::Reordered { result: None, .. } => println!("it did not fit behind what others added"),
    }

    client.close().await;
    Ok(())
}
