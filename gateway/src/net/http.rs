//! The listener and the routes.
//!
//! hyper serves HTTP/1 with a deadline for a request's head; `/ws` becomes a WebSocket; axum routes the rest.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body, response::IntoResponse, routing::get};
use bytes::Bytes;
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{RETRY_AFTER, WWW_AUTHENTICATE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use roomgate_shared::{ids::ConnectionId, protocol::CloseCode};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::Instant,
};
use tower_service::Service;

use super::{
    address,
    clients::Clients,
    ws::{self, Echo, SessionHandler, Timing},
};
use crate::{
    admin::{health::Health, page},
    auth::{self, Authenticator, Identity, token::TokenError},
    hub::{Client, Closing},
    metrics::metrics,
    session::{Session, SessionContext, strangers::Strangers},
};

/// Largest head of a request: a token may be in it.
const MAX_HEAD_BYTES: usize = 32 * 1024;

/// How often it is said that connections cannot be accepted.
const REPORT: Duration = Duration::from_secs(10);

/// What the listener serves with.
pub struct Server {
    /// What sessions share.
    pub sessions: Arc<SessionContext>,
    /// Every WebSocket.
    pub clients: Arc<Clients>,
    /// The health routes.
    pub health: Arc<Health>,
    /// Origins that may connect; none: the same host.
    pub origins: Vec<String>,
    /// Most WebSockets.
    pub max_connections: usize,
    /// Times and bounds of a WebSocket.
    pub timing: Timing,
    /// How long a request's head may take.
    pub head_timeout: Duration,
    /// Whether there is an echo route.
    pub echo: bool,
    /// Random for each start, part of connection ids.
    pub nonce: u64,
    /// Proxies whose word on where a request comes from is taken.
    pub proxies: Vec<IpNet>,
    /// The HTTP API.
    pub api: Router,
}

/// A server at work.
struct Serving {
    server: Server,
    router: Router,
    opened: AtomicU64,
    /// Accepted WebSockets, the handshakes under way included.
    open: AtomicUsize,
    /// Those whose user is not known yet, by address.
    strangers: Arc<Strangers>,
}

