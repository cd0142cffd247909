//! Results on standard output, as text for people or one JSON document; failures with a hint.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;

use super::Format;
use crate::causes::chain;
use crate::error::{Code, Error};
use crate::report::{Outcome, Report};

/// Prints a result: `text` for people, `value` as JSON.
pub(super) fn result(
    format: Format,
    value: &impl Serialize,
    text: impl FnOnce() -> String,
) -> Result<(), Error> {
    let text = match format {
        Format::Text => text(),
        Format::Json => serde_json::to_string_pretty(value).expect("results have text keys only"),
    };
    print(&text)
}

/// Prints a text, with a line end.
pub(super) fn print(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    let end = if text.ends_with('\n') { "" } else { "\n" };
    match write!(out, "{text}{end}").and_then(|()| out.flush()) {
        // Whoever read us has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed.map_err(|source| Error::Output {
            path: "standard output".to_owned(),
            source,
        }),
    }
}

/// Prints what a run came to that ended as `ended` says. As JSON, a failure is the one document.
pub(super) fn ended(
    format: Format,
    report: &Report,
    ended: &Result<(), Error>,
    text: impl FnOnce() -> String,
) -> Result<(), Error> {
    let is_unwritten = matches!(ended, Err(Error::Unwritten { .. })) && format == Format::Json;
    if report.outcome == Outcome::Failed || is_unwritten {
        return Ok(());
    }
    result(format, report, text)
}

/// Tells why a command failed, and gives its exit status.
pub(super) fn failure(error: &Error, format: Format, log: Format, at: Timestamp) -> ExitCode {
    let (told, hint) = (without_keys(&chain(error)), error.hint());
    // As the log has its lines, but whatever its filter says.
    let line = match log {
        Format::Text => format!("error: {told}\n hint: {hint}"),
        Format::Json => {
            let fields = json!({"message": told, "code": error.code(), "hint": hint});
            json!({"timestamp": at, "level": "ERROR", "fields": fields}).to_string()
        }
    };
    // Nothing can be done where standard error itself is gone.
    drop(writeln!(io::stderr().lock(), "{line}"));
    // A run that went on to its end has printed its report, which names what failed.
    let has_report = matches!(
        error,
        Error::Partial { .. }
            | Error::Interrupted
            | Error::Deadline { .. }
            | Error::Unsound { .. }
            | Error::NotCompared { .. }
    );
    if !has_report {
        error_document(error, format);
    }
    error.exit()
}

/// Prints a failure as the one document of standard output, where JSON is asked for.
pub(super) fn error_document(error: &Error, format: Format) {
    if format == Format::Json {
        document(error.code(), &without_keys(&chain(error)), error.hint());
    }
}

/// Prints what is wrong with a command line as the one document of standard output.
pub(super) fn usage_document(error: &clap::Error) {
    let text = without_keys(&error.render().to_string());
    // What is wrong, and with what: the usage and tips stand behind an empty line.
    let lines = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.is_empty());
    let message = lines.collect::<Vec<_>>().join(" ");
    let message = message.trim_start_matches("error: ");
    document(Code::Usage, message, Code::Usage.hint());
}

/// Blots out what looks like an API key: one may be typed where none belongs, and repeated by the message.
pub(super) fn without_keys(text: &str) -> String {
    let mut told = String::with_capacity(text.len());
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    for word in text.split_inclusive(|c| !is_of_word(c)) {
        let key = word.trim_end_matches(|c| !is_of_word(c));
        let is_key = |kind: &str| key.strip_prefix(kind).is_some_and(|rest| !rest.is_empty());
        if is_key("pat.") || is_key("sat.") {
            told.extend(["***", &word[key.len()..]]);
        } else {
            told.push_str(word);
        }
    }
    told
}

fn document(code: Code, message: &str, hint: &str) {
    let value = json!({"error": {"code": code.name(), "message": message, "hint": hint}});
    drop(print(&value.to_string()));
}

/// Whether arguments that could not be parsed ask for JSON; a setting of the environment counts, too.
pub(super) fn wants_json(args: impl Iterator<Item = OsString>) -> bool {
    let args: Vec<OsString> = args.collect();
    let asks = args.iter().any(|arg| arg == "--output=json")
        || args
            .windows(2)
            .any(|pair| pair[0] == "--output" && pair[1] == "json");
    asks || std::env::vars_os()
        .any(|(name, value)| name == "HARNESS_LAKE_OUTPUT" && value == "json")
}

/// Lines up the columns of a table; the first row is its head.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |at: usize| {
        rows.iter()
            .filter_map(|row| row.get(at))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns)
        .map(|at| width(at).unwrap_or_default())
        .collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths);
        let padded: Vec<_> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// So many of something whose plural takes an `s`.
pub(super) fn count(n: u64, one: &str) -> String {
    let end = if n == 1 { "" } else { "s" };
    format!("{} {one}{end}", number(n))
}

/// A number with thousands apart.
pub(super) fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if 0 < at && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_key_is_blotted_out() {
        let told = "error: unexpected argument 'pat.ACC.id.Se-cr_et' found\n  tip: --x=sat.a.b.c.";
        let shown = "error: unexpected argument '***' found\n  tip: --x=***";
        assert_eq!(without_keys(told), shown);
        assert_eq!(
            without_keys("the path.of a pattern"),
            "the path.of a pattern"
        );
    }

    #[test]
    fn numbers_and_tables_are_readable() {
        assert_eq!(
            [0, 999, 1_000, 1_234_567].map(number),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            [0, 1, 2_000].map(|n| count(n, "gap")),
            ["0 gaps", "1 gap", "2,000 gaps"]
        );
        let rows = [
            vec!["a".to_owned(), "bb".to_owned()],
            vec!["ccc".to_owned(), "d".to_owned()],
        ];
        assert_eq!(table(&rows), "a    bb\nccc  d\n");
    }
}
