//! QEMU's command line for one microVM.
//!
//! The machine is `microvm`: virtio-mmio devices, no PCI, no firmware beyond a stub. Source: QEMU,
//! `docs/system/i386/microvm.rst`, and the manual page of 7.2 and 10.0.

use std::path::Path;

use firelane_guest_proto::link::PORT_NAME;
use firelane_guest_proto::network::GUEST_MAC;
use serde::{Deserialize, Serialize};

use crate::machine::{Acceleration, DiskLimits, Files, Network, Shape};

/// Descriptor of the monitor that QEMU inherits.
pub const QMP_FD: i32 = 3;
/// The link's virtio-serial port.
pub const LINK_FD: i32 = 4;
/// The guest's serial console.
pub const CONSOLE_FD: i32 = 5;

/// The tap of a guest that has a network.
pub const TAP_FD: i32 = 6;
/// The jail's socket for opens; not QEMU's. The highest.
pub const OPENS_FD: i32 = 7;

/// The last descriptor that QEMU inherits.
pub(super) fn last_descriptor(network: Option<Network>) -> i32 {
    match network {
        Some(Network::Tap) => TAP_FD,
        Some(Network::Nothing) | None => CONSOLE_FD,
    }
}

/// How a microVM comes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Booted, with memory of its own.
    Boot,
    /// Booted, with memory in a file that becomes a snapshot's.
    Template,
    /// Restored, with memory that is a private copy of a snapshot's.
    Clone,
    /// Never run: it takes over the memory and state of another, with memory in a file that becomes
    /// a snapshot's.
    Saver,
}

impl Origin {
    /// Whether its memory and state come from elsewhere, and not from a kernel.
    #[must_use]
    pub fn is_given(self) -> bool {
        matches!(self, Origin::Clone | Origin::Saver)
    }
}

/// Bytes of translated code that emulation may keep, in MiB. The default is a gibibyte per
/// microVM; node, the hungriest, needs 37.
pub const TB_SIZE_MIB: u32 = 64;

/// The arguments, program excluded.
#[must_use]
pub fn arguments(
    shape: &Shape,
    files: &Files,
    origin: Origin,
    acceleration: Acceleration,
    tsc_khz: u64,
    network: Option<Network>,
) -> Vec<String> {
    let chardev = |id: &str, fd: i32| format!("socket,id={id},fd={fd}");
    let (accel, cpu) = match acceleration {
        Acceleration::Kvm => ("kvm".into(), "host"),
        Acceleration::Tcg => (format!("tcg,thread=multi,tb-size={TB_SIZE_MIB}"), "max"),
    };
    let drive = files.rootfs.as_ref().map(|path| {
        let path = escape(path);
        let limits = throttling(files.disk);
        format!("id=root,file={path},format=raw,if=none,readonly=on,file.locking=off,{limits}")
    });
    let port = format!("virtserialport,chardev=link,name={PORT_NAME},nr=1");
    // QEMU opens this path, and the jail has its owner answer the open: the path does not exist.
    let size = shape.memory_mib;
    let file = |share: &str| {
        format!("memory-backend-file,id=ram,size={size}M,mem-path=/memory,share={share}")
    };
    // Under one name everywhere: where memory is passed on, it is found by it.
    let memory = match origin {
        Origin::Boot => format!("memory-backend-ram,id=ram,size={size}M"),
        Origin::Template | Origin::Saver => file("on"),
        Origin::Clone => file("off"),
    };
    let root = drive.map(|drive| {
        let device = "virtio-blk-device,drive=root".into();
        [("-drive", drive), ("-device", device)]
    });
    let before: Vec<(&str, String)> = vec![
        ("-name", format!("firelane-{}", shape.id)),
        (
            "-machine",
            "microvm,acpi=on,pit=on,pic=on,rtc=on,memory-backend=ram".into(),
        ),
        ("-accel", accel),
        ("-cpu", cpu.into()),
        ("-smp", shape.vcpus.to_string()),
        ("-m", format!("{}M", shape.memory_mib)),
        // Old QEMUs call the same file the default; newer ones would take another without ACPI.
        ("-bios", "qboot.rom".into()),
        (
            "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny".into(),
        ),
        ("-chardev", chardev("qmp", QMP_FD)),
        ("-mon", "chardev=qmp,mode=control".into()),
        ("-chardev", chardev("console", CONSOLE_FD)),
        ("-serial", "chardev:console".into()),
    ];
    let after = [
        ("-device", "virtio-rng-device".into()),
        ("-device", "virtio-serial-device,max_ports=2".into()),
        ("-chardev", chardev("link", LINK_FD)),
        ("-device", port),
    ];
    let network = network.map(network_device);
    let memory = [("-object", memory)];
    // A clone finds its kernel in its memory.
    let start = match origin {
        Origin::Clone | Origin::Saver => vec![("-incoming", "defer".into())],
        Origin::Boot | Origin::Template => {
            let kernel = files.kernel.to_string_lossy().into_owned();
            let initrd = files.initrd.as_ref();
            let initrd = initrd.map(|path| ("-initrd", path.to_string_lossy().into_owned()));
            let append = ("-append", kernel_arguments(acceleration, tsc_khz));
            let kernel = [("-kernel", kernel)];
            kernel.into_iter().chain(initrd).chain([append]).collect()
        }
    };
    let flags = ["-nodefaults", "-no-user-config", "-no-reboot", "-S"].map(String::from);
    let display = ["-display", "none"].map(String::from);
    let pairs = before
        .into_iter()
        .chain(root.into_iter().flatten())
        .chain(after)
        .chain(network.into_iter().flatten())
        .chain(memory)
        .chain(start)
        .flat_map(|(name, value)| [name.into(), value]);
    flags.into_iter().chain(display).chain(pairs).collect()
}

