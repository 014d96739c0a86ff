//! A page in a browser: Chromium, without a window, told what to do over a pipe (the DevTools protocol). Where there is
//! none, tests of pages read what the page is sent instead.

use std::cell::RefCell;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};

use crate::harness::PATIENCE;

/// By these names it is installed.
const NAMES: [&str; 4] =
    ["chromium", "chromium-headless-shell", "chromium-browser", "google-chrome"];

/// So large is the page.
const SIZE: &str = "--window-size=1000,780";

/// A browser that shows one page. Dropping it ends it.
pub struct Browser {
    child: Child,
    told: RefCell<ChildStdin>,
    says: Receiver<Json>,
    questions: RefCell<u64>,
    session: Option<String>,
}

/// Where it is installed, if it is.
fn installed() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let mut places = env::split_paths(&path).flat_map(|folder| NAMES.map(|name| folder.join(name)));
    places.find(|place| place.is_file())
}

impl Browser {
    /// Opens a page, with what the browser keeps in this folder; `None` where no browser is installed.
    pub fn open(url: &str, folder: &Path) -> Option<Self> {
        let program = installed()?;
        let mut command = Command::new("sh");
        // It hears from the file 3 and speaks to the file 4.
        command.args(["-c", "exec 3<&0 4>&1 </dev/null >/dev/null; exec \"$@\"", "sh"]);
        command.arg(program).args(["--headless=new", "--no-sandbox", "--disable-gpu", SIZE]);
        command.args([
            "--remote-debugging-pipe",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--no-first-run",
        ]);
        command.arg(format!("--user-data-dir={}", folder.join("browser").display()));
        let log = fs::File::create(folder.join("browser.log")).expect("a log file");
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn();
        let mut child = child.expect("it starts");
        let told = RefCell::new(child.stdin.take().expect("piped"));
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let (send, says) = mpsc::channel();
        thread::spawn(move || {
            let mut words = Vec::new();
            while out.read_until(0, &mut words).is_ok_and(|read| read > 0) {
                words.pop();
                let word = serde_json::from_slice(&words).expect("it says JSON");
                words.clear();
                if send.send(word).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self { child, told, says, questions: RefCell::new(0), session: None };
        let target = browser.tell("Target.createTarget", &json!({ "url": url }));
        let params = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.tell("Target.attachToTarget", &params);
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        Some(browser)
    }

    /// Has something done, and answers with what comes of it.
    fn tell(&self, method: &str, params: &Json) -> Json {
        let mut questions = self.questions.borrow_mut();
        *questions += 1;
        let mut question = json!({ "id": *questions, "method": method, "params": params });
        if let Some(session) = &self.session {
            question["sessionId"] = session.as_str().into();
        }
        let mut words = question.to_string().into_bytes();
        words.push(0);
        self.told.borrow_mut().write_all(&words).expect("it listens");
        loop {
            let said = self.says.recv_timeout(PATIENCE).expect("it answers");
            if said["id"] == *questions {
                assert!(said.get("error").is_none(), "{method}: {said}");
                return said["result"].clone();
            }
        }
    }

    /// What an expression comes to in the page.
    pub fn value_of(&self, expression: &str) -> Json {
        let params = json!({ "expression": expression, "returnByValue": true });
        let said = self.tell("Runtime.evaluate", &params);
        assert!(said.get("exceptionDetails").is_none(), "{expression}: {said}");
        said["result"]["value"].clone()
    }

    /// Writes what it shows to a file.
    pub fn photograph(&self, file: &Path) {
        let shown = self.tell(
            "Page.captureScreenshot",
            &json!({ "format": "png", "captureBeyondViewport": false }),
        );
        let png = STANDARD.decode(shown["data"].as_str().expect("base64")).expect("base64");
        fs::write(file, png).expect("it can be written");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
