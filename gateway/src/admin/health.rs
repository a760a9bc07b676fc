//! `/healthz`: the process answers. `/readyz`: new connections should come here. `/metrics`: for Prometheus.

use std::sync::atomic::{AtomicBool, Ordering};

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::{
    metrics::metrics,
    store::{Readiness, SharedStore},
};

/// What the health routes look at.
pub struct Health {
    store: SharedStore,
    prometheus: Option<PrometheusHandle>,
    draining: AtomicBool,
}

impl Health {
    /// Health over `store`; without a recorder `/metrics` is 404.
    pub fn new(store: SharedStore, prometheus: Option<PrometheusHandle>) -> Self {
        Self {
            store,
            prometheus,
            draining: AtomicBool::new(false),
        }
    }

    /// From now on the node is not ready: it drains.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Why new connections should not come here, if so.
    pub fn not_ready(&self) -> Option<String> {
        if self.draining.load(Ordering::Relaxed) {
            return Some("draining".to_owned());
        }
        match self.store.readiness() {
            Readiness::Ready => None,
            Readiness::NotReady(why) => Some(why),
        }
    }

    /// `GET /readyz`.
    pub fn readyz(&self) -> Response {
        match self.not_ready() {
            None => (StatusCode::OK, "ready\n").into_response(),
            Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")).into_response(),
        }
    }

    /// `GET /metrics`.
    pub fn metrics(&self) -> Response {
        let Some(prometheus) = &self.prometheus else {
            return StatusCode::NOT_FOUND.into_response();
        };
        metrics()
            .store_ready
            .set(if self.store.readiness() == Readiness::Ready {
                1.0
            } else {
                0.0
            });
        (
            [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
            prometheus.render(),
        )
            .into_response()
    }

    /// Called every few seconds: the recorder keeps raw samples until then.
    pub fn upkeep(&self) {
        if let Some(prometheus) = &self.prometheus {
            prometheus.run_upkeep();
        }
    }
}
