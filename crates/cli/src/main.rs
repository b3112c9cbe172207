//! The `firelane` program: see [`firelane_cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    firelane_cli::main()
}
