//! What you see: progress bars on a terminal, plain lines elsewhere.

use std::{
    cell::{Cell, RefCell},
    fmt::Display,
    io::{self, Write as _},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Numbers the steps and times them.
pub struct Show {
    live: bool,
    started: Instant,
    steps: Cell<u32>,
}

impl Show {
    /// `live` is for a terminal.
    pub fn new(live: bool) -> Self {
        Self {
            live,
            started: Instant::now(),
            steps: Cell::new(0),
        }
    }

    /// Begins a step; it has failed when it is dropped before it was told to be done.
    pub fn step(&self, title: impl Display) -> Step {
        self.steps.set(self.steps.get() + 1);
        let title = format!("{:2}  {title}", self.steps.get());
        let bar = self.live.then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
            bar.set_style(style("{spinner} {wide_msg}"));
            bar.set_message(title.clone());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        if !self.live {
            line(format_args!("   {title}"));
        }
        Step {
            title,
            started: Instant::now(),
            bar,
            said: RefCell::default(),
            commands: RefCell::default(),
            is_done: false,
        }
    }

    /// The time since the first step.
    pub fn elapsed(&self) -> String {
        seconds(self.started)
    }
}

/// One step of the story.
pub struct Step {
    title: String,
    started: Instant,
    bar: Option<ProgressBar>,
    said: RefCell<String>,
    /// Those that a bar has no room for.
    commands: RefCell<String>,
    is_done: bool,
}

impl Step {
    /// Tells what is typed for it.
    pub fn runs(&self, command: &str) {
        let command = format!("       $ {command}");
        match &self.bar {
            Some(_) => *self.commands.borrow_mut() += &format!("{command}\n"),
            None => line(command),
        }
    }

    /// Tells how it goes on.
    pub fn say(&self, text: &str) {
        if self.said.replace(text.to_owned()) == text {
            return;
        }
        match &self.bar {
            Some(bar) => bar.set_message(format!("{}: {text}", self.title)),
            None => line(format_args!("         {text}")),
        }
    }

    /// Tells how far it is.
    pub fn at(&self, done: u64, total: u64) {
        if let Some(bar) = &self.bar {
            if bar.length() != Some(total) {
                bar.set_style(style("{spinner} {msg} [{bar:24}] {human_pos}/{human_len}"));
                bar.set_length(total);
            }
            bar.set_position(done);
        }
    }

    /// Ends it well.
    pub fn done(mut self, result: impl Display) {
        self.is_done = true;
        let seconds = seconds(self.started);
        match &self.bar {
            Some(bar) => {
                bar.finish_and_clear();
                let commands = self.commands.borrow();
                line(format_args!(
                    "✓ {} ({seconds})\n{commands}       {result}",
                    self.title
                ));
            }
            None => line(format_args!("         => {result} ({seconds})")),
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        line(format_args!(
            "✗ {}: not done ({})",
            self.title,
            seconds(self.started)
        ));
    }
}

/// Prints a line. The reader may have gone (`demo | head`): that must not keep the demo from
/// cleaning up.
pub fn line(text: impl Display) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// Prints a line about what went wrong.
pub fn complain(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates above are well formed")
}

fn seconds(since: Instant) -> String {
    format!("{:.1} s", since.elapsed().as_secs_f64())
}
