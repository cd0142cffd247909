//! Files that a run writes for others: the report and the metrics.
//!
//! A regular file is replaced atomically, and a link to it stays a link. Anything else, such as a pipe or a device, is
//! written to and never replaced.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Maximum time to wait for the reader of a pipe: until it opens the pipe, or until it reads on.
const READER_TIMEOUT: Duration = Duration::from_secs(5);

/// Interval of attempts to write to a pipe.
const PIPE_POLL: Duration = Duration::from_millis(20);

/// Mode of a new file: collectors run as another user. The umask applies.
const MODE: u32 = 0o644;

/// Returns an error if `path` cannot become a file, for instance because its folder does not exist.
///
/// # Errors
///
/// [`io::Error`] that says what `path` is.
pub(crate) fn check(path: &Path) -> io::Result<()> {
    let is_unusable = |what: String| Err(io::Error::new(ErrorKind::InvalidInput, what));
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => {
            return is_unusable(format!("`{}` is a directory", path.display()));
        }
        Ok(meta) if meta.file_type().is_block_device() => {
            return is_unusable(format!("`{}` is a block device", path.display()));
        }
        Ok(_) => return Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Err(error),
        Err(_) if path.as_os_str().as_encoded_bytes().ends_with(b"/") => {
            return is_unusable(format!("`{}` is not a file name", path.display()));
        }
        Err(_) => {}
    }
    match parent(&link_target(path)) {
        dir if dir.is_dir() => Ok(()),
        dir => is_unusable(format!("directory `{}` does not exist", dir.display())),
    }
}

/// Returns the text of a regular file, for [`write()`] to carry over; empty if there is none.
pub(crate) fn previous(path: &Path) -> String {
    match fs::metadata(path) {
        Ok(meta) if meta.is_file() => fs::read_to_string(path).unwrap_or_default(),
        _ => String::new(),
    }
}

/// Writes `text` to the file of `path`.
///
/// # Errors
///
/// [`io::Error`] if the file cannot be written, and if no reader takes the text from a pipe in time.
pub(crate) fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return replace(&link_target(path), text, None);
        }
        Err(error) => return Err(error),
    };
    if is_same(&meta, io::stdout().as_fd()) {
        return through(io::stdout().lock(), text);
    }
    if is_same(&meta, io::stderr().as_fd()) {
        return through(io::stderr().lock(), text);
    }
    if !meta.is_file() {
        return write_special(path, &meta, text);
    }
    match fs::canonicalize(path) {
        Ok(target) if !is_descriptor(path) => {
            match replace(&target, text, Some(meta.permissions())) {
                // The folder is read-only, or the file is mounted on its own, as in a container.
                Err(error) if is_not_replaceable(&error) => write_in_place(path, text),
                replaced => replaced,
            }
        }
        // An open file, whose name may be gone.
        _ => OpenOptions::new().append(true).open(path)?.write_all(text),
    }
}

/// Returns true if a path names an open file of this process.
fn is_descriptor(path: &Path) -> bool {
    let standard = ["/dev/stdin", "/dev/stdout", "/dev/stderr"].map(Path::new);
    path.starts_with("/proc") || path.starts_with("/dev/fd") || standard.contains(&path)
}

/// Returns true if `meta` is the file of an open descriptor. Opening such a file again would overwrite what the
/// descriptor has written, and may not be permitted.
fn is_same(meta: &Metadata, descriptor: BorrowedFd<'_>) -> bool {
    let open = descriptor.try_clone_to_owned().map(File::from);
    let open = open.and_then(|file| file.metadata());
    open.is_ok_and(|open| (open.dev(), open.ino()) == (meta.dev(), meta.ino()))
}

