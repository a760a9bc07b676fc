//! Rooms in Redis.
