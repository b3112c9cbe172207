//! What EC2 and STS say when they refuse, and what it means.
//!
//! Codes are those of "Error codes for the Amazon EC2 API" (EC2 API reference). EC2 writes
//! `Response/Errors/Error`, STS writes `ErrorResponse/Error`.

use super::client::Action;
use super::xml;
use crate::error::{Class, CloudError};
use crate::http::Reply;

/// A refusal as an error.
pub(super) fn refused(action: Action, reply: &Reply) -> CloudError {
    let (code, message) = said(&reply.body);
    let error = error(
        |class, text| action.error(class, text),
        reply,
        code,
        message,
    );
    // A server that failed may have done it before.
    if error.class == Class::Transient && action.changes {
        error.with_unknown_effect()
    } else {
        error
    }
}

/// The same of code and message that were read already.
pub(super) fn error(
    made: impl Fn(Class, &str) -> CloudError,
    reply: &Reply,
    code: Option<String>,
    message: Option<String>,
) -> CloudError {
    let class = code
        .as_deref()
        .and_then(class)
        .unwrap_or_else(|| class_of_status(reply.status));
    let mut error = match code.as_deref() {
        // The message repeats what was signed, and with it the session's token.
        Some("SignatureDoesNotMatch" | "InvalidSignatureException") => {
            made(class, "the secret key does not fit the access key")
        }
        _ => {
            let status = || format!("status {}", reply.status);
            made(class, &message.unwrap_or_else(status))
        }
    };
    if let Some(code) = code {
        if let Some(remedy) = remedy(&code) {
            error = error.with_remedy(remedy);
        }
        error = error.with_code(code);
    }
    match reply.retry_after {
        Some(wait) => error.with_retry_after(wait),
        None => error,
    }
}

/// Code and message.
fn said(body: &[u8]) -> (Option<String>, Option<String>) {
    let Ok(node) = xml::parse(body) else {
        return (None, None);
    };
    let Some(error) = node.at("Errors/Error").or_else(|| node.at("Error")) else {
        return (None, None);
    };
    let text = |name| error.text(name).map(str::to_owned);
    (text("Code"), text("Message"))
}

/// None: a code that is not known here.
fn class(code: &str) -> Option<Class> {
    Some(match code {
        "RequestLimitExceeded"
        | "Throttling"
        | "ThrottlingException"
        | "TooManyRequestsException"
        | "RequestThrottled"
        | "SlowDown"
        | "EC2ThrottledException" => Class::Throttle,
        "InsufficientInstanceCapacity"
        | "InsufficientHostCapacity"
        | "InsufficientCapacity"
        | "InsufficientAddressCapacity"
        | "InsufficientReservedInstanceCapacity"
        | "SpotMaxPriceTooLow"
        | "Unsupported" => Class::Capacity,
        "VcpuLimitExceeded"
        | "InstanceLimitExceeded"
        | "MaxSpotInstanceCountExceeded"
        | "VolumeLimitExceeded"
        | "MaxIOPSLimitExceeded"
        | "SecurityGroupLimitExceeded"
        | "RulesPerSecurityGroupLimitExceeded"
        | "PendingVerification"
        | "TagLimitExceeded"
        | "InsufficientFreeAddressesInSubnet" => Class::Quota,
        "AuthFailure"
        | "UnauthorizedOperation"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "InvalidClientTokenId"
        | "SignatureDoesNotMatch"
        | "InvalidSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "IncompleteSignature"
        | "RequestExpired"
        | "AccessDenied"
        | "AccessDeniedException"
        | "OptInRequired"
        | "Blocked"
        | "PendingAccountVerification"
        | "UnrecognizedClientException"
        | "AccountProblem" => Class::Auth,
        "DependencyViolation"
        | "IncorrectInstanceState"
        | "IncorrectState"
        | "IdempotentParameterMismatch"
        | "ResourceInUse"
        | "ConcurrentTagAccess" => Class::Conflict,
        "InternalError" | "InternalFailure" | "ServerInternal" | "Unavailable"
        | "ServiceUnavailable" | "RequestTimeout" => Class::Transient,
        "IdempotentInstanceTerminated" => Class::Invalid,
        _ if code.ends_with(".Duplicate") || code.ends_with(".InUse") => Class::Conflict,
        _ if code.ends_with(".NotFound") || code == "NoSuchResourceException" => Class::NotFound,
        _ if code.starts_with("Invalid") || code.starts_with("Missing") => Class::Invalid,
        _ => return None,
    })
}

