// SPDX-License-Identifier: Apache-2.0
//! A sandbox on the real kernel, in namespaces of its own. Needs root: without it the test fails when
//! `WEIR_REQUIRE_KERNEL=1` is set and does nothing otherwise.

#[cfg(test)]
mod kernel {
    use std::{
        ffi::c_int,
        fs,
        io::{BufRead, BufReader, Error},
        os::{
            fd::OwnedFd,
            unix::{net::UnixStream, process::CommandExt},
        },
        path::Path,
        process::{Child, Command},
        ptr::{null_mut, without_provenance_mut},
        time::Duration,
    };

    use nix::{
        sys::{
            prctl::set_child_subreaper,
            wait::{WaitStatus, waitpid},
        },
        unistd::Pid,
    };
    use serde_json::{Value, json};

    /// The process that is started for a pod forks the sandbox. Whichever of the two the scheduler prefers, the daemon
    /// must hear which process is the sandbox before it hears that it is ready; here the first one does not run at all
    /// after the fork.
    #[test]
    fn a_pod_tells_its_process_whether_or_not_its_parent_runs() {
        let root = nix::unistd::geteuid().is_root();
        assert!(
            root || std::env::var_os("WEIR_REQUIRE_KERNEL").is_none(),
            "WEIR_REQUIRE_KERNEL is set, but this is not root"
        );
        if !root {
            return;
        }
        // The sandbox outlives its parent; it is collected here.
        set_child_subreaper(true).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let cgroup = weir_net::cgroup::mount_point()
            .unwrap()
            .join(format!("weir-test-sandbox-{}", std::process::id()));
        fs::create_dir(&cgroup).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut process = start_traced(&cgroup, scratch.path(), theirs);
        let parent = Pid::from_raw(process.id().cast_signed());
        let sandbox = hold_at_fork(parent);

        let mut reports = BufReader::new(&ours).lines();
        let first: Value = serde_json::from_str(&reports.next().unwrap().unwrap()).unwrap();

        // Everything goes before the verdict, so that a failure leaves nothing behind.
        trace(libc::PTRACE_DETACH, parent, 0);
        fs::write(cgroup.join("cgroup.kill"), "1").unwrap();
        process.wait().unwrap();
        waitpid(sandbox, None).unwrap();
        fs::remove_dir(&cgroup).unwrap();
        assert_eq!(first, json!({"pid": sandbox.as_raw()}));
    }

    /// Starts the sandbox of a pod as the daemon does, but stopped and traced by this thread.
    #[expect(
        clippy::disallowed_methods,
        reason = "tests start the program that they test"
    )]
    fn start_traced(cgroup: &Path, scratch: &Path, control: UnixStream) -> Child {
        let specification = json!({
            "name": "shop/web", "hostname": "web", "kind": "pod",
            "cgroup": cgroup, "binds": [], "scratch": scratch,
        });
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir-lab"));
        command
            .args(["lab", "sandbox", &specification.to_string()])
            .stdin(OwnedFd::from(control));
        // SAFETY: between fork and exec there is one system call and nothing that allocates or locks.
        unsafe {
            command.pre_exec(|| {
                ptrace(libc::PTRACE_TRACEME, Pid::from_raw(0), 0);
                Ok(())
            });
        }
        command.spawn().unwrap()
    }

    /// Lets a process run until it forks; then it stays where it is, and the forked one runs on alone.
    fn hold_at_fork(parent: Pid) -> Pid {
        // Being traced, it stops at its program's first instruction.
        let stopped = waitpid(parent, None).unwrap();
        assert!(matches!(stopped, WaitStatus::Stopped(..)), "{stopped:?}");
        let options = libc::PTRACE_O_TRACEFORK | libc::PTRACE_O_EXITKILL;
        trace(libc::PTRACE_SETOPTIONS, parent, options);
        trace(libc::PTRACE_CONT, parent, 0);
        let event = waitpid(parent, None).unwrap();
        assert!(
            matches!(
                event,
                WaitStatus::PtraceEvent(_, _, libc::PTRACE_EVENT_FORK)
            ),
            "{event:?}"
        );
        // A forked process is traced from its birth and stopped.
        let forked = waitpid(None, None).unwrap().pid().unwrap();
        trace(libc::PTRACE_DETACH, forked, 0);
        forked
    }

    fn trace(request: u32, process: Pid, data: c_int) {
        assert_eq!(
            ptrace(request, process, data),
            0,
            "ptrace {request}: {}",
            Error::last_os_error()
        );
    }

    fn ptrace(request: u32, process: Pid, data: c_int) -> i64 {
        let data = without_provenance_mut::<()>(usize::try_from(data).unwrap_or_default());
        // SAFETY: none of the requests used here makes the kernel read or write memory through these arguments.
        unsafe { libc::ptrace(request, process.as_raw(), null_mut::<()>(), data) }
    }
}
