//! How much one caller has under way at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts the requests under way by principal.
#[derive(Debug)]
pub(crate) struct Limit {
    most: usize,
    under_way: Mutex<HashMap<String, usize>>,
}

/// One request under way, until it is dropped.
#[derive(Debug)]
pub struct Permit {
    limit: Arc<Limit>,
    name: String,
}

impl Limit {
    /// At most so many of each principal; 0 is no bound.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, under_way: Mutex::default() })
    }

    /// A place for one more, where there is one.
    pub(crate) fn enter(self: &Arc<Self>, name: &str) -> Option<Permit> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let count = under_way.entry(name.to_owned()).or_default();
        if self.most > 0 && *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Permit { limit: Arc::clone(self), name: name.to_owned() })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut under_way = self.limit.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = under_way.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                // Names come from tokens: what is not under way takes no memory.
                under_way.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_principal_has_its_own_places_and_gets_them_back() {
        let limit = Limit::new(2);
        let held = [limit.enter("a").unwrap(), limit.enter("a").unwrap()];
        assert!(limit.enter("a").is_none());
        assert!(limit.enter("b").is_some());
        drop(held);
        assert!(limit.enter("a").is_some());
        assert!(limit.under_way.lock().unwrap().is_empty());
        let open = Limit::new(0);
        let _held: Vec<_> = (0..100).map(|_| open.enter("a").unwrap()).collect();
    }
}
