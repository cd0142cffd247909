//! The client of Azure Blob Storage, and the checks of its variables.

use object_store::ClientConfigKey;
use object_store::azure::{AzureConfigKey as Key, MicrosoftAzure, MicrosoftAzureBuilder};

use super::StoreError;
use super::location::{Account, Bucket};
use super::patience::Patience;
use super::variables::{CLIENT_TIMEOUT, Client, check_graphic, check_line, check_url, no_retries};

/// The variable of the storage account.
pub(super) const ACCOUNT: &str = "AZURE_STORAGE_ACCOUNT_NAME";

/// The variable by which Azure App Service and others name their source of tokens.
const IDENTITY_ENDPOINT: &str = "IDENTITY_ENDPOINT";

impl Client for MicrosoftAzure {
    const PREFIX: &'static str = "AZURE_";
    const ERROR_PREFIX: &'static str = "Generic MicrosoftAzure error: ";
    type Key = Key;
    type Builder = MicrosoftAzureBuilder;

    fn key(name: &str) -> Option<Key> {
        if name == IDENTITY_ENDPOINT {
            return Some(Key::MsiEndpoint);
        }
        let is_ours = name.starts_with(Self::PREFIX);
        is_ours.then(|| name.to_ascii_lowercase().parse().ok())?
    }

    fn check(key: Key, value: &str) -> Result<(), String> {
        if key == Key::Client(ClientConfigKey::ProxyCaCertificate) {
            return Ok(());
        }
        check_line(value)?;
        let mistake = match key {
            Key::Endpoint => return check_url(value, "https://account.blob.core.windows.net"),
            Key::AuthorityHost => return check_url(value, "https://login.microsoftonline.com"),
            Key::MsiEndpoint | Key::FabricTokenServiceUrl => {
                return check_url(value, "http://127.0.0.1:41741/msi/token");
            }
            Key::AccountName => return check_account(value),
            Key::AccessKey if !is_base64(value) => "expected the Base64 text of an account key",
            Key::SasKey if !value.contains("sig=") => {
                "expected a shared access signature, which contains `sig=`"
            }
            Key::SasKey | Key::Token | Key::ClientId | Key::AuthorityId => {
                return check_graphic(value);
            }
            _ => return Ok(()),
        };
        Err(mistake.to_owned())
    }

    fn with(builder: MicrosoftAzureBuilder, key: Key, value: &str) -> MicrosoftAzureBuilder {
        builder.with_config(key, value)
    }

    fn at(
        builder: MicrosoftAzureBuilder,
        bucket: &Bucket,
        patience: &Patience,
    ) -> MicrosoftAzureBuilder {
        let builder = builder
            .with_container_name(&bucket.name)
            .with_retry(no_retries())
            .with_http_connector(patience.clone())
            .with_config(Key::Client(ClientConfigKey::Timeout), CLIENT_TIMEOUT);
        match &bucket.account {
            Some(account) => with_account(builder, account),
            None => builder,
        }
    }

    fn require(builder: &MicrosoftAzureBuilder) -> Result<(), StoreError> {
        let is_emulator = builder.get_config_value(&Key::UseEmulator);
        let is_emulator = is_emulator.is_some_and(|value| value != "false");
        if is_emulator || builder.get_config_value(&Key::AccountName).is_some() {
            return Ok(());
        }
        Err(missing_account())
    }

    fn build(builder: MicrosoftAzureBuilder) -> object_store::Result<Self> {
        builder.build()
    }
}

/// Returns the error for `az://container/prefix` without an account.
pub(super) fn missing_account() -> StoreError {
    StoreError::MissingVariable {
        name: ACCOUNT,
        action: "set it to the storage account, or name the account in the location: \
                 abfss://container@account.dfs.core.windows.net/prefix",
    }
}

/// Uses the account of the location, at an endpoint of the variables or at the public one.
fn with_account(builder: MicrosoftAzureBuilder, account: &Account) -> MicrosoftAzureBuilder {
    let builder = builder.with_account(&account.name);
    if builder.get_config_value(&Key::Endpoint).is_some() {
        return builder;
    }
    builder.with_endpoint(format!("https://{}.blob.{}", account.name, account.domain))
}

/// Checks the name of a storage account.
///
/// # Errors
///
/// The reason.
pub(super) fn check_account(name: &str) -> Result<(), String> {
    let is_account_char = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_account = (3..=24).contains(&name.len()) && name.chars().all(is_account_char);
    is_account
        .then_some(())
        .ok_or_else(|| "expected 3 to 24 lowercase letters and digits".to_owned())
}

