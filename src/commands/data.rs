//! `elea get`, `put` and the others: one operation each.

use std::fs::File;
use std::io::{ErrorKind, Read};

use elea_client::{BadPast, Command as _, Past};
use elea_kv::{
    Add, Append, Cas, Delete, Get, Incr, Members, Operation, Put, Remove, Scan, Step, Txn,
};
use elea_protocol::cluster_file::ClusterFile;
use serde_json::{Value as Json, json};

use crate::cli;
use crate::cluster::{Cluster, Reply, Wait};
use crate::commands;
use crate::failure::{Failure, Outcome};
use crate::files;
use crate::output::{self, Style};
use crate::txn_syntax;

/// So many keys at a time are scanned with a past: that is as much as can be read without a slot.
const PAGE_WITH_PAST: u32 = 64;

/// More bytes no file with a past has.
const PAST_MAX: u64 = 16 << 10;

/// Sends one operation and prints its answer.
pub async fn run(operation: Result<Operation, Failure>, asking: &cli::Asking) -> Outcome {
    // What the user wrote is looked at before anybody is asked.
    let operation = operation?;
    let access = &asking.access;
    let file = commands::cluster(access.cluster.as_deref())?;
    let mut past = past(asking, &file)?;
    let cluster = commands::connect(&file, access).await?;
    let reply = ask(&cluster, operation, asking, past.as_mut()).await;
    // Also after a failure: the state file has to learn which numbers were used.
    cluster.close().await;
    let reply = reply?;
    if let Some((path, receipt)) = asking.receipt.as_ref().zip(reply.receipt.as_ref()) {
        commands::receipt::save(path, receipt)?;
    }
    let no = output::refusal(&reply.answer).map(Failure::refused);
    if matches!(reply.answer, elea_kv::Answer::Refused(_)) {
        // Nothing was done, so there is no result to show beside the reason.
        return no.map_or(Ok(()), Err);
    }
    show(&reply, asking);
    keep(asking, past, &reply)?;
    // That a key is absent or a comparison failed is in the result.
    no.map_or(Ok(()), |no| Err(no.told()))
}

/// `elea scan`: page after page, each shown as it comes.
pub async fn scan(args: &cli::Scan) -> Outcome {
    let first = first_page(args)?;
    let access = &args.asking.access;
    let file = commands::cluster(access.cluster.as_deref())?;
    let past = past(&args.asking, &file)?;
    let cluster = commands::connect(&file, access).await?;
    let outcome = pages(&cluster, first, args, past).await;
    cluster.close().await;
    outcome
}

async fn pages(
    cluster: &Cluster,
    mut scan: Scan,
    args: &cli::Scan,
    mut past: Option<Past>,
) -> Outcome {
    let asking = &args.asking;
    let mut left = args.limit;
    let mut shown = 0_u64;
    loop {
        let most = if past.is_some() { PAGE_WITH_PAST } else { u32::MAX };
        scan.limit = left.unwrap_or(u32::MAX).min(most);
        let asked = ask(cluster, scan.clone().into(), asking, past.as_mut()).await;
        let reply = asked.map_err(|failure| match shown {
            0 => failure,
            _ => failure
                .with(&format!("{shown} keys were shown; go on with {}", resume(&scan.from, args))),
        })?;
        if let Some((path, receipt)) = asking.receipt.as_ref().zip(reply.receipt.as_ref()) {
            commands::receipt::save(path, receipt)?;
        }
        if let Some(no) = output::refusal(&reply.answer) {
            return Err(Failure::refused(no));
        }
        let is_open = show(&reply, asking);
        keep(asking, past.clone(), &reply)?;
        let elea_kv::Answer::Step(elea_kv::Outcome::Scan(page)) = reply.answer else {
            return Ok(());
        };
        let items = u32::try_from(page.items.len()).unwrap_or(u32::MAX);
        shown += u64::from(items);
        left = left.map(|left| left.saturating_sub(items));
        let Some(next) = page.next.filter(|_| is_open) else { return Ok(()) };
        // A receipt is of one answer.
        if left == Some(0) || asking.receipt.is_some() {
            eprintln!("elea: there is more: go on with {}", resume(&next, args));
            return Ok(());
        }
        scan = scan.resume(next);
    }
}

