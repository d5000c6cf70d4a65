//! The lines of a log as somebody may read them: whole, of a bounded length, without control characters
//! and without places of the machine.

use crate::model::limits::LOG_LINE_BYTES_MAX;

/// Ends a line of which something was left out.
pub(super) const CUT: &str = " [cut]";

/// A log on its way to a reader.
#[derive(Debug)]
pub(super) struct Lines {
    /// It begins within a line, of which nothing is told.
    within_line: bool,
    /// A line that has begun, or as much of it as is kept.
    line: Vec<u8>,
    /// Texts that are told in other words, the longest in front.
    places: Vec<(String, &'static str)>,
}

impl Lines {
    /// Lines of a log of which a part is read that begins `within_line`, or may do so.
    pub(super) fn new(within_line: bool, places: Vec<(String, &'static str)>) -> Self {
        Self {
            within_line,
            line: Vec::new(),
            places,
        }
    }

    /// The lines that end in the next bytes of the log, behind `lines`.
    pub(super) fn take(&mut self, bytes: &[u8], lines: &mut String) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.within_line {
                self.within_line = !part.ends_with(b"\n");
                continue;
            }
            let kept = LOG_LINE_BYTES_MAX.saturating_sub(self.line.len());
            let text = part.strip_suffix(b"\n");
            let bytes = text.unwrap_or(part);
            if bytes.len() > kept {
                // One more tells that there was more.
                self.line.extend_from_slice(&bytes[..kept]);
                self.line.resize(LOG_LINE_BYTES_MAX + 1, 0);
            } else {
                self.line.extend_from_slice(bytes);
            }
            if text.is_some() {
                self.end_line(lines);
            }
        }
    }

    /// The line that the log ends in, behind `lines`: it was being written, or these were a program's last
    /// words.
    pub(super) fn end(&mut self, lines: &mut String) {
        if !self.line.is_empty() {
            self.end_line(lines);
        }
    }

    fn end_line(&mut self, lines: &mut String) {
        let cut = self.line.len() > LOG_LINE_BYTES_MAX;
        self.line.truncate(LOG_LINE_BYTES_MAX);
        let mut text = String::from_utf8_lossy(&self.line).into_owned();
        for (place, name) in &self.places {
            text = text.replace(place, name);
        }
        // Names of keys may hold anything, and terminals obey some of it.
        for c in text.chars() {
            if c.is_control() && c != '\t' {
                lines.extend(c.escape_default());
            } else {
                lines.push(c);
            }
        }
        if cut {
            lines.push_str(CUT);
        }
        lines.push('\n');
        self.line.clear();
    }
}
