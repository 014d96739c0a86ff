//! A stock that every site sells from, also while the sites cannot reach each other.
//!
//! ```sh
//! inventory cluster.toml client-0.key bolts -3
//! ```
//!
//! The sale counts as soon as `f + 1` replicas have it: it is never lost. While the network is broken each part sells from what it
//! knows, and afterwards all sales are in one history, each once. So the stock may turn out to have been oversold; whoever must
//! exclude that asks `strong` and waits for `2f + 1`.

use std::error::Error;

use elea_client::{Client, Cluster, Done, Proven, load_key};
use elea_kv::Incr;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [cluster, key, item, change] = &words[..] else {
        return Err("usage: inventory CLUSTER KEY ITEM CHANGE".into());
    };
    let (cluster, key) = (Cluster::load(cluster)?, load_key(key)?);
    let client = Client::connect(&cluster, key).await?;

    let sale = client.weak(Incr::new(item.clone(), change.parse()?)).await?;
    // The operation may say no, for instance where the key holds a text.
    let counted = sale.result.clone()?;
    println!("{item}: {} as far as this part of the network knows", counted.value);

    // Waits until nothing can move it any more; that takes `2f + 1` replicas.
    let receipt = match sale.finality().await? {
        Done::Same { receipt } => {
            println!("{item}: that is final");
            receipt
        }
        Done::Reordered { result, receipt, .. } => {
            println!("{item}: {} after all sales before it", result?.value);
            receipt
        }
    };
    // What the replicas signed convinces anybody who has the cluster file.
    assert_eq!(receipt.verify(&cluster.membership)?, Proven::Final);

    client.close().await;
    Ok(())
}
