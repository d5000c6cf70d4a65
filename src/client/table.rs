//! Tables and lists of fields that fit the width of a terminal.
//!
//! Invariant: no word is cut, so whatever can be copied from a wide terminal can be copied from a narrow
//! one. A table that does not fit wraps its cells between words; where even that does not fit, each row
//! stands by itself, its first cell above the others. A field's value whose words do not fit beside its name stands
//! below it. A digest that no line holds goes over lines in equal parts, which people can compare.

use unicode_width::UnicodeWidthStr as _;

use super::clean::clean;

/// What stands between two columns.
const GAP: &str = "   ";
/// The same where there is little room.
const NARROW_GAP: &str = "  ";
/// A row that would be higher stands by itself: nobody reads a column of single words.
const LINES_MAX: usize = 4;
/// What the other cells of a row that stands by itself begin with.
const INDENT: &str = "  ";

/// What a number stays beside: units of time and of size.
const UNITS: [&str; 17] = [
    "ms", "s", "min", "h", "second", "seconds", "minute", "minutes", "hour", "hours", "day",
    "days", "B", "KiB", "MiB", "GiB", "TiB",
];

/// Hexadecimal digits in a row that are taken for a digest.
const DIGEST_MIN: usize = 64;

/// A space at which no line ends, until it is shown.
pub const TIE: char = '\u{a0}';

/// How wide a text is on a terminal.
pub fn columns(text: &str) -> usize {
    text.width()
}

/// A text without what does not fit, and with a sign that there was more.
pub fn cut(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    for c in text.chars() {
        kept.push(c);
        if columns(&kept) >= width {
            kept.pop();
            break;
        }
    }
    if width > 0 {
        kept.truncate(kept.trim_end().len());
        kept.push('\u{2026}');
    }
    kept
}

/// Lines of at most `width` columns, as long as no word is wider.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.is_empty() && columns(&line) + 1 + columns(word) > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

/// The same text, with no line's end between a number and its unit.
fn with_units_whole(text: &str) -> String {
    let is_number = |word: &str| {
        let figure = word.trim_start_matches(['(', '~']);
        !figure.is_empty() && figure.chars().all(|c| c.is_ascii_digit() || c == '.')
    };
    let is_unit = |word: &str| UNITS.contains(&word.trim_end_matches(|c: char| !c.is_alphabetic()));
    let mut whole = String::new();
    let mut before = "";
    for (at, word) in text.split(' ').enumerate() {
        if at > 0 {
            whole.push(if is_number(before) && is_unit(word) {
                TIE
            } else {
                ' '
            });
        }
        whole.push_str(word);
        before = word;
    }
    whole
}

fn longest_word(text: &str) -> usize {
    text.split(' ').map(columns).max().unwrap_or(0)
}

/// A table with its columns in line, in `width` columns of a terminal; none: as wide as it is.
pub fn table<const N: usize>(
    head: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
    width: Option<usize>,
) -> String {
    let head = head.map(str::to_owned);
    let rows: Vec<[String; N]> = rows
        .into_iter()
        .map(|row| row.map(|cell| with_units_whole(&clean(&cell))))
        .collect();
    let all = || std::iter::once(&head).chain(&rows);
    let widest = |of: fn(&str) -> usize| -> [usize; N] {
        std::array::from_fn(|column| all().map(|row| of(&row[column])).max().unwrap_or(0))
    };
    let natural = widest(columns);
    let needed = |widths: &[usize], gap: &str| {
        widths.iter().sum::<usize>() + columns(gap) * N.saturating_sub(1)
    };
    let room = width.unwrap_or(usize::MAX);
    if needed(&natural, GAP) <= room {
        return untied(lines_of(all(), &natural, GAP));
    }
    let least = widest(longest_word);
    if needed(&least, NARROW_GAP) <= room {
        let left = room - needed(&least, NARROW_GAP);
        let widths = shared(natural, least, left);
        let height = |row: &[String; N]| {
            let cells = row.iter().zip(widths);
            let lines = cells.map(|(cell, width)| wrap(cell, width).len());
            lines.max().unwrap_or(0)
        };
        if all().all(|row| height(row) <= LINES_MAX) {
            return untied(lines_of(all(), &widths, NARROW_GAP));
        }
    }
    let blocks: Vec<String> = rows.iter().map(|row| block(&head, row, room)).collect();
    untied(blocks.join("\n"))
}

/// Widths from the least to the natural ones, with what is left for all that lack some in turn.
fn shared<const N: usize>(natural: [usize; N], least: [usize; N], left: usize) -> [usize; N] {
    let (mut widths, mut left) = (least, left);
    while left > 0 {
        let lacking: Vec<usize> = (0..N).filter(|i| widths[*i] < natural[*i]).collect();
        if lacking.is_empty() {
            break;
        }
        for column in lacking.into_iter().take(left) {
            widths[column] += 1;
            left -= 1;
        }
    }
    widths
}

