//! aws against moto's server, with our proxy in front; boto3 looks at moto directly.

mod faults;
mod life;
mod others;
mod refused;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::num::NonZeroU32;
use std::process::{Child, ChildStdout, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use firelane_cloud::Provider;
use firelane_cloud::machine::Spec;
use firelane_cloud::registry::{self, Settings};
use firelane_cloud::retry::{Policy, Retrying};
use firelane_model::bucket::Rate;
use firelane_model::lane::LaneId;
use firelane_model::time::Moment;
use firelane_testkit::clouds::{Ec2, Moto};
use serde_json::Value;

const HOME: &str = "us-east-1";

/// A cloud of a test's own.
struct Cloud {
    _moto: Moto,
    ec2: Ec2,
    boto: Mutex<Boto>,
}

/// boto3, in a process of its own.
struct Boto {
    process: Child,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Boto {
    fn start(moto: &Moto) -> Boto {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clouds/aws/look.py");
        let mut process = moto
            .python()
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python is there");
        let stdout = process.stdout.take().expect("it is piped");
        let answers = BufReader::new(stdout).lines();
        Boto { process, answers }
    }

    fn ask(&mut self, command: &str, region: &str) -> Value {
        let stdin = self.process.stdin.as_mut().expect("it is piped");
        writeln!(stdin, "{command} {region}").expect("it reads");
        let answer = self
            .answers
            .next()
            .expect("it answers, or says on stderr why not");
        serde_json::from_str(&answer.expect("it writes text")).expect("it writes JSON")
    }
}

impl Drop for Boto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Cloud {
    async fn start() -> Cloud {
        let moto = Moto::start();
        let ec2 = Ec2::start(moto.address()).await;
        let boto = Mutex::new(Boto::start(&moto));
        Cloud {
            _moto: moto,
            ec2,
            boto,
        }
    }

    /// The provider, with these variables beside.
    fn aws_with(&self, more: &[(&str, &str)]) -> Box<dyn Provider> {
        let endpoint = self.ec2.url();
        let variables = [
            ("FIRELANE_AWS_ENDPOINT", endpoint.as_str()),
            ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
            ("AWS_SECRET_ACCESS_KEY", "hush"),
        ];
        let variables = variables.iter().chain(more);
        let settings = Settings {
            variables: variables
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            state: "/nonexistent".into(),
        };
        registry::open("aws", &settings).expect("the settings are right")
    }

    /// The provider, which looks at two regions only.
    fn aws(&self) -> Box<dyn Provider> {
        self.aws_with(&[("FIRELANE_AWS_REGIONS", "us-east-1,eu-central-1")])
    }

    /// The same, called again where that may help.
    fn patient(&self) -> Retrying<Box<dyn Provider>> {
        const MANY: NonZeroU32 = NonZeroU32::new(10_000).expect("not zero");
        let policy = Policy {
            first: Duration::from_millis(5),
            most: Duration::from_millis(20),
            rate: Rate::per_second(MANY),
            burst: MANY,
            ..Policy::default()
        };
        Retrying::with_dice(self.aws(), policy, fastrand::Rng::with_seed(1))
    }

    /// What boto3 sees in a region, by `look.py`.
    fn seen(&self, region: &str) -> Value {
        self.boto("look", region)
    }

    /// A command of `look.py`.
    fn boto(&self, command: &str, region: &str) -> Value {
        self.boto
            .lock()
            .expect("no test panicked")
            .ask(command, region)
    }

    /// Machines and groups of ours that boto3 sees.
    fn counts(&self, region: &str) -> (usize, usize) {
        let seen = self.seen(region);
        let of = |name: &str| seen[name].as_array().expect("a list").len();
        (of("instances"), of("groups"))
    }
}

/// A lane in the home region.
fn spec(label: &str, lane: u128) -> Spec {
    Spec {
        label: label.parse().expect("a label"),
        lane: LaneId::from_bits(lane),
        owner: "tester".to_owned(),
        region: HOME.to_owned(),
        instance_type: "c8i.2xlarge".to_owned(),
        disk_gib: 50,
        kvm: true,
        user_data: "#cloud-config\n{}\n".to_owned(),
        ssh_key: "ssh-ed25519 AAAA tester".to_owned(),
        ssh_from: vec!["198.51.100.7/32".to_owned()],
        created: Moment::after_origin(Duration::from_secs(1_795_000_000)),
        expires: Moment::after_origin(Duration::from_secs(1_795_014_400)),
        extras: BTreeMap::new(),
    }
}
