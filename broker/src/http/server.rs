//! The HTTP listeners and their three resources.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::listener::BoundedListener;
use super::{Health, metrics};
use crate::config::HostPort;
use crate::server::{ServerError, bind};

/// Waiting connections; scrapes and probes are few.
const BACKLOG: u32 = 64;

/// How often histograms are folded, also if nobody scrapes: what they hold until then is unbounded.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Longest wait for a request that is being answered when the broker ends.
const STOP_TIME_MAX: Duration = Duration::from_secs(2);

/// The running HTTP interface.
#[derive(Debug)]
pub struct HttpServer {
    addresses: Vec<SocketAddr>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl HttpServer {
    /// Binds `http.listeners` and serves them.
    pub(crate) async fn start(
        listeners: &[HostPort],
        health: Arc<Health>,
    ) -> Result<HttpServer, ServerError> {
        if metrics::recorder().is_none() {
            warn!("metrics are kept by another recorder of this process; /metrics is empty");
        }
        let stop = CancellationToken::new();
        let mut server = HttpServer {
            addresses: Vec::new(),
            stop,
            tasks: vec![tokio::spawn(upkeep())],
        };
        for address in listeners {
            let failed = |source| ServerError::Bind {
                property: "http.listeners",
                address: address.to_string(),
                source,
            };
            for socket in bind(address, BACKLOG).await.map_err(failed)? {
                server.addresses.push(socket.local_addr().map_err(failed)?);
                let stopped = server.stop.clone().cancelled_owned();
                let serving =
                    axum::serve(BoundedListener::new(socket), router(Arc::clone(&health)))
                        .with_graceful_shutdown(stopped);
                server.tasks.push(tokio::spawn(async move {
                    if let Err(error) = serving.await {
                        warn!(%error, "an HTTP listener ended");
                    }
                }));
            }
        }
        Ok(server)
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Answers what was asked, then ends.
    pub async fn stop(mut self) {
        self.stop.cancel();
        for task in self.tasks.drain(1..) {
            // A client that keeps its connection open is not waited for.
            let _ = tokio::time::timeout(STOP_TIME_MAX, task).await;
        }
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.stop.cancel();
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn upkeep() {
    loop {
        tokio::time::sleep(UPKEEP_INTERVAL).await;
        if let Some(recorder) = metrics::recorder() {
            recorder.run_upkeep();
        }
    }
}

fn router(health: Arc<Health>) -> Router {
    Router::new()
        .route("/health/live", get(|| async { "live\n" }))
        .route("/health/ready", get(ready))
        .route("/metrics", get(scrape))
        .with_state(health)
}

async fn ready(State(health): State<Arc<Health>>) -> Response {
    match health.not_ready() {
        None => "ready\n".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn scrape(State(health): State<Arc<Health>>) -> Response {
    // Reading the free space may block.
    let rendered = tokio::task::spawn_blocking(move || {
        metrics::render(health.broker().map(|broker| &**broker))
    });
    let Ok(text) = rendered.await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        text,
    )
        .into_response()
}
