//! One call: parameters, signature, answer.

use std::time::SystemTime;

use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};

use super::credentials::Chain;
use super::params::{EC2_VERSION, Params, STS_VERSION};
use super::sign::{self, Scope};
use super::sources::CHECK_IP;
use super::xml::{self, Node};
use super::{NAME, errors};
use crate::error::{Class, CloudError, Effect};
use crate::http::{Endpoint, Http, Method, Reply, Request, Url};

/// Most pages of one list: a thousand instances each.
const MOST_PAGES: usize = 200;

/// One thing that can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Action {
    /// Its name, for example `RunInstances`.
    pub(super) name: &'static str,
    /// Whether it changes anything.
    pub(super) changes: bool,
    /// Name of the service: `ec2` or `sts`.
    service: &'static str,
}

const fn reads(name: &'static str) -> Action {
    Action {
        name,
        changes: false,
        service: "ec2",
    }
}

const fn changes(name: &'static str) -> Action {
    Action {
        changes: true,
        ..reads(name)
    }
}

pub(super) const GET_CALLER_IDENTITY: Action = Action {
    service: "sts",
    ..reads("GetCallerIdentity")
};
pub(super) const DESCRIBE_REGIONS: Action = reads("DescribeRegions");
pub(super) const DESCRIBE_IMAGES: Action = reads("DescribeImages");
pub(super) const DESCRIBE_INSTANCE_TYPES: Action = reads("DescribeInstanceTypes");
pub(super) const DESCRIBE_VPCS: Action = reads("DescribeVpcs");
pub(super) const DESCRIBE_SUBNETS: Action = reads("DescribeSubnets");
pub(super) const DESCRIBE_SECURITY_GROUPS: Action = reads("DescribeSecurityGroups");
pub(super) const DESCRIBE_SECURITY_GROUP_RULES: Action = reads("DescribeSecurityGroupRules");
pub(super) const DESCRIBE_INSTANCES: Action = reads("DescribeInstances");
pub(super) const GET_CONSOLE_OUTPUT: Action = reads("GetConsoleOutput");
pub(super) const CREATE_SECURITY_GROUP: Action = changes("CreateSecurityGroup");
pub(super) const AUTHORIZE_INGRESS: Action = changes("AuthorizeSecurityGroupIngress");
pub(super) const REVOKE_INGRESS: Action = changes("RevokeSecurityGroupIngress");
pub(super) const DELETE_SECURITY_GROUP: Action = changes("DeleteSecurityGroup");
pub(super) const RUN_INSTANCES: Action = changes("RunInstances");
pub(super) const TERMINATE_INSTANCES: Action = changes("TerminateInstances");

impl Action {
    /// It failed.
    pub(super) fn error(self, class: Class, message: impl AsRef<str>) -> CloudError {
        CloudError::new(NAME, self.name, class, message)
    }

    /// The answer is not what it has to be. Something may have been changed.
    pub(super) fn senseless(self, message: impl AsRef<str>) -> CloudError {
        let error = self.error(Class::Transient, message);
        if self.changes {
            error.with_unknown_effect()
        } else {
            error
        }
    }

    /// Something that the answer has to have.
    pub(super) fn need<'a>(self, node: &'a Node, path: &str) -> Result<&'a str, CloudError> {
        node.text(path)
            .ok_or_else(|| self.senseless(format!("the answer has no {path} in {node}")))
    }
}

/// Asks EC2 and STS.
pub(super) struct Client {
    http: Http,
    endpoint: Option<Endpoint>,
    credentials: Chain,
}

impl Client {
    pub(super) fn new(
        endpoint: Option<Endpoint>,
        credentials: Chain,
    ) -> Result<Client, CloudError> {
        let local = endpoint.as_ref().is_some_and(Endpoint::is_loopback);
        let http = if local {
            Http::direct(NAME, std::time::Duration::from_secs(60))?
        } else {
            Http::new(NAME)?
        };
        Ok(Client {
            http,
            endpoint,
            credentials,
        })
    }

