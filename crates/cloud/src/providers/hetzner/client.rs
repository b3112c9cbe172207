//! One call: address, token, answer.

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::answers::{Listed, Page};
use super::{NAME, errors};
use crate::error::{Class, CloudError, Effect};
use crate::http::{Endpoint, Http, Method, Reply, Request, Url};

/// The variable that has the token of a project, the same as that of Hetzner's own programs.
pub(super) const TOKEN: &str = "HCLOUD_TOKEN";
/// The API (API reference, "Servers").
const API: &str = "https://api.hetzner.cloud/v1";
/// Tells who asks from which address, and nothing else.
const OWN_ADDRESS: &str = "https://ip.hetzner.com/";
/// Things of one page: the most that the API gives (API reference, "Pagination").
const PER_PAGE: &str = "50";
/// Most pages of one list.
const MOST_PAGES: usize = 200;

/// One thing that can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Action {
    /// Method and path, for example `POST /servers`. `{id}` is a number.
    pub(super) name: &'static str,
    method: Verb,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Get,
    Post,
    Delete,
}

const fn action(method: Verb, name: &'static str) -> Action {
    Action { name, method }
}

pub(super) const LOCATIONS: Action = action(Verb::Get, "GET /locations");
pub(super) const SERVER_TYPES: Action = action(Verb::Get, "GET /server_types");
pub(super) const IMAGES: Action = action(Verb::Get, "GET /images");
pub(super) const PRICING: Action = action(Verb::Get, "GET /pricing");
pub(super) const GET_ACTION: Action = action(Verb::Get, "GET /actions/{id}");
pub(super) const SERVERS: Action = action(Verb::Get, "GET /servers");
pub(super) const GET_SERVER: Action = action(Verb::Get, "GET /servers/{id}");
pub(super) const CREATE_SERVER: Action = action(Verb::Post, "POST /servers");
pub(super) const DELETE_SERVER: Action = action(Verb::Delete, "DELETE /servers/{id}");
pub(super) const FIREWALLS: Action = action(Verb::Get, "GET /firewalls");
pub(super) const CREATE_FIREWALL: Action = action(Verb::Post, "POST /firewalls");
pub(super) const SET_RULES: Action = action(Verb::Post, "POST /firewalls/{id}/actions/set_rules");
pub(super) const DELETE_FIREWALL: Action = action(Verb::Delete, "DELETE /firewalls/{id}");
pub(super) const KEYS: Action = action(Verb::Get, "GET /ssh_keys");
pub(super) const CREATE_KEY: Action = action(Verb::Post, "POST /ssh_keys");
pub(super) const DELETE_KEY: Action = action(Verb::Delete, "DELETE /ssh_keys/{id}");

impl Action {
    /// Whether it changes anything.
    pub(super) fn changes(self) -> bool {
        self.method != Verb::Get
    }

    /// It failed.
    pub(super) fn error(self, class: Class, message: impl AsRef<str>) -> CloudError {
        CloudError::new(NAME, self.name, class, message)
    }

    /// The answer is not what it has to be. Something may have been changed.
    pub(super) fn senseless(self, message: impl AsRef<str>) -> CloudError {
        let error = self.error(Class::Transient, message);
        if self.changes() {
            error.with_unknown_effect()
        } else {
            error
        }
    }

    /// The parts of its path.
    fn path(self, id: Option<u64>) -> Vec<String> {
        let path = self
            .name
            .split_once(" /")
            .map_or(self.name, |(_, path)| path);
        let number = id.map(|id| id.to_string()).unwrap_or_default();
        path.split('/')
            .map(|part| part.replace("{id}", &number))
            .collect()
    }
}

/// Asks the API of one project.
pub(super) struct Client {
    http: Http,
    base: Url,
    /// Another address is asked for everything.
    elsewhere: bool,
    /// As it is sent, marked as secret. None: there is none.
    token: Option<HeaderValue>,
}

impl Client {
    pub(super) fn new(
        endpoint: Option<&Endpoint>,
        token: Option<&str>,
    ) -> Result<Client, CloudError> {
        let local = endpoint.is_some_and(Endpoint::is_loopback);
        let http = if local {
            Http::direct(NAME, std::time::Duration::from_secs(60))?
        } else {
            Http::new(NAME)?
        };
        let token = token.map(bearer).transpose()?;
        let base = match endpoint {
            Some(endpoint) => endpoint.url().clone(),
            None => API.parse().expect("a URL of ours"),
        };
        Ok(Client {
            http,
            base,
            elsewhere: endpoint.is_some(),
            token,
        })
    }