/// Counts a WebSocket for as long as it lives.
struct Open {
    serving: Arc<Serving>,
    id: ConnectionId,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.serving.server.clients.remove(self.id);
        self.serving.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Accepts connections until `closing` says otherwise, then ends every WebSocket so and waits for them.
pub async fn serve(listener: TcpListener, server: Server, mut closing: watch::Receiver<Option<Closing>>) {
    let router = router(&server.health).merge(server.api.clone());
    let serving = Arc::new(Serving {
        server,
        router,
        opened: AtomicU64::new(0),
        open: AtomicUsize::new(0),
        strangers: Arc::default(),
    });
    let mut refused: Option<Instant> = None;
    let closing = loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => accept(&serving, stream, peer),
                Err(error) => {
                    // Out of descriptors, or a connection that was gone before it was taken: others may still come.
                    if refused.is_none_or(|at| at.elapsed() >= REPORT) {
                        refused = Some(Instant::now());
                        tracing::warn!(%error, "connections cannot be accepted");
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            wish = wished(&mut closing) => break wish,
        }
    };
    drop(listener);
    while serving.open.load(Ordering::Relaxed) > 0 {
        // Each turn tells those whose handshake was under way at the last.
        serving.server.clients.close(&closing);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn wished(closing: &mut watch::Receiver<Option<Closing>>) -> Closing {
    let wish = closing
        .wait_for(Option::is_some)
        .await
        .ok()
        .and_then(|wish| wish.clone());
    wish.unwrap_or_else(|| CloseCode::Draining.into())
}

fn accept(serving: &Arc<Serving>, stream: TcpStream, peer: SocketAddr) {
    // Frames are small and each write holds all that is queued: waiting for more would only add delay.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, %peer, "the connection was gone at once");
        return;
    }
    let service = {
        let serving = serving.clone();
        service_fn(move |request| {
            let serving = serving.clone();
            async move { Ok::<_, Infallible>(respond(&serving, request, peer).await) }
        })
    };
    let head_timeout = serving.server.head_timeout;
    tokio::spawn(async move {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(head_timeout)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        if let Err(error) = connection.await {
            tracing::debug!(%error, %peer, "a connection ended with an error");
        }
    });
}

fn router(health: &Arc<Health>) -> Router {
    let (ready, metrics) = (health.clone(), health.clone());
    Router::new()
        .route("/", get(page::index))
        .route("/assets/{file}", get(page::asset))
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(async move || ready.readyz()))
        .route("/metrics", get(async move || metrics.metrics()))
}

async fn respond(serving: &Arc<Serving>, request: Request<Incoming>, peer: SocketAddr) -> Response<Body> {
    match request.uri().path() {
        "/ws" => upgrade(serving, request, peer, false).await,
        "/echo" if serving.server.echo => upgrade(serving, request, peer, true).await,
        _ => {
            let answered = serving.router.clone().call(request.map(Body::new)).await;
            answered.unwrap_or_else(|never| match never {})
        }
    }
}

async fn upgrade(
    serving: &Arc<Serving>,
    mut request: Request<Incoming>,
    peer: SocketAddr,
    echo: bool,
) -> Response<Body> {
    let server = &serving.server;
    if let Some(why) = server.health.not_ready() {
        metrics().refused.increment(1);
        let body = format!("this node takes no connections now: {why}\n");
        return (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], body).into_response();
    }
    let handshake = match ws::check(&mut request, &server.origins) {
        Ok(handshake) => handshake,
        Err(rejected) => {
            metrics().refused.increment(1);
            return rejected.response();
        }
    };
    let counter = serving.opened.fetch_add(1, Ordering::Relaxed);
    // Counted before its token is looked at, which may have to wait for a key.
    let open = Open {
        serving: serving.clone(),
        id: ConnectionId::new(server.nonce, counter),
    };
    if serving.open.fetch_add(1, Ordering::Relaxed) >= server.max_connections {
        return too_many("too many connections\n");
    }
    // Only where it is counted: an idle connection need not remember it.
    let most = server.sessions.connections.most().address;
    let address =
        (most > 0).then(|| address::name(address::client(peer, request.headers(), &server.proxies)));
    let mut stranger = None;
    if let (Some(address), Authenticator::Token(_)) = (&address, &server.sessions.auth) {
        stranger = serving.strangers.enter(address, most).map(Box::new);
        if stranger.is_none() {
            return too_many("too many connections from this address have not said who they are\n");
        }
    }
    let identity = match identify(server, &request, counter).await {
        Ok(identity) => identity,
        Err(refused) => {
            metrics().refused.increment(1);
            return refused;
        }
    };
    let id = open.id;
    metrics().accepted.increment(1);
    tokio::spawn(async move {
        let Some((stream, first)) = take_stream(handshake.upgraded).await else {
            return;
        };
        let serving = open.serving.clone();
        let server = &serving.server;
        // A task of its own: what the upgrade needed does not stay with the connection.
        if echo {
            let outbox = server.sessions.outbox_bytes;
            let client = Arc::new(Client::unknown(id, outbox));
            server.clients.insert(client.clone(), false);
            tokio::spawn(ws::run(stream, first, Echo(client), server.timing, open));
        } else {
            let session = Session::open(server.sessions.clone(), id, identity, address, stranger);
            server.clients.insert(session.client().clone(), true);
            tokio::spawn(ws::run(
                stream,
                first,
                SessionHandler(session),
                server.timing,
                open,
            ));
        }
    });
    handshake.response
}

fn too_many(why: &'static str) -> Response<Body> {
    metrics().refused.increment(1);
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "5")], why).into_response()
}

/// Who asks; `None` where that is to be said by a first frame.
async fn identify(
    server: &Server,
    request: &Request<Incoming>,
    counter: u64,
) -> Result<Option<Identity>, Response<Body>> {
    let query = request.uri().query().unwrap_or_default();
    let sessions = &server.sessions;
    if matches!(sessions.auth, Authenticator::Anonymous) {
        let identity = auth::anonymous(query, server.nonce, counter);
        let refused = |message| (StatusCode::BAD_REQUEST, format!("{message}\n")).into_response();
        return identity.map(Some).map_err(refused);
    }
    let Some(token) = auth::bearer(request.headers(), query) else {
        return Ok(None);
    };
    match sessions.auth.verify(&token, sessions.store.now_ms()).await {
        Ok(token) => Ok(Some(token.into())),
        Err(error @ TokenError::NoKeys) => {
            let retry = [(RETRY_AFTER, "1")];
            Err((StatusCode::SERVICE_UNAVAILABLE, retry, format!("{error}\n")).into_response())
        }
        Err(error) => {
            metrics().tokens_refused.increment(1);
            let scheme = [(WWW_AUTHENTICATE, "Bearer")];
            Err((StatusCode::UNAUTHORIZED, scheme, format!("{error}\n")).into_response())
        }
    }
}

/// The TCP stream behind an upgraded connection, and what was read of it beyond the handshake.
async fn take_stream(upgraded: fastwebsockets::upgrade::UpgradeFut) -> Option<(TcpStream, Bytes)> {
    let upgraded = match upgraded.await {
        Ok(websocket) => websocket.into_inner().into_inner(),
        Err(error) => {
            tracing::debug!(%error, "the peer was gone before the upgrade");
            return None;
        }
    };
    match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => Some((parts.io.into_inner(), parts.read_buf)),
        Err(_) => {
            tracing::error!("an upgraded connection is not the stream that was served");
            None
        }
    }
}
