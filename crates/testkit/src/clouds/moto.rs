//! moto's server: EC2 and STS as its authors read the documentation of AWS.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Names the program: `moto_server` in the folder `bin` of its environment.
const PROGRAM: &str = "FIRELANE_MOTO";
/// Canonical's account.
const CANONICAL: &str = "099720109477";

/// It runs; dropped, it is killed, and so it is if this process ends.
pub struct Moto {
    process: Child,
    program: PathBuf,
    address: SocketAddr,
    /// Its images.
    _folder: TempDir,
}

impl Moto {
    /// Starts one on a free port of the loopback. Its images are two of Canonical's, and some that
    /// look like them.
    ///
    /// # Panics
    /// If there is none, or it does not listen.
    #[must_use]
    pub fn start() -> Moto {
        let program = std::env::var_os(PROGRAM);
        let program = PathBuf::from(program.expect("FIRELANE_MOTO names moto_server"));
        let folder = tempfile::tempdir().expect("there is room");
        let images = folder.path().join("images.json");
        std::fs::write(&images, images_of_tests().to_string()).expect("there is room");
        let mut process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(&program)
            .args(["--host", "127.0.0.1", "--port", "0"])
            .env("MOTO_AMIS_PATH", images)
            .env("MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION", "true")
            .env("MOTO_ENABLE_AMI_VALIDATION", "true")
            .env("MOTO_ENABLE_KEYPAIR_VALIDATION", "true")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("setpriv is there");
        let stderr = process.stderr.take().expect("it is piped");
        let mut lines = BufReader::new(stderr).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.split_once("http://")?.1.trim().parse().ok());
        // It writes a line for each request, which somebody has to take.
        std::thread::spawn(move || lines.for_each(drop));
        let address = address.expect("it tells where it listens");
        Moto {
            process,
            program,
            address,
            _folder: folder,
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The Python that has boto3, AWS's own client, with credentials that moto takes.
    #[must_use]
    pub fn python(&self) -> Command {
        let mut python = Command::new(self.program.with_file_name("python"));
        python
            .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", "other")
            .env("AWS_ENDPOINT_URL", format!("http://{}", self.address));
        python
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The right one is the second: it is Canonical's, for this processor, and newer than the first.
fn images_of_tests() -> Value {
    let image = |id: &str, owner: &str, date: &str, architecture: &str| {
        let arch = if architecture == "arm64" {
            "arm64"
        } else {
            "amd64"
        };
        json!({
            "ami_id": id,
            "owner_id": owner,
            "name": format!("ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-{arch}-server-{}", date.replace('-', "")),
            "creation_date": format!("{date}T00:00:00.000Z"),
            "architecture": architecture,
            "description": "Canonical, Ubuntu, 24.04 LTS",
            "image_location": "ubuntu",
            "image_type": "machine",
            "hypervisor": "xen",
            "public": true,
            "root_device_name": "/dev/sda1",
            "root_device_type": "ebs",
            "sriov": "simple",
            "state": "available",
            "virtualization_type": "hvm",
        })
    };
    json!([
        image("ami-00000001", CANONICAL, "2026-09-01", "x86_64"),
        image("ami-00000002", CANONICAL, "2026-11-02", "x86_64"),
        image("ami-00000003", "123456789012", "2026-11-20", "x86_64"),
        image("ami-00000004", CANONICAL, "2026-11-21", "arm64"),
    ])
}
