//! `firelane audit`: the record of what was done to keys and to the service.

use firelane_store::db::{Db, OpenError};

use crate::args::AuditCommand;
use crate::failure::Failure;
use crate::say::say;

/// Exit code when the record was changed.
const BROKEN: u8 = 1;

pub(super) async fn audit(command: AuditCommand) -> Result<u8, Failure> {
    let AuditCommand::Verify { state } = command;
    let path = state.database();
    if !path.exists() {
        let error = anyhow::anyhow!("there is no database {}", path.display());
        return Err(Failure::platform(error).with_remedy("'firelane serve' makes one"));
    }
    let db = Db::open(&path)?;
    match db.verify_audit().await.map_err(Failure::platform)? {
        Ok((rows, head)) => {
            let head: String = head.iter().map(|byte| format!("{byte:02x}")).collect();
            say(format_args!(
                "{rows} rows, unbroken; the last has the hash {head}"
            ))?;
            Ok(0)
        }
        Err(broken) => {
            eprintln!("firelane: the audit is broken: {broken}");
            Ok(BROKEN)
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Failure {
        let remedy = error.remedy();
        Failure::platform(error).with_remedy(remedy)
    }
}
