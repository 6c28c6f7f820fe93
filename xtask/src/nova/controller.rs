//! The host with everything but hypervisors: database, messages, and the services' APIs.

use std::ffi::OsString;
use std::time::Duration;

use anyhow::{Context as _, Result};
use logchain_tests::Host;

use super::api::{Api, PASSWORD, Service};
use super::config::{DATA, FOLDER, Facts, LOGS};
use super::daemon::{Daemon, Recipe};
use super::files::{keep_folder, make_folder, write};
use super::http;
use super::wait::until;

/// A command that fills a database takes a quarter of a minute, and more on a busy machine.
const COMMAND: Duration = Duration::from_secs(300);
/// Where MariaDB listens beside its port.
const SQL: &str = "/run/cloud-mysql.sock";

pub(crate) struct Controller<'a> {
    pub(crate) host: &'a Host,
    pub(crate) facts: &'a Facts<'a>,
}

impl Controller<'_> {
    /// Writes the configuration of every service here.
    pub(crate) fn folders(&self) -> Result<()> {
        let Controller { host, facts } = self;
        let folders = ["keystone", "placement", "glance", "nova/locks", "rabbit"];
        for folder in folders {
            make_folder(host, &format!("{FOLDER}/{folder}"))?;
        }
        for folder in ["images", "staging", "tasks"] {
            make_folder(host, &format!("/var/lib/glance/{folder}"))?;
        }
        make_folder(host, LOGS)?;
        for (file, text) in [
            ("keystone/keystone.conf", facts.keystone()),
            ("placement/placement.conf", facts.placement()),
            ("glance/glance-api.conf", facts.glance()),
            ("nova/nova.conf", facts.nova_controller()),
            ("rabbit/rabbitmq.conf", facts.rabbit()),
            ("rabbit/plugins", String::new()),
        ] {
            write(host, &format!("{FOLDER}/{file}"), &text)?;
        }
        // Nova looks for it beside its configuration and nowhere else.
        let paste = facts.venv.join("etc/nova/api-paste.ini");
        let text = std::fs::read_to_string(&paste);
        let text = text.with_context(|| format!("cannot read {}", paste.display()))?;
        write(host, &format!("{FOLDER}/nova/api-paste.ini"), &text)?;
        Ok(())
    }

    pub(crate) fn rabbit(&self) -> Result<Daemon> {
        let folder = format!("{FOLDER}/rabbit");
        let data = "/var/lib/cloud-rabbit";
        let env = [
            ("HOME", data.to_owned()),
            ("RABBITMQ_NODENAME", "cloud@localhost".to_owned()),
            ("RABBITMQ_MNESIA_BASE", format!("{data}/db")),
            ("RABBITMQ_LOG_BASE", format!("{data}/log")),
            ("RABBITMQ_CONFIG_FILE", format!("{folder}/rabbitmq.conf")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", format!("{folder}/plugins")),
            ("RABBITMQ_PID_FILE", format!("{data}/pid")),
            // One thread of Erlang's is enough, and leaves the processors to the guests.
            ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+S 1:1".to_owned()),
        ];
        make_folder(self.host, data)?;
        let recipe = Recipe {
            name: "RabbitMQ".to_owned(),
            args: vec!["/usr/lib/rabbitmq/bin/rabbitmq-server".into()],
            env: env.map(|(name, value)| (name.to_owned(), value)).into(),
            log: Some(format!("{data}/log/cloud@localhost.log")),
        };
        Daemon::start(self.host, recipe)
    }

    /// MariaDB with all schemas. They are made once and kept beside OpenStack, since making them
    /// takes half a minute.
    pub(crate) fn database(&self) -> Result<Daemon> {
        let kept = self.facts.venv.join("databases");
        let there = self.host.path(DATA);
        if kept.is_dir() {
            self.run(["cp", "-a", &kept.to_string_lossy(), DATA])?;
            return self.start_database();
        }
        self.run([
            "mariadb-install-db",
            "--no-defaults",
            "--user=mysql",
            &format!("--datadir={DATA}"),
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ])?;
        let database = self.start_database()?;
        self.make_schemas().with_context(|| database.last_lines())?;
        // The files of a database that has been shut down can be copied.
        self.sql("shutdown")?;
        until("MariaDB to end", COMMAND, || {
            Ok((!database.lives()?).then_some(()))
        })?;
        drop(database);
        keep_folder(&there, &kept)?;
        self.start_database()
    }

    fn start_database(&self) -> Result<Daemon> {
        let address = self.facts.controller;
        let args = [
            "mariadbd".to_owned(),
            "--no-defaults".to_owned(),
            "--user=mysql".to_owned(),
            format!("--datadir={DATA}"),
            format!("--socket={SQL}"),
            format!("--pid-file={DATA}/pid"),
            format!("--bind-address={address}"),
            "--skip-name-resolve".to_owned(),
            "--innodb-flush-log-at-trx-commit=0".to_owned(),
            "--innodb-buffer-pool-size=64M".to_owned(),
            "--innodb-log-file-size=16M".to_owned(),
            "--max-connections=400".to_owned(),
            "--performance-schema=OFF".to_owned(),
            "--character-set-server=utf8mb3".to_owned(),
        ];
        // It wants to make its socket as the user mysql.
        self.run(["chmod", "1777", "/run"])?;
        let recipe = Recipe {
            name: "MariaDB".to_owned(),
            args: args.map(OsString::from).into(),
            env: Vec::new(),
            log: None,
        };
        let database = Daemon::start(self.host, recipe)?;
        database.ready(|| Ok(self.sql("select 1").is_ok()))?;
        Ok(database)
    }

    fn sql(&self, statement: &str) -> Result<()> {
        let socket = format!("--socket={SQL}");
        self.run([
            "mariadb",
            "--no-defaults",
            "-uroot",
            &socket,
            "-e",
            statement,
        ])
    }

    fn make_schemas(&self) -> Result<()> {
        self.sql("create user root@'%'; grant all on *.* to root@'%' with grant option")?;
        for name in [
            "keystone",
            "placement",
            "glance",
            "nova_api",
            "nova",
            "nova_cell0",
        ] {
            self.sql(&format!("create database {name} character set utf8mb3"))?;
        }
        self.manage("keystone", &["db_sync"])?;
        self.manage("placement", &["db", "sync"])?;
        self.manage("glance", &["db_sync"])?;
        self.manage("nova", &["api_db", "sync"])?;
        let cell0 = format!("mysql+pymysql://root@{}/nova_cell0", self.facts.controller);
        let map = ["cell_v2", "map_cell0", "--database_connection", &cell0];
        self.manage("nova", &map)?;
        self.manage("nova", &["cell_v2", "create_cell", "--name", "cell1"])?;
        self.manage("nova", &["db", "sync"])
    }

    /// `keystone-manage`, `nova-manage` and so on.
    fn manage(&self, service: &str, args: &[&str]) -> Result<()> {
        let program = self.facts.venv.join(format!("bin/{service}-manage"));
        let config = match service {
            "glance" => "glance/glance-api.conf".to_owned(),
            other => format!("{other}/{other}.conf"),
        };
        let command = self
            .host
            .command([program.as_os_str()])
            .args(["--config-file", &format!("{FOLDER}/{config}")])
            .args(args)
            .limit(COMMAND);
        command.run()?.checked()?;
        Ok(())
    }

    fn run<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Result<()> {
        self.host.command(args).limit(COMMAND).run()?.checked()?;
        Ok(())
    }

    /// All services of the controller, in the order in which they need each other.
    pub(crate) fn services(&self, services: &mut Vec<Daemon>) -> Result<Api> {
        let address = self.facts.controller;
        for setup in ["fernet_setup", "credential_setup"] {
            let who = ["--keystone-user", "root", "--keystone-group", "root"];
            let args: Vec<_> = [setup].into_iter().chain(who).collect();
            self.manage("keystone", &args)?;
        }
        let url = Service::Keystone.url(address);
        self.manage(
            "keystone",
            &[
                "bootstrap",
                "--bootstrap-password",
                PASSWORD,
                "--bootstrap-admin-url",
                &url,
                "--bootstrap-internal-url",
                &url,
                "--bootstrap-public-url",
                &url,
                "--bootstrap-region-id",
                "RegionOne",
            ],
        )?;
        let mut apis = Vec::new();
        for service in Service::ALL {
            apis.push((service, self.api_of(service)?));
        }
        let answers = |service: Service| move || Ok(answers(self.host, service));
        for (service, daemon) in &apis {
            if *service == Service::Keystone {
                daemon.ready(answers(*service))?;
            }
        }
        let api = Api::log_in(self.host)?;
        api.furnish(address)?;
        // These log in when they start, and look services up in the catalogue.
        for name in ["nova-conductor", "nova-scheduler"] {
            let log = format!("{LOGS}/{name}.log");
            let program = self.facts.venv.join(format!("bin/{name}"));
            let config = format!("{FOLDER}/nova/nova.conf");
            let recipe = Recipe {
                name: name.to_owned(),
                args: vec![
                    program.into(),
                    "--config-file".into(),
                    config.into(),
                    "--log-file".into(),
                    (&log).into(),
                ],
                env: Vec::new(),
                log: Some(log),
            };
            services.push(Daemon::start(self.host, recipe)?);
        }
        for (service, daemon) in apis {
            daemon.ready(answers(service))?;
            services.push(daemon);
        }
        Ok(api)
    }

    /// A service's API in gunicorn.
    fn api_of(&self, service: Service) -> Result<Daemon> {
        let application = match service {
            Service::Keystone => "keystone.wsgi.api:application",
            Service::Glance => "glance.wsgi.api:application",
            Service::Placement => "placement.wsgi.api:application",
            Service::Nova => "nova.wsgi.osapi_compute:application",
            Service::Neutron => "network_stub:application",
        };
        let name = service.name();
        let config = format!("{FOLDER}/{name}.gunicorn.py");
        write(
            self.host,
            &config,
            &self.facts.gunicorn(service, application),
        )?;
        let folder = |name: &str| format!("{FOLDER}/{name}/");
        let stub = super::install::tests()
            .canonicalize()
            .context("tests/nova")?;
        let env = [
            ("GUNICORN_CMD_ARGS", format!("-c {config}")),
            ("OS_KEYSTONE_CONFIG_DIR", folder("keystone")),
            ("OS_PLACEMENT_CONFIG_DIR", folder("placement")),
            ("OS_GLANCE_CONFIG_DIR", folder("glance")),
            ("OS_NOVA_CONFIG_DIR", folder("nova")),
            ("PYTHONPATH", stub.to_string_lossy().into_owned()),
            ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
        ];
        let recipe = Recipe {
            name: format!("{name}'s API"),
            args: vec![self.facts.venv.join("bin/gunicorn").into()],
            env: env.map(|(name, value)| (name.to_owned(), value)).into(),
            log: Some(format!("{LOGS}/{name}.log")),
        };
        Daemon::start(self.host, recipe)
    }

    /// Servers go only to hosts that their cell knows.
    pub(crate) fn map_hosts(&self) -> Result<()> {
        self.manage("nova", &["cell_v2", "discover_hosts"])
    }
}

/// Whether somebody listens at this port, on whatever address of the host.
pub(crate) fn listens(host: &Host, port: u16) -> Result<bool> {
    let path = host.path("/proc/1/net/tcp");
    let table = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    // local address, remote address, state: 0A is LISTEN.
    let wanted = format!(":{port:04X}");
    Ok(table.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let local = words.get(1).is_some_and(|local| local.ends_with(&wanted));
        local && words.get(3) == Some(&"0A")
    }))
}

/// Whether a service answers, whatever it says to somebody without a token.
fn answers(host: &Host, service: Service) -> bool {
    let request = http::Request {
        method: "GET",
        path: "/",
        headers: &[],
        body: b"",
    };
    http::ask(&host.path(service.socket()), &request).is_ok()
}
