//! The cloud from its start to its end: a lab of three hosts, of which `h1` and `h2` have a
//! nova-compute, and `h3` everything else. All of it lives in the lab's namespaces and ends with
//! the lab, however this program ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use logchain_tests::{BootFiles, Host, KERNEL_ARGUMENTS, Lab, boot_files, logchain_bin};

use super::api::{Api, Image, PASSWORD, Service};
use super::compute;
use super::config::Facts;
use super::controller::{Controller, listens};
use super::daemon::Daemon;
use crate::progress::begin;

/// The command-line client needs seconds for anything, and a busy machine makes it many.
const COMMAND: Duration = Duration::from_secs(120);
/// A root disk that a server has and does not use.
const DISK: usize = 1024 * 1024;

/// The image of most servers: its guest prints 20 lines a second, so that a row's lines fit into
/// the 100 KiB that Nova shows.
pub(crate) const CALM: &str = "calm";
const IMAGES: [(&str, u32); 1] = [(CALM, 50_000)];

/// A running cloud.
pub(crate) struct Cloud {
    // Dropped in this order: the services before the lab that they run in.
    computes: [Daemon; 2],
    _controller: Vec<Daemon>,
    pub(crate) api: Api,
    venv: PathBuf,
    pub(crate) lab: Lab,
}

impl Cloud {
    /// Starts all of it, and waits until two nova-computes are up.
    pub(crate) fn start(venv: &Path) -> Result<Self> {
        let step = begin("starting three hosts");
        let boot = boot_files()?;
        let lab = Lab::builder()
            .hosts(3)
            .tls()
            .binary(logchain_bin()?)
            .sees(venv)
            .sees(
                super::install::tests()
                    .canonicalize()
                    .context("tests/nova")?,
            )
            .start()?;
        step.done();
        let facts = Facts {
            controller: lab.host(2).address(),
            venv,
        };
        let controller = Controller {
            host: lab.host(2),
            facts: &facts,
        };
        let mut services = Vec::new();
        let step = begin("starting MariaDB and RabbitMQ, and making the databases");
        controller.folders()?;
        let rabbit = controller.rabbit()?;
        services.push(controller.database()?);
        rabbit.ready(|| listens(controller.host, 5672))?;
        services.push(rabbit);
        step.done();

        let step = begin("starting Keystone, Glance, Placement and Nova");
        let api = controller.services(&mut services)?;
        step.done();

        let step = begin("starting nova-compute on h1 and h2");
        let computes = [
            compute::start(lab.host(0), &facts)?,
            compute::start(lab.host(1), &facts)?,
        ];
        stock(&api, &boot)?;
        for (number, daemon) in computes.iter().enumerate() {
            daemon.ready(|| Ok(api.beat(lab.host(number).name())?.is_some()))?;
        }
        controller.map_hosts()?;
        step.done();
        Ok(Cloud {
            computes,
            _controller: services,
            api,
            venv: venv.to_owned(),
            lab,
        })
    }

    /// The hypervisor with this name.
    pub(crate) fn host(&self, name: &str) -> Result<&Host> {
        let mut hosts = self.lab.hosts().iter();
        hosts
            .find(|host| host.name() == name)
            .with_context(|| format!("there is no host {name}"))
    }

    /// The nova-compute on this host.
    pub(crate) fn compute(&self, host: &str) -> Result<&Daemon> {
        let number = self.lab.hosts().iter().position(|h| h.name() == host);
        number
            .and_then(|number| self.computes.get(number))
            .with_context(|| format!("there is no nova-compute on {host}"))
    }

    /// Runs `openstack`, the command of a user, and gives what it printed.
    pub(crate) fn openstack(&self, args: &[&str]) -> Result<String> {
        let controller = self.lab.host(2);
        let mut command = controller
            .command([self.venv.join("bin/openstack")])
            .args(args)
            .limit(COMMAND);
        let url = Service::Keystone.url(controller.address());
        for (name, value) in [
            ("OS_AUTH_URL", url.as_str()),
            ("OS_USERNAME", "admin"),
            ("OS_PASSWORD", PASSWORD),
            ("OS_PROJECT_NAME", "admin"),
            ("OS_USER_DOMAIN_NAME", "Default"),
            ("OS_PROJECT_DOMAIN_NAME", "Default"),
            ("OS_IDENTITY_API_VERSION", "3"),
            ("OS_COMPUTE_API_VERSION", "2.90"),
        ] {
            command = command.env(name, value);
        }
        Ok(command.run()?.checked()?.out())
    }
}

/// Gives the cloud the lab's guest as an image.
fn stock(api: &Api, boot: &BootFiles) -> Result<()> {
    let read = |path: &Path| fs::read(path).with_context(|| path.display().to_string());
    api.stock(&Image {
        kernel: &read(&boot.kernel)?,
        ramdisk: &read(&boot.initramfs)?,
        disk: &vec![0; DISK],
        arguments: KERNEL_ARGUMENTS,
        paces: &IMAGES,
    })
}
