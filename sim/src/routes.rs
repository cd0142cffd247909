//! The responses of the simulated server: a pure function of account, request and time.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::Vintage;
use super::account::{Account, Execution, Origin, is_retained};
use super::filter::{Filter, Mode, Sort};
use super::json::Json;
use super::request::{ApiError, ApiRequest, ApiResponse, Endpoint};
use super::status::is_same_status;
use super::truth::listed;
use crate::scope::Scope;

/// The maximum number of rows that can be paged through.
const ROW_CAP: usize = 10_000;

/// The inputs of a response beside the request.
pub(super) struct Backend<'a> {
    pub(super) account: &'a Account,
    pub(super) vintage: Vintage,
    pub(super) row_cap: bool,
    pub(super) now: Timestamp,
    pub(super) api_key: &'a str,
    pub(super) forbidden: &'a BTreeSet<Scope>,
    pub(super) row_fault: RowFault,
}

/// The effect of a fault on the rows of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum RowFault {
    #[default]
    None,
    /// Every page is the first page.
    FirstPage,
    /// Every page but the first begins one row early.
    OneRowEarly,
    /// Every third row is missing and not counted.
    ThirdsMissing,
    /// A page has at most this many rows.
    SmallPages(usize),
    /// No rows.
    NoRows,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Full,
    NoRights,
    Forbidden,
}

