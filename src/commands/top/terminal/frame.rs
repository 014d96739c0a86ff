//! One frame: replicas as rows, their slots as lanes, and what happened.

use ratatui::Frame;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::super::picture::{Kind, Picture, Replica, Said};

/// How histories are told apart where there is colour; where there is none their letters do.
const COLOURS: [Color; 6] =
    [Color::Cyan, Color::Magenta, Color::Yellow, Color::Green, Color::Blue, Color::Red];

/// What a lane takes beside its slots.
const LANE_MARGIN: usize = 12;

/// So much of what happened is printed where there is room for everything.
const LINES_PRINTED: usize = 10;

const SPARKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Draws it on what there is of a terminal.
pub fn draw(frame: &mut Frame<'_>, picture: Option<&Picture>) {
    let area = frame.area();
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    let text = match picture {
        None => vec![Line::raw("asking the replicas…")],
        Some(picture) => lines(picture, width, height.saturating_sub(1)),
    };
    frame.render_widget(Paragraph::new(text), area);
    if let Some(y) = area.height.checked_sub(1).filter(|y| *y > 0) {
        frame.buffer_mut().set_string(0, y, "q quits", Style::new().add_modifier(Modifier::DIM));
    }
}

/// The same for something that is no terminal.
pub fn text(picture: &Picture, width: usize) -> String {
    let all = lines(picture, width, usize::MAX);
    let all = all.iter().map(|line| {
        let line: String = line.spans.iter().map(|span| &*span.content).collect();
        let line: String = line.chars().take(width).collect();
        line.trim_end().to_owned()
    });
    all.collect::<Vec<_>>().join("\n")
}

/// All of it, in as many lines as there are.
fn lines(picture: &Picture, width: usize, height: usize) -> Vec<Line<'static>> {
    let mut lines = header(picture, width);
    lines.push(Line::default());
    lines.push(Line::styled(row(COLUMNS.map(|(name, _)| name.to_owned())), Modifier::BOLD));
    lines.extend(picture.replicas.iter().map(replica));
    lines.push(Line::default());
    let (from, to) = picture.axis;
    let numbers = format!("{from:<10}{:>room$}", to, room = width.saturating_sub(LANE_MARGIN + 10));
    lines.push(Line::styled(format!("slots   {numbers}"), Modifier::BOLD));
    lines.extend(picture.replicas.iter().filter_map(|replica| lane(picture, replica, width)));
    let legend =
        "█ never undone   ▓ certified   ▒ the same everywhere   a b … where histories differ";
    lines.push(Line::styled(format!("        {legend}"), Modifier::DIM));
    lines.push(Line::default());
    for charge in &picture.charges {
        lines.push(Line::styled(format!("proven: {}", charge.text), Color::Red));
    }
    let room = height.saturating_sub(lines.len()).min(if height == usize::MAX {
        LINES_PRINTED
    } else {
        height
    });
    for line in picture.log.iter().rev().take(room) {
        let style = match line.kind {
            Kind::Split => Style::from(Color::Magenta),
            Kind::Merge => Style::from(Color::Green),
            Kind::Evidence => Style::from(Color::Red),
            Kind::View | Kind::Replica => Style::new(),
        };
        lines.push(Line::styled(format!("{}  {}", clock(line.at), line.text), style));
    }
    lines
}

fn header(picture: &Picture, width: usize) -> Vec<Line<'static>> {
    let replicas = picture.replicas.len();
    let cluster =
        format!("{}: {replicas} replicas, of which {} may lie", picture.cluster, picture.faulty);
    let clock = clock(picture.at);
    let room = width.saturating_sub(cluster.chars().count());
    let rate = picture.rate().map_or_else(|| "–".to_owned(), |rate| format!("{rate:.0}"));
    let (histories, merges, views) = (picture.histories, picture.merges, picture.views);
    let counts = format!(
        "histories {histories}   merges {merges}   new views {views}   requests/s {rate} {}",
        sparks(&picture.rates)
    );
    let colour = if picture.tolerance > 0 { Color::Green } else { Color::Yellow };
    let is_split = picture.histories > 1;
    vec![
        Line::styled(format!("{cluster}{clock:>room$}"), Modifier::BOLD),
        Line::styled(counts, if is_split { Style::from(Color::Magenta) } else { Style::new() }),
        Line::styled(picture.tolerance_words(), colour),
    ]
}

