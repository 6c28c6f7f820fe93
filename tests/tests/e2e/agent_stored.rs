//! Descriptors outlast the agent, by the service manager's file descriptor store. A small stand-in
//! plays systemd's part: it keeps what the agent gives it, and gives it to the next agent.

use std::time::Duration;

use logchain_tests::{Guest, GuestOn, Host, Lab, LabError, Running, Signal, Ticks};

use crate::agent::{Agent, P2P, SOON, in_a_folder, soon_whole, virsh};
use crate::common::{Outcome, history};

/// Keeps descriptors by their names, and starts `sys.argv[2:]` with them whenever `GO` is written
/// beside its socket, with the descriptors from 3 on, as systemd does.
const STAND_IN: &str = r#"
import array, os, socket, sys
notify = sys.argv[1]
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
if os.path.exists(notify): os.unlink(notify)
manager.bind(notify)
kept = {}
print("READY", flush=True)
while True:
    message, control, _, _ = manager.recvmsg(4096, socket.CMSG_LEN(64))
    fds = array.array("i")
    for level, kind, data in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[:len(data) - len(data) % fds.itemsize])
    said = dict(line.split("=", 1) for line in message.decode().splitlines() if "=" in line)
    if said.get("FDSTORE") == "1":
        for fd in fds:
            # Out of the way of those that the next agent gets.
            high = __import__("fcntl").fcntl(fd, __import__("fcntl").F_DUPFD_CLOEXEC, 1000)
            os.close(fd)
            kept[said["FDNAME"]] = high
    elif said.get("FDSTOREREMOVE") == "1":
        fd = kept.pop(said["FDNAME"], None)
        if fd is not None: os.close(fd)
    elif said.get("START") == "1":
        if os.fork() == 0:
            names = list(kept)
            out = os.open(said["OUT"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            err = os.open(said["ERR"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(out, 1); os.dup2(err, 2)
            os.closerange(3, 1000)
            for number, name in enumerate(names, 3):
                os.dup2(kept[name], number)
            env = dict(os.environ, NOTIFY_SOCKET=notify)
            if names:
                env.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(names)),
                           LISTEN_FDNAMES=":".join(names))
            os.execvpe(sys.argv[2], sys.argv[2:], env)
    elif said.get("COUNT") == "1":
        with open(said["OUT"], "w") as out: print(len(kept), file=out)
    try:
        while os.waitpid(-1, os.WNOHANG)[0]: pass
    except ChildProcessError: pass
"#;