    /// Asks one thing, with what is asked of a thing with this number, and reads the answer.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        action: Action,
        id: Option<u64>,
        body: Option<&impl Serialize>,
    ) -> Result<T, CloudError> {
        let body = body
            .map(serde_json::to_vec)
            .transpose()
            .map_err(|error| action.error(Class::Invalid, error.to_string()))?;
        let reply = self.send(action, id, &[], body.unwrap_or_default()).await?;
        read(action, &reply)
    }

    /// Looks at one thing.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        action: Action,
        id: Option<u64>,
    ) -> Result<T, CloudError> {
        read(action, &self.send(action, id, &[], Vec::new()).await?)
    }

    /// Asks for something whose answer says nothing more.
    pub(super) async fn done(&self, action: Action, id: u64) -> Result<(), CloudError> {
        self.send(action, Some(id), &[], Vec::new()).await.map(drop)
    }

    /// All things of a list, from all its pages.
    pub(super) async fn list<T: Listed>(
        &self,
        action: Action,
        filters: &[(&str, &str)],
    ) -> Result<Vec<T>, CloudError> {
        let mut things = Vec::new();
        let mut next = 1;
        for _ in 0..MOST_PAGES {
            let number = next.to_string();
            let mut query = filters.to_vec();
            query.extend([("page", number.as_str()), ("per_page", PER_PAGE)]);
            let reply = self.send(action, None, &query, Vec::new()).await?;
            let page: Page<T> = read(action, &reply)?;
            things.extend(page.things);
            match page.next {
                None => return Ok(things),
                Some(later) if later > next => next = later,
                Some(_) => return Err(action.senseless("a page names an earlier one as the next")),
            }
        }
        Err(action.senseless(format!("the list has more than {MOST_PAGES} pages")))
    }

    /// Asks which address this machine has. The question says nothing of who asks.
    pub(super) async fn own_address(&self, call: &str) -> Result<Reply, CloudError> {
        let url = if self.elsewhere {
            let mut url = self.base.clone();
            url.set_path("/ip");
            url
        } else {
            OWN_ADDRESS.parse().expect("a URL of ours")
        };
        let request = Request {
            method: Method::GET,
            url,
            headers: Vec::new(),
            body: Vec::new(),
        };
        self.http.send(call, request).await
    }

    async fn send(
        &self,
        action: Action,
        id: Option<u64>,
        query: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Reply, CloudError> {
        let Some(token) = &self.token else {
            return Err(action
                .error(Class::NoCredentials, format!("{TOKEN} is not set"))
                .with_remedy(format!(
                    "make a token with Read & Write in the console (the project, Security, API tokens), and export {TOKEN}"
                )));
        };
        let mut url = self.base.clone();
        if let Ok(mut parts) = url.path_segments_mut() {
            parts.pop_if_empty().extend(action.path(id));
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let json = HeaderValue::from_static("application/json");
        let mut headers = vec![(AUTHORIZATION, token.clone()), (ACCEPT, json.clone())];
        if !body.is_empty() {
            headers.push((CONTENT_TYPE, json));
        }
        let method = match action.method {
            Verb::Get => Method::GET,
            Verb::Post => Method::POST,
            Verb::Delete => Method::DELETE,
        };
        let request = Request {
            method,
            url,
            headers,
            body,
        };
        let sent = self.http.send(action.name, request).await;
        let reply = sent.map_err(|lost| {
            let effect = if action.changes() {
                lost.effect
            } else {
                Effect::None
            };
            CloudError { effect, ..lost }
        })?;
        if reply.is_success() {
            Ok(reply)
        } else {
            Err(errors::refused(action, &reply))
        }
    }
}

/// What the header is. A token that cannot be one is not repeated in the error.
fn bearer(token: &str) -> Result<HeaderValue, CloudError> {
    let token = token.trim();
    let fits = !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric());
    let header = fits.then(|| HeaderValue::try_from(format!("Bearer {token}")));
    let Some(Ok(mut header)) = header else {
        let message = format!("{TOKEN} is no token: those are letters and digits only");
        return Err(CloudError::new(NAME, "open", Class::Auth, message)
            .with_remedy("copy it again from the console, or make a new one"));
    };
    header.set_sensitive(true);
    Ok(header)
}

fn read<T: DeserializeOwned>(action: Action, reply: &Reply) -> Result<T, CloudError> {
    serde_json::from_slice(&reply.body)
        .map_err(|error| action.senseless(format!("the answer makes no sense: {error}")))
}