/// What was, as bars.
fn sparks(rates: &[f64]) -> String {
    let last = &rates[rates.len().saturating_sub(20)..];
    let most = last.iter().copied().fold(1.0, f64::max);
    let bar = |rate: &f64| {
        let at = (SPARKS.len() - 1).min((rate / most * 8.0) as usize);
        SPARKS[at]
    };
    last.iter().map(bar).collect()
}

/// The names of columns, and how wide they are.
const COLUMNS: [(&str, usize); 9] = [
    ("replica", 8),
    ("standing", 12),
    ("view", 7),
    ("primary", 8),
    ("head", 19),
    ("lock", 9),
    ("stable", 9),
    ("history", 8),
    ("connection", 10),
];

fn row(cells: [String; COLUMNS.len()]) -> String {
    let all = cells.iter().zip(COLUMNS).map(|(cell, (_, width))| format!("{cell:<width$}"));
    all.collect::<String>().trim_end().to_owned()
}

fn replica(replica: &Replica) -> Line<'static> {
    let name = format!("r{}", replica.id);
    if let Some(why) = &replica.why_not {
        let text = format!("{name:<width$}does not answer: {why}", width = COLUMNS[0].1);
        return Line::styled(text, Color::Red);
    }
    let Some(said) = &replica.said else { return Line::raw(name) };
    let standing = if replica.is_convicted { "convicted" } else { said.standing };
    let view = match said.campaign {
        Some(wanted) => format!("{}→{wanted}", said.view),
        None => said.view.to_string(),
    };
    let primary =
        if said.primary == replica.id { "itself".to_owned() } else { format!("r{}", said.primary) };
    let text = row([
        name,
        standing.to_owned(),
        view,
        primary,
        format!("{} {}", said.head, said.hash),
        said.lock.to_string(),
        said.stable.to_string(),
        said.history.clone(),
        said.transport.to_owned(),
    ]);
    match replica.is_convicted || said.standing != "voter" {
        true => Line::styled(text, Color::Red),
        false => Line::raw(text),
    }
}

/// The slots of a replica, from the left to its head.
fn lane(picture: &Picture, replica: &Replica, width: usize) -> Option<Line<'static>> {
    let said = replica.said.as_ref()?;
    let columns = width.saturating_sub(LANE_MARGIN).max(1);
    let (from, to) = picture.axis;
    let span = u128::from(to.saturating_sub(from).max(1));
    let slot_at = |column: usize| {
        let slots = ((column as u128 + 1) * span).div_ceil(columns as u128);
        from.saturating_add(u64::try_from(slots).unwrap_or(u64::MAX))
    };
    let shared = said.shared.unwrap_or(u64::MAX);
    let mark = said.history.to_lowercase();
    let (mut common, mut own) = (String::new(), String::new());
    for slot in (0..columns).map(slot_at).take_while(|slot| *slot <= said.head) {
        match slot {
            slot if slot > shared => own += &mark,
            slot if slot <= said.stable => common.push('█'),
            slot if slot <= said.lock => common.push('▓'),
            _ => common.push('▒'),
        }
    }
    let name = format!("r{:<7}", replica.id);
    let away = if replica.why_not.is_some() { Modifier::DIM } else { Modifier::empty() };
    let end = if said.shared.is_some() { said.history.clone() } else { String::new() };
    Some(Line::from(vec![
        Span::raw(name),
        Span::styled(common, away),
        Span::styled(own, colour(said).add_modifier(away)),
        Span::styled(end, colour(said).add_modifier(Modifier::BOLD)),
    ]))
}

fn colour(said: &Said) -> Style {
    let at = said.history.bytes().next().map_or(0, |letter| usize::from(letter.wrapping_sub(b'A')));
    Style::from(COLOURS[at % COLOURS.len()])
}

/// The time of day of the wall clock, in UTC.
fn clock(millis: u64) -> String {
    let seconds = millis / 1000 % 86_400;
    format!("{:02}:{:02}:{:02} UTC", seconds / 3600, seconds / 60 % 60, seconds % 60)
}
