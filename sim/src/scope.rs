//! The name of a project.

use std::fmt;

/// One project of one organization. Written `org/project`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope {
    /// `orgIdentifier`.
    pub org: String,
    /// `projectIdentifier`.
    pub project: String,
}

impl Scope {
    /// Names a project of an organization.
    pub fn new(org: impl Into<String>, project: impl Into<String>) -> Self {
        Self {
            org: org.into(),
            project: project.into(),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.org, self.project)
    }
}
