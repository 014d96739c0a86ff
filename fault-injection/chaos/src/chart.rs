//! What a run has shown, for people: throughput over time, with the faults beneath.

use std::fmt::Write as _;

use crate::faults::{Class, Kind};
use crate::report::Event;
use crate::service::{Service, Share};

const WIDTH: f64 = 1200.0;
const LEFT: f64 = 130.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 60.0;
const HEIGHT: f64 = 280.0;
const ROW: f64 = 20.0;
const WEAK: &str = "#1f77b4";
const STRONG: &str = "#d62728";
const LATE: &str = "#000";

/// The chart: answers in each second, weak and strong, and what happened meanwhile.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "positions on a chart")]
pub fn svg(title: &str, seconds: &[[u64; 2]], events: &[Event], service: &Service) -> String {
    let last = events.iter().map(|event| event.end).fold(seconds.len() as f64, f64::max).max(1.0);
    let most = seconds.iter().flatten().copied().max().unwrap_or(0).max(1) as f64;
    let x = |second: f64| LEFT + second / last * (WIDTH - LEFT - RIGHT);
    let y = |answers: f64| TOP + HEIGHT - answers / most * HEIGHT;
    let kinds: Vec<Kind> =
        Kind::all().into_iter().filter(|kind| events.iter().any(|e| e.kind == *kind)).collect();
    let bands = TOP + HEIGHT + 50.0;
    let height = bands + ROW * kinds.len() as f64 + 20.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"16\">{}</text>\n",
        escaped(title)
    );
    // Whatever is wrong at a time is shaded behind the curves.
    for event in events {
        let (from, width) = (x(event.begin), (x(event.end) - x(event.begin)).max(1.0));
        let _ = writeln!(
            svg,
            "<rect x=\"{from:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{HEIGHT}\" \
             fill=\"#888\" fill-opacity=\"0.10\"/>"
        );
    }
    axes(&mut svg, last, most, &x, &y);
    for (level, colour) in [(0, WEAK), (1, STRONG)] {
        let points: Vec<String> = seconds
            .iter()
            .enumerate()
            .map(|(second, answers)| {
                format!("{:.1},{:.1}", x(second as f64 + 0.5), y(answers[level] as f64))
            })
            .collect();
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" points=\"{}\"/>",
            points.join(" ")
        );
    }
    legend(&mut svg);
    served(&mut svg, service, &x);
    for (row, kind) in kinds.iter().enumerate() {
        let top = bands + ROW * row as f64;
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n\
             <line x1=\"{LEFT}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"#ddd\"/>",
            LEFT - 8.0,
            top + 13.0,
            kind.word(),
            top + 9.0,
            WIDTH - RIGHT,
            top + 9.0
        );
        let colour = colour(kind.class());
        for event in events.iter().filter(|event| event.kind == *kind) {
            let (from, width) = (x(event.begin), (x(event.end) - x(event.begin)).max(2.0));
            let _ = writeln!(
                svg,
                "<rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"12\" \
                 fill=\"{colour}\"><title>{}: {}, {:.1} to {:.1} s</title></rect>",
                top + 3.0,
                kind.word(),
                escaped(&event.what),
                event.begin,
                event.end
            );
        }
    }
    svg + "</svg>\n"
}

/// A round number of which about so many fit.
fn step(whole: f64, count: f64) -> f64 {
    let rough = whole / count;
    let power = 10f64.powf(rough.log10().floor());
    let factors = [1.0, 2.0, 5.0, 10.0];
    factors.iter().map(|factor| factor * power).find(|step| *step >= rough).unwrap_or(rough)
}

