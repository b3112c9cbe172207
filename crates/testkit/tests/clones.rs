//! Clones of one snapshot: private, and different from each other in everything that must not be
//! the same.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use firelane_guest_proto::Lang;
use firelane_image::{Found, Memory, SnapshotOrigin, Store};
use firelane_testkit::Lab;
use firelane_testkit::booted::Booted;
use serde_json::Value;

/// Clones that are compared.
const CLONES: usize = 4;

/// What a program prints in each of several clones, line by line.
fn in_clones(template: &str, lang: &str, code: &str) -> Vec<Vec<String>> {
    let lab = Lab::new();
    let prints = |_| {
        let args = ["run", "--template", template, "--lang", lang, "-c", code];
        let ended = lab.firelane(&args);
        assert_eq!(ended.code, 0, "{ended:?}");
        ended.stdout.lines().map(Into::into).collect()
    };
    (0..CLONES).map(prints).collect()
}

/// No line is the same in any two clones.
fn assert_distinct(lang: &str, printed: &[Vec<String>]) {
    let lines = printed[0].len();
    assert!(lines > 0, "{lang} printed nothing");
    for line in 0..lines {
        let values: BTreeSet<&String> = printed.iter().map(|clone| &clone[line]).collect();
        assert_eq!(values.len(), CLONES, "{lang}, line {line}: {printed:?}");
    }
}

#[test]
fn python_draws_other_numbers_in_every_clone() {
    let code = "import os, random, secrets, uuid, tempfile, socket\n\
                print(random.random())\n\
                print(random.Random().random())\n\
                print(secrets.token_hex(16))\n\
                print(os.urandom(16).hex())\n\
                print(os.getrandom(16).hex())\n\
                print(uuid.uuid4())\n\
                print(uuid.uuid1())\n\
                print(tempfile.mktemp())\n\
                print(open('/dev/urandom', 'rb').read(16).hex())\n\
                print(open('/proc/sys/kernel/random/boot_id').read().strip())\n\
                print(open('/proc/sys/kernel/random/uuid').read().strip())\n\
                print(socket.gethostname())\n\
                print(open('/etc/hostname').read().strip())\n\
                print(open('/etc/machine-id').read().strip())";
    assert_distinct("python", &in_clones("base", "python", code));
}

#[test]
fn bash_draws_other_numbers_in_every_clone() {
    // Four of $RANDOM, because one has only 32,768 values.
    let code = "echo $RANDOM$RANDOM$RANDOM$RANDOM; echo $SRANDOM; head -c 16 /dev/urandom | od -An -tx1; \
                cat /proc/sys/kernel/random/boot_id; hostname";
    assert_distinct("bash", &in_clones("base", "bash", code));
}

#[test]
fn node_draws_other_numbers_in_every_clone() {
    let code = "const crypto = require('crypto');\n\
                console.log(Math.random());\n\
                console.log(crypto.randomBytes(16).toString('hex'));\n\
                console.log(crypto.randomUUID());\n\
                console.log(crypto.getRandomValues(new Uint32Array(4)).join());";
    assert_distinct("node", &in_clones("default", "node", code));
}

