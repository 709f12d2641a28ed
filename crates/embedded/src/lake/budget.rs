//! How many bytes the lake takes, from its start to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is left to be written. What is deleted does not come back: this is for trying out.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    left: Arc<AtomicU64>,
    total: u64,
}

/// More was to be written than is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the embedded lake is for trying out and takes {total} bytes from its start to its end; these \
     are more than the rest: start it again"
)]
pub(crate) struct Full {
    total: u64,
}

impl Budget {
    pub(crate) fn new(total: u64) -> Self {
        Self { left: Arc::new(AtomicU64::new(total)), total }
    }

    /// Whether that many bytes would still be taken now.
    pub(crate) fn fits(&self, bytes: u64) -> Result<(), Full> {
        if bytes <= self.left.load(Ordering::Relaxed) { Ok(()) } else { Err(self.full()) }
    }

    /// Takes the bytes off what is left, or leaves it as it was.
    pub(crate) fn take(&self, bytes: u64) -> Result<(), Full> {
        let taken = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        taken.map(drop).map_err(|_| self.full())
    }

    fn full(&self) -> Full {
        Full { total: self.total }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_gone() {
        let budget = Budget::new(10);
        budget.clone().take(7).unwrap();
        assert!(budget.fits(3).is_ok() && budget.fits(4).is_err());
        assert!(budget.take(4).unwrap_err().to_string().contains("10 bytes"));
        budget.take(3).unwrap();
        assert!(budget.take(1).is_err() && budget.take(0).is_ok());
    }
}
