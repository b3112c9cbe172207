//! What is made of many samples. The benchmarks in `benches` use this file too, so its
//! tests are in `report`.

/// The smallest value that at least `percent` of the sorted values do not exceed.
pub(crate) fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

/// Several percentiles of values in any order.
pub(crate) fn percentiles<const N: usize>(values: &[f64], percents: [usize; N]) -> [f64; N] {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    percents.map(|percent| percentile(&sorted, percent))
}
