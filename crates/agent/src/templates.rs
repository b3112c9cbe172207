//! Templates of this host over the Bus, and their builds: one at a time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use firelane_image::{Definition, Options, Progress, Step, StoreError};
use firelane_model::id::BuildId;
use firelane_wire::bus::{DropTemplate, GetTemplate, ReadBuild, StartBuild};
use firelane_wire::problem::{Code, Problem, causes};
use firelane_wire::template::{
    Build, BuildLine, BuildPage, BuildState, NewBuild, Template, check_name,
};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::Agent;
use crate::building::{Building, BuildingError};
use crate::problem::{from_prepare, internal};

/// Builds that can be asked about.
const KEPT: usize = 32;
/// Lines of a build's log that are kept; the oldest go first.
const LINES: usize = 1024;
/// Longest line, in bytes.
const LINE_BYTES: usize = 1024;
/// Lines of one page.
const PAGE: usize = 256;

/// The builds of this host, oldest first. Only the last can be running.
#[derive(Default)]
pub(crate) struct Builds {
    all: Mutex<VecDeque<Arc<Going>>>,
}

/// A build, and what it says.
struct Going {
    id: BuildId,
    said: Mutex<Said>,
    /// Counts what is said.
    news: watch::Sender<u64>,
}

struct Said {
    build: Build,
    /// Number of the last line.
    last: u64,
    lines: VecDeque<BuildLine>,
    step: &'static str,
}

impl Going {
    fn lock(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, step: Option<&'static str>, message: &str) {
        let mut said = self.lock();
        said.step = step.unwrap_or(said.step);
        let end = message.floor_char_boundary(LINE_BYTES);
        let mut message = message[..end].to_owned();
        // Packages and programs word what is passed on.
        message.retain(|c| !c.is_control());
        let line = BuildLine {
            step: said.step.into(),
            message,
        };
        if said.lines.len() == LINES {
            said.lines.pop_front();
        }
        said.lines.push_back(line);
        said.last += 1;
        drop(said);
        self.news.send_modify(|count| *count += 1);
    }

    fn end(&self, ended: Result<(), Problem>) {
        let mut said = self.lock();
        match ended {
            Ok(()) => said.build.state = BuildState::Done,
            Err(problem) => {
                said.build.state = BuildState::Failed;
                said.build.problem = Some(problem);
            }
        }
        drop(said);
        self.news.send_modify(|count| *count += 1);
    }

    fn page(&self, after: u64) -> BuildPage {
        let said = self.lock();
        let first = said.last - said.lines.len() as u64 + 1;
        let from = after.saturating_add(1).max(first);
        let skipped = usize::try_from(from - first).unwrap_or(usize::MAX);
        let lines = said.lines.iter().skip(skipped).take(PAGE);
        BuildPage {
            lines: (from..).zip(lines.cloned()).collect(),
            build: said.build.clone(),
        }
    }
}

impl Progress for Going {
    fn step(&self, step: Step) {
        self.say(Some(step.name()), "");
    }

    fn message(&self, text: &str) {
        self.say(None, text);
    }
}

impl Builds {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Going>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, id: BuildId) -> Result<Arc<Going>, Problem> {
        let found = self.lock().iter().find(|going| going.id == id).cloned();
        found.ok_or_else(|| Problem::not_found("build", id))
    }

    /// A place for a build, if none runs.
    fn begin(&self, build: Build) -> Result<Arc<Going>, Problem> {
        let mut all = self.lock();
        let running = all.back().map(|going| going.lock().build.clone());
        if let Some(running) = running.filter(|build| build.state == BuildState::Running) {
            let cause = format!("this host builds the template {} now", running.template);
            let problem = Problem::new(Code::Conflict, cause);
            return Err(problem.with_remedy(format!("wait for the end of {}", running.id)));
        }
        if all.len() == KEPT {
            all.pop_front();
        }
        let going = Arc::new(Going {
            id: build.id,
            said: Mutex::new(Said {
                build,
                last: 0,
                lines: VecDeque::new(),
                step: "",
            }),
            news: watch::Sender::new(0),
        });
        all.push_back(Arc::clone(&going));
        Ok(going)
    }
}

impl Agent {
    /// The templates that are built here, by name.
    pub(crate) async fn list_templates(&self) -> Result<Vec<Template>, Problem> {
        let store = self.workshop.store().clone();
        let listed = tokio::task::spawn_blocking(move || store.list()).await;
        let listed = listed.map_err(|error| internal(&error))?;
        let templates = listed.map_err(|error| from_store("", &error))?;
        Ok(templates.iter().map(shown).collect())
    }

