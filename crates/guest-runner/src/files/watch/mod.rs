//! What changes in a folder.
//!
//! The kernel tells it by inotify, one watch for each folder (inotify(7)); here it becomes paths
//! relative to the folder that is watched. What cannot be told, because the kernel, the bound on
//! folders or the bound on what waits has dropped it, is told as [`Change::Overflow`].
//!
//! Files that stand for others until they are whole ([`TEMPORARY`]) are not told; a put is seen as
//! the file that it makes.

mod pending;

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use firelane_guest_proto::files::{Change, MAX_PATH_BYTES, MAX_WATCHED_FOLDERS, WatchSpec};
use firelane_guest_proto::message::{Refused, RefusedCode};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::fs::{FileType, Mode, OFlags, RawDir, openat2};
use rustix::io::Errno;

use self::pending::Pending;
use super::place::{BENEATH, FOLDER, Place};
use super::put::TEMPORARY;
use crate::exec::refused;

const TOLD: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::EXCL_UNLINK);
/// Events that are taken from the kernel in one turn.
const MAX_TURN: usize = 1024;

type Root = Box<dyn Fn() -> Result<OwnedFd, Errno>>;

/// A folder that is watched.
pub(crate) struct Watcher {
    inotify: OwnedFd,
    /// Opens the folder. It is not kept open: the kernel tells that a folder is gone when nobody has
    /// it open any longer.
    root: Root,
    recursive: bool,
    /// Paths of the folders by the kernel's numbers; the root's is empty.
    folders: HashMap<i32, Vec<u8>>,
    pending: Pending,
    gone: bool,
}

/// An event as the kernel tells it.
struct Raw {
    folder: i32,
    events: ReadFlags,
    cookie: u32,
    name: Vec<u8>,
}

impl Watcher {
    /// Begins to watch.
    pub(crate) fn start(spec: &WatchSpec) -> Result<Watcher, Refused> {
        let place = Place::parse(&spec.path)?;
        let failed = |errno| match errno {
            Errno::NOTDIR => place.failed_as(RefusedCode::Invalid, "watch", errno),
            errno => place.failed("watch", errno),
        };
        let path = spec.path.clone();
        let root = move || {
            let place = Place::parse(&path).map_err(|_| Errno::INVAL)?;
            place.open_existing(FOLDER | OFlags::RDONLY)
        };
        let watcher = Watcher::of(Box::new(root), spec.recursive).map_err(failed)?;
        if watcher.pending.is_empty() {
            return Ok(watcher);
        }
        // Nothing has been told yet: this is the bound on folders.
        let message = format!(
            "{} has more than {MAX_WATCHED_FOLDERS} folders",
            place.path().escape_debug()
        );
        Err(refused(RefusedCode::Exhausted, message))
    }

