//! Errors as problems: what is the request's, what is the host's.

use std::error::Error;
use std::time::Duration;

use firelane_guest_proto::message::RefusedCode;
use firelane_image::StoreError;
use firelane_vmm::session::SessionError;
use firelane_wire::content::NotBase64;
use firelane_wire::problem::{Code, Problem, causes};

use crate::building::BuildingError;
use crate::clone::CloneError;
use crate::follow::FollowError;
use crate::workshop::PrepareError;

/// When a guest whose connection was cut is worth another try.
const CUT_RETRY: Duration = Duration::from_secs(1);

pub(crate) fn from_prepare(template: &str, error: &PrepareError) -> Problem {
    match error {
        PrepareError::Store(StoreError::NotFound { .. } | StoreError::BadName { .. }) => {
            let problem = Problem::not_found("template", template);
            problem.with_remedy("build it: firelane template build")
        }
        PrepareError::Store(refused @ StoreError::Refused { .. }) => {
            let remedy = refused.remedy().unwrap_or_default();
            internal(error).with_remedy(remedy)
        }
        PrepareError::NoNetworks { .. } => Problem::new(Code::Invalid, error.to_string())
            .with_remedy("as root, without the service: firelane run --driver qemu"),
        PrepareError::Rebuild(BuildingError::Build(failed)) => match failed.remedy() {
            Some(remedy) => internal(error).with_remedy(remedy),
            None => internal(error),
        },
        _ => internal(error),
    }
}

pub(crate) fn from_clone(error: &CloneError) -> Problem {
    match error.remedy() {
        Some(remedy) => internal(error).with_remedy(remedy),
        None => internal(error),
    }
}

pub(crate) fn from_content(error: &NotBase64) -> Problem {
    Problem::new(Code::Invalid, error.to_string())
}

pub(crate) fn from_session(error: &SessionError) -> Problem {
    let SessionError::Refused(refused) = error else {
        return match error {
            SessionError::TooLarge => Problem::new(Code::TooLarge, error.to_string()),
            // It is there again, over another connection.
            SessionError::Cut { .. } => {
                Problem::new(Code::Unavailable, error.to_string()).retry_after(CUT_RETRY)
            }
            _ => internal(error),
        };
    };
    let code = match refused.code {
        RefusedCode::Invalid | RefusedCode::Confined => Code::Invalid,
        RefusedCode::NoInterpreter => Code::NoInterpreter,
        RefusedCode::NotFound => Code::NotFound,
        RefusedCode::Conflict | RefusedCode::Busy | RefusedCode::TakenOver => Code::Conflict,
        RefusedCode::Denied => Code::Forbidden,
        RefusedCode::Exhausted => Code::StorageFull,
        RefusedCode::Stale | RefusedCode::Internal => Code::Internal,
    };
    let problem = Problem::new(code, error.to_string());
    match refused.code {
        RefusedCode::NoInterpreter => {
            problem.with_remedy("use a template that has it, such as default")
        }
        RefusedCode::Confined => problem.with_remedy("name files under /work, /home/user or /tmp"),
        RefusedCode::Exhausted => problem.with_remedy("give memory_mib more, or write less"),
        _ => problem,
    }
}

pub(crate) fn from_follow<E>(error: &FollowError<E>) -> Problem
where
    E: Error + 'static,
{
    match error {
        FollowError::Session(error) => from_session(error),
        _ => internal(error),
    }
}

/// The host's own failure, with its causes in one line.
pub(crate) fn internal(error: &dyn Error) -> Problem {
    let mut text = causes(error);
    // A guest may have worded a part of it.
    text.retain(|c| !c.is_control());
    Problem::new(Code::Internal, text)
}
