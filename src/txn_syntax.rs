//! The words of `elea txn`: comparisons and operations as one writes them by hand.
//!
//! ```text
//! elea txn --compare 'stock >= 1' --then 'incr stock -1' --then 'append log "sold one"' --else 'get stock'
//! ```
//!
//! Words are parted by blanks. Quotes hold a word together; within double quotes `\n`, `\t`, `\\`,
//! `\"` and `\xNN` mean what they mean elsewhere, so that every byte can be written.

use std::fmt;

use elea_kv::{
    Add, Append, Cas, Compare, Delete, Get, Incr, Members, Put, Relation, Remove, Step, Version,
};
use elea_protocol::id::Slot;

/// What is wrong with a text, and how it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadSyntax(String);

impl fmt::Display for BadSyntax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadSyntax {}

const COMPARISONS: &str = "write `KEY = VALUE` (also !=, <, >), `KEY >= NUMBER` (also <=), \
                           `KEY exists`, `KEY absent` or `KEY @ SLOT.INDEX`";
const STEPS: &str = "write `get KEY`, `put KEY VALUE`, `delete KEY`, `incr KEY [BY]`, \
                     `append KEY VALUE`, `add KEY MEMBER`, `remove KEY MEMBER`, \
                     `cas KEY EXPECTED NEW` or `members KEY`";

/// Reads one comparison.
///
/// # Errors
/// It is none; the error shows what one looks like.
pub fn comparison(text: &str) -> Result<Compare, BadSyntax> {
    let mut words = words(text)?.into_iter();
    let bad = || BadSyntax(format!("`{text}` is no comparison: {COMPARISONS}"));
    let (Some(key), Some(operator), value, None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(bad());
    };
    // The store knows `<` and `>`; among whole numbers `>= 1` is `> 0`.
    let neighbour = |value: &[u8], by: i64| {
        number(value)
            .and_then(|number| number.checked_add(by))
            .map(|number| number.to_string())
            .ok_or_else(|| BadSyntax(format!("`{text}` compares with no whole number of 64 bits")))
    };
    match (operator.as_slice(), value) {
        (b"exists", None) => Ok(Compare::exists(key)),
        (b"absent", None) => Ok(Compare::absent(key)),
        (b"=" | b"==", Some(value)) => Ok(Compare::value(key, Relation::Equal, value)),
        (b"!=", Some(value)) => Ok(Compare::value(key, Relation::NotEqual, value)),
        (b"<", Some(value)) => Ok(Compare::value(key, Relation::Less, value)),
        (b">", Some(value)) => Ok(Compare::value(key, Relation::Greater, value)),
        (b"<=", Some(value)) => Ok(Compare::value(key, Relation::Less, neighbour(&value, 1)?)),
        (b">=", Some(value)) => Ok(Compare::value(key, Relation::Greater, neighbour(&value, -1)?)),
        (b"@", Some(value)) => {
            let version = str::from_utf8(&value).ok().and_then(version).ok_or_else(bad)?;
            Ok(Compare::version(key, Relation::Equal, version))
        }
        _ => Err(bad()),
    }
}

/// Reads one operation.
///
/// # Errors
/// It is none; the error shows what one looks like.
pub fn step(text: &str) -> Result<Step, BadSyntax> {
    let mut words = words(text)?.into_iter();
    let bad = || BadSyntax(format!("`{text}` is no operation: {STEPS}"));
    let name = words.next().ok_or_else(bad)?;
    let key = words.next().ok_or_else(bad)?;
    let arguments: Vec<Vec<u8>> = words.collect();
    Ok(match (name.as_slice(), arguments.as_slice()) {
        (b"get", []) => Get::new(key).into(),
        (b"delete", []) => Delete::new(key).into(),
        (b"members", []) => Members::new(key).into(),
        (b"incr", []) => Incr::new(key, 1).into(),
        (b"incr", [by]) => {
            let by = number(by)
                .ok_or_else(|| BadSyntax(format!("`{text}` adds no whole number of 64 bits")))?;
            Incr::new(key, by).into()
        }
        (b"put", [value]) => Put::new(key, value.clone()).into(),
        (b"append", [value]) => Append::new(key, value.clone()).into(),
        (b"add", [member]) => Add::new(key, member.clone()).into(),
        (b"remove", [member]) => Remove::new(key, member.clone()).into(),
        (b"cas", [expected, value]) => Cas::new(key, expected.clone(), value.clone()).into(),
        _ => return Err(bad()),
    })
}

/// Reads `SLOT.INDEX`.
fn version(text: &str) -> Option<Version> {
    let (slot, index) = text.split_once('.')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    (digits(slot) && digits(index)).then_some(())?;
    Some(Version { slot: Slot(slot.parse().ok()?), index: index.parse().ok()? })
}

