//! Bounds on what a guest reads from its disk.
//!
//! A guest can read its disk without end, past its own page cache, and each read is work of the host's. Firecracker
//! bounds it by token buckets: so much at once, and as much again in each second. Source: Firecracker,
//! `src/firecracker/swagger/firecracker.yaml`, `RateLimiter` and `TokenBucket`, v1.16.1.

use super::requests::{RateLimiter, TokenBucket};

/// Milliseconds in which a bucket is full again.
const SECOND_MS: u64 = 1000;

/// What a guest may read of its disk in a second, and at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskLimits {
    /// Bytes; not 0, which Firecracker takes for no bound.
    pub bytes_per_s: u64,
    /// Requests; not 0.
    pub ops_per_s: u64,
}

impl DiskLimits {
    /// What no honest program feels: the largest built-in template is read whole in two seconds, at once for the most
    /// part, and what was read once is in the guest's page cache.
    pub const DEFAULT: DiskLimits = DiskLimits {
        bytes_per_s: 512 << 20,
        ops_per_s: 65_536,
    };

    pub(super) fn limiter(self) -> RateLimiter {
        let bucket = |size: u64| {
            Some(TokenBucket {
                size: size.max(1),
                refill_time: SECOND_MS,
            })
        };
        RateLimiter {
            bandwidth: bucket(self.bytes_per_s),
            ops: bucket(self.ops_per_s),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_buckets_fill_again_in_a_second_and_neither_is_without_a_bound() {
        let limiter = |bytes_per_s, ops_per_s| {
            let limits = DiskLimits {
                bytes_per_s,
                ops_per_s,
            };
            serde_json::to_string(&limits.limiter()).unwrap()
        };
        assert_eq!(
            limiter(1 << 20, 100),
            r#"{"bandwidth":{"size":1048576,"refill_time":1000},"ops":{"size":100,"refill_time":1000}}"#
        );
        assert_eq!(
            limiter(0, 0),
            r#"{"bandwidth":{"size":1,"refill_time":1000},"ops":{"size":1,"refill_time":1000}}"#
        );
    }
}
