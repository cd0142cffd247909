use super::*;

fn error(text: &str) -> String {
    Location::parse(text).unwrap_err().to_string()
}

fn bucket(text: &str) -> Bucket {
    match Location::parse(text).unwrap() {
        Location::Bucket(bucket) => bucket,
        Location::Folder(folder) => panic!("{text} is the folder {}", folder.display()),
    }
}

#[test]
fn locations_of_every_store_are_parsed() {
    let account = |domain: &str| {
        Some(Account {
            name: "account".to_owned(),
            domain: domain.to_owned(),
        })
    };
    let abfss = "abfss://container@account.dfs.core.windows.net";
    let china = "abfss://container@account.dfs.core.chinacloudapi.cn/a";
    for (text, provider, name, expected, prefix) in [
        (
            "s3://my.bucket_1/a/b",
            Provider::S3,
            "my.bucket_1",
            None,
            "a/b",
        ),
        ("s3a://bucket", Provider::S3, "bucket", None, ""),
        (
            "gs://my.bucket_1/a/b/",
            Provider::Google,
            "my.bucket_1",
            None,
            "a/b",
        ),
        (
            "az://container/a/b",
            Provider::Azure,
            "container",
            None,
            "a/b",
        ),
        (
            abfss,
            Provider::Azure,
            "container",
            account("core.windows.net"),
            "",
        ),
        (
            china,
            Provider::Azure,
            "container",
            account("core.chinacloudapi.cn"),
            "a",
        ),
    ] {
        let bucket = bucket(text);
        assert_eq!((bucket.provider, &*bucket.name), (provider, name), "{text}");
        assert_eq!(bucket.account, expected, "{text}");
        assert_eq!(bucket.prefix.as_ref(), prefix, "{text}");
        assert_eq!(bucket.url, text.trim_end_matches('/'));
    }
}

#[test]
fn account_completes_a_location_of_azure() {
    let abfss = "abfss://container@account.dfs.core.windows.net/a/b";
    let with = |text| with_account(text, Some("account")).unwrap();
    assert_eq!(with("az://container/a/b/"), abfss);
    assert_eq!(
        with("az://container"),
        "abfss://container@account.dfs.core.windows.net"
    );
    for text in [
        "s3://bucket/x",
        "gs://bucket/x",
        "/lake",
        "abfss://other@other.dfs.core.windows.net/x",
    ] {
        assert_eq!(with(text), text);
    }
    for (account, expected) in [
        (None, "AZURE_STORAGE_ACCOUNT_NAME is not set"),
        (Some(""), "AZURE_STORAGE_ACCOUNT_NAME is not set"),
        (Some("a/b"), "invalid AZURE_STORAGE_ACCOUNT_NAME"),
    ] {
        let message = with_account("az://container/a", account)
            .unwrap_err()
            .to_string();
        assert!(message.starts_with(expected), "{message}");
    }
}

#[test]
fn misspelled_urls_are_no_folders() {
    for (text, expected) in [
        ("s3:/b/x", "`s3://b/x`"),
        ("s3:b/x", "`s3://b/x`"),
        ("s3:///b/x", "s3://bucket/prefix"),
        ("s3//b/x", "`s3://b/x`"),
        ("S3://b/x", "`s3://b/x`"),
        ("S3a:/b/x", "`s3a://b/x`"),
        ("file:/x/y", "`file:///x/y` or `/x/y`"),
        ("file:x/y", "`x/y`"),
        ("File:///x", "`file:///x` or `/x`"),
        ("file:///x#1", "percent-encode"),
        ("gs:/b/x", "`gs://b/x`"),
        ("GS:/b/x", "`gs://b/x`"),
        ("gcs://b/x", "`gs://b/x`"),
        ("gs//b/x", "`gs://b/x`"),
        ("gs://b:80/x", "gs://bucket/prefix"),
        ("az:b/x", "`az://b/x`"),
        ("azure://b/x", "`az://b/x`"),
        ("AZ://b/x", "`az://b/x`"),
        (
            "az://account.blob.core.windows.net/b/x",
            "az://container/prefix",
        ),
        ("az://Container/x", "az://container/prefix"),
        ("az://c1/x", "az://container/prefix"),
        ("abfs://b/x", "`abfss://b/x`"),
        (
            "abfss://b/x",
            "abfss://container@account.dfs.core.windows.net/prefix",
        ),
        ("abfss://b@account/x", "abfss://container@account.dfs"),
        (
            "abfss://b@account.blob.core.windows.net/x",
            "abfss://container@account.dfs",
        ),
        (
            "abfss://b@account.dfs.core.windows.net:80/x",
            "abfss://container@account.dfs",
        ),
        ("wasbs://b/x", EXPECTED),
        ("hdfs:x", "`./hdfs:x`"),
        ("C:\\lake", EXPECTED),
        ("s3://minio:9000/b/x", "s3://bucket/prefix"),
        (" s3://b/x", "without blanks"),
        ("s3://b/x\n", "without blanks"),
        ("./lake ", "without blanks"),
    ] {
        let message = error(text);
        // The container could be a user.
        let shown = text.replace("b@", "…@");
        let start = format!("invalid lake location `{shown}`: expected ");
        assert!(message.starts_with(&start), "{message}");
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn paths_with_colons_are_folders() {
    for text in ["./s3:/b", "/data/s3:/b", "2026-11-24T10:00/lake", "a/b:c"] {
        let location = Location::parse(text).unwrap();
        assert!(matches!(location, Location::Folder(_)), "{text}");
    }
    let root = Location::parse("file:///a%20b").unwrap();
    assert_eq!(root, Location::Folder(PathBuf::from("/a b")));
}

#[test]
fn prefix_is_literal() {
    for prefix in ["a%20b", "a b", "ü/~{x}", "a@b"] {
        let text = format!("s3://b/{prefix}");
        assert_eq!(bucket(&text).prefix.as_ref(), prefix);
        assert_eq!(normalized(&format!("{text}/")).unwrap(), text);
    }
    for prefix in ["/x", "a//b", "a/../b", "./a", "a\tb"] {
        assert!(error(&format!("s3://b/{prefix}")).contains("expected a prefix"));
    }
}

#[test]
fn credentials_are_not_printed() {
    for text in [
        "hdfs://id:secret@b/x",
        "gs:/id:secret@b/x",
        "S3:/id:secret@b/x",
        "s3//id:secret@b/x",
    ] {
        let message = error(text);
        assert!(
            message.contains("…@b/x") && !message.contains("secret"),
            "{message}"
        );
    }
    for text in [
        "s3://id:secret@b/x",
        "gs://id:secret@b/x",
        "az://id:secret@b/x",
        "abfss://id:secret@account.dfs.core.windows.net/x",
        "abfss://b@secret@account.dfs.core.windows.net/x",
        "az://b/x?sv=1&sig=secret",
    ] {
        let message = error(text);
        assert!(message.contains("takes no `?`, `#` or user"), "{message}");
        assert!(!message.contains("secret"), "{message}");
    }
    assert!(error("gs://a:b@c").contains("GOOGLE_APPLICATION_CREDENTIALS"));
}
