//! The location of a lake as each SQL engine spells it, and the set-up that the engine needs to read it. Pure.

use super::ddl::Engine;

/// An object store, by the scheme of its URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    S3,
    Azure,
    Google,
}

fn scheme(lake: &str) -> Option<Scheme> {
    let (scheme, _) = lake.split_once("://")?;
    match scheme {
        "s3" | "s3a" => Some(Scheme::S3),
        "az" | "abfss" => Some(Scheme::Azure),
        "gs" => Some(Scheme::Google),
        _ => None,
    }
}

/// Splits `abfss://container@account.dfs.core.windows.net/prefix` into container, account and the rest with its slash.
fn split_abfss(lake: &str) -> Option<(&str, &str, &str)> {
    let (container, rest) = lake.strip_prefix("abfss://")?.split_once('@')?;
    let (host, prefix) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (account, _) = host.split_once('.')?;
    Some((container, account, prefix))
}

/// Returns the location as an engine takes it. In `DuckDB` the secret names the account of Azure.
pub(super) fn location(engine: Engine, lake: &str) -> String {
    match (engine, split_abfss(lake)) {
        (Engine::DuckDb, Some((container, _, prefix))) => format!("az://{container}{prefix}"),
        _ => lake.to_owned(),
    }
}

/// Returns comments on the set-up of an engine for a lake; none for a folder. They have no semicolon, so that the
/// statements can be split at semicolons.
pub(super) fn setup(engine: Engine, lake: &str) -> String {
    let Some(scheme) = scheme(lake) else {
        return String::new();
    };
    let account = split_abfss(lake).map_or("ACCOUNT", |(_, account, _)| account);
    match (engine, scheme) {
        (Engine::DuckDb, Scheme::S3) => {
            duckdb("httpfs", "CREATE SECRET (TYPE s3, PROVIDER credential_chain)")
        }
        (Engine::DuckDb, Scheme::Azure) => duckdb(
            "azure",
            &format!(
                "CREATE SECRET (TYPE azure, PROVIDER credential_chain, ACCOUNT_NAME '{account}')"
            ),
        ),
        (Engine::DuckDb, Scheme::Google) => duckdb(
            "httpfs",
            "CREATE SECRET (TYPE gcs, KEY_ID '…', SECRET '…') with an HMAC key of a service account",
        ),
        (Engine::Spark, Scheme::Azure) => "\
            -- Spark reads abfss:// with the package org.apache.hadoop:hadoop-azure and settings such as fs.azure.account.auth.type.\n"
            .to_owned(),
        (Engine::Spark, Scheme::Google) => "\
            -- Spark reads gs:// with the Cloud Storage connector for Hadoop.\n"
            .to_owned(),
        (Engine::Trino, Scheme::Azure) => "\
            -- The catalog needs fs.native-azure.enabled=true and azure.auth-type.\n"
            .to_owned(),
        (Engine::Trino, Scheme::Google) => {
            "-- The catalog needs fs.native-gcs.enabled=true.\n".to_owned()
        }
        (Engine::Spark | Engine::Trino, Scheme::S3) => String::new(),
    }
}

fn duckdb(extension: &str, secret: &str) -> String {
    format!("-- Run INSTALL {extension} and LOAD {extension} first, and\n-- {secret}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABFSS: &str = "abfss://container@account.dfs.core.windows.net";
    const ENGINES: [Engine; 3] = [Engine::DuckDb, Engine::Spark, Engine::Trino];

    #[test]
    fn duckdb_has_another_spelling_of_azure() {
        let nested = format!("{ABFSS}/a/b");
        for (engine, lake, expected) in [
            (Engine::DuckDb, nested.as_str(), "az://container/a/b"),
            (Engine::DuckDb, ABFSS, "az://container"),
            (Engine::DuckDb, "az://container/a", "az://container/a"),
            (Engine::Spark, &nested, &nested),
            (Engine::Trino, &nested, &nested),
        ] {
            assert_eq!(location(engine, lake), expected);
        }
        for lake in ["/lake", "s3://bucket/a@b", "gs://bucket/a"] {
            for engine in ENGINES {
                assert_eq!(location(engine, lake), lake);
            }
        }
    }

    #[test]
    fn setup_names_extension_and_secret() {
        let abfss = format!("{ABFSS}/a");
        for (lake, expected) in [
            (
                "s3://bucket/a",
                "CREATE SECRET (TYPE s3, PROVIDER credential_chain)",
            ),
            (
                "az://container/a",
                "credential_chain, ACCOUNT_NAME 'ACCOUNT')",
            ),
            (
                &abfss,
                "(TYPE azure, PROVIDER credential_chain, ACCOUNT_NAME 'account')",
            ),
            ("gs://bucket/a", "CREATE SECRET (TYPE gcs, KEY_ID"),
        ] {
            let text = setup(Engine::DuckDb, lake);
            assert!(text.contains(expected), "{text}");
        }
        assert!(setup(Engine::DuckDb, "az://container").contains("LOAD azure"));
        assert!(setup(Engine::Spark, &abfss).contains("hadoop-azure"));
        assert!(setup(Engine::Spark, "gs://bucket/a").contains("gs://"));
        assert!(setup(Engine::Trino, &abfss).contains("fs.native-azure.enabled"));
        assert!(setup(Engine::Trino, "gs://bucket").contains("fs.native-gcs.enabled"));
    }

    #[test]
    fn setup_consists_of_comments() {
        for engine in ENGINES {
            assert_eq!(setup(engine, "/lake"), "");
            for lake in ["s3://bucket/a", ABFSS, "az://container", "gs://bucket"] {
                let text = setup(engine, lake);
                assert!(text.lines().all(|line| line.starts_with("-- ")), "{text}");
                assert!(!text.contains(';') && !text.contains("  "), "{text}");
                assert!(text.is_empty() || text.ends_with('\n'), "{text}");
            }
        }
    }
}
