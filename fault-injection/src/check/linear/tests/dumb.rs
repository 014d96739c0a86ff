//! The second opinion: every order of a tiny history, tried by an interpreter that shares no code
//! with the checker and its model.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::StrongOp;

type Store = BTreeMap<String, String>;

/// Executes one request; draws get their number from `drawn`, by their position.
pub fn execute(
    store: &mut Store,
    operations: &[Bytes],
    drawn: impl Fn(usize) -> String,
) -> Vec<String> {
    let mut results = Vec::new();
    for (position, operation) in operations.iter().enumerate() {
        let text = String::from_utf8(operation.to_vec()).expect("text");
        let words: Vec<&str> = text.split(' ').collect();
        let key = words.get(1).copied().unwrap_or_default().to_owned();
        let before = store.get(&key).cloned();
        let result = match words[0] {
            "get" => before.unwrap_or("-".into()),
            "put" => {
                store.insert(key, words[2].into());
                before.unwrap_or("-".into())
            }
            "incr" => match before.unwrap_or("0".into()).parse::<i64>() {
                Ok(number) => {
                    let sum = number + words[2].parse::<i64>().expect("a number");
                    store.insert(key, sum.to_string());
                    sum.to_string()
                }
                Err(_) => "?".into(),
            },
            "append" => {
                let value = before.unwrap_or_default() + words[2];
                let length = value.len();
                store.insert(key, value);
                length.to_string()
            }
            "draw" => {
                store.insert(key, drawn(position));
                drawn(position)
            }
            _ => "?".into(),
        };
        results.push(result);
    }
    results
}

/// Whether any order of any choice of the operations will do.
pub fn is_linearizable(ops: &[StrongOp]) -> bool {
    any_order(ops, &mut Vec::new(), &Store::new())
}

fn any_order(ops: &[StrongOp], order: &mut Vec<usize>, store: &Store) -> bool {
    let missing = |index: &usize| !order.contains(index);
    if !(0..ops.len()).filter(missing).any(|index| ops[index].answered.is_some()) {
        return true;
    }
    let candidates: Vec<usize> = (0..ops.len()).filter(missing).collect();
    for index in candidates.clone() {
        let too_early = candidates
            .iter()
            .any(|other| ops[*other].answered.is_some_and(|answered| answered < ops[index].asked));
        if too_early {
            continue;
        }
        for next in outcomes(ops, index, store) {
            order.push(index);
            let found = any_order(ops, order, &next);
            order.pop();
            if found {
                return true;
            }
        }
    }
    false
}

/// The stores that may follow: several where a number was drawn and is not known.
fn outcomes(ops: &[StrongOp], index: usize, store: &Store) -> Vec<Store> {
    let op = &ops[index];
    let mut found = Vec::new();
    let draws = op.operations.iter().any(|operation| operation.starts_with(b"draw"));
    let unseen = if draws && op.results.is_none() { guesses(ops) } else { vec![String::new()] };
    for first in &unseen {
        for second in &unseen {
            let mut next = store.clone();
            let drawn = |position: usize| match &op.results {
                Some(results) => String::from_utf8(results[position].to_vec()).expect("text"),
                // Of three draws two may be of one key, and then only the last can be seen.
                None => if position == 0 { first } else { second }.clone(),
            };
            if op.results.as_ref().is_some_and(|results| results.len() != op.operations.len()) {
                continue;
            }
            let results = execute(&mut next, &op.operations, drawn);
            let fits = op.results.as_ref().is_none_or(|wanted| {
                wanted.iter().zip(&results).all(|(wanted, result)| wanted[..] == *result.as_bytes())
            });
            if fits && !found.contains(&next) {
                found.push(next);
            }
        }
    }
    found
}

/// What an unseen number may be, as far as the history can tell: what somebody saw, what becomes
/// that by additions, and something of which nobody heard.
fn guesses(ops: &[StrongOp]) -> Vec<String> {
    let mut guesses = vec!["unheard".to_owned()];
    for result in ops.iter().filter_map(|op| op.results.as_ref()).flatten() {
        let text = String::from_utf8(result.to_vec()).expect("text");
        if let Ok(number) = text.parse::<i64>() {
            guesses.extend((0..=9).map(|less| (number - less).to_string()));
        }
        // Something may have been appended to it.
        guesses.extend((1..=text.len()).filter_map(|end| text.get(..end)).map(str::to_owned));
    }
    guesses.sort();
    guesses.dedup();
    guesses
}
