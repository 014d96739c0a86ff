//! A network that splits in two halves, and heals.

use std::thread;

use elea_processes::proxy::Proxy;

use crate::harness::{Answer, Town, until};
use crate::network::{Network, at};

#[test]
fn both_halves_sell_and_the_merge_keeps_every_sale_once_and_the_stock_whole() {
    let mut network = None;
    let town = Town::prepared(4, |town| network = Some(Network::new(town)));
    let network = network.expect("prepared");
    town.patient(&["put", "stock", "3"]).succeeds();
    town.patient(&["put", "book", ""]).succeeds();
    town.agrees();
    for name in ["north", "south"] {
        let stock = at(&town, name, &["get", "stock", "--timeout", "60s"]).succeeds();
        assert_eq!(stock.out, "3\n");
    }

    network.crossing.iter().for_each(Proxy::cut);
    at(&town, "north", &["get", "stock", "--timeout", "1s"]).fails(3, &["needs 3"]);

    // Each says at once that it sold, and waits in the background for the final word.
    let sales =
        [("north", "n1"), ("north", "n2"), ("south", "s1"), ("south", "s2"), ("south", "s3")];
    let sell = |name: &'static str, sale: &'static str| {
        let entry = format!("append book \"{sale} \"");
        let sold = format!("append sold \"{sale} \"");
        let mut words = vec!["txn", "--compare", "stock > 0", "--then", "incr stock -1"];
        words.extend(["--then", &entry, "--then", &sold, "--else", &entry]);
        words.extend(["--final", "--json", "--timeout", "60s"]);
        at(&town, name, &words)
    };
    let answers: Vec<Answer> = thread::scope(|scope| {
        let mut waiting = Vec::new();
        for (name, sale) in sales {
            waiting.push(scope.spawn(move || sell(name, sale)));
            until("the half executes the sale and says so", || {
                let words = ["get", "sold", "--weak", "--timeout", "60s"];
                at(&town, name, &words).out.contains(sale).then_some(())
            });
        }
        network.crossing.iter().for_each(Proxy::heal);
        waiting.into_iter().map(|sale| sale.join().expect("no panic")).collect()
    });

    town.agrees();
    let sold = answers.iter().filter(|answer| answer.code == 0).count();
    assert_eq!(sold, 3, "{answers:#?}");
    for answer in &answers {
        let last = answer.json();
        assert_eq!(last["final"], true, "{answer:?}");
        // What was sold at first and is refused in the end is said to be so.
        assert!(answer.code == 0 || answer.code == 1 && last["reordered"] == true, "{answer:?}");
    }
    assert_eq!(town.patient(&["get", "stock"]).succeeds().out, "0\n");
    let book = town.patient(&["get", "book"]).succeeds().out;
    let mut entries: Vec<_> = book.split_whitespace().collect();
    entries.sort_unstable();
    assert_eq!(entries, ["n1", "n2", "s1", "s2", "s3"], "each once");
    let kept = town.patient(&["get", "sold"]).succeeds().out;
    assert_eq!(kept.split_whitespace().count(), 3, "{kept}");
}
