//! `firelane audit`: the record of what was done to keys and to the service.

use firelane_store::db::{AuditFault, AuditHead, AuditVerdict, Db, OpenError};

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
    let db = Db::open(&path).await?;
    let verdict = db.audit_verify(None).await;
    // The lock is given up before anybody is told.
    db.close().await;
    match verdict.map_err(Failure::platform)? {
        AuditVerdict::Whole(AuditHead { seq, hash }) => {
            let head: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            say(format_args!(
                "{seq} rows, unbroken; the last has the hash {head}"
            ))?;
            Ok(0)
        }
        AuditVerdict::Broken { seq, fault } => {
            let what = match fault {
                AuditFault::Missing => "is missing",
                AuditFault::Hash => "is not what its hash says",
                AuditFault::Noted => "is not the one that was noted",
            };
            eprintln!("firelane: the audit is broken: row {seq} {what}");
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
