//! `elea top`: a running cluster to look at, in a terminal or a browser.
//!
//! | file | what is in it |
//! |---|---|
//! | `trail`, `histories` | what a replica has shown of its history; which have one, and how that changes |
//! | `model`, `picture` | how the cluster is, from a sequence of what its replicas say; what is shown of that |
//! | `watch` | the cluster, which is asked again and again |
//! | `terminal`, `web` | the two views |

mod histories;
mod model;
mod picture;
mod terminal;
#[cfg(test)]
mod tests;
mod trail;
mod watch;
mod web;

use std::convert::Infallible;
use std::time::Duration;

use elea_protocol::cluster_file::ClusterFile;
use serde_json::json;
use tokio::time::sleep;

use self::watch::Watch;
pub use self::web::Page;
use crate::cli;
use crate::cluster::Cluster;
use crate::commands;
use crate::failure::Outcome;
use crate::output;
use crate::stopping::Stopping;

/// How often a page is drawn anew that is served beside something else.
const EVERY: Duration = Duration::from_millis(500);

/// `elea top`
pub async fn run(args: &cli::Top) -> Outcome {
    let access = &args.access;
    let file = commands::cluster(access.cluster.as_deref())?;
    let cluster = commands::connect(&file, access).await?;
    let mut watch = Watch::new(cluster, file, access.timeout);
    if let Some(address) = &args.web {
        return serve(address, watch, args.every, access.json).await;
    }
    if !args.once && !access.json {
        return terminal::run(watch, args.every).await;
    }
    loop {
        let picture = watch.look().await;
        let text = match access.json {
            true => serde_json::to_string(&picture).expect("what is shown has names for keys"),
            false => terminal::text(&picture, args.width.into()),
        };
        if !output::line(&text) || args.once {
            return Ok(());
        }
        sleep(args.every).await;
    }
}

async fn serve(address: &str, watch: Watch, every: Duration, json: bool) -> Outcome {
    let mut stopping = Stopping::listen()?;
    let page = Page::open(address).await?;
    match json {
        true => output::line(&json!({ "page": page.url() }).to_string()),
        false => output::line(&format!("page {}", page.url())),
    };
    tokio::select! {
        biased;
        () = stopping.wait() => Ok(()),
        never = page.serve(watch, every) => match never {},
    }
}

/// Serves a page of a cluster beside something else, until it is dropped.
pub async fn beside(page: Page, cluster: Cluster, file: ClusterFile) -> Infallible {
    page.serve(Watch::new(cluster, file, watch::PATIENCE), EVERY).await
}
