//! `firelane key`: API keys of the service on this machine, and keys that sign templates and snapshots.

use firelane_client::{Client, Target};
use firelane_image::signing::{KeyInfo, write_pair};
use firelane_model::id::KeyId;
use firelane_wire::key::{Key, KeyLimits, NewKey, Rate, Scope};

use crate::args::{KeyCommand, SocketArgs};
use crate::failure::Failure;
use crate::host::open_store;
use crate::say::say;

pub(super) async fn key(command: KeyCommand) -> Result<u8, Failure> {
    match command {
        KeyCommand::Create {
            name,
            tenant,
            scopes,
            weight,
            rate,
            burst,
            concurrency,
            cpu_seconds_per_day,
            json,
            socket,
        } => {
            let new = NewKey {
                name,
                tenant,
                scopes: scopes.into_iter().collect(),
                weight,
                limits: KeyLimits {
                    rate,
                    burst,
                    concurrency,
                    cpu_seconds_per_day,
                },
            };
            let made = client(&socket).make_key(&new).await?;
            if json {
                let text = serde_json::to_string(&made).map_err(Failure::platform)?;
                say(format_args!("{text}"))?;
            } else {
                say(format_args!("{}", made.token))?;
                eprintln!("firelane: this is the only time that the token is shown");
            }
        }
        KeyCommand::List {
            signing: true,
            json,
            ..
        } => list_signing(&open_store()?.signing().keys().list()?, json)?,
        KeyCommand::List { json, socket, .. } => list(&client(&socket).keys().await?, json)?,
        KeyCommand::Generate { out, .. } => {
            let id = match out {
                Some(folder) => write_pair(&folder)?,
                None => open_store()?.signing().keys().host_id()?,
            };
            say(format_args!("{id}"))?;
        }
        KeyCommand::Trust { file } => {
            let id = open_store()?.signing().keys().trust(&file)?;
            say(format_args!("{id}"))?;
        }
        KeyCommand::Revoke { key, socket } => {
            let id: KeyId = key
                .parse()
                .map_err(|error| Failure::usage(format!("{key}: {error}")))?;
            client(&socket).revoke_key(id).await?;
        }
    }
    Ok(0)
}

fn list(keys: &[Key], json: bool) -> Result<(), Failure> {
    if json {
        let text = serde_json::to_string(keys).map_err(Failure::platform)?;
        return say(format_args!("{text}"));
    }
    for key in keys {
        let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.name()).collect();
        let state = match &key.revoked_at {
            Some(at) => format!("revoked {at}"),
            None => "valid".into(),
        };
        let (id, name, tenant) = (key.id, &key.name, &key.tenant);
        say(format_args!(
            "{id}  {name}  tenant {tenant}  {}  {state}",
            scopes.join(",")
        ))?;
    }
    Ok(())
}

fn list_signing(keys: &[KeyInfo], json: bool) -> Result<(), Failure> {
    if json {
        let text = serde_json::to_string(keys).map_err(Failure::platform)?;
        return say(format_args!("{text}"));
    }
    for key in keys {
        let whose = if key.own { "own" } else { "trusted" };
        say(format_args!(
            "{}  {whose:<7}  {}",
            key.id,
            key.path.display()
        ))?;
    }
    Ok(())
}

/// A client of the service on this machine.
pub(super) fn client(socket: &SocketArgs) -> Client {
    Client::new(Target::Unix(socket.path()), None)
}

/// Reads a rate such as 10/s, 100/m or 1000/h.
pub(crate) fn parse_rate(text: &str) -> Result<Rate, String> {
    let wrong = || "write a rate such as 10/s, 100/m or 1000/h".to_owned();
    let (count, unit) = text.split_once('/').ok_or_else(wrong)?;
    let seconds: u32 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wrong()),
    };
    Ok(Rate {
        requests: count.parse().map_err(|_| wrong())?,
        per_seconds: seconds.try_into().map_err(|_| wrong())?,
    })
}

/// Reads a scope.
pub(crate) fn parse_scope(text: &str) -> Result<Scope, String> {
    text.parse()
        .map_err(|error: firelane_wire::key::UnknownScope| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_a_number_and_a_unit() {
        let check = |text: &str, expected: Option<(u32, u32)>| {
            let rate = parse_rate(text).ok();
            let parts = rate.map(|rate| (rate.requests.get(), rate.per_seconds.get()));
            assert_eq!(parts, expected, "{text}");
        };
        check("10/s", Some((10, 1)));
        check("100/m", Some((100, 60)));
        check("1/h", Some((1, 3600)));
        check("0/s", None);
        check("10", None);
        check("10/day", None);
        check("-1/s", None);
    }
}
