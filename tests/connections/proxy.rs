//! TLS in front of ClickHouse, which this build of it does not speak: one connection behind each connection, and both
//! close together. It takes the password out of what it passes on, for the ClickHouse behind it has no users.

use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::certificates::{Authority, Issued};
use crate::stack::PASSWORD;

pub struct Proxy {
    pub port: u16,
    acceptor: Arc<Mutex<TlsAcceptor>>,
    /// The head of the first request of each connection, in lower case.
    heads: Arc<Mutex<Vec<String>>>,
    _runtime: tokio::runtime::Runtime,
}

impl Proxy {
    /// In front of `http://host:port`; with `clients` only those with a certificate of that authority come through.
    pub fn start(url: &str, shown: &Issued, clients: Option<&Authority>) -> Proxy {
        let behind = url.trim_start_matches("http://").to_owned();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = Arc::new(Mutex::new(acceptor(shown, clients)));
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (current, seen) = (Arc::clone(&acceptor), Arc::clone(&heads));
        runtime.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let acceptor = current.lock().unwrap().clone();
                tokio::spawn(pass(stream, acceptor, behind.clone(), Arc::clone(&seen)));
            }
        });
        Proxy { port, acceptor, heads, _runtime: runtime }
    }

    /// Shows another certificate from the next connection on.
    pub fn show(&self, shown: &Issued) {
        *self.acceptor.lock().unwrap() = acceptor(shown, None);
    }

    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn acceptor(shown: &Issued, clients: Option<&Authority>) -> TlsAcceptor {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(&authority.ca_file).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let certificate = CertificateDer::from_pem_slice(shown.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(shown.key.as_bytes()).unwrap();
    TlsAcceptor::from(Arc::new(builder.with_single_cert(vec![certificate], key).unwrap()))
}

/// A port that speaks HTTP without TLS and says of a TLS greeting what ClickHouse's own port says. That port itself is
/// spared: a client that resets its connection during this answer ends the ClickHouse of this build.
pub fn without_tls() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map(Result::unwrap) {
            // Whoever hangs up before the answer gets none.
            let _ = stream.read(&mut [0; 4_096]).and_then(|_| {
                let body = "HTTP request method invalid";
                write!(stream, "HTTP/1.1 400 Bad Request\r\nContent-Length: {}\r\n\r\n{body}", body.len())
            });
        }
    });
    port
}

async fn pass(stream: TcpStream, acceptor: TlsAcceptor, behind: String, heads: Arc<Mutex<Vec<String>>>) {
    // A client that does not trust us hangs up here.
    let Ok(mut tls) = acceptor.accept(stream).await else { return };
    let Ok(mut server) = TcpStream::connect(behind).await else { return };
    let (mut from_client, mut to_client) = tokio::io::split(&mut tls);
    let (mut from_server, mut to_server) = server.split();
    let forward = async {
        let (mut buffer, mut is_first) = (vec![0; 65_536], true);
        while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
            let bytes = &buffer[..read];
            if std::mem::take(&mut is_first) {
                heads.lock().unwrap().push(String::from_utf8_lossy(bytes).to_lowercase());
            }
            // A head is written, and so read, in one piece.
            let found = bytes.windows(PASSWORD.len()).position(|window| window == PASSWORD.as_bytes());
            let (before, after) = match found {
                Some(at) => (&bytes[..at], &bytes[at + PASSWORD.len()..]),
                None => (bytes, &[][..]),
            };
            if to_server.write_all(before).await.is_err() || to_server.write_all(after).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = forward => {}
        _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
    }
}
