//! The lock under which a restart or a start is requested.

use std::time::Duration;

use tokio::time::sleep;

use crate::{error::Result, files::Lock, records::memory::Memory};

/// The pause before another attempt at a lock that another process holds.
pub(crate) const LOCK_RETRY: Duration = Duration::from_millis(50);

/// Takes the lock; `None` if another process held it a moment ago, because that one may have requested the same.
pub(super) async fn wake_lock(memory: &Memory, label: &str) -> Result<Option<Lock>> {
    let lock = memory.try_wake_lock(label)?;
    if lock.is_none() {
        sleep(LOCK_RETRY).await;
    }
    Ok(lock)
}
