//! The order service's HTTP, `POST /orders` and `GET /orders/{id}`, and the customers at the other end of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{Method, Request, StatusCode, header};
use axum::routing::{get, post};
use axum::{Json, Router};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use mq_core::clock::{Clock, SystemClock};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::shop::catalog::Order;
use crate::shop::kinds::Kind;
use crate::shop::orders::{Orders, Placing};

/// Customers that order at a time.
const CUSTOMERS: usize = 16;
/// How long a customer waits for an answer before the order is given again.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Between two attempts of a customer.
const AGAIN: Duration = Duration::from_millis(50);
/// How long an order is given again and again.
const PATIENCE: Duration = Duration::from_secs(180);
/// The longest answer that is read.
const LONGEST_ANSWER: usize = 64 << 10;

/// Takes orders until `stop` becomes true.
///
/// # Errors
/// The listener fails.
pub async fn serve<DB: Kind>(
    listener: TcpListener,
    orders: Orders<DB>,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    let routes = Router::new()
        .route("/orders", post(place::<DB>))
        .route("/orders/{id}", get(look::<DB>))
        .with_state(orders);
    let told = async move {
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let served = axum::serve(listener, routes).with_graceful_shutdown(told);
    served.await.context("HTTP is not served any more")
}

/// 201 when it is placed now, 200 when it was known, 422 when it breaks a rule, 503 when it is to be given again.
async fn place<DB: Kind>(
    State(orders): State<Orders<DB>>,
    Json(order): Json<Order>,
) -> (StatusCode, Json<Value>) {
    // In a task of its own: a customer who hangs up does not cut it off in the middle.
    let id = order.id;
    let placed = tokio::spawn(async move { orders.place(&order, orders.producer()).await });
    let (code, told) = match placed.await {
        Ok(Ok(Placing::Placed)) => (StatusCode::CREATED, "placed".into()),
        Ok(Ok(Placing::Known)) => (StatusCode::OK, "known".into()),
        Ok(Ok(Placing::Rejected)) => (StatusCode::UNPROCESSABLE_ENTITY, "rejected".into()),
        Ok(Err(error)) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not now, give it again: {error:#}"),
        ),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "it broke off".into()),
    };
    (code, Json(json!({ "order": id, "status": told })))
}

async fn look<DB: Kind>(
    State(orders): State<Orders<DB>>,
    Path(id): Path<i64>,
) -> (StatusCode, Json<Value>) {
    let (code, status) = match orders.status(id).await {
        Ok(Some(status)) => (StatusCode::OK, status),
        Ok(None) => (StatusCode::NOT_FOUND, "nobody has placed it".into()),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}")),
    };
    (code, Json(json!({ "order": id, "status": status })))
}

/// Customers, who give every order to one of the instances until it is taken or rejected.
#[derive(Debug, Clone)]
pub struct Customers {
    client: Client<HttpConnector, Full<Bytes>>,
    /// Where instances are; empty while none is there.
    instances: watch::Receiver<Vec<SocketAddr>>,
    /// Orders that were taken or rejected.
    pub served: Arc<AtomicU64>,
}

impl Customers {
    /// Customers of these instances.
    #[must_use]
    pub fn new(instances: watch::Receiver<Vec<SocketAddr>>) -> Self {
        Self {
            client: Client::builder(TokioExecutor::new()).build_http(),
            instances,
            served: Arc::default(),
        }
    }

    /// Gives all orders, some at a time.
    ///
    /// # Errors
    /// An order is refused for good, or was not taken within minutes.
    pub async fn order_all(self, orders: impl Iterator<Item = Order>) -> Result<()> {
        let mut under_way = JoinSet::new();
        for order in orders {
            if under_way.len() >= CUSTOMERS
                && let Some(done) = under_way.join_next().await
            {
                done??;
            }
            let customer = self.clone();
            under_way.spawn(async move { customer.order(&order).await });
        }
        while let Some(done) = under_way.join_next().await {
            done??;
        }
        Ok(())
    }

    async fn order(&self, order: &Order) -> Result<()> {
        let body = Bytes::from(serde_json::to_vec(order)?);
        let clock = SystemClock::new();
        let start = clock.monotonic();
        let mut turn = usize::try_from(order.id.unsigned_abs()).unwrap_or_default();
        let mut last = anyhow::anyhow!("no instance of the order service is there");
        while clock.monotonic().saturating_sub(start) < PATIENCE {
            let instances = self.instances.borrow().clone();
            if let Some(instance) = instances.get(turn % instances.len().max(1)) {
                let path = format!("http://{instance}/orders");
                match self.ask(Method::POST, &path, body.clone()).await {
                    Ok((code, _))
                        if code.is_success() || code == StatusCode::UNPROCESSABLE_ENTITY =>
                    {
                        self.served.fetch_add(1, Ordering::Relaxed);
                        return Ok(());
                    }
                    Ok((code, text)) if code.is_client_error() => {
                        bail!("order {} is refused with {code}: {text}", order.id);
                    }
                    Ok((code, text)) => last = anyhow::anyhow!("{code}: {text}"),
                    Err(error) => last = error,
                }
            }
            turn += 1;
            tokio::time::sleep(AGAIN).await;
        }
        Err(last.context(format!("order {} was not taken for {PATIENCE:?}", order.id)))
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, String)> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        let answered = async {
            let answer = self.client.request(request).await?;
            let code = answer.status();
            let body = Limited::new(answer.into_body(), LONGEST_ANSWER)
                .collect()
                .await;
            let body = body.map_err(anyhow::Error::from_boxed)?.to_bytes();
            anyhow::Ok((code, String::from_utf8_lossy(&body).into_owned()))
        };
        tokio::time::timeout(ANSWER_WITHIN, answered).await?
    }
}
