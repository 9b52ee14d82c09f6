//! TLS in front of ClickHouse, which this build of it does not speak: one connection behind each connection, and both
//! close together.

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

async fn pass(stream: TcpStream, acceptor: TlsAcceptor, behind: String, heads: Arc<Mutex<Vec<String>>>) {
    // A client that does not trust us hangs up here.
    let Ok(mut tls) = acceptor.accept(stream).await else { return };
    let mut first = vec![0; 65_536];
    let Ok(read @ 1..) = tls.read(&mut first).await else { return };
    heads.lock().unwrap().push(String::from_utf8_lossy(&first[..read]).to_lowercase());
    let Ok(mut server) = TcpStream::connect(behind).await else { return };
    if server.write_all(&first[..read]).await.is_err() {
        return;
    }
    let (mut from_client, mut to_client) = tokio::io::split(tls);
    let (mut from_server, mut to_server) = server.split();
    tokio::select! {
        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
        _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
    }
}