/// A strong read need not be ordered, unless it is to be proven.
async fn ask(
    cluster: &Cluster,
    operation: Operation,
    asking: &cli::Asking,
    past: Option<&mut Past>,
) -> Result<Reply, Failure> {
    let timeout = asking.access.timeout;
    match past {
        Some(past) if operation.only_reads() => {
            cluster.read_after(past, operation, wait(asking), timeout).await
        }
        None if asking.receipt.is_none() => cluster.read(operation, wait(asking), timeout).await,
        _ => cluster.ask(operation, wait(asking), timeout).await,
    }
}

/// What was seen before, where that counts.
fn past(asking: &cli::Asking, file: &ClusterFile) -> Result<Option<Past>, Failure> {
    let Some(path) = &asking.past else { return Ok(None) };
    let wrong = |why: &dyn std::fmt::Display| Failure::usage(format!("{}: {why}", path.display()));
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(PAST_MAX).read_to_string(&mut text));
    let past = match read {
        Ok(_) => text.parse().map_err(|bad: BadPast| wrong(&bad))?,
        Err(error) if error.kind() == ErrorKind::NotFound => Past::new(),
        Err(error) => return Err(wrong(&error)),
    };
    // Before anything is executed that could not be noted.
    past.is_of(file.membership.genesis()).map_err(|other| wrong(&other))?;
    Ok(Some(past))
}

/// Keeps what was seen for the next one. The answer has been shown.
fn keep(asking: &cli::Asking, past: Option<Past>, reply: &Reply) -> Outcome {
    let Some((path, mut past)) = asking.past.as_ref().zip(past) else { return Ok(()) };
    if let Some(receipt) = &reply.receipt {
        let noted = past.wrote(receipt);
        noted.map_err(|why| Failure::usage(format!("executed, but {}: {why}", path.display())))?;
    }
    files::write_whole(path, format!("{past}\n").as_bytes())
}

/// The words that go on from a key.
fn resume(next: &[u8], args: &cli::Scan) -> String {
    let from = match str::from_utf8(next) {
        Ok(text) if !args.asking.base64 => format!("--from {text:?}"),
        _ => format!("--base64 --from {}", output::base64(next)),
    };
    match args.prefix.is_empty() {
        true => from,
        false => format!("{from}, and the same --prefix"),
    }
}

fn wait(asking: &cli::Asking) -> Wait {
    match (asking.weak, asking.final_) {
        (true, _) => Wait::Weak,
        (_, true) => Wait::Final,
        _ => Wait::Strong,
    }
}

/// Shows an answer; says whether anybody is there to read more.
fn show(reply: &Reply, asking: &cli::Asking) -> bool {
    if asking.access.json {
        return output::line(&to_json(reply, asking.base64).to_string());
    }
    let style = match (asking.raw, asking.base64) {
        (true, _) => Style::Raw,
        (_, true) => Style::Base64,
        _ => Style::Lines,
    };
    let is_open = output::bytes(&output::plain(&reply.answer, style));
    if reply.reordered {
        eprintln!("elea: the order changed when histories merged; this is the final result");
    }
    is_open
}

fn to_json(reply: &Reply, base64: bool) -> Json {
    let mut object = output::json_result(&reply.answer, base64);
    let Json::Object(rest) = json!({
        "level": reply.wait.word(),
        "version": output::json_version(reply.answer.version()),
        "view": reply.view.0,
        "slot": reply.slot.0,
        "hash": reply.hash.map(|hash| hash.to_string()),
        "final": reply.is_final,
        "reordered": reply.reordered,
        "latency_us": u64::try_from(reply.latency.as_micros()).unwrap_or(u64::MAX),
    }) else {
        unreachable!("it is written as an object");
    };
    object.extend(rest);
    Json::Object(object)
}

/// A key or value from the command line.
fn word(text: &str, asking: &cli::Asking) -> Result<Vec<u8>, Failure> {
    if !asking.base64 {
        return Ok(text.as_bytes().to_vec());
    }
    output::unbase64(text).ok_or_else(|| {
        Failure::usage(format!("`{text}` is no base64: with --base64 keys and values must be"))
    })
}

/// A value from the command line, or all of stdin.
fn value(text: &str, asking: &cli::Asking) -> Result<Vec<u8>, Failure> {
    if text != "-" {
        return word(text, asking);
    }
    // A little more than any value may have, so that one too large is refused as such.
    const MOST: u64 = 4 << 20;
    let mut bytes = Vec::new();
    std::io::stdin()
        .take(MOST)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::usage(format!("stdin cannot be read ({error})")))?;
    Ok(bytes)
}

