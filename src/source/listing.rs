//! The lists of orgs and projects: JSON arrays of elements with an identifier, parsed leniently. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::de::Error as _;
use serde_json::{Map, Value};

use crate::ids::{OrgId, ProjectId};
use crate::scan::exact_integer;
use crate::window::{from_ms, is_sound};

use super::http::{DecodeError, Response};
use super::wire::ErrorBody;

/// An organization as `GET /v1/orgs` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrgEntry {
    /// `identifier`.
    pub id: OrgId,
    /// `name`; the identifier if missing.
    pub name: String,
    /// `description`.
    pub description: Option<String>,
    /// `tags`; a tag without a value has an empty one.
    pub tags: BTreeMap<String, String>,
    /// `created`.
    pub created: Option<Timestamp>,
    /// `updated`.
    pub updated: Option<Timestamp>,
    /// `harness_managed`: the default org of the account.
    pub is_harness_managed: bool,
}

/// A project as `GET /v1/orgs/{org}/projects` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectEntry {
    /// The requested organization.
    pub org: OrgId,
    /// `identifier`: unique within the organization.
    pub id: ProjectId,
    /// `name`; the identifier if missing.
    pub name: String,
    /// `description`.
    pub description: Option<String>,
    /// `color`.
    pub color: Option<String>,
    /// `modules`, as spelled.
    pub modules: Vec<String>,
    /// `tags`; a tag without a value has an empty one.
    pub tags: BTreeMap<String, String>,
    /// `created`.
    pub created: Option<Timestamp>,
    /// `updated`.
    pub updated: Option<Timestamp>,
}

/// One page of a list.
#[derive(Debug)]
pub(super) struct ListPage {
    pub(super) elements: Vec<Element>,
    /// Elements without an identifier, which are skipped.
    pub(super) skipped: u64,
    /// Elements received, including skipped ones.
    pub(super) received: usize,
    /// `X-Total-Elements`: elements of all pages.
    pub(super) total: Option<u64>,
}

/// An element with an identifier.
#[derive(Debug)]
pub(super) struct Element {
    pub(super) id: String,
    outer: Map<String, Value>,
    /// The member that describes the org or the project; empty where the element itself does.
    inner: Map<String, Value>,
}

impl ListPage {
    pub(super) fn decode(response: &Response, inner: &str) -> Result<Self, DecodeError> {
        let text = String::from_utf8_lossy(&response.body);
        let elements = match serde_json::from_str(&text)? {
            Value::Array(elements) => elements,
            Value::Object(object) if get(&object, "code").or(get(&object, "status")).is_some() => {
                let body = ErrorBody::read(&response.body).unwrap_or_default();
                return Err(DecodeError::ErrorEnvelope(body));
            }
            _ => return Err(serde_json::Error::custom("not an array").into()),
        };
        let received = elements.len();
        let elements: Vec<_> = elements
            .into_iter()
            .filter_map(|element| Element::read(element, inner))
            .collect();
        Ok(Self {
            skipped: (received - elements.len()) as u64,
            elements,
            received,
            total: response.total,
        })
    }
}

impl Element {
    fn read(element: Value, inner: &str) -> Option<Self> {
        let Value::Object(outer) = element else {
            return None;
        };
        let inner = match get(&outer, inner) {
            Some(Value::Object(inner)) => inner.clone(),
            _ => Map::new(),
        };
        let mut element = Self {
            id: String::new(),
            outer,
            inner,
        };
        // Identifiers contain no slash: it separates org and project in the text of a scope.
        element.id = element.text("identifier").filter(|id| !id.contains('/'))?;
        Some(element)
    }

    pub(super) fn into_org(self) -> OrgEntry {
        OrgEntry {
            name: self.text("name").unwrap_or_else(|| self.id.clone()),
            description: self.text("description"),
            tags: self.tags(),
            created: self.time("created"),
            updated: self.time("updated"),
            is_harness_managed: ["harness_managed", "harnessManaged"]
                .iter()
                .any(|name| self.text(name).is_some_and(|text| text == "true")),
            id: OrgId::new(self.id),
        }
    }

    pub(super) fn into_project(self, org: &OrgId) -> ProjectEntry {
        ProjectEntry {
            org: org.clone(),
            name: self.text("name").unwrap_or_else(|| self.id.clone()),
            description: self.text("description"),
            color: self.text("color"),
            modules: match self.get("modules") {
                Some(Value::Array(modules)) => modules.iter().filter_map(text).collect(),
                _ => Vec::new(),
            },
            tags: self.tags(),
            created: self.time("created"),
            updated: self.time("updated"),
            id: ProjectId::new(self.id),
        }
    }