fn is_base64(value: &str) -> bool {
    let text = value.trim_end_matches('=');
    let is_base64_char = |c: char| c.is_ascii_alphanumeric() || "+/".contains(c);
    value.len().is_multiple_of(4)
        && value.len() - text.len() <= 2
        && text.chars().all(is_base64_char)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::store::variables::error_of;

    const LAKE: &str = "az://container/x";
    const NAMED: (&str, &str) = (ACCOUNT, "account");

    fn error(variables: &[(&str, &str)]) -> Option<String> {
        error_of::<MicrosoftAzure>(LAKE, &[&[NAMED], variables].concat())
    }

    #[test]
    fn unusable_variables_are_named() {
        for (name, value, expected) in [
            (
                "AZURE_STORAGE_ACCOUNT_NAME",
                "My-Account",
                "lowercase letters",
            ),
            ("AZURE_STORAGE_ACCOUNT_KEY", "hunter2!!", "Base64"),
            (
                "AZURE_STORAGE_ACCESS_KEY",
                "hunter2==\n",
                "remove the blanks",
            ),
            ("AZURE_STORAGE_SAS_TOKEN", "sv=1&hunter2", "`sig=`"),
            (
                "AZURE_STORAGE_SAS_KEY",
                "sv=1&sig=hunter2 ",
                "remove the blanks",
            ),
            ("AZURE_STORAGE_SAS_TOKEN", "sig=hunter2&se", "SAS"),
            ("AZURE_STORAGE_ENDPOINT", "azurite:10000", "`azurite:10000`"),
            ("AZURE_ENDPOINT", "https://a/?sig=hunter2", "expected a URL"),
            ("AZURE_AUTHORITY_HOST", "login", "login.microsoftonline.com"),
            ("IDENTITY_ENDPOINT", "127.0.0.1:41741", "expected a URL"),
            ("AZURE_TENANT_ID", "my tenant", "expected ASCII"),
            ("AZURE_STORAGE_TOKEN", "se\u{7}cret", "remove the control"),
            ("AZURE_STORAGE_USE_EMULATOR", "maybe", "maybe"),
            ("AZURE_CREDENTIAL_TYPE", "password", "password"),
            (
                "AZURE_CREDENTIAL_TYPE",
                "sas_token",
                "configuration is missing",
            ),
            ("AZURE_ALLOW_HTTP", "perhaps", "perhaps"),
            ("AZURE_CONNECT_TIMEOUT", "soon", "soon"),
            ("AZURE_STORAGE_ENCRYPTION_KEY", "short", "ncryption key"),
        ] {
            let message = error(&[(name, value)]).unwrap_or_default();
            assert!(
                message.starts_with(&format!("invalid {name}: ")),
                "{name}={value}: {message}"
            );
            assert!(message.contains(expected), "{name}={value}: {message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn account_comes_from_the_variable_or_the_location() {
        let missing = error_of::<MicrosoftAzure>(LAKE, &[]).unwrap();
        assert!(
            missing.starts_with("AZURE_STORAGE_ACCOUNT_NAME is not set"),
            "{missing}"
        );
        let url = "abfss://container@account.dfs.core.windows.net/x";
        assert_eq!(error_of::<MicrosoftAzure>(url, &[]), None);
        assert_eq!(error(&[]), None);
        let emulator = [("AZURE_STORAGE_USE_EMULATOR", "true")];
        assert_eq!(error_of::<MicrosoftAzure>(LAKE, &emulator), None);
    }

    #[test]
    fn location_sets_the_endpoint_of_its_cloud() {
        let account = Account {
            name: "other".to_owned(),
            domain: "core.chinacloudapi.cn".to_owned(),
        };
        let endpoint = |builder| with_account(builder, &account).get_config_value(&Key::Endpoint);
        let public = endpoint(MicrosoftAzureBuilder::new().with_account("account"));
        let expected = "https://other.blob.core.chinacloudapi.cn";
        assert_eq!(public.as_deref(), Some(expected));
        let private = "https://private.example";
        let builder = MicrosoftAzureBuilder::new().with_endpoint(private.to_owned());
        assert_eq!(endpoint(builder).as_deref(), Some(private));
    }

    #[test]
    fn usual_variables_are_accepted() {
        for variables in [
            &[("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0IGtleQ==")][..],
            &[(
                "AZURE_STORAGE_SAS_TOKEN",
                "?sv=2023-11-03&sp=rwdl&sig=a%2Bb%3D",
            )],
            &[
                ("AZURE_CLIENT_ID", "11111111-2222-3333-4444-555555555555"),
                ("AZURE_TENANT_ID", "11111111-2222-3333-4444-555555555555"),
                (
                    "AZURE_FEDERATED_TOKEN_FILE",
                    "/var/run/secrets/azure/tokens/azure-identity-token",
                ),
                ("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.com/"),
            ],
            &[
                ("AZURE_CLIENT_ID", "id"),
                ("AZURE_TENANT_ID", "tenant"),
                ("AZURE_CLIENT_SECRET", "a~b.c-d"),
            ],
            &[("IDENTITY_ENDPOINT", "http://localhost:41741/msi/token")],
            &[
                (
                    "AZURE_STORAGE_ENDPOINT",
                    "http://127.0.0.1:10000/devstoreaccount1",
                ),
                ("AZURE_ALLOW_HTTP", "true"),
                ("AZURE_STORAGE_ACCOUNT_KEY", ""),
                ("AZURE_CONFIG_DIR", "any text\n"),
            ],
        ] {
            assert_eq!(error(variables), None, "{variables:?}");
        }
    }
}
