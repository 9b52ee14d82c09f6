//! ClickHouse: the real server's HTTP and native ports on a data directory.

use std::ffi::OsString;
use std::fs;
use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::artifact::Artifact;
use crate::holder::Stop;
use crate::home::Home;
use crate::http;
use crate::server::{Folder, Recipe, Server};
use crate::{executable, port};

const PROBE: Duration = Duration::from_secs(1);
const QUERY: Duration = Duration::from_secs(120);
/// What every user has in ClickHouse's configuration.
const ANYWHERE: &str = "<networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>";

/// A ClickHouse server. [`Server`] has what can be done to its process; data
/// outlives [`Server::kill`] and comes back with [`Server::restart`].
pub struct ClickHouse {
    server: Server,
    http_port: u16,
    tcp_port: u16,
}

/// What to start.
#[derive(Debug, Clone, Default)]
pub struct ClickHouseOptions {
    folder: Option<PathBuf>,
    http_port: Option<u16>,
    arguments: Vec<OsString>,
    users: String,
}

impl ClickHouseOptions {
    /// Keeps the data in `folder`; by default it goes with the server.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// The HTTP port; by default a free one.
    #[must_use]
    pub fn http_port(mut self, port: u16) -> Self {
        self.http_port = Some(port);
        self
    }

    /// One more user, who may do what these statements grant, which are without their `TO`. `default` may do all.
    #[must_use]
    pub fn user<'a>(mut self, name: &str, password: &str, grants: impl IntoIterator<Item = &'a str>) -> Self {
        let grants: String = grants.into_iter().map(|grant| format!("<query>{grant}</query>")).collect();
        let grants = format!("<grants>{grants}</grants>");
        self.users.push_str(&format!("<{name}><password>{password}</password>{ANYWHERE}{grants}</{name}>"));
        self
    }

    /// One more argument of `clickhouse local`, such as `--config-file=…`.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Fetches ClickHouse if need be, starts it and waits until it answers.
    ///
    /// # Errors
    /// It cannot be fetched or does not start; the message holds the end of its log.
    pub fn start(self) -> Result<ClickHouse> {
        let home = Home::locate()?;
        home.fetch(&[Artifact::ClickHouse])?;
        let folder = Folder::make(self.folder.as_deref(), "clickhouse")?;
        let [free_port, tcp_port] = port::free()?;
        let http_port = self.http_port.unwrap_or(free_port);
        let data = folder.path().join("data");
        let mut command: Vec<OsString> = vec![executable::locate()?.into(), "clickhouse-local".into()];
        command.extend(["--path".into(), data.clone().into()]);
        command.extend(["--listen_host", "127.0.0.1", "--http_port"].map(OsString::from));
        command.extend([http_port.to_string().into(), "--tcp_port".into(), tcp_port.to_string().into()]);
        // Runs until its input ends, which never carries anything.
        command.extend(["--query".into(), "SYSTEM START LISTEN HTTP; SYSTEM START LISTEN TCP; SELECT * FROM file('stdin', 'LineAsString') FORMAT Null".into()]);
        if !self.users.is_empty() {
            let (config, users) = (folder.path().join("config.xml"), folder.path().join("users.xml"));
            let all = format!("<default><password/>{ANYWHERE}</default>{}", self.users);
            let profiles = "<profiles><default/></profiles><quotas><default/></quotas>";
            fs::write(&users, format!("<clickhouse>{profiles}<users>{all}</users></clickhouse>"))
                .and_then(|()| {
                    let users = users.display();
                    fs::write(&config, format!("<clickhouse><users_config>{users}</users_config></clickhouse>"))
                })
                .context("cannot write the configuration of users")?;
            command.push(format!("--config-file={}", config.display()).into());
        }
        command.extend(self.arguments);
        let own_path = format!("{}/", data.display());
        let recipe = Recipe {
            title: "ClickHouse",
            command,
            environment: vec![home.environment()],
            stop: Stop::EndInput,
            // Another server on this port would answer too, but not with this path.
            ready: Box::new(move |_| {
                query(http_port, "SELECT path FROM system.disks WHERE name = 'default' FORMAT TSVRaw", PROBE)
                    .is_ok_and(|path| path.trim_end() == own_path)
            }),
        };
        let server = Server::start(recipe, folder)?;
        Ok(ClickHouse { server, http_port, tcp_port })
    }
}

impl ClickHouse {
    /// Nothing set: free ports, a temporary folder.
    pub fn options() -> ClickHouseOptions {
        ClickHouseOptions::default()
    }

    /// `http://127.0.0.1:…`
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.http_port)
    }

    /// Host and port of the native protocol.
    pub fn tcp_address(&self) -> String {
        format!("127.0.0.1:{}", self.tcp_port)
    }

    /// Runs one statement and gives its answer as text (tab-separated unless it
    /// says `FORMAT`).
    ///
    /// # Errors
    /// The server does not answer within two minutes, or refuses the statement;
    /// the message is then ClickHouse's.
    pub fn query(&self, sql: &str) -> Result<String> {
        query(self.http_port, sql, QUERY)
    }
}

impl Deref for ClickHouse {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

fn query(port: u16, sql: &str, timeout: Duration) -> Result<String> {
    // Without waiting for the end, an error could come after a status of 200.
    let response = http::request(port, "POST", "/?wait_end_of_query=1", sql, timeout)
        .with_context(|| format!("cannot ask ClickHouse: {sql}"))?;
    if response.status != 200 {
        bail!("ClickHouse refused ({}): {}: {sql}", response.status, response.body.trim_end());
    }
    Ok(response.body)
}
