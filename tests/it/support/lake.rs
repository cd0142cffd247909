//! A lake in a temporary folder, and the properties of its objects.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tempfile::TempDir;

/// A folder for a lake, deleted at the end.
pub(crate) struct Lake {
    folder: TempDir,
    path: String,
}

/// The properties that identify a version of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    inode: u64,
    modified: (i64, i64),
    content: u64,
}

impl Lake {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("lake").to_str().unwrap().to_owned();
        Self { folder, path }
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Returns a path beside the lake.
    pub(crate) fn beside(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// Returns a glob over the objects of a table.
    pub(crate) fn table(&self, name: &str) -> String {
        format!(
            "read_parquet('{}/{name}/v1/**/*.parquet', hive_partitioning = true)",
            self.path
        )
    }

    /// Returns every file of the lake by relative path.
    pub(crate) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        each_file(Path::new(&self.path), &mut |path| {
            files.insert(self.within(path), fs::read(path).unwrap());
        });
        files
    }

    /// Returns the objects of all tables and raw partitions except `scopes`, which changes every run.
    pub(crate) fn data_objects(&self) -> BTreeMap<String, Stamp> {
        let mut objects = BTreeMap::new();
        each_file(Path::new(&self.path), &mut |path| {
            let name = self.within(path);
            let is_data = !["_state/", "_runs/", "_views/", "scopes/"]
                .iter()
                .any(|folder| name.starts_with(folder));
            if is_data {
                objects.insert(name, stamp(path));
            }
        });
        objects
    }

    /// Returns the numbered records of the checkpoint.
    pub(crate) fn checkpoints(&self) -> usize {
        fs::read_dir(Path::new(&self.path).join("_state/checkpoints"))
            .unwrap()
            .count()
    }

    fn within(&self, path: &Path) -> String {
        let path = path.strip_prefix(&self.path).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

fn stamp(path: &Path) -> Stamp {
    let meta = fs::metadata(path).unwrap();
    Stamp {
        inode: meta.ino(),
        modified: (meta.mtime(), meta.mtime_nsec()),
        content: xxhash_rust::xxh3::xxh3_64(&fs::read(path).unwrap()),
    }
}

fn each_file(folder: &Path, visit: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            each_file(&path, visit);
        } else {
            visit(&path);
        }
    }
}
