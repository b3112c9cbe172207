//! Faults of memory of this process, served as a VMM's.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::thread;

use firelane_sys::userfault::{Memory, Userfault};
use rustix::event::{EventfdFlags, eventfd};

use super::*;
use crate::firecracker::pager::layout::Layout;

const MEMORY_BYTES: u64 = 1 << 20;

/// This block of the snapshot's memory is zero; all other pages have their numbers in them, from 1.
const EMPTY_BLOCK: u64 = 3;

struct Scene {
    folder: tempfile::TempDir,
    memory: Memory,
    /// The VMM's end.
    vmm: Option<UnixStream>,
    stop: OwnedFd,
    shared: Arc<Shared>,
    faults: Option<Userfault>,
    ours: Option<UnixStream>,
}

impl Scene {
    fn new() -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join("memory")).unwrap();
        file.set_len(MEMORY_BYTES).unwrap();
        for page in 0..MEMORY_BYTES / PAGE_BYTES {
            if page * PAGE_BYTES / BLOCK_BYTES != EMPTY_BLOCK {
                let number = (page + 1).to_ne_bytes();
                file.write_all_at(&number, page * PAGE_BYTES).unwrap();
            }
        }
        let memory = Memory::new(MEMORY_BYTES).unwrap();
        let faults = Userfault::make().unwrap();
        faults.register(&memory).unwrap();
        let (vmm, ours) = UnixStream::pair().unwrap();
        Scene {
            folder,
            memory,
            vmm: Some(vmm),
            stop: eventfd(0, EventfdFlags::CLOEXEC).unwrap(),
            shared: Arc::new(Shared {
                id: "one".into(),
                paused: AtomicBool::new(false),
                failure: OnceLock::new(),
            }),
            faults: Some(faults),
            ours: Some(ours),
        }
    }

    fn set(&self) -> WorkingSet {
        WorkingSet::of(&self.folder.path().join("memory")).unwrap()
    }

    /// Serves two regions, of which the first ends within a block, while `guest` works, and stops then.
    fn served<T>(&mut self, guest: impl FnOnce(&Memory) -> T) -> (Result<End, PagerError>, T) {
        self.until_stopped(|memory, stop| {
            let done = guest(memory);
            stop();
            done
        })
    }

    /// The same until the guest says stop, or it ends by itself.
    fn until_stopped<T>(
        &mut self,
        guest: impl FnOnce(&Memory, &dyn Fn()) -> T,
    ) -> (Result<End, PagerError>, T) {
        let cut = 6 * BLOCK_BYTES + 2 * PAGE_BYTES;
        let address = self.memory.address();
        let told = serde_json::json!([
            { "base_host_virt_addr": address, "size": cut, "offset": 0, "page_size": PAGE_BYTES },
            { "base_host_virt_addr": address + cut, "size": MEMORY_BYTES - cut, "offset": cut, "page_size": PAGE_BYTES },
        ]);
        let mappings: Vec<_> = serde_json::from_value(told).unwrap();
        let handed = Handed {
            faults: self.faults.take().unwrap(),
            layout: Layout::check(&mappings, MEMORY_BYTES).unwrap(),
            connection: self.ours.take().unwrap(),
        };
        let source = Source::Plain(File::open(self.folder.path().join("memory")).unwrap());
        let mut server = Server::new(handed, source, self.set(), &self.shared);
        let (stop, memory) = (self.stop.as_fd(), &self.memory);
        thread::scope(|scope| {
            let served = scope.spawn(move || {
                let served = server.serve(stop);
                server.finish();
                served
            });
            let done = guest(memory, &|| {
                rustix::io::write(&self.stop, &1_u64.to_ne_bytes()).unwrap();
            });
            (served.join().unwrap(), done)
        })
    }
}

fn page(memory: &Memory, number: u64) -> u64 {
    memory.word(number * PAGE_BYTES)
}

