//! A page of Markdown, and the transcripts in it.
//!
//! `<!-- transcript: NAME` begins one: an empty folder, in which nothing runs. All blocks of `console` that follow are of it.
//! Commands for which readers have no use stand in that comment, or in one that begins with `<!-- meanwhile`. One whose name
//! ends with `, with libfaketime` is replayed where that is installed.

/// A command, and what the page says that it says.
#[derive(Debug)]
pub struct Step {
    pub command: String,
    pub said: Vec<String>,
    /// Where it stands, from 1.
    pub line: usize,
    /// Where what it says begins, from 0.
    output: usize,
}

/// What is done in one folder, one after the other.
#[derive(Debug)]
pub struct Transcript {
    pub name: String,
    /// Whether it takes clocks that are wrong.
    pub needs_clocks: bool,
    pub steps: Vec<Step>,
}

/// How the name of a transcript ends that takes clocks that are wrong.
const WITH_CLOCKS: &str = ", with libfaketime";

/// See the [module](self).
#[derive(Debug)]
pub struct Page<'a> {
    lines: Vec<&'a str>,
    pub transcripts: Vec<Transcript>,
}

/// Where in a page a line stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Text,
    /// In a comment with commands, or a block of them.
    Commands {
        end: &'static str,
    },
    /// In a block that is not replayed, or is no transcript.
    Other,
}

impl<'a> Page<'a> {
    /// Reads a page. What is marked in a way that means nothing is an error.
    pub fn parse(text: &'a str) -> Result<Self, String> {
        let mut page = Self { lines: text.lines().collect(), transcripts: Vec::new() };
        let (mut place, mut is_excused) = (Place::Text, false);
        for (at, line) in text.lines().enumerate() {
            let wrong = |what: &str| Err(format!("line {}: {what}", at + 1));
            place = match place {
                Place::Commands { end } if line == end => Place::Text,
                Place::Commands { .. } => {
                    page.take_in(at, line)?;
                    place
                }
                Place::Other if line == "```" => Place::Text,
                Place::Other => place,
                Place::Text if line == "```console" => match page.transcripts.last() {
                    _ if std::mem::take(&mut is_excused) => Place::Other,
                    Some(_) => Place::Commands { end: "```" },
                    None => {
                        return wrong("this transcript is not replayed, and no reason is given");
                    }
                },
                Place::Text if line.starts_with("```") => Place::Other,
                Place::Text => {
                    if let Some(reason) = line.strip_prefix("<!-- not replayed:") {
                        if reason.trim_end_matches("-->").trim().is_empty() {
                            return wrong("a reason is missing");
                        }
                        is_excused = true;
                    }
                    let name = line.strip_prefix("<!-- transcript:");
                    if let Some(name) = name {
                        let name = name.trim_end_matches("-->").trim();
                        let (name, needs_clocks) = match name.strip_suffix(WITH_CLOCKS) {
                            Some(name) => (name.to_owned(), true),
                            None => (name.to_owned(), false),
                        };
                        page.transcripts.push(Transcript { name, needs_clocks, steps: Vec::new() });
                    }
                    let begins = name.is_some() || line.starts_with("<!-- meanwhile");
                    let has_commands = begins && !line.ends_with("-->");
                    if has_commands { Place::Commands { end: "-->" } } else { Place::Text }
                }
            };
        }
        if place == Place::Text { Ok(page) } else { Err("a block does not end".into()) }
    }

    /// Takes in a line of a transcript.
    fn take_in(&mut self, at: usize, line: &str) -> Result<(), String> {
        let transcript = self.transcripts.last_mut();
        let steps = &mut transcript.ok_or("commands before a transcript begins")?.steps;
        if let Some(command) = line.strip_prefix("$ ") {
            let command = command.to_owned();
            steps.push(Step { command, said: Vec::new(), line: at + 1, output: at + 1 });
            return Ok(());
        }
        let step = steps.last_mut().ok_or_else(|| format!("line {}: no command", at + 1))?;
        if step.said.is_empty() && step.command.ends_with('\\') {
            step.command += "\n";
            step.command += line;
            step.output += 1;
        } else {
            step.said.push(line.to_owned());
        }
        Ok(())
    }

    /// Whether there is anything to be replayed.
    pub fn replays(&self) -> bool {
        !self.transcripts.is_empty()
    }

    /// The page with other words of each step.
    pub fn with(&self, said: &[Vec<String>]) -> String {
        let mut lines: Vec<String> = self.lines.iter().map(|line| (*line).to_owned()).collect();
        let steps: Vec<_> = self.transcripts.iter().flat_map(|of| &of.steps).collect();
        // From the end, so that what stands before keeps its place.
        for (step, said) in steps.iter().zip(said).rev() {
            lines.splice(step.output..step.output + step.said.len(), said.iter().cloned());
        }
        lines.join("\n") + "\n"
    }
}

#[test]
fn a_block_is_replayed_or_says_why_not() {
    let block = "```console\n$ elea status\n…\n```\n";
    assert!(Page::parse(block).is_err_and(|wrong| wrong.contains("no reason")));
    assert!(Page::parse(&format!("<!-- not replayed: -->\n{block}")).is_err());
    let page = format!("<!-- not replayed: takes a year -->\n{block}");
    assert!(!Page::parse(&page).expect("marked").replays());
    assert!(Page::parse(&format!("{page}{block}")).is_err(), "a reason counts once");
    let page = format!("<!-- transcript: one\n$ elea \\\n  init\n-->\n{block}");
    let page = Page::parse(&page).expect("marked");
    let commands: Vec<_> = page.transcripts[0].steps.iter().map(|step| &step.command).collect();
    assert_eq!(commands, ["elea \\\n  init", "elea status"]);
    let said = [vec!["so".to_owned()], vec![]];
    let expected =
        "<!-- transcript: one\n$ elea \\\n  init\nso\n-->\n```console\n$ elea status\n```\n";
    assert_eq!(page.with(&said), expected);
}

#[test]
fn what_takes_another_library_says_so() {
    let page = Page::parse("<!-- transcript: a -->\n<!-- transcript: b, with libfaketime -->\n");
    let page = page.expect("marked");
    let needs: Vec<_> = page.transcripts.iter().map(|of| (&*of.name, of.needs_clocks)).collect();
    assert_eq!(needs, [("a", false), ("b", true)]);
}
