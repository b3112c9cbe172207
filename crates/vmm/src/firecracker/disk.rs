//! Bounds on what a guest reads from its disk, as Firecracker has them: token buckets, so much at once, and as much again
//! in each second. Source: Firecracker, `src/firecracker/swagger/firecracker.yaml`, `RateLimiter` and `TokenBucket`,
//! v1.16.1.

use firelane_launch::machine::DiskLimits;

use super::requests::{RateLimiter, TokenBucket};

/// Milliseconds in which a bucket is full again.
const SECOND_MS: u64 = 1000;

/// A limiter with these bounds, of which none is 0, which Firecracker takes for none.
pub(super) fn limiter(limits: DiskLimits) -> RateLimiter {
    let bucket = |size: u64| {
        Some(TokenBucket {
            size: size.max(1),
            refill_time: SECOND_MS,
        })
    };
    RateLimiter {
        bandwidth: bucket(limits.bytes_per_s),
        ops: bucket(limits.ops_per_s),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_buckets_fill_again_in_a_second_and_neither_is_without_a_bound() {
        let json = |bytes_per_s, ops_per_s| {
            let limits = DiskLimits {
                bytes_per_s,
                ops_per_s,
            };
            serde_json::to_string(&limiter(limits)).unwrap()
        };
        assert_eq!(
            json(1 << 20, 100),
            r#"{"bandwidth":{"size":1048576,"refill_time":1000},"ops":{"size":100,"refill_time":1000}}"#
        );
        assert_eq!(
            json(0, 0),
            r#"{"bandwidth":{"size":1,"refill_time":1000},"ops":{"size":1,"refill_time":1000}}"#
        );
    }
}
