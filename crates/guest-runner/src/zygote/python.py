# The Python zygote: a warm interpreter that forks for each program.
#
# Descriptor 3 is a socket to the guest-runner. An order is a length (4 bytes, big-endian) and that
# many bytes of fields that end with NUL: the source file, the number of arguments, the arguments, of
# which the first is the working directory, then what is to be changed in the environment: NAME=VALUE
# sets a variable, NAME removes it. With it come four
# descriptors: stdin, stdout, stderr, and a gate. The child waits at the gate until the guest-runner
# has put it in its cgroup. The answer is the child's pid as a line. How the child ended is the kernel's to
# tell, so that a program that stops or kills its zygote changes nothing of that: the zygote leaves it
# uncollected until a byte asks for it, and answers "collected".
#
# An order without a file asks for a child to be parked: in place of the gate it gets a socket of its
# own, on which it says its pid, and then waits for the order of its program. It is nobody's child when
# the zygote answers "parked".
#
# The arguments are programs to be run once, for what they import.
import array
import atexit
import builtins
import gc
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

# What os.fsdecode does, in fewer steps.
ENCODING = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
MAX_READ = 16 << 10


def receive(control):
    data, ancillary, _, _ = control.recvmsg(65536, socket.CMSG_SPACE(4 * 4), socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for _, _, content in ancillary:
        descriptors.frombytes(content)
    return descriptors, *fields(control.fileno(), data)


def fields(control, data):
    while len(data) < 4 or len(data) - 4 < int.from_bytes(data[:4], "big"):
        more = os.read(control, 65536)
        if not more:
            os._exit(0)
        data += more
    words = data[4:].split(b"\0")[:-1]
    count = int(words[1])
    return words[0], words[2 : 2 + count], words[2 + count :]


# The child gives up what is the zygote's.
def leave(control, streams):
    os.setsid()
    control.close()
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)


def park(control, descriptors):
    between = os.fork()
    if between:
        for descriptor in descriptors:
            os.close(descriptor)
        os.waitpid(between, 0)
        control.sendall(b"parked\n")
        return
    if os.fork():
        os._exit(0)
    leave(control, descriptors[:3])
    own = os.dup2(descriptors[3], 3, inheritable=False)
    os.closerange(4, max(descriptors) + 1)
    gc.freeze()
    os.write(own, b"%d\n" % os.getpid())
    order = fields(own, os.read(own, 65536))
    os.close(own)
    become(*order)


def follow(control, descriptors, order):
    child = os.fork()
    if child == 0:
        leave(control, descriptors[:3])
        if not os.read(descriptors[3], 1):
            os._exit(125)
        os.closerange(3, max(descriptors) + 1)
        become(*order)
    for descriptor in descriptors:
        os.close(descriptor)
    control.sendall(b"%d\n" % child)
    control.recv(1)
    os.waitpid(child, 0)
    control.sendall(b"collected\n")


def change(environment):
    for word in environment:
        name, sets, value = word.partition(b"=")
        if sets:
            os.environb[name] = value
        else:
            del os.environb[name]
        if name == b"TZ":
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


def become(file, arguments, environment):
    folder, *arguments = [argument.decode(*ENCODING) for argument in arguments]
    os.chdir(folder)
    change(environment)
    reseed()
    os._exit(run(folder, file.decode(*ENCODING), arguments))


def read(path):
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    source = more = os.read(file, MAX_READ)
    # One read takes a regular file whole, unless it is longer.
    while len(more) == MAX_READ:
        more = os.read(file, MAX_READ)
        source += more
    os.close(file)
    return source


def run(folder, file, arguments):
    path = folder + "/" + file
    sys.argv[:] = [file, *arguments]
    sys.path[0] = folder
    main = types.ModuleType("__main__")
    main.__file__ = path
    main.__builtins__ = builtins
    sys.modules["__main__"] = main
    code = 0
    try:
        program = compile(read(path), path, "exec", dont_inherit=True)
        exec(program, main.__dict__)
    except SystemExit as end:
        code = status_of(end)
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


def status_of(end):
    if end.code is None:
        return 0
    if isinstance(end.code, int):
        return end.code & 0xFF
    print(end.code, file=sys.stderr)
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
    # The first of its kind makes the types of the syntax tree.
    compile(b"pass", "", "exec", dont_inherit=True)
    random.seed()
    gc.collect()
    gc.freeze()
    control.sendall(b"ready\n")
    while True:
        descriptors, *order = receive(control)
        if order[0]:
            follow(control, descriptors, order)
        else:
            park(control, descriptors)


serve(socket.socket(fileno=3), sys.argv[1:])
