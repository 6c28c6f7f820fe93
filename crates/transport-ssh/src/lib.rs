//! A [`LogTransport`](logchain_core::transport::LogTransport) over the system's
//! OpenSSH: the user's configuration, keys, agent, jump hosts and known hosts
//! all hold, since it is the user's `ssh` that connects.
//!
//! The protocol is `logchain-transport-wire`'s: this crate brings the ssh that carries it.
//!
//! The far side runs `logchain transport serve SPOOL`, which is [`serve`] over a
//! [`DirectoryTransport`](logchain_core::transport::DirectoryTransport): only a
//! program of our own can sync a folder. It works behind a
//! `restrict,command="logchain transport serve /spool"` key. Where there is no
//! logchain, sshd's SFTP server serves the same folder, a little less durably:
//! [`SshTransport::caution`] says how.
//!
//! ```text
//! SshTransport ─┬─ frames ──► ssh ──► sshd ──► logchain transport serve ──► spool folder
//!               └─ SFTP ────► ssh ──► sshd ──► its SFTP server ───────────► spool folder
//! ```
//!
//! Must not know: what keys mean, what objects hold.

mod again;
mod client;
mod command;
mod failure;
mod link;
mod login;
mod process;
mod serve;
mod sftp;
mod shell;
mod target;

#[cfg(test)]
mod tests;

pub use again::{Tries, is_turned_away};
pub use client::{ServedBy, SshTransport};
pub use command::{SshOptions, command};
pub use failure::explain;
pub use logchain_transport_wire::ServeError;
pub use login::{SshLogin, UnknownHostKey};
pub use serve::serve;
pub use shell::shell_line;
pub use target::{BadTarget, DEFAULT_SPOOL, SshTarget};
