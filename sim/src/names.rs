//! Invented names. Like real ones, some contain non-ASCII characters, quotes or line breaks.

/// Organizations beside `default`: identifier, name.
pub(super) const ORGS: &[(&str, &str)] = &[
    ("north_shore", "North Shore"),
    ("Fjaell_Labs", "Fjäll Labs"),
    ("retail$eu", "Retail (EU)"),
    ("data_and_ml", "Data & ML"),
    ("core_infra", "Core \"Infra\""),
];

/// Projects: identifier, name.
pub(super) const PROJECTS: &[(&str, &str)] = &[
    ("web_shop", "Web Shop"),
    ("checkout$core", "Checkout $core"),
    ("Lagerhaltung", "Lagerhaltung für Märkte"),
    ("_sandbox", "Sandbox"),
    ("mobile_apps", "Mobile Apps"),
    ("search$2", "Search 2"),
    ("billing", "Billing / Invoices"),
    ("ml_features", "ML features (特徴量)"),
    ("identity", "Identity"),
    ("Edge_Proxy", "Edge Proxy"),
    ("reporting", "Reporting \"nightly\""),
    ("loyalty", "Loyalty"),
];

/// Services: identifier, name, deployment type.
pub(super) const SERVICES: &[(&str, &str, &str)] = &[
    ("cart", "Cart", "Kubernetes"),
    ("org.pricing", "Pricing", "NativeHelm"),
    ("checkout_api", "Checkout API", "Kubernetes"),
    ("account.mailer", "Mailer", "ServerlessAwsLambda"),
    ("catalogue", "Catálogo", "Kubernetes"),
    ("stock_sync", "Stock sync", "ECS"),
    ("gateway", "Gateway", "Kubernetes"),
];

/// Environments: identifier, name, type, infrastructure identifier, infrastructure name.
pub(super) const ENVIRONMENTS: &[(&str, &str, &str, &str, &str)] = &[
    ("dev", "Dev", "PreProduction", "k8s_dev", "Kubernetes (dev)"),
    (
        "org.staging",
        "Staging",
        "PreProduction",
        "k8s_stage",
        "Kubernetes (staging)",
    ),
    (
        "prod_eu",
        "Prod EU – Zürich",
        "Production",
        "eks_eu",
        "EKS eu-central",
    ),
    (
        "account.prod_us",
        "Prod US",
        "Production",
        "eks_us",
        "EKS us-east",
    ),
];

/// People: name, e-mail.
pub const PEOPLE: &[(&str, &str)] = &[
    ("Ada Nwosu", "ada.nwosu@example.com"),
    ("Jürgen Weiß", "juergen.weiss@example.com"),
    ("李 晓", "li.xiao@example.com"),
    ("Siobhán O'Dea", "siobhan.odea@example.com"),
    ("Marta Kowalska", "marta.kowalska@example.com"),
    ("Tomás \"Tom\" Ruiz", "tomas.ruiz@example.com"),
    ("Priya Raman", "priya.raman@example.com"),
    ("Łukasz Zając", "lukasz.zajac@example.com"),
    ("Noor al-Amin", "noor.alamin@example.com"),
    ("Emil Sørby", "emil.sorby@example.com"),
    ("Chidi Obi", "chidi.obi@example.com"),
    ("Yuki 森", "yuki.mori@example.com"),
];

/// Repositories.
pub(super) const REPOS: &[&str] = &["shop-monorepo", "checkout", "infra-live", "search", "apps"];

/// Branches.
pub(super) const BRANCHES: &[&str] = &[
    "main",
    "main",
    "main",
    "release/2026.4",
    "feature/CHK-118-céder",
    "fix/retry_storm",
    "renovate/all",
    "feature/ünïcode",
];

/// Commit messages and titles.
pub(super) const MESSAGES: &[&str] = &[
    "Fix rounding of totals",
    "Raise the memory limit of the cart pods\n\nThey were killed twice last week.\nSee CHK-118.",
    "Merge pull request #118 from feature/CHK-118-céder",
    "Say \"sold out\" instead of 0",
    "chore(deps): bump the minor group with 7 updates\n\n- a 1.2 -> 1.3\n- b 4.0.1 -> 4.1.0\n",
    "Übersetzungen für die Kasse",
    "WIP 🚧 do not merge",
    "Remove the path C:\\temp\\cache from the build",
    "Tests for the case where a basket is empty\tand the voucher is not",
    "Ändra standardvaluta till SEK",
];

/// Failures: message, failure types. The types are empty if only the detailed messages name one.
pub(super) const FAILURES: &[(&str, &[&str])] = &[
    (
        "Shell Script execution failed. Please check execution logs.",
        &["APPLICATION_ERROR"],
    ),
    (
        "Error: deployment \"cart\" exceeded its progress deadline",
        &["TIMEOUT", "VERIFICATION_FAILURE"],
    ),
    (
        "connection refused: 10.0.4.17:443\nafter 3 attempts",
        &["CONNECTIVITY"],
    ),
    (
        "401 Unauthorized: pull access denied for registry.example.com/cart",
        &["AUTHENTICATION"],
    ),
    ("Tests fehlgeschlagen: 3 von 1.204", &["APPLICATION_ERROR"]),
    ("Delegate is not available", &["DELEGATE_PROVISIONING"]),
    ("3 test suites failed ✗", &[]),
];

/// Triggers: identifier.
pub(super) const TRIGGERS: &[&str] = &["on_push", "nightly_build", "pr_opened", "image_pushed"];

/// Axes of matrix strategies and their values, as JSON texts.
pub(super) const AXES: &[(&str, &[&str])] = &[
    ("os", &["\"linux\"", "\"windows\"", "\"macos\""]),
    ("jdk", &["17", "21", "\"25-ea\""]),
    (
        "region",
        &["\"eu-central-1\"", "\"us-east-1\"", "\"ap-south-1\""],
    ),
    (
        "service",
        &[
            "{\"serviceRef\":\"cart\",\"replicas\":2}",
            "{\"serviceRef\":\"gateway\",\"replicas\":3}",
        ],
    ),
    ("flag", &["true", "false"]),
];
