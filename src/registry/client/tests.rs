//! The client against a server of a few lines.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// Answers one request with these bytes (nothing: never) and gives what was asked.
async fn asked<T>(answer: &'static str, ask: impl AsyncFnOnce(Client) -> T) -> (String, T) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/base/", listener.local_addr().unwrap());
    let endpoint = Endpoint::new(&url, "me", "pass", Duration::from_millis(300)).unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 65_536];
        let mut read = 0;
        while !complete(&request[..read]) {
            read += stream.read(&mut request[read..]).await.unwrap();
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        if answer.is_empty() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        String::from_utf8_lossy(&request[..read]).into_owned()
    });
    let outcome = ask(Client::new(endpoint)).await;
    (server.await.unwrap(), outcome)
}

fn complete(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    body.len() >= length.unwrap_or(0)
}

macro_rules! http {
    ($status:literal, $body:literal) => {
        concat!("HTTP/1.1 ", $status, "\r\nConnection: close\r\n\r\n", $body)
    };
}

async fn schema(answer: &'static str) -> Result<Registered, RegistryError> {
    asked(answer, async |client| client.schema(7).await).await.1
}

#[tokio::test]
async fn an_id_is_asked_for_and_its_schema_comes_whole() {
    let answer = http!("200 OK", r#"{"schema": "{\"type\": \"int\"}", "more": 1}"#);
    let (request, answer) = asked(answer, async |client| client.schema(4_000_000_000).await).await;
    assert_eq!(answer, Ok(Registered::Avro(r#"{"type": "int"}"#.to_owned())));
    assert!(request.starts_with("GET /base/schemas/ids/4000000000 HTTP/1.1\r\n"), "{request}");
    assert!(request.to_lowercase().contains("authorization: basic bwu6cgfzcw==\r\n"), "{request}");
}

#[tokio::test]
async fn what_the_registry_knows_for_good_is_told_apart() {
    let missing = http!("404 Not Found", r#"{"error_code": 40403, "message": "Schema 7 not found"}"#);
    assert_eq!(schema(missing).await, Ok(Registered::Missing));
    for (answer, what) in [
        (http!("200 OK", r#"{"schema": "syntax", "schemaType": "PROTOBUF"}"#), "PROTOBUF"),
        (
            http!("200 OK", r#"{"schema": "{}", "references": [{"name": "a.b", "subject": "s", "version": 1}]}"#),
            "`a.b`",
        ),
    ] {
        let Ok(Registered::Unusable(why)) = schema(answer).await else { panic!("{answer}") };
        assert!(why.contains(what), "{why}");
    }
    let plain = http!("200 OK", r#"{"schema": "s", "schemaType": "AVRO", "references": []}"#);
    assert_eq!(schema(plain).await, Ok(Registered::Avro("s".to_owned())));
}

/// Nothing that a proxy, a wrong address or a sick registry says makes a message unreadable.
#[tokio::test]
async fn everything_else_is_asked_again() {
    for (answer, what) in [
        (http!("404 Not Found", "<html>"), "registry.url"),
        (http!("404 Not Found", r#"{"error_code": 404, "message": "HTTP 404 Not Found"}"#), "registry.url"),
        (http!("401 Unauthorized", ""), "registry.user"),
        (http!("403 Forbidden", r#"{"error_code": 40301}"#), "registry.user"),
        (http!("429 Too Many Requests", ""), "429"),
        (http!("500 Internal Server Error", r#"{"error_code": 50001}"#), "50001"),
        (http!("500 Internal Server Error", r#"{"error_code": 40403}"#), "500"),
        (http!("503 Service Unavailable", ""), "503"),
        (http!("302 Found", ""), "302"),
        (http!("200 OK", "<html>a portal</html>"), "portal"),
        (http!("200 OK", r#"{"id": 7}"#), "schema"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "/schemas/ids/7"),
        ("SSH-2.0-x\r\n", "/schemas/ids/7"),
        ("", "within 0.3 s"),
    ] {
        let error = schema(answer).await.expect_err(answer);
        assert!(error.to_string().contains(what), "{answer}: {error}");
    }
}

#[tokio::test]
async fn nobody_there_is_an_error_that_says_where() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let endpoint = Endpoint::new(&format!("http://127.0.0.1:{port}"), "", "", Duration::from_secs(1)).unwrap();
    let error = Client::new(endpoint).schema(1).await.unwrap_err();
    assert!(error.to_string().contains(&port.to_string()), "{error}");
}

#[tokio::test]
async fn a_schema_is_registered_under_its_subject() {
    let (request, id) =
        asked(http!("200 OK", r#"{"id": 12}"#), async |client| client.register("t-a.b", r#"{"type": "x"}"#).await)
            .await;
    assert_eq!(id, Ok(12));
    assert!(request.starts_with("POST /base/subjects/t-a.b/versions HTTP/1.1\r\n"), "{request}");
    assert!(request.ends_with(r#"{"schema":"{\"type\": \"x\"}"}"#), "{request}");
    for refused in [
        http!("409 Conflict", r#"{"error_code": 409, "message": "incompatible"}"#),
        http!("422 Unprocessable Entity", r#"{"error_code": 42201}"#),
        http!("500 Internal Server Error", r#"{"id": 12}"#),
    ] {
        asked(refused, async |client| client.register("s", "{}").await).await.1.expect_err(refused);
    }
}

/// A registry under TLS, with a certificate for `localhost` that is its own CA; answers whom it let in.
async fn under_tls(folder: &std::path::Path, ask: impl AsyncFnOnce(u16)) -> Option<String> {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(folder.join("ca.pem"), certificate.pem()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let chain = vec![certificate.der().clone()];
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key.serialize_der().try_into().unwrap())
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config)).accept(stream).await.ok()?;
        let mut request = vec![0; 65_536];
        let mut read = 0;
        while !complete(&request[..read]) {
            read += stream.read(&mut request[read..]).await.unwrap();
        }
        stream.write_all(http!("200 OK", r#"{"schema": "s"}"#).as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        Some(String::from_utf8_lossy(&request[..read]).into_owned())
    });
    ask(port).await;
    server.await.unwrap()
}

fn trusting(port: u16, ca_file: Option<std::path::PathBuf>) -> Client {
    let files = crate::tls::TlsFiles { ca_file, ..Default::default() };
    let url = format!("https://localhost:{port}/base");
    Client::new(Endpoint::open(&url, "me", "pass", Duration::from_secs(5), &files).unwrap())
}

#[tokio::test]
async fn a_registry_under_tls_is_asked_if_its_ca_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    let asked = under_tls(folder.path(), async |port| {
        let answer = trusting(port, Some(ca_file.clone())).schema(7).await;
        assert_eq!(answer, Ok(Registered::Avro("s".to_owned())));
    });
    let asked = asked.await.unwrap();
    assert!(asked.starts_with("GET /base/schemas/ids/7 HTTP/1.1\r\n"), "{asked}");
}

/// Nobody who can't prove to be the registry gets the password.
#[tokio::test]
async fn a_registry_that_is_not_trusted_is_told_nothing() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let key = rcgen::KeyPair::generate().unwrap();
    let ca = rcgen::CertificateParams::new(vec!["ca".to_owned()]).unwrap().self_signed(&key).unwrap();
    let ca_file = other.path().join("ca.pem");
    std::fs::write(&ca_file, ca.pem()).unwrap();
    let asked = under_tls(folder.path(), async |port| {
        let error = trusting(port, Some(ca_file)).schema(7).await.unwrap_err().to_string();
        assert!(error.contains("registry.ca_file"), "{error}");
    });
    assert_eq!(asked.await, None);
    let missing = crate::tls::TlsFiles { ca_file: Some("/does/not/exist".into()), ..Default::default() };
    let error = Endpoint::open("https://sr", "", "", Duration::ZERO, &missing).unwrap_err().to_string();
    assert!(error.contains("ca_file") && error.contains("/does/not/exist"), "{error}");
}

#[tokio::test]
async fn the_latest_version_of_a_subject_is_asked_for() {
    let answer = http!("200 OK", r#"{"subject": "t-a.b", "id": 3, "version": 2, "schema": "s"}"#);
    let (request, answer) = asked(answer, async |client| client.latest("t-a.b").await).await;
    assert_eq!(answer, Ok(Registered::Avro("s".to_owned())));
    assert!(request.starts_with("GET /base/subjects/t-a.b/versions/latest HTTP/1.1\r\n"), "{request}");
    let missing = http!("404 Not Found", r#"{"error_code": 40401, "message": "Subject not found."}"#);
    assert_eq!(asked(missing, async |client| client.latest("s").await).await.1, Ok(Registered::Missing));
    let no_id = http!("404 Not Found", r#"{"error_code": 40403}"#);
    asked(no_id, async |client| client.latest("s").await).await.1.expect_err(no_id);
}
