//! Programs that mean harm. Each has a defined end, and a normal run on the same machine follows.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

use firelane_testkit::Lab;
use serde_json::Value;

/// Runs the program; then an ordinary one, which must not notice.
fn attack(lang: &str, code: &str, more: &[&str]) -> Value {
    let lab = Lab::new();
    let report = lab.run_json(lang, code, more);
    let after = lab.run_json("bash", "echo fine", &[]);
    assert_eq!(after["stdout"], "fine\n", "after {report}");
    lab.assert_empty();
    report
}

fn stdout(report: &Value) -> &str {
    report["stdout"].as_str().unwrap()
}

#[test]
fn a_fork_bomb_is_bounded_and_ends_at_the_time_limit() {
    let code = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass";
    let report = attack("python", code, &["--timeout", "5"]);
    assert_eq!(report["exit_code"], 124);
    assert_eq!(report["timed_out"], true);
}

#[test]
fn a_memory_hog_is_137_and_out_of_memory() {
    let code = "x = []\nwhile True: x.append(bytearray(8 << 20))";
    let report = attack("python", code, &["--timeout", "120"]);
    assert_eq!(report["exit_code"], 137);
    assert_eq!(report["out_of_memory"], true);
    assert_eq!(report["timed_out"], false);
}

#[test]
fn a_disk_filler_gets_no_space_left() {
    let code =
        "head -c 1G /dev/zero > /tmp/big; echo $?; head -c 1G /dev/zero > /dev/shm/big; echo $?";
    let report = attack("bash", code, &["--timeout", "120"]);
    assert_eq!(stdout(&report), "1\n1\n", "{report}");
    assert_eq!(report["exit_code"], 0);
}

#[test]
fn a_gigabyte_of_output_is_cut_with_a_mark() {
    let report = attack(
        "bash",
        "head -c 1G /dev/zero; echo done >&2",
        &["--timeout", "600", "--max-output-mib", "1"],
    );
    assert_eq!(report["truncated"], true);
    assert_eq!(stdout(&report).len(), 1 << 20);
    assert_eq!(
        (&report["exit_code"], &report["stderr"]),
        (&0.into(), &"done\n".into())
    );
}

#[test]
fn output_without_a_newline_arrives_whole() {
    let report = attack("python", "print('x' * 3_000_000, end='')", &[]);
    assert_eq!(stdout(&report).len(), 3_000_000);
    assert_eq!(report["truncated"], false);
}

#[test]
fn killing_everything_kills_only_itself() {
    let code = "import os, signal\nif os.fork() == 0: signal.pause()\nos.kill(-1, 9)\nprint('alive')\nos.kill(os.getpid(), 9)";
    let report = attack("python", code, &[]);
    assert_eq!(
        (&report["exit_code"], &report["signal"]),
        (&137.into(), &9.into())
    );
    assert_eq!(report["out_of_memory"], false);
}

#[test]
fn closing_all_descriptors_hides_no_exit_code() {
    let report = attack(
        "python",
        "import os\nos.closerange(0, 4096)\nos._exit(9)",
        &[],
    );
    assert_eq!(report["exit_code"], 9);
}

#[test]
fn a_program_that_stops_itself_ends_at_the_time_limit() {
    let report = attack("bash", "kill -STOP $$", &["--timeout", "2"]);
    assert_eq!(
        (&report["exit_code"], &report["timed_out"]),
        (&124.into(), &true.into())
    );
}

#[test]
fn daemons_end_with_the_program() {
    // The grandchild holds stdout open: if it lived on, the run would not end.
    let code = "import os, signal, time\n\
                if os.fork() == 0:\n    os.setsid()\n    signal.signal(15, signal.SIG_IGN)\n    if os.fork() == 0:\n        while True: time.sleep(1)\n    os._exit(0)\n\
                os.wait()\nprint('parent done')";
    let report = attack("python", code, &["--timeout", "60"]);
    assert_eq!(
        (stdout(&report), &report["exit_code"]),
        ("parent done\n", &0.into()),
        "{report}"
    );
    assert_eq!(report["timed_out"], false);
}

#[test]
fn detached_and_deaf_processes_end_at_the_time_limit() {
    let code = "import os, signal\nfor n in range(1, 32):\n    try: signal.signal(n, signal.SIG_IGN)\n    except (OSError, ValueError): pass\n\
                for i in range(4):\n    if os.fork() == 0: os.setsid()\n\
                while True: signal.pause()";
    let report = attack("python", code, &["--timeout", "3"]);
    assert_eq!(
        (&report["exit_code"], &report["timed_out"]),
        (&124.into(), &true.into())
    );
}

#[test]
fn a_million_files_run_out_of_inodes() {
    let code = "n = 0\ntry:\n    while n < 1_000_000: open(f'/tmp/{n}', 'w').close(); n += 1\n\
                except OSError as e: print(e.errno)\nprint(n < 1_000_000)";
    let report = attack("python", code, &["--timeout", "300"]);
    assert_eq!(stdout(&report), "28\nTrue\n", "{report}");
}

#[test]
fn devices_are_closed_to_programs() {
    let code = "for d in /dev/vda /dev/mem /dev/vport* /dev/console /dev/kmsg /dev/userfaultfd; do \
                ( : > $d ) 2>/dev/null && echo open $d; done; cat /dev/vda 2>/dev/null | head -c 1 | wc -c; \
                mount -t tmpfs x /tmp 2>/dev/null; unshare -U true 2>/dev/null && echo unshared; \
                echo x > /usr/bin/x; id -u";
    let report = attack("bash", code, &[]);
    assert_eq!(stdout(&report), "0\n1000\n", "{report}");
}