/// The network device, and what it is on. The device is the same with a tap and with nothing, so that a state that
/// was saved with one is loaded with the other: the tap has no header of the kernel's, without which neither
/// offers to have anything offloaded.
fn network_device(network: Network) -> Vec<(&'static str, String)> {
    let [a, b, c, d, e, f] = GUEST_MAC;
    let mac = format!("mac={a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
    match network {
        Network::Nothing => vec![("-device", format!("virtio-net-device,{mac}"))],
        // No vhost: what the guest sends goes through QEMU, and not through a device of the host's kernel.
        Network::Tap => vec![
            ("-netdev", format!("tap,id=net,fd={TAP_FD},vhost=off")),
            ("-device", format!("virtio-net-device,netdev=net,{mac}")),
        ],
    }
}

/// The guest kernel's command line. Source: Linux, `Documentation/admin-guide/kernel-parameters.txt`.
fn kernel_arguments(acceleration: Acceleration, tsc_khz: u64) -> String {
    let common = "console=ttyS0 8250.nr_uarts=1 quiet loglevel=4 reboot=t panic=-1 \
                  cryptomgr.notests=1 random.trust_cpu=on vsyscall=none debugfs=off oops=panic slab_nomerge";
    match acceleration {
        Acceleration::Kvm => common.into(),
        // The counter is the host's, and calibration against an emulated timer fails when the host
        // is busy. Mitigations protect nothing where no instruction runs on the processor itself;
        // one address layout lets QEMU 7 find translated code again in the next process.
        Acceleration::Tcg => format!(
            "{common} tsc_early_khz={tsc_khz} tsc=reliable no_timer_check \
             mitigations=off lsm=lockdown,yama norandmaps psi=0"
        ),
    }
}

/// Bounds on what the guest reads of its disk. A burst of one second at the same rate is a bucket that has as much at once
/// as comes again in a second. Source: QEMU, `docs/throttle.txt`, "Limits" and "Bursts". 0 would be no bound.
fn throttling(limits: DiskLimits) -> String {
    let (bytes, ops) = (limits.bytes_per_s.max(1), limits.ops_per_s.max(1));
    format!(
        "throttling.bps-total={bytes},throttling.bps-total-max={bytes},\
         throttling.iops-total={ops},throttling.iops-total-max={ops}"
    )
}

/// A path inside a comma-separated option: commas are doubled.
#[must_use]
pub fn escape(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(origin: Origin, acceleration: Acceleration, tsc_khz: u64) -> Vec<String> {
        with_network(origin, acceleration, tsc_khz, None)
    }

    fn with_network(
        origin: Origin,
        acceleration: Acceleration,
        tsc_khz: u64,
        network: Option<Network>,
    ) -> Vec<String> {
        let shape = Shape {
            id: "vm-1".into(),
            memory_mib: 256,
            vcpus: 2,
        };
        let files = Files {
            kernel: "/store/vmlinux".into(),
            initrd: Some("/store/initrd".into()),
            rootfs: Some("/store/a,b".into()),
            disk: DiskLimits::DEFAULT,
        };
        arguments(&shape, &files, origin, acceleration, tsc_khz, network)
    }

    #[test]
    fn the_command_line_has_no_network_no_default_device_and_a_read_only_root() {
        let line = line(Origin::Boot, Acceleration::Tcg, 2_300_000).join(" ");
        insta::assert_snapshot!(line);
    }

    #[test]
    fn a_network_is_one_device_more_and_nothing_else() {
        let without = line(Origin::Boot, Acceleration::Tcg, 1);
        let mut with = with_network(Origin::Boot, Acceleration::Tcg, 1, Some(Network::Tap));
        let at = with.iter().position(|word| word == "-netdev").unwrap();
        let network: Vec<String> = with.drain(at..at + 4).collect();
        assert_eq!(with, without);
        assert_eq!(
            network.join(" "),
            "-netdev tap,id=net,fd=6,vhost=off -device virtio-net-device,netdev=net,mac=02:f1:00:00:00:02"
        );
        assert_eq!(
            (last_descriptor(None), last_descriptor(Some(Network::Tap))),
            (CONSOLE_FD, TAP_FD)
        );
    }

    #[test]
    fn a_device_with_nothing_behind_it_is_the_same_device_and_needs_no_descriptor() {
        let line = |network| with_network(Origin::Template, Acceleration::Tcg, 1, Some(network));
        let (nothing, tap) = (line(Network::Nothing), line(Network::Tap));
        let shown = |line: &[String]| {
            let at = line.iter().position(|word| word.starts_with("virtio-net"));
            line[at.unwrap()].replace("netdev=net,", "")
        };
        assert_eq!(shown(&nothing), shown(&tap));
        assert!(!nothing.iter().any(|word| word == "-netdev"), "{nothing:?}");
        assert_eq!(last_descriptor(Some(Network::Nothing)), CONSOLE_FD);
    }

    #[test]
    fn kvm_differs_in_accelerator_processor_and_kernel_arguments_only() {
        let tcg = line(Origin::Boot, Acceleration::Tcg, 1);
        let kvm = line(Origin::Boot, Acceleration::Kvm, 1);
        let different: Vec<&String> = kvm
            .iter()
            .zip(&tcg)
            .filter(|(a, b)| a != b)
            .map(|(a, _)| a)
            .collect();
        assert_eq!(different.len(), 3, "{different:?}");
        assert_eq!(&different[..2], ["kvm", "host"]);
    }

    #[test]
    fn a_clone_has_its_templates_devices_and_a_private_copy_of_its_memory() {
        let line = |origin| line(origin, Acceleration::Tcg, 1);
        let (template, clone) = (line(Origin::Template), line(Origin::Clone));
        let (boot, saver) = (line(Origin::Boot), line(Origin::Saver));
        let devices = |line: &[String]| -> Vec<String> {
            let pairs = line.windows(2).filter(|pair| pair[0] == "-device");
            pairs.map(|pair| pair[1].clone()).collect()
        };
        assert_eq!(devices(&template), devices(&clone));
        assert_eq!(devices(&template), devices(&boot));
        assert_eq!(devices(&template), devices(&saver));
        assert!(
            clone.iter().any(|word| word.ends_with("share=off")),
            "{clone:?}"
        );
        assert!(!clone.iter().any(|word| word == "-kernel"), "{clone:?}");
    }
}
