//! Stand-ins for calls that the library is going to have.

use std::time::Duration;

use circuit_breaker_supervisor::{ChildInfo, ChildStatus, Handle, WaitError};

/// Will be `Handle::wait_until_healthy`.
pub fn wait_until_healthy(
    handle: &Handle,
    id: &str,
    after_run: u64,
    limit: Duration,
) -> Result<ChildInfo, WaitError> {
    handle
        .wait_for(id, limit, |child| child.run > after_run && child.status == ChildStatus::Healthy)
}
