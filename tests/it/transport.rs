//! TLS, redirects and the key file: the servers that the program trusts with the key.

use std::fs;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

use crate::support::{Lake, Run, SECRET, Sim};

/// A server on a port of 127.0.0.1 that lives as long as its runtime.
struct Front {
    address: SocketAddr,
    _runtime: Runtime,
}

impl Front {
    fn start<S, F>(serve: S) -> Self
    where
        S: Fn(TcpStream) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let handle = runtime.handle().clone();
        runtime.spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                handle.spawn(serve(socket));
            }
        });
        Self {
            address,
            _runtime: runtime,
        }
    }

    /// Starts a TLS proxy with a self-signed certificate in front of the simulated server. Returns
    /// the certificate in PEM, too.
    fn tls(sim: &Sim) -> (Self, String) {
        let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key.into())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let behind: SocketAddr = sim
            .server()
            .base_url()
            .trim_start_matches("http://")
            .parse()
            .unwrap();
        let front = Self::start(move |socket| {
            let acceptor = acceptor.clone();
            async move {
                // A client that does not trust the certificate closes the connection.
                let Ok(mut client) = acceptor.accept(socket).await else {
                    return;
                };
                let mut server = TcpStream::connect(behind).await.unwrap();
                drop(copy_bidirectional(&mut client, &mut server).await);
            }
        });
        (front, own.cert.pem())
    }

    /// Starts a server that redirects every request.
    fn redirecting(status: u16, to: &str) -> Self {
        let answer = format!(
            "HTTP/1.1 {status} Elsewhere\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        Self::start(move |mut socket| {
            let answer = answer.clone();
            async move {
                let mut request = Vec::new();
                while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                    if socket.read_buf(&mut request).await.unwrap_or_default() == 0 {
                        return;
                    }
                }
                drop(socket.write_all(answer.as_bytes()).await);
            }
        })
    }
}

#[test]
fn private_certificate_is_trusted_only_with_ca_file() {
    let sim = Sim::small();
    let (front, pem) = Front::tls(&sim);
    let base_url = format!("https://{}", front.address);
    let files = Lake::new();
    let file = files.beside("ca.pem");
    fs::write(&file, pem).unwrap();

    let run = |more: &[&str]| {
        let mut check = sim.command(&[&["check"], more].concat());
        Run::of(check.env("HARNESS_BASE_URL", &base_url).output().unwrap())
    };
    run(&["--ca-file", &file]).expect(0);
    let asked = sim.server().requests().log.len();
    assert!(asked > 0, "it came through TLS");
    let refused = run(&[]);
    assert_ne!(refused.code, Some(0), "{refused:?}");
    assert!(refused.stderr.contains("certificate"), "{}", refused.stderr);
    assert_eq!(
        sim.server().requests().log.len(),
        asked,
        "no request was sent"
    );
}

#[test]
fn ca_file_without_a_certificate_is_a_usage_error() {
    let sim = Sim::small();
    let files = Lake::new();
    let file = files.beside("ca.pem");
    for text in ["", "no certificate"] {
        fs::write(&file, text).unwrap();
        let run = sim.run(&["check", "--ca-file", &file]).expect(2);
        assert!(run.stderr.contains(&file), "{}", run.stderr);
    }
    sim.run(&["check", "--ca-file", &files.beside("missing")])
        .expect(2);
}

#[test]
fn no_redirect_carries_the_key_to_another_host() {
    let sim = Sim::small();
    let elsewhere = StdListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    // Another name is another host, even with the same address.
    let to = format!(
        "http://localhost:{}/v1/orgs",
        elsewhere.local_addr().unwrap().port()
    );
    for status in [301, 302, 303, 307, 308] {
        let front = Front::redirecting(status, &to);
        let mut check = sim.command(&["check"]);
        check.env("HARNESS_BASE_URL", format!("http://{}", front.address));
        let run = Run::of(check.output().unwrap());
        assert_ne!(run.code, Some(0), "{run:?}");
        assert!(run.stderr.contains("redirect"), "{}", run.stderr);
        let came = elsewhere.accept();
        assert!(came.is_err(), "{status}: the redirect was followed");
    }
}

#[test]
fn world_readable_key_file_causes_a_warning() {
    let sim = Sim::small();
    let files = Lake::new();
    let file = files.beside("key");
    fs::write(&file, sim.server().api_key()).unwrap();
    for (mode, is_warned) in [(0o644, true), (0o604, true), (0o440, false), (0o400, false)] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let mut check = sim.command(&["check", "--api-key-file", &file]);
        let run = Run::of(check.env_remove("HARNESS_API_KEY").output().unwrap()).expect(0);
        let warned = run.stderr.contains("can read the key file");
        assert_eq!(warned, is_warned, "{mode:o}: {}", run.stderr);
        assert!(!run.stderr.contains(SECRET));
    }
}