fn number(word: &[u8]) -> Option<i64> {
    str::from_utf8(word).ok()?.parse().ok()
}

/// Parts a text into words.
fn words(text: &str) -> Result<Vec<Vec<u8>>, BadSyntax> {
    let unfinished = || BadSyntax(format!("a quote in `{text}` is never closed"));
    let mut words = Vec::new();
    // `None` between words: `''` is a word of its own, although it is empty.
    let mut word: Option<Vec<u8>> = None;
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' => words.extend(word.take()),
            b'\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match bytes.next().ok_or_else(unfinished)? {
                        b'\'' => break,
                        byte => word.push(byte),
                    }
                }
            }
            b'"' => {
                let word = word.get_or_insert_default();
                loop {
                    match bytes.next().ok_or_else(unfinished)? {
                        b'"' => break,
                        b'\\' => word.push(escape(text, &mut bytes)?),
                        byte => word.push(byte),
                    }
                }
            }
            byte => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word);
    Ok(words)
}

fn escape(text: &str, bytes: &mut impl Iterator<Item = u8>) -> Result<u8, BadSyntax> {
    let unknown =
        || BadSyntax(format!("`{text}` holds an escape other than \\n, \\t, \\\\, \\\" and \\xNN"));
    let digit = |byte: Option<u8>| byte.and_then(|b| char::from(b).to_digit(16));
    match bytes.next() {
        Some(b'n') => Ok(b'\n'),
        Some(b't') => Ok(b'\t'),
        Some(byte @ (b'\\' | b'"')) => Ok(byte),
        Some(b'x') => match (digit(bytes.next()), digit(bytes.next())) {
            (Some(high), Some(low)) => u8::try_from(high * 16 + low).map_err(|_| unknown()),
            _ => Err(unknown()),
        },
        _ => Err(unknown()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_is_read() {
        let value = |relation, value: &'static str| Ok(Compare::value("k", relation, value));
        assert_eq!(comparison("k >= 1"), value(Relation::Greater, "0"));
        assert_eq!(comparison("k <= -1"), value(Relation::Less, "0"));
        assert_eq!(comparison("k < b"), value(Relation::Less, "b"));
        assert_eq!(comparison("k = 'a b'"), value(Relation::Equal, "a b"));
        assert_eq!(comparison("k != \"\""), value(Relation::NotEqual, ""));
        assert_eq!(comparison(" k  exists "), Ok(Compare::exists("k")));
        assert_eq!(comparison("k absent"), Ok(Compare::absent("k")));
        let written = Version { slot: Slot(12), index: 3 };
        assert_eq!(comparison("k @ 12.3"), Ok(Compare::version("k", Relation::Equal, written)));
        assert_eq!(step("incr k"), Ok(Incr::new("k", 1).into()));
        assert_eq!(step("incr k -7"), Ok(Incr::new("k", -7).into()));
        let bytes = b"a\n\0\xff\"".to_vec();
        assert_eq!(step(r#"put k "a\n\x00\xff\"""#), Ok(Put::new("k", bytes).into()));
        assert_eq!(step("members k"), Ok(Members::new("k").into()));
        assert_eq!(step("cas k '' b"), Ok(Cas::new("k", "", "b").into()));
    }

    #[test]
    fn mistakes_are_answered_with_the_form_expected() {
        for (text, says) in [
            ("", "is no comparison"),
            ("k", "write `KEY = VALUE`"),
            ("k >= many", "no whole number"),
            ("k >= 9223372036854775808", "no whole number"),
            ("k >= -9223372036854775808", "no whole number"),
            ("k = 'a", "never closed"),
            ("k = 1 2", "is no comparison"),
            ("k @ 1", "is no comparison"),
            ("k @ +1.2", "is no comparison"),
            ("k ~ 1", "is no comparison"),
            (r#"k = "\q""#, "escape"),
            (r#"k = "\xf"#, "escape"),
        ] {
            let error = comparison(text).expect_err(text).to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
        for text in ["", "get", "get k v", "put k", "scan k", "incr k 1 2"] {
            let error = step(text).expect_err(text).to_string();
            assert!(error.contains("is no operation: write `get KEY`"), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>(), tricky in "[ k@.\"'\\\\x0-9<>=!-]{0,24}") {
            for text in [&text, &tricky] {
                let _ = comparison(text);
                let _ = step(text);
            }
        }

        #[test]
        fn every_byte_string_can_be_written(value in prop::collection::vec(any::<u8>(), 0..32)) {
            let escaped: String = value.iter().map(|byte| format!("\\x{byte:02x}")).collect();
            prop_assert_eq!(step(&format!("put k \"{escaped}\"")), Ok(Put::new("k", value).into()));
        }
    }
}
