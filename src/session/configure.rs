//! Options, in the words of the runtime's configuration block.

use memcheck_abi::config::Config;
use memcheck_report::options::{KeepStacktraces, Options, TrackFds, XtreeMemory};

/// The runtime keeps this many frames of a stack at most.
const MAX_CALLERS: usize = 500;
/// Smallest red zone that can be told from the padding of a block, bytes.
const MIN_REDZONE: u64 = 16;

pub fn configure(options: &Options, config: &mut Config) {
    config.undef_value_errors = options.undef_value_errors.into();
    config.track_origins = options.track_origins.into();
    config.num_callers = options.num_callers.clamp(1, MAX_CALLERS) as u32;
    config.freelist_volume = options.freelist_vol;
    config.freelist_big_blocks = options.freelist_big_blocks;
    config.redzone = options.redzone_size.next_multiple_of(MIN_REDZONE).max(MIN_REDZONE);
    config.alignment = options.alignment.max(16);
    config.malloc_fill = options.malloc_fill.map_or(-1, i32::from);
    config.free_fill = options.free_fill.map_or(-1, i32::from);
    config.show_mismatched_frees = options.show_mismatched_frees.into();
    config.partial_loads_ok = options.partial_loads_ok.into();
    config.keep_stacks = keep_stacks(options.keep_stacktraces) | u32::from(options.xtree_memory == XtreeMemory::Full) << 1;
    config.run_libc_freeres = options.run_libc_freeres.into();
    config.trace_children = options.trace_children.into();
    config.realloc_zero_keeps = (!options.realloc_zero_bytes_frees).into();
    config.show_realloc_zero = options.show_realloc_size_zero.into();
    config.show_bad_alignments = options.show_bad_alignments.into();
    config.tally_places = (options.xtree_memory == XtreeMemory::Full).into();
    config.stop_at_start = (options.debugger && (options.debugger_error == 0 || options.debugger_at_start)).into();
    config.trace_malloc = options.trace_malloc.into();
    config.track_fds = (options.track_fds != TrackFds::No).into();
    config.code_cache = options.code_cache;
    config.stack_limit = options.main_stacksize.unwrap_or(config.stack_limit);
}

/// Bit 0: allocation stacks, bit 1: stacks of frees.
fn keep_stacks(keep: KeepStacktraces) -> u32 {
    match keep {
        KeepStacktraces::None => 0,
        KeepStacktraces::Alloc => 1,
        KeepStacktraces::Free => 2,
        // "Then": the report forgets the first when there is a second.
        KeepStacktraces::AllocAndFree | KeepStacktraces::AllocThenFree => 3,
    }
}
