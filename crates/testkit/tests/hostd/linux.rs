//! Linux in a QEMU that hostd starts, through the conformance suite of drivers.

use std::sync::Arc;

use firelane_testkit::conformance::{self, Subject, linux_command};
use firelane_testkit::hostd::Hostd;
use firelane_testkit::{Lab, booted};
use firelane_vmm::qemu::Qemu;

use crate::begun::is_root;

/// A case of the suite, if there can be a hostd.
macro_rules! case {
    ($($case:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                if !is_root(stringify!($case)) {
                    return;
                }
                // Its own, because the case's is gone with the case.
                let lab = Lab::new();
                let hostd = Hostd::start(&lab, &[]);
                let own = Lab::new().with_records_in(hostd.run_dir());
                conformance::$case(subject(own, &hostd)).await;
                // What is dropped is removed a moment later.
                hostd.wait_until_empty();
            }
        )+
    };
}

case!(
    boots_answers_and_is_gone,
    clones_go_on_from_the_snapshot_and_do_not_see_each_other,
    a_saved_microvm_goes_on_and_so_do_its_clones,
    a_spoilt_snapshot_is_refused_and_leaves_nothing,
    a_name_is_used_once,
    a_death_is_told,
    what_is_dropped_ends_and_is_swept,
    its_vmm_is_confined,
    a_vmm_that_waits_restores_or_leaves_nothing,
    a_vmm_that_dies_while_it_waits_is_told,
);

fn subject(lab: Lab, hostd: &Hostd) -> Subject {
    let driver = Qemu {
        hostd: Some(hostd.socket()),
        ..booted::qemu(&lab)
    };
    let machine = booted::machine(&lab, "base", 256);
    Subject {
        lab,
        driver: Arc::new(driver),
        machine,
        command: linux_command,
    }
}
