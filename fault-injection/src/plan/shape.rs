//! Shapes of partitions: which directions are cut.

use crate::network::{Machine, Party};
use crate::rng::Rng;

/// A partition, with what it is called in the coverage.
pub struct Shape {
    /// What it is called.
    pub name: &'static str,
    /// The directions cut.
    pub cuts: Vec<(Party, Party)>,
}

/// Cuts these groups off from each other, in both directions; a bridge reaches them all.
pub fn apart(groups: &[Vec<Party>], bridges: &[Party]) -> Vec<(Party, Party)> {
    let mut cuts = Vec::new();
    for (position, group) in groups.iter().enumerate() {
        for other in groups.iter().enumerate().filter(|(other, _)| *other != position) {
            for from in group.iter().filter(|party| !bridges.contains(party)) {
                cuts.extend(
                    other.1.iter().filter(|to| !bridges.contains(to)).map(|to| (*from, *to)),
                );
            }
        }
    }
    cuts
}

/// The machines in `count` groups, none of them empty.
fn groups(rng: &mut Rng, machines: &[Machine], count: usize) -> Vec<Vec<Party>> {
    let mut all = machines.to_vec();
    rng.shuffle(&mut all);
    let mut groups = vec![Vec::new(); count];
    for (position, machine) in all.into_iter().enumerate() {
        let group = if position < count { position } else { rng.index(count) };
        groups[group].push(machine.party());
    }
    groups
}

/// Puts each client with one of the groups, or lets it reach them all. Answers those who do.
fn place_clients(rng: &mut Rng, groups: &mut [Vec<Party>], clients: u16) -> Vec<Party> {
    let mut everywhere = Vec::new();
    for client in (0..clients).map(Party::Client) {
        match rng.index(groups.len() + 1) {
            group if group < groups.len() => groups[group].push(client),
            _ => everywhere.push(client),
        }
    }
    everywhere
}

/// Two parts of about equal size. Clients are in one part or reach both; each part has one, as far
/// as there are any.
pub fn halves(rng: &mut Rng, machines: &[Machine], clients: u16) -> Shape {
    let mut all: Vec<Party> = machines.iter().map(|machine| machine.party()).collect();
    rng.shuffle(&mut all);
    let right = all.split_off(all.len() / 2 + if rng.one_in(2) { all.len() % 2 } else { 0 });
    sides(rng, "partition in halves", all, right, clients)
}

/// Two given parts, with a client on each side and the others anywhere.
pub fn sides(
    rng: &mut Rng,
    name: &'static str,
    left: Vec<Party>,
    right: Vec<Party>,
    clients: u16,
) -> Shape {
    let mut groups = [left, right];
    let mut bridges = Vec::new();
    for client in 0..clients {
        let party = Party::Client(client);
        match client {
            0 | 1 => groups[usize::from(client)].push(party),
            _ => match rng.index(3) {
                2 => bridges.push(party),
                group => groups[group].push(party),
            },
        }
    }
    Shape { name, cuts: apart(&groups, &bridges) }
}

/// Any partition. `primary` is a replica that may be cut off alone.
pub fn any(rng: &mut Rng, machines: &[Machine], clients: u16, primary: Machine) -> Shape {
    match rng.between(0, 7) {
        0 | 1 => halves(rng, machines, clients),
        2 => {
            let mut groups = groups(rng, machines, 2);
            let bridges = place_clients(rng, &mut groups, clients);
            Shape { name: "partition in two", cuts: apart(&groups, &bridges) }
        }
        3 => {
            let mut groups = groups(rng, machines, 3);
            let bridges = place_clients(rng, &mut groups, clients);
            Shape { name: "partition in three", cuts: apart(&groups, &bridges) }
        }
        4 => {
            // Some hear others who do not hear them.
            let mut groups = groups(rng, machines, 2);
            let bridges = place_clients(rng, &mut groups, clients);
            let deaf = groups[0].clone();
            let mut cuts = apart(&groups, &bridges);
            cuts.retain(|(from, _)| deaf.contains(from));
            Shape { name: "one-way cut", cuts }
        }
        5 => {
            let mut groups = groups(rng, machines, 2);
            let mut bridges = place_clients(rng, &mut groups, clients);
            bridges.push(rng.pick(machines).party());
            Shape { name: "bridge", cuts: apart(&groups, &bridges) }
        }
        6 => {
            let (alone, rest) =
                machines.iter().map(|machine| machine.party()).partition(|p| *p == primary.party());
            let mut groups = [alone, rest];
            let bridges = place_clients(rng, &mut groups, clients);
            Shape { name: "primary cut off", cuts: apart(&groups, &bridges) }
        }
        _ => {
            // Single directions, anywhere, clients included.
            let mut all: Vec<Party> = machines.iter().map(|machine| machine.party()).collect();
            all.extend((0..clients).map(Party::Client));
            let mut cuts = Vec::new();
            for from in &all {
                for to in all.iter().filter(|to| *to != from) {
                    if rng.one_in(4) {
                        cuts.push((*from, *to));
                    }
                }
            }
            Shape { name: "random links cut", cuts }
        }
    }
}
