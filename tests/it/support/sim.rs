//! A simulated account behind a socket, and the binary connected to it.

use std::collections::HashSet;
use std::process::Command;
use std::sync::Arc;

use harness_sim::{
    Account, AccountSpec, Execution, Faults, Scope, Server, ServerOptions, Truth, Vintage,
};
use jiff::{SignedDuration, Timestamp};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use super::{Lake, Run};

/// The simulated time at the start of every test.
pub(crate) const NOW: &str = "2026-11-24T15:00:00Z";

/// The last part of the key; no output may contain it.
pub(crate) const SECRET: &str = "Zq7wV3nK9xT2mB5r";

/// The age from which `sync` reads executions, because replicas lag.
const WINDOW_LAG: SignedDuration = SignedDuration::from_mins(5);

/// The default lookback of `sync`.
const LOOKBACK: SignedDuration = SignedDuration::from_hours(24);

pub(crate) fn now() -> Timestamp {
    NOW.parse().unwrap()
}

/// A server with its own runtime, so that tests are plain functions.
pub(crate) struct Sim {
    server: Server,
    vintage: Vintage,
    // Dropped last: the server runs on it.
    runtime: Runtime,
}

impl Sim {
    /// Starts the small account on the current server version.
    pub(crate) fn small() -> Self {
        Self::start(&AccountSpec::small(now()), |_| {})
    }

