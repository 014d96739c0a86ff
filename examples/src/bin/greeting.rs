//! The program in the README of the client library. It takes its files from the folder that it runs in.

use elea_client::{Client, Cluster, load_key};
use elea_kv::{Incr, Put};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = Cluster::load("cluster.toml")?;
    let client = Client::connect(&cluster, load_key("client-0.key")?).await?;
    client.weak(Put::new("greeting", "hello")).await?.result?;
    let count = client.strong(Incr::new("visitors", 1)).await?;
    println!("visitor {}", count.result?.value);
    client.close().await;
    Ok(())
}
