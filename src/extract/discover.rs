//! Lists the organizations and projects that the key can see, and picks those to read.

use futures::{StreamExt, TryStreamExt};
use globset::{Glob, GlobSet, GlobSetBuilder};

use crate::error::Error;
use crate::ids::Scope;
use crate::source::{Client, OrgEntry, ProjectEntry, SourceError};

/// What the key can see.
#[derive(Clone, Debug, Default)]
pub struct Discovery {
    /// Organizations.
    pub orgs: Vec<OrgEntry>,
    /// Their projects.
    pub projects: Vec<ProjectEntry>,
}

/// Which scopes a run reads: `--org`, `--project` (`org/project`) and `--exclude`, all globs.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    orgs: Option<GlobSet>,
    projects: Option<GlobSet>,
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

/// Lists everything that the key can see, projects of `concurrency` organizations at a time.
///
/// # Errors
///
/// [`SourceError`] of the first listing that failed: a part of the account says nothing about what
/// it no longer has.
pub async fn discover(client: &Client, concurrency: usize) -> Result<Discovery, SourceError> {
    let orgs = client.orgs().await?;
    let lists: Vec<Vec<ProjectEntry>> = futures::stream::iter(&orgs)
        .map(|org| client.projects(&org.id))
        .buffered(concurrency.max(1))
        .try_collect()
        .await?;
    Ok(Discovery {
        projects: lists.concat(),
        orgs,
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

    /// Refuses to go on with no scope at all.
    ///
    /// # Errors
    ///
    /// [`Error::NoResources`] that says what is missing.
    pub fn refuse_nothing(&self, scopes: &[Scope]) -> Result<(), Error> {
        let text = match (self.orgs.len(), self.projects.len(), scopes.len()) {
            (0, _, _) => "no organization can be seen with this key".to_owned(),
            (orgs, 0, _) => format!("no project of {orgs} organizations can be seen with this key"),
            (_, projects, 0) => {
                format!("none of {projects} projects passes --org, --project and --exclude")
            }
            _ => return Ok(()),
        };
        Err(Error::NoResources(text))
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
        Ok(Self {
            orgs: set(orgs)?,
            projects: set(projects)?,
            exclude: set(exclude)?,
        })
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
}
