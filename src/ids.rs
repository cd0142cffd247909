//! Newtypes for Harness identifiers, so that they cannot be confused.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Wraps an identifier as the API spells it.
            pub fn new(id: impl Into<Arc<str>>) -> Self {
                Self(id.into())
            }

            /// Returns the identifier as the API spells it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer).map(Self::new)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )+};
}

id! {
    /// `accountIdentifier`: one Harness account, and with it one lake.
    AccountId,
    /// `orgIdentifier`: unique within one account.
    OrgId,
    /// `projectIdentifier`: unique within one organization, not within the account.
    ProjectId,
    /// `planExecutionId`: one run of one pipeline; the primary key of `executions`.
    PlanExecutionId,
}

/// A project of an organization: the unit of fan-out and of failure.
///
/// Ordered by org, then project, which is the order of rows in the lake. Written `org/project`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope {
    /// The organization.
    pub org: OrgId,
    /// The project within it.
    pub project: ProjectId,
}

impl Scope {
    /// Returns the scope of a project.
    pub fn new(org: impl Into<Arc<str>>, project: impl Into<Arc<str>>) -> Self {
        Self {
            org: OrgId::new(org),
            project: ProjectId::new(project),
        }
    }

    /// Parses `org/project`; `None` without exactly one slash. Harness identifiers contain no slash.
    pub fn parse(text: &str) -> Option<Self> {
        let (org, project) = text.split_once('/')?;
        (!org.is_empty() && !project.is_empty() && !project.contains('/'))
            .then(|| Self::new(org, project))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.org, self.project)
    }
}

impl Serialize for Scope {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("expected `org/project`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scope_round_trips_through_text() {
        let scope = Scope::new("default", "web$1");
        assert_eq!(Scope::parse(&scope.to_string()), Some(scope.clone()));
        assert_eq!(
            serde_json::from_str::<Scope>("\"default/web$1\"").unwrap(),
            scope
        );
    }

    #[test]
    fn scope_requires_exactly_two_parts() {
        for text in ["", "default", "default/", "/web", "a/b/c"] {
            assert_eq!(Scope::parse(text), None, "{text}");
        }
    }
}
