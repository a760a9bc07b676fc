//! What operators and browsers get over HTTP besides rooms: health, metrics, the page.

pub mod health;
pub mod page;
