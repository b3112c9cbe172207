//! Signatures that botocore 1.44.5 made of the same requests at the same time.
//!
//! They are `SigV4Auth(credentials, service, region).add_auth(request)` with the clock at
//! 2026-11-23T12:34:56Z, and the key of AWS's own examples, which opens nothing.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use reqwest::header::{CONTENT_TYPE, HeaderValue};

use super::sign::{Scope, headers};

/// 2026-11-23T12:34:56Z
const NOW: Duration = Duration::from_secs(1_795_437_296);

struct Vector {
    token: Option<&'static str>,
    region: &'static str,
    service: &'static str,
    url: &'static str,
    body: &'static str,
    signed: &'static str,
    signature: &'static str,
}

const VECTORS: [Vector; 3] = [
    Vector {
        token: None,
        region: "us-east-1",
        service: "ec2",
        url: "https://ec2.us-east-1.amazonaws.com/",
        body: "Action=DescribeVpcs&Version=2016-11-15&Filter.1.Name=is-default&Filter.1.Value.1=true",
        signed: "content-type;host;x-amz-date",
        signature: "cd87dda5cc6b68a49475d3e4dcb9f3db2930c606bae8cb45332dc8f86e140400",
    },
    Vector {
        token: Some("session/token+with=signs"),
        region: "eu-central-1",
        service: "sts",
        url: "https://sts.eu-central-1.amazonaws.com/",
        body: "Action=GetCallerIdentity&Version=2011-06-15",
        signed: "content-type;host;x-amz-date;x-amz-security-token",
        signature: "16a46ab7f2a6ad88e7022d61dea9908ae98521ea7eb4914bb7df87add327093f",
    },
    Vector {
        token: None,
        region: "us-east-1",
        service: "ec2",
        url: "http://127.0.0.1:5000/",
        body: "Action=RunInstances&Version=2016-11-15&UserData=I2Nsb3VkLWNvbmZpZw%3D%3D&Name=a+b",
        signed: "content-type;host;x-amz-date",
        signature: "ba4e95576ae1fafd1dcf240c6e9ffba75ff6f4077ecb28130515c0412ed76db0",
    },
];

#[test]
fn requests_are_signed_as_botocore_signs_them() {
    for vector in VECTORS {
        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        let token = vector.token.map(str::to_owned);
        let credentials = Credentials::new("AKIDEXAMPLE", secret, token, None, "test");
        let scope = Scope {
            region: vector.region,
            service: vector.service,
            time: SystemTime::UNIX_EPOCH + NOW,
        };
        let form = HeaderValue::from_static("application/x-www-form-urlencoded; charset=utf-8");
        let url = vector.url.parse().unwrap();
        let body = vector.body.as_bytes();
        let made = headers(&credentials, scope, &url, &[(CONTENT_TYPE, form)], body).unwrap();
        let value = |name: &str| {
            let header = made.iter().find(|(header, _)| header.as_str() == name);
            header.map(|(_, value)| value.to_str().unwrap())
        };
        let Vector {
            region,
            service,
            signed,
            signature,
            ..
        } = vector;
        let scope = format!("20261123/{region}/{service}/aws4_request");
        assert_eq!(
            value("authorization").unwrap(),
            format!(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/{scope}, SignedHeaders={signed}, Signature={signature}"
            )
        );
        assert_eq!(value("x-amz-date"), Some("20261123T123456Z"));
        assert_eq!(value("x-amz-security-token"), vector.token);
        assert!(made.iter().all(|(_, value)| value.is_sensitive()));
    }
}
