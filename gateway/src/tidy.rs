//! When a map is rid of what has run out: each time that it has doubled. At every insertion past a bound it would be looked
//! through in vain as long as all that it holds is in use, and under a lock.

use std::collections::HashMap;

/// See the module. Smaller maps than `LEAST` are let be.
#[derive(Debug, Default)]
pub struct Tidy<const LEAST: usize> {
    /// Twice what was left the last time.
    at: usize,
}

impl<const LEAST: usize> Tidy<LEAST> {
    /// Removes what is not to be kept, if it is time.
    pub fn tidy<K, V>(&mut self, map: &mut HashMap<K, V>, mut keep: impl FnMut(&V) -> bool) {
        if map.len() >= self.at.max(LEAST) {
            map.retain(|_, value| keep(value));
            self.at = map.len().saturating_mul(2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_in_use_is_looked_through_when_it_has_doubled() {
        let (mut tidy, mut map) = (Tidy::<4>::default(), HashMap::new());
        let mut looks = Vec::new();
        for n in 1..=64 {
            let before = map.len();
            let mut looked = 0;
            tidy.tidy(&mut map, |_| {
                looked += 1;
                true
            });
            assert!(looked == 0 || looked == before);
            if looked > 0 {
                looks.push(before);
            }
            map.insert(n, n);
        }
        assert_eq!(looks, [4, 8, 16, 32]);
        // What has run out goes, and the next time is sooner again.
        tidy.tidy(&mut map, |n| *n > 60);
        assert_eq!(map.len(), 4);
        map.extend((100..104).map(|n| (n, n)));
        tidy.tidy(&mut map, |_| false);
        assert!(map.is_empty());
    }
}
