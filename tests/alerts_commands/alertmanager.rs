//! `highwater alerts forward` to a real Alertmanager, where there is one: `ALERTMANAGER` names its binary, or it is on the
//! path. `go install github.com/prometheus/alertmanager/cmd/alertmanager@v0.27.0` makes one.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use devstack::http;
use serde_json::Value;

use crate::receiver::nobody;
use crate::support::World;
use crate::topic::{ALERTS, Topic, message};
use crate::wait_until;

fn binary() -> Option<PathBuf> {
    let named = std::env::var_os("ALERTMANAGER").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = named.into_iter().chain(std::env::split_paths(&path).map(|folder| folder.join("alertmanager")));
    found.find(|file| file.is_file())
}

struct Alertmanager {
    child: Child,
    port: u16,
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Alertmanager {
    fn start(binary: &PathBuf, world: &World) -> Alertmanager {
        let file = world.folder.path().join("alertmanager.yml");
        // What is not heard of for three seconds is over.
        std::fs::write(
            &file,
            "global: {resolve_timeout: 3s}\nroute: {receiver: nobody}\nreceivers: [{name: nobody}]\n",
        )
        .unwrap();
        let port = nobody();
        let mut command = Command::new(binary);
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.path={}", world.folder.path().join("alertmanager").display()));
        command.args([&format!("--web.listen-address=127.0.0.1:{port}"), "--cluster.listen-address="]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let manager = Alertmanager { child, port };
        wait_until("Alertmanager", || crate::receiver::is_up(port), &String::new);
        manager
    }

    /// What fires, by its own answer.
    fn alerts(&self) -> Vec<Value> {
        let answer = http::request(self.port, "GET", "/api/v2/alerts", "", Duration::from_secs(10)).unwrap();
        serde_json::from_str(&answer.body).unwrap()
    }

    /// The answer to a list of alerts.
    fn answers(&self, body: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let length = body.len();
        write!(
            stream,
            "POST /api/v2/alerts HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn apps(&self) -> Vec<String> {
        let mut apps: Vec<String> =
            self.alerts().iter().map(|alert| alert["labels"]["app"].as_str().unwrap().to_owned()).collect();
        apps.sort();
        apps
    }
}

#[test]
fn a_real_alertmanager_knows_what_fires_for_as_long_as_it_does() {
    let Some(binary) = binary() else {
        println!("SKIPPED: there is no alertmanager on the path, and ALERTMANAGER names none");
        return;
    };
    let mut world = World::new();
    let manager = Alertmanager::start(&binary, &world);
    world.set("ALERTS__TOPIC", ALERTS);
    world.set("FORWARD__ALERTMANAGER_URL", &format!("http://127.0.0.1:{}", manager.port));
    world.set("FORWARD__RESEND", "1s");
    world.set("FORWARD__LINK", "https://grafana.example.com/d/x?rule={rule}");
    // What is posted to see whether it takes anything.
    assert!(manager.answers("[]").starts_with("HTTP/1.1 200 "), "{}", manager.answers("[]"));
    let mut topic = Topic::new(&world);
    topic.publish(&[message("a", 1, "firing"), message("over", 1, "firing"), message("over", 2, "resolved")]);
    let process = world.run_command("forward", &["alerts", "forward"]);
    let said = || process.said();
    wait_until("the first", || manager.apps() == ["a"], &said);
    let told = message("b", 1, "firing");
    topic.publish(std::slice::from_ref(&told));
    wait_until("the second", || manager.apps() == ["a", "b"], &said);
    // Twice as long as it is remembered without being told anew.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(7) {
        assert_eq!(manager.apps(), ["a", "b"], "{}", said());
        std::thread::sleep(Duration::from_millis(300));
    }
    let alerts = manager.alerts();
    let alert = alerts.iter().find(|alert| alert["labels"]["app"] == "b").unwrap();
    assert_eq!(alert["labels"]["alertname"], "failures");
    assert_eq!(alert["labels"]["severity"], "page");
    assert_eq!(alert["labels"]["team"], "platform");
    assert_eq!(alert["labels"]["alert_id"], told.alert_id);
    assert_eq!(alert["annotations"]["summary"], "b: message 1");
    assert_eq!(alert["generatorURL"], "https://grafana.example.com/d/x?rule=failures");
    let starts: jiff::Timestamp = alert["startsAt"].as_str().unwrap().parse().unwrap();
    assert_eq!(starts.as_millisecond(), told.at);
    topic.publish(&[message("a", 2, "resolved")]);
    wait_until("over", || manager.apps() == ["b"], &said);
    topic.publish(&[message("b", 2, "withdrawn")]);
    wait_until("withdrawn", || manager.apps().is_empty(), &said);
    // One that is back after it was away is told of what fires, though nothing changes.
    topic.publish(&[message("a", 3, "firing")]);
    wait_until("again", || manager.apps() == ["a"], &said);
    let (status, said) = process.terminate();
    assert!(status.success(), "{said}");
    wait_until("forgotten", || manager.apps().is_empty(), &|| said.clone());
    let process = world.run_command("second", &["alerts", "forward"]);
    wait_until("told again by the next", || manager.apps() == ["a"], &|| process.said());
}
