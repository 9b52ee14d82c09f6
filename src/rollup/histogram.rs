//! Log-linear histogram buckets.
