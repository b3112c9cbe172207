//! What an agent is asked.

mod exec;
mod file;
mod run;
mod sandbox;
mod template;

pub use exec::*;
pub use file::*;
pub use run::*;
pub use sandbox::*;
pub use template::*;
