//! The calls to Keystone, Glance and Nova that an operator and a tenant make, as the
//! administrator of the cloud.

use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, bail};
use logchain_tests::Host;
use serde_json::{Value, json};

use super::http::{Answer, Request, ask};

/// `host` for new servers needs 2.74, and a live migration whose host the scheduler checks 2.68.
const NOVA_VERSION: &str = "compute 2.90";

/// Password of the administrator. Nobody outside the cloud's own network can use it.
pub(crate) const PASSWORD: &str = "admin";

/// A service with an API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    Keystone,
    Glance,
    Placement,
    Nova,
    Neutron,
}

impl Service {
    /// Each of them.
    pub(crate) const ALL: [Service; 5] = [
        Self::Keystone,
        Self::Glance,
        Self::Placement,
        Self::Nova,
        Self::Neutron,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Keystone => "keystone",
            Self::Glance => "glance",
            Self::Placement => "placement",
            Self::Nova => "nova",
            Self::Neutron => "neutron",
        }
    }

    /// What the catalogue calls its kind.
    fn kind(self) -> &'static str {
        match self {
            Self::Keystone => "identity",
            Self::Glance => "image",
            Self::Placement => "placement",
            Self::Nova => "compute",
            Self::Neutron => "network",
        }
    }

    pub(crate) fn port(self) -> u16 {
        match self {
            Self::Keystone => 5000,
            Self::Glance => 9292,
            Self::Placement => 8778,
            Self::Nova => 8774,
            Self::Neutron => 9696,
        }
    }

    /// Where it listens beside its port, for this program.
    pub(crate) fn socket(self) -> String {
        format!("/run/{}.sock", self.name())
    }

    /// Its address in the cloud's network.
    pub(crate) fn url(self, address: &str) -> String {
        let path = match self {
            Self::Keystone => "/v3",
            Self::Nova => "/v2.1",
            _ => "",
        };
        format!("http://{address}:{}{path}", self.port())
    }
}

/// What speaks to the services, with a token.
pub(crate) struct Api {
    controller: Host,
    token: String,
}

