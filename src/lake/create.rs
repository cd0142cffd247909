//! Checks before a lake is created.

use super::LakeError;
use super::identity::Identity;
use super::layout;
use super::store::Store;

/// Checks that a lake can be created in a store: no other lake contains it, and no data of an earlier
/// lake exists.
///
/// # Errors
///
/// [`LakeError::Identity`], [`LakeError::Nested`].
pub async fn check_can_create(store: &Store) -> Result<(), LakeError> {
    check_not_nested(store)?;
    for folder in [layout::CHECKPOINTS, layout::RAW] {
        // Another run may be creating the lake: it writes the identity first.
        if !store.list(folder).await?.is_empty() && Identity::read(store).await?.is_none() {
            return Err(LakeError::Identity {
                store: store.location().to_owned(),
                reason: format!(
                    "is missing, but {folder} contains objects; restore it from a backup, or choose another location"
                ),
            });
        }
    }
    Ok(())
}

/// Checks that no other lake on the same disk contains a folder: its queries would read our files.
fn check_not_nested(store: &Store) -> Result<(), LakeError> {
    let Some(folder) = store.folder() else {
        return Ok(());
    };
    let existing = folder
        .ancestors()
        .find_map(|parent| parent.canonicalize().ok());
    let is_lake = |parent: &&std::path::Path| parent.join(layout::LAKE).exists();
    match existing
        .iter()
        .flat_map(|existing| existing.ancestors())
        .find(is_lake)
    {
        None => Ok(()),
        Some(outer) => Err(LakeError::Nested {
            store: store.location().to_owned(),
            outer: outer.display().to_string(),
        }),
    }
}
