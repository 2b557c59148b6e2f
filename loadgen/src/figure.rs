//! Single figures that are compared with what the machine can do, each measured in one way against whatever answers: a
//! broker, or a server with no broker behind it.

pub mod commit;
pub mod consume;
pub mod crash;
pub mod idle;
pub mod ingest;
pub mod join;
pub mod round_trip;
pub mod start;
pub mod sustained;

use corelane::{Client, Options};

/// A client with the name that figures use.
///
/// # Errors
/// As [`corelane::connect_with`].
pub(crate) async fn connect(address: &str) -> anyhow::Result<Client> {
    let options = Options { name: Some("corelane-bench".to_owned()), ..Options::default() };
    Ok(corelane::connect_with(address, options).await?)
}

/// The middle one of some figures; of an even number the lower of the two.
///
/// Panics without any.
#[must_use]
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() - 1) / 2]
}
