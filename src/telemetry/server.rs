//! `/metrics`, `/livez` and `/readyz` over HTTP.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde_json::json;
use tokio::net::TcpListener;

use super::board::Board;
use super::counters::Counters;
use super::{health, now};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Listens, and answers from a task of its own for as long as the runtime lives. Answers where it listens.
///
/// # Errors
/// The address can't be listened on.
pub async fn listen(address: SocketAddr, board: Arc<Board>, counters: Arc<Counters>) -> Result<SocketAddr> {
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!(
            "setting telemetry.listen: can't listen on {address}; choose an address that is free (replicas on one machine \
             need a port each), or \"\" for none"
        )
    })?;
    let address = listener.local_addr().context("asking for the address of telemetry.listen")?;
    let router = router(board, counters);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!("metrics and health are not served any more: {error}");
        }
    });
    Ok(address)
}

fn router(board: Arc<Board>, counters: Arc<Counters>) -> Router {
    let alive = Arc::clone(&board);
    Router::new()
        .route("/metrics", get(async move || metrics(&counters)))
        .route("/livez", get(async move || verdict("live", "problems", &health::dead(&alive, now()))))
        .route("/readyz", get(async move || verdict("ready", "missing", &health::missing(&board, now()))))
}

fn metrics(counters: &Counters) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, counters.registry()) {
        Ok(()) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("can't write the metrics: {error}")).into_response(),
    }
}

/// 200, or 503 with a body that names what is wrong.
fn verdict(what: &str, list: &str, wrong: &[String]) -> Response {
    let status = if wrong.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({ what: wrong.is_empty(), list: wrong }).to_string() + "\n";
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
