//! What commands print: bare values for people and shells, one JSON object a line for programs.

use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use elea_kv::{Answer, Item, Outcome, Swap, TxnOutcome, Value};
use serde_json::{Map, Value as Json, json};

/// Prints a line; says whether anybody reads. Whoever closed our stdout has read what he wanted.
pub fn line(text: &str) -> bool {
    bytes(format!("{text}\n").as_bytes())
}

/// Prints bytes as they are, and says whether anybody reads them.
pub fn bytes(bytes: &[u8]) -> bool {
    let mut out = io::stdout().lock();
    // `elea scan | head -1` closes the pipe: that is no failure of the scan.
    out.write_all(bytes).and_then(|()| out.flush()).is_ok()
}

/// Standard base64 with padding.
pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Reads what [`base64()`] writes.
pub fn unbase64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// The `result` of the JSON object; `result_base64` instead, with every key and value in base64,
/// where one of them is no text or `force` is set.
pub fn json_result(answer: &Answer, force: bool) -> Map<String, Json> {
    let mut object = Map::new();
    let mut is_text = true;
    let plain = shape(answer, &mut |bytes| match str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => {
            is_text = false;
            Json::Null
        }
    });
    if is_text && !force {
        object.insert("result".into(), plain);
    } else {
        object.insert("result_base64".into(), shape(answer, &mut |bytes| base64(bytes).into()));
    }
    object
}

/// `[slot, index]`, or null where nothing was written or read.
pub fn json_version(version: Option<elea_kv::Version>) -> Json {
    version.map_or(Json::Null, |version| json!([version.slot.0, version.index]))
}

fn shape(answer: &Answer, text: &mut impl FnMut(&[u8]) -> Json) -> Json {
    match answer {
        Answer::Step(outcome) => outcome_shape(outcome, text),
        Answer::Txn(TxnOutcome { succeeded, outcomes, .. }) => {
            let results: Vec<_> = outcomes.iter().map(|o| outcome_shape(o, text)).collect();
            json!({ "succeeded": succeeded, "results": results })
        }
        Answer::Refused(_) => Json::Null,
    }
}

fn outcome_shape(outcome: &Outcome, text: &mut impl FnMut(&[u8]) -> Json) -> Json {
    match outcome {
        Outcome::Get(found) => found.as_ref().map_or(Json::Null, |found| text(&found.value)),
        Outcome::Put(_) => Json::Bool(true),
        Outcome::Delete(version) => Json::Bool(version.is_some()),
        Outcome::Cas(Swap::Done(_)) => json!({ "swapped": true }),
        Outcome::Cas(Swap::Mismatch(found)) => {
            let found = found.as_ref().map_or(Json::Null, |found| text(&found.value));
            json!({ "swapped": false, "found": found })
        }
        Outcome::Incr(counted) => counted.value.into(),
        Outcome::Append(appended) => appended.length.into(),
        Outcome::Add(added) => added.added.into(),
        Outcome::Remove(removed) => removed.removed.into(),
        Outcome::Members(list) => list.members.iter().map(|member| text(member)).collect(),
        Outcome::Scan(page) => {
            let items: Vec<_> = page
                .items
                .iter()
                .map(|Item { key, value, version }| {
                    let value = match value {
                        Value::Bytes(bytes) => text(bytes),
                        Value::Integer(number) => text(number.to_string().as_bytes()),
                        Value::Set(members) => members.iter().map(|member| text(member)).collect(),
                    };
                    json!({
                        "key": text(key),
                        "value": value,
                        "version": [version.slot.0, version.index],
                    })
                })
                .collect();
            let next = page.next.as_ref().map_or(Json::Null, |next| text(next));
            json!({ "items": items, "next": next })
        }
    }
}

/// How values are written where no JSON is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// The bytes, and a newline behind each.
    Lines,
    /// The bytes alone.
    Raw,
    /// Base64, and a newline behind each.
    Base64,
}

/// The answer as a shell wants it: values and nothing else.
pub fn plain(answer: &Answer, style: Style) -> Vec<u8> {
    let mut out = Vec::new();
    match answer {
        Answer::Step(outcome) => plain_outcome(&mut out, outcome, style, false),
        Answer::Txn(txn) => {
            txn.outcomes.iter().for_each(|outcome| plain_outcome(&mut out, outcome, style, true));
        }
        Answer::Refused(_) => {}
    }
    out
}

