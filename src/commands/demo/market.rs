//! Two clinics sell from one stock while the network between them is down.

use std::time::Duration;

use elea_kv::{Answer, Append, Compare, Counted, Get, Incr, Outcome as Step, Put, Relation, Txn};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::town::{Side, Town, agreed, furthest};
use super::{PATIENCE, SHORT, broken, read, say, tell, title, took};
use crate::cluster::{Cluster, Reply, Wait};
use crate::commands::receipt;
use crate::failure::{Failure, Kind, Outcome};

const STOCK: i64 = 3;

/// Who comes, and to which clinic.
const PATIENTS: [(Side, &str); 5] = [
    (Side::North, "Ada"),
    (Side::North, "Ben"),
    (Side::South, "Cleo"),
    (Side::South, "Dan"),
    (Side::South, "Eve"),
];

/// What became of a sale once it was final.
struct Sale {
    /// Its place among [`PATIENTS`].
    at: usize,
    left_at_first: i64,
    reply: Reply,
}

/// Shows the split, the merge and the receipts.
pub async fn show(town: &mut Town, cluster: &Cluster, pause: Duration) -> Outcome {
    title(5, &format!("The network splits, and {STOCK} vaccines are in stock"));
    let north = town.client_in(Side::North).await?;
    let south = town.client_in(Side::South).await?;
    cluster.ask(Put::new("vaccines", STOCK.to_string()).into(), Wait::Strong, PATIENCE).await?;
    cluster.ask(Put::new("book", "").into(), Wait::Strong, PATIENCE).await?;
    // So that each side begins with the stock and with its client connected.
    agreed(cluster).await?;
    agreed(&north).await?;
    agreed(&south).await?;
    town.split();
    say("r0 and r1 are alone in the north, r2 and r3 in the south.");
    for (side, client) in [(Side::North, &north), (Side::South, &south)] {
        refuse(side, client).await?;
    }
    let mut sales = JoinSet::new();
    for (at, (side, patient)) in PATIENTS.into_iter().enumerate() {
        let client = if side == Side::North { &north } else { &south };
        let promise = client.promise(sale(patient).into(), Wait::Final, PATIENCE).await?;
        let Some(left_at_first) = left(&promise.reply)? else {
            return Err(broken("a clinic with vaccines refused to sell one"));
        };
        tell(
            &format!("weak   {}: {patient} buys", side.word()),
            &format!("-> {left_at_first} left{}", took(&promise.reply)),
        );
        // It waits in the background for the end of the split, however long that takes.
        sales.spawn(async move {
            let reply = promise.finality().await?;
            Ok(Sale { at, left_at_first, reply })
        });
    }
    let (north, south) = (furthest(&north).await?, furthest(&south).await?);
    say(&format!(
        "The north is in view {} with the primary {}, the south in view {} with {}.",
        north.view.0, north.primary, south.view.0, south.primary
    ));
    say(&format!(
        "{} sold, {STOCK} there: each side was right as far as it could see, and knows that a weak\n   \
         answer may still change.",
        PATIENTS.len()
    ));

    sleep(pause).await;
    title(6, "The network heals: two histories become one");
    town.heal();
    let head = agreed(cluster).await?;
    say(&format!("all four have the same history up to slot {head}, and the same state"));
    let mut ended = Vec::new();
    while let Some(sale) = sales.join_next().await {
        ended.push(sale.map_err(|error| broken(&error.to_string()))??);
    }
    ended.sort_by_key(|sale: &Sale| sale.at);
    audit(cluster, &ended).await?;

    title(7, "A receipt: proof for anybody who has the cluster file, offline");
    let kept = ended.iter().find(|sale| left(&sale.reply).is_ok_and(|left| left.is_some()));
    let kept = kept.ok_or_else(|| broken("no sale was kept"))?;
    show_receipt(town, kept)
}

/// Sells one if there is one, and writes into the book in any case, so that it can be seen that
/// nothing is lost and nothing is done twice.
fn sale(patient: &str) -> Txn {
    let entry = || Append::new("book", format!("{patient} "));
    Txn::new()
        .when(Compare::value("vaccines", Relation::Greater, "0"))
        .then(Incr::new("vaccines", -1))
        .then(entry())
        .otherwise(entry())
}

