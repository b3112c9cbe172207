# The Python zygote: a warm interpreter that forks for each program.
#
# Descriptor 3 is a socket to the guest-runner. A request is a length (4 bytes, big-endian) and that
# many bytes of fields that end with NUL: the source file, the number of arguments, the arguments,
# the environment as NAME=VALUE. With it come five descriptors: stdin, stdout, stderr, the working
# directory, and a gate. The child waits at the gate until the guest-runner has put it in its cgroup.
# Answers are the child's pid, and when it has ended its wait status, each as a line.
#
# The arguments are programs to be run once, for what they import.
import array
import atexit
import builtins
import gc
import io
import linecache  # noqa: F401 - a traceback needs it
import os
import random
import signal
import socket
import sys
import threading
import time
import traceback  # noqa: F401 - the same
import types


def receive(control):
    data, ancillary, _, _ = control.recvmsg(65536, socket.CMSG_SPACE(5 * 4), socket.MSG_CMSG_CLOEXEC)
    if not data:
        os._exit(0)
    descriptors = array.array("i")
    for _, _, content in ancillary:
        descriptors.frombytes(content)
    while len(data) < 4 or len(data) - 4 < int.from_bytes(data[:4], "big"):
        more = control.recv(65536)
        if not more:
            os._exit(0)
        data += more
    fields = data[4:].split(b"\0")[:-1]
    count = int(fields[1])
    return descriptors, fields[0], fields[2 : 2 + count], fields[2 + count :]


def become(control, descriptors, environment):
    stdin, stdout, stderr, folder, gate = descriptors
    os.setsid()
    control.detach()
    for number, descriptor in enumerate((stdin, stdout, stderr)):
        os.dup2(descriptor, number)
    os.fchdir(folder)
    if not os.read(gate, 1):
        os._exit(125)
    os.closerange(3, max(descriptors) + 1)
    os.environ.clear()
    for pair in environment:
        name, _, value = pair.partition(b"=")
        os.environb[name] = value
    time.tzset()


def reseed():
    # Everything that a library seeded before the snapshot is the same in all clones.
    random.seed()
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()
    if "ssl" in sys.modules:
        sys.modules["ssl"].RAND_add(os.urandom(64), 64.0)
    if "uuid" in sys.modules:
        sys.modules["uuid"]._node = None


def run(file, arguments):
    path = os.path.join(os.getcwd(), file)
    sys.argv[:] = [file, *arguments]
    sys.path[0] = os.path.dirname(path)
    main = types.ModuleType("__main__")
    main.__file__ = path
    main.__builtins__ = builtins
    sys.modules["__main__"] = main
    code = 0
    try:
        with io.open_code(path) as source:
            program = compile(source.read(), path, "exec", dont_inherit=True)
        exec(program, main.__dict__)
    except SystemExit as leave:
        code = status_of(leave)
    except BaseException as error:
        code = 1
        # The program starts at its own first line, not at ours; a syntax error has no line at all.
        trace = error.__traceback__.tb_next
        interrupted = isinstance(error, KeyboardInterrupt)
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        if interrupted:
            finish(main)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
    return finish(main, code)


def status_of(leave):
    if leave.code is None:
        return 0
    if isinstance(leave.code, int):
        return leave.code & 0xFF
    print(leave.code, file=sys.stderr)
    return 1


# What the interpreter does at its end, short of freeing what the kernel frees anyway.
def finish(main, code=0):
    threading._shutdown()
    atexit._run_exitfuncs()
    main.__dict__.clear()
    gc.collect()
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        code = code or 120
    try:
        sys.stderr.flush()
    except (OSError, ValueError):
        pass
    return code


def serve(control, snippets):
    for snippet in snippets:
        exec(snippet, {"__name__": "__warmup__"})
    gc.collect()
    gc.freeze()
    control.sendall(b"ready\n")
    while True:
        descriptors, file, arguments, environment = receive(control)
        child = os.fork()
        if child == 0:
            become(control, descriptors, environment)
            reseed()
            os._exit(run(os.fsdecode(file), [os.fsdecode(word) for word in arguments]))
        for descriptor in descriptors:
            os.close(descriptor)
        control.sendall(b"%d\n" % child)
        _, status = os.waitpid(child, 0)
        control.sendall(b"%d\n" % status)


serve(socket.socket(fileno=3), sys.argv[1:])
