//! The tables derived from the checkpoint: `orgs`, `projects` and `scopes`.

use std::collections::BTreeMap;

use arrow_array::RecordBatch;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::columns::columns;
use crate::ids::AccountId;
use crate::schema::Table;

/// An organization, as listed most recently.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OrgRow {
    /// `org.identifier`.
    pub org_id: String,
    /// Display name.
    pub name: Option<String>,
    /// Description.
    pub description: Option<String>,
    /// Tags. Every tag has a value, which may be empty.
    pub tags: BTreeMap<String, String>,
    /// `created`.
    pub created_ts: Option<Timestamp>,
    /// `updated`.
    pub updated_ts: Option<Timestamp>,
    /// `harness_managed`: true if Harness created it.
    pub is_harness_managed: Option<bool>,
    /// When it first disappeared from complete listings; `None` while it is listed.
    pub not_visible_since_ts: Option<Timestamp>,
}

/// A project, as listed most recently.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProjectRow {
    /// `project.org`.
    pub org_id: String,
    /// `project.identifier`.
    pub project_id: String,
    /// Display name.
    pub name: Option<String>,
    /// Description.
    pub description: Option<String>,
    /// Tags. Every tag has a value, which may be empty.
    pub tags: BTreeMap<String, String>,
    /// Color in the Harness UI.
    pub color: Option<String>,
    /// Enabled modules, in the order of the API.
    pub modules: Vec<String>,
    /// `created`.
    pub created_ts: Option<Timestamp>,
    /// `updated`.
    pub updated_ts: Option<Timestamp>,
    /// When it first disappeared from complete listings; `None` while it is listed.
    pub not_visible_since_ts: Option<Timestamp>,
}

/// The coverage and the latest error of a scope.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScopeRow {
    /// The organization.
    pub org_id: String,
    /// The project within it.
    pub project_id: String,
    /// Start of the covered period.
    pub covered_from_ts: Option<Timestamp>,
    /// End of the covered period.
    pub watermark_ts: Option<Timestamp>,
    /// Number of open executions.
    pub open_execution_count: i64,
    /// Number of gaps.
    pub gap_count: i64,
    /// Latest start of any execution observed so far.
    pub last_row_start_ts: Option<Timestamp>,
    /// When the scope was last read without an error.
    pub last_success_ts: Option<Timestamp>,
    /// Code of the latest error; `None` after a success.
    pub last_error_code: Option<String>,
    /// Message of the latest error; `None` after a success.
    pub last_error_message: Option<String>,
}

/// Builds the `orgs` table, with the rows in the given order.
pub fn orgs(account: &AccountId, rows: &[OrgRow]) -> RecordBatch {
    let mut columns = orgs::Orgs::default();
    for row in rows {
        columns.push(account, row);
    }
    columns.finish()
}

/// Builds the `projects` table, with the rows in the given order.
pub fn projects(account: &AccountId, rows: &[ProjectRow]) -> RecordBatch {
    let mut columns = projects::Projects::default();
    for row in rows {
        columns.push(account, row);
    }
    columns.finish()
}

/// Builds the `scopes` table, with the rows in the given order.
pub fn scopes(account: &AccountId, rows: &[ScopeRow]) -> RecordBatch {
    let mut columns = scopes::Scopes::default();
    for row in rows {
        columns.push(account, row);
    }
    columns.finish()
}

/// Returns the text unless it is empty.
fn non_empty(text: Option<&String>) -> Option<&String> {
    text.filter(|text| !text.is_empty())
}

mod orgs {
    use super::{AccountId, OrgRow, Table, columns, non_empty};

    columns! {
        Orgs of Table::Orgs => {
            account_id: Text,
            org_id: Text,
            name: Text,
            description: Text,
            tags: TextMap,
            created_ts: Time,
            updated_ts: Time,
            is_harness_managed: Flag,
            not_visible_since_ts: Time,
        }
    }