impl Api {
    /// Logs in.
    pub(crate) fn log_in(controller: &Host) -> Result<Self> {
        let body = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": {
                "name": "admin", "domain": {"id": "default"}, "password": PASSWORD}}},
            "scope": {"project": {"name": "admin", "domain": {"id": "default"}}},
        }});
        let mut api = Api {
            controller: controller.clone(),
            token: String::new(),
        };
        let answer = api.send(Service::Keystone, "POST", "/v3/auth/tokens", &body)?;
        let token = answer.header("X-Subject-Token");
        api.token = token.context("Keystone gave no token")?.to_owned();
        Ok(api)
    }

    fn socket(&self, service: Service) -> PathBuf {
        self.controller.path(service.socket())
    }

    fn send(&self, service: Service, method: &str, path: &str, body: &Value) -> Result<Answer> {
        let text = match body {
            Value::Null => String::new(),
            other => other.to_string(),
        };
        let answer = self.raw(service, method, path, "application/json", text.as_bytes())?;
        if answer.status >= 400 {
            bail!(
                "{} answered {} to {method} {path}: {}",
                service.name(),
                answer.status,
                String::from_utf8_lossy(&answer.body)
            );
        }
        Ok(answer)
    }

    fn raw(
        &self,
        service: Service,
        method: &str,
        path: &str,
        kind: &str,
        body: &[u8],
    ) -> Result<Answer> {
        let headers = [
            ("X-Auth-Token", self.token.as_str()),
            ("OpenStack-API-Version", NOVA_VERSION),
            ("Content-Type", kind),
        ];
        let request = Request {
            method,
            path,
            headers: &headers,
            body,
        };
        ask(&self.socket(service), &request)
    }

    /// A call whose answer is JSON; null where it is empty.
    pub(crate) fn call(
        &self,
        service: Service,
        method: &str,
        path: &str,
        body: &Value,
    ) -> Result<Value> {
        let answer = self.send(service, method, path, body)?;
        if answer.body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&answer.body)
            .with_context(|| format!("{}'s answer to {method} {path}", service.name()))
    }

    fn get(&self, service: Service, path: &str) -> Result<Value> {
        self.call(service, "GET", path, &Value::Null)
    }

    /// Tells Keystone where the services are, and gives the administrator the role of a service.
    pub(crate) fn furnish(&self, address: &str) -> Result<()> {
        use Service::{Glance, Keystone, Neutron, Nova, Placement};
        for service in [Glance, Placement, Nova, Neutron] {
            let body = json!({"service": {"type": service.kind(), "name": service.name()}});
            let made = self.call(Keystone, "POST", "/v3/services", &body)?;
            let id = id_in(&made, "service")?;
            for interface in ["public", "internal", "admin"] {
                let body = json!({"endpoint": {"service_id": id, "interface": interface,
                    "url": service.url(address), "region_id": "RegionOne"}});
                self.call(Keystone, "POST", "/v3/endpoints", &body)?;
            }
        }
        // Middleware asks for this role of whoever calls on behalf of a user. The bootstrap has
        // made it where Keystone is new enough.
        let roles = self.get(Keystone, "/v3/roles?name=service")?;
        let role = match id_of_first(&roles, "roles") {
            Some(id) => id,
            None => {
                let body = json!({"role": {"name": "service"}});
                id_in(&self.call(Keystone, "POST", "/v3/roles", &body)?, "role")?
            }
        };
        let user = self.get(Keystone, "/v3/users?name=admin")?;
        let project = self.get(Keystone, "/v3/projects?name=admin")?;
        let user = id_of_first(&user, "users").context("Keystone has no administrator")?;
        let project = id_of_first(&project, "projects").context("Keystone has no project")?;
        let path = format!("/v3/projects/{project}/users/{user}/roles/{role}");
        self.call(Keystone, "PUT", &path, &Value::Null)?;
        Ok(())
    }

    /// Makes what servers are made of, images and flavours; Glance and Nova have to be up.
    pub(crate) fn stock(&self, image: &Image<'_>) -> Result<()> {
        let kernel = self.upload(
            json!({"name": "kernel", "disk_format": "aki",
            "container_format": "aki", "visibility": "public"}),
            image.kernel,
        )?;
        let ramdisk = self.upload(
            json!({"name": "ramdisk", "disk_format": "ari",
            "container_format": "ari", "visibility": "public"}),
            image.ramdisk,
        )?;
        for (name, pace) in image.paces {
            self.upload(
                json!({"name": name, "disk_format": "raw", "container_format": "bare",
                "visibility": "public", "kernel_id": kernel, "ramdisk_id": ramdisk,
                "os_command_line": format!("{} lc_pace={pace}", image.arguments)}),
                image.disk,
            )?;
        }
        for (name, disk) in [("tiny", 1), ("larger", 2)] {
            let body = json!({"flavor": {"name": name, "id": name, "ram": 96, "vcpus": 1,
                "disk": disk}});
            self.call(Service::Nova, "POST", "/v2.1/flavors", &body)?;
        }
        Ok(())
    }

    fn upload(&self, image: Value, bytes: &[u8]) -> Result<String> {
        let made = self.call(Service::Glance, "POST", "/v2/images", &image)?;
        let id = text(&made, "id")?;
        let path = format!("/v2/images/{id}/file");
        let answer = self.raw(
            Service::Glance,
            "PUT",
            &path,
            "application/octet-stream",
            bytes,
        )?;
        if answer.status >= 300 {
            bail!(
                "Glance answered {} to an image: {}",
                answer.status,
                String::from_utf8_lossy(&answer.body)
            );
        }
        Ok(id)
    }

    /// The id of the image with this name.
    pub(crate) fn image(&self, name: &str) -> Result<String> {
        let images = self.get(Service::Glance, &format!("/v2/images?name={name}"))?;
        id_of_first(&images, "images").with_context(|| format!("Glance has no image {name}"))
    }

    /// Has a server made on `host`; gives its id.
    pub(crate) fn create(&self, name: &str, image: &str, host: &str) -> Result<String> {
        let image = self.image(image)?;
        let body = json!({"server": {"name": name, "imageRef": image, "flavorRef": "tiny",
            "networks": "none", "host": host}});
        let made = self.call(Service::Nova, "POST", "/v2.1/servers", &body)?;
        id_in(&made, "server")
    }

    /// The ids of all servers that there are.
    pub(crate) fn servers(&self) -> Result<Vec<String>> {
        let all = self.get(Service::Nova, "/v2.1/servers")?;
        let all = all.get("servers").and_then(Value::as_array);
        let ids = all.into_iter().flatten();
        Ok(ids
            .filter_map(|server| Some(server.get("id")?.as_str()?.to_owned()))
            .collect())
    }

    /// All that Nova says of a server; none where it has no such server (any more).
    pub(crate) fn server(&self, id: &str) -> Result<Option<Value>> {
        let path = format!("/v2.1/servers/{id}");
        let answer = self.raw(Service::Nova, "GET", &path, "application/json", b"")?;
        if answer.status == 404 {
            return Ok(None);
        }
        if answer.status >= 400 {
            bail!(
                "Nova answered {} to GET {path}: {}",
                answer.status,
                String::from_utf8_lossy(&answer.body)
            );
        }
        let value: Value = serde_json::from_slice(&answer.body).context("Nova's answer")?;
        Ok(value.get("server").cloned())
    }

    /// An action on a server, as `{"reboot": {"type": "HARD"}}`.
    pub(crate) fn act(&self, id: &str, action: &Value) -> Result<Value> {
        let path = format!("/v2.1/servers/{id}/action");
        self.call(Service::Nova, "POST", &path, action)
    }

    /// Asks Nova to delete a server.
    pub(crate) fn delete(&self, id: &str) -> Result<()> {
        let path = format!("/v2.1/servers/{id}");
        self.call(Service::Nova, "DELETE", &path, &Value::Null)?;
        Ok(())
    }

    /// What `openstack console log show` prints, or the status that Nova refused it with.
    pub(crate) fn console(&self, id: &str) -> Result<Result<String, u16>> {
        let path = format!("/v2.1/servers/{id}/action");
        let body = json!({"os-getConsoleOutput": {}}).to_string();
        let kind = "application/json";
        let answer = self.raw(Service::Nova, "POST", &path, kind, body.as_bytes())?;
        if answer.status >= 400 {
            return Ok(Err(answer.status));
        }
        let value: Value = serde_json::from_slice(&answer.body).context("Nova's answer")?;
        Ok(Ok(text(&value, "output")?))
    }

    /// The newest migration of a server: its id and its status.
    pub(crate) fn migration(&self, id: &str) -> Result<Option<(u64, String)>> {
        let all = self.get(
            Service::Nova,
            &format!("/v2.1/os-migrations?instance_uuid={id}"),
        )?;
        let all = all.get("migrations").and_then(Value::as_array);
        let newest = all.into_iter().flatten().filter_map(|migration| {
            let number = migration.get("id")?.as_u64()?;
            Some((number, migration.get("status")?.as_str()?.to_owned()))
        });
        Ok(newest.max_by_key(|(number, _)| *number))
    }

    /// Aborts a live migration.
    pub(crate) fn abort(&self, id: &str, migration: u64) -> Result<()> {
        let path = format!("/v2.1/servers/{id}/migrations/{migration}");
        self.call(Service::Nova, "DELETE", &path, &Value::Null)?;
        Ok(())
    }

    /// When the nova-compute of a host last told Nova that it is up; none while Nova takes it to
    /// be down.
    pub(crate) fn beat(&self, host: &str) -> Result<Option<String>> {
        let path = format!("/v2.1/os-services?binary=nova-compute&host={host}");
        let all = self.get(Service::Nova, &path)?;
        let services = all.get("services").and_then(Value::as_array);
        Ok(services.into_iter().flatten().find_map(|service| {
            let up = service.get("state")?.as_str()? == "up";
            let beat = service.get("updated_at")?.as_str()?;
            up.then(|| beat.to_owned())
        }))
    }

    /// Tells Nova that a host is down, or is so no more, before it notices by itself.
    pub(crate) fn force_down(&self, host: &str, down: bool) -> Result<()> {
        let all = self.get(
            Service::Nova,
            &format!("/v2.1/os-services?binary=nova-compute&host={host}"),
        )?;
        let id = id_of_first(&all, "services")
            .with_context(|| format!("Nova knows no nova-compute on {host}"))?;
        let path = format!("/v2.1/os-services/{id}");
        self.call(Service::Nova, "PUT", &path, &json!({"forced_down": down}))?;
        Ok(())
    }
}

/// What a server boots.
pub(crate) struct Image<'a> {
    pub(crate) kernel: &'a [u8],
    pub(crate) ramdisk: &'a [u8],
    pub(crate) disk: &'a [u8],
    pub(crate) arguments: &'a str,
    /// Names of images, and microseconds from line to line.
    pub(crate) paces: &'a [(&'a str, u32)],
}

fn text(value: &Value, key: &str) -> Result<String> {
    let found = value.get(key).and_then(Value::as_str);
    found
        .map(str::to_owned)
        .ok_or_else(|| anyhow!("an answer without {key}: {value}"))
}

fn id_in(value: &Value, key: &str) -> Result<String> {
    let inner = value
        .get(key)
        .ok_or_else(|| anyhow!("an answer without {key}: {value}"))?;
    text(inner, "id")
}

fn id_of_first(value: &Value, key: &str) -> Option<String> {
    let first = value.get(key)?.as_array()?.first()?;
    Some(first.get("id")?.as_str()?.to_owned())
}
