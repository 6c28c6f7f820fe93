//! The configuration of every service, as text. Nothing here touches the machine.
//!
//! Whoever is in the cloud's network may do anything: it has no way out, and ends with the command.

use std::path::Path;

use super::api::{PASSWORD, Service};

/// Where a service's configuration lies on its host.
pub(crate) const FOLDER: &str = "/run/cloud";
/// Where a service's log lies on its host.
pub(crate) const LOGS: &str = "/var/log/cloud";
/// Where the database's files lie.
pub(crate) const DATA: &str = "/var/lib/cloud-mysql";
/// The instances of a hypervisor.
pub(crate) const INSTANCES: &str = "/var/lib/nova/instances";

/// What all configurations have to know.
pub(crate) struct Facts<'a> {
    /// The controller's address.
    pub(crate) controller: &'a str,
    /// The virtual environment.
    pub(crate) venv: &'a Path,
}

impl Facts<'_> {
    fn database(&self, name: &str) -> String {
        format!("mysql+pymysql://root@{}/{name}", self.controller)
    }

    /// How `section` logs in at Keystone.
    fn login(&self, section: &str) -> String {
        let url = Service::Keystone.url(self.controller);
        format!(
            "[{section}]\nauth_type = password\nauth_url = {url}\nwww_authenticate_uri = {url}\n\
             username = admin\npassword = {PASSWORD}\nproject_name = admin\n\
             user_domain_name = Default\nproject_domain_name = Default\n\
             region_name = RegionOne\nservice_token_roles_required = true\n"
        )
    }

    pub(crate) fn keystone(&self) -> String {
        format!(
            "[DEFAULT]\nlog_file = {LOGS}/keystone.log\n\
             [database]\nconnection = {}\n\
             [fernet_tokens]\nkey_repository = {FOLDER}/keystone/fernet\n\
             [credential]\nkey_repository = {FOLDER}/keystone/credential\n\
             [token]\nexpiration = 86400\n\
             [identity]\npassword_hash_rounds = 4\n",
            self.database("keystone")
        )
    }

    pub(crate) fn placement(&self) -> String {
        format!(
            "[DEFAULT]\nlog_file = {LOGS}/placement.log\n\
             [placement_database]\nconnection = {}\n{}",
            self.database("placement"),
            self.login("keystone_authtoken")
        )
    }

    pub(crate) fn glance(&self) -> String {
        format!(
            "[DEFAULT]\nlog_file = {LOGS}/glance.log\nenabled_backends = file:file\n\
             enabled_import_methods = []\nnode_staging_uri = file:///var/lib/glance/staging\n\
             [database]\nconnection = {}\n\
             [glance_store]\ndefault_backend = file\n\
             [file]\nfilesystem_store_datadir = /var/lib/glance/images\n\
             [os_glance_staging_store]\nfilesystem_store_datadir = /var/lib/glance/staging\n\
             [os_glance_tasks_store]\nfilesystem_store_datadir = /var/lib/glance/tasks\n\
             [paste_deploy]\nflavor = keystone\n\
             config_file = {}/etc/glance/glance-api-paste.ini\n{}",
            self.database("glance"),
            self.venv.display(),
            self.login("keystone_authtoken")
        )
    }

    /// What all of Nova's services have in common.
    fn nova(&self, top: &str) -> String {
        let logins = ["keystone_authtoken", "placement", "neutron", "service_user"];
        let logins: String = logins.iter().map(|section| self.login(section)).collect();
        format!(
            "[DEFAULT]\n{top}transport_url = rabbit://guest:guest@{}:5672/\n\
             osapi_compute_workers = 1\nvif_plugging_is_fatal = False\nvif_plugging_timeout = 0\n\
             [conductor]\nworkers = 1\n[scheduler]\nworkers = 1\n\
             [oslo_messaging_rabbit]\nheartbeat_in_pthread = False\n\
             [vnc]\nenabled = False\n{logins}{}{}",
            self.controller,
            self.login("glance"),
            self.login("keystone"),
        )
    }

    pub(crate) fn nova_controller(&self) -> String {
        format!(
            "{}[api_database]\nconnection = {}\n[database]\nconnection = {}\n\
             [oslo_concurrency]\nlock_path = {FOLDER}/nova/locks\n\
             [filter_scheduler]\ntrack_instance_changes = False\n",
            self.nova(""),
            self.database("nova_api"),
            self.database("nova")
        )
    }

    /// Of the nova-compute on the host `name`. What is beside Nova's defaults: no network, no
    /// KVM, migrations over TCP, a helper that sudo starts, little patience with guests, since
    /// the lab's do not heed the power button, and consoles that are sockets: of a pty, which is the
    /// default, Nova's reader takes bytes and appends them to the log, where they stand twice.
    pub(crate) fn nova_compute(&self, name: &str, address: &str) -> String {
        let top = format!(
            "host = {name}\nmy_ip = {address}\nstate_path = /var/lib/nova\n\
             instances_path = {INSTANCES}\ncompute_driver = libvirt.LibvirtDriver\n\
             log_file = {LOGS}/nova-compute.log\nshutdown_timeout = 5\nreport_interval = 3\n"
        );
        let helper = format!(
            "helper_command = sudo -n {}/bin/privsep-helper --config-file {FOLDER}/nova.conf\n",
            self.venv.display()
        );
        format!(
            "{}[libvirt]\nvirt_type = qemu\nlive_migration_scheme = tcp\n\
             live_migration_inbound_addr = {address}\nwait_soft_reboot_seconds = 5\n\
             [serial_console]\nenabled = True\nproxyclient_address = {address}\n\
             [nova_sys_admin]\n{helper}[privsep_osbrick]\n{helper}\
             [oslo_concurrency]\nlock_path = /var/lib/nova/locks\n\
             [workarounds]\ndisable_deep_image_inspection = True\n",
            self.nova(&top)
        )
    }

    /// Of gunicorn, which serves an API at its port, and at a socket for this program. It is a
    /// file because services parse the arguments of the program that they are loaded into. Clients ask
    /// again every two seconds, just when gunicorn would close a connection by itself.
    pub(crate) fn gunicorn(&self, service: Service, application: &str) -> String {
        format!(
            "wsgi_app = \"{application}\"\n\
             bind = [\"{}:{}\", \"unix:{}\"]\n\
             workers = 1\nworker_class = \"gthread\"\nthreads = 8\ntimeout = 300\n\
             keepalive = 75\n\
             control_socket_disable = True\n",
            self.controller,
            service.port(),
            service.socket()
        )
    }

    pub(crate) fn rabbit(&self) -> String {
        format!(
            "listeners.tcp.1 = {}:5672\nloopback_users = none\n\
             disk_free_limit.absolute = 50MB\nlog.console = false\n",
            self.controller
        )
    }
}

