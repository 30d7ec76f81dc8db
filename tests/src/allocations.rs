//! An allocator that counts what each thread asks for.
//!
//! A test program names [`Counting`] as its global allocator; [`measure`] then says what a piece of code held at most.
//! What C libraries allocate (zstd's contexts) is not seen.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes that this thread allocated and nobody gave back on it. Below 0 where it freed what others allocated.
    static LIVE: Cell<isize> = const { Cell::new(0) };
    /// The most that `LIVE` was since the last [`measure`] began.
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, counted.
pub struct Counting;

fn add(bytes: usize) {
    // Sizes of layouts fit. A thread that ends has no counters any more, and nobody to ask for them.
    let _ = LIVE.try_with(|live| {
        let now = live.get() + bytes as isize;
        live.set(now);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now)));
    });
}

fn subtract(bytes: usize) {
    let _ = LIVE.try_with(|live| live.set(live.get() - bytes as isize));
}

// SAFETY: every call goes to the system's allocator as it came; counting touches no memory of it and does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller's promise is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        subtract(layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both are held while the contents move.
        add(size);
        subtract(layout.size());
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, size) }
    }
}

/// Runs `work` and says how many bytes it held at most, beside what was there before.
pub fn measure<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.get();
    PEAK.set(before);
    let result = work();
    let held = PEAK.get() - before;
    (result, usize::try_from(held).unwrap_or(0))
}
