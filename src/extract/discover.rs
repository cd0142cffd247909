//! Lists the organizations and projects that the key can see, and picks those to read.

use futures::StreamExt;
use globset::{Glob, GlobSet, GlobSetBuilder};

use crate::error::Error;
use crate::ids::{OrgId, Scope};
use crate::source::{Client, OrgEntry, ProjectEntry, SourceError};

/// What the key can see.
#[derive(Debug, Default)]
pub struct Discovery {
    /// Organizations.
    pub orgs: Vec<OrgEntry>,
    /// Projects of those that the filter lets pass.
    pub projects: Vec<ProjectEntry>,
    /// Organizations whose projects could not be listed.
    pub unlisted: Vec<Unlisted>,
}

/// An organization whose projects could not be listed: the others are read all the same.
#[derive(Debug)]
pub struct Unlisted {
    /// The organization.
    pub org: OrgId,
    /// Why.
    pub error: SourceError,
}

/// Which scopes a run reads: `--org`, `--project` (`org/project`) and `--exclude`, all globs.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    orgs: Option<GlobSet>,
    projects: Option<GlobSet>,
    /// What `projects` say of organizations; none where they say nothing.
    orgs_of_projects: Option<GlobSet>,
    exclude: Option<GlobSet>,
}

/// A glob that makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("`{glob}` is no glob")]
pub struct GlobError {
    glob: String,
    #[source]
    source: globset::Error,
}

/// Lists everything that the key can see and that may pass `filter`, projects of `concurrency` organizations at a
/// time.
///
/// # Errors
///
/// [`SourceError`] where organizations cannot be listed, and where the key is refused.
pub async fn discover(
    client: &Client,
    filter: &Filter,
    concurrency: usize,
) -> Result<Discovery, SourceError> {
    let orgs = client.orgs().await?;
    let (mut projects, mut unlisted) = (Vec::new(), Vec::new());
    let asked = orgs.iter().filter(|org| filter.may_hold(&org.id));
    let mut lists = futures::stream::iter(asked)
        .map(|org| async { (org.id.clone(), client.projects(&org.id).await) })
        .buffered(concurrency.max(1));
    while let Some((org, listed)) = lists.next().await {
        match listed {
            Ok(some) => projects.extend(some),
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
    /// The scopes that pass `filter`, ordered by organization, then project.
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

    /// The scopes that pass `filter`, of which there must be one.
    ///
    /// # Errors
    ///
    /// [`Error::NoResources`] and [`Error::NothingPasses`] that say what is missing, or why it is not known.
    pub fn require_scopes(mut self, filter: &Filter) -> Result<(Self, Vec<Scope>), Error> {
        let scopes = self.scopes(filter);
        if scopes.is_empty() && !self.unlisted.is_empty() {
            // What may not be read is no reason for what cannot be read.
            let is_other = |one: &Unlisted| !matches!(one.error, SourceError::Forbidden { .. });
            let at = self.unlisted.iter().position(is_other).unwrap_or(0);
            return Err(self.unlisted.swap_remove(at).error.into());
        }
        let asked = self.orgs.iter().filter(|org| filter.may_hold(&org.id));
        let (orgs, asked, projects) = (self.orgs.len(), asked.count(), self.projects.len());
        Err(match (orgs, asked, projects, scopes.len()) {
            (0, ..) => Error::NoResources("no organization can be seen with this key".to_owned()),
            (_, 0, ..) => Error::NothingPasses(format!("{orgs} organizations")),
            (_, _, 0, _) => Error::NoResources(format!(
                "no project of {asked} organizations can be seen with this key"
            )),
            (.., 0) => Error::NothingPasses(format!("{projects} projects")),
            _ => return Ok((self, scopes)),
        })
    }
}

impl Filter {
    /// Compiles the globs; an empty list of `orgs` or `projects` means all.
    ///
    /// # Errors
    ///
    /// [`GlobError`].
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
            // Half of a glob may be none, such as that of `{a/b,c/d}`.
            orgs_of_projects: of_projects.and_then(|globs| set(&globs).ok()?),
            exclude: set(exclude)?,
        })
    }

    /// Whether a project of an organization may pass.
    pub fn may_hold(&self, org: &OrgId) -> bool {
        let org = org.as_str();
        let within = |set: &Option<GlobSet>| set.as_ref().is_none_or(|set| set.is_match(org));
        within(&self.orgs)
            && within(&self.orgs_of_projects)
            && !self.exclude.as_ref().is_some_and(|set| set.is_match(org))
    }

    /// Whether a scope is to be read.
    pub fn passes(&self, scope: &Scope) -> bool {
        let whole = scope.to_string();
        let within =
            |set: &Option<GlobSet>, text: &str| set.as_ref().is_none_or(|set| set.is_match(text));
        let excluded = |set: &GlobSet| set.is_match(scope.org.as_str()) || set.is_match(&whole);
        within(&self.orgs, scope.org.as_str())
            && within(&self.projects, &whole)
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
    fn globs_pick_scopes() {
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
    fn only_organizations_that_may_hold_a_scope_are_asked() {
        let may_hold = |projects: &[&str], exclude: &[&str], org: &str| {
            let globs = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
            let filter = Filter::new(&[], &globs(projects), &globs(exclude)).unwrap();
            filter.may_hold(&OrgId::new(org))
        };
        assert!(may_hold(&["a/web", "b*/*"], &[], "a") && may_hold(&["a/web", "b*/*"], &[], "bc"));
        assert!(!may_hold(&["a/web", "b*/*"], &[], "c"));
        assert!(!may_hold(&[], &["a"], "a") && may_hold(&[], &["a/web"], "a"));
        for any in ["*", "{a/b,c/d}", "**"] {
            assert!(may_hold(&["x/y", any], &[], "c"), "{any}");
        }
    }
}
