//! A cloud of many instances is very many small records, which mimalloc keeps in less room than the system's allocator.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// mimalloc's `mi_option_purge_delay`, for which its bindings have no name: how many milliseconds it keeps pages that
/// have become free.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Pages that have become free go back at once: requests come and go, records stay.
pub fn keep_little() {
    // SAFETY: the option is one that mimalloc has, and any value is valid.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, 0) };
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_option_is_the_one_that_is_meant() {
        // SAFETY: reading an option that there is.
        let before = unsafe { libmimalloc_sys::mi_option_get(super::PURGE_DELAY) };
        super::keep_little();
        // SAFETY: as above.
        let after = unsafe { libmimalloc_sys::mi_option_get(super::PURGE_DELAY) };
        // A second, as no other option has it.
        assert_eq!((before, after), (1000, 0));
    }
}
