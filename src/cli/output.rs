//! Results on standard output as text or one JSON document, and failures with a hint.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use indicatif::HumanCount;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;

use super::Format;
use crate::causes::chain;
use crate::error::{Code, Error};
use crate::lake::size::SizeAdvice;
use crate::report::{Outcome, Report};

const TEXT_KEYS: &str = "all keys of a result are text";

/// Prints a result: `text`, or `value` as JSON.
pub(super) fn print_result(
    format: Format,
    value: &impl Serialize,
    text: impl FnOnce() -> String,
) -> Result<(), Error> {
    let text = match format {
        Format::Text => text(),
        // A program that reads lines, such as a log collector, needs one document a line.
        Format::Json if io::stdout().is_terminal() => {
            serde_json::to_string_pretty(value).expect(TEXT_KEYS)
        }
        Format::Json => serde_json::to_string(value).expect(TEXT_KEYS),
    };
    print(&text)
}

/// Prints text, followed by a newline unless it ends with one.
pub(super) fn print(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    printed(write!(out, "{text}{newline}").and_then(|()| out.flush()))
}

/// Returns the result of a write to standard output.
pub(super) fn printed(result: io::Result<()>) -> Result<(), Error> {
    match result {
        // The reader of the pipe, such as `head`, has closed it.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|source| Error::Output {
            path: "standard output".to_owned(),
            source,
        }),
    }
}

/// Prints the report of a run, unless [`print_failure`] prints the error of the run as the JSON document.
pub(super) fn print_report(
    format: Format,
    report: &Report,
    result: &Result<(), Error>,
    text: impl FnOnce() -> String,
) -> Result<(), Error> {
    let is_unwritten = matches!(result, Err(Error::Unwritten { .. })) && format == Format::Json;
    if report.outcome == Outcome::Failed || is_unwritten {
        return Ok(());
    }
    print_result(format, report, text)
}

/// Prints the error of a command and returns the exit code. The text is independent of the log filter.
pub(super) fn print_failure(
    error: &Error,
    format: Format,
    log: Format,
    run_id: Option<&str>,
    at: Timestamp,
) -> ExitCode {
    let (message, hint) = (redact_keys(&chain(error)), error.hint());
    let line = match log {
        Format::Text => format!("error: {message}\n hint: {hint}"),
        Format::Json => log_line(error.code(), &message, hint, run_id, at),
    };
    // There is nowhere to report that standard error cannot be written.
    drop(writeln!(io::stderr().lock(), "{line}"));
    // These errors follow a report on standard output, which names them.
    let has_report = matches!(
        error,
        Error::Partial { .. }
            | Error::Interrupted
            | Error::Deadline { .. }
            | Error::Damaged { .. }
            | Error::NotCompared { .. }
    );
    if !has_report {
        print_error_document(error, format);
    }
    ExitCode::from(error.exit_code())
}

/// Returns an error in the format of the JSON log.
fn log_line(code: Code, message: &str, hint: &str, run_id: Option<&str>, at: Timestamp) -> String {
    let fields = json!({"message": message, "code": code, "hint": hint, "run_id": run_id});
    json!({"timestamp": at, "level": "ERROR", "fields": fields}).to_string()
}

/// With `--output json`, prints an error as the document on standard output.
pub(super) fn print_error_document(error: &Error, format: Format) {
    if format == Format::Json {
        print_document(error.code(), &redact_keys(&chain(error)), error.hint());
    }
}

/// Prints a usage error as the JSON document on standard output.
pub(super) fn print_usage_document(error: &clap::Error) {
    print_document(Code::Usage, &usage_message(error), Code::Usage.hint());
}

/// Prints a usage error on standard error, as a line of the JSON log.
pub(super) fn print_usage_line(error: &clap::Error, at: Timestamp) {
    let hint = Code::Usage.hint();
    let line = log_line(Code::Usage, &usage_message(error), hint, None, at);
    // There is nowhere to report that standard error cannot be written.
    drop(writeln!(io::stderr().lock(), "{line}"));
}

/// Returns the message of a usage error in one line.
fn usage_message(error: &clap::Error) -> String {
    let text = redact_keys(&error.render().to_string());
    // The message ends at the first empty line; usage and tips follow.
    let lines = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.is_empty());
    let message = lines.collect::<Vec<_>>().join(" ");
    message.trim_start_matches("error: ").to_owned()
}

/// Replaces each text that looks like an API key by `***`. A usage error repeats what the user typed, and that
/// may be a key in the wrong place.
pub(super) fn redact_keys(text: &str) -> String {
    let mut redacted = String::with_capacity(text.len());
    let is_key_char = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    for word in text.split_inclusive(|c| !is_key_char(c)) {
        let key = word.trim_end_matches(|c| !is_key_char(c));
        let is_key = |kind: &str| key.strip_prefix(kind).is_some_and(|rest| !rest.is_empty());
        if is_key("pat.") || is_key("sat.") {
            redacted.extend(["***", &word[key.len()..]]);
        } else {
            redacted.push_str(word);
        }
    }
    redacted
}

fn print_document(code: Code, message: &str, hint: &str) {
    let value = json!({"error": {"code": code.name(), "message": message, "hint": hint}});
    drop(print(&value.to_string()));
}

/// Returns true if `flag` or `variable` requests JSON. For arguments that clap rejected.
pub(super) fn requests_json(flag: &str, variable: &str) -> bool {
    let args: Vec<OsString> = std::env::args_os().collect();
    let joined = format!("{flag}=json");
    let has_flag = args.iter().any(|arg| *arg == *joined)
        || args
            .windows(2)
            .any(|pair| pair[0] == flag && pair[1] == "json");
    has_flag || std::env::vars_os().any(|(name, value)| name == variable && value == "json")
}

/// Formats rows as a table with aligned columns.
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

/// Formats a number and its noun, whose plural takes an `s`: `1 gap`, `2,000 gaps`.
pub(super) fn count(n: u64, noun: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", HumanCount(n))
}

/// Returns a line about objects that are far from a good size.
pub(super) fn advice(advice: &SizeAdvice) -> String {
    format!("{}; to change it, run: {}\n", advice.problem, advice.repair)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redacts_keys() {
        let text = "error: unexpected argument 'pat.ACC.id.Se-cr_et' found\n  tip: --x=sat.a.b.c.";
        let redacted = "error: unexpected argument '***' found\n  tip: --x=***";
        assert_eq!(redact_keys(text), redacted);
        assert_eq!(
            redact_keys("the path.of a pattern"),
            "the path.of a pattern"
        );
    }

    #[test]
    fn formats_counts() {
        assert_eq!(
            [0, 1, 2_000, 1_234_567].map(|n| count(n, "gap")),
            ["0 gaps", "1 gap", "2,000 gaps", "1,234,567 gaps"]
        );
    }

    #[test]
    fn table_aligns_columns() {
        let rows = [
            vec!["a".to_owned(), "bb".to_owned()],
            vec!["ccc".to_owned(), "d".to_owned()],
        ];
        assert_eq!(table(&rows), "a    bb\nccc  d\n");
    }
}