impl Backend<'_> {
    /// Answers a request.
    ///
    /// # Errors
    ///
    /// The error response of the real server.
    pub(super) fn respond(&self, request: &ApiRequest) -> Result<ApiResponse, ApiError> {
        let endpoint = request.endpoint();
        if endpoint == Endpoint::Unknown {
            return Err(ApiError::new(
                404,
                "RESOURCE_NOT_FOUND_EXCEPTION",
                "HTTP 404 Not Found",
            ));
        }
        let role = self.authenticate(request, endpoint)?;
        match endpoint {
            Endpoint::Orgs => self.orgs(request, role),
            Endpoint::Projects => self.projects(request, role),
            Endpoint::Executions => self.executions(request, role),
            Endpoint::Retention => self.retention(request),
            Endpoint::Unknown => unreachable!("rejected above"),
        }
    }

    /// Takes the account from the header, the query or the path, in this order. Then checks that
    /// the key belongs to it.
    fn authenticate(&self, request: &ApiRequest, endpoint: Endpoint) -> Result<Role, ApiError> {
        let segments = request.segments();
        let in_path = segments.last().filter(|_| endpoint == Endpoint::Retention);
        let account = request.account.as_deref();
        let account = account.or_else(|| request.parameter("accountIdentifier"));
        let Some(account) = account.or(in_path.map(String::as_str)) else {
            return Err(ApiError::invalid(
                "Account detail is not present in the request",
            ));
        };
        let key = request.key.as_deref().ok_or_else(ApiError::token)?;
        let named = request.parameter("accountIdentifier").unwrap_or(account);
        let own = self.account.id();
        if account != own || named != own || in_path.is_some_and(|path| path != own) {
            return Err(ApiError::token());
        }
        if request.account.is_none() && matches!(endpoint, Endpoint::Orgs | Endpoint::Projects) {
            return Err(ApiError::invalid("Harness-Account header must not be null"));
        }
        let (stem, _) = self.api_key.rsplit_once('.').unwrap_or((self.api_key, ""));
        match key {
            key if key == self.api_key => Ok(Role::Full),
            key if key == format!("{stem}.norights") => Ok(Role::NoRights),
            key if key == format!("{stem}.forbidden") => Ok(Role::Forbidden),
            _ => Err(ApiError::token()),
        }
    }

    fn orgs(&self, request: &ApiRequest, role: Role) -> Result<ApiResponse, ApiError> {
        request.only(&["page", "limit", "sort", "order", "search_term", "org"])?;
        let wanted: Vec<&str> = request.parameters("org").collect();
        let rows = self
            .account
            .plan
            .orgs
            .iter()
            .filter(|_| role != Role::NoRights);
        let rows = rows
            .filter(|org| wanted.is_empty() || wanted.contains(&org.id.as_str()))
            .map(|org| Row {
                id: &org.id,
                name: &org.name,
                created: org.created,
                updated: org.updated,
                text: Json::object(|json| {
                    json.map("org", |json| {
                        json.str("identifier", &org.id);
                        json.str("name", &org.name);
                        json.str("description", "");
                        json.map("tags", |json| {
                            if org.created % 2 == 0 {
                                json.str("owner", "platform");
                            }
                        });
                    });
                    json.int("created", org.created);
                    json.int("updated", org.updated);
                    json.bool("harness_managed", org.managed);
                }),
            });
        page_of(request, rows.collect())
    }

    fn projects(&self, request: &ApiRequest, role: Role) -> Result<ApiResponse, ApiError> {
        let known = [
            "page",
            "limit",
            "sort",
            "order",
            "search_term",
            "project",
            "has_module",
        ];
        request.only(&known)?;
        let wanted: Vec<&str> = request.parameters("project").collect();
        let segments = request.segments();
        let org = segments.get(2).map_or("", String::as_str);
        let at = self.now.as_millisecond();
        let rows = self.account.plan.projects.iter().filter(|project| {
            role != Role::NoRights
                && self.account.plan.orgs[project.org_at(at)].id == org
                && (wanted.is_empty() || wanted.contains(&project.id.as_str()))
        });
        let rows = rows.map(|project| {
            let moved = project.moves.filter(|(from, _)| *from <= at);
            let updated = moved.map_or(project.updated, |(from, _)| from);
            let text = Json::object(|json| {
                json.map("project", |json| {
                    json.str("identifier", &project.id);
                    json.str("name", &project.name);
                    json.str("org", org);
                    json.str("color", "#0063F7");
                    json.strings("modules", ["CD", "CI", "PMS", "CORE"].map(Some));
                    json.str("description", "Wörter, \"quoted\"");
                    json.map("tags", |json| json.str("tier", "1"));
                });
                json.int("created", project.created);
                json.int("updated", updated);
                if self.vintage == Vintage::Saas {
                    json.bool("isFavorite", false);
                }
            });
            Row {
                id: &project.id,
                name: &project.name,
                created: project.created,
                updated,
                text,
            }
        });
        page_of(request, rows.collect())
    }

    /// Returns six months. Older servers have no such route.
    fn retention(&self, request: &ApiRequest) -> Result<ApiResponse, ApiError> {
        request.only(&["accountIdentifier", "routingId"])?;
        if self.vintage == Vintage::Older {
            return Err(ApiError::new(
                404,
                "RESOURCE_NOT_FOUND_EXCEPTION",
                "HTTP 404 Not Found",
            ));
        }
        Ok(ApiResponse {
            headers: Vec::new(),
            body: Json::object(|json| {
                json.map("metaData", |_| {});
                json.int("resource", 6);
                json.strings("responseMessages", [None::<&str>; 0]);
            }),
        })
    }

    fn executions(&self, request: &ApiRequest, role: Role) -> Result<ApiResponse, ApiError> {
        let mut filter = Filter::parse(request, self.vintage, self.now)?;
        if let RowFault::SmallPages(rows) = self.row_fault {
            filter.size = filter.size.min(rows);
        }
        if role != Role::Full || self.forbidden.contains(&filter.scope) {
            return Err(ApiError::forbidden());
        }
        let end = (filter.page + 1) * filter.size;
        if self.row_cap && self.vintage == Vintage::Saas && end > ROW_CAP {
            return Err(ApiError::invalid(
                "Please add more filters to page through more than 10000 records",
            ));
        }
        let at = self.now.as_millisecond();
        let projects = 0..self.account.plan.projects.len();
        let mut here =
            projects.filter(|project| self.account.scope_at(*project, at) == filter.scope);
        let indexes = match here.next() {
            Some(project) => self.indexes(project, &filter),
            None if self.vintage == Vintage::Older => Vec::new(),
            None => {
                let message = format!("Project {} not found", filter.scope);
                return Err(ApiError::new(404, "RESOURCE_NOT_FOUND_EXCEPTION", message));
            }
        };
        let page = if self.row_fault == RowFault::FirstPage {
            0
        } else {
            filter.page
        };
        let early = usize::from(self.row_fault == RowFault::OneRowEarly && page > 0);
        let from = (page * filter.size - early).min(indexes.len());
        let to = (from + filter.size).min(indexes.len());
        let rows = indexes[from..to].iter().map(|index| {
            let execution = self.account.by_index(*index);
            self.account.render(execution, self.now, self.vintage)
        });
        let rows: Vec<String> = rows.collect();
        let body = envelope(&filter, page, &rows, indexes.len());
        Ok(ApiResponse {
            headers: Vec::new(),
            body,
        })
    }

    /// Returns the indexes of the executions of a project that match a filter, in its order.
    fn indexes(&self, project: usize, filter: &Filter) -> Vec<u32> {
        let all = &self.account.by_project[project];
        let start = |index: &u32| self.account.by_index(*index).start;
        let from = all.partition_point(|index| start(index) < filter.from);
        let to = all.partition_point(|index| start(index) <= filter.to);
        let keep = |index: &&u32| self.matches(self.account.by_index(**index), filter);
        let inside = all.get(from..to).unwrap_or_default();
        let mut indexes: Vec<u32> = inside.iter().filter(keep).copied().collect();
        match filter.sort {
            Sort::Start => {}
            Sort::Name => {
                indexes.sort_by_key(|index| {
                    &self.account.pipeline(self.account.by_index(*index)).name
                });
            }
            Sort::Status => indexes.sort_by_cached_key(|index| {
                self.account
                    .status_at(self.account.by_index(*index), self.now)
            }),
        }
        if filter.descending {
            indexes.reverse();
        }
        indexes
    }

    fn matches(&self, execution: &Execution, filter: &Filter) -> bool {
        let at = self.now.as_millisecond();
        let retried = self.account.executions.get(execution.retried_by as usize);
        let superseded = retried.is_some_and(|retry| retry.created_ms() <= at);
        let mode = match (filter.mode, execution.origin) {
            (Mode::All, _) | (Mode::Rollback, Origin::PipelineRollback { .. }) => true,
            (Mode::Default, Origin::PipelineRollback { .. } | Origin::Child { .. })
            | (Mode::Rollback, _) => false,
            (Mode::Default, _) => true,
        };
        let status = || {
            let word = self.account.status_at(execution, self.now);
            let same = |status: &String| is_same_status(status, word);
            filter.statuses.is_empty() || filter.statuses.iter().any(same)
        };
        is_retained(execution, at)
            && listed(execution, self.vintage)
            && mode
            && (filter.superseded || !superseded)
            && self.row_fault != RowFault::NoRows
            && !(self.row_fault == RowFault::ThirdsMissing && execution.id.0.is_multiple_of(3))
            && filter
                .ids
                .as_ref()
                .is_none_or(|ids| ids.contains(&execution.id))
            && (filter.pipelines.is_empty()
                || filter
                    .pipelines
                    .contains(&self.account.pipeline(execution).id))
            && status()
    }
}

