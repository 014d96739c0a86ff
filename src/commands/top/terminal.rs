//! The view for terminals.

mod frame;

use std::io::{self, IsTerminal as _};
use std::thread;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use tokio::sync::mpsc::{self, Receiver};
use tokio::time::sleep;

use super::picture::Picture;
use super::watch::Watch;
use crate::failure::{Failure, Outcome};
use crate::stopping::Stopping;

pub use self::frame::{draw, text};

/// How soon the thread that reads keys notices that nobody wants them any more.
const KEYS_POLL: Duration = Duration::from_millis(200);

/// So many keys wait; more stay in the terminal.
const KEYS: usize = 64;

/// A terminal that is drawn on. Whatever ends that, it is as it was before.
struct Screen(DefaultTerminal);

impl Screen {
    fn open() -> Result<Self, Failure> {
        let opened = ratatui::try_init();
        opened.map(Self).map_err(|error| {
            ratatui::restore();
            Failure::usage(format!(
                "the terminal cannot be drawn on ({error}); --once prints one frame"
            ))
        })
    }

    fn draw(&mut self, picture: Option<&Picture>) -> Outcome {
        let drawn = self.0.draw(|frame| draw(frame, picture));
        drawn
            .map(|_| ())
            .map_err(|error| Failure::usage(format!("the terminal takes nothing more ({error})")))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Shows the cluster until `q`, Ctrl-C or a signal.
pub async fn run(watch: Watch, every: Duration) -> Outcome {
    if !io::stdout().is_terminal() {
        return Err(Failure::usage(
            "stdout is no terminal: --once prints one frame, --json objects, and --web is for browsers",
        ));
    }
    let mut stopping = Stopping::listen()?;
    let mut screen = Screen::open()?;
    let mut events = events();
    let mut picture = None;
    let mut next = Box::pin(turn(watch, Duration::ZERO));
    loop {
        screen.draw(picture.as_ref())?;
        tokio::select! {
            biased;
            () = stopping.wait() => return Ok(()),
            event = events.recv() => match event {
                Some(event) if !is_end(&event) => {}
                // Without keys it could not be left.
                _ => return Ok(()),
            },
            (watch, seen) = &mut next => {
                picture = Some(seen);
                next.set(turn(watch, every));
            }
        }
    }
}

async fn turn(mut watch: Watch, after: Duration) -> (Watch, Picture) {
    sleep(after).await;
    let picture = watch.look().await;
    (watch, picture)
}

/// Keys, and other sizes, by a thread: reading a terminal blocks.
fn events() -> Receiver<Event> {
    let (send, events) = mpsc::channel(KEYS);
    thread::spawn(move || {
        while !send.is_closed() {
            let event = match event::poll(KEYS_POLL) {
                Ok(false) => continue,
                Ok(true) => event::read(),
                Err(error) => Err(error),
            };
            let is_sent = event.is_ok_and(|event| send.blocking_send(event).is_ok());
            if !is_sent {
                return;
            }
        }
    });
    events
}

fn is_end(event: &Event) -> bool {
    let Some(key) = event.as_key_press_event() else { return false };
    let is_interrupt =
        key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    is_interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
}
