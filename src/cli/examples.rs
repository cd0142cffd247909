//! The examples at the end of each `--help`. A test parses each of them.

pub(super) const ALL: &str = "\
Examples:
  harness-lake demo                                  sync a simulated account and try queries
  HARNESS_API_KEY=pat.… harness-lake check --lake s3://bucket/harness
  HARNESS_API_KEY=pat.… harness-lake sync --lake ./lake
  harness-lake status --lake ./lake";

pub(super) const CHECK: &str = "\
Examples:
  harness-lake check --api-key-file /etc/harness.key
  harness-lake check --lake s3://bucket/harness      also check write access
  harness-lake check --org payments --output json";

pub(super) const SYNC: &str = "\
Examples:
  harness-lake sync --lake ./lake                    the first run reads 30 days
  harness-lake sync --lake ./lake --start-date 2026-06-01
  harness-lake sync --lake ./lake --lookback 37d     weekly, for late edits
  harness-lake sync --lake ./lake --exclude 'sandbox/*' --deadline 10m --report run.json";

pub(super) const BACKFILL: &str = "\
Examples:
  harness-lake backfill --lake ./lake --from 2026-06-01 --to 2026-11-01
  harness-lake backfill --lake ./lake --from 2026-11-20 --to 2026-11-21 --refetch --org payments";

pub(super) const PLAN: &str = "\
Examples:
  harness-lake plan sync --lake ./lake
  harness-lake plan backfill --lake ./lake --from 2026-01-01 --to 2026-11-01
  harness-lake plan replay --lake ./lake --units 16 --output json";

pub(super) const REPLAY: &str = "\
Examples:
  harness-lake replay --lake ./lake                  rebuild stale and missing tables
  harness-lake replay --lake ./lake --all --from 2026-11-01 --to 2026-12-01
  harness-lake replay --lake ./lake --into s3://bucket/harness";

pub(super) const STATUS: &str = "\
Examples:
  harness-lake status --lake ./lake
  harness-lake status --lake s3://bucket/harness --output json";

pub(super) const VERIFY: &str = "\
Examples:
  harness-lake verify --lake ./lake
  harness-lake verify --lake ./lake --source --from 2026-09-01 --org payments";

pub(super) const SCHEMA: &str = "\
Examples:
  harness-lake schema show executions
  harness-lake schema ddl duckdb --lake ./lake > lake.sql";

pub(super) const COMPLETIONS: &str = "\
Example:
  harness-lake completions bash > /etc/bash_completion.d/harness-lake";

pub(super) const MAN: &str = "\
Example:
  harness-lake man > /usr/local/share/man/man1/harness-lake.1";

#[cfg(feature = "sim")]
pub(super) const DEMO: &str = "\
Examples:
  harness-lake demo
  harness-lake demo --lake /tmp/demo-lake";

#[cfg(feature = "sim")]
pub(super) const SIM: &str = "\
Examples:
  harness-lake sim --port 8080                       prints how to connect a sync to it
  harness-lake sim --executions 100000 --days 90 --seed 7";

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory, Parser};

    use super::super::Cli;

    /// Returns the arguments of an example.
    fn words(line: &str) -> Vec<&str> {
        let (_, command) = line.split_once("harness-lake").unwrap();
        // A comment after blanks and a redirection are not arguments.
        let command = command.split("   ").next().unwrap();
        let command = command.split(" > ").next().unwrap();
        let words = command.split_whitespace();
        std::iter::once("harness-lake").chain(words).collect()
    }

    fn examples(command: &Command) -> Vec<String> {
        let help = command.get_after_help().map(ToString::to_string);
        let help = help.unwrap_or_default();
        let lines = help.lines().filter(|line| line.contains("harness-lake"));
        lines.map(str::to_owned).collect()
    }

    #[test]
    fn every_command_has_valid_examples() {
        let cli = Cli::command();
        for line in examples(&cli) {
            Cli::try_parse_from(words(&line)).unwrap();
        }
        for command in cli.get_subcommands() {
            let lines = examples(command);
            assert!(!lines.is_empty(), "{command}");
            for line in lines {
                let words = words(&line);
                assert_eq!(words[1], command.get_name());
                Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
                // The width at which help is wrapped.
                assert!(line.chars().count() <= 100, "{line}");
            }
        }
    }
}
