//! Every driver through the conformance suite.
//!
//! The legs on a real Firecracker need one, and a KVM on which the bare guest runs: `FIRELANE_FIRECRACKER`
//! and `FIRELANE_JAILER` name the programs, and `cargo xtask test` runs those legs where they do. Without
//! them it says that they were skipped.

mod faults;
mod killed;
mod legs;
mod paged;
mod sealed;

/// Each case of the suite on one leg, as a test with this attribute.
macro_rules! leg {
    ($attribute:tt $leg:ident, $($case:ident),+ $(,)?) => {
        mod $leg {
            $(
                #[tokio::test(flavor = "multi_thread")]
                # $attribute
                async fn $case() {
                    let subject = crate::legs::$leg().await;
                    firelane_testkit::conformance::$case(subject).await;
                }
            )+
        }
    };
}

/// All of them on a leg whose guest boots quickly.
macro_rules! whole_leg {
    ($attribute:tt $leg:ident $(, $more:ident)*) => {
        leg!(
            $attribute $leg,
            $($more,)*
            boots_answers_and_is_gone,
            stands_still_while_paused,
            clones_go_on_from_the_snapshot_and_do_not_see_each_other,
            a_saved_microvm_goes_on_and_so_do_its_clones,
            without_a_place_there_is_no_snapshot,
            a_spoilt_snapshot_is_refused_and_leaves_nothing,
            a_missing_file_is_named,
            a_name_is_used_once,
            a_path_too_long_for_a_socket_is_refused,
            a_death_is_told,
            what_is_dropped_ends_and_is_swept,
            a_snapshot_holds_what_was_touched,
            a_vmm_that_waits_restores_or_leaves_nothing,
            a_vmm_that_dies_while_it_waits_is_told,
            a_full_disk_is_told_and_the_microvm_goes_on,
            a_full_disk_leaves_no_snapshot,
            boots_with_a_disk,
            a_microvm_that_runs_is_forked_and_rolled_back,
            a_save_that_its_vmm_refuses_leaves_the_microvm_usable,
        );
    };
}

// A boot takes seconds by emulation, and `driver.rs` has its own tests of pausing.
leg!(
    [cfg(all())] qemu,
    boots_answers_and_is_gone,
    clones_go_on_from_the_snapshot_and_do_not_see_each_other,
    without_a_place_there_is_no_snapshot,
    a_spoilt_snapshot_is_refused_and_leaves_nothing,
    a_missing_file_is_named,
    a_name_is_used_once,
    a_path_too_long_for_a_socket_is_refused,
    a_death_is_told,
    what_is_dropped_ends_and_is_swept,
    a_vmm_that_waits_restores_or_leaves_nothing,
    a_vmm_that_dies_while_it_waits_is_told,
);
whole_leg!([cfg(all())] fake_firecracker);
whole_leg!([cfg(all())] fake_firecracker_paged);
whole_leg!(
    [ignore = "needs a real Firecracker: FIRELANE_FIRECRACKER names it"]
    real_firecracker_in_our_jail,
    its_vmm_is_confined
);
whole_leg!(
    [ignore = "needs a real Firecracker and its jailer: FIRELANE_FIRECRACKER and FIRELANE_JAILER name them"]
    real_firecracker_in_its_jailer,
    its_vmm_is_confined
);
whole_leg!(
    [ignore = "needs a real Firecracker: FIRELANE_FIRECRACKER names it"]
    real_firecracker_paged_in_our_jail,
    its_vmm_is_confined
);
whole_leg!(
    [ignore = "needs a real Firecracker and its jailer: FIRELANE_FIRECRACKER and FIRELANE_JAILER name them"]
    real_firecracker_paged_in_its_jailer,
    its_vmm_is_confined
);
