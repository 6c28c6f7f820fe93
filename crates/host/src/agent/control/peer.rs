//! Who is at the other end of the control socket, and whether it is let in.
//!
//! The mode of the socket file keeps out whoever must not connect; this is the second lock, for a
//! file whose mode somebody has changed.
//!
//! Must not know: what the caller wants.

use rustix::process::geteuid;
use tokio::net::UnixStream;

/// Who may call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowed {
    /// The agent's own user.
    own: u32,
    /// The group that the operator named.
    group: Option<u32>,
}

/// Who calls.
#[derive(Debug, Default)]
struct Caller {
    user: u32,
    group: u32,
    others: Vec<u32>,
}

impl Allowed {
    /// Root, the agent's own user and the members of `group`.
    pub(super) fn with(group: Option<u32>) -> Self {
        Self {
            own: geteuid().as_raw(),
            group,
        }
    }

    /// Whether the other end is one of them.
    pub(super) async fn is_allowed(self, connection: &UnixStream) -> bool {
        // As they were when it connected.
        let Ok(found) = connection.peer_cred() else {
            return false;
        };
        let mut caller = Caller {
            user: found.uid(),
            group: found.gid(),
            others: Vec::new(),
        };
        if self.allows(&caller) {
            return true;
        }
        if let (Some(_), Some(process)) = (self.group, found.pid()) {
            caller.others = groups_of(process).await;
        }
        self.allows(&caller)
    }

    fn allows(self, caller: &Caller) -> bool {
        let is_member = |group| caller.group == group || caller.others.contains(&group);
        caller.user == 0 || caller.user == self.own || self.group.is_some_and(is_member)
    }
}

/// A process's supplementary groups. The kernel tells them by the number of the process alone:
/// one that has ended and whose number another has taken is not told apart. The mode of the socket
/// has let the caller in by then.
async fn groups_of(process: i32) -> Vec<u32> {
    let path = format!("/proc/{process}/status");
    let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(path));
    let status = read.await.ok().and_then(Result::ok).unwrap_or_default();
    groups(&status)
}

fn groups(status: &str) -> Vec<u32> {
    let line = status.lines().find_map(|l| l.strip_prefix("Groups:"));
    let words = line.unwrap_or_default().split_whitespace();
    words.filter_map(|word| word.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_the_own_user_and_the_group_are_let_in() {
        let caller = |user, group, others: &[u32]| Caller {
            user,
            group,
            others: others.to_vec(),
        };
        let without = Allowed {
            own: 10,
            group: None,
        };
        let with = Allowed {
            group: Some(7),
            ..without
        };
        for allowed in [without, with] {
            assert!(allowed.allows(&caller(0, 0, &[])));
            assert!(allowed.allows(&caller(10, 99, &[])));
            assert!(!allowed.allows(&caller(11, 99, &[0, 10])));
        }
        for member in [caller(11, 7, &[]), caller(11, 99, &[5, 7])] {
            assert!(with.allows(&member));
            assert!(!without.allows(&member));
        }
    }

    #[test]
    fn groups_are_read_from_the_process_status() {
        assert_eq!(
            groups("Name:\tx\nGroups:\t4 24 1000 \nVmPeak: 1\n"),
            [4, 24, 1000]
        );
        assert_eq!(groups("Groups:\t\n"), [0; 0]);
        assert_eq!(groups(""), [0; 0]);
    }
}
