//! The keys that mean persons, the keys that do not, and the objects whose keys are names.

/// The length of the longest key that a rule matches, without underscores.
pub(super) const LONGEST: usize = 96;

/// The meaning of a value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Keys decide what values mean.
    Plain,
    /// Every value identifies a person.
    Person,
    /// Keys are names of things, values are plain.
    Named,
}

impl Meaning {
    /// Returns the meaning of the value of `key` in an object of this meaning.
    pub(super) fn of_member(self, key: &str) -> Self {
        let mut buffer = [0; LONGEST];
        let Some(name) = folded(key, &mut buffer) else {
            return if self == Self::Person {
                self
            } else {
                Self::Plain
            };
        };
        match self {
            Self::Person if !is_impersonal(name) => Self::Person,
            Self::Plain if is_person(name) => Self::Person,
            Self::Plain if has_names_for_keys(name) => Self::Named,
            _ => Self::Plain,
        }
    }
}

/// Returns a key in lower case without underscores and hyphens; `None` if it is too long for any rule.
pub(super) fn folded<'a>(key: &str, buffer: &'a mut [u8; LONGEST]) -> Option<&'a str> {
    let mut length = 0;
    for byte in key.bytes().filter(|byte| !matches!(byte, b'_' | b'-')) {
        *buffer.get_mut(length)? = byte.to_ascii_lowercase();
        length += 1;
    }
    std::str::from_utf8(&buffer[..length]).ok()
}

/// Returns whether the values of a key are persons or identify one (`triggeredBy`, `approvers`, `email`), or
/// are payloads of webhooks, which contain many.
pub(super) fn is_person(name: &str) -> bool {
    const NAMES: [&str; 42] = [
        "admins",
        "approver",
        "approvers",
        "assignee",
        "assignees",
        "author",
        "authorid",
        "authorlogin",
        "authorname",
        "authors",
        "avatar",
        "avatarurl",
        "collaborators",
        "currentuser",
        "committer",
        "committername",
        "committers",
        "emailid",
        "emailaddress",
        "firstname",
        "fullname",
        "gituser",
        "jsonpayload",
        "lastname",
        "login",
        "manualissuer",
        "nickname",
        "owner",
        "ownerid",
        "ownerlogin",
        "ownername",
        "owners",
        "pusher",
        "requester",
        "reviewer",
        "reviewers",
        "sender",
        "triggerpayload",
        "user",
        "userinfo",
        "userlogin",
        "users",
    ];
    const ENDINGS: [&str; 9] = [
        "edby",
        "edbyname",
        "edbyuser",
        "email",
        "emails",
        "userid",
        "userids",
        "username",
        "usernames",
    ];
    NAMES.contains(&name) || ENDINGS.iter().any(|end| name.ends_with(end))
}

/// Returns whether a key inside a person is not personal: times, types, the trigger of a pipeline.
fn is_impersonal(name: &str) -> bool {
    const NAMES: [&str; 16] = [
        "recast",
        "action",
        "approvedat",
        "createdat",
        "eventcorrelationid",
        "executiontriggertagneededforabort",
        "issuetime",
        "lastupdatedat",
        "status",
        "timestamp",
        "triggeredat",
        "triggeridentifier",
        "triggername",
        "triggerref",
        "type",
        "updatedat",
    ];
    NAMES.contains(&name)
}

/// Returns whether the keys of this key's objects are names.
pub(super) fn has_names_for_keys(name: &str) -> bool {
    const NAMES: [&str; 6] = [
        "dependencygraph",
        "labels",
        "layoutnodemap",
        "matrixvalues",
        "stagesexecutednames",
        "tags",
    ];
    NAMES.contains(&name)
}

/// Returns the e-mail address that makes up an entire text: bare, in quotes or brackets, or as `mailto:`.
pub(super) fn email(text: &str) -> Option<&str> {
    let is_around = |c: char| c.is_whitespace() || "\"'<>".contains(c);
    let inner = text.trim_matches(is_around);
    let address = match inner.split_at_checked("mailto:".len()) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("mailto:") => rest,
        _ => inner,
    };
    is_email(address).then_some(address)
}

fn is_email(address: &str) -> bool {
    let Some((local, domain)) = address.split_once('@') else {
        return false;
    };
    let is_local = |c: char| c.is_alphanumeric() || "._%+-'".contains(c);
    let is_label =
        |label: &str| !label.is_empty() && label.chars().all(|c| c.is_alphanumeric() || c == '-');
    let Some((rest, last)) = domain.rsplit_once('.') else {
        return false;
    };
    !local.is_empty()
        && local.chars().all(is_local)
        && rest.split('.').all(is_label)
        && last.len() >= 2
        && last.chars().all(char::is_alphabetic)
}
