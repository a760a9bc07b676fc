//! Gateways that share a store.

use super::{client::Client, process::Gateway, redis_server::RedisServer};

/// Where the rooms of a cluster are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    /// In the one gateway's memory.
    Memory,
    /// In a real Redis.
    Redis,
}

/// Gateways, and the Redis they share if they do.
pub(crate) struct Cluster {
    pub(crate) gateways: Vec<Gateway>,
    pub(crate) redis: Option<RedisServer>,
}

impl Cluster {
    /// Starts as many gateways as the store allows, up to `most`: over memory it is one.
    pub(crate) async fn start(store: Store, most: usize, envs: &[(&str, &str)]) -> Self {
        let redis = (store == Store::Redis).then(RedisServer::start);
        let url = redis.as_ref().map(RedisServer::url);
        let count = if redis.is_some() { most } else { 1 };
        let mut gateways = Vec::new();
        for number in 1..=count {
            let node = format!("gw-{number}");
            let mut all = vec![("NODE_ID", node.as_str()), ("HEARTBEAT_MS", "60000")];
            all.extend(url.as_deref().map(|url| ("REDIS_URL", url)));
            all.extend_from_slice(envs);
            gateways.push(Gateway::start(&all));
        }
        for gateway in &gateways {
            gateway.ready().await;
        }
        Self { gateways, redis }
    }

    /// A client on the gateway of this number, or of the rest of its division by their number.
    pub(crate) async fn client(&self, gateway: usize, user: &str) -> Client {
        Client::connect(self.gateways[gateway % self.gateways.len()].addr, user).await
    }
}