    fn get(&self, name: &str) -> Option<&Value> {
        get(&self.inner, name).or_else(|| get(&self.outer, name))
    }

    fn text(&self, name: &str) -> Option<String> {
        self.get(name).and_then(text)
    }

    fn time(&self, name: &str) -> Option<Timestamp> {
        let value = self.get(name)?;
        let ms = value
            .as_i64()
            .or_else(|| text(value)?.trim().parse().ok())
            .or_else(|| exact_integer(value.as_f64()?))?;
        is_sound(ms).then(|| from_ms(ms))
    }

    /// Reads tags from a map, or from a list of pairs as other endpoints return them.
    fn tags(&self) -> BTreeMap<String, String> {
        match self.get("tags") {
            Some(Value::Object(tags)) => tags
                .iter()
                .map(|(key, value)| (key.clone(), text(value).unwrap_or_default()))
                .collect(),
            Some(Value::Array(pairs)) => pairs
                .iter()
                .filter_map(Value::as_object)
                .filter_map(|pair| {
                    let value = get(pair, "value").and_then(text).unwrap_or_default();
                    Some((get(pair, "key").and_then(text)?, value))
                })
                .collect(),
            _ => BTreeMap::new(),
        }
    }
}

/// Returns the member of that name, ignoring case; the exact name wins. Null counts as absent.
fn get<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let same = |(key, _): &(&String, &Value)| key.eq_ignore_ascii_case(name);
    let other = || object.iter().find(same).map(|(_, value)| value);
    let value = object.get(name).or_else(other)?;
    (!value.is_null()).then_some(value)
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(bool) => Some(bool.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn decode(body: &'static str, inner: &str) -> Result<ListPage, DecodeError> {
        let response = Response {
            status: 200,
            body: Bytes::from_static(body.as_bytes()),
            total: Some(9),
            observed: Timestamp::UNIX_EPOCH,
            retry_after: std::time::Duration::ZERO,
        };
        ListPage::decode(&response, inner)
    }

    #[test]
    fn org_is_parsed_with_and_without_wrapper() {
        let page = decode(
            r#"[{"org":{"identifier":"default","name":"Default","tags":{"a":"1","b":null,"c":3}},
                 "created":1700000000000,"updated":"1700000000001","harness_managed":true,"new":[]},
                {"identifier":"flat","harnessManaged":null,"created":-1,"description":""},
                {"org":{"name":"nameless"}}, null, {"identifier":"a/b"}]"#,
            "org",
        )
        .unwrap();
        assert_eq!((page.received, page.skipped, page.total), (5, 3, Some(9)));
        let orgs: Vec<_> = page.elements.into_iter().map(Element::into_org).collect();
        let tags = [("a", "1"), ("b", ""), ("c", "3")];
        assert_eq!(
            orgs[0],
            OrgEntry {
                id: OrgId::new("default"),
                name: "Default".to_owned(),
                description: None,
                tags: tags.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
                created: Some(from_ms(1_700_000_000_000)),
                updated: Some(from_ms(1_700_000_000_001)),
                is_harness_managed: true,
            }
        );
        assert_eq!((orgs[1].name.as_str(), orgs[1].created), ("flat", None));
        assert!(!orgs[1].is_harness_managed && orgs[1].description.is_none());
    }

    #[test]
    fn project_belongs_to_the_requested_org() {
        let page = decode(
            r##"[{"project":{"Identifier":"web","org":null,"color":"#0063F7","modules":["CD",null,"NEW"],
                 "tags":[{"key":"team","value":"x"},{"value":"y"}]},"isFavorite":false}]"##,
            "project",
        )
        .unwrap();
        let element = page.elements.into_iter().next().unwrap();
        let project = element.into_project(&OrgId::new("default"));
        assert_eq!(
            (project.org.as_str(), project.id.as_str()),
            ("default", "web")
        );
        assert_eq!(project.modules, ["CD", "NEW"]);
        assert_eq!(project.tags.len(), 1);
        assert_eq!(project.color.as_deref(), Some("#0063F7"));
    }

    #[test]
    fn envelope_instead_of_array_is_an_error() {
        let refused = decode(r#"{"status":"ERROR","code":"X"}"#, "org");
        assert!(matches!(refused, Err(DecodeError::ErrorEnvelope(body)) if body.code == "X"));
        assert!(matches!(
            decode("{}", "org"),
            Err(DecodeError::Malformed(_))
        ));
        assert!(matches!(
            decode("[{", "org"),
            Err(DecodeError::Malformed(_))
        ));
    }
}
