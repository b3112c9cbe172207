//! What an agent is asked.

mod exec;
mod file;
mod run;
mod sandbox;

pub use exec::*;
pub use file::*;
pub use run::*;
pub use sandbox::*;