fn axes(svg: &mut String, last: f64, most: f64, x: &impl Fn(f64) -> f64, y: &impl Fn(f64) -> f64) {
    let (bottom, right) = (TOP + HEIGHT, WIDTH - RIGHT);
    let up = step(most, 5.0);
    let mut answers = 0.0;
    while answers <= most {
        let at = y(answers);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{answers}</text>",
            LEFT - 8.0,
            at + 4.0
        );
        answers += up;
    }
    let along = step(last, 12.0).max(1.0);
    let mut second = 0.0;
    while second <= last {
        let at = x(second);
        let _ = writeln!(
            svg,
            "<line x1=\"{at:.1}\" y1=\"{bottom}\" x2=\"{at:.1}\" y2=\"{:.1}\" stroke=\"#444\"/>\n\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{second}</text>",
            bottom + 5.0,
            bottom + 18.0
        );
        second += along;
    }
    let middle = TOP + HEIGHT / 2.0;
    let _ = writeln!(
        svg,
        "<path d=\"M{LEFT},{TOP} V{bottom} H{right}\" fill=\"none\" stroke=\"#444\"/>\n\
         <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">seconds</text>\n\
         <text x=\"40\" y=\"{middle}\" text-anchor=\"middle\" \
         transform=\"rotate(-90 40 {middle})\">answers in a second</text>",
        (LEFT + right) / 2.0,
        bottom + 36.0
    );
}

fn colour(class: Class) -> &'static str {
    match class {
        Class::Network => "#ff7f0e",
        Class::Lasting => "#2ca02c",
        Class::Replicas => "#9467bd",
        Class::Clients => "#8c564b",
    }
}

/// The shares of answers that came in time, and when some did not.
#[allow(clippy::cast_precision_loss, reason = "positions on a chart")]
fn served(svg: &mut String, service: &Service, x: &impl Fn(f64) -> f64) {
    let [weak, strong] = service.steady.each_ref().map(Share::percent);
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"24\" text-anchor=\"end\">of what was owed, in time: weak {weak:.2} %, \
         strong {strong:.2} %</text>",
        WIDTH - RIGHT
    );
    for spell in service.spells() {
        let [from, to] = [spell.from, spell.to].map(|micros| micros as f64 / 1_000_000.0);
        let [weak, strong] = spell.count;
        let _ = writeln!(
            svg,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"6\" fill=\"{LATE}\">\
             <title>{weak} weak and {strong} strong answers late, asked for {from:.1} to {to:.1} s\
             </title></rect>",
            x(from),
            TOP - 8.0,
            (x(to) - x(from)).max(2.0)
        );
    }
}

fn legend(svg: &mut String) {
    let entries = [
        ("strong", STRONG),
        ("weak", WEAK),
        ("fault of the network", colour(Class::Network)),
        ("slow, or clocks", colour(Class::Lasting)),
        ("fault of replicas", colour(Class::Replicas)),
        ("hostile client", colour(Class::Clients)),
        ("owed and late", LATE),
    ];
    for (index, (name, colour)) in (0u32..).zip(entries) {
        let left = LEFT + 150.0 * f64::from(index);
        let _ = writeln!(
            svg,
            "<rect x=\"{left}\" y=\"36\" width=\"14\" height=\"10\" fill=\"{colour}\"/>\n\
             <text x=\"{}\" y=\"46\">{name}</text>",
            left + 20.0
        );
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use elea_client::Level;

    use super::*;
    use crate::service::{Asked, Late, Pace};

    #[test]
    fn a_chart_names_what_happened() {
        let event = Event {
            kind: Kind::Partition,
            what: String::from("r0 & <r1> apart"),
            begin: 1.0,
            end: 2.5,
        };
        let asked = Asked {
            client: 0,
            level: Level::Strong,
            pace: Pace::Steady,
            at: 1_500_000,
            answered: None,
            bytes: 0,
        };
        let late = vec![Late { asked, bound: Duration::from_secs(3) }];
        let service = Service { late, ..Service::default() };
        let svg = svg("a run", &[[10, 3], [200, 0], [0, 0]], &[event], &service);
        for part in [
            "partition: r0 &amp; &lt;r1&gt; apart, 1.0 to 2.5 s",
            "0 weak and 1 strong answers late, asked for 1.5 to 1.5 s",
            "strong",
            "seconds",
        ] {
            assert!(svg.contains(part), "{part}: {svg}");
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert!(super::svg("nothing", &[], &[], &service).ends_with("</svg>\n"));
    }

    #[test]
    fn steps_are_round() {
        assert_eq!([step(7.0, 5.0), step(900.0, 5.0), step(3600.0, 12.0)], [2.0, 200.0, 500.0]);
    }
}