    /// One template.
    pub(crate) async fn get_template(&self, call: GetTemplate) -> Result<Template, Problem> {
        check_name(&call.name)?;
        let (store, name) = (self.workshop.store().clone(), call.name.clone());
        let found = tokio::task::spawn_blocking(move || store.get(&name)).await;
        let found = found.map_err(|error| internal(&error))?;
        let template = found.map_err(|error| from_store(&call.name, &error))?;
        Ok(shown(&template))
    }

    /// Removes a template. Sandboxes and runs that have begun with it have its files open; what waits in its
    /// pools goes.
    pub(crate) async fn drop_template(&self, call: DropTemplate) -> Result<(), Problem> {
        check_name(&call.name)?;
        let (store, name) = (self.workshop.store().clone(), call.name.clone());
        let removed = tokio::task::spawn_blocking(move || store.remove(&name)).await;
        let removed = removed.map_err(|error| internal(&error))?;
        removed.map_err(|error| from_store(&call.name, &error))?;
        self.pools.drop_of(&call.name);
        self.workshop.standing().forget(&call.name);
        Ok(())
    }

    /// Begins a build.
    pub(crate) fn start_build(self: Arc<Self>, call: StartBuild) -> Result<Build, Problem> {
        let StartBuild { id, request } = call;
        request.check()?;
        let definition = definition(&request)?;
        let build = Build {
            id,
            template: request.name.clone(),
            host: self.config.host.clone(),
            state: BuildState::Running,
            started_at: Timestamp::now().to_string(),
            problem: None,
        };
        let going = self.builds.begin(build.clone())?;
        let options = Options {
            refresh: request.refresh,
            ..Options::default()
        };
        let store = self.workshop.store().clone();
        let building = Building::start(store, definition, options, Arc::clone(&going) as _);
        let building = building.map_err(|error| {
            going.end(Err(internal(&error)));
            internal(&error)
        })?;
        let agent = Arc::clone(&self);
        self.tasks.spawn(async move {
            let name = request.name;
            let finish = async {
                building.end().await.map_err(|error| from_building(&error))?;
                going.say(Some("snapshot"), "");
                let prepared = agent.workshop.prepare(&name).await;
                prepared.map(drop).map_err(|error| from_prepare(&name, &error))
            };
            let ended = tokio::select! {
                ended = finish => ended,
                () = agent.stop.cancelled() => Err(Problem::new(Code::Unavailable, "the service ends")),
            };
            going.end(ended);
        });
        Ok(build)
    }

    /// A build and what follows a line of its log.
    pub(crate) async fn read_build(&self, call: ReadBuild) -> Result<BuildPage, Problem> {
        let going = self.builds.get(call.id)?;
        let mut news = going.news.subscribe();
        let page = going.page(call.after);
        if !page.lines.is_empty() || page.build.state != BuildState::Running {
            return Ok(page);
        }
        // However it ends, the page is what there is.
        let _ = timeout(Duration::from_millis(call.wait_ms), news.changed()).await;
        Ok(going.page(call.after))
    }
}

fn from_building(error: &BuildingError) -> Problem {
    let BuildingError::Build(failed) = error else {
        return internal(error);
    };
    let problem = Problem::new(Code::Invalid, causes(failed));
    match failed.remedy() {
        Some(remedy) => problem.with_remedy(remedy),
        None => problem,
    }
}

fn definition(request: &NewBuild) -> Result<Definition, Problem> {
    let name = &request.name;
    match &request.definition {
        Some(text) => Definition::foreign(name, text)
            .map_err(|error| Problem::new(Code::Invalid, causes(&error))),
        None => Definition::builtin(name).map_err(|_| {
            let names = Definition::builtin_names().join(", ");
            let problem = Problem::not_found("built-in template", name);
            problem.with_remedy(format!("give a definition, or name one of {names}"))
        }),
    }
}

fn shown(template: &firelane_image::Template) -> Template {
    let manifest = template.manifest();
    let packages = manifest.packages.iter();
    Template {
        name: manifest.name.clone(),
        description: manifest.description.clone(),
        id: manifest.id.clone(),
        created_at: manifest.created.to_string(),
        memory_mib: manifest.memory_mib,
        rootfs_bytes: manifest.rootfs.size,
        kernel: manifest.kernel.version.clone(),
        packages: packages
            .map(|package| (package.name.clone(), package.version.clone()))
            .collect(),
    }
}

fn from_store(name: &str, error: &StoreError) -> Problem {
    let problem = match error {
        StoreError::NotFound { .. } => return Problem::not_found("template", name),
        StoreError::Busy { .. } => Problem::new(Code::Conflict, error.to_string()),
        _ => internal(error),
    };
    match error.remedy() {
        Some(remedy) => problem.with_remedy(remedy),
        None => problem,
    }
}