    fn of(root: Root, recursive: bool) -> Result<Watcher, Errno> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let number = add(&inotify, &root()?)?;
        let mut watcher = Watcher {
            inotify,
            root,
            recursive,
            folders: HashMap::from([(number, Vec::new())]),
            pending: Pending::default(),
            gone: false,
        };
        if recursive {
            watcher.cover(Vec::new(), false);
        }
        Ok(watcher)
    }

    /// Takes what the kernel has to tell.
    pub(crate) fn read(&mut self) -> Result<(), Errno> {
        let mut turn = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        while turn.len() < MAX_TURN || !reader.is_buffer_empty() {
            match reader.next() {
                Ok(event) => turn.push(Raw {
                    folder: event.wd(),
                    events: event.events(),
                    cookie: event.cookie(),
                    name: event
                        .file_name()
                        .map_or(Vec::new(), |n| n.to_bytes().to_vec()),
                }),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        self.take(turn);
        Ok(())
    }

    /// What is to be told next, at most `room` bytes of it; nothing if nothing is.
    pub(crate) fn told(&mut self, room: usize) -> Vec<Change> {
        self.pending.take(room)
    }

    /// Whether something is to be told.
    pub(crate) fn has_news(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether the folder is gone, and nothing more will come.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone
    }

    fn take(&mut self, turn: Vec<Raw>) {
        let arrivals: HashMap<u32, usize> = (turn.iter().enumerate())
            .filter(|(_, raw)| raw.events.contains(ReadFlags::MOVED_TO))
            .map(|(index, raw)| (raw.cookie, index))
            .collect();
        // Paths of what has left and will arrive.
        let mut moving: HashMap<u32, Vec<u8>> = HashMap::new();
        for (index, raw) in turn.into_iter().enumerate() {
            if raw.events.contains(ReadFlags::QUEUE_OVERFLOW) {
                self.pending.overflow();
                continue;
            }
            let Some(folder) = self.folders.get(&raw.folder) else {
                continue;
            };
            let of_root = folder.is_empty();
            if raw.name.is_empty() {
                let ends = ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::IGNORED;
                if of_root && raw.events.intersects(ends) && !self.gone {
                    self.gone = true;
                    self.pending.push(Change::Gone);
                } else if raw.events.contains(ReadFlags::IGNORED) {
                    self.folders.remove(&raw.folder);
                }
                continue;
            }
            let path = joined(folder, &raw.name);
            let is_folder = raw.events.contains(ReadFlags::ISDIR);
            let hidden = raw.name.starts_with(TEMPORARY.as_bytes());
            if raw.events.contains(ReadFlags::MOVED_FROM) {
                match arrivals.get(&raw.cookie) {
                    Some(arrival) if *arrival > index => {
                        moving.insert(raw.cookie, path);
                    }
                    _ => {
                        self.forget(&path);
                        self.tell(hidden, Change::Deleted(path));
                    }
                }
            } else if raw.events.contains(ReadFlags::MOVED_TO) {
                self.arrived(path, is_folder, moving.remove(&raw.cookie));
            } else if raw.events.contains(ReadFlags::CREATE) {
                self.tell(hidden, Change::Created(path.clone()));
                if is_folder && self.recursive {
                    self.cover(path, true);
                }
            } else if raw.events.contains(ReadFlags::DELETE) {
                self.tell(hidden, Change::Deleted(path));
            } else if raw.events.intersects(ReadFlags::MODIFY | ReadFlags::ATTRIB) {
                self.tell(hidden, Change::Modified(path));
            }
        }
    }

    fn tell(&mut self, hidden: bool, change: Change) {
        if !hidden {
            self.pending.push(change);
        }
    }

    /// Something has taken this path; it came from another that is watched too, if `from` is known.
    fn arrived(&mut self, path: Vec<u8>, is_folder: bool, from: Option<Vec<u8>>) {
        let hidden = name_of(&path).starts_with(TEMPORARY.as_bytes());
        let from = from.filter(|from| !name_of(from).starts_with(TEMPORARY.as_bytes()));
        let Some(from) = from else {
            self.tell(hidden, Change::Created(path.clone()));
            if is_folder && self.recursive {
                self.cover(path, true);
            }
            return;
        };
        if is_folder {
            for folder in self.folders.values_mut() {
                if let Some(rest) = below(folder, &from) {
                    *folder = [&path, rest].concat();
                }
            }
        }
        let change = if hidden {
            Change::Deleted(from)
        } else {
            Change::Moved { from, to: path }
        };
        self.pending.push(change);
    }

    /// Watches the folder at `path`, unless it is the root, and those below it. What is found in
    /// them is told if they are new: it may have come before they were watched.
    fn cover(&mut self, path: Vec<u8>, new: bool) {
        let mut waiting = vec![path];
        while let Some(path) = waiting.pop() {
            let open = (self.root)().and_then(|root| {
                if path.is_empty() {
                    return Ok(root);
                }
                let flags = FOLDER | OFlags::RDONLY;
                openat2(&root, &*path, flags, Mode::empty(), BENEATH)
            });
            // Gone again, or not the user's to look into.
            let Ok(folder) = open else {
                continue;
            };
            if !path.is_empty() {
                if self.folders.len() >= MAX_WATCHED_FOLDERS {
                    return self.pending.overflow();
                }
                match add(&self.inotify, &folder) {
                    Ok(number) => drop(self.folders.insert(number, path.clone())),
                    Err(_) => return self.pending.overflow(),
                }
            }
            self.look_into(&folder, &path, new, &mut waiting);
        }
    }

    fn look_into(&mut self, folder: &OwnedFd, path: &[u8], new: bool, waiting: &mut Vec<Vec<u8>>) {
        let mut buffer = Vec::with_capacity(16 << 10);
        let mut names = RawDir::new(folder, buffer.spare_capacity_mut());
        while let Some(Ok(entry)) = names.next() {
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let inner = joined(path, name);
            if inner.len() >= MAX_PATH_BYTES {
                self.pending.overflow();
                continue;
            }
            if new {
                self.tell(
                    name.starts_with(TEMPORARY.as_bytes()),
                    Change::Created(inner.clone()),
                );
            }
            if entry.file_type() == FileType::Directory {
                if waiting.len() >= MAX_WATCHED_FOLDERS {
                    return self.pending.overflow();
                }
                waiting.push(inner);
            }
        }
    }

    /// The folder at this path and those below it have left.
    fn forget(&mut self, path: &[u8]) {
        let inotify = &self.inotify;
        self.folders.retain(|number, folder| {
            let left = below(folder, path).is_some();
            if left {
                // It may be gone by itself.
                let _ = inotify::remove_watch(inotify, *number);
            }
            !left
        });
    }
}

impl AsFd for Watcher {
    /// Readable when [`Watcher::read`] has something to take.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

/// Watches an open folder: by its descriptor, whatever its path leads to by now.
fn add(inotify: &OwnedFd, folder: &OwnedFd) -> Result<i32, Errno> {
    let path = format!("/proc/self/fd/{}", folder.as_raw_fd());
    inotify::add_watch(inotify, path, TOLD)
}

fn joined(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() {
        name.to_vec()
    } else {
        [folder, b"/", name].concat()
    }
}

fn name_of(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

/// What follows `folder` in `path`, if that is the folder or in it.
fn below<'a>(path: &'a [u8], folder: &[u8]) -> Option<&'a [u8]> {
    let rest = path.strip_prefix(folder)?;
    (rest.is_empty() || rest.starts_with(b"/")).then_some(rest)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn watch(path: &Path, recursive: bool) -> Watcher {
        let path = path.to_owned();
        let root = move || rustix::fs::open(&path, FOLDER, Mode::empty());
        Watcher::of(Box::new(root), recursive).unwrap()
    }

    fn told(watcher: &mut Watcher) -> Vec<String> {
        watcher.read().unwrap();
        let text = |path: Vec<u8>| String::from_utf8(path).unwrap();
        let changes = watcher.told(usize::MAX).into_iter();
        changes
            .map(|change| match change {
                Change::Created(path) => format!("+{}", text(path)),
                Change::Modified(path) => format!("*{}", text(path)),
                Change::Deleted(path) => format!("-{}", text(path)),
                Change::Moved { from, to } => format!("{}>{}", text(from), text(to)),
                Change::Overflow => "overflow".into(),
                Change::Gone => "gone".into(),
            })
            .collect()
    }

    #[test]
    fn changes_are_told_once_and_by_their_paths() {
        let lab = tempfile::tempdir().unwrap();
        let at = |path: &str| lab.path().join(path);
        fs::create_dir_all(at("a/b")).unwrap();
        let mut watcher = watch(lab.path(), true);
        assert_eq!(told(&mut watcher), [""; 0]);
        fs::write(at("a/b/f"), "x").unwrap();
        assert_eq!(told(&mut watcher), ["+a/b/f"]);
        for _ in 0..10 {
            fs::write(at("a/b/f"), "y").unwrap();
        }
        assert_eq!(told(&mut watcher), ["*a/b/f"]);
        fs::rename(at("a/b"), at("c")).unwrap();
        fs::write(at("c/g"), "x").unwrap();
        assert_eq!(told(&mut watcher), ["a/b>c", "+c/g"]);
        // Files that came before their folder was watched are told too.
        fs::create_dir_all(at("n/m")).unwrap();
        fs::write(at("n/m/f"), "x").unwrap();
        assert_eq!(told(&mut watcher), ["+n", "+n/m", "+n/m/f"]);
        fs::remove_file(at("n/m/f")).unwrap();
        assert_eq!(told(&mut watcher), ["-n/m/f"]);
        // As a put does it.
        fs::write(at("c/.firelane-7"), "x").unwrap();
        fs::rename(at("c/.firelane-7"), at("c/put")).unwrap();
        assert_eq!(told(&mut watcher), ["+c/put"]);
    }

    #[test]
    fn what_leaves_is_deleted_and_told_no_more() {
        let (lab, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(lab.path().join("a/b")).unwrap();
        let mut watcher = watch(lab.path(), true);
        fs::rename(lab.path().join("a"), outside.path().join("a")).unwrap();
        assert_eq!(told(&mut watcher), ["-a"]);
        fs::write(outside.path().join("a/b/f"), "x").unwrap();
        assert_eq!(told(&mut watcher), [""; 0]);
        fs::rename(lab.path(), outside.path().join("root")).unwrap();
        assert_eq!(told(&mut watcher), ["gone"]);
        assert!(watcher.is_gone());
    }

    #[test]
    fn a_folder_that_is_removed_is_told() {
        let lab = tempfile::tempdir().unwrap();
        let folder = lab.path().join("a");
        fs::create_dir(&folder).unwrap();
        let mut watcher = watch(&folder, true);
        fs::remove_dir(&folder).unwrap();
        assert_eq!(told(&mut watcher), ["gone"]);
        assert!(watcher.is_gone());
    }

    #[test]
    fn one_level_is_one_level() {
        let lab = tempfile::tempdir().unwrap();
        fs::create_dir(lab.path().join("a")).unwrap();
        let mut watcher = watch(lab.path(), false);
        fs::write(lab.path().join("a/f"), "x").unwrap();
        fs::create_dir(lab.path().join("b")).unwrap();
        fs::write(lab.path().join("b/f"), "x").unwrap();
        assert_eq!(told(&mut watcher), ["+b"]);
    }

    #[test]
    fn more_folders_than_the_bound_are_an_overflow() {
        let lab = tempfile::tempdir().unwrap();
        let mut watcher = watch(lab.path(), true);
        for number in 0..=MAX_WATCHED_FOLDERS {
            fs::create_dir(lab.path().join(number.to_string())).unwrap();
        }
        let mut all = Vec::new();
        while all.last().is_none_or(|last| last != "overflow") {
            let new = told(&mut watcher);
            assert!(!new.is_empty(), "no overflow: {all:?}");
            all.extend(new);
        }
        assert_eq!(watcher.folders.len(), MAX_WATCHED_FOLDERS);
    }
}
