//! The services of a host, as data.
//!
//! Each becomes a unit of systemd by the text beside it. There are two today: what hostd does as
//! root, and gateway, coordinator and agent in one process.

/// One service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Name of the unit, with its ending.
    pub name: &'static str,
    /// The unit.
    pub text: &'static str,
}

/// All of them, in the order in which they are started.
pub const UNITS: &[Unit] = &[
    Unit {
        name: "firelane-hostd.service",
        text: include_str!("../../../hostd/firelane-hostd.service"),
    },
    Unit {
        name: "firelane.service",
        text: include_str!("firelane.service"),
    },
];
