//! Memory: the heap behind the image, and what is left behind that.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::NonNull;

use firelane_bare_guest::bootparams::Region;
use linked_list_allocator::Heap;

/// Bytes of the heap: more than eight connections with whatever they may hold at once.
const HEAP_BYTES: u64 = 40 << 20;
/// Devices begin here, so memory that is used ends before.
const DEVICES: u64 = 3 << 30;
pub(crate) const PAGE_BYTES: u64 = 4096;

struct OneThread(UnsafeCell<Heap>);

// SAFETY: the program has one thread, and no interrupts.
unsafe impl Sync for OneThread {}

// SAFETY: what the heap gives is what was asked for, and its own.
unsafe impl GlobalAlloc for OneThread {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: one thread, and the heap does not call back.
        let heap = unsafe { &mut *self.0.get() };
        heap.allocate_first_fit(layout)
            .map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as in `alloc`.
        let heap = unsafe { &mut *self.0.get() };
        if let Some(at) = NonNull::new(at) {
            // SAFETY: the caller says that it comes from `alloc` with this layout.
            unsafe { heap.deallocate(at, layout) };
        }
    }
}

#[cfg_attr(panic = "abort", global_allocator)]
static HEAP: OneThread = OneThread(UnsafeCell::new(Heap::empty()));

unsafe extern "C" {
    static image_end: [u8; 0];
}

/// Begins the heap, and gives the pages behind it that nothing uses; `None` if there is too little.
pub(crate) fn start(memory: impl Iterator<Item = Region>) -> Option<Region> {
    let begin = (&raw const image_end) as u64;
    let mut memory = memory.filter(|region| region.start <= begin);
    let region = memory.find(|region| begin - region.start < region.bytes)?;
    let end = region.start.saturating_add(region.bytes).min(DEVICES);
    let start = begin + HEAP_BYTES;
    if start > end {
        return None;
    }
    // SAFETY: this is memory behind the image, mapped, and nobody else's; it is called once.
    unsafe { (*HEAP.0.get()).init(begin as *mut u8, HEAP_BYTES as usize) };
    let bytes = (end - start) / PAGE_BYTES * PAGE_BYTES;
    Some(Region { start, bytes })
}
