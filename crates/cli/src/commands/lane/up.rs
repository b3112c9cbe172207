//! `firelane up`.

use std::collections::BTreeMap;
use std::env;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI32, Ordering};

use firelane_cloud::Provider;
use firelane_lane::install::Release;
use firelane_lane::up::{
    Firecracker, OnError, Then, Up, UpError, Wish, prepare_spec, up as bring_up,
};
use firelane_model::lane::{Label, LaneId};
use uuid::Uuid;

use super::place::{crew, provider, yard};
use super::stages::{Stages, dollars};
use super::verify::table;
use super::{FAILED, LEFT};
use crate::args::{FirecrackerChoice, OnErrorChoice, UpArgs, WishArgs};
use crate::failure::Failure;
use crate::host::open_store;
use crate::say::say;
use crate::signals::Signals;

pub(in crate::commands) async fn up(args: UpArgs) -> Result<u8, Failure> {
    let provider = provider(&args.provider.provider)?;
    let wish = wish(&args);
    if args.dry_run {
        return dry_run(&provider, &wish).await;
    }
    let mut release = release(&args)?;
    // Kept until it has been sent.
    let exported = tempfile::tempdir().map_err(Failure::platform)?;
    if let Some(name) = &args.template {
        let sent = open_store()?.export(name, exported.path());
        sent.map_err(|error| Failure::usage(firelane_cloud::causes(&error)))?;
        release = release.with_template(name, exported.path());
    }
    let yard = yard()?;
    let stages = Stages::new(args.json, Some(&yard.folder(&wish.label)));
    let crew = crew(&provider, &yard, &stages);
    let mut signals = Signals::listen()?;
    let signal = AtomicI32::new(0);
    let interrupted = async { signal.store(signals.next().await, Ordering::Relaxed) };
    // Whoever asks again does not want to wait for what is being given back.
    let mut again = Signals::listen()?;
    let twice = async {
        again.next().await;
        again.next().await;
    };
    let ended = tokio::select! {
        ended = bring_up(&crew, &wish, &release, interrupted) => ended,
        () = twice => {
            let down = down_command(&args.provider.provider, &args.label);
            eprintln!("firelane: interrupted twice; something may be left, and cost money; remedy: {down}");
            return Ok(LEFT);
        }
    };
    match ended {
        Ok(up) => ready(&up, args.json),
        Err(error) => {
            let code = failed(&args, error)?;
            let signal = signal.load(Ordering::Relaxed);
            // What is left counts for more than why.
            Ok(match u8::try_from(128 + signal) {
                Ok(interrupted) if signal > 0 && code == FAILED => interrupted,
                _ => code,
            })
        }
    }
}

/// What is installed, as the arguments say it.
fn release(args: &UpArgs) -> Result<Release, Failure> {
    let wrong = |error| Failure::usage(firelane_cloud::causes(&error));
    let mut release = if args.build_on_host {
        Release::of_sources(&args.sources)
            .map_err(|error| wrong(error).with_remedy("say --sources FOLDER, with a checkout"))?
    } else {
        let programs = match &args.programs {
            Some(folder) => folder.clone(),
            None => beside_us()?,
        };
        Release::find(&programs).map_err(|error| {
            wrong(error).with_remedy("say --programs FOLDER, with the programs of one release")
        })?
    };
    if let Some(FirecrackerChoice::File(path)) = &args.firecracker {
        release = release.with_firecracker(path).map_err(wrong)?;
    }
    Ok(release)
}

/// What is wanted, as the arguments say it.
fn wish(args: &UpArgs) -> Wish {
    Wish {
        label: args.label.clone(),
        lane: LaneId::from_bits(Uuid::now_v7().as_u128()),
        owner: owner(),
        region: args.wish.region.clone(),
        instance_type: args.wish.instance_type.clone(),
        disk_gib: args.wish.disk_gib,
        kvm: !args.wish.no_kvm,
        extras: extras(&args.wish),
        ssh_keys: args.ssh_pubkey.iter().cloned().collect(),
        ssh_from: args.wish.ssh_from.clone(),
        firecracker: match &args.firecracker {
            Some(FirecrackerChoice::Download(download)) => Firecracker::This(download.clone()),
            Some(FirecrackerChoice::File(_) | FirecrackerChoice::None) => Firecracker::Nothing,
            None => Firecracker::Usual,
        },
        ttl: args.ttl,
        most_milli_usd: args.max_spend,
        on_error: match args.on_error {
            OnErrorChoice::Cleanup => OnError::CleanUp,
            OnErrorChoice::Keep => OnError::Keep,
        },
    }
}

/// Folder of this program.
fn beside_us() -> Result<PathBuf, Failure> {
    let itself = env::current_exe().map_err(Failure::platform)?;
    Ok(itself.parent().map(PathBuf::from).unwrap_or_default())
}