#[test]
fn ruby_draws_other_numbers_in_every_clone() {
    let code = "require 'securerandom'\n\
                puts rand\nputs Random.new.rand\nputs Random.rand\nputs SecureRandom.hex(16)\nputs SecureRandom.uuid\n\
                puts [*1..1000].shuffle.first(4).join(' ')";
    assert_distinct("ruby", &in_clones("default", "ruby", code));
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

#[test]
fn the_time_in_a_clone_is_the_hosts() {
    let lab = Lab::new();
    // The guest's answer was true at a moment between question and answer: what the host's clock
    // says then bounds it, whatever the machine is busy with.
    let code = "import time\nprint(time.time_ns(), flush=True)\ninput()";
    let args = ["run", "--template", "base", "--lang", "python", "-c", code];
    let before = now();
    let mut running = firelane_testkit::Running::start(lab.command(&args), b"");
    let told = running.line();
    let after = now();
    running.write(b"\n");
    assert_eq!(running.end().code, 0);
    let told = Duration::from_nanos(told.trim().parse().unwrap());
    let slack = Duration::from_millis(50);
    assert!(
        before <= told + slack && told <= after + slack,
        "between {before:?} and {after:?} the clone said {told:?}"
    );
}

#[test]
fn a_clone_sees_nothing_of_the_one_before() {
    let lab = Lab::new();
    // Neither of the programs contains the mark as such: the search must not find itself.
    let leave = "mark = 'left' + 'behind' + '4711'\n\
                 for path in '/tmp/a', '/work/b', '/dev/shm/c', '/home/user/d':\n\
                 \x20   open(path, 'w').write(mark * 1000)\n\
                 import subprocess\n\
                 subprocess.Popen(['sleep', '1000', ], start_new_session=True)";
    let left = lab.run_json("python", leave, &[]);
    assert_eq!(left["exit_code"], 0, "{left}");
    let find = "import os\n\
                mark = ('left' + 'behind' + '4711').encode()\n\
                for folder in '/tmp', '/work', '/dev/shm', '/home/user', '/run', '/var':\n\
                \x20   for at, _, names in os.walk(folder):\n\
                \x20       for name in names:\n\
                \x20           path = os.path.join(at, name)\n\
                \x20           if os.path.isfile(path) and path != __file__ and mark in open(path, 'rb').read(): print(path)\n\
                print([line for line in os.popen('ps ax -o args=') if line.startswith('sleep')])";
    let found = lab.run_json("python", find, &[]);
    assert_eq!(found["stdout"], "[]\n", "{found}");
}

#[test]
fn cold_boots_and_says_so() {
    let lab = Lab::new();
    let report = lab.run_json("bash", "hostname", &["--cold"]);
    assert_eq!(report["stdout"], "firelane\n");
    let phases = report["timings"]["phases"].as_object().unwrap();
    assert!(!phases.contains_key("loaded"), "{report}");
}

#[test]
fn a_program_from_a_zygote_is_like_one_from_its_interpreter() {
    let lab = Lab::new();
    let code = "import sys, os, atexit, threading, signal, resource\n\
                print(__name__, __file__, sys.argv, sys.path[0], os.getcwd(), os.getuid(), os.getsid(0) == os.getpid())\n\
                print(sys.stdout.line_buffering, sys.stdout.encoding, sys.flags.interactive, os.environ['HOME'], os.environ['X'])\n\
                print(sorted(os.listdir('/proc/self/fd'))[:3], signal.getsignal(signal.SIGINT) is signal.default_int_handler)\n\
                print([resource.getrlimit(limit) for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE)])\n\
                print(open('/proc/self/status').read().split('NoNewPrivs:')[1].split()[0], open('/proc/self/oom_score_adj').read().strip())\n\
                print(open('/proc/self/cgroup').read().strip().rsplit('/', 1)[1][:5], len(sys.stdin.read()))\n\
                atexit.register(print, 'at exit')\n\
                threading.Timer(0.2, print, ['late']).start()\n\
                kept = open('/work/kept', 'w'); kept.write('unflushed')\n\
                def bad(): raise KeyError('k')\n\
                sys.exit(7)";
    let run = |more: &[&str]| -> Value {
        let more: Vec<&str> = [more, &["--env", "X=y", "--out", "/work/kept:kept"]].concat();
        let report = lab.run_json("python", code, &more);
        let kept = std::fs::read_to_string(lab.path().join("kept")).unwrap();
        assert_eq!(kept, "unflushed", "{report}");
        report
    };
    let (warm, cold) = (run(&[]), run(&["--cold"]));
    for field in ["stdout", "stderr", "exit_code", "signal", "interpreter"] {
        assert_eq!(
            warm[field], cold[field],
            "{field}\nwarm {warm}\ncold {cold}"
        );
    }
    assert_eq!(warm["exit_code"], 7, "{warm}");
}

#[test]
fn errors_from_a_zygote_are_those_of_its_interpreter() {
    let lab = Lab::new();
    let booted = Booted::start(&lab, "base", 256);
    for code in [
        "def f():\n    raise ValueError('x')\nf()",
        "def f(:",
        "import sys\nsys.exit('bye')",
        "raise KeyboardInterrupt",
        "import os\nos.kill(os.getpid(), 15)",
        "import os\nos._exit(9)",
        "1/0",
        "try:\n    1/0\nexcept ZeroDivisionError as e:\n    raise RuntimeError('second') from e",
    ] {
        let warm = lab.run_json("python", code, &[]);
        let cold = booted.run_json(Lang::Python, code, &[]);
        for field in ["stdout", "stderr", "exit_code", "signal"] {
            assert_eq!(
                warm[field], cold[field],
                "{code}: {field}\nwarm {warm}\ncold {cold}"
            );
        }
    }
    booted.destroy();
}

#[test]
fn ruby_from_a_zygote_is_like_ruby() {
    assert_alike(
        "ruby",
        &[
            "p __FILE__, $0, ARGV, Dir.pwd, $stdout.sync, $stdin.read.size, ENV['HOME'], Process.getsid(0) == $$\nat_exit { puts 'at exit' }\nexit 7",
            "def f = raise(ArgumentError, 'x')\nf",
            "puts 1 +",
            "abort 'bye'",
            "puts 1\nreturn\nputs 2",
            "puts DATA.read\n__END__\nthe data",
            "if __FILE__ == $0 then puts 'main' end\nbegin\n  1 / 0\nrescue => e\n  raise 'second'\nend",
            "Process.kill(:TERM, $$); sleep 10",
            "p __dir__, local_variables, Object.private_instance_methods(false), Object.constants.grep(/Fire|CONTROL/)",
            "Thread.new { puts 'thread' }.join; fork { puts 'child' }; Process.wait; $stdout.print 'no newline'",
        ],
        usize::MAX,
    );
}

#[test]
fn node_from_a_parked_one_is_like_node() {
    assert_alike(
        "node",
        &[
            "console.log(__filename, process.argv.length, process.cwd(), require.main === module, process.execArgv, process.env.HOME, typeof fs)\n\
             process.on('exit', () => console.log('at exit')); process.exitCode = 7",
            "setTimeout(() => console.log('later'), 10); Promise.resolve().then(() => console.log('soon'))",
            "process.stdin.on('data', () => {}).on('end', () => console.log('end'))",
            "process.kill(process.pid, 'SIGTERM'); setTimeout(() => {}, 10000)",
            "import { sep } from 'node:path';\nconsole.log(sep, import.meta.filename)",
            // Ways to an end.
            "process.on('beforeExit', () => console.log('before', Object.keys(require.cache).length, process.eventNames()))",
            "process.on('exit', (code) => { console.log(code, process.exitCode); process.exit(9) })",
            "await new Promise(() => {})",
        ],
        usize::MAX,
    );
    // What is below the program's own frames differs in one line.
    assert_alike(
        "node",
        &[
            "function f() { throw new TypeError('x') }\nf()",
            "let ;",
            "process.on('exit', (code) => console.log(code)); setTimeout(() => { throw new Error('late') }, 5)",
            "process.on('exit', (code) => console.log(code)); Promise.reject(new Error('nobody'))",
            "process.on('exit', () => { throw new Error('last') })",
        ],
        5,
    );
}

/// Programs do the same in a clone as after a boot; of stderr, so many lines are compared.
fn assert_alike(lang: &str, programs: &[&str], lines: usize) {
    let lab = Lab::new();
    let booted = Booted::start(&lab, "default", 1024);
    for code in programs {
        let args = [
            "run",
            "--json",
            "--lang",
            lang,
            "--template",
            "default",
            "-c",
            code,
        ];
        let ended = lab.firelane(&args);
        let warm: Value = serde_json::from_str(&ended.stdout)
            .unwrap_or_else(|error| panic!("{error}: {ended:?}"));
        let cold = booted.run_json(lang.parse().unwrap(), code, &[]);
        let stderr = |report: &Value| -> Vec<String> {
            let text = report["stderr"].as_str().unwrap_or_default();
            text.lines().take(lines).map(Into::into).collect()
        };
        for field in ["stdout", "exit_code", "signal", "interpreter"] {
            assert_eq!(
                warm[field], cold[field],
                "{code}: {field}\nwarm {warm}\ncold {cold}"
            );
        }
        assert_eq!(stderr(&warm), stderr(&cold), "{code}");
    }
    booted.destroy();
}

#[test]
fn a_program_that_stops_or_kills_its_zygote_ends_all_the_same() {
    let lab = Lab::new();
    for signal in ["STOP", "KILL"] {
        // It is no relation of the program any more, but the same user's.
        let code = format!(
            "import glob, os, signal\n\
             others = [int(path.split('/')[2]) for path in glob.glob('/proc/[0-9]*/cmdline')\n\
             \x20         if b'The Python zygote' in open(path, 'rb').read()]\n\
             others = [pid for pid in others if pid != os.getpid()]\n\
             assert len(others) == 1, others\n\
             os.kill(others[0], signal.SIG{signal})\nprint('done', flush=True)\nos._exit(3)"
        );
        let report = lab.run_json("python", &code, &["--timeout", "30"]);
        assert_eq!(report["stdout"], "done\n", "{report}");
        assert_eq!(report["exit_code"], 3, "{report}");
        assert_eq!(report["timed_out"], false, "{report}");
    }
}

#[test]
fn what_an_interpreter_reads_when_it_starts_still_counts() {
    let lab = Lab::new();
    let code =
        "import sys, time\nprint(sys.flags.dont_write_bytecode, sys.stdout.encoding, time.tzname)";
    let booted = Booted::start(&lab, "base", 256);
    for (name, value) in [
        ("PYTHONDONTWRITEBYTECODE", "1"),
        ("LANG", "C"),
        ("TZ", "XYZ-3"),
        ("PYTHONIOENCODING", "latin-1"),
    ] {
        let env = format!("{name}={value}");
        let warm = lab.run_json("python", code, &["--env", &env]);
        let cold = booted.run_json(Lang::Python, code, &[(name, value)]);
        assert_eq!(warm["stdout"], cold["stdout"], "{env}: {warm}");
    }
    booted.destroy();
}

/// In place of a snapshot, one with the same memory whose state no VMM can load, sealed as it is.
fn replace_state(lab: &Lab, folder: &Path) {
    let manifest = std::fs::read(folder.join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let origin: SnapshotOrigin = serde_json::from_value(manifest["origin"].clone()).unwrap();
    let tsc_khz = manifest["tsc_khz"].as_u64().unwrap();
    let memory = lab.path().join("memory");
    std::fs::rename(folder.join("memory"), &memory).unwrap();
    let store = Store::open(lab.home()).unwrap();
    store.discard_snapshot(&origin).unwrap();
    let Found::Draft(draft) = store
        .snapshot_or_draft(&origin, tsc_khz, Memory::Whole)
        .unwrap()
    else {
        panic!("it is still there");
    };
    std::fs::rename(&memory, draft.memory()).unwrap();
    std::fs::write(draft.state(), "no state of a microVM").unwrap();
    draft.commit(tsc_khz).unwrap();
}

#[test]
fn a_snapshot_that_cannot_be_loaded_is_discarded_and_made_again() {
    let lab = Lab::new().with_own_store();
    let first = lab.run_json("bash", "echo first", &[]);
    assert_eq!(first["stdout"], "first\n");
    let mut spoilt = 0;
    for snapshot in std::fs::read_dir(lab.home().join("snapshots"))
        .unwrap()
        .flatten()
    {
        replace_state(&lab, &snapshot.path());
        spoilt += 1;
    }
    assert!(spoilt > 0);
    let args = [
        "run",
        "--template",
        "base",
        "--lang",
        "bash",
        "-c",
        "echo second",
    ];
    let refused = lab.firelane(&args);
    assert_eq!((refused.code, &*refused.stdout), (125, ""), "{refused:?}");
    assert!(
        refused
            .stderr
            .contains("the snapshot was discarded: try again"),
        "{refused:?}"
    );
    lab.assert_empty();
    let again = lab.firelane(&args);
    assert_eq!((again.code, &*again.stdout), (0, "second\n"), "{again:?}");
}

/// What a shell tells of itself; what no two shells have in common is left out.
const OF_ITSELF: &str = r#"last=$_
set --
declare -p | grep -vE '^declare -[-a-zA-Z]+ (BASHPID|BASH_AR|EPOCH|HOSTNAME|PPID|PWD|RANDOM|SECONDS|SRANDOM|FIRELANE_TRACE_ID)'
echo "functions: $(declare -F)"
echo "options: $- $BASHOPTS $SHELLOPTS"
echo "program: $0 ${BASH_SOURCE[0]} $LINENO ${#FUNCNAME[@]}"
[[ $HOSTNAME == "$(hostname)" ]] && echo 'its host is this one'
[[ $(declare -p PWD) == "declare -x PWD=\"$(pwd -P)\"" ]] && echo 'its folder is this one'
[[ $(env | grep -c ^HOSTNAME=) == 0 ]] && echo 'it passes on no HOSTNAME'
echo "files: $(ls /proc/$$/fd | tr '\n' ' ')"
echo "traps: $(trap) jobs: $(jobs)"
cd / && env | grep ^OLDPWD=
"#;

#[test]
fn a_bash_that_waited_is_like_one_that_did_not() {
    let lab = Lab::new();
    // An argument is what a shell that waits cannot be given.
    let told = |arguments: &[&str]| {
        let given = "GIVEN=a'b \"c\"\n$d";
        let args = [
            "run",
            "--template",
            "base",
            "--lang",
            "bash",
            "--env",
            given,
        ];
        let ended = lab.firelane(&[&args, &["-c", OF_ITSELF][..], arguments].concat());
        assert_eq!(ended.code, 0, "{ended:?}");
        ended.stdout
    };
    let waited = told(&[]);
    assert!(
        waited.contains("declare -- last=\"/usr/bin/bash\""),
        "{waited}"
    );
    assert!(waited.contains("GIVEN="), "{waited}");
    for line in [
        "its host is this one",
        "its folder is this one",
        "it passes on no HOSTNAME",
    ] {
        assert!(waited.contains(line), "{line}: {waited}");
    }
    assert_eq!(waited, told(&["argument"]));
}