/// Tempest's, for a cloud that has no volumes and no networks, and whose guests print by themselves.
pub(crate) fn tempest(controller: &str, image: &str) -> String {
    let url = Service::Keystone.url(controller);
    format!(
        "[DEFAULT]\nlog_file = {LOGS}/tempest.log\n\
         [auth]\nadmin_username = admin\nadmin_password = {PASSWORD}\n\
         admin_project_name = admin\nadmin_domain_name = Default\n\
         create_isolated_networks = False\n\
         [identity]\nauth_version = v3\nuri_v3 = {url}\n\
         [oslo_concurrency]\nlock_path = {FOLDER}/tempest/locks\n\
         [compute]\nimage_ref = {image}\nimage_ref_alt = {image}\n\
         flavor_ref = tiny\nflavor_ref_alt = larger\nmin_compute_nodes = 2\n\
         [compute-feature-enabled]\nlive_migration = True\n\
         block_migration_for_live_migration = True\nlive_migrate_back_and_forth = True\n\
         console_output = True\nvnc_console = False\n\
         [validation]\nrun_validation = False\n\
         [service_available]\nneutron = False\ncinder = False\nswift = False\n\
         horizon = False\n\
         [logchain]\nrun_user_data = False\nline_pattern = ^LC (\\d+) abc\n"
    )
}

/// QEMU as a user of its own, who is given the files that it needs: as distributions have it.
pub(crate) fn qemu(address: &str) -> String {
    format!(
        "security_driver = \"none\"\nseccomp_sandbox = 0\ncgroup_controllers = []\n\
         namespaces = []\nstdio_handler = \"logd\"\nmigration_address = \"{address}\"\n"
    )
}

/// nova-compute's right to start its helper, and nothing else.
pub(crate) fn sudoers(venv: &Path) -> String {
    format!(
        "nova ALL=(root) NOPASSWD: {}/bin/privsep-helper *\n",
        venv.display()
    )
}
