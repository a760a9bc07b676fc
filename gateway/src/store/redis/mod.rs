//! Rooms in Redis.
use super::*;
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct ConfigError;
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct BootError;
pub struct RedisConfig {
    pub url: String,
    pub timeout: Duration,
    pub max_retries: u32,
    pub retry_delay: Duration,
    pub node: NodeId,
    pub limits: StoreLimits,
}
pub struct RedisStore;
impl RedisStore {
    pub fn new(_: RedisConfig, _: Arc<dyn EventSink>) -> Result<Arc<Self>, ConfigError> {
        Err(ConfigError)
    }
    pub async fn boot(&self, _: Duration) -> Result<(), BootError> {
        Ok(())
    }
}
impl Store for RedisStore {
    fn apply<'a>(&'a self, _: &'a RoomId, _: Vec<Op>) -> BoxFuture<'a, Result<Vec<Reply>, StoreError>> {
        unreachable!()
    }
    fn subscribe<'a>(&'a self, _: &'a RoomId) -> BoxFuture<'a, Result<(), StoreError>> {
        unreachable!()
    }
    fn unsubscribe(&self, _: &RoomId) {}
    fn readiness(&self) -> Readiness {
        Readiness::Ready
    }
    fn now_ms(&self) -> u64 {
        0
    }
}
