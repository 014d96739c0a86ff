//! Ports: a page says 7100 to 7119 and 7200 to 7219, and each run has free ones for them.

use elea_processes::ports;

/// The first port of each row on a page.
const ROWS: [u16; 2] = [7100, 7200];

/// How many are in a row.
const ROW: u16 = 20;

/// The ports of one run.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    first: u16,
}

impl Ports {
    pub fn choose() -> Self {
        Self { first: ports::free(ROW * 2).expect("free ports").start }
    }

    /// What the page says, as it is on this machine.
    pub fn on_machine(self, text: &str) -> String {
        replaced(text, |port| self.pairs().find(|(page, _)| *page == port).map(|(_, own)| own))
    }

    /// What was said on this machine, as a page says it.
    pub fn on_page(self, text: &str) -> String {
        replaced(text, |port| self.pairs().find(|(_, own)| *own == port).map(|(page, _)| page))
    }

    /// Each port of a page, and the one it stands for.
    fn pairs(self) -> impl Iterator<Item = (u16, u16)> {
        ROWS.into_iter().flat_map(|row| row..row + ROW).zip(self.first..)
    }
}

/// Replaces numbers that stand alone.
fn replaced(text: &str, number: impl Fn(u16) -> Option<u16>) -> String {
    let mut done = String::new();
    for part in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let word = part.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        match word.parse().ok().and_then(&number) {
            Some(port) => done += &format!("{port}{}", &part[word.len()..]),
            None => done += part,
        }
    }
    done
}

#[test]
fn what_is_a_port_is_replaced_and_nothing_else() {
    let ports = Ports { first: 20_000 };
    let page = "elea init a --base-port 7100; curl 127.0.0.1:7219/livez 71000 a7100 7120 7099\n";
    let own = ports.on_machine(page);
    assert_eq!(
        own,
        "elea init a --base-port 20000; curl 127.0.0.1:20039/livez 71000 a7100 7120 7099\n"
    );
    assert_eq!(ports.on_page(&own), page);
}