/// `in_list`: every outcome takes at least a line, so that line `n` belongs to operation `n`.
fn plain_outcome(out: &mut Vec<u8>, outcome: &Outcome, style: Style, in_list: bool) {
    let value = |bytes: &[u8]| match style {
        Style::Lines | Style::Raw => bytes.to_vec(),
        Style::Base64 => base64(bytes).into_bytes(),
    };
    let mut put = |line: &[u8]| {
        out.extend_from_slice(line);
        if style != Style::Raw {
            out.push(b'\n');
        }
    };
    let joined = |members: &[bytes::Bytes]| {
        members.iter().map(|member| value(member)).collect::<Vec<_>>().join(&b"\t"[..])
    };
    match outcome {
        Outcome::Get(Some(found)) => put(&value(&found.value)),
        Outcome::Incr(counted) => put(counted.value.to_string().as_bytes()),
        Outcome::Append(appended) => put(appended.length.to_string().as_bytes()),
        Outcome::Members(list) if in_list => put(&joined(&list.members)),
        Outcome::Members(list) => list.members.iter().for_each(|member| put(&value(member))),
        Outcome::Scan(page) => {
            for item in &page.items {
                let held = match &item.value {
                    Value::Bytes(bytes) => value(bytes),
                    Value::Integer(number) => value(number.to_string().as_bytes()),
                    Value::Set(members) => joined(members),
                };
                put(&[value(&item.key), held].join(&b'\t'));
            }
        }
        Outcome::Get(None) | Outcome::Put(_) if in_list => put(b""),
        Outcome::Delete(version) if in_list => put(word(version.is_some())),
        Outcome::Cas(swap) if in_list => put(word(matches!(swap, Swap::Done(_)))),
        Outcome::Add(added) if in_list => put(word(added.added)),
        Outcome::Remove(removed) if in_list => put(word(removed.removed)),
        Outcome::Get(None)
        | Outcome::Put(_)
        | Outcome::Delete(_)
        | Outcome::Cas(_)
        | Outcome::Add(_)
        | Outcome::Remove(_) => {}
    }
}

fn word(yes: bool) -> &'static [u8] {
    if yes { b"true" } else { b"false" }
}

/// Why the operation said no, for stderr; `None` where it did not.
pub fn refusal(answer: &Answer) -> Option<String> {
    match answer {
        Answer::Refused(refused) => Some(format!("nothing was done: {refused}")),
        Answer::Txn(txn) if !txn.succeeded => {
            Some(String::from("a comparison failed, so the operations of --else were done"))
        }
        Answer::Step(Outcome::Get(None) | Outcome::Delete(None)) => {
            Some(String::from("the key is absent"))
        }
        Answer::Step(Outcome::Cas(Swap::Mismatch(None))) => {
            Some(String::from("nothing was written: the key is absent"))
        }
        Answer::Step(Outcome::Cas(Swap::Mismatch(Some(found)))) => {
            let held = match str::from_utf8(&found.value) {
                Ok(text) if text.len() <= 256 => format!("`{text}`"),
                _ => format!("{} bytes", found.value.len()),
            };
            Some(format!("nothing was written: the key holds {held}"))
        }
        Answer::Txn(_) | Answer::Step(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use elea_kv::{Counted, Found, Page, Version};
    use elea_protocol::id::Slot;

    use super::*;

    const VERSION: Version = Version { slot: Slot(3), index: 1 };

    fn got(value: &'static [u8]) -> Answer {
        Answer::Step(Outcome::Get(Some(Found { value: value.into(), version: VERSION })))
    }

    #[test]
    fn text_is_shown_as_text_and_everything_else_as_base64() {
        assert_eq!(Json::Object(json_result(&got(b"hi"), false)), json!({ "result": "hi" }));
        let binary = json!({ "result_base64": "/w==" });
        assert_eq!(Json::Object(json_result(&got(b"\xff"), false)), binary);
        assert_eq!(
            Json::Object(json_result(&got(b"hi"), true)),
            json!({ "result_base64": "aGk=" })
        );
        assert_eq!(plain(&got(b"\xff\n"), Style::Raw), b"\xff\n");
        assert_eq!(plain(&got(b"\xff"), Style::Lines), b"\xff\n");
        assert_eq!(plain(&got(b"hi"), Style::Base64), b"aGk=\n");
        assert_eq!(unbase64("aGk="), Some(b"hi".to_vec()));
    }

    /// One binary key among many: all of them are base64, so that nobody has to guess which.
    #[test]
    fn lists_are_of_one_kind() {
        let item = |key: &'static [u8]| Item {
            key: key.into(),
            value: Value::Integer(7),
            version: VERSION,
        };
        let page = Page { items: vec![item(b"a"), item(b"\xff")], next: None };
        let answer = Answer::Step(Outcome::Scan(page));
        assert_eq!(
            Json::Object(json_result(&answer, false)),
            json!({ "result_base64": { "items": [
                { "key": "YQ==", "value": "Nw==", "version": [3, 1] },
                { "key": "/w==", "value": "Nw==", "version": [3, 1] },
            ], "next": null } })
        );
        assert_eq!(plain(&answer, Style::Lines), b"a\t7\n\xff\t7\n");
    }

    #[test]
    fn a_transaction_prints_a_line_for_each_operation() {
        let outcomes = vec![
            Outcome::Put(VERSION),
            Outcome::Incr(Counted { value: 8, version: VERSION }),
            Outcome::Get(None),
            Outcome::Delete(None),
        ];
        let answer = Answer::Txn(TxnOutcome { succeeded: true, outcomes, version: VERSION });
        assert_eq!(plain(&answer, Style::Lines), b"\n8\n\nfalse\n");
        assert_eq!(
            Json::Object(json_result(&answer, false)),
            json!({ "result": { "succeeded": true, "results": [true, 8, null, false] } })
        );
    }
}
