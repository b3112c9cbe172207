//! How many processors the account may run: the first thing that new accounts lack.

use serde_json::json;

use super::client::Client;
use super::json::{Question, ask};
use crate::error::CloudError;

/// Service Quotas API, 2019-06-24.
const GET_SERVICE_QUOTA: Question = Question {
    name: "GetServiceQuota",
    host: "servicequotas",
    service: "servicequotas",
    target: "ServiceQuotasV20190624.GetServiceQuota",
};
/// "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances", in processors.
pub(super) const STANDARD: &str = "L-1216C47A";

/// Whether types of this name count for [`STANDARD`]; others have quotas of their own.
pub(super) fn is_standard(kind: &str) -> bool {
    let family = kind.split('.').next().unwrap_or_default();
    let name: String = family
        .chars()
        .take_while(char::is_ascii_lowercase)
        .collect();
    ["a", "c", "d", "h", "i", "im", "is", "m", "r", "t", "z"].contains(&name.as_str())
}

/// The limit of a region.
pub(super) async fn processors(client: &Client, region: &str) -> Result<u32, CloudError> {
    let question = GET_SERVICE_QUOTA;
    let body = json!({ "ServiceCode": "ec2", "QuotaCode": STANDARD });
    let answer = ask(client, region, question, &body).await?;
    let value = answer
        .get("Quota")
        .and_then(|quota| quota.get("Value")?.as_f64());
    // `as` ends at the bounds of the type.
    value
        .map(|value| value as u32)
        .ok_or_else(|| question.senseless("Quota.Value"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_have_quotas() {
        for kind in [
            "c8i.2xlarge",
            "m7i-flex.large",
            "c5.metal",
            "t3.micro",
            "im4gn.large",
            "r8id.xlarge",
        ] {
            assert!(is_standard(kind), "{kind}");
        }
        for kind in [
            "p5.48xlarge",
            "g5.xlarge",
            "x2iedn.xlarge",
            "hpc7a.96xlarge",
            "u-6tb1.metal",
            "mac2.metal",
            "",
        ] {
            assert!(!is_standard(kind), "{kind}");
        }
    }
}
