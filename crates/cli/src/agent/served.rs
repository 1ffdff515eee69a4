//! What an agent serves by HTTP: metrics, and whether it is there.

use crate::failure::{Code, Failure};
use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use jiff::Timestamp;
use rekindle_agent::alarms::Alarm;
use rekindle_agent::guard::Shared;
use rekindle_agent::metrics;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// As Prometheus names the text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is served beside the board.
#[derive(Clone, Debug, Default)]
pub(super) struct Served {
    alarms: Arc<Mutex<Vec<Alarm>>>,
}

impl Served {
    /// Takes the alarms that go on.
    pub(super) fn alarms(&self, alarms: &[Alarm]) {
        alarms.clone_into(&mut self.alarms.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Begins to serve in a thread of its own; where.
    pub(super) fn start(&self, address: SocketAddr, shared: Shared) -> Result<SocketAddr, Failure> {
        let failure = |error: std::io::Error| {
            let code = Code::Failed;
            Failure::new(code, format!("serving at {address}: {error}"))
                .remedy("name another address with listen in the configuration, or off")
        };
        let listener = std::net::TcpListener::bind(address).map_err(failure)?;
        listener.set_nonblocking(true).map_err(failure)?;
        let own = listener.local_addr().map_err(failure)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(failure)?;
        let router = Router::new()
            .route("/metrics", get(page))
            .route("/healthz", get(|| async { "ok\n" }))
            .with_state((shared, self.clone()));
        let serve = move || {
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                axum::serve(listener, router).await
            })
        };
        std::thread::Builder::new().name("serves".to_owned()).spawn(serve).map_err(failure)?;
        Ok(own)
    }
}

async fn page(State((shared, served)): State<(Shared, Served)>) -> impl IntoResponse {
    let alarms = served.alarms.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let page = metrics::render(&shared.board(), &alarms, Timestamp::now());
    ([(CONTENT_TYPE, TEXT)], page)
}