    pub(crate) fn start(spec: &AccountSpec, change: impl FnOnce(&mut ServerOptions)) -> Self {
        let account = Account::generate(spec);
        let mut options = ServerOptions::new(&account);
        options.api_key = format!("pat.{}.tests.{SECRET}", account.id());
        change(&mut options);
        let vintage = options.vintage;
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let server = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            Server::start(account, options, listener).await.unwrap()
        });
        Self {
            server,
            vintage,
            runtime,
        }
    }

    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    pub(crate) fn faults(&self) -> &Faults {
        self.server.faults()
    }

    pub(crate) fn account(&self) -> &Arc<Account> {
        self.server.account()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.server.clock().now()
    }

    pub(crate) fn advance(&self, by: SignedDuration) {
        self.server.clock().advance(by);
    }

    /// Returns the projects that the key may currently read.
    pub(crate) fn readable(&self) -> Vec<Scope> {
        let forbidden = self.account().forbidden_scope();
        let scopes = self.account().scopes_at(self.now());
        scopes
            .into_iter()
            .filter(|scope| Some(scope) != forbidden.as_ref())
            .collect()
    }

    /// Stops the server, so that nothing listens on its port.
    pub(crate) fn stop(self) -> String {
        let url = self.server.base_url().to_owned();
        self.runtime.block_on(self.server.shutdown());
        url
    }

    /// Returns the key of another role: `norights` or `forbidden`.
    pub(crate) fn key_of(&self, role: &str) -> String {
        self.server.api_key().replace(SECRET, role)
    }

    /// Returns the binary's command with only the connection in its environment.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = bare_command(arguments);
        command
            .env("HARNESS_API_KEY", self.server.api_key())
            .env("HARNESS_BASE_URL", self.server.base_url())
            // The simulated server has no limit of its own; rate limiting is tested in `source`.
            .env("HARNESS_LAKE_REQUESTS_PER_MINUTE", "60000");
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        Run::of(self.command(arguments).output().unwrap())
    }

    /// Runs `sync --output json` into a lake.
    pub(crate) fn sync(&self, lake: &Lake, more: &[&str]) -> Run {
        let sync = ["sync", "--output", "json", "--lake", lake.path()];
        self.run(&[&sync, more].concat())
    }

    /// Returns whether a current `sync` would read an execution, if its project is readable.
    fn is_in_window(&self, execution: &Execution) -> bool {
        execution.start_ms() < (self.now() - WINDOW_LAG).as_millisecond()
    }

    /// Returns whether a lake that was just synced contains an execution.
    fn is_read(&self, execution: &Execution) -> bool {
        let scope = self.account().scope_of(execution, self.now());
        self.is_in_window(execution) && Some(scope) != self.account().forbidden_scope()
    }

    /// Fails unless every table and column of the lake matches the account's current state.
    #[track_caller]
    pub(crate) fn assert_truth(&self, lake: &Lake) {
        self.assert_truth_but(lake, &HashSet::new());
    }

    /// Does the same without comparing the rows of some executions; each must exist once.
    #[track_caller]
    pub(crate) fn assert_truth_but(&self, lake: &Lake, but: &HashSet<String>) {
        if let Some(difference) = super::compare(lake.path(), &self.truth(), but) {
            let at = self.now();
            panic!("the lake differs from the truth at {at}:\n{difference}");
        }
    }

    /// Returns the expected rows of a lake that was just synced.
    pub(crate) fn truth(&self) -> Truth {
        self.truth_without(&[])
    }

    /// Returns the same without some executions.
    pub(crate) fn truth_except(&self, ids: &HashSet<String>) -> Truth {
        let is_read =
            |execution: &Execution| self.is_read(execution) && !ids.contains(&execution.id());
        self.account()
            .truth_where(self.now(), self.vintage, is_read)
    }

    /// Returns the same with the forbidden project readable.
    pub(crate) fn truth_of_all(&self) -> Truth {
        let is_read = |execution: &Execution| self.is_in_window(execution);
        self.account()
            .truth_where(self.now(), self.vintage, is_read)
    }

    /// Returns the same with some projects unreadable.
    pub(crate) fn truth_without(&self, unread: &[Scope]) -> Truth {
        let (account, at) = (self.account(), self.now());
        let is_read = |execution: &Execution| {
            self.is_read(execution) && !unread.contains(&account.scope_of(execution, at))
        };
        let truth = account.truth_where(at, self.vintage, is_read);
        assert!(truth.executions.len() > 100, "the truth holds something");
        truth
    }

    /// Returns the readable projects that have executions.
    pub(crate) fn busy(&self) -> Vec<Scope> {
        let (account, at) = (self.account(), self.now());
        let runs = |scope: &Scope| {
            let of_it = |execution: &&Execution| account.scope_of(execution, at) == *scope;
            20 < account.executions_at(at).filter(of_it).count()
        };
        self.readable().into_iter().filter(runs).collect()
    }

    /// Returns the executions whose last edit no run could observe: they had ended when a run at
    /// `before` read them, changed afterwards, and started before the lookback of its watermark.
    pub(crate) fn edited_unseen(&self, before: Timestamp) -> HashSet<String> {
        let looked_back = (before - WINDOW_LAG - LOOKBACK).as_millisecond();
        let had_ended = |execution: &Execution| self.account().is_terminal_at(execution, before);
        self.account()
            .executions_at(self.now())
            .filter(|execution| execution.start_ms() < looked_back)
            .filter(|execution| before.as_millisecond() < execution.last_change_ms())
            .filter(|execution| had_ended(execution))
            .map(Execution::id)
            .collect()
    }

    /// Returns the readable executions whose status is not terminal now.
    pub(crate) fn open_now(&self) -> HashSet<String> {
        let now = self.now();
        let is_open = |execution: &&Execution| !self.account().is_terminal_at(execution, now);
        self.account()
            .executions_at(now)
            .filter(|execution| self.is_read(execution))
            .filter(is_open)
            .map(Execution::id)
            .collect()
    }
}

/// Returns the binary's command with an empty environment.
pub(crate) fn bare_command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_harness-lake"));
    command
        .args(arguments)
        .env_clear()
        .env("NO_PROXY", "127.0.0.1")
        // Most tests name objects by date; `periods.rs` tests months and `auto`.
        .env("HARNESS_LAKE_PERIOD", "day")
        .env("RUST_LOG", "harness_lake=debug");
    command
}
