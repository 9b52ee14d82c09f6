//! The client against a server of a few lines.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// Long enough for a registry that answers.
const PATIENT: Duration = Duration::from_secs(60);
/// For one that never does.
const IMPATIENT: Duration = Duration::from_millis(300);

/// Answers one request with these bytes (nothing: never) and gives what was asked.
async fn asked<T>(answer: &'static str, ask: impl AsyncFnOnce(Client) -> T) -> (String, T) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/base/", listener.local_addr().unwrap());
    let timeout = if answer.is_empty() { IMPATIENT } else { PATIENT };
    let endpoint = Endpoint::new(&url, "me", "pass", timeout).unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 65_536];
        let mut read = 0;
        while !complete(&request[..read]) {
            read += stream.read(&mut request[read..]).await.unwrap();
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        // The end of the connection would be an answer: it is held until nobody waits any more.
        let held = answer.is_empty().then_some(stream);
        (String::from_utf8_lossy(&request[..read]).into_owned(), held)
    });
    let outcome = ask(Client::new(endpoint)).await;
    (server.await.unwrap().0, outcome)
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
    let other = http!("200 OK", r#"{"schema": "syntax", "schemaType": "PROTOBUF"}"#);
    let Ok(Registered::Unusable(why)) = schema(other).await else { panic!("{other}") };
    assert!(why.contains("PROTOBUF"), "{why}");
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
    let endpoint = Endpoint::new(&format!("http://127.0.0.1:{port}"), "", "", PATIENT).unwrap();
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
    Client::new(Endpoint::open(&url, "me", "pass", PATIENT, &files).unwrap())
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

/// Asks for id 7 of a registry with these pages; answers what was said, and which pages were asked for.
async fn of_pages(pages: Vec<(String, String)>) -> (Result<Registered, RegistryError>, Vec<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (asked, mut questions) = tokio::sync::mpsc::unbounded_channel();
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 65_536];
            let mut read = 0;
            while !complete(&request[..read]) {
                read += stream.read(&mut request[read..]).await.unwrap();
            }
            let request = String::from_utf8_lossy(&request[..read]).into_owned();
            let path = request.split_whitespace().nth(1).unwrap().to_owned();
            let page = pages.iter().find(|(at, _)| *at == path);
            let missing = ("404 Not Found", r#"{"error_code": 40402}"#);
            let (status, body) = page.map_or(missing, |(_, body)| ("200 OK", body.as_str()));
            let answer = format!("HTTP/1.1 {status}\r\nConnection: close\r\n\r\n{body}");
            asked.send(path).unwrap();
            // Whoever has heard enough hangs up.
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let endpoint = Endpoint::new(&url, "", "", PATIENT).unwrap();
    let said = Client::new(endpoint).schema(7).await;
    server.abort();
    let mut paths = Vec::new();
    while let Ok(path) = questions.try_recv() {
        paths.push(path);
    }
    (said, paths)
}

fn page(schema: &str, references: &[(&str, &str, i64)]) -> String {
    let reference = |(name, subject, version): &(&str, &str, i64)| serde_json::json!({ "name": name, "subject": subject, "version": version });
    let references: Vec<_> = references.iter().map(reference).collect();
    serde_json::json!({ "schema": schema, "references": references }).to_string()
}

fn version(subject: &str, version: i64) -> String {
    format!("/subjects/{subject}/versions/{version}?deleted=true")
}

const HOLDER: &str =
    r#"{"type": "record", "name": "R", "fields": [{"name": "a", "type": "A"}, {"name": "b", "type": "B"}]}"#;

#[tokio::test]
async fn what_a_schema_refers_to_is_asked_for_once_and_put_in() {
    let inner = r#"{"type": "fixed", "name": "B", "size": 2}"#;
    let outer = r#"{"type": "record", "name": "A", "fields": [{"name": "b", "type": "B"}]}"#;
    let pages = vec![
        ("/schemas/ids/7".to_owned(), page(HOLDER, &[("A", "a / value", 3), ("B", "b", 1)])),
        (version("a%20%2F%20value", 3), page(outer, &[("B", "b", 1), ("R", "r", 1)])),
        (version("b", 1), page(inner, &[])),
        // A circle.
        (version("r", 1), page("\"int\"", &[("A", "a / value", 3)])),
    ];
    let (said, mut asked) = of_pages(pages.clone()).await;
    let Ok(Registered::Avro(text)) = said else { panic!("{said:?}") };
    let one = HOLDER.replace("\"A\"", &outer.replace("\"B\"", inner));
    let canonical = |text: &str| apache_avro::Schema::parse_str(text).unwrap().canonical_form();
    assert_eq!(canonical(&text), canonical(&one));
    asked.sort();
    let mut each: Vec<String> = pages.into_iter().map(|(path, _)| path).collect();
    each.sort();
    assert_eq!(asked, each);
}

#[tokio::test]
async fn a_reference_that_leads_nowhere_is_told_for_good() {
    let root = |reference| ("/schemas/ids/7".to_owned(), page(HOLDER, &[reference]));
    let kind = serde_json::json!({ "schema": "{}", "schemaType": "JSON" }).to_string();
    for (pages, parts) in [
        (vec![root(("A", "gone", 9))], ["`A` (subject gone, version 9)", "does not have"]),
        (vec![root(("A", "a", -1))], ["`A` (subject a, version -1)", "none in particular"]),
        (vec![root(("A", "a", 1)), (version("a", 1), kind)], ["`A` (subject a, version 1)", "it is a JSON schema"]),
        (vec![root(("A", "a", 1)), (version("a", 1), page("{", &[]))], ["`A` (subject a, version 1)", "not JSON"]),
    ] {
        let (said, _) = of_pages(pages).await;
        let Ok(Registered::Unusable(why)) = said else { panic!("{said:?}") };
        assert!(parts.iter().all(|part| why.contains(part)), "{why}");
    }
    // That the registry is away says nothing of the schema.
    let (said, _) = of_pages(vec![root(("A", "a", 1)), (version("a", 1), "<html>".to_owned())]).await;
    said.unwrap_err();
}

#[tokio::test]
async fn neither_many_references_nor_long_ones_are_followed_to_their_end() {
    let end = i64::try_from(10 * references::MOST).unwrap();
    let mut pages = vec![("/schemas/ids/7".to_owned(), page(HOLDER, &[("A", "a", 1)]))];
    pages.extend((1..end).map(|at| (version("a", at), page("\"int\"", &[("A", "a", at + 1)]))));
    let (said, asked) = of_pages(pages).await;
    let Ok(Registered::Unusable(why)) = said else { panic!("{said:?}") };
    assert!(why.contains("others"), "{why}");
    assert!(asked.len() <= references::MOST + 2, "{}", asked.len());

    let long = format!("\"{}\"", "x".repeat(LONGEST / 3));
    let mut pages = vec![("/schemas/ids/7".to_owned(), page(HOLDER, &[("A", "a", 1)]))];
    pages.extend((1..9).map(|at| (version("a", at), page(&long, &[("A", "a", at + 1)]))));
    let (said, asked) = of_pages(pages).await;
    assert!(matches!(said, Ok(Registered::Unusable(_))), "{said:?}");
    // The schema itself, and the three that are too long together.
    assert_eq!(asked.len(), 4);
}

/// What only refers costs memory as schemas do: names count, what is repeated is not kept, and what is too much is refused
/// before anything of it is asked for.
#[tokio::test]
async fn references_themselves_are_bounded() {
    let refused = async |pages: Vec<(String, String)>, questions: usize| {
        let (said, asked) = of_pages(pages).await;
        let Ok(Registered::Unusable(why)) = said else { panic!("{said:?}") };
        assert!(why.contains("others") && why.len() < 500, "{why}");
        assert_eq!(asked.len(), questions, "{why}");
    };
    let root = |references: &[(&str, &str, i64)]| ("/schemas/ids/7".to_owned(), page(HOLDER, references));
    let one = root(&[("A", "a", 1)]);
    let most = i64::try_from(references::MOST).unwrap();
    // More than may be, at once: other ones, and one again and again.
    let many: Vec<(&str, &str, i64)> = (1..=most + 1).map(|at| ("A", "a", at)).collect();
    refused(vec![root(&many)], 1).await;
    refused(vec![root(&vec![("A", "a", 1); references::MOST + 1])], 1).await;
    refused(vec![one.clone(), (version("a", 1), page("\"int\"", &many[1..]))], 2).await;
    // Long names, a few in each of many answers, the same ones again and again.
    let long = "x".repeat(LONGEST_NAME);
    let each = references::MOST * LONGEST_NAME;
    let mut pages = vec![one];
    let again = |at: i64| vec![(long.as_str(), "a", at); references::MOST];
    pages.extend((1..most).map(|at| (version("a", at), page("\"int\"", &again(at + 1)))));
    refused(pages, LONGEST / each + 1).await;
}

#[tokio::test]
async fn a_name_that_can_not_be_asked_for_is_told_for_good_and_in_few_words() {
    let long = "x".repeat(70_000);
    for reference in [("A", long.as_str(), 2), (&long, "a", 2), ("A", &long, -1)] {
        let (said, asked) = of_pages(vec![("/schemas/ids/7".to_owned(), page(HOLDER, &[reference]))]).await;
        let Ok(Registered::Unusable(why)) = said else { panic!("asked again for ever") };
        assert!(why.contains("70000 bytes") && why.len() < 500, "{}", why.len());
        assert_eq!(asked.len(), 1);
    }
}

#[tokio::test]
async fn as_many_references_as_may_be_are_followed_each_once() {
    let most = i64::try_from(references::MOST).unwrap();
    let all: Vec<(&str, &str, i64)> = (1..=most).map(|at| ("A", "a", at)).collect();
    let mut pages = vec![("/schemas/ids/7".to_owned(), page("\"int\"", &all))];
    pages.extend((1..=most).map(|at| (version("a", at), page("\"int\"", &all))));
    let (said, asked) = of_pages(pages).await;
    assert_eq!(said, Ok(Registered::Avro("\"int\"".to_owned())));
    assert_eq!(asked.len(), references::MOST + 1);
}