/// Writes to standard output or standard error. Succeeds if the reader of the pipe, such as `head`, has closed it.
fn through(mut output: impl Write, text: &[u8]) -> io::Result<()> {
    match output.write_all(text).and_then(|()| output.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Replaces a regular file that has these permissions, or creates it.
fn replace(path: &Path, text: &[u8], permissions: Option<Permissions>) -> io::Result<()> {
    let mut file = tempfile::Builder::new()
        .prefix(".harness-lake-")
        .suffix(".tmp")
        .permissions(Permissions::from_mode(MODE))
        .tempfile_in(parent(path))?;
    if let Some(permissions) = permissions {
        file.as_file().set_permissions(permissions)?;
    }
    file.write_all(text)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

fn is_not_replaceable(error: &io::Error) -> bool {
    let kinds = [
        ErrorKind::PermissionDenied,
        ErrorKind::ReadOnlyFilesystem,
        ErrorKind::ResourceBusy,
        ErrorKind::CrossesDevices,
    ];
    kinds.contains(&error.kind())
}

fn write_in_place(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).truncate(true).open(path)?;
    file.write_all(text)
}

/// Writes to a pipe or a character device, and fails rather than wait for ever.
fn write_special(path: &Path, meta: &Metadata, text: &[u8]) -> io::Result<()> {
    if meta.file_type().is_block_device() {
        return Err(ErrorKind::InvalidInput.into());
    }
    let started = Instant::now();
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(libc::O_NONBLOCK);
    let mut file = loop {
        match options.open(path) {
            // A pipe has no reader yet.
            Err(error)
                if error.raw_os_error() == Some(libc::ENXIO) && meta.file_type().is_fifo() =>
            {
                if started.elapsed() >= READER_TIMEOUT {
                    return Err(io::Error::new(
                        ErrorKind::TimedOut,
                        "nothing reads this pipe",
                    ));
                }
                thread::sleep(PIPE_POLL);
            }
            opened => break opened?,
        }
    };
    let (mut rest, mut progress) = (text, Instant::now());
    while !rest.is_empty() {
        match file.write(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => {
                rest = &rest[written..];
                progress = Instant::now();
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if progress.elapsed() >= READER_TIMEOUT {
                    return Err(io::Error::new(
                        ErrorKind::TimedOut,
                        "the reader of this pipe does not read",
                    ));
                }
                thread::sleep(PIPE_POLL);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Returns the path that a chain of links leads to, whether or not it exists.
fn link_target(path: &Path) -> PathBuf {
    let mut target = path.to_path_buf();
    // As many links as the system follows.
    for _ in 0..40 {
        match fs::read_link(&target) {
            Ok(next) => target = parent(&target).join(next),
            Err(_) => break,
        }
    }
    target
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let name =
            |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<_> = entries.map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn links_stay_links() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("data")).unwrap();
        symlink("data/real", at("link")).unwrap();
        symlink("link", at("second")).unwrap();
        for text in ["created", "replaced"] {
            check(&at("second")).unwrap();
            write(&at("second"), text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(at("data/real")).unwrap(), text);
            assert_eq!(previous(&at("second")), text);
        }
        assert!(at("second").is_symlink() && at("link").is_symlink());
        assert_eq!(names(&at("data")), ["real"]);
        symlink("missing/file", at("dangling")).unwrap();
        let error = check(&at("dangling")).unwrap_err().to_string();
        assert!(error.contains("missing` does not exist"), "{error}");
    }

    #[test]
    fn permissions_of_a_replaced_file_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.json");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        write(&path, b"new").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn pipe_is_written_and_never_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        assert!(
            Command::new("mkfifo")
                .arg(&path)
                .status()
                .unwrap()
                .success()
        );
        check(&path).unwrap();
        assert_eq!(previous(&path), "");
        let error = write(&path, b"text").unwrap_err();
        assert_eq!(error.to_string(), "nothing reads this pipe");

        // More than a pipe holds.
        let text = vec![b'x'; 1 << 20];
        let reader = {
            let path = path.clone();
            thread::spawn(move || {
                let mut text = Vec::new();
                File::open(path).unwrap().read_to_end(&mut text).unwrap();
                text
            })
        };
        write(&path, &text).unwrap();
        assert_eq!(reader.join().unwrap(), text);

        let _idle = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let error = write(&path, &text).unwrap_err();
        assert_eq!(error.to_string(), "the reader of this pipe does not read");
        assert!(fs::metadata(&path).unwrap().file_type().is_fifo());
    }

    #[test]
    fn device_is_written_and_stays() {
        let null = Path::new("/dev/null");
        assert_eq!(previous(null), "");
        write_special(null, &fs::metadata(null).unwrap(), b"text").unwrap();
        assert!(fs::metadata(null).unwrap().file_type().is_char_device());
    }

    #[test]
    fn path_that_is_no_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(
            check(dir.path())
                .unwrap_err()
                .to_string()
                .contains("is a directory")
        );
        symlink("loop", dir.path().join("loop")).unwrap();
        assert!(check(&dir.path().join("loop")).is_err());
        assert!(check(&dir.path().join("new/")).is_err());
        let missing = dir.path().join("missing/file");
        assert!(
            check(&missing)
                .unwrap_err()
                .to_string()
                .contains("does not exist")
        );
    }
}