/// How many the sale left, or `None` where it was refused.
fn left(reply: &Reply) -> Result<Option<i64>, Failure> {
    match &reply.answer {
        Answer::Txn(txn) if !txn.succeeded => Ok(None),
        Answer::Txn(txn) => match txn.outcomes.first() {
            Some(Step::Incr(Counted { value, .. })) => Ok(Some(*value)),
            _ => Err(broken("a sale was not answered with what is left")),
        },
        _ => Err(broken("a sale was not answered as one")),
    }
}

/// A strong request cannot be answered with half of the replicas, and says so.
async fn refuse(side: Side, client: &Cluster) -> Outcome {
    let ask = Txn::new()
        .when(Compare::value("vaccines", Relation::Greater, "0"))
        .then(Get::new("vaccines"));
    match client.ask(ask.into(), Wait::Strong, SHORT).await {
        Err(failure) if failure.kind == Kind::Unavailable => {
            // Who is missing and why is known here; what is interesting is how many it takes.
            let why: Vec<_> = failure.message.split("; ").take(2).collect();
            tell(&format!("strong {}: how many?", side.word()), "no answer:");
            say(&format!("   {}", why.join("; ")));
            Ok(())
        }
        Err(failure) => Err(failure),
        Ok(_) => Err(broken("two of four replicas gave a strong answer")),
    }
}

/// Tells how each sale ended, and checks the stock and the book.
async fn audit(cluster: &Cluster, ended: &[Sale]) -> Outcome {
    let mut sold = 0;
    for Sale { at, left_at_first, reply } in ended {
        let (side, patient) = PATIENTS[*at];
        let left = left(reply)?;
        sold += i64::from(left.is_some());
        let came = match left {
            Some(left) if !reply.reordered => format!("stays: sold, {left} left"),
            Some(left) if left == *left_at_first => {
                format!("moved to slot {}: sold all the same, {left} left", reply.slot)
            }
            Some(left) => format!("moved to slot {}: sold, {left} left", reply.slot),
            None => format!("moved to slot {}: refused, sold out", reply.slot),
        };
        tell(&format!("final  {}: {patient}", side.word()), &came);
    }
    let (stock, _) = read(cluster, "vaccines").await?;
    let (book, _) = read(cluster, "book").await?;
    let mut entries: Vec<_> = book.split_whitespace().collect();
    entries.sort_unstable();
    let mut expected: Vec<_> = PATIENTS.iter().map(|(_, patient)| *patient).collect();
    expected.sort_unstable();
    if entries != expected {
        return Err(broken(&format!("the book says `{book}`")));
    }
    if stock != "0" || sold != STOCK {
        return Err(broken(&format!("{sold} are sold and {stock} are left of {STOCK}")));
    }
    say(&format!(
        "{sold} sold, {} refused, {stock} left; the book has every customer once: {}",
        ended.len() - usize::try_from(sold).unwrap_or(0),
        book.trim_end()
    ));
    Ok(())
}

fn show_receipt(town: &Town, sale: &Sale) -> Outcome {
    let (_, patient) = PATIENTS[sale.at];
    let path = town.folder().path().join("sale.receipt");
    let receipt = sale.reply.receipt.as_ref().ok_or_else(|| broken("a sale has no receipt"))?;
    receipt::save(&path, receipt)?;
    let mut bytes = std::fs::read(&path)
        .map_err(|error| Failure::usage(format!("the receipt cannot be read ({error})")))?;
    let membership = &town.file.membership;
    let (checked, proven) = receipt::check(&bytes, membership).map_err(Failure::misbehaviour)?;
    let voters: Vec<_> = checked.votes.iter().map(|vote| vote.by.to_string()).collect();
    say(&format!(
        "{patient}'s sale, {} bytes, signed by {}: valid and {}",
        bytes.len(),
        voters.join(", "),
        receipt::level(proven)
    ));
    let bit = rand::random_range(0..bytes.len() * 8);
    bytes[bit / 8] ^= 1 << (bit % 8);
    match receipt::check(&bytes, membership) {
        Ok(_) => Err(broken("a forged receipt was accepted")),
        Err(why) => {
            say(&format!("with bit {bit} flipped: worthless ({why})"));
            Ok(())
        }
    }
}