/// One organization or project of a list.
struct Row<'a> {
    id: &'a str,
    name: &'a str,
    created: i64,
    updated: i64,
    text: String,
}

/// Returns one page as a bare array. Unknown sort keys mean last-modified, newest first.
fn page_of(request: &ApiRequest, mut rows: Vec<Row<'_>>) -> Result<ApiResponse, ApiError> {
    let (page, limit) = (request.number("page", 0)?, request.number("limit", 20)?);
    let (Ok(number), 1..=1000) = (usize::try_from(page), limit) else {
        return Err(ApiError::invalid(
            "page must be >= 0 and limit within 1 and 1000",
        ));
    };
    if let Some(term) = request.parameter("search_term").map(str::to_lowercase) {
        rows.retain(|row| {
            row.id.to_lowercase().contains(&term) || row.name.to_lowercase().contains(&term)
        });
    }
    match request.parameter("sort") {
        Some("identifier") => rows.sort_by_key(|row| row.id.to_owned()),
        Some("name") => rows.sort_by_key(|row| row.name.to_owned()),
        Some("created") => rows.sort_by_key(|row| row.created),
        _ => rows.sort_by_key(|row| row.updated),
    }
    if request.parameter("order") != Some("ASC") {
        rows.reverse();
    }
    let size = usize::try_from(limit).unwrap_or(20);
    let texts: Vec<&str> = rows
        .iter()
        .skip(number.saturating_mul(size))
        .take(size)
        .map(|row| row.text.as_str())
        .collect();
    Ok(ApiResponse {
        headers: vec![
            ("x-total-elements", rows.len().to_string()),
            ("x-page-number", page.to_string()),
            ("x-page-size", limit.to_string()),
        ],
        body: format!("[{}]", texts.join(",")),
    })
}

/// Renders a page in the envelope of Spring.
fn envelope(filter: &Filter, page: usize, rows: &[String], total: usize) -> String {
    let int = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    let pages = total.div_ceil(filter.size);
    let sorted = r#"{"sorted":true,"unsorted":false,"empty":false}"#;
    Json::object(|json| {
        json.str("status", "SUCCESS");
        json.map("data", |json| {
            json.raw("content", &format!("[{}]", rows.join(",")));
            json.map("pageable", |json| {
                json.raw("sort", sorted);
                json.int("pageNumber", int(page));
                json.int("pageSize", int(filter.size));
                json.int("offset", int(page * filter.size));
                json.bool("paged", true);
                json.bool("unpaged", false);
            });
            json.int("totalPages", int(pages));
            json.int("totalElements", int(total));
            json.bool("last", pages <= page + 1);
            json.raw("sort", sorted);
            json.bool("first", page == 0);
            json.int("numberOfElements", int(rows.len()));
            json.int("size", int(filter.size));
            json.int("number", int(page));
            json.bool("empty", rows.is_empty());
        });
        json.null("metaData");
        json.str("correlationId", "sim-0000");
    })
}
