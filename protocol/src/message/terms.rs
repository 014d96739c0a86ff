//! On which terms a replica takes part: the settings that must be the same everywhere.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Malformed;
use crate::tuning::Rules;

/// The most settings that terms may have.
pub const TERMS_MAX: usize = 64;

/// The longest name or value of a setting, in bytes.
pub const SETTING_BYTES_MAX: usize = 128;

/// Replica to replica, when they meet: "results are decided by these settings here".
///
/// Replicas whose settings differ would come to different states from one history, and each would
/// take the other for broken. So they do not speak to each other, and both say why. It is not
/// signed: who names other terms than its own only shuts itself out.
///
/// Bounds: [`TERMS_MAX`] settings, their names and values up to [`SETTING_BYTES_MAX`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms(pub BTreeMap<String, String>);

/// A setting that two replicas have differently. What is not there is `None`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Difference {
    /// The setting.
    pub name: String,
    /// As the one has it.
    pub here: Option<String>,
    /// As the other has it.
    pub there: Option<String>,
}

impl Terms {
    /// The rules of the state machine, and what the application adds to them.
    #[must_use]
    pub fn of(rules: &Rules, application: impl IntoIterator<Item = (String, String)>) -> Self {
        let Rules {
            max_sessions,
            max_clients,
            session_window,
            max_kept_result,
            checkpoint_interval,
            max_speculative_slots,
            max_speculative_bytes,
            kept_bytes,
        } = *rules;
        let rules = [
            ("max_sessions", max_sessions),
            ("max_clients", max_clients),
            ("session_window", session_window),
            ("max_kept_result", max_kept_result),
            ("checkpoint_interval", checkpoint_interval),
            ("max_speculative_slots", max_speculative_slots),
            ("max_speculative_bytes", max_speculative_bytes),
            ("kept_bytes", kept_bytes),
        ];
        let rules = rules.into_iter().map(|(name, value)| (name.to_owned(), value.to_string()));
        Self(rules.chain(application).collect())
    }

    /// Checks the bounds.
    ///
    /// # Errors
    /// One of them does not hold.
    pub fn check(&self) -> Result<(), Malformed> {
        Malformed::unless(self.0.len() <= TERMS_MAX, "terms of too many settings")?;
        let short = |text: &String| text.len() <= SETTING_BYTES_MAX;
        let all_short = self.0.iter().all(|(name, value)| short(name) && short(value));
        Malformed::unless(all_short, "a setting that is too long")
    }

    /// What another replica has differently, by name.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let names: std::collections::BTreeSet<&String> =
            self.0.keys().chain(other.0.keys()).collect();
        let all = names.into_iter().map(|name| Difference {
            name: name.clone(),
            here: self.0.get(name).cloned(),
            there: other.0.get(name).cloned(),
        });
        all.filter(|difference| difference.here != difference.there).collect()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A stranger's text, perhaps.
        let shown = |value: &Option<String>| match value {
            Some(value) => value.escape_debug().to_string(),
            None => String::from("none"),
        };
        let (there, here) = (shown(&self.there), shown(&self.here));
        write!(f, "{} = {there} there and {here} here", self.name.escape_debug())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(value_bytes: &str) -> Terms {
        let application = [("value_bytes".to_owned(), value_bytes.to_owned())];
        Terms::of(&Rules::default(), application)
    }

    #[test]
    fn what_differs_is_named_with_both_values() {
        let (here, there) = (terms("1048576"), terms("1024"));
        assert_eq!(here.differences(&here), []);
        let told: Vec<String> = here.differences(&there).iter().map(ToString::to_string).collect();
        assert_eq!(told, ["value_bytes = 1024 there and 1048576 here"]);
        let bare = Terms::of(&Rules::default(), []);
        let told: Vec<String> = bare.differences(&here).iter().map(ToString::to_string).collect();
        assert_eq!(told, ["value_bytes = 1048576 there and none here"]);
        let fewer_sessions = Rules { max_sessions: 1, ..Rules::default() };
        let rules = Terms::of(&fewer_sessions, []);
        assert_eq!(rules.differences(&bare).len(), 1);
    }

    #[test]
    fn terms_keep_their_bounds_and_odd_text_is_shown_escaped() {
        let long = |n| Terms(BTreeMap::from([("a".repeat(n), "b".repeat(n))]));
        assert!(long(SETTING_BYTES_MAX).check().is_ok());
        assert!(long(SETTING_BYTES_MAX + 1).check().is_err());
        let many = |n: usize| Terms((0..n).map(|n| (n.to_string(), String::new())).collect());
        assert!(many(TERMS_MAX).check().is_ok());
        assert!(many(TERMS_MAX + 1).check().is_err());
        let odd = Terms(BTreeMap::from([("a\nb".to_owned(), "\u{1b}[2J".to_owned())]));
        let told = Terms::default().differences(&odd)[0].to_string();
        assert!(!told.contains(['\n', '\u{1b}']), "{told}");
    }
}
