//! Names that nobody else makes.

use std::hash::{BuildHasher, RandomState};

/// 64 random bits. The standard library seeds its hashers from the operating system; good for names, not for secrets.
pub fn bits() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// A room's epoch: 10 characters of `0-9 a-z`, so that two lives of a room do not share one.
pub fn epoch() -> String {
    let mut rest = bits();
    (0..10)
        .map(|_| {
            let digit = (rest % 36) as u32;
            rest /= 36;
            char::from_digit(digit, 36).unwrap_or('0')
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_differ() {
        let epochs: std::collections::HashSet<String> = (0..1000).map(|_| epoch()).collect();
        assert_eq!(epochs.len(), 1000);
        assert!(epochs.iter().all(|e| e.len() == 10));
    }
}
