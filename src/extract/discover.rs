//! Lists the organizations and projects that the key can see, and selects those to read.

use futures::StreamExt;
use globset::{Glob, GlobSet, GlobSetBuilder};

use crate::ids::{OrgId, Scope};
use crate::source::{Client, OrgEntry, ProjectEntry, SourceError};

/// The organizations and projects that the key can see.
#[derive(Debug, Default)]
pub struct Discovery {
    /// Organizations.
    pub orgs: Vec<OrgEntry>,
    /// Projects of the organizations that pass the filter.
    pub projects: Vec<ProjectEntry>,
    /// Organizations whose projects could not be listed.
    pub unlisted: Vec<Unlisted>,
}

/// An organization whose projects could not be listed. The others are read.
#[derive(Debug)]
pub struct Unlisted {
    /// The organization.
    pub org: OrgId,
    /// The failure.
    pub error: SourceError,
}

/// The filter of scopes: globs of `--org`, `--project` (`org/project`) and `--exclude`.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    orgs: Option<GlobSet>,
    projects: Option<GlobSet>,
    /// The organization part of each glob in `projects`; `None` if a glob does not have one.
    orgs_of_projects: Option<GlobSet>,
    exclude: Option<GlobSet>,
}

/// A glob with invalid syntax.
#[derive(Debug, thiserror::Error)]
#[error("invalid glob `{glob}`")]
pub struct GlobError {
    glob: String,
    #[source]
    source: globset::Error,
}

/// The reason why there is no scope to read.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// The projects could not be listed.
    #[error(transparent)]
    Source(SourceError),
    /// The key can see no organization.
    #[error("no organization is visible to this key")]
    NoOrganizations,
    /// The key can see no project of the organizations that pass the filter.
    #[error("no project of {organizations} organizations is visible to this key")]
    NoProjects {
        /// Organizations that pass the filter.
        organizations: usize,
    },
    /// No organization passes the filter.
    #[error("none of {organizations} organizations matches --org, --project and --exclude")]
    NoOrganizationMatches {
        /// Visible organizations.
        organizations: usize,
    },
    /// No project passes the filter.
    #[error("none of {projects} projects matches --org, --project and --exclude")]
    NoProjectMatches {
        /// Visible projects.
        projects: usize,
    },
}

/// Lists organizations, and the projects of those that pass `filter`: `concurrency` organizations at a time.
///
/// # Errors
///
/// [`SourceError`] if organizations cannot be listed, or if the key is rejected.
pub async fn discover(
    client: &Client,
    filter: &Filter,
    concurrency: usize,
) -> Result<Discovery, SourceError> {
    let orgs = client.orgs().await?;
    let (mut projects, mut unlisted) = (Vec::new(), Vec::new());
    let matching = orgs.iter().filter(|org| filter.passes_org(&org.id));
    let mut lists = futures::stream::iter(matching)
        .map(|org| async { (org.id.clone(), client.projects(&org.id).await) })
        .buffered(concurrency.max(1));
    while let Some((org, listed)) = lists.next().await {
        match listed {
            Ok(listed) => projects.extend(listed),
            Err(error) if error.is_unauthorized() => return Err(error),
            Err(error) => unlisted.push(Unlisted { org, error }),
        }
    }
    drop(lists);
    Ok(Discovery {
        orgs,
        projects,
        unlisted,
    })
}

impl Discovery {
    /// Returns the scopes that pass `filter`, ordered by organization, then project.
    pub fn scopes(&self, filter: &Filter) -> Vec<Scope> {
        let mut scopes: Vec<Scope> = self
            .projects
            .iter()
            .map(|project| Scope {
                org: project.org.clone(),
                project: project.id.clone(),
            })
            .filter(|scope| filter.passes(scope))
            .collect();
        scopes.sort();
        scopes.dedup();
        scopes
    }

    /// Returns the scopes that pass `filter`, at least one.
    ///
    /// # Errors
    ///
    /// [`DiscoverError`] if there is none.
    pub fn require_scopes(mut self, filter: &Filter) -> Result<(Self, Vec<Scope>), DiscoverError> {
        let scopes = self.scopes(filter);
        if !scopes.is_empty() {
            return Ok((self, scopes));
        }
        if !self.unlisted.is_empty() {
            // A failure explains more than a missing permission does.
            let is_failure = |one: &Unlisted| !matches!(one.error, SourceError::Forbidden { .. });
            let at = self.unlisted.iter().position(is_failure).unwrap_or(0);
            return Err(DiscoverError::Source(self.unlisted.swap_remove(at).error));
        }
        let matching = self.orgs.iter().filter(|org| filter.passes_org(&org.id));
        Err(
            match (self.orgs.len(), matching.count(), self.projects.len()) {
                (0, ..) => DiscoverError::NoOrganizations,
                (organizations, 0, _) => DiscoverError::NoOrganizationMatches { organizations },
                (_, organizations, 0) => DiscoverError::NoProjects { organizations },
                (.., projects) => DiscoverError::NoProjectMatches { projects },
            },
        )
    }
}