    /// Asks one thing.
    pub(super) async fn call(
        &self,
        region: &str,
        action: Action,
        params: &Params,
    ) -> Result<Node, CloudError> {
        let version = match action.service {
            "sts" => STS_VERSION,
            _ => EC2_VERSION,
        };
        let body = params.encode(action.name, version);
        let form = HeaderValue::from_static("application/x-www-form-urlencoded; charset=utf-8");
        let host = format!("{}.{region}", action.service);
        let headers = vec![(CONTENT_TYPE, form)];
        let reply = self
            .post(action.name, action.service, &host, region, headers, body)
            .await
            .map_err(|lost| {
                let effect = if action.changes {
                    lost.effect
                } else {
                    Effect::None
                };
                CloudError { effect, ..lost }
            })?;
        if !reply.is_success() {
            return Err(errors::refused(action, &reply));
        }
        let node = xml::parse(&reply.body).map_err(|error| action.senseless(error.to_string()))?;
        if node.name() != format!("{}Response", action.name) {
            return Err(action.senseless(format!("the answer is {node}")));
        }
        Ok(node)
    }

    /// Asks for all pages of a list.
    pub(super) async fn pages(
        &self,
        region: &str,
        action: Action,
        params: &Params,
    ) -> Result<Vec<Node>, CloudError> {
        let mut pages: Vec<Node> = Vec::new();
        let mut asked = params.clone();
        while pages.len() < MOST_PAGES {
            let page = self.call(region, action, &asked).await?;
            let token = page.text("nextToken").map(str::to_owned);
            pages.push(page);
            match token {
                None => return Ok(pages),
                Some(token) => asked = params.clone().set("NextToken", token),
            }
        }
        Err(action.senseless(format!("the list has more than {MOST_PAGES} pages")))
    }

    /// Signs and sends a POST to a service, whose host is without the domain here.
    pub(super) async fn post(
        &self,
        call: &str,
        service: &str,
        host: &str,
        region: &str,
        mut headers: Vec<(HeaderName, HeaderValue)>,
        body: Vec<u8>,
    ) -> Result<Reply, CloudError> {
        let invalid = |message: &str| CloudError::new(NAME, call, Class::Invalid, message);
        let credentials = self.credentials.get().await?;
        let url = self
            .url(host)
            .ok_or_else(|| invalid("the region is part of no host name"))?;
        let scope = Scope {
            region,
            service,
            time: SystemTime::now(),
        };
        let signed = sign::headers(&credentials, scope, &url, &headers, &body)
            .map_err(|error| invalid(&error.to_string()))?;
        headers.extend(signed);
        let request = Request {
            method: Method::POST,
            url,
            headers,
            body,
        };
        self.http.send(call, request).await
    }

    /// Asks which address this machine has. The question says nothing of who asks.
    pub(super) async fn own_address(&self, call: &str) -> Result<Reply, CloudError> {
        let url = match &self.endpoint {
            Some(endpoint) => endpoint.url().clone(),
            None => CHECK_IP.parse().expect("a URL of ours"),
        };
        let request = Request {
            method: Method::GET,
            url,
            headers: Vec::new(),
            body: Vec::new(),
        };
        self.http.send(call, request).await
    }

    /// Where a service is asked in a region.
    fn url(&self, host: &str) -> Option<Url> {
        if let Some(endpoint) = &self.endpoint {
            return Some(endpoint.url().clone());
        }
        format!("https://{host}.amazonaws.com/").parse().ok()
    }
}

/// Refuses what cannot be a region: it becomes part of a host name.
pub(super) fn check_region(region: &str) -> Result<(), CloudError> {
    let fits = region.len() <= 32
        && region.split('-').count() >= 3
        && region.split('-').all(|part| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        });
    let refused = |message: String| CloudError::new(NAME, "open", Class::Invalid, message);
    if !fits {
        return Err(refused(format!("{region:?} is no region"))
            .with_remedy("regions look like us-east-1 or eu-central-1"));
    }
    if is_apart(region) {
        let message =
            format!("{region} has hosts and images of its own, which Firelane does not know");
        return Err(refused(message).with_remedy("take a region such as us-east-1"));
    }
    Ok(())
}

/// Whether a region is of a partition of its own: China, governments, the sovereign cloud.
pub(super) fn is_apart(region: &str) -> bool {
    let apart = ["cn-", "us-gov-", "us-iso", "eusc-", "eu-iso"];
    apart.iter().any(|begin| region.starts_with(begin))
}