/// What only one provider knows: settings, and the environment variables that they are known by.
pub(super) fn extras(wish: &WishArgs) -> BTreeMap<String, String> {
    let mut extras: BTreeMap<_, _> = wish.settings.iter().cloned().collect();
    if let Some(host) = &wish.host {
        let (login, host) = match host.rsplit_once('@') {
            Some((login, host)) => (Some(login), host),
            None => (None, host.as_str()),
        };
        extras.insert("host".into(), host.to_owned());
        extras.extend(login.map(|login| ("login".to_owned(), login.to_owned())));
    }
    extras
}

/// Who asks: user and host, as far as a tag takes it.
fn owner() -> String {
    let user = env::var("USER").unwrap_or_else(|_| "somebody".into());
    let host = rustix::system::uname();
    let text = format!("{user}-{}", host.nodename().to_string_lossy());
    let fits = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    text.chars().map(fits).take(60).collect()
}

/// The calls that would be made, and the price.
async fn dry_run(provider: &dyn Provider, wish: &Wish) -> Result<u8, Failure> {
    let folder = tempfile::tempdir().map_err(Failure::platform)?;
    let yard = yard()?;
    let stages = Stages::new(false, None);
    let crew = crew(provider, &yard, &stages);
    let prepared = prepare_spec(&crew, wish, None, folder.path()).await?;
    for step in provider.plan(&prepared.spec).await? {
        say(&step.call)?;
        for (name, value) in step.with {
            say(format_args!("    {name} = {value}"))?;
        }
    }
    let price = match &prepared.quote {
        Some(quote) => format!(
            "{} an hour, of {}",
            dollars(quote.milli_usd_per_hour),
            quote.source
        ),
        None => "its price is not known".to_owned(),
    };
    say(format_args!("{price}; nothing was asked for"))?;
    Ok(0)
}

fn ready(up: &Up, json: bool) -> Result<u8, Failure> {
    if json {
        return Ok(0);
    }
    table(&up.rows)?;
    let label = &up.lane.label;
    say(format_args!("lane {label} is {}", up.lane.stage))?;
    say(format_args!("  firelane ssh {label}"))?;
    say(format_args!(
        "  firelane ssh {label} -- systemctl status firelane"
    ))?;
    say(format_args!("  firelane logs {label}"))?;
    say(format_args!("  firelane verify {label}"))?;
    say(format_args!(
        "  {}",
        down_command(&up.lane.terms.provider, label)
    ))?;
    Ok(0)
}

fn down_command(provider: &str, label: &Label) -> String {
    format!("firelane down --provider {provider} --label {label}")
}

/// Says what became of the lane, and how to be rid of it.
fn failed(args: &UpArgs, error: UpError) -> Result<u8, Failure> {
    let (label, provider) = (&args.label, &args.provider.provider);
    let again = down_command(provider, label);
    match error {
        UpError::Step { then, rows, .. } => {
            if !args.json {
                table(&rows)?;
            }
            Ok(match then {
                Then::GivenBack => {
                    eprintln!("firelane: everything was given back");
                    FAILED
                }
                Then::Kept => {
                    eprintln!(
                        "firelane: the lane {label} is kept; go on with firelane up, or give it back with {again}"
                    );
                    LEFT
                }
                Then::Left(error) => {
                    eprintln!(
                        "firelane: the lane {label} could not be given back, and may cost money: {error}; remedy: {again}"
                    );
                    LEFT
                }
            })
        }
        UpError::Cloud(error) => Err((*error).into()),
        UpError::Journal(error) => Err(error.into()),
        UpError::Preflight { ref checks } => {
            let remedies: Vec<_> = checks
                .iter()
                .filter_map(|check| check.remedy.as_deref())
                .collect();
            Err(Failure::usage(error.to_string()).with_remedy(remedies.join("; ")))
        }
        UpError::Differs { .. } => Err(Failure::usage(error.to_string())
            .with_remedy(format!("{again}, or say another --label"))),
        UpError::Expiring { .. } | UpError::Expired { .. } => {
            Err(Failure::usage(error.to_string()).with_remedy(again))
        }
        UpError::Foreign { .. } => Err(Failure::usage(error.to_string()).with_remedy(format!(
            "say another --label; if the machine is yours, {again}"
        ))),
        UpError::Interrupted => {
            eprintln!("firelane: {error}");
            Ok(FAILED)
        }
        UpError::TooDear(_) | UpError::Document(_) | UpError::Unfit(_) => {
            Err(Failure::usage(error.to_string()))
        }
    }
}

impl From<UpError> for Failure {
    fn from(error: UpError) -> Failure {
        match error {
            UpError::Cloud(error) => (*error).into(),
            UpError::Journal(error) => error.into(),
            _ => Failure::usage(error.to_string()),
        }
    }
}