#[test]
fn every_page_is_what_the_snapshot_has() {
    let mut scene = Scene::new();
    let (served, pages) = scene.served(|memory| {
        let pages = 0..MEMORY_BYTES / PAGE_BYTES;
        pages.map(|number| page(memory, number)).collect::<Vec<_>>()
    });
    assert_eq!(served.unwrap(), End::Stopped);
    let in_block = BLOCK_BYTES / PAGE_BYTES;
    for (number, found) in (0..).zip(pages) {
        let empty = number / in_block == EMPTY_BLOCK;
        assert_eq!(found, if empty { 0 } else { number + 1 }, "{number}");
    }
    // In the order of the faults; the block that lies in two regions is missed in both.
    let blocks: Vec<u64> = (0..MEMORY_BYTES / BLOCK_BYTES).collect();
    let known = scene.set().read().unwrap().unwrap();
    assert_eq!(known.blocks, blocks);
}

#[test]
fn what_was_given_back_is_zero_and_its_neighbours_are_not() {
    let mut scene = Scene::new();
    let (served, found) = scene.served(|memory| {
        let before = page(memory, 20);
        memory.give_back(20 * PAGE_BYTES, 2 * PAGE_BYTES).unwrap();
        // Never touched before, and given back all the same; across a block's end.
        memory.give_back(31 * PAGE_BYTES, 2 * PAGE_BYTES).unwrap();
        let after = [20, 21, 31, 32].map(|number| page(memory, number));
        (
            before,
            after,
            [19, 22, 30, 33].map(|number| page(memory, number)),
        )
    });
    served.unwrap();
    assert_eq!(found, (21, [0; 4], [20, 23, 31, 34]));
}

#[test]
fn a_vmm_that_misses_what_it_gives_back_without_end_is_ended() {
    let mut scene = Scene::new();
    let (served, ()) = scene.until_stopped(|memory, _| {
        let most = FAULTS_OF_A_PAGE * MEMORY_BYTES / PAGE_BYTES + MAX_MISSED as u64;
        for _ in 0..=most {
            memory.give_back(0, PAGE_BYTES).unwrap();
            page(memory, 0);
        }
    });
    assert!(matches!(served, Err(PagerError::Flood)), "{served:?}");
}

#[test]
fn a_vmm_that_hangs_up_or_speaks_is_at_its_end() {
    use std::io::Write;
    for speaks in [false, true] {
        let mut scene = Scene::new();
        let vmm = scene.vmm.take().unwrap();
        if speaks {
            (&vmm).write_all(b"more").unwrap();
            scene.vmm = Some(vmm);
        } else {
            drop(vmm);
        }
        let (served, ()) = scene.until_stopped(|_, _| ());
        assert_eq!(served.unwrap(), End::HungUp);
        assert!(scene.set().read().unwrap().is_none(), "nothing was missed");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_that_says_where() {
    let mut scene = Scene::new();
    let path = scene.folder.path().join("memory");
    let memory = File::options().write(true).open(path).unwrap();
    memory.set_len(9 * BLOCK_BYTES + 1).unwrap();
    // A guest would wait for ever: the block is known to be missed instead.
    let known = Known {
        blocks: vec![9],
        settled: true,
    };
    scene.set().write(&known, "before").unwrap();
    let (served, ()) = scene.until_stopped(|_, _| ());
    match served {
        Err(PagerError::Snapshot { offset, .. }) => assert_eq!(offset, 9 * BLOCK_BYTES),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_guest_that_has_settled_is_recorded_and_what_it_misses_later_is_not() {
    let mut scene = Scene::new();
    let set = scene.set();
    let (served, ()) = scene.served(|memory| {
        page(memory, 0);
        // Until it has missed nothing for long enough.
        while set.read().unwrap().is_none() {
            thread::yield_now();
        }
        page(memory, 100);
    });
    served.unwrap();
    let known = scene.set().read().unwrap().unwrap();
    assert_eq!((known.blocks, known.settled), (vec![0], true));
}

#[test]
fn what_a_guest_misses_that_ends_early_is_added_to_what_is_known() {
    let mut scene = Scene::new();
    let known = Known {
        blocks: vec![5, 2],
        settled: false,
    };
    scene.set().write(&known, "before").unwrap();
    let (served, _) = scene.served(|memory| page(memory, 0));
    served.unwrap();
    let known = scene.set().read().unwrap().unwrap();
    assert_eq!(known.blocks, [5, 2, 0]);
    // How long it took until it was stopped is the machine's business.
}
