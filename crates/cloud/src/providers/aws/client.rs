//! One call: parameters, signature, answer.

use std::time::SystemTime;

use reqwest::header::{CONTENT_TYPE, HeaderValue};

use super::credentials::Chain;
use super::params::{EC2_VERSION, Params, STS_VERSION};
use super::sign::{self, Scope};
use super::xml::{self, Node};
use super::{NAME, errors};
use crate::error::{Class, CloudError, Effect};
use crate::http::{Endpoint, Http, Method, Request, Url};

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
        let credentials = self.credentials.get().await?;
        let url = self.url(region, action)?;
        let version = match action.service {
            "sts" => STS_VERSION,
            _ => EC2_VERSION,
        };
        let body = params.encode(action.name, version);
        let form = HeaderValue::from_static("application/x-www-form-urlencoded; charset=utf-8");
        let mut headers = vec![(CONTENT_TYPE, form)];
        let scope = Scope {
            region,
            service: action.service,
            time: SystemTime::now(),
        };
        let signed = sign::headers(&credentials, scope, &url, &headers, &body)
            .map_err(|error| action.error(Class::Invalid, error.to_string()))?;
        headers.extend(signed);
        let request = Request {
            method: Method::POST,
            url,
            headers,
            body,
        };
        let reply = self.http.send(action.name, request).await.map_err(|lost| {
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

    /// Where a service is asked in a region.
    fn url(&self, region: &str, action: Action) -> Result<Url, CloudError> {
        if let Some(endpoint) = &self.endpoint {
            return Ok(endpoint.url().clone());
        }
        let domain = if region.starts_with("cn-") {
            "amazonaws.com.cn"
        } else {
            "amazonaws.com"
        };
        format!("https://{}.{region}.{domain}/", action.service)
            .parse()
            .map_err(|_| action.error(Class::Invalid, "the region is part of no host name"))
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
    if fits {
        return Ok(());
    }
    let message = format!("{region:?} is no region");
    Err(CloudError::new(NAME, "open", Class::Invalid, message)
        .with_remedy("regions look like us-east-1 or eu-central-1"))
}