fn class_of_status(status: u16) -> Class {
    match status {
        401 | 403 => Class::Auth,
        404 => Class::NotFound,
        429 => Class::Throttle,
        // What is no XML and tells of success or of another place is not from EC2.
        ..=399 | 408 | 500.. => Class::Transient,
        _ => Class::Invalid,
    }
}

fn remedy(code: &str) -> Option<&'static str> {
    Some(match code {
        "AuthFailure"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "UnrecognizedClientException"
        | "SignatureDoesNotMatch"
        | "MissingAuthenticationToken" => {
            "check the access key and its secret: `aws sts get-caller-identity` tells whose they are"
        }
        "ExpiredToken" | "ExpiredTokenException" => "log in again, for example by `aws sso login`",
        "RequestExpired" => "set this machine's clock: a request is of use for five minutes",
        "UnauthorizedOperation" | "AccessDenied" | "AccessDeniedException" => {
            "let an administrator allow it: docs/providers/aws.md has the policy"
        }
        "OptInRequired" => "enable the region, or the account, in the console of AWS",
        "VcpuLimitExceeded" | "InstanceLimitExceeded" => {
            "ask for a higher limit in Service Quotas (Running On-Demand Standard instances), or take a smaller type"
        }
        "InsufficientInstanceCapacity" | "Unsupported" => "take another region, subnet or type",
        "IdempotentInstanceTerminated" => {
            "this lane's machine was given back; a new lane gets a new one"
        }
        "PendingVerification" => "AWS looks at new accounts for some hours: try again later",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::client::{DESCRIBE_INSTANCES, RUN_INSTANCES};
    use super::*;
    use crate::error::Effect;
    use proptest::prelude::*;

    fn reply(status: u16, body: &str) -> Reply {
        Reply {
            status,
            retry_after: None,
            calls_an_hour: None,
            body: body.as_bytes().to_vec(),
        }
    }

    fn ec2(code: &str) -> String {
        format!(
            "<Response><Errors><Error><Code>{code}</Code><Message>no</Message></Error></Errors><RequestID>r</RequestID></Response>"
        )
    }

    #[test]
    fn codes_have_classes() {
        let check = |code, expected| {
            let error = refused(RUN_INSTANCES, &reply(400, &ec2(code)));
            assert_eq!(error.class, expected, "{code}");
            assert_eq!(error.to_string(), format!("aws: RunInstances: no ({code})"));
            assert_eq!(error.effect, Effect::None, "{code}");
        };
        check("RequestLimitExceeded", Class::Throttle);
        check("InsufficientInstanceCapacity", Class::Capacity);
        check("VcpuLimitExceeded", Class::Quota);
        check("UnauthorizedOperation", Class::Auth);
        check("IdempotentParameterMismatch", Class::Conflict);
        check("InvalidGroup.Duplicate", Class::Conflict);
        check("InvalidInstanceID.NotFound", Class::NotFound);
        check("InvalidParameterValue", Class::Invalid);
        check("SomethingNew", Class::Invalid);
    }

    #[test]
    fn a_server_that_failed_may_have_done_it() {
        for body in [ec2("InternalError"), "<html>bad gateway".to_owned()] {
            let error = refused(RUN_INSTANCES, &reply(502, &body));
            assert_eq!(
                (error.class, error.effect),
                (Class::Transient, Effect::Unknown)
            );
            let error = refused(DESCRIBE_INSTANCES, &reply(502, &body));
            assert_eq!(
                (error.class, error.effect),
                (Class::Transient, Effect::None)
            );
        }
        let error = refused(RUN_INSTANCES, &reply(503, &ec2("RequestLimitExceeded")));
        assert_eq!((error.class, error.effect), (Class::Throttle, Effect::None));
    }

    #[test]
    fn a_signature_that_does_not_fit_tells_no_token() {
        let body = "<ErrorResponse><Error><Type>Sender</Type><Code>SignatureDoesNotMatch</Code>\
                    <Message>x-amz-security-token:hush</Message></Error></ErrorResponse>";
        let error = refused(RUN_INSTANCES, &reply(403, body));
        assert_eq!(error.class, Class::Auth);
        assert!(!error.to_string().contains("hush"));
        assert!(error.remedy.is_some());
    }

    proptest! {
        #[test]
        fn any_answer_has_a_class(status in 100_u16..600, body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let error = refused(RUN_INSTANCES, &Reply { status, retry_after: None, calls_an_hour: None, body });
            prop_assert!(!error.message.is_empty());
        }
    }
}
