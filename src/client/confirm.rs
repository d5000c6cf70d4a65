//! Questions to the user before something cannot be taken back.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use super::error::{Error, Result};

/// Asks whether a deletion is meant.
///
/// # Errors
///
/// It is not, or nobody can be asked.
pub fn certain(force: bool, what: &str) -> Result<()> {
    let question = format!("Really delete {what}?");
    sure(force, &format!("this deletes {what}"), &question, "deleted")
}

/// Refuses at once where a question would have to be asked and nobody can be; `does` as for [`sure`].
pub fn askable(force: bool, does: &str) -> Result<()> {
    if force || (io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Ok(());
    }
    let text = format!("{does}; no terminal to confirm on: add --force");
    Err(Error::Usage(text))
}

/// Asks a question whose answer is no unless somebody says yes; `does` says what `--force` would do
/// where nobody can be asked, `done` what was not done when they say no.
pub fn sure(force: bool, does: &str, question: &str, done: &str) -> Result<()> {
    if force {
        return Ok(());
    }
    askable(force, does)?;
    let (input, mut output) = (io::stdin(), io::stderr());
    let _ = write!(output, "{question} [yN] ");
    let _ = output.flush();
    let mut answer = String::new();
    let read = input.lock().read_line(&mut answer);
    if read.is_ok() && ["y", "yes"].contains(&answer.trim().to_lowercase().as_str()) {
        Ok(())
    } else {
        Err(Error::Failed(format!("nothing was {done}")))
    }
}