#[test]
fn what_tells_of_the_kernel_is_masked() {
    // With sockets and all other calls that a program can be given.
    let code = "for f in iomem ioports kallsyms kcore keys key-users kmsg modules slabinfo sysrq-trigger timer_list vmallocinfo; do \
                test -e /proc/$f && head -c 1 /proc/$f 2>/dev/null >&2 && echo open $f; done; \
                for d in /proc/irq /proc/bus /sys/firmware /sys/module /sys/kernel/debug /sys/kernel/tracing /sys/kernel/security; do \
                ls $d 2>/dev/null && echo open $d; done; \
                head -c 5 /proc/meminfo; test -r /proc/self/maps && ls -d /sys/kernel/mm";
    let report = attack("bash", code, &["--seccomp", "unrestricted"]);
    assert_eq!(stdout(&report), "MemTo/sys/kernel/mm\n", "{report}");
}

#[test]
fn proc_sys_and_dev_take_no_changes() {
    let code = "import errno\n\
                for path in ('/dev/x', '/sys/x', '/sys/kernel/mm/x', '/proc/sys/kernel/hostname', '/proc/sys/vm/drop_caches', '/proc/x'):\n\
                \x20   try: open(path, 'w'); print('open', path)\n\
                \x20   except OSError as e: print(errno.errorcode[e.errno])\n\
                print([l.split()[3].split(',')[0] for l in open('/proc/mounts') if l.split()[1] in ('/dev', '/sys')])";
    let report = attack("python", code, &["--seccomp", "unrestricted"]);
    let expected = "EROFS\nEROFS\nEROFS\nEACCES\nEACCES\nENOENT\n['ro', 'ro']\n";
    assert_eq!(stdout(&report), expected, "{report}");
}

#[test]
fn the_kernels_settings_are_hardened() {
    let code = "cd /proc/sys; head -v -n 1 kernel/{dmesg_restrict,kptr_restrict,perf_event_paranoid,unprivileged_bpf_disabled,modules_disabled,kexec_load_disabled,yama/ptrace_scope} \
                user/max_{user,mnt,net,pid,ipc,uts,cgroup}_namespaces fs/{suid_dumpable,protected_symlinks,protected_hardlinks} dev/tty/ldisc_autoload 2>&1 | \
                grep -v '^$' | sed 's/==> \\(.*\\) <==/\\1/' | paste -sd '= '; \
                grep -o 'vsyscall=none\\|debugfs=off\\|oops=panic\\|slab_nomerge' /proc/cmdline";
    let report = attack("bash", code, &[]);
    let lines: Vec<&str> = stdout(&report).lines().collect();
    let settings = "kernel/dmesg_restrict=1 kernel/kptr_restrict=2 kernel/perf_event_paranoid=3 \
                    kernel/unprivileged_bpf_disabled=1 kernel/modules_disabled=1 kernel/kexec_load_disabled=1 \
                    kernel/yama/ptrace_scope=1 user/max_user_namespaces=0 user/max_mnt_namespaces=0 \
                    user/max_net_namespaces=0 user/max_pid_namespaces=0 user/max_ipc_namespaces=0 \
                    user/max_uts_namespaces=0 user/max_cgroup_namespaces=0 fs/suid_dumpable=0 \
                    fs/protected_symlinks=1 fs/protected_hardlinks=1 dev/tty/ldisc_autoload=0";
    let command_line = ["vsyscall=none", "debugfs=off", "oops=panic", "slab_nomerge"];
    assert_eq!(lines[0], settings, "{report}");
    assert_eq!(lines[1..], command_line, "{report}");
}

#[test]
fn a_program_cannot_restart_or_crash_the_guest() {
    // A kernel may have closed the trigger (EACCES), or have none (ENOENT).
    let code = "import ctypes, os\n\
                absent = (2, 13)\n\
                print(ctypes.CDLL(None).reboot(0x1234567))\n\
                for c in 'cb':\n    try: open('/proc/sysrq-trigger', 'w').write(c)\n    except OSError as e: print(e.errno in absent)\n\
                try: os.kill(1, 9)\nexcept OSError as e: print(e.errno)";
    let report = attack("python", code, &[]);
    assert_eq!(stdout(&report), "-1\nTrue\nTrue\n1\n", "{report}");
}

#[test]
fn the_template_is_unchanged_after_all_it_is_told() {
    let lab = Lab::new();
    let manifest = lab.firelane(&["template", "show", "base", "--json"]);
    let manifest: Value = serde_json::from_str(&manifest.stdout).unwrap();
    let rootfs = lab
        .home()
        .join("blobs")
        .join(manifest["rootfs"]["hash"].as_str().unwrap());
    let before = std::fs::read(&rootfs).unwrap();
    let code = "rm -rf / 2>/dev/null; echo x > /bin/bash; rm -f /usr/bin/*; echo still";
    let report = lab.run_json("bash", code, &[]);
    assert_eq!(stdout(&report), "still\n");
    assert!(
        std::fs::read(&rootfs).unwrap() == before,
        "the root file system changed"
    );
}
