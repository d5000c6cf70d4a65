//! What containers beside members do, as scripts of their shell.

pub(super) const HOLD: &str = include_str!("scripts/hold.sh");
pub(super) const KEEP: &str = include_str!("scripts/keep.sh");
pub(super) const LAST_WORDS: &str = include_str!("scripts/last_words.sh");
pub(super) const LIST: &str = include_str!("scripts/list.sh");
pub(super) const PREPARE: &str = include_str!("scripts/prepare.sh");
pub(super) const PUT_BACK: &str = include_str!("scripts/put_back.sh");
pub(super) const READ: &str = include_str!("scripts/read.sh");
pub(super) const RECEIVE: &str = include_str!("scripts/receive.sh");
pub(super) const SERVE: &str = include_str!("scripts/serve.sh");
pub(super) const SET_ASIDE: &str = include_str!("scripts/set_aside.sh");
pub(super) const TASK: &str = include_str!("scripts/task.sh");
pub(super) const WIPE: &str = include_str!("scripts/wipe.sh");

/// The exit status by which a script says that what must be there is not.
pub(super) const NOTHING_THERE: i32 = 97;

/// The shell of an image of tools.
const SHELL: &str = "/bin/busybox";
/// The shell where an image has none: brought beside the program.
const BROUGHT_SHELL: &str = "/tools/busybox";

/// A script as a command where there are tools.
pub(super) fn command(script: &str, args: &[&str]) -> Vec<String> {
    of(SHELL, script, args)
}

/// A script as a command beside a program.
pub(super) fn beside(script: &str, args: &[&str]) -> Vec<String> {
    of(BROUGHT_SHELL, script, args)
}

fn of(shell: &str, script: &str, args: &[&str]) -> Vec<String> {
    let shell = [shell, "sh", "-c", script, "compose-broker"];
    shell
        .iter()
        .chain(args)
        .map(|&arg| arg.to_owned())
        .collect()
}