    impl Orgs {
        pub(super) fn push(&mut self, account: &AccountId, row: &OrgRow) {
            self.account_id.set(account.as_str());
            self.org_id.set(&row.org_id);
            self.name.push(non_empty(row.name.as_ref()));
            self.description.push(non_empty(row.description.as_ref()));
            self.tags
                .push(row.tags.iter().map(|(key, value)| (key, Some(value))));
            self.created_ts.push(row.created_ts);
            self.updated_ts.push(row.updated_ts);
            self.is_harness_managed.push(row.is_harness_managed);
            self.not_visible_since_ts.push(row.not_visible_since_ts);
        }
    }
}

mod projects {
    use super::{AccountId, ProjectRow, Table, columns, non_empty};

    columns! {
        Projects of Table::Projects => {
            account_id: Text,
            org_id: Text,
            project_id: Text,
            name: Text,
            description: Text,
            tags: TextMap,
            color: Text,
            modules: TextList,
            created_ts: Time,
            updated_ts: Time,
            not_visible_since_ts: Time,
        }
    }

    impl Projects {
        pub(super) fn push(&mut self, account: &AccountId, row: &ProjectRow) {
            self.account_id.set(account.as_str());
            self.org_id.set(&row.org_id);
            self.project_id.set(&row.project_id);
            self.name.push(non_empty(row.name.as_ref()));
            self.description.push(non_empty(row.description.as_ref()));
            self.tags
                .push(row.tags.iter().map(|(key, value)| (key, Some(value))));
            self.color.push(non_empty(row.color.as_ref()));
            self.modules.push(&row.modules);
            self.created_ts.push(row.created_ts);
            self.updated_ts.push(row.updated_ts);
            self.not_visible_since_ts.push(row.not_visible_since_ts);
        }
    }
}

mod scopes {
    use super::{AccountId, ScopeRow, Table, columns, non_empty};

    columns! {
        Scopes of Table::Scopes => {
            account_id: Text,
            org_id: Text,
            project_id: Text,
            covered_from_ts: Time,
            watermark_ts: Time,
            open_execution_count: Int,
            gap_count: Int,
            last_row_start_ts: Time,
            last_success_ts: Time,
            last_error_code: Text,
            last_error_message: Text,
        }
    }

    impl Scopes {
        pub(super) fn push(&mut self, account: &AccountId, row: &ScopeRow) {
            self.account_id.set(account.as_str());
            self.org_id.set(&row.org_id);
            self.project_id.set(&row.project_id);
            self.covered_from_ts.push(row.covered_from_ts);
            self.watermark_ts.push(row.watermark_ts);
            self.open_execution_count.set(row.open_execution_count);
            self.gap_count.set(row.gap_count);
            self.last_row_start_ts.push(row.last_row_start_ts);
            self.last_success_ts.push(row.last_success_ts);
            self.last_error_code
                .push(non_empty(row.last_error_code.as_ref()));
            self.last_error_message
                .push(non_empty(row.last_error_message.as_ref()));
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::Array;
    use arrow_array::cast::AsArray;

    use super::*;

    #[test]
    fn rows_keep_their_order_and_empty_texts_are_null() {
        let account = AccountId::new("acct");
        let org = |org_id: &str| OrgRow {
            org_id: org_id.to_owned(),
            description: Some(String::new()),
            tags: BTreeMap::from([("tier".to_owned(), "gold".to_owned())]),
            created_ts: Some(Timestamp::UNIX_EPOCH),
            ..OrgRow::default()
        };
        let batch = super::orgs(&account, &[org("b"), org("a")]);
        let ids = batch.column_by_name("org_id").unwrap();
        assert_eq!(
            ids.as_string::<i32>().iter().flatten().collect::<Vec<_>>(),
            ["b", "a"]
        );
        assert_eq!(batch.column_by_name("description").unwrap().null_count(), 2);
        assert_eq!(
            super::projects(&account, &[ProjectRow::default()]).num_rows(),
            1
        );
        assert_eq!(super::scopes(&account, &[]).num_rows(), 0);
    }

    #[test]
    fn rows_of_older_checkpoints_are_readable() {
        let row: ProjectRow = serde_json::from_str(r#"{"org_id":"default"}"#).unwrap();
        let json = serde_json::to_string(&row).unwrap();
        assert_eq!(serde_json::from_str::<ProjectRow>(&json).unwrap(), row);
    }
}