/// Every data command as the store knows it, and how its answer is wanted.
pub fn operation(command: &cli::Command) -> Option<(Result<Operation, Failure>, &cli::Asking)> {
    use cli::Command;
    Some(match command {
        Command::Get(args) => (one(args, Get::new), &args.asking),
        Command::Delete(args) => (one(args, Delete::new), &args.asking),
        Command::Members(args) => (one(args, Members::new), &args.asking),
        Command::Put(args) => (pair(args, Put::new), &args.asking),
        Command::Append(args) => (pair(args, Append::new), &args.asking),
        Command::Add(args) => (member(args, Add::new), &args.asking),
        Command::Remove(args) => (member(args, Remove::new), &args.asking),
        Command::Incr(args) => {
            let key = word(&args.name, &args.asking);
            (key.map(|key| Incr::new(key, args.by).into()), &args.asking)
        }
        Command::Cas(args) => (cas(args), &args.asking),
        Command::Txn(args) => (txn(args), &args.asking),
        Command::Demo(_)
        | Command::Init(_)
        | Command::Scan(_)
        | Command::Up(_)
        | Command::Replica(_)
        | Command::Backup(_)
        | Command::Restore(_)
        | Command::Status(_)
        | Command::Top(_)
        | Command::Health(_)
        | Command::Bench(_)
        | Command::Receipt(_)
        | Command::Config(_)
        | Command::Key(_)
        | Command::Completions(_)
        | Command::Evidence(_) => return None,
    })
}

fn one<T: Into<Operation>>(
    args: &cli::OneKey,
    make: impl FnOnce(Vec<u8>) -> T,
) -> Result<Operation, Failure> {
    Ok(make(word(&args.name, &args.asking)?).into())
}

fn pair<T: Into<Operation>>(
    args: &cli::KeyValue,
    make: impl FnOnce(Vec<u8>, Vec<u8>) -> T,
) -> Result<Operation, Failure> {
    Ok(make(word(&args.name, &args.asking)?, value(&args.value, &args.asking)?).into())
}

fn member<T: Into<Operation>>(
    args: &cli::Member,
    make: impl FnOnce(Vec<u8>, Vec<u8>) -> T,
) -> Result<Operation, Failure> {
    Ok(make(word(&args.name, &args.asking)?, value(&args.member, &args.asking)?).into())
}

fn cas(args: &cli::Cas) -> Result<Operation, Failure> {
    let key = word(&args.name, &args.asking)?;
    let cas = match (args.absent, args.values.as_slice()) {
        (false, [expected, new]) => {
            Cas::new(key, word(expected, &args.asking)?, value(new, &args.asking)?)
        }
        (true, [new]) => Cas::create(key, value(new, &args.asking)?),
        (false, _) => {
            return Err(Failure::usage(
                "cas needs what to expect and what to write: `elea cas KEY EXPECTED NEW`, or \
                 `elea cas KEY --absent NEW`",
            ));
        }
        (true, _) => {
            return Err(Failure::usage(
                "cas --absent expects nothing: write `elea cas KEY --absent NEW`",
            ));
        }
    };
    Ok(cas.into())
}

/// Where a scan begins and ends.
fn first_page(args: &cli::Scan) -> Result<Scan, Failure> {
    let from = args.from.as_ref().map(|from| word(from, &args.asking)).transpose()?;
    let to = args.to.as_ref().map(|to| word(to, &args.asking)).transpose()?;
    Ok(match to {
        Some(to) => Scan::range(from.unwrap_or_default(), to),
        None => {
            let all = Scan::prefix(word(&args.prefix, &args.asking)?);
            // With a prefix it goes on from where the last page ended.
            match from {
                Some(from) => all.resume(from.into()),
                None => all,
            }
        }
    })
}

fn txn(args: &cli::Txn) -> Result<Operation, Failure> {
    let bad = |error: txn_syntax::BadSyntax| Failure::usage(error.to_string());
    let steps = |texts: &[String]| -> Result<Vec<Step>, Failure> {
        texts.iter().map(|text| txn_syntax::step(text).map_err(bad)).collect()
    };
    let compares = args.compare.iter().map(|text| txn_syntax::comparison(text).map_err(bad));
    let txn = Txn {
        compares: compares.collect::<Result<_, _>>()?,
        then: steps(&args.then)?,
        otherwise: steps(&args.otherwise)?,
    };
    if txn.then.is_empty() && txn.otherwise.is_empty() {
        return Err(Failure::usage(
            "the transaction does nothing: add --then 'incr stock -1' or --else 'get stock'",
        ));
    }
    Ok(txn.into())
}
