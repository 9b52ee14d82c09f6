//! Apicurio Registry with Confluent's API, in memory.

use std::ffi::OsString;
use std::ops::Deref;
use std::time::Duration;

use anyhow::Result;

use crate::artifact::Artifact;
use crate::holder::Stop;
use crate::home::Home;
use crate::server::{Folder, Recipe, Server};
use crate::{http, port, tools};

const API: &str = "/apis/ccompat/v7";

/// A schema registry. It keeps schemas in memory: a restart forgets them.
pub struct Registry {
    server: Server,
    port: u16,
}

impl Registry {
    /// Fetches the registry if need be, starts it on a free port and waits until
    /// it answers.
    ///
    /// # Errors
    /// It cannot be fetched or does not start; the message holds the end of its log.
    pub fn start() -> Result<Registry> {
        let home = Home::locate()?;
        home.fetch(&[Artifact::Registry])?;
        tools::require(&["java"])?;
        let folder = Folder::make(None, "registry")?;
        let [port] = port::free()?;
        let jar = home.path(Artifact::Registry).join("apicurio-registry-app-3.0.9-runner.jar");
        let mut command: Vec<OsString> = [
            "java",
            "-Xmx384m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Dquarkus.http.host=127.0.0.1",
            // It is silent below warnings, also on the port that it opened.
            "-Dquarkus.log.category.\"io.quarkus\".level=INFO",
        ]
        .map(OsString::from)
        .into();
        command.push(format!("-Dquarkus.http.port={port}").into());
        command.extend(["-jar".into(), jar.into()]);
        let recipe = Recipe {
            title: "Registry",
            command,
            environment: Vec::new(),
            stop: Stop::Terminate,
            // The log says which port it opened: another server on the port
            // does not count.
            ready: Box::new(move |log| {
                log.contains("Listening on")
                    && http::request(port, "GET", &format!("{API}/subjects"), "", Duration::from_secs(5))
                        .is_ok_and(|response| response.status == 200)
            }),
        };
        Ok(Registry { server: Server::start(recipe, folder)?, port })
    }

    /// The address of Confluent's API, to which `/subjects` is added.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}{API}", self.port)
    }
}

impl Deref for Registry {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}
