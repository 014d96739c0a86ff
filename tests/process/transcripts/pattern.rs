//! What a page says that a command says: `…` stands for anything within a line, and alone for any number of lines.

const ANYTHING: char = '…';

/// Whether the command said that.
pub fn holds(page: &[String], said: &[String]) -> bool {
    match page.split_first() {
        None => said.is_empty(),
        Some((first, rest)) if first.trim() == ANYTHING.to_string() => {
            (0..=said.len()).any(|skipped| holds(rest, &said[skipped..]))
        }
        Some((first, rest)) => {
            said.split_first().is_some_and(|(line, said)| is_line(first, line) && holds(rest, said))
        }
    }
}

fn is_line(page: &str, said: &str) -> bool {
    let Some((begin, rest)) = page.split_once(ANYTHING) else { return page == said };
    let Some(mut said) = said.strip_prefix(begin) else { return false };
    let (middle, end) = rest.rsplit_once(ANYTHING).unwrap_or(("", rest));
    for part in middle.split(ANYTHING) {
        let Some((_, after)) = said.split_once(part) else { return false };
        said = after;
    }
    said.ends_with(end)
}

/// What the page is to say now: what the command said, with the page's own lines where they still hold.
pub fn rewritten(page: &[String], said: Vec<String>) -> Vec<String> {
    if holds(page, &said) {
        return page.to_vec();
    }
    let mut left = page;
    let mut kept = |line: String| {
        let found = left
            .iter()
            .position(|pattern| pattern.trim() != ANYTHING.to_string() && is_line(pattern, &line));
        let Some(at) = found else { return line };
        let pattern = left[at].clone();
        left = &left[at + 1..];
        pattern
    };
    said.into_iter().map(&mut kept).collect()
}

#[test]
fn an_ellipsis_stands_for_anything() {
    assert!(is_line("a … b … c", "a 1 b 2 c") && is_line("…", "x") && is_line("a…", "a"));
    assert!(!is_line("a … c", "b 1 c") && !is_line("a…b", "ab c") && !is_line("ab…b", "ab"));
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert!(holds(&lines("a\n…\nb"), &lines("a\nb")));
    assert!(holds(&lines("a\n…\nb"), &lines("a\nx\ny\nb")));
    assert!(!holds(&lines("a\n…\nb"), &lines("a\nx")));
    assert!(!holds(&lines("a"), &lines("a\nb")));
    let new = rewritten(&lines("took … s\nsame"), lines("took 4 s\nother\nsame"));
    assert_eq!(new, ["took … s", "other", "same"]);
}
