//! Connections whose user is not known yet, by address. The store counts those that are; until then one address could take
//! every place of this node.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

/// See the module.
#[derive(Default)]
pub struct Strangers(Mutex<HashMap<Box<str>, u64>>);

/// Counts a connection until its user is known.
pub struct Stranger {
    all: Arc<Strangers>,
    address: Box<str>,
}

impl Strangers {
    /// Counts one more from an address; `None` where there are as many as may be.
    pub fn enter(self: &Arc<Self>, address: &str, most: u64) -> Option<Stranger> {
        let mut all = self.0.lock();
        let address: Box<str> = address.into();
        let count = all.entry(address.clone()).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Stranger {
            all: self.clone(),
            address,
        })
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut all = self.all.0.lock();
        if let Some(count) = all.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_so_many() {
        let all = Arc::new(Strangers::default());
        let one = all.enter("9.9.9.9", 1).unwrap();
        assert!(all.enter("9.9.9.9", 1).is_none());
        let other = all.enter("8.8.8.8", 1).unwrap();
        drop(one);
        drop((all.enter("9.9.9.9", 1).unwrap(), other));
        assert!(all.0.lock().is_empty(), "what nobody holds is forgotten");
    }
}
