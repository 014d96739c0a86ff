//! Latency against throughput, both on scales that multiply: what is nearer to the lower right corner is better.

use std::fmt::Write as _;

/// One contestant in one shape.
pub struct Point {
    /// The contestant.
    pub series: &'static str,
    /// Which shape.
    pub label: String,
    /// Answers in a second.
    pub rate: f64,
    /// The median latency in milliseconds.
    pub p50: f64,
}

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 560.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 280.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 60.0;
const COLOURS: [&str; 8] =
    ["#444444", "#999999", "#8c6d31", "#bd9e39", "#d62728", "#1f77b4", "#ff9896", "#aec7e8"];

/// The chart.
pub fn svg(points: &[Point]) -> String {
    let shown: Vec<&Point> = points.iter().filter(|p| p.rate > 0.0 && p.p50 > 0.0).collect();
    let across = Scale::of(shown.iter().map(|p| p.rate), LEFT, WIDTH - RIGHT);
    let up = Scale::of(shown.iter().map(|p| p.p50), HEIGHT - BOTTOM, TOP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    for decade in across.decades() {
        let x = across.at(decade);
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{:.1}\" stroke=\"#ddd\"/>\n\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{decade}</text>",
            HEIGHT - BOTTOM,
            HEIGHT - BOTTOM + 18.0
        );
    }
    for decade in up.decades() {
        let y = up.at(decade);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{decade}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            y + 4.0
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">answers in a second</text>\n\
         <text x=\"20\" y=\"{:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 20 {:.1})\">median latency, ms</text>",
        f64::midpoint(LEFT, WIDTH - RIGHT),
        HEIGHT - 16.0,
        HEIGHT / 2.0,
        HEIGHT / 2.0
    );
    let mut series: Vec<&str> = shown.iter().map(|point| point.series).collect();
    series.sort_unstable();
    series.dedup();
    let mut top = TOP;
    for (name, colour) in series.iter().zip(COLOURS.iter().cycle()) {
        let _ = writeln!(
            svg,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"5\" fill=\"{colour}\"/>\n<text x=\"{:.1}\" y=\"{:.1}\">{name}</text>",
            WIDTH - RIGHT + 24.0,
            top + 6.0,
            WIDTH - RIGHT + 36.0,
            top + 10.0
        );
        top += 20.0;
        for point in shown.iter().filter(|point| point.series == *name) {
            let (x, y) = (across.at(point.rate), up.at(point.p50));
            let _ = writeln!(
                svg,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\" fill=\"{colour}\"><title>{}, {name}: {:.0}/s, \
                 {:.2} ms</title></circle>\n<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{}</text>",
                point.label,
                point.rate,
                point.p50,
                x + 8.0,
                y + 4.0,
                point.label
            );
        }
    }
    svg + "</svg>\n"
}

/// A scale on which each step multiplies.
struct Scale {
    least: f64,
    most: f64,
    from: f64,
    to: f64,
}

impl Scale {
    /// One that holds all of these, between whole powers of ten.
    fn of(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (mut least, mut most) = (f64::INFINITY, 0f64);
        for value in values {
            (least, most) = (least.min(value), most.max(value));
        }
        if most <= 0.0 {
            (least, most) = (1.0, 1.0);
        }
        let least = least.log10().floor();
        Self { least, most: most.log10().ceil().max(least + 1.0), from, to }
    }

    fn at(&self, value: f64) -> f64 {
        let part = (value.log10() - self.least) / (self.most - self.least);
        self.from + part * (self.to - self.from)
    }

    fn decades(&self) -> impl Iterator<Item = f64> {
        let (least, most) = (self.least, self.most);
        std::iter::successors(Some(least), move |power| Some(power + 1.0).filter(|p| *p <= most))
            .map(|power| 10f64.powf(power))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_shows_every_point_and_bears_none() {
        let point = |rate, p50| Point { series: "a", label: String::from("x"), rate, p50 };
        let all = svg(&[point(700.0, 1.4), point(9000.0, 30.0), point(0.0, 0.0)]);
        assert!(all.contains("x, a: 700/s, 1.40 ms") && all.contains("x, a: 9000/s, 30.00 ms"));
        for chart in [all, svg(&[]), svg(&[point(1.0, 1.0)])] {
            assert!(
                chart.ends_with("</svg>\n") && !chart.contains("NaN") && !chart.contains("inf")
            );
        }
    }
}
