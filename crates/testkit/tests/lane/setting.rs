//! One user with a cloud, and lanes.

use std::collections::BTreeMap;
use std::fs;
use std::future::pending;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use firelane_cloud::retry::{Policy, Retrying};
use firelane_lane::crew::{Crew, StepError, Timing};
use firelane_lane::down::{self, Chosen, Down};
use firelane_lane::install::Release;
use firelane_lane::journal::Yard;
use firelane_lane::progress::{Event, Progress};
use firelane_lane::up::{Firecracker, OnError, Up, UpError, Wish, up};
use firelane_model::lane::{Label, LaneId, Step};
use firelane_testkit::lane::{Faults, SimulatedAccess, SimulatedCloud};

/// Remembers what it is told.
#[derive(Default)]
pub(crate) struct Told {
    events: Mutex<Vec<Event>>,
    spoil: Mutex<Option<(Step, PathBuf)>>,
}

impl Progress for Told {
    fn tell(&self, event: &Event) {
        self.events.lock().unwrap().push(event.clone());
        let spoil = self.spoil.lock().unwrap();
        if let (Event::Begun { step }, Some((at, path))) = (event, &*spoil)
            && step == at
        {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }
    }
}

impl Told {
    /// From that step on there is a folder in place of this file.
    pub(crate) fn spoil_at(&self, step: Step, path: PathBuf) {
        *self.spoil.lock().unwrap() = Some((step, path));
    }

    /// All of it, as text.
    pub(crate) fn text(&self) -> String {
        format!("{:#?}", self.events.lock().unwrap())
    }
}

pub(crate) struct Setting {
    pub(crate) faults: Faults,
    pub(crate) cloud: SimulatedCloud,
    pub(crate) access: SimulatedAccess,
    pub(crate) told: Told,
    pub(crate) yard: Yard,
    provider: Retrying<SimulatedCloud>,
    folder: tempfile::TempDir,
}

impl Setting {
    pub(crate) fn new() -> Setting {
        Setting::seeded(0)
    }

    pub(crate) fn seeded(seed: u64) -> Setting {
        let faults = Faults::default();
        let cloud = SimulatedCloud::new(faults.clone());
        let dice = fastrand::Rng::with_seed(seed);
        let provider = Retrying::with_dice(cloud.clone(), Policy::default(), dice);
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("bin");
        fs::create_dir(&bin).unwrap();
        for name in [
            "firelane",
            "firelane-hostd",
            "firelane-guest",
            "firelane-bare",
        ] {
            fs::copy("/bin/true", bin.join(name)).unwrap();
        }
        Setting {
            access: SimulatedAccess::new(faults.clone()),
            faults,
            cloud,
            told: Told::default(),
            yard: Yard::new(folder.path().join("state")),
            provider,
            folder,
        }
    }

    pub(crate) fn crew(&self) -> Crew<'_> {
        Crew {
            provider: &self.provider,
            access: &self.access,
            progress: &self.told,
            yard: &self.yard,
            timing: Timing::default(),
        }
    }

    /// A wish for a lane, with all that can be left out left out.
    pub(crate) fn wish(&self, label: &str) -> Wish {
        Wish {
            label: label.parse().unwrap(),
            lane: LaneId::from_bits(fastrand::u128(..)),
            owner: "alice".into(),
            region: None,
            instance_type: None,
            disk_gib: 50,
            kvm: true,
            extras: BTreeMap::new(),
            ssh_keys: Vec::new(),
            ssh_from: vec!["192.0.2.7/32".into()],
            firecracker: Firecracker::Usual,
            ttl: None,
            most_milli_usd: None,
            on_error: OnError::CleanUp,
        }
    }

    /// What is installed.
    pub(crate) fn release(&self) -> Release {
        Release::find(&self.folder.path().join("bin")).unwrap()
    }

    /// `up`, until it ends or a fault kills it. None: killed.
    pub(crate) async fn up(&self, wish: &Wish) -> Option<Result<Up, UpError>> {
        let (crew, release) = (self.crew(), self.release());
        tokio::select! {
            ended = up(&crew, wish, &release, pending()) => Some(ended),
            () = self.faults.killed() => None,
        }
    }

    pub(crate) async fn down(&self, chosen: &Chosen) -> Result<Down, StepError> {
        down::down(&self.crew(), chosen).await
    }

    /// Labels of the lanes that are not over.
    pub(crate) fn labels(&self) -> Vec<Label> {
        let lanes = self.yard.lanes().unwrap();
        lanes.into_iter().map(|(label, _)| label).collect()
    }

    /// Where the journal of a lane is.
    pub(crate) fn journal(&self, label: &str) -> PathBuf {
        self.yard.folder(&label.parse().unwrap()).join("journal")
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}
