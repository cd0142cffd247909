//! The server processes of object stores.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path as FsPath, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::interpreter;
use super::stores::{KEY, SECRET};

/// Timeout for the start of a server.
const PATIENCE: Duration = Duration::from_secs(90);

/// The one Azurite of this process, while a test uses it.
static AZURITE: Mutex<Weak<Process>> = Mutex::new(Weak::new());

/// A server process; it is killed when dropped.
pub(super) struct Process {
    child: Mutex<Child>,
    pub(super) port: String,
    folder: TempDir,
}

impl Drop for Process {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Process {
    /// Starts a server of S3 in Python, which checks no signatures.
    pub(super) fn moto() -> Self {
        let [port] = free_ports();
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/it/support/serial_moto.py"
        );
        let arguments = [script, "-H", "127.0.0.1", "-p", &port];
        Self::start(FsPath::new(&interpreter()), &arguments, &port)
    }

    /// Starts a real server of S3.
    pub(super) fn seaweed() -> Self {
        let ports: [String; 10] = free_ports();
        let names = [
            "s3.port",
            "s3.port.grpc",
            "master.port",
            "master.port.grpc",
            "volume.port",
            "volume.port.grpc",
            "filer.port",
            "filer.port.grpc",
            "admin.port",
            "admin.port.grpc",
        ];
        let mut arguments = ["mini", "-dir=data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
            .map(str::to_owned)
            .to_vec();
        arguments
            .extend(["-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0"].map(Into::into));
        for (name, port) in names.iter().zip(&ports) {
            arguments.push(format!("-{name}={port}"));
        }
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let weed = PathBuf::from(interpreter()).with_file_name("weed");
        Self::start(&weed, &arguments, &ports[0])
    }

    /// Returns the running emulator of Azure, or starts it.
    pub(super) fn azurite() -> Arc<Self> {
        let mut shared = AZURITE.lock().unwrap();
        let process = shared.upgrade().unwrap_or_else(|| {
            let [port] = free_ports();
            let script = venv().join("azurite/node_modules/azurite/dist/src/blob/main.js");
            let script = script.to_str().unwrap();
            let arguments = [
                script,
                "--blobHost",
                "127.0.0.1",
                "--blobPort",
                &port,
                "--inMemoryPersistence",
                "--disableTelemetry",
                "--silent",
            ];
            Arc::new(Self::start(&node(), &arguments, &port))
        });
        *shared = Arc::downgrade(&process);
        process
    }

    fn start(program: &FsPath, arguments: &[&str], port: &str) -> Self {
        let folder = TempDir::new().unwrap();
        fs::create_dir(folder.path().join("data")).unwrap();
        let child = Command::new(program)
            .args(arguments)
            .current_dir(folder.path())
            .env_clear()
            .env("HOME", folder.path())
            .env("AWS_ACCESS_KEY_ID", KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET)
            .stdin(Stdio::null())
            .stdout(File::create(folder.path().join("log")).unwrap())
            .stderr(File::create(folder.path().join("errors")).unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        Self {
            child: Mutex::new(child),
            port: port.to_owned(),
            folder,
        }
    }

    /// Waits until the server responds.
    pub(super) fn wait(&self, mut responds: impl FnMut() -> bool) {
        let began = Instant::now();
        while !responds() {
            let ended = self.child.lock().unwrap().try_wait().unwrap();
            let log = |name| fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
            assert!(
                ended.is_none() && began.elapsed() < PATIENCE,
                "no store responds on port {} ({ended:?}): {} {}",
                self.port,
                log("log"),
                log("errors")
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// Returns the folder of the virtual environment.
fn venv() -> PathBuf {
    let python = PathBuf::from(interpreter());
    python.parent().and_then(FsPath::parent).unwrap().to_owned()
}

pub(super) fn node() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path);
    let node = folders.find_map(|folder| Some(folder.join("node")).filter(|node| node.is_file()));
    node.expect("`scripts/test` installs Node")
}

fn free_ports<const N: usize>() -> [String; N] {
    // All ports are bound at the same time, so that none is returned twice.
    let listeners: [TcpListener; N] =
        std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port().to_string())
}
