//! What came of it: medians over the rounds, and ratios.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value as Json, json};

use crate::chart::Point;
use crate::contestant::{Arena, Contestant, Turn, does};
use crate::shape::Shape;

/// All turns so far.
pub struct Report {
    machine: Json,
    members: (usize, usize),
    turns: BTreeMap<(Shape, Contestant), Vec<Turn>>,
}

/// Medians over the turns of one contestant.
struct Figures {
    rate: f64,
    /// Latencies in milliseconds.
    p50: f64,
    p99: f64,
    failed: u64,
    /// CPU time for an answer in microseconds: of all members, and of the clients.
    servers: f64,
    driver: f64,
}

impl Report {
    /// Nothing was measured yet.
    pub fn new(machine: Json, arena: &Arena) -> Self {
        Self { machine, members: arena.members(), turns: BTreeMap::new() }
    }

    /// One more turn.
    pub fn add(&mut self, shape: Shape, contestant: Contestant, turn: Turn) {
        self.turns.entry((shape, contestant)).or_default().push(turn);
    }

    /// What all of it is measured by: etcd with its better way to be connected, for this shape and what this
    /// contestant promises.
    fn measure(&self, shape: Shape, contestant: Contestant) -> Option<Figures> {
        let how = contestant.measure(shape);
        [Contestant::Etcd(how), Contestant::EtcdShared(how)]
            .into_iter()
            .filter_map(|etcd| self.turns.get(&(shape, etcd)))
            .map(|turns| figures(turns))
            .max_by(|one, other| one.rate.total_cmp(&other.rate))
    }

    /// Everything, for scripts.
    pub fn json(&self) -> Json {
        let entries: Vec<Json> = self
            .turns
            .iter()
            .map(|((shape, contestant), turns)| {
                let own = figures(turns);
                let measure = self.measure(*shape, *contestant).filter(|_| !contestant.is_etcd());
                json!({
                    "shape": shape.word(),
                    "contestant": contestant.name(),
                    "rates": turns.iter().map(Turn::rate).collect::<Vec<_>>(),
                    "rate": own.rate,
                    "p50_ms": own.p50,
                    "p99_ms": own.p99,
                    "failed": own.failed,
                    "cpu_us_of_members": own.servers,
                    "cpu_us_of_clients": own.driver,
                    "rate_ratio": measure.as_ref().map(|measure| own.rate / measure.rate),
                    "p50_ratio": measure.as_ref().map(|measure| own.p50 / measure.p50),
                })
            })
            .collect();
        let does: BTreeMap<_, _> = does().into_iter().collect();
        json!({ "machine": self.machine, "members": self.members, "does": does, "results": entries })
    }

    /// Everything, for people.
    pub fn table(&self) -> Table {
        self.filled(presets::UTF8_FULL_CONDENSED)
    }

    /// The same for a page, with what each of the two does.
    pub fn markdown(&self) -> String {
        let (etcd, elea) = self.members;
        let mut text =
            format!("{etcd} members of etcd, {elea} replicas of Elea; {}\n\n", self.machine);
        for (who, what) in does() {
            text += &format!("- **{who}**: {what}\n");
        }
        text + &format!("\n{}\n", self.filled(presets::ASCII_MARKDOWN))
    }

    fn filled(&self, preset: &str) -> Table {
        let mut table = Table::new();
        table.load_preset(preset).set_header([
            "shape",
            "",
            "answers/s",
            "p50 ms",
            "p99 ms",
            "failed",
            "CPU µs, members",
            "CPU µs, clients",
            "rate",
            "p50",
        ]);
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let mut last = None;
        for ((shape, contestant), turns) in &self.turns {
            let own = figures(turns);
            let measure = self.measure(*shape, *contestant).filter(|_| !contestant.is_etcd());
            let ratio = |of: &dyn Fn(&Figures) -> f64| {
                measure.as_ref().map_or_else(String::new, |it| format!("{:.2}×", of(&own) / of(it)))
            };
            let says = if last == Some(*shape) { "" } else { shape.says() };
            last = Some(*shape);
            table.add_row([
                says.to_owned(),
                contestant.name().to_owned(),
                format!("{:.0}", own.rate),
                format!("{:.2}", own.p50),
                format!("{:.2}", own.p99),
                own.failed.to_string(),
                format!("{:.0}", own.servers),
                format!("{:.0}", own.driver),
                ratio(&|figures| figures.rate),
                ratio(&|figures| figures.p50),
            ]);
        }
        table
    }

    /// Every contestant of every shape as a point of latency against throughput.
    pub fn points(&self) -> Vec<Point> {
        self.turns
            .iter()
            .map(|((shape, contestant), turns)| {
                let own = figures(turns);
                Point {
                    series: contestant.name(),
                    label: shape.word(),
                    rate: own.rate,
                    p50: own.p50,
                }
            })
            .collect()
    }
}

#[allow(clippy::cast_precision_loss, reason = "figures are for people to read")]
fn figures(turns: &[Turn]) -> Figures {
    let of = |value: &dyn Fn(&Turn) -> f64| median(turns.iter().map(value).collect());
    let millis = |part: f64| of(&|turn| turn.seen.latency(part) as f64 / 1e3);
    let each = |turn: &Turn, cpu: std::time::Duration| {
        cpu.as_secs_f64() * 1e6 / turn.seen.answered().max(1) as f64
    };
    Figures {
        rate: of(&Turn::rate),
        p50: millis(0.5),
        p99: millis(0.99),
        failed: turns.iter().map(|turn| turn.seen.failed).sum(),
        servers: of(&|turn| each(turn, turn.servers)),
        driver: of(&|turn| each(turn, turn.driver)),
    }
}

/// The middle one; of an even number, the mean of the two in the middle.
fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    let middle = all.len() / 2;
    match all.get(middle) {
        None => 0.0,
        Some(upper) if all.len() % 2 == 1 => *upper,
        Some(upper) => f64::midpoint(all[middle - 1], *upper),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]).to_bits(), 2f64.to_bits());
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]).to_bits(), 2.5f64.to_bits());
        assert_eq!(median(Vec::new()).to_bits(), 0f64.to_bits());
    }
}