fn lines_of<'a, const N: usize>(
    rows: impl Iterator<Item = &'a [String; N]>,
    widths: &[usize; N],
    gap: &str,
) -> String {
    let mut lines = Vec::new();
    for row in rows {
        let cells: [Vec<String>; N] = std::array::from_fn(|i| wrap(&row[i], widths[i]));
        let height = cells.iter().map(Vec::len).max().unwrap_or(0);
        for at in 0..height {
            let mut line = String::new();
            for (cell, width) in cells.iter().zip(widths) {
                let text = cell.get(at).map_or("", String::as_str);
                line.push_str(text);
                line.push_str(&" ".repeat(width.saturating_sub(columns(text))));
                line.push_str(gap);
            }
            lines.push(line.trim_end().to_owned());
        }
    }
    lines.join("\n")
}

/// A row by itself: its first cell, and below it the others behind their names.
fn block<const N: usize>(head: &[String; N], row: &[String; N], width: usize) -> String {
    let mut lines = Vec::new();
    let mut line = String::new();
    for (at, (name, cell)) in head.iter().zip(row).enumerate() {
        if at == 0 {
            lines.extend(wrap(cell, width));
            continue;
        }
        if cell.is_empty() {
            continue;
        }
        let entry = format!("{}{TIE}{cell}", name.replace(' ', &TIE.to_string()));
        let is_first = line.is_empty();
        if !is_first && columns(&line) + NARROW_GAP.len() + columns(&entry) > width {
            lines.push(std::mem::take(&mut line));
        }
        line.push_str(if line.is_empty() { INDENT } else { NARROW_GAP });
        line.push_str(&entry);
        // What does not fit on a line of its own goes on further in.
        if columns(&line) > width {
            let deeper = INDENT.repeat(2);
            let whole = std::mem::take(&mut line);
            let mut parts = wrap(whole.trim_start(), width.saturating_sub(deeper.len()));
            let last = parts.pop().unwrap_or_default();
            for (i, part) in parts.iter().enumerate() {
                let indent = if i == 0 { INDENT } else { &deeper };
                lines.push(format!("{indent}{part}"));
            }
            lines.push(format!("{deeper}{last}"));
        }
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines.join("\n")
}

/// Names and values, one below the other; those without a value are left out.
pub fn fields<const N: usize>(fields: [(&str, Option<String>); N], width: Option<usize>) -> String {
    let there: Vec<(&str, String)> = fields
        .into_iter()
        .filter_map(|(name, value)| Some((name, with_units_whole(&clean(&value?)))))
        .collect();
    let names = there.iter().map(|(name, _)| columns(name) + 1).max();
    let names = names.unwrap_or(0);
    let room = width.map_or(usize::MAX, |width| {
        width.saturating_sub(names + GAP.len()).max(1)
    });
    let mut lines = Vec::new();
    for (name, value) in &there {
        if longest_word(value) > room {
            lines.push(format!("{name}:"));
            let below = width.unwrap_or(usize::MAX).saturating_sub(INDENT.len());
            let value = with_digests_in_parts(value, below);
            let parts = wrap(&value, below);
            lines.extend(parts.iter().map(|part| format!("{INDENT}{part}")));
            continue;
        }
        for (at, part) in wrap(value, room).iter().enumerate() {
            let name = if at == 0 {
                format!("{name}:")
            } else {
                String::new()
            };
            lines.push(format!("{name:names$}{GAP}{part}").trim_end().to_owned());
        }
    }
    untied(lines.join("\n"))
}

/// The same text, its digests that are longer than `room` in equal parts that are not.
fn with_digests_in_parts(text: &str, room: usize) -> String {
    let parts = |word: &str| {
        let is_digest = word.len() >= DIGEST_MIN && word.bytes().all(|b| b.is_ascii_hexdigit());
        let mut length = word.len();
        while is_digest && length > room && length.is_multiple_of(2) {
            length /= 2;
        }
        let parts: Vec<String> = (word.chars().collect::<Vec<char>>().chunks(length.max(1)))
            .map(|part| part.iter().collect())
            .collect();
        match is_digest {
            true => parts.join(" "),
            false => word.to_owned(),
        }
    };
    let words: Vec<String> = text.split(' ').map(parts).collect();
    words.join(" ")
}

fn untied(text: String) -> String {
    text.replace(TIE, " ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: [&str; 4] = ["NAME", "STATE", "TAKEN", "HOW IT STANDS"];

    fn rows() -> Vec<[String; 4]> {
        let row = |cells: [&str; 4]| cells.map(str::to_owned);
        vec![
            row([
                "0123456789abcdef01234567",
                "complete",
                "2026-11-27 09:12 UTC (3 hours ago)",
                "",
            ]),
            row([
                "76543210fedcba9876543210",
                "failed",
                "2026-11-26 09:12 UTC (1 day ago)",
                "no member answered within 60 s, and none was there to take a snapshot of",
            ]),
        ]
    }

    #[test]
    fn columns_stand_in_line() {
        let rows = [["a", "b"], ["long", "\u{f6}"]].map(|row| row.map(str::to_owned));
        let expected = "NAME   PLAN\na      b\nlong   \u{f6}";
        assert_eq!(table(["NAME", "PLAN"], rows, None), expected);
        let wide = [["\u{6f22}\u{5b57}", "b"]].map(|row| row.map(str::to_owned));
        assert_eq!(
            table(["N", "P"], wide, None),
            "N      P\n\u{6f22}\u{5b57}   b"
        );
    }

    #[test]
    fn a_table_that_does_not_fit_wraps_its_cells_between_words() {
        let expected = "\
NAME                      STATE     TAKEN                   HOW IT STANDS
0123456789abcdef01234567  complete  2026-11-27 09:12 UTC
                                    (3 hours ago)
76543210fedcba9876543210  failed    2026-11-26 09:12 UTC    no member answered
                                    (1 day ago)             within 60 s, and
                                                            none was there to
                                                            take a snapshot of";
        assert_eq!(table(HEAD, rows(), Some(80)), expected);
    }

    #[test]
    fn where_even_that_does_not_fit_each_row_stands_by_itself() {
        let expected = "\
0123456789abcdef01234567
  STATE complete
  TAKEN 2026-11-27 09:12 UTC (3 hours
    ago)
76543210fedcba9876543210
  STATE failed
  TAKEN 2026-11-26 09:12 UTC (1 day ago)
  HOW IT STANDS no member answered
    within 60 s, and none was there to
    take a snapshot of";
        assert_eq!(table(HEAD, rows(), Some(40)), expected);
    }

    #[test]
    fn fields_go_on_below_themselves() {
        let told = fields(
            [
                ("name", Some("orders".to_owned())),
                ("gone", None),
                ("health", Some("Degraded: 2 of 3 members serve".to_owned())),
            ],
            Some(30),
        );
        let expected = "name:     orders\nhealth:   Degraded: 2 of 3\n          members serve";
        assert_eq!(told, expected);
    }

    #[test]
    fn a_value_that_does_not_fit_beside_its_name_stands_below_it() {
        let digest = "0123456789abcdef".repeat(4);
        let told = |width| {
            let size = ("size", Some("1.0 MiB".to_owned()));
            fields(
                [size, ("sha256 of the snapshot", Some(digest.clone()))],
                width,
            )
        };
        let names = "size:                     1.0 MiB\nsha256 of the snapshot:";
        let half = "0123456789abcdef".repeat(2);
        for (width, below) in [
            (None, format!("   {digest}")),
            (Some(120), format!("   {digest}")),
            (Some(80), format!("\n  {digest}")),
            (Some(60), format!("\n  {half}\n  {half}")),
        ] {
            assert_eq!(told(width), format!("{names}{below}"));
        }
        // An address is whole: it is copied over the end of a terminal's line.
        let link = format!("https://broker.example/{}", "a/".repeat(40));
        let told = fields([("link", Some(link.clone()))], Some(60));
        assert_eq!(told, format!("link:\n  {link}"));
    }

    #[test]
    fn a_number_and_its_unit_are_never_parted() {
        let told = |text: &str, width| fields([("a", Some(text.to_owned()))], Some(width));
        // Five columns are the name's.
        assert_eq!(
            told("no answer within 5 s: gone", 5 + 18),
            "a:   no answer within\n     5 s: gone"
        );
        assert_eq!(
            told("it has 12.5 MiB, so", 5 + 11),
            "a:   it has\n     12.5 MiB,\n     so"
        );
        let row = || [["x".to_owned(), "next in 8 s".to_owned()]];
        assert_eq!(
            table(["A", "B"], row(), Some(10)),
            "A  B\nx  next in\n   8 s"
        );
        // No unit follows.
        assert_eq!(
            told("step 5 should do", 5 + 6),
            "a:   step 5\n     should\n     do"
        );
    }

    #[test]
    fn what_is_cut_says_so() {
        assert_eq!(cut("whole", 5), "whole");
        assert_eq!(cut("too long", 5), "too\u{2026}");
        assert_eq!(cut("too long", 0), "");
    }

    proptest! {
        #[test]
        fn no_word_is_lost_or_cut(
            cells in proptest::collection::vec("[a-z]{0,12}( [a-z]{1,12}){0,5}", 6),
            width in 1_usize..90,
        ) {
            let rows = [[cells[0].clone(), cells[1].clone(), cells[2].clone()],
                [cells[3].clone(), cells[4].clone(), cells[5].clone()]];
            let shown = table(["A", "B", "C"], rows, Some(width));
            let mut expected: Vec<&str> = cells.iter().flat_map(|c| c.split_whitespace()).collect();
            let mut found: Vec<&str> = shown.split_whitespace()
                .filter(|word| !["A", "B", "C"].contains(word)).collect();
            expected.sort_unstable();
            found.sort_unstable();
            prop_assert_eq!(found, expected);
            let longest = cells.iter().map(|c| longest_word(c)).max().unwrap_or(0);
            // The indentation of what goes on, and the column's name.
            for line in shown.lines().filter(|_| width > longest + 6) {
                prop_assert!(columns(line) <= width, "{}", line);
            }
        }
    }
}