impl Filter {
    /// Compiles the globs; an empty list of `orgs` or `projects` matches all.
    ///
    /// # Errors
    ///
    /// [`GlobError`] if a glob has invalid syntax.
    pub fn new(
        orgs: &[String],
        projects: &[String],
        exclude: &[String],
    ) -> Result<Self, GlobError> {
        let of_project = |glob: &String| Some(glob.split_once('/')?.0.to_owned());
        let of_projects: Option<Vec<_>> = projects.iter().map(of_project).collect();
        Ok(Self {
            orgs: set(orgs)?,
            projects: set(projects)?,
            // Half of a glob may be invalid, such as that of `{a/b,c/d}`.
            orgs_of_projects: of_projects.and_then(|globs| set(&globs).ok()?),
            exclude: set(exclude)?,
        })
    }

    /// Returns whether a project of an organization may pass.
    pub fn passes_org(&self, org: &OrgId) -> bool {
        let org = org.as_str();
        let within = |set: &Option<GlobSet>| set.as_ref().is_none_or(|set| set.is_match(org));
        within(&self.orgs)
            && within(&self.orgs_of_projects)
            && !self.exclude.as_ref().is_some_and(|set| set.is_match(org))
    }

    /// Returns whether a scope passes.
    pub fn passes(&self, scope: &Scope) -> bool {
        let name = scope.to_string();
        let within =
            |set: &Option<GlobSet>, text: &str| set.as_ref().is_none_or(|set| set.is_match(text));
        let excluded = |set: &GlobSet| set.is_match(scope.org.as_str()) || set.is_match(&name);
        within(&self.orgs, scope.org.as_str())
            && within(&self.projects, &name)
            && !self.exclude.as_ref().is_some_and(excluded)
    }
}

fn set(globs: &[String]) -> Result<Option<GlobSet>, GlobError> {
    if globs.is_empty() {
        return Ok(None);
    }
    let fail = |glob: &String, source| GlobError {
        glob: glob.clone(),
        source,
    };
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        set.add(Glob::new(glob).map_err(|source| fail(glob, source))?);
    }
    set.build()
        .map(Some)
        .map_err(|source| fail(&globs.join(", "), source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_select_scopes() {
        let globs = |list: &[&str]| {
            list.iter()
                .map(|glob| (*glob).to_owned())
                .collect::<Vec<_>>()
        };
        let passes = |orgs: &[&str], projects: &[&str], exclude: &[&str], scope: &str| {
            Filter::new(&globs(orgs), &globs(projects), &globs(exclude))
                .unwrap()
                .passes(&Scope::parse(scope).unwrap())
        };
        assert!(passes(&[], &[], &[], "a/b"));
        assert!(passes(&["a*"], &[], &[], "ab/c") && !passes(&["a*"], &[], &[], "b/c"));
        assert!(passes(&[], &["*/web"], &[], "a/web") && !passes(&[], &["*/web"], &[], "a/api"));
        assert!(!passes(&[], &[], &["a"], "a/b") && !passes(&[], &[], &["a/b"], "a/b"));
        assert!(passes(&[], &[], &["a/c"], "a/b"));
        assert!(Filter::new(&globs(&["a["]), &[], &[]).is_err());
    }

    #[test]
    fn only_organizations_that_may_pass_are_listed() {
        let passes_org = |projects: &[&str], exclude: &[&str], org: &str| {
            let globs = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
            let filter = Filter::new(&[], &globs(projects), &globs(exclude)).unwrap();
            filter.passes_org(&OrgId::new(org))
        };
        assert!(
            passes_org(&["a/web", "b*/*"], &[], "a") && passes_org(&["a/web", "b*/*"], &[], "bc")
        );
        assert!(!passes_org(&["a/web", "b*/*"], &[], "c"));
        assert!(!passes_org(&[], &["a"], "a") && passes_org(&[], &["a/web"], "a"));
        for any in ["*", "{a/b,c/d}", "**"] {
            assert!(passes_org(&["x/y", any], &[], "c"), "{any}");
        }
    }
}
