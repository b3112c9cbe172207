//! `firelane ssh`: becomes the system's ssh, with the lane's settings.

use std::os::unix::process::CommandExt;
use std::process::Command;

use firelane_lane::{identity, ssh as settings};

use super::place::{known, yard};
use crate::args::SshArgs;
use crate::failure::Failure;

pub(in crate::commands) fn ssh(args: &SshArgs) -> Result<u8, Failure> {
    let yard = yard()?;
    known(&yard, &args.label)?;
    let config = yard.folder(&args.label).join(settings::CONFIG);
    if !config.exists() {
        let message = format!("nobody has logged in to the lane {} yet", args.label);
        return Err(
            Failure::usage(message).with_remedy("firelane up with its label goes on with it")
        );
    }
    let mut command = Command::new("ssh");
    command
        .arg("-F")
        .arg(config)
        .arg(identity::alias(&args.label));
    if !args.command.is_empty() {
        command.arg("--").arg(remote(&args.command));
    }
    let error = command.exec();
    Err(Failure::platform(
        anyhow::Error::from(error).context("cannot start ssh"),
    ))
}

/// What the shell on the machine reads: one word is a command of it as it is; of several each stays one.
fn remote(words: &[String]) -> String {
    if let [command] = words {
        return command.clone();
    }
    let quoted = words.iter().map(|word| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
        if !word.is_empty() && word.chars().all(is_plain) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_several_words_stays_one() {
        let check = |words: &[&str], expected: &str| {
            let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(remote(&words), expected);
        };
        check(&["ls | wc -l"], "ls | wc -l");
        check(&["ls", "-l"], "ls -l");
        check(&["echo", "it's", "a b", ""], r"echo 'it'\''s' 'a b' ''");
    }
}
